//! Blocking work in virtual time: a job waits for its disk, takes as long as the disk is slow, and then happens at once.

use std::time::Duration;

use core_types::{BlockingPool, Entropy};
use platform::{FaultyDisk, SeededEntropy};

/// The longest time that a job takes on a healthy disk; each takes a random part of it.
const JOB_MICROS: u64 = 2000;
/// Between two looks at a frozen disk.
const FROZEN_LOOK: Duration = Duration::from_millis(5);

/// A node's pool.
pub struct SimPool {
    /// What it works on.
    pub disk: FaultyDisk,
    /// Decides how long each job takes.
    pub entropy: SeededEntropy,
}

impl BlockingPool for SimPool {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        let entropy: &dyn Entropy = &self.entropy;
        let takes = Duration::from_micros(entropy.below(JOB_MICROS + 1));
        let disk = self.disk.clone();
        tokio::spawn(async move {
            tokio::time::sleep(takes).await;
            let wait = loop {
                match disk.begin_job() {
                    Some(wait) => break wait,
                    None => tokio::time::sleep(FROZEN_LOOK).await,
                }
            };
            tokio::time::sleep(wait).await;
            job();
        });
    }
}
