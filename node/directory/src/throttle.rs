//! Failed logins, counted for each network and for each account that failed.
//!
//! The answer to a failure comes the later the more there were from that network; a network beyond
//! [`FAILURES_MAX`] is turned away. Nothing locks an account: only the attacker's own network is slowed down. Counts
//! halve every [`HALF_LIFE`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Counts failures. In memory of this node only.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    networks: Mutex<BTreeMap<Network, Count>>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: f64,
    at: Instant,
}

/// A /24 of IPv4 or a /64 of IPv6: what one customer of a provider has.
type Network = [u8; 8];

impl Throttle {
    /// Whether this address may try at all.
    pub(crate) fn permits(&self, peer: IpAddr) -> bool {
        self.failures(peer) < FAILURES_MAX
    }

    /// Counts a failure and says how late its answer is to come.
    pub(crate) fn record_failure(&self, peer: IpAddr) -> Duration {
        let mut networks = self.lock();
        let now = Instant::now();
        if networks.len() >= NETWORKS_MAX {
            networks.retain(|_, count| count.decayed(now) >= 1.0);
            if networks.len() >= NETWORKS_MAX {
                networks.pop_first();
            }
        }
        let count = networks
            .entry(network(peer))
            .or_insert(Count { failures: 0.0, at: now });
        *count = Count {
            failures: count.decayed(now) + 1.0,
            at: now,
        };
        let beyond = count.failures - FAILURES_FREE;
        if beyond <= 0.0 {
            Duration::ZERO
        } else {
            DELAY_STEP.mul_f64(beyond).min(DELAY_MAX)
        }
    }

    fn failures(&self, peer: IpAddr) -> f64 {
        self.lock()
            .get(&network(peer))
            .map_or(0.0, |count| count.decayed(Instant::now()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Network, Count>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Count {
    fn decayed(&self, now: Instant) -> f64 {
        let half_lives = now.duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.failures * 0.5_f64.powf(half_lives)
    }
}

fn network(peer: IpAddr) -> Network {
    match peer.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            [0, 0, 0, 0, 4, a, b, c]
        }
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, h, ..] = address.octets();
            [a, b, c, d, e, f, g, h]
        }
    }
}

/// Failures that cost nothing: people mistype.
const FAILURES_FREE: f64 = 3.0;
/// Failures beyond which a network is turned away.
const FAILURES_MAX: f64 = 100.0;
/// By how much each further failure delays its answer.
const DELAY_STEP: Duration = Duration::from_millis(500);
/// The longest delay: below the patience of mail programs.
const DELAY_MAX: Duration = Duration::from_secs(10);
/// After which time a count is worth half.
const HALF_LIFE: Duration = Duration::from_secs(15 * 60);
/// Networks that are remembered. Cost: some 64 octets each.
const NETWORKS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_network_is_slowed_down_then_turned_away_and_others_are_not() {
        let throttle = Throttle::default();
        let attacker: IpAddr = "192.0.2.1".parse().unwrap();
        let mut last = Duration::ZERO;
        for _ in 0..100 {
            let delay = throttle.record_failure(attacker);
            assert!(delay >= last && delay <= DELAY_MAX);
            last = delay;
        }
        assert_eq!(last, DELAY_MAX);
        assert!(!throttle.permits("192.0.2.77".parse().unwrap()), "the same /24");
        assert!(throttle.permits("192.0.3.1".parse().unwrap()));
        tokio::time::advance(HALF_LIFE).await;
        assert!(throttle.permits(attacker));
    }
}
