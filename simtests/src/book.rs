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

/// See [`Book::on_acknowledged`].
pub type Acknowledged = Arc<dyn Fn(Time, &[u8]) + Send + Sync>;

struct Inner {
    acknowledged: Option<Acknowledged>,
    judge: Judge,
    coverage: Coverage,
    violations: Vec<Violation>,
}

impl Default for Book {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner {
            acknowledged: None,
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

    /// Who is told when a message was acknowledged: when the operation began, and the bytes in which the stored message ends.
    pub fn on_acknowledged(&self, told: Acknowledged) {
        self.inner().acknowledged = Some(told);
    }

    /// A message was acknowledged as delivered or appended, just now; its operation began at `began`.
    pub fn acknowledged(&self, began: Time, bytes: &[u8]) {
        let told = self.inner().acknowledged.clone();
        if let Some(told) = told {
            told(began, bytes);
        }
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
