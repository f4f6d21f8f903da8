//! argon2id, on the pool, a few at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use core_types::BlockingPool;
use core_types::limits::PASSWORD_BYTES_MAX;
use tokio::sync::{Semaphore, oneshot};

/// What one hash costs (RFC 9106).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for PasswordCost {
    /// OWASP's second choice: 19 MiB, two passes; some 20 ms of one core.
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1024,
            passes: 2,
        }
    }
}

impl PasswordCost {
    /// The least there is: for tests.
    #[must_use]
    pub fn cheap() -> Self {
        Self {
            memory_kib: 8,
            passes: 1,
        }
    }

    fn argon2(self) -> Argon2<'static> {
        let params = Params::new(self.memory_kib.max(8), self.passes.max(1), 1, None).unwrap_or_default();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
    }
}

/// Why a password was not hashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// No octet at all.
    #[error("a password must not be empty")]
    Empty,
    /// More octets than the limit.
    #[error("a password has at most {PASSWORD_BYTES_MAX} octets")]
    TooLong,
    /// The hash function failed.
    #[error("the password could not be hashed: {0}")]
    Failed(String),
}

/// Hashes a password into a PHC string. Blocks for as long as the cost asks.
///
/// # Errors
/// [`PasswordError`].
pub fn hash_password(cost: PasswordCost, password: &[u8], salt: &[u8; 16]) -> Result<String, PasswordError> {
    match password.len() {
        0 => return Err(PasswordError::Empty),
        length if length > PASSWORD_BYTES_MAX => return Err(PasswordError::TooLong),
        _ => {}
    }
    let hash: PasswordHash = cost
        .argon2()
        .hash_password_with_salt(password, salt)
        .map_err(|error| PasswordError::Failed(error.to_string()))?;
    Ok(hash.to_string())
}

pub(crate) async fn hash_on_pool(
    pool: &Arc<dyn BlockingPool>,
    cost: PasswordCost,
    password: Vec<u8>,
    salt: [u8; 16],
) -> Result<String, PasswordError> {
    let (done, result) = oneshot::channel();
    pool.execute(Box::new(move || {
        let _ = done.send(hash_password(cost, &password, &salt));
    }));
    result
        .await
        .unwrap_or_else(|_| Err(PasswordError::Failed("the node is stopping".to_owned())))
}

/// Verifies passwords, [`CONCURRENT_MAX`] at a time.
pub(crate) struct Passwords {
    cost: PasswordCost,
    pool: Arc<dyn BlockingPool>,
    permits: Semaphore,
    /// What an unknown account is verified against, so that it costs the same.
    decoy: String,
    /// Hashes that were computed to verify a password.
    pub(crate) runs: AtomicU64,
}

impl Passwords {
    pub(crate) fn new(cost: PasswordCost, pool: Arc<dyn BlockingPool>) -> Self {
        let decoy = hash_password(cost, b"decoy", &[0; 16]).unwrap_or_default();
        Self {
            cost,
            pool,
            permits: Semaphore::new(CONCURRENT_MAX),
            decoy,
            runs: AtomicU64::new(0),
        }
    }

    pub(crate) fn cost(&self) -> PasswordCost {
        self.cost
    }

    /// Whether the password is the one that `phc` was made of; with `None` the same work is done and the answer is no.
    pub(crate) async fn verify(&self, phc: Option<&str>, password: &[u8]) -> bool {
        let Ok(_permit) = self.permits.acquire().await else {
            return false;
        };
        self.runs.fetch_add(1, Ordering::Relaxed);
        let known = phc.is_some();
        let phc = phc.unwrap_or(&self.decoy).to_owned();
        let password = password.to_vec();
        let (done, result) = oneshot::channel();
        self.pool.execute(Box::new(move || {
            let matches =
                PasswordHash::new(&phc).is_ok_and(|hash| Argon2::default().verify_password(&password, &hash).is_ok());
            let _ = done.send(matches);
        }));
        result.await.unwrap_or(false) && known
    }
}

/// Hashes under way at the same time. Cost: [`PasswordCost::memory_kib`] each.
const CONCURRENT_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_right_password_and_no_other_verifies() {
        let phc = hash_password(PasswordCost::cheap(), b"secret", &[1; 16]).unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{phc}");
        let passwords = Passwords::new(PasswordCost::cheap(), Arc::new(platform::InlinePool));
        assert!(passwords.verify(Some(&phc), b"secret").await);
        assert!(!passwords.verify(Some(&phc), b"Secret").await);
        assert!(!passwords.verify(None, b"decoy").await);
        assert!(!passwords.verify(Some("not a hash"), b"x").await);
    }

    #[test]
    fn password_length_limits_are_exact() {
        let hash = |length| hash_password(PasswordCost::cheap(), &vec![b'x'; length], &[1; 16]);
        assert_eq!(hash(0), Err(PasswordError::Empty));
        assert!(hash(PASSWORD_BYTES_MAX - 1).is_ok() && hash(PASSWORD_BYTES_MAX).is_ok());
        assert_eq!(hash(PASSWORD_BYTES_MAX + 1), Err(PasswordError::TooLong));
    }
}
