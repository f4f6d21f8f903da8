//! One log line for each refused peer and why, at most one per address in ten seconds, with a count of the others.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quinn::ConnectionError;
use rustls::AlertDescription;
use tokio::time::Instant;

/// Remembers which addresses were written about lately. Memory: [`ADDRESSES_MAX`] entries.
#[derive(Default)]
pub(crate) struct Refusals {
    addresses: Mutex<BTreeMap<IpAddr, Entry>>,
}

struct Entry {
    written: Instant,
    suppressed: u64,
}

impl Refusals {
    /// Counts a refusal and logs it, unless this address was logged within the last ten seconds.
    pub(crate) fn note(&self, address: SocketAddr, reason: &str) {
        if let Some(suppressed) = self.count(address.ip(), Instant::now()) {
            // A peer's words are escaped: they go to somebody's terminal.
            tracing::warn!(%address, reason = %reason.escape_debug(), suppressed, "peer refused");
        }
    }

    /// How many went unwritten since the last line, when one is due now.
    fn count(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = addresses.get_mut(&address) {
            if now.duration_since(entry.written) < QUIET {
                entry.suppressed = entry.suppressed.saturating_add(1);
                return None;
            }
            entry.written = now;
            return Some(std::mem::take(&mut entry.suppressed));
        }
        if addresses.len() >= ADDRESSES_MAX {
            addresses.retain(|_, entry| now.duration_since(entry.written) < QUIET);
        }
        if addresses.len() >= ADDRESSES_MAX {
            // Many addresses at once are one attack: what is written already says so.
            return None;
        }
        addresses.insert(
            address,
            Entry {
                written: now,
                suppressed: 0,
            },
        );
        Some(0)
    }
}

/// Says in an administrator's words why a handshake failed, with what the TLS library said behind it.
pub(crate) fn explain(error: &ConnectionError) -> String {
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => return error.to_string(),
    };
    // RFC 9001 4.8: a TLS alert is the code 0x0100 plus its number.
    let alert = code
        .checked_sub(0x100)
        .and_then(|alert| u8::try_from(alert).ok())
        .map(AlertDescription::from);
    let words = match alert {
        Some(AlertDescription::CertificateRequired) => "no certificate",
        Some(AlertDescription::UnknownCA | AlertDescription::DecryptError) => "certificate of another authority",
        Some(AlertDescription::CertificateExpired) => "certificate expired or not yet valid",
        Some(AlertDescription::AccessDenied) => "join token spent, expired or unknown",
        Some(AlertDescription::NoApplicationProtocol) => "wrong protocol",
        _ => return error.to_string(),
    };
    format!("{words} ({error})")
}

const QUIET: Duration = Duration::from_secs(10);
const ADDRESSES_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[tokio::test]
    async fn an_address_is_written_once_in_ten_seconds_with_a_count() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert_eq!(refusals.count(address(1), start), Some(0));
        assert_eq!(refusals.count(address(1), start), None);
        assert_eq!(
            refusals.count(address(1), start + QUIET - Duration::from_millis(1)),
            None
        );
        assert_eq!(refusals.count(address(2), start), Some(0));
        assert_eq!(refusals.count(address(1), start + QUIET), Some(2));
    }

    #[tokio::test]
    async fn memory_is_bounded_however_many_addresses_come() {
        let refusals = Refusals::default();
        let start = Instant::now();
        for number in 0..5000 {
            refusals.count(address(number), start);
        }
        assert_eq!(refusals.addresses.lock().unwrap().len(), ADDRESSES_MAX);
        assert_eq!(refusals.count(address(9999), start + QUIET), Some(0));
    }
}
