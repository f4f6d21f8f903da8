//! What everybody in a run writes into: what was found wrong, how often things happened, and the evidence for the judge.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oracle::Violation;
use oracle::coverage::Coverage;
use oracle::judge::{Judge, Last};
use oracle::time::Time;

/// The book of one run. Clones are the same.
#[derive(Clone)]
pub struct Book(Arc<Mutex<Inner>>);

struct Inner {
    judge: Judge,
    coverage: Coverage,
    violations: Vec<Violation>,
}

impl Default for Book {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            judge: Judge::new(),
            coverage: Coverage::of_one_run(),
            violations: Vec::new(),
        })))
    }
}

impl Book {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Virtual time since the run began.
    #[must_use]
    pub fn now() -> Time {
        Time::after(turmoil::sim_elapsed().unwrap_or_default())
    }

    /// Something that must never be, now.
    pub fn violation(&self, id: &'static str, what: impl Into<String>) {
        let violation = Violation::at(id, Self::now(), what);
        self.inner().violations.push(violation);
    }

    /// Things that must never be.
    pub fn found(&self, violations: impl IntoIterator<Item = Violation>) {
        self.inner().violations.extend(violations);
    }

    /// All that was found so far, without what only [`Self::finish`] finds.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        let inner = self.inner();
        let mut violations = inner.violations.clone();
        violations.extend(inner.judge.violations().iter().cloned());
        violations
    }

    /// One more of these.
    pub fn count(&self, name: &str) {
        self.inner().coverage.hit(name);
    }

    /// So many more.
    pub fn add(&self, name: &str, count: u64) {
        self.inner().coverage.add(name, count);
    }

    /// The counters.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.inner().coverage.clone()
    }

    /// Tells the judge something, or asks it.
    pub fn judge<T>(&self, tell: impl FnOnce(&mut Judge) -> T) -> T {
        tell(&mut self.inner().judge)
    }

    /// Judges the run; what is wrong is then among the violations, and what was decided among the counters.
    pub fn finish(&self, last: &Last, bound: Duration, budget: usize) {
        let judge = std::mem::take(&mut self.inner().judge);
        let report = judge.finish(Self::now(), last, bound, budget);
        self.found(report.violations);
        self.add("linear.decided", report.decided as u64);
        self.add("linear.gave_up", report.gave_up.len() as u64);
    }
}
