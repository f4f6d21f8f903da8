//! Looking for planted bugs: seeds are run until one fails that does not fail without the bug.
//!
//! That something does not end in time ([`LIVENESS`]) is not enough: a history with a bug is another one than without, and a defect
//! that is still open elsewhere must not pass for the one that was planted.
//!
//! Not here: the bugs (`core_types::mutants`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use core_types::mutants::Mutant;

use crate::child;

/// Seeds within which each planted bug has to be found.
pub const SEEDS_AT_MOST: u64 = 200;
/// Seconds of load in each run. Short runs find more per second of work than long ones.
pub const SECONDS: u64 = 30;

/// Where and how far to look.
#[derive(Clone, Debug)]
pub struct Hunt {
    /// The program of `cargo sim`, built with the feature `mutants`.
    pub program: PathBuf,
    /// The first seed.
    pub from: u64,
    /// At most so many.
    pub seeds: u64,
    /// Seconds of load in each run.
    pub seconds: u64,
    /// Runs at the same time.
    pub jobs: usize,
}

/// The first seed that finds a bug.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The seed.
    pub seed: u64,
    /// The ids of the invariants that were violated.
    pub ids: BTreeSet<String>,
    /// What was said, the first few.
    pub violations: Vec<String>,
}

impl Hunt {
    /// The usual one.
    #[must_use]
    pub fn with(program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            from: 1,
            seeds: SEEDS_AT_MOST,
            seconds: SECONDS,
            jobs: 1,
        }
    }

    /// Looks for a bug; `None` when no seed finds it. With several jobs too, it is the lowest seed.
    #[must_use]
    pub fn hunt(&self, mutant: Mutant) -> Option<Finding> {
        let queue = Mutex::new(self.from..self.from + self.seeds);
        let found: Mutex<Option<Finding>> = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    while found.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                        let Some(seed) = queue.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                            break;
                        };
                        if let Some(finding) = self.run(mutant, seed) {
                            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                            *found = Some(found.take().map_or(finding.clone(), |other| other.min(finding)));
                        }
                    }
                });
            }
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mutant: Mutant, seed: u64) -> Option<Finding> {
        let finding = self.fails(seed, &["--mutant", mutant.name()])?;
        self.fails(seed, &[]).is_none().then_some(finding)
    }

    fn fails(&self, seed: u64, more: &[&str]) -> Option<Finding> {
        let (seed_text, seconds) = (seed.to_string(), self.seconds.to_string());
        let arguments = ["--seed", &seed_text, "--seconds", &seconds];
        let arguments: Vec<String> = arguments.iter().chain(more).map(|text| (*text).to_owned()).collect();
        let violations = match child::report_of(&self.program, &arguments) {
            Ok(report) => report.violations,
            Err(error) => vec![format!("I34: {error}")],
        };
        let id = |text: &String| text.split([' ', ':']).next().unwrap_or_default().to_owned();
        let is_id = |id: &String| id.contains(|letter: char| letter.is_ascii_digit());
        let ids: BTreeSet<String> = violations.iter().map(id).filter(is_id).collect();
        ids.iter().any(|id| !LIVENESS.contains(&id.as_str())).then(|| Finding {
            seed,
            ids,
            violations: violations.into_iter().take(SHOWN).collect(),
        })
    }
}

/// Ids of what only says that something did not end, or was not well, in time.
const LIVENESS: [&str; 2] = ["I32", "I33"];

/// Violations of a finding that are kept.
const SHOWN: usize = 6;
