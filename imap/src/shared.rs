//! What the sessions of one node share: how many each account has, and which messages were announced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_types::limits::{IMAP_RECENT_MAILBOXES_MAX, SESSIONS_PER_ACCOUNT_MAX};
use core_types::{AccountId, MailboxGuid, Uid};

/// See the module.
#[derive(Default)]
pub(crate) struct Shared {
    sessions: Mutex<BTreeMap<AccountId, usize>>,
    /// For each mailbox the first UID that no session was told of.
    announced: Mutex<BTreeMap<MailboxGuid, Uid>>,
}

/// One counted session, until it is dropped.
pub(crate) struct SessionPermit {
    shared: Arc<Shared>,
    account: AccountId,
}

impl Shared {
    /// Counts a session; `None` when the account has too many here.
    pub(crate) fn admit(self: &Arc<Self>, account: AccountId) -> Option<SessionPermit> {
        let mut sessions = lock(&self.sessions);
        let count = sessions.entry(account).or_insert(0);
        if *count >= SESSIONS_PER_ACCOUNT_MAX {
            return None;
        }
        *count += 1;
        Some(SessionPermit {
            shared: Arc::clone(self),
            account,
        })
    }

    /// The first UID of a mailbox that is recent; `None` when this node does not know.
    pub(crate) fn recent_from(&self, mailbox: MailboxGuid) -> Option<Uid> {
        lock(&self.announced).get(&mailbox).copied()
    }

    /// A session was told of all messages below this UID.
    pub(crate) fn set_announced(&self, mailbox: MailboxGuid, below: Uid) {
        let mut announced = lock(&self.announced);
        if announced.len() >= IMAP_RECENT_MAILBOXES_MAX && !announced.contains_key(&mailbox) {
            announced.pop_first();
        }
        let known = announced.entry(mailbox).or_insert(below);
        *known = below.max(*known);
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let mut sessions = lock(&self.shared.sessions);
        match sessions.get_mut(&self.account) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                sessions.remove(&self.account);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_counted_by_account_and_given_back() {
        let shared = Arc::new(Shared::default());
        let one = AccountId([1; 16]);
        let permits: Vec<_> = (0..SESSIONS_PER_ACCOUNT_MAX)
            .map(|_| shared.admit(one).unwrap())
            .collect();
        assert!(shared.admit(one).is_none());
        assert!(shared.admit(AccountId([2; 16])).is_some());
        drop(permits);
        assert!(shared.admit(one).is_some());
        assert!(lock(&shared.sessions).is_empty());
    }

    #[test]
    fn what_was_announced_never_becomes_less() {
        let shared = Shared::default();
        let mailbox = MailboxGuid([1; 16]);
        assert_eq!(shared.recent_from(mailbox), None);
        shared.set_announced(mailbox, Uid(5));
        shared.set_announced(mailbox, Uid(3));
        assert_eq!(shared.recent_from(mailbox), Some(Uid(5)));
    }
}
