//! How many connections there may be at once: in all, and from one address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_types::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX};

/// Counts connections. Clones count together.
#[derive(Clone, Debug)]
pub struct Limiter {
    counts: Arc<Mutex<Counts>>,
    total_max: usize,
    per_address_max: usize,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

/// One counted connection, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    counts: Arc<Mutex<Counts>>,
    address: IpAddr,
}

impl Default for Limiter {
    fn default() -> Self {
        Self::new(CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX)
    }
}

impl Limiter {
    /// A limiter with these bounds. The one per address does not hold for loopback: behind it may be a proxy or many
    /// users of this machine.
    #[must_use]
    pub fn new(total_max: usize, per_address_max: usize) -> Self {
        Self {
            counts: Arc::default(),
            total_max,
            per_address_max,
        }
    }

    /// Counts a connection; `None` when there are too many.
    #[must_use]
    pub fn admit(&self, address: IpAddr) -> Option<Permit> {
        let address = address.to_canonical();
        let mut counts = lock(&self.counts);
        let here = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.total >= self.total_max || (here >= self.per_address_max && !address.is_loopback()) {
            return None;
        }
        counts.total += 1;
        counts.by_address.insert(address, here + 1);
        Some(Permit {
            counts: Arc::clone(&self.counts),
            address,
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.counts).total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.total = counts.total.saturating_sub(1);
        match counts.by_address.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_and_are_given_back() {
        let limiter = Limiter::new(3, 2);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let first = limiter.admit(one).unwrap();
        let _second = limiter.admit(one).unwrap();
        assert!(limiter.admit(one).is_none(), "two from one address");
        let _third = limiter.admit("::ffff:192.0.2.2".parse().unwrap()).unwrap();
        assert!(limiter.admit("192.0.2.3".parse().unwrap()).is_none(), "three in all");
        drop(first);
        assert_eq!(limiter.count(), 2);
        assert!(limiter.admit(one).is_some());
    }
}
