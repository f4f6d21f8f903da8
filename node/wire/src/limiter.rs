//! How many connections there may be at once: in all, and from one address to one listener.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_types::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX};

/// Counts connections. Clones count together; see [`Limiter::listener`] for those that do so in part.
#[derive(Clone, Debug)]
pub struct Limiter {
    counts: Counts,
    total_max: usize,
    per_address_max: usize,
}

/// Locked in this order.
#[derive(Clone, Debug, Default)]
struct Counts {
    by_address: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    total: Arc<Mutex<usize>>,
}

/// One counted connection, until it is dropped.
#[derive(Debug)]
pub struct Permit {
    counts: Counts,
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
            counts: Counts::default(),
            total_max,
            per_address_max,
        }
    }

    /// A limiter for another listener: it counts addresses for itself, and all connections together with this one.
    #[must_use]
    pub fn listener(&self) -> Self {
        Self {
            counts: Counts {
                by_address: Arc::default(),
                total: Arc::clone(&self.counts.total),
            },
            ..*self
        }
    }

    /// Counts a connection; `None` when there are too many.
    #[must_use]
    pub fn admit(&self, address: IpAddr) -> Option<Permit> {
        let address = address.to_canonical();
        let mut by_address = lock(&self.counts.by_address);
        let mut total = lock(&self.counts.total);
        let here = by_address.get(&address).copied().unwrap_or(0);
        if *total >= self.total_max || (here >= self.per_address_max && !address.is_loopback()) {
            return None;
        }
        *total += 1;
        by_address.insert(address, here + 1);
        Some(Permit {
            counts: self.counts.clone(),
            address,
        })
    }

    /// How many there are, at all listeners.
    #[must_use]
    pub fn count(&self) -> usize {
        *lock(&self.counts.total)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut by_address = lock(&self.counts.by_address);
        let mut total = lock(&self.counts.total);
        *total = total.saturating_sub(1);
        match by_address.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                by_address.remove(&self.address);
            }
        }
    }
}

fn lock<T>(counts: &Mutex<T>) -> MutexGuard<'_, T> {
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

    #[test]
    fn each_listener_counts_an_address_for_itself_and_all_count_together() {
        let imap = Limiter::new(3, 2);
        let smtp = imap.listener();
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let first = imap.admit(one).unwrap();
        let _second = imap.admit(one).unwrap();
        assert!(imap.admit(one).is_none(), "two from one address");
        let _third = smtp.admit(one).unwrap();
        assert!(smtp.admit(one).is_none(), "three in all");
        assert_eq!((imap.count(), smtp.count()), (3, 3));
        drop(first);
        assert!(smtp.clone().admit(one).is_some());
    }
}
