//! Logging in: look-up, throttle, cache, argon2id, and the confirmation of every "no" at the majority.
//!
//! Known and unknown names cost the same: one hash each, and the same words. What a client sends is data: a name is
//! parsed as an address and looked up, never expanded.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use core_types::limits::PASSWORD_BYTES_MAX;
use core_types::{AccountId, Address, GroupId};
use state::rows::{Credential, DirectoryAccountRow};

use crate::{Directory, LookupError};

/// Who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The account.
    pub id: AccountId,
    /// Its address.
    pub address: Address,
    /// The mailbox group it lives in.
    pub group: GroupId,
}

/// Why a login failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The name or the password is wrong. It is not said which.
    #[error("wrong name or password")]
    Wrong,
    /// Too many failures from this network lately, and the account has not logged in from that address before.
    #[error("too many failed logins from your network, try again later")]
    TooMany,
    /// It cannot be decided now.
    #[error("logging in is not possible now: {0}")]
    Unavailable(String),
}

impl Directory {
    /// Checks a name and a password. A failure is answered the later the more there were from the peer's network.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn authenticate(&self, name: &str, password: &[u8], peer: IpAddr) -> Result<Account, LoginError> {
        let throttle = &self.inner.throttle;
        let mut known = None;
        if !throttle.permits(peer) {
            let row = self.login_row(Address::parse(name.trim()).ok().as_ref()).await?;
            known = row
                .map(|row| row.account)
                .filter(|account| throttle.permits_known(*account, peer));
            if known.is_none() {
                return Err(LoginError::TooMany);
            }
        }
        let result = if password.len() > PASSWORD_BYTES_MAX {
            // Refused before it is hashed: length must not buy work.
            Err(LoginError::Wrong)
        } else {
            self.check(name, password).await
        };
        match &result {
            Ok(account) => throttle.record_success(account.id, peer),
            Err(LoginError::Wrong) => {
                if let Some(account) = known {
                    throttle.record_known_failure(account, peer);
                }
                let delay = throttle.record_failure(peer);
                tokio::time::sleep(delay).await;
            }
            Err(_) => {}
        }
        result
    }

    async fn check(&self, name: &str, password: &[u8]) -> Result<Account, LoginError> {
        let address = Address::parse(name.trim()).ok();
        let tried = self.login_row(address.as_ref()).await?;
        if let Some(row) = &tried
            && self.inner.logins.knows(row, password)
        {
            return Ok(account_of(row));
        }
        if self.verify(tried.as_ref(), password).await {
            return tried.as_ref().map(account_of).ok_or(LoginError::Wrong);
        }
        // A "no" from this replica alone may be an old one: the password may have been changed elsewhere just now.
        self.confirm()
            .await
            .map_err(|LookupError(reason)| LoginError::Unavailable(reason))?;
        let current = self.login_row(address.as_ref()).await?;
        if current != tried && self.verify(current.as_ref(), password).await {
            return current.as_ref().map(account_of).ok_or(LoginError::Wrong);
        }
        Err(LoginError::Wrong)
    }

    async fn login_row(&self, address: Option<&Address>) -> Result<Option<DirectoryAccountRow>, LoginError> {
        let Some(address) = address else { return Ok(None) };
        let row = self
            .query(|reader| reader.account_by_address(address))
            .await
            .map_err(|LookupError(reason)| LoginError::Unavailable(reason))?;
        Ok(row.filter(|row| row.active))
    }

    async fn verify(&self, row: Option<&DirectoryAccountRow>, password: &[u8]) -> bool {
        let phc = row.and_then(|row| match &row.credential {
            Credential::Password(phc) => Some(phc.as_str()),
            Credential::None => None,
        });
        let verified = self.inner.passwords.verify(phc, password).await;
        if let (true, Some(row)) = (verified, row) {
            self.inner.logins.remember(row, password);
        }
        verified
    }
}

fn account_of(row: &DirectoryAccountRow) -> Account {
    Account {
        id: row.account,
        address: row.address.clone(),
        group: row.group,
    }
}

/// Successful logins, so that a mail program that logs in every minute costs no hash.
///
/// The key is a keyed hash over account, credential and password: a changed credential makes its entries unreachable,
/// and nothing in memory reveals a password.
pub(crate) struct LoginCache {
    key: [u8; 32],
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_hash: BTreeMap<[u8; 32], tokio::time::Instant>,
}

impl LoginCache {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            entries: Mutex::default(),
        }
    }

    fn knows(&self, row: &DirectoryAccountRow, password: &[u8]) -> bool {
        let Some(hash) = self.hash(row, password) else {
            return false;
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.by_hash.get(&hash) {
            Some(since) if since.elapsed() < CACHE_TIME => true,
            Some(_) => {
                entries.by_hash.remove(&hash);
                false
            }
            None => false,
        }
    }

    fn remember(&self, row: &DirectoryAccountRow, password: &[u8]) {
        let Some(hash) = self.hash(row, password) else { return };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.by_hash.len() >= CACHE_ENTRIES_MAX {
            entries.by_hash.retain(|_, since| since.elapsed() < CACHE_TIME);
            if entries.by_hash.len() >= CACHE_ENTRIES_MAX {
                entries.by_hash.pop_first();
            }
        }
        entries.by_hash.insert(hash, tokio::time::Instant::now());
    }

    fn hash(&self, row: &DirectoryAccountRow, password: &[u8]) -> Option<[u8; 32]> {
        let Credential::Password(phc) = &row.credential else {
            return None;
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(&row.account.0);
        hasher.update(&(phc.len() as u64).to_le_bytes());
        hasher.update(phc.as_bytes());
        hasher.update(password);
        Some(*hasher.finalize().as_bytes())
    }
}

/// How long a successful login is remembered.
const CACHE_TIME: Duration = Duration::from_secs(3600);
/// Logins that are remembered. Cost: some 64 octets each.
const CACHE_ENTRIES_MAX: usize = 65_536;
