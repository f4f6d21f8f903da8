//! Virtual time since the start of a run.

use std::fmt;
use std::time::Duration;

/// Microseconds of virtual time since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// So long after the start.
    #[must_use]
    pub fn after(since_start: Duration) -> Self {
        Self(u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX))
    }

    /// As a duration since the start.
    #[must_use]
    pub fn since_start(self) -> Duration {
        Duration::from_micros(self.0)
    }

    /// So much later.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(Self::after(duration).0))
    }

    /// Reads what [`fmt::Display`] writes. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (seconds, micros) = text.split_once('.')?;
        if micros.len() != 6 {
            return None;
        }
        let seconds: u64 = seconds.parse().ok()?;
        seconds
            .checked_mul(1_000_000)?
            .checked_add(micros.parse().ok()?)
            .map(Self)
    }
}

/// Seconds with six decimals.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
