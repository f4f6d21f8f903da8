//! What the sessions of a node share: the mail store, the host's name, and how many sessions each account has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_types::AccountId;
use core_types::limits::SESSIONS_PER_ACCOUNT_MAX;
use mailstore::MailStore;

/// What every session needs. Clones share everything; one for all POP3 listeners of a node.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

struct Shared {
    store: MailStore,
    host: String,
    sessions: Mutex<BTreeMap<AccountId, usize>>,
}

/// One session of an account, until it is dropped.
pub(crate) struct Admitted {
    shared: Arc<Shared>,
    account: AccountId,
}

impl Context {
    /// For sessions over this mail store that greet with this host name.
    #[must_use]
    pub fn new(store: MailStore, host: impl Into<String>) -> Self {
        Self {
            shared: Arc::new(Shared {
                store,
                host: host.into(),
                sessions: Mutex::default(),
            }),
        }
    }

    pub(crate) fn store(&self) -> &MailStore {
        &self.shared.store
    }

    pub(crate) fn host(&self) -> &str {
        &self.shared.host
    }

    /// Counts a session of an account; `None` when it has [`SESSIONS_PER_ACCOUNT_MAX`] already.
    pub(crate) fn admit(&self, account: AccountId) -> Option<Admitted> {
        let mut sessions = self.shared.lock();
        let count = sessions.get(&account).copied().unwrap_or(0);
        if count >= SESSIONS_PER_ACCOUNT_MAX {
            return None;
        }
        sessions.insert(account, count.saturating_add(1));
        Some(Admitted {
            shared: Arc::clone(&self.shared),
            account,
        })
    }

    /// Open maildrops.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.shared.lock().values().sum()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<AccountId, usize>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut sessions = self.shared.lock();
        match sessions.get_mut(&self.account) {
            Some(count) if *count > 1 => *count = count.saturating_sub(1),
            _ => {
                sessions.remove(&self.account);
            }
        }
    }
}
