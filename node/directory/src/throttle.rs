//! Failed logins, counted for each network.
//!
//! The answer to a failure comes the later the more there were from that network; a network beyond
//! [`FAILURES_MAX`] is turned away, except for accounts at addresses that they have logged in from before: behind one
//! address there may be an attacker and owners. Such an account is turned away there only after as many failures of its own beyond that.
//! Nothing locks an account elsewhere. Loopback (a proxy, programs of this machine) is slowed down, never turned away.
//! Counts halve every [`HALF_LIFE`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_types::AccountId;
use tokio::time::Instant;

/// Counts failures. In memory of this node only.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    networks: Mutex<BTreeMap<Network, Count>>,
    known: Mutex<BTreeMap<(AccountId, Source), Known>>,
}

/// An account that has logged in from an address.
#[derive(Clone, Copy, Debug)]
struct Known {
    last: Instant,
    /// Its failures since the network was beyond its own.
    failures: Count,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: f64,
    at: Instant,
}

/// A /24 of IPv4 or a /64 of IPv6: what one customer of a provider has.
type Network = [u8; 8];

/// An address of IPv4 or a /64 of IPv6: what an owner comes from again.
type Source = [u8; 8];

impl Throttle {
    /// Whether this address may try any account.
    pub(crate) fn permits(&self, peer: IpAddr) -> bool {
        peer.to_canonical().is_loopback() || self.failures(peer) < FAILURES_MAX
    }

    /// Whether this address, though turned away, may try this account.
    pub(crate) fn permits_known(&self, account: AccountId, peer: IpAddr) -> bool {
        let now = Instant::now();
        lock(&self.known)
            .get(&(account, source(peer)))
            .is_some_and(|known| known.is_fresh(now) && known.failures.decayed(now) < FAILURES_MAX)
    }

    /// Remembers that an account has logged in from there.
    pub(crate) fn record_success(&self, account: AccountId, peer: IpAddr) {
        let (now, source) = (Instant::now(), source(peer));
        let mut known = lock(&self.known);
        if let Some(known) = known.get_mut(&(account, source)) {
            // Its failures stay: they may be another's, who guesses beside the owner.
            known.last = now;
            return;
        }
        // One account that comes from everywhere pushes out only what is its own.
        let of_account = (account, [0; 8])..=(account, [u8::MAX; 8]);
        let (mut count, mut oldest) = (0, None);
        for (key, entry) in known.range(of_account) {
            count += 1;
            if oldest.is_none_or(|(_, last)| entry.last < last) {
                oldest = Some((*key, entry.last));
            }
        }
        if let Some((key, _)) = oldest.filter(|_| count >= KNOWN_PER_ACCOUNT_MAX) {
            known.remove(&key);
        }
        if known.len() >= KNOWN_MAX {
            known.retain(|_, entry| entry.is_fresh(now));
            if known.len() >= KNOWN_MAX {
                known.pop_first();
            }
        }
        let failures = Count { failures: 0.0, at: now };
        known.insert((account, source), Known { last: now, failures });
    }

    /// Counts a failure for which [`Throttle::permits_known`] let an account through, beside the network's.
    pub(crate) fn record_known_failure(&self, account: AccountId, peer: IpAddr) {
        if let Some(known) = lock(&self.known).get_mut(&(account, source(peer))) {
            known.failures = known.failures.plus_one(Instant::now());
        }
    }

    /// Counts a failure and says how late its answer is to come.
    pub(crate) fn record_failure(&self, peer: IpAddr) -> Duration {
        let mut networks = lock(&self.networks);
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
        *count = count.plus_one(now);
        let beyond = count.failures - FAILURES_FREE;
        if beyond <= 0.0 {
            Duration::ZERO
        } else {
            DELAY_STEP.mul_f64(beyond).min(DELAY_MAX)
        }
    }

    fn failures(&self, peer: IpAddr) -> f64 {
        lock(&self.networks)
            .get(&network(peer))
            .map_or(0.0, |count| count.decayed(Instant::now()))
    }
}

fn lock<T>(counts: &Mutex<T>) -> MutexGuard<'_, T> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.last) < KNOWN_TIME
    }
}

impl Count {
    fn decayed(&self, now: Instant) -> f64 {
        let half_lives = now.duration_since(self.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.failures * 0.5_f64.powf(half_lives)
    }

    fn plus_one(&self, now: Instant) -> Self {
        Self {
            failures: self.decayed(now) + 1.0,
            at: now,
        }
    }
}

fn source(peer: IpAddr) -> Source {
    match peer.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0, 0, 0, 4, a, b, c, d]
        }
        IpAddr::V6(_) => network(peer),
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
/// How long an account's last login from an address is remembered: longer than a holiday.
const KNOWN_TIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Accounts with an address that are remembered. Cost: some 96 octets each.
const KNOWN_MAX: usize = 65_536;
/// Addresses that are remembered for one account.
const KNOWN_PER_ACCOUNT_MAX: usize = 16;

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

    fn turned_away(peer: IpAddr) -> Throttle {
        let throttle = Throttle::default();
        for _ in 0..101 {
            throttle.record_failure(peer);
        }
        throttle
    }

    #[tokio::test(start_paused = true)]
    async fn an_owner_known_at_an_address_may_still_try_there() {
        let (owner, other) = (AccountId([1; 16]), AccountId([2; 16]));
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        let throttle = turned_away(peer);
        throttle.record_success(owner, peer);
        assert!(!throttle.permits(peer));
        assert!(throttle.permits_known(owner, peer));
        assert!(!throttle.permits_known(other, peer));
        assert!(!throttle.permits_known(owner, "192.0.2.9".parse().unwrap()));
        // Guessing at a known account has an end too, which a login does not put off.
        for _ in 0..101 {
            throttle.record_known_failure(owner, peer);
        }
        throttle.record_success(owner, peer);
        assert!(!throttle.permits_known(owner, peer));
        tokio::time::advance(HALF_LIFE).await;
        assert!(throttle.permits_known(owner, peer));
        tokio::time::advance(KNOWN_TIME).await;
        assert!(!throttle.permits_known(owner, peer), "long ago");
    }

    #[tokio::test(start_paused = true)]
    async fn one_account_is_known_at_its_latest_addresses() {
        let throttle = Throttle::default();
        let account = AccountId([1; 16]);
        let peer = |number: usize| IpAddr::from([10, 0, u8::try_from(number).unwrap(), 1]);
        for number in 0..=KNOWN_PER_ACCOUNT_MAX {
            tokio::time::advance(Duration::from_secs(1)).await;
            throttle.record_success(account, peer(number));
        }
        assert!(!throttle.permits_known(account, peer(0)));
        assert!((1..=KNOWN_PER_ACCOUNT_MAX).all(|number| throttle.permits_known(account, peer(number))));
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_is_slowed_down_and_never_turned_away() {
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            let peer: IpAddr = peer.parse().unwrap();
            let throttle = turned_away(peer);
            assert!(throttle.permits(peer));
            assert_eq!(throttle.record_failure(peer), DELAY_MAX);
        }
    }
}
