//! `cargo sim`: runs seeds, replays one, says what happened.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
#[cfg(feature = "mutants")]
use core_types::mutants::{self, Mutant};
use oracle::schedule::Schedule;
#[cfg(feature = "mutants")]
use simtests::hunt;
use simtests::run::{Plan, Report, run, schedule as schedule_of};
use simtests::scenario::{self, Scenario};
use simtests::tool::{Campaign, Job, Totals, first_of_commit, fixed, shrink_in_children};

/// Runs whole clusters in one process, with simulated network, disks and time: one seed is one history. Clients work while
/// faults happen; afterwards everything that was acknowledged must be there.
///
/// Exit codes: 0 nothing was violated, 1 something was, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(
    name = "cargo sim",
    after_help = "Examples:
  cargo sim --seeds 1000 --jobs 2            many seeds; those that fail are listed at the end
  cargo sim --fresh \"$(git rev-parse HEAD)\"  seeds that the commit decides
  cargo sim --seed 103 --trace               one seed, with a timeline that people can read
  cargo sim --seed 103 --trace=all           also every datagram and disk call
  cargo sim --seed 103 --shrink              the fewest faults and clients with which it still fails
  cargo sim --scenario all                   what was written down, one after the other"
)]
struct Cli {
    /// How many seeds: ten, where nothing is said.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Begin with the seed that belongs to this commit, in place of `--from`.
    #[arg(long, value_name = "COMMIT", conflicts_with = "from")]
    fresh: Option<String>,
    /// The seeds of this file: `SEED SECONDS # why` on each line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "fresh", "seeds", "seed"])]
    fixed: Option<PathBuf>,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// A schedule that was written down, by its name; `all` for each of them. With `--seeds` or `--seed`, it is run with
    /// other seeds than its own.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["fixed", "schedule"])]
    scenario: Option<String>,
    /// Print the names of scenarios, and what each is for.
    #[arg(long)]
    list_scenarios: bool,
    /// Print what happened (with `--seed` or one scenario): operations, faults, leaders, starts of nodes; `all` for datagrams
    /// and disk calls, too.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "story", value_name = "WHAT")]
    trace: Option<Shown>,
    /// Seconds of load and faults in each run: 60, where nothing is said.
    #[arg(long)]
    seconds: Option<u64>,
    /// Runs at the same time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Begin no run after so many minutes; with `--shrink`, when to stop looking (10 where nothing is said).
    #[arg(long, value_name = "MINUTES")]
    until: Option<f64>,
    /// Print the schedule and run nothing (with `--seed` or one scenario).
    #[arg(long)]
    print: bool,
    /// Run this schedule, as `--print` or `--shrink` writes it, in place of the seed's own.
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Look for the fewest faults and clients with which it still fails (with `--seed` or one scenario), and print that
    /// schedule.
    #[arg(long)]
    shrink: bool,
    /// Print the report for another program.
    #[arg(long, hide = true)]
    child: bool,
    /// Run each seed twice and compare the histories.
    #[arg(long)]
    twice: bool,
    /// What the nodes log: a filter as `RUST_LOG` has it. Branches are not counted then.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Plant this bug (`all`: one after the other) and run seeds until one finds it, 200 of 30 seconds at most; with `--seed`
    /// only that one.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<String>,
}

/// What of a trace is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shown {
    /// What a person wants to read.
    Story,
    /// Every event.
    All,
}

impl Cli {
    fn seconds(&self) -> u64 {
        #[cfg(feature = "mutants")]
        if self.mutant.is_some() {
            return self.seconds.unwrap_or(hunt::SECONDS);
        }
        self.seconds.unwrap_or(60)
    }

    fn until(&self) -> Option<Duration> {
        self.until
            .and_then(|minutes| Duration::try_from_secs_f64(minutes * 60.0).ok())
    }

    /// The scenarios that are meant.
    fn scenarios(&self) -> Result<Vec<&'static Scenario>, String> {
        match self.scenario.as_deref() {
            None => Ok(Vec::new()),
            Some("all") => Ok(scenario::ALL.iter().collect()),
            Some(name) => match scenario::named(name) {
                Some(scenario) => Ok(vec![scenario]),
                None => Err(format!("no scenario is called {name}: see --list-scenarios")),
            },
        }
    }

    /// The one schedule that is meant, where it is one.
    fn schedule(&self) -> Result<Option<Schedule>, String> {
        if let Some(path) = &self.schedule {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let schedule = Schedule::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
            return Ok(Some(schedule));
        }
        if self.seeds.is_some() {
            return Ok(None);
        }
        match (self.scenarios()?.as_slice(), self.seed) {
            ([scenario], seed) => scenario.schedule(seed).map(Some),
            ([], Some(seed)) => Ok(Some(schedule_of(seed, self.seconds()))),
            _ => Ok(None),
        }
    }

    /// What many runs are made of.
    fn jobs(&self) -> Result<Vec<Job>, String> {
        if let Some(path) = &self.fixed {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            let seeds = fixed(&text).map_err(|error| format!("{}: {error}", path.display()))?;
            return Ok(seeds.iter().map(|kept| Job::of_seed(kept.seed, kept.seconds)).collect());
        }
        let from = self.fresh.as_deref().map_or(self.from, first_of_commit);
        let scenarios = self.scenarios()?;
        if scenarios.is_empty() {
            let seeds = from..from.saturating_add(self.seeds.unwrap_or(10));
            return Ok(seeds.map(|seed| Job::of_seed(seed, self.seconds())).collect());
        }
        let mut jobs = Vec::new();
        for scenario in scenarios {
            match (self.seed, self.seeds) {
                (None, None) => jobs.push(scenario.job(None)),
                (Some(seed), _) => jobs.push(scenario.job(Some(seed))),
                (None, Some(count)) => {
                    jobs.extend((from..from.saturating_add(count)).map(|seed| scenario.job(Some(seed))));
                }
            }
        }
        Ok(jobs)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(usage) => {
            eprintln!("{usage}");
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was violated.
fn carry_out(cli: &Cli) -> Result<bool, String> {
    if let Some(filter) = &cli.log {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
            .with_ansi(false)
            .without_time()
            .init();
    }
    if cli.list_scenarios {
        for scenario in scenario::ALL {
            println!("{:<28} {}", scenario.name, scenario.purpose());
        }
        return Ok(true);
    }
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    #[cfg(feature = "mutants")]
    if let Some(name) = &cli.mutant {
        match (Mutant::named(name), cli.seed) {
            (Some(mutant), Some(_)) => mutants::plant(mutant),
            _ => return hunt(name, cli),
        }
    }
    if let Some(schedule) = cli.schedule()? {
        if cli.print {
            print!("{schedule}");
            return Ok(true);
        }
        if cli.shrink {
            let within = cli.until().unwrap_or(Duration::from_secs(600));
            let shrunk = shrink_in_children(&program, &schedule, within, |text| eprintln!("{text}"))?;
            if !shrunk.minimal {
                println!("# There may be less: the time or the runs were over.");
            }
            print!("{}", shrunk.schedule);
            return Ok(true);
        }
        return Ok(one(cli, schedule));
    }
    if cli.print || cli.shrink || cli.trace.is_some() {
        return Err("this is for one seed or scenario: say which".to_owned());
    }
    let campaign = Campaign {
        program,
        jobs: cli.jobs()?,
        parallel: cli.jobs,
        besides: if cli.twice {
            vec!["--twice".to_owned()]
        } else {
            Vec::new()
        },
        until: cli.until(),
    };
    if let (Some(commit), Some(first)) = (&cli.fresh, campaign.jobs.first()) {
        println!("seeds of commit {commit}: from {}", first.seed);
    }
    let totals = campaign.run();
    totals.print();
    Ok(totals.is_clean())
}

/// One run, here.
fn one(cli: &Cli, schedule: Schedule) -> bool {
    let command = match &cli.scenario {
        Some(name) => format!("cargo sim --scenario {name} --seed {}", schedule.seed),
        None => format!("cargo sim --seed {} --seconds {}", schedule.seed, cli.seconds()),
    };
    let report = run_once_or_twice(
        Plan {
            schedule,
            keep_trace: cli.trace.is_some(),
        },
        cli.twice,
    );
    show(&report.lines, cli.trace);
    let mut totals = Totals::default();
    totals.add(&report, &command);
    if cli.child {
        print!("{}", report.to_text());
    } else {
        totals.print();
    }
    totals.is_clean()
}

/// Prints the history, until nobody reads it any more.
fn show(lines: &[String], what: Option<Shown>) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        let text = match what {
            Some(Shown::Story) if is_detail(line) => continue,
            Some(Shown::Story) => line.split(" [0] ").next().unwrap_or(line),
            _ => line,
        };
        if writeln!(out, "{text}").is_err() {
            std::process::exit(0);
        }
    }
}

/// Datagrams and disk calls.
fn is_detail(line: &str) -> bool {
    let kind = line.split_whitespace().nth(2).unwrap_or_default();
    matches!(kind, "disk" | "sent" | "got" | "lost") && line.contains(" node-")
}

/// Looks for planted bugs, and prints a table: name, the seed that found it, invariants.
#[cfg(feature = "mutants")]
fn hunt(name: &str, cli: &Cli) -> Result<bool, String> {
    let wanted = |mutant: &Mutant| name == "all" || mutant.name() == name;
    let mutants: Vec<Mutant> = Mutant::ALL.into_iter().filter(wanted).collect();
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    if mutants.is_empty() {
        let names: Vec<&str> = Mutant::ALL.into_iter().map(Mutant::name).collect();
        return Err(format!("no bug is called {name}: {}", names.join(", ")));
    }
    let hunt = hunt::Hunt {
        from: cli.from,
        seeds: cli.seeds.unwrap_or(hunt::SEEDS_AT_MOST),
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
    Ok(all_found)
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
