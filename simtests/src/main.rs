//! `cargo sim`: runs seeds, replays one, says what happened.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::Parser;
use simtests::run::{Plan, Report, run};

/// Deterministic simulation of whole clusters.
#[derive(Debug, Parser)]
struct Cli {
    /// How many seeds.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happened, line by line (with `--seed`).
    #[arg(long)]
    trace: bool,
    /// Seconds of load and faults in each run.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Runs at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Run each seed twice and compare the histories.
    #[arg(long)]
    twice: bool,
    /// What the nodes log: a filter as `RUST_LOG` has it.
    #[arg(long)]
    log: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(filter) = &cli.log {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .without_time()
            .init();
    }
    let seeds: Vec<u64> = match cli.seed {
        Some(seed) => vec![seed],
        None => (cli.from..cli.from + cli.seeds).collect(),
    };
    let queue = Arc::new(Mutex::new(seeds.into_iter()));
    let totals = Arc::new(Mutex::new(Totals::default()));
    let workers: Vec<_> = (0..cli.jobs.max(1))
        .map(|_| {
            let (queue, totals) = (Arc::clone(&queue), Arc::clone(&totals));
            let (seconds, trace, twice) = (cli.seconds, cli.trace, cli.twice);
            std::thread::spawn(move || {
                loop {
                    let Some(seed) = queue.lock().ok().and_then(|mut queue| queue.next()) else { break };
                    let mut plan = Plan::of_seed(seed, seconds);
                    plan.keep_trace = trace;
                    let mut report = run(plan.clone());
                    if twice {
                        let again = run(plan);
                        if again.hash != report.hash {
                            let same = report
                                .checkpoints
                                .iter()
                                .zip(&again.checkpoints)
                                .take_while(|(one, other)| one == other)
                                .count();
                            report.violations.push(format!(
                                "the seed has two histories: {} and {}, the same for {same} thousand events",
                                report.hash, again.hash
                            ));
                            for (one, other) in report.lines.iter().zip(&again.lines) {
                                if one != other {
                                    report.violations.push(format!("first difference:\n  {one}\n  {other}"));
                                    break;
                                }
                            }
                        }
                    }
                    if let Ok(mut totals) = totals.lock() {
                        totals.add(&report, trace);
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        let _ = worker.join();
    }
    let totals = totals.lock().map(|totals| totals.clone()).unwrap_or_default();
    totals.print();
    if totals.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Clone, Default)]
struct Totals {
    seeds: u64,
    simulated: f64,
    real: f64,
    events: u64,
    counts: BTreeMap<String, u64>,
    failed: Vec<u64>,
}

impl Totals {
    fn add(&mut self, report: &Report, trace: bool) {
        if trace {
            for line in &report.lines {
                println!("{line}");
            }
        }
        self.seeds += 1;
        self.simulated += report.simulated;
        self.real += report.real;
        self.events += report.events;
        for (name, count) in &report.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
        let verdict = if report.violations.is_empty() { "ok" } else { "FAILED" };
        println!(
            "seed {} {verdict} hash {} events {} simulated {:.0} s in {:.1} s",
            report.seed, report.hash, report.events, report.simulated, report.real
        );
        for violation in report.violations.iter().take(8).chain(report.violations.iter().skip(8).rev().take(if std::env::var_os("SIM_ALL").is_some() { 60 } else { 4 })) {
            println!("    {violation}");
        }
        if !report.violations.is_empty() {
            self.failed.push(report.seed);
        }
    }

    fn print(&self) {
        for (name, count) in &self.counts {
            println!("{count:>10} {name}");
        }
        println!(
            "{} seeds, {:.2} simulated hours, {:.1} simulated seconds per second, {} events",
            self.seeds,
            self.simulated / 3600.0,
            self.simulated / self.real.max(0.001),
            self.events
        );
        println!("failed: {:?}", self.failed);
    }
}
