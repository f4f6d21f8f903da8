//! What many runs come to.

use oracle::coverage::Coverage;

use crate::run::{EXPECTED, Report};

/// From so many runs on, what was never hit is named.
const ENOUGH_RUNS: u64 = 100;
/// Violations of one run that are shown.
const SHOWN: usize = 8;

/// The runs so far.
#[derive(Clone, Default)]
pub struct Totals {
    /// How many.
    pub seeds: u64,
    /// Runs that were to be made, and were not begun in time.
    pub not_begun: u64,
    /// Simulated seconds.
    pub simulated: f64,
    /// Seconds of work.
    pub real: f64,
    /// Events of the traces.
    pub events: u64,
    /// Counters.
    pub coverage: Coverage,
    /// The seeds that failed: the first violation, and how to see it again.
    pub failed: Vec<(u64, String, String)>,
}

impl Totals {
    /// One more, with the command that makes it again; a line for it on stdout.
    pub fn add(&mut self, report: &Report, command: &str) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.real += report.real;
        self.events += report.events;
        self.coverage.merge(&report.coverage);
        let verdict = if report.violations.is_empty() { "ok" } else { "FAILED" };
        let of = command.split("--scenario ").nth(1);
        let of = of.and_then(|rest| rest.split(' ').next());
        let of = of.map(|name| format!(" of {name}")).unwrap_or_default();
        println!(
            "seed {}{of} {verdict} hash {} events {} simulated {:.0} s in {:.1} s",
            report.seed, report.hash, report.events, report.simulated, report.real
        );
        let shown = if std::env::var_os("SIM_ALL").is_some() {
            usize::MAX
        } else {
            SHOWN
        };
        for violation in report.violations.iter().take(shown) {
            println!("    {violation}");
        }
        if let Some(first) = report.violations.first() {
            self.failed.push((report.seed, first.clone(), command.to_owned()));
        }
    }

    /// Whether nothing was violated.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failed.is_empty()
    }

    /// Prints counters, figures, and what failed.
    pub fn print(&self) {
        println!("{}", self.coverage);
        println!(
            "{} seeds, {:.2} simulated hours, {:.1} simulated seconds per second of one core, {} events",
            self.seeds,
            self.simulated / 3600.0,
            self.simulated / self.real.max(0.001),
            self.events
        );
        if self.not_begun > 0 {
            println!("{} seeds were not begun in time", self.not_begun);
        }
        if self.seeds >= ENOUGH_RUNS {
            match self.coverage.missing(EXPECTED).as_slice() {
                [] => println!("every branch that is expected was hit"),
                missing => println!("never hit: {}", missing.join(", ")),
            }
        }
        if self.is_clean() {
            println!("no violation");
            return;
        }
        println!("{} failed:", self.failed.len());
        for (seed, violation, command) in &self.failed {
            println!("seed {seed}: {violation}");
            println!("    {command} --trace");
        }
    }
}
