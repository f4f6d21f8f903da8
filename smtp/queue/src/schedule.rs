//! When to try again.

use std::time::Duration;

use core_types::limits::{QUEUE_FIRST_RETRY, QUEUE_RETRY_MAX};
use core_types::{Entropy, UnixMillis};

/// The time of the next attempt, after so many: the pause doubles from [`QUEUE_FIRST_RETRY`] to [`QUEUE_RETRY_MAX`], and
/// is up to a quarter longer, so that what failed together does not come back together.
pub(crate) fn next_attempt(now: UnixMillis, attempts: u32, entropy: &dyn Entropy) -> UnixMillis {
    let pause = millis(QUEUE_FIRST_RETRY)
        .saturating_mul(1_u64.checked_shl(attempts).unwrap_or(u64::MAX))
        .min(millis(QUEUE_RETRY_MAX));
    now.saturating_add(pause + entropy.below(pause / 4 + 1))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use platform::SeededEntropy;

    #[test]
    fn pauses_double_up_to_the_longest_and_vary() {
        let entropy = SeededEntropy::new(1);
        let mut least = millis(QUEUE_FIRST_RETRY);
        for attempts in 0..200 {
            let UnixMillis(at) = next_attempt(UnixMillis(1000), attempts, &entropy);
            let pause = at - 1000;
            assert!(pause >= least && pause <= least + least / 4, "{attempts}: {pause}");
            least = (least * 2).min(millis(QUEUE_RETRY_MAX));
        }
        let all: std::collections::BTreeSet<_> = (0..20).map(|_| next_attempt(UnixMillis(0), 9, &entropy)).collect();
        assert!(all.len() > 10);
    }
}
