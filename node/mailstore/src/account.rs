//! One account's mailboxes.

use std::time::Duration;

use core_types::limits::MESSAGES_PER_OP_MAX;
use core_types::{
    AccountId, Entropy, Flags, MailboxGuid, MailboxName, MessageGuid, ModSeq, Uid, UidValidity, UnixMillis,
};
use directory::Account;
use state::command::{DeliveryTarget, FlagChange};
use state::mailbox::{Changes, Quota, Reader};
use state::outcome::Placed;
use state::rows::{MailboxRow, MessageRow, SpecialUse};
use state::{MailboxOp, Outcome, ReadError, Refusal};

use crate::watch::Topic;
use crate::{Ingested, MailStore, StoreError, Watch};

/// An account's mail, as one session uses it.
#[derive(Clone)]
pub struct AccountMail {
    store: MailStore,
    account: Account,
}

/// A mailbox with its messages, all of one moment.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The mailbox.
    pub mailbox: MailboxRow,
    /// Its messages, by UID.
    pub messages: Vec<MessageRow>,
}

/// What `STORE` did, over all its ops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The mailbox's HIGHESTMODSEQ afterwards.
    pub highest_modseq: ModSeq,
    /// Messages that are not in the mailbox any more.
    pub missing: Vec<MessageGuid>,
}

/// What `COPY` or `MOVE` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The target's UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// Source UID and target UID of each message, in the order of the target UIDs.
    pub uids: Vec<(Uid, Uid)>,
}

#[allow(
    clippy::missing_errors_doc,
    reason = "every method fails with StoreError, said at the type"
)]
impl AccountMail {
    pub(crate) fn new(store: MailStore, account: Account) -> Self {
        Self { store, account }
    }

    /// Whose mail it is.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The mail store it belongs to.
    #[must_use]
    pub fn store(&self) -> &MailStore {
        &self.store
    }

    /// Makes the replica here as new as everything that was acknowledged anywhere before the call.
    pub async fn sync(&self) -> Result<(), StoreError> {
        Ok(self
            .store
            .inner
            .groups
            .read_barrier(self.account.group, SYNC_TIMEOUT)
            .await?)
    }

    /// The mailboxes, by name.
    pub async fn mailboxes(&self) -> Result<Vec<MailboxRow>, StoreError> {
        self.read(|reader| reader.mailboxes(self.account.id)).await
    }

    /// The names subscribed to; not all need exist.
    pub async fn subscriptions(&self) -> Result<Vec<MailboxName>, StoreError> {
        self.read(|reader| reader.subscriptions(self.account.id)).await
    }

    /// The mailbox of a name.
    pub async fn mailbox_by_name(&self, name: &MailboxName) -> Result<Option<MailboxRow>, StoreError> {
        self.read(|reader| reader.mailbox_by_name(self.account.id, name)).await
    }

    /// A mailbox; `None` when it was deleted.
    pub async fn mailbox(&self, mailbox: MailboxGuid) -> Result<Option<MailboxRow>, StoreError> {
        self.read(|reader| Ok(reader.mailbox(mailbox)?.filter(|row| row.account == self.account.id)))
            .await
    }

    /// A mailbox with all its messages, of one moment.
    pub async fn select(&self, name: &MailboxName) -> Result<Option<Selected>, StoreError> {
        self.read(|reader| {
            let Some(mailbox) = reader.mailbox_by_name(self.account.id, name)? else {
                return Ok(None);
            };
            let messages = reader.messages(mailbox.guid, Uid(0), usize::MAX)?;
            Ok(Some(Selected { mailbox, messages }))
        })
        .await
    }

    /// Messages with a UID of at least `from`, at most `limit`, ascending.
    pub async fn messages(&self, mailbox: MailboxGuid, from: Uid, limit: usize) -> Result<Vec<MessageRow>, StoreError> {
        self.read(|reader| reader.messages(mailbox, from, limit)).await
    }

    /// The message with this identity, wherever in the account it is now.
    pub async fn message_by_guid(&self, guid: MessageGuid) -> Result<Option<(MailboxGuid, MessageRow)>, StoreError> {
        self.read(|reader| reader.message_by_guid(self.account.id, guid)).await
    }

    /// What changed above a MODSEQ. `None` when the mailbox was deleted.
    pub async fn changes(
        &self,
        mailbox: MailboxGuid,
        since: ModSeq,
        limit: usize,
    ) -> Result<Option<Changes>, StoreError> {
        self.read(|reader| reader.changes_since(mailbox, since, limit)).await
    }

    /// How much the account keeps and may keep.
    pub async fn quota(&self) -> Result<Quota, StoreError> {
        self.read(|reader| reader.quota(self.account.id))
            .await?
            .ok_or(StoreError::Refused(Refusal::NoSuchAccount))
    }

    /// Whether this many octets more fit into the account's quota now.
    pub async fn has_room_for(&self, bytes: u64) -> Result<bool, StoreError> {
        let quota = self.quota().await?;
        Ok(quota
            .limit_bytes
            .is_none_or(|limit| quota.used_bytes.saturating_add(bytes) <= limit))
    }

    /// Watches a mailbox: messages, flags, its name, its end.
    #[must_use]
    pub fn watch_mailbox(&self, mailbox: MailboxGuid) -> Watch {
        self.store.inner.watchers.watch(Topic::Mailbox(mailbox))
    }

    /// Watches the list of mailboxes and subscriptions.
    #[must_use]
    pub fn watch_list(&self) -> Watch {
        self.store.inner.watchers.watch(Topic::Account(self.account.id))
    }

    /// Makes a mailbox, and its superiors where they are missing.
    pub async fn create(&self, name: MailboxName, special_use: Option<SpecialUse>) -> Result<MailboxGuid, StoreError> {
        let guid = MailboxGuid(self.store.inner.entropy.bytes());
        let op = MailboxOp::CreateMailbox {
            account: self.account.id,
            name,
            guid,
            special_use,
        };
        match self.propose(op).await? {
            Outcome::MailboxCreated { mailbox, .. } => Ok(mailbox),
            outcome => Err(StoreError::unexpected(&outcome)),
        }
    }

    /// Deletes a mailbox with its messages.
    pub async fn delete(&self, mailbox: MailboxGuid) -> Result<(), StoreError> {
        self.propose(MailboxOp::DeleteMailbox {
            account: self.account.id,
            mailbox,
        })
        .await
        .map(drop)
    }

    /// Renames a mailbox and all below it.
    pub async fn rename(&self, mailbox: MailboxGuid, to: MailboxName) -> Result<(), StoreError> {
        let new_guid = MailboxGuid(self.store.inner.entropy.bytes());
        self.propose(MailboxOp::RenameMailbox {
            account: self.account.id,
            mailbox,
            to,
            new_guid,
        })
        .await
        .map(drop)
    }

    /// Subscribes to a name, or ends it.
    pub async fn subscribe(&self, name: MailboxName, subscribed: bool) -> Result<(), StoreError> {
        self.propose(MailboxOp::Subscribe {
            account: self.account.id,
            name,
            subscribed,
        })
        .await
        .map(drop)
    }

    /// Adds a message to a mailbox.
    pub async fn append(
        &self,
        mailbox: MailboxGuid,
        message: &Ingested,
        flags: Flags,
        internal_date: Option<UnixMillis>,
    ) -> Result<Placed, StoreError> {
        let target = DeliveryTarget {
            account: self.account.id,
            guid: self.store.new_message_guid(),
            mailbox: Some(mailbox),
            flags,
        };
        let date = internal_date.unwrap_or_else(|| self.store.inner.clock.now());
        let placed = self
            .store
            .deliver_to_group(self.account.group, message, date, vec![target], true, APPEND_TIMEOUT)
            .await?;
        placed
            .into_iter()
            .next()
            .unwrap_or(Err(Refusal::NoSuchMailbox))
            .map_err(StoreError::Refused)
    }

    /// Changes flags. Many messages become several ops; each is done or not done as a whole.
    pub async fn store_flags(
        &self,
        mailbox: MailboxGuid,
        messages: &[MessageGuid],
        change: FlagChange,
        flags: &Flags,
    ) -> Result<Stored, StoreError> {
        let mut stored = Stored::default();
        for messages in messages.chunks(MESSAGES_PER_OP_MAX) {
            let op = MailboxOp::StoreFlags {
                account: self.account.id,
                mailbox,
                messages: messages.to_vec(),
                change,
                flags: flags.clone(),
                unchanged_since: None,
            };
            match self.propose(op).await? {
                Outcome::Stored {
                    highest_modseq,
                    missing,
                    ..
                } => {
                    stored.highest_modseq = highest_modseq;
                    stored.missing.extend(missing);
                }
                outcome => return Err(StoreError::unexpected(&outcome)),
            }
        }
        Ok(stored)
    }

    /// Copies messages, all or none.
    pub async fn copy(
        &self,
        from: MailboxGuid,
        to: MailboxGuid,
        messages: Vec<MessageGuid>,
    ) -> Result<Copied, StoreError> {
        let seed = self.store.inner.entropy.bytes();
        self.transfer(MailboxOp::Copy {
            account: self.account.id,
            from,
            to,
            messages,
            seed,
        })
        .await
    }

    /// Moves messages, all or none.
    pub async fn move_messages(
        &self,
        from: MailboxGuid,
        to: MailboxGuid,
        messages: Vec<MessageGuid>,
    ) -> Result<Copied, StoreError> {
        self.transfer(MailboxOp::Move {
            account: self.account.id,
            from,
            to,
            messages,
        })
        .await
    }

    async fn transfer(&self, op: MailboxOp) -> Result<Copied, StoreError> {
        match self.propose(op).await? {
            Outcome::Copied { uid_validity, uids, .. } => Ok(Copied { uid_validity, uids }),
            outcome => Err(StoreError::unexpected(&outcome)),
        }
    }

    /// Expunges messages; with `only_deleted` those that have `\Deleted`. Many messages become several ops.
    pub async fn expunge(
        &self,
        mailbox: MailboxGuid,
        messages: &[MessageGuid],
        only_deleted: bool,
    ) -> Result<Vec<Uid>, StoreError> {
        let mut expunged = Vec::new();
        for messages in messages.chunks(MESSAGES_PER_OP_MAX) {
            let op = MailboxOp::Expunge {
                account: self.account.id,
                mailbox,
                messages: messages.to_vec(),
                only_deleted,
            };
            match self.propose(op).await? {
                Outcome::Expunged { uids, .. } => expunged.extend(uids),
                outcome => return Err(StoreError::unexpected(&outcome)),
            }
        }
        Ok(expunged)
    }

    async fn propose(&self, op: MailboxOp) -> Result<Outcome, StoreError> {
        self.store.propose(self.account.group, op).await
    }

    pub(crate) async fn read<T: Send>(
        &self,
        read: impl FnOnce(&Reader<'_>) -> Result<T, ReadError> + Send,
    ) -> Result<T, StoreError> {
        Ok(self
            .store
            .inner
            .groups
            .query(self.account.group, |view| read(&Reader::new(view)))
            .await?)
    }
}

/// The mailboxes that a new account begins with (RFC 6154): what mail programs would make otherwise, each in its own
/// words.
pub(crate) fn new_account_op(account: AccountId, quota_bytes: Option<u64>, entropy: &dyn Entropy) -> MailboxOp {
    let special = [
        ("Archive", SpecialUse::Archive),
        ("Drafts", SpecialUse::Drafts),
        ("Junk", SpecialUse::Junk),
        ("Sent", SpecialUse::Sent),
        ("Trash", SpecialUse::Trash),
    ];
    let mailboxes = special.into_iter().filter_map(|(name, special_use)| {
        let name = MailboxName::parse(name).ok()?;
        Some((name, MailboxGuid(entropy.bytes()), Some(special_use)))
    });
    MailboxOp::CreateAccount {
        account,
        inbox: MailboxGuid(entropy.bytes()),
        mailboxes: mailboxes.collect(),
        quota_bytes,
    }
}

/// How long a command waits for the majority before it is refused as unavailable. Longer than a change of leader takes.
const SYNC_TIMEOUT: Duration = Duration::from_secs(8);
/// The same for an APPEND, whose blob has to be stored too.
const APPEND_TIMEOUT: Duration = Duration::from_secs(15);
