//! What `cargo sim` does around the runs: which seeds, progress, totals, shrinking. Here, and only here, real time passes.

mod progress;
mod seeds;
mod shrinking;
mod totals;

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::child;
use crate::run::Report;

use progress::Progress;
pub use seeds::{Fixed, first_of_commit, fixed};
pub use shrinking::shrink_in_children;
pub use totals::Totals;

/// One run that is to be made, in a process of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its seed.
    pub seed: u64,
    /// What the program is told, so that it makes just this run.
    pub arguments: Vec<String>,
}

impl Job {
    /// The run of a seed.
    #[must_use]
    pub fn of_seed(seed: u64, seconds: u64) -> Self {
        let arguments = ["--seed", &seed.to_string(), "--seconds", &seconds.to_string()];
        Self {
            seed,
            arguments: arguments.map(str::to_owned).to_vec(),
        }
    }

    /// The command that makes it again.
    #[must_use]
    pub fn command(&self) -> String {
        format!("cargo sim {}", self.arguments.join(" "))
    }
}

/// Many runs.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The program of `cargo sim`.
    pub program: PathBuf,
    /// The runs, in this order.
    pub jobs: Vec<Job>,
    /// How many at the same time.
    pub parallel: usize,
    /// Told to every run besides.
    pub besides: Vec<String>,
    /// No run is begun later than this.
    pub until: Option<Duration>,
}

impl Campaign {
    /// Makes the runs; a line for each on stdout, progress on stderr.
    #[must_use]
    pub fn run(&self) -> Totals {
        let begin = Instant::now();
        let queue = Mutex::new(self.jobs.iter());
        let totals = Mutex::new(Totals::default());
        let progress = Progress::begin(self.jobs.len(), self.until);
        let next = || {
            if self.until.is_some_and(|until| begin.elapsed() >= until) {
                return None;
            }
            queue.lock().unwrap_or_else(PoisonError::into_inner).next()
        };
        std::thread::scope(|scope| {
            for _ in 0..self.parallel.max(1) {
                scope.spawn(|| {
                    while let Some(job) = next() {
                        let report = self.in_a_child(job);
                        let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                        progress.clear();
                        totals.add(&report, &job.command());
                        progress.show(&totals);
                    }
                });
            }
        });
        progress.clear();
        let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
        totals.not_begun = self.jobs.len() as u64 - totals.seeds;
        totals
    }

    fn in_a_child(&self, job: &Job) -> Report {
        let arguments: Vec<String> = job.arguments.iter().chain(&self.besides).cloned().collect();
        child::report_of(&self.program, &arguments).unwrap_or_else(|error| Report {
            seed: job.seed,
            violations: vec![format!("I34: {error}")],
            ..Report::default()
        })
    }
}
