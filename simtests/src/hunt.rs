//! Looking for planted bugs: seeds are run until one fails.
//!
//! Not here: the bugs (`core_types::mutants`).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use core_types::mutants::Mutant;

use crate::child;

/// Seeds within which each planted bug has to be found.
pub const SEEDS_MAX: u64 = 200;
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
            seeds: SEEDS_MAX,
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
        let arguments = [
            "--mutant",
            mutant.name(),
            "--seed",
            &seed.to_string(),
            "--seconds",
            &self.seconds.to_string(),
        ];
        let violations = match child::report_of(&self.program, &arguments.map(str::to_owned)) {
            Ok(report) => report.violations,
            Err(error) => vec![format!("I34: {error}")],
        };
        if violations.is_empty() {
            return None;
        }
        let id = |text: &String| text.split([' ', ':']).next().unwrap_or_default().to_owned();
        let is_id = |id: &String| id.contains(|letter: char| letter.is_ascii_digit());
        Some(Finding {
            seed,
            ids: violations.iter().map(id).filter(is_id).collect(),
            violations: violations.into_iter().take(SHOWN).collect(),
        })
    }
}

/// Violations of a finding that are kept.
const SHOWN: usize = 6;
