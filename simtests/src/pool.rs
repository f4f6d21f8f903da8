//! Blocking work in virtual time: a job takes as long as the node's disk is slow, and then happens at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use core_types::{BlockingPool, Entropy};
use platform::SeededEntropy;

/// How slow a node's disk is.
#[derive(Debug)]
pub struct Pace {
    /// The longest time that a job takes, in microseconds. Each takes a random part of it.
    pub job_micros: AtomicU64,
    /// Jobs that begin before this time of the node's run, in milliseconds, wait for it: a frozen disk.
    pub frozen_until_millis: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            job_micros: AtomicU64::new(2000),
            frozen_until_millis: AtomicU64::new(0),
        }
    }
}

/// A node's pool.
pub struct SimPool {
    /// The disk's.
    pub pace: Arc<Pace>,
    /// Decides how long each job takes.
    pub entropy: SeededEntropy,
}

impl BlockingPool for SimPool {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        let longest = self.pace.job_micros.load(Ordering::Relaxed);
        let entropy: &dyn Entropy = &self.entropy;
        let takes = Duration::from_micros(entropy.below(longest + 1));
        let pace = Arc::clone(&self.pace);
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            loop {
                let now = turmoil::sim_elapsed().map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
                let until = pace.frozen_until_millis.load(Ordering::Relaxed);
                if until <= now {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(until - now)).await;
            }
            job();
        });
    }
}
