//! Time, randomness and threads, as the rest of the system sees them. The disk has a file of its own.
//!
//! Time that only measures a duration (time-outs, back-off) is `tokio::time`, which a simulation drives already; wall
//! clock time, which goes into ops and logs, is [`Clock`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds since 1970, cut at what 32 bits hold (the year 2106).
    #[must_use]
    pub fn seconds(self) -> u32 {
        u32::try_from(self.0 / 1000).unwrap_or(u32::MAX)
    }

    /// This time plus `millis`, cut at the largest time there is.
    #[must_use]
    pub fn saturating_add(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The wall clock. No safety rule rests on two nodes' clocks agreeing.
pub trait Clock: Send + Sync + 'static {
    /// The time now. May jump in both directions.
    fn now(&self) -> UnixMillis;
}

/// Where randomness comes from.
pub trait Entropy: Send + Sync + 'static {
    /// Fills the buffer with bytes that nobody can predict.
    fn fill(&self, buffer: &mut [u8]);
}

impl dyn Entropy {
    /// `LENGTH` random bytes.
    #[must_use]
    pub fn bytes<const LENGTH: usize>(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        self.fill(&mut bytes);
        bytes
    }

    /// A random number below `bound`; 0 when `bound` is 0. The bias is below 2^-32 for bounds that fit 32 bits.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        u64::from_le_bytes(self.bytes()) % bound.max(1)
    }
}

/// Where blocking work (disk calls, key derivation) runs: threads in production, in line in a simulation.
///
/// A job must not panic; one that does ends the thread's work item and is reported by the pool.
pub trait BlockingPool: Send + Sync + 'static {
    /// Runs the job some time soon. Jobs may run in any order and at the same time.
    fn execute(&self, job: Box<dyn FnOnce() + Send>);
}
