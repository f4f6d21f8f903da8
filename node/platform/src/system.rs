//! The system's clock, randomness and threads, and their counterparts for tests.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use core_types::{BlockingPool, Clock, Entropy, UnixMillis};

/// The system's wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows this time.
    #[must_use]
    pub fn new(now: UnixMillis) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Shows another time from now on.
    pub fn set(&self, now: UnixMillis) {
        self.0.store(now.0, Ordering::SeqCst);
    }

    /// Moves the clock on.
    pub fn advance(&self, millis: u64) {
        self.0.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::SeqCst))
    }
}

/// The system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut rest = buffer;
        while !rest.is_empty() {
            match rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => rest = rest.get_mut(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                // Without randomness no key, no GUID and no op id is safe: nothing sound can be done any more.
                Err(error) => {
                    tracing::error!(%error, "the system gives no randomness");
                    std::process::abort();
                }
            }
        }
    }
}

/// Randomness that a seed decides (xorshift64*): for tests and simulations only.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for chunk in buffer.chunks_mut(8) {
            *state ^= *state >> 12;
            *state ^= *state << 25;
            *state ^= *state >> 27;
            let word = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            chunk.copy_from_slice(word.get(..chunk.len()).unwrap_or_default());
        }
    }
}

/// Runs blocking jobs on tokio's threads for such jobs.
#[derive(Clone, Debug)]
pub struct TokioPool(tokio::runtime::Handle);

impl TokioPool {
    /// The pool of this runtime.
    #[must_use]
    pub fn new(runtime: tokio::runtime::Handle) -> Self {
        Self(runtime)
    }
}

impl BlockingPool for TokioPool {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        drop(self.0.spawn_blocking(job));
    }
}

/// Runs each job at once, where it is handed in: for tests and simulations.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlinePool;

impl BlockingPool for InlinePool {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_sequence() {
        let draw = |seed| {
            let mut buffer = [0; 20];
            SeededEntropy::new(seed).fill(&mut buffer);
            buffer
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn the_systems_randomness_does_not_repeat() {
        let draw = || {
            let mut buffer = [0; 32];
            SystemEntropy.fill(&mut buffer);
            buffer
        };
        assert_ne!(draw(), draw());
    }
}
