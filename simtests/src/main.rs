//! `cargo sim`: runs seeds, replays one, says what happened.

use std::process::ExitCode;
use std::sync::Mutex;

use clap::Parser;
#[cfg(feature = "mutants")]
use core_types::mutants::{self, Mutant};
use oracle::coverage::Coverage;
use oracle::schedule::{Schedule, shrink};
#[cfg(feature = "mutants")]
use simtests::hunt;
use simtests::run::{Plan, Report, run, schedule as schedule_of};

/// Deterministic simulation of whole clusters.
#[derive(Debug, Parser)]
struct Cli {
    /// How many seeds: ten, where nothing is said.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happened, line by line (with `--seed`).
    #[arg(long)]
    trace: bool,
    /// Seconds of load and faults in each run: 60, where nothing is said.
    #[arg(long)]
    seconds: Option<u64>,
    /// Runs at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Print the seed's schedule and run nothing.
    #[arg(long)]
    print: bool,
    /// Run this schedule, as `--print` or `--shrink` writes it, in place of the seed's own.
    #[arg(long)]
    schedule: Option<std::path::PathBuf>,
    /// Look for the fewest faults with which the seed still fails.
    #[arg(long)]
    shrink: bool,
    /// Print the report for another program.
    #[arg(long, hide = true)]
    child: bool,
    /// Run each seed twice and compare the histories.
    #[arg(long)]
    twice: bool,
    /// What the nodes log: a filter as `RUST_LOG` has it.
    #[arg(long)]
    log: Option<String>,
    /// Plant this bug (`all`: one after the other) and run seeds until one finds it, 200 of 30 seconds at most; with `--seed`
    /// only that one.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<String>,
}

impl Cli {
    fn seconds(&self) -> u64 {
        #[cfg(feature = "mutants")]
        if self.mutant.is_some() {
            return self.seconds.unwrap_or(hunt::SECONDS);
        }
        self.seconds.unwrap_or(60)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(filter) = &cli.log {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .without_time()
            .init();
    }
    let schedule = match cli.schedule.as_deref().map(read_schedule).transpose() {
        Ok(schedule) => schedule,
        Err(error) => {
            println!("{error}");
            return ExitCode::from(2);
        }
    };
    if let (true, Some(seed)) = (cli.print, cli.seed) {
        print!("{}", schedule_of(seed, cli.seconds()));
        return ExitCode::SUCCESS;
    }
    if let (true, Some(seed)) = (cli.shrink, cli.seed) {
        return shrink_seed(schedule.unwrap_or_else(|| schedule_of(seed, cli.seconds())));
    }
    #[cfg(feature = "mutants")]
    if let Some(name) = &cli.mutant {
        match (Mutant::named(name), cli.seed) {
            (Some(mutant), Some(_)) => mutants::plant(mutant),
            _ => return hunt(name, &cli),
        }
    }
    if let Some(seed) = cli.seed {
        let plan = Plan {
            schedule: schedule.unwrap_or_else(|| schedule_of(seed, cli.seconds())),
            keep_trace: cli.trace,
        };
        let report = run_once_or_twice(plan, cli.twice);
        for line in &report.lines {
            println!("{line}");
        }
        let mut totals = Totals::default();
        totals.add(&report);
        if cli.child {
            print!("{}", report.to_text());
        } else {
            totals.print();
        }
        return if totals.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let totals = run_all(&cli);
    totals.print();
    if totals.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Looks for planted bugs, and prints a table: name, the seed that found it, invariants.
#[cfg(feature = "mutants")]
fn hunt(name: &str, cli: &Cli) -> ExitCode {
    let wanted = |mutant: &Mutant| name == "all" || mutant.name() == name;
    let mutants: Vec<Mutant> = Mutant::ALL.into_iter().filter(wanted).collect();
    let Ok(program) = std::env::current_exe() else {
        return ExitCode::from(2);
    };
    if mutants.is_empty() {
        let names: Vec<&str> = Mutant::ALL.into_iter().map(Mutant::name).collect();
        println!("no bug is called {name}: {}", names.join(", "));
        return ExitCode::from(2);
    }
    let hunt = hunt::Hunt {
        from: cli.from,
        seeds: cli.seeds.unwrap_or(hunt::SEEDS_MAX),
        seconds: cli.seconds(),
        jobs: cli.jobs,
        ..hunt::Hunt::with(&program)
    };
    let mut all_found = true;
    for mutant in mutants {
        let found = hunt.hunt(mutant);
        all_found &= found.is_some();
        match found {
            Some(found) => {
                let ids: Vec<&str> = found.ids.iter().map(String::as_str).collect();
                let needed = found.seed + 1 - hunt.from;
                println!("| `{}` | {needed} | {} |", mutant.name(), ids.join(", "));
                found.violations.iter().for_each(|text| println!("    {text}"));
            }
            None => println!("| `{}` | not within {} | |", mutant.name(), hunt.seeds),
        }
    }
    if all_found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Each seed in a process of its own.
fn run_all(cli: &Cli) -> Totals {
    let queue = Mutex::new(cli.from..cli.from + cli.seeds.unwrap_or(10));
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let Some(seed) = queue.lock().ok().and_then(|mut queue| queue.next()) else {
                        break;
                    };
                    let report = in_a_child(seed, cli).unwrap_or_else(|error| Report {
                        seed,
                        violations: vec![format!("I34: {error}")],
                        ..Report::default()
                    });
                    if let Ok(mut totals) = totals.lock() {
                        totals.add(&report);
                    }
                }
            });
        }
    });
    totals.into_inner().unwrap_or_default()
}

fn in_a_child(seed: u64, cli: &Cli) -> Result<Report, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut arguments = vec!["--seed".to_owned(), seed.to_string()];
    arguments.extend(["--seconds".to_owned(), cli.seconds().to_string()]);
    if cli.twice {
        arguments.push("--twice".to_owned());
    }
    simtests::child::report_of(&program, &arguments)
}

fn run_once_or_twice(plan: Plan, twice: bool) -> Report {
    let mut report = run(plan.clone());
    if !twice {
        return report;
    }
    let again = run(plan);
    if again.hash != report.hash {
        let pairs = report.checkpoints.iter().zip(&again.checkpoints);
        let same = pairs.take_while(|(one, other)| one == other).count();
        report.violations.push(format!(
            "I34: the seed has two histories: {} and {}, the same for {same} thousand events",
            report.hash, again.hash
        ));
        if let Some((one, other)) = report.lines.iter().zip(&again.lines).find(|(one, other)| one != other) {
            report
                .violations
                .push(format!("I34: the first difference:\n  {one}\n  {other}"));
        }
    }
    report
}

fn read_schedule(path: &std::path::Path) -> Result<Schedule, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Schedule::parse(&text).map_err(|error| format!("{}: {error:?}", path.display()))
}

/// Prints the smallest schedule that fails in the same way: with a violation of the same id.
fn shrink_seed(schedule: Schedule) -> ExitCode {
    let kinds = |report: &Report| -> Vec<String> {
        let kind = |text: &String| text.split([' ', ':']).next().unwrap_or_default().to_owned();
        report.violations.iter().map(kind).collect()
    };
    let go = |schedule: &Schedule| {
        run(Plan {
            schedule: schedule.clone(),
            keep_trace: false,
        })
    };
    let first = kinds(&go(&schedule));
    let Some(wanted) = first.first().cloned() else {
        println!("the seed does not fail");
        return ExitCode::FAILURE;
    };
    let shrunk = shrink(&schedule, SHRINK_RUNS, |schedule| {
        let fails = kinds(&go(schedule)).contains(&wanted);
        println!(
            "# {} events: {}",
            schedule.events.len(),
            if fails { "fails" } else { "does not" }
        );
        fails
    });
    print!("{}", shrunk.schedule);
    ExitCode::SUCCESS
}

/// Runs that a shrinking may take.
const SHRINK_RUNS: usize = 60;

#[derive(Clone, Default)]
struct Totals {
    seeds: u64,
    simulated: f64,
    real: f64,
    events: u64,
    coverage: Coverage,
    failed: Vec<u64>,
}

impl Totals {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.simulated += report.simulated;
        self.real += report.real;
        self.events += report.events;
        self.coverage.merge(&report.coverage);
        let verdict = if report.violations.is_empty() { "ok" } else { "FAILED" };
        println!(
            "seed {} {verdict} hash {} events {} simulated {:.0} s in {:.1} s",
            report.seed, report.hash, report.events, report.simulated, report.real
        );
        let shown = if std::env::var_os("SIM_ALL").is_some() {
            usize::MAX
        } else {
            8
        };
        for violation in report.violations.iter().take(shown) {
            println!("    {violation}");
        }
        if !report.violations.is_empty() {
            self.failed.push(report.seed);
        }
    }

    fn print(&self) {
        println!("{}", self.coverage);
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
