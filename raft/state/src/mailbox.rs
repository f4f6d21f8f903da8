//! Reading the state of a mailbox group.
//!
//! A reader sees one view: what it returns fits together only if the view does not change meanwhile.
//!
//! Not here: changing anything ([`mod@crate::apply`]); sequence numbers and sessions, which are the front ends'.

use core_types::{AccountId, BlobId, KvRead, MailboxGuid, MailboxName, MessageGuid, ModSeq, QueueId, Uid, UnixMillis};

use crate::digest::Digest;
use crate::keys::{self, Space};
use crate::rows::{
    AccountRow, Change, ChangeRow, DeletedMailboxRow, GuidRow, MailboxRow, MessageRow, QueueEntry, RetainedRow,
};
use crate::store::{self, ReadError};

/// Reads a mailbox group's state. Every method fails with [`ReadError`] when the engine does or the state is damaged.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    view: &'a dyn KvRead,
}

/// Changes of a mailbox, oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// What changed, by (MODSEQ, UID). A message is in it once, at its last change.
    pub changes: Vec<Change>,
    /// There is more: ask again with this MODSEQ.
    pub next: Option<ModSeq>,
    /// Some messages that vanished since are not remembered any more: every UID below UIDNEXT that is not in the mailbox
    /// must be taken for vanished.
    pub forgotten: bool,
}

/// How much an account keeps and may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Octets of its messages.
    pub used_bytes: u64,
    /// Number of its messages.
    pub message_count: u64,
    /// Octets it may keep; `None` for no limit.
    pub limit_bytes: Option<u64>,
}

/// What a group holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accounts.
    pub accounts: u64,
    /// Mailboxes.
    pub mailboxes: u64,
    /// Messages in mailboxes, retained ones not counted.
    pub messages: u64,
    /// Their octets.
    pub message_bytes: u64,
    /// Entries of the queue.
    pub queue_entries: u64,
}

#[allow(clippy::missing_errors_doc, reason = "said once, at the type")]
impl<'a> Reader<'a> {
    /// Reads this view, which shows the group's logical keys only.
    #[must_use]
    pub fn new(view: &'a dyn KvRead) -> Self {
        Self { view }
    }

    /// An account.
    pub fn account(&self, account: AccountId) -> Result<Option<AccountRow>, ReadError> {
        store::load(self.view, &keys::account(account))
    }

    /// Accounts above `after`, at most `limit`, in the order of their ids.
    pub fn accounts(&self, after: Option<AccountId>, limit: usize) -> Result<Vec<(AccountId, AccountRow)>, ReadError> {
        let (mut from, to) = Space::Account.range(&[]);
        if let Some(after) = after {
            from = keys::account(after);
            from.push(0);
        }
        let mut accounts = Vec::new();
        if limit > 0 {
            store::scan(self.view, &(from, to), &mut |key, row| {
                accounts.push((AccountId(store::part(key, 1)?), row));
                Ok(accounts.len() < limit)
            })?;
        }
        Ok(accounts)
    }

    /// How much the account keeps and may keep.
    pub fn quota(&self, account: AccountId) -> Result<Option<Quota>, ReadError> {
        Ok(self.account(account)?.map(|row| Quota {
            used_bytes: row.used_bytes,
            message_count: row.message_count,
            limit_bytes: row.quota_bytes,
        }))
    }

    /// The account's mailboxes, by name (in the order of the names' octets). None for an account that is not here.
    pub fn mailboxes(&self, account: AccountId) -> Result<Vec<MailboxRow>, ReadError> {
        let named: Vec<MailboxGuid> = store::list(self.view, &Space::MailboxName.range(&[&account.0]), usize::MAX)?;
        named.into_iter().map(|guid| self.named(guid)).collect()
    }

    /// The names the account is subscribed to, in the order of their octets; not all need exist.
    pub fn subscriptions(&self, account: AccountId) -> Result<Vec<MailboxName>, ReadError> {
        let mut names = Vec::new();
        for key in store::keys(self.view, &Space::Subscription.range(&[&account.0]), usize::MAX)? {
            let name = MailboxName::parse(store::text(&key, 17)?);
            names.push(name.map_err(|error| store::corrupt(&key, &error.to_string()))?);
        }
        Ok(names)
    }

    /// A mailbox.
    pub fn mailbox(&self, mailbox: MailboxGuid) -> Result<Option<MailboxRow>, ReadError> {
        store::load(self.view, &keys::mailbox(mailbox))
    }

    /// The account's mailbox of that name.
    pub fn mailbox_by_name(&self, account: AccountId, name: &MailboxName) -> Result<Option<MailboxRow>, ReadError> {
        let guid: Option<MailboxGuid> = store::load(self.view, &keys::mailbox_name(account, name))?;
        guid.map(|guid| self.named(guid)).transpose()
    }

    /// All mailboxes of the group above `after`, at most `limit`, in the order of their GUIDs: for comparing digests.
    pub fn all_mailboxes(&self, after: Option<MailboxGuid>, limit: usize) -> Result<Vec<MailboxRow>, ReadError> {
        let (mut from, to) = Space::Mailbox.range(&[]);
        if let Some(after) = after {
            from = keys::mailbox(after);
            from.push(0);
        }
        store::list(self.view, &(from, to), limit)
    }

    /// The tombstone of a mailbox that was deleted.
    pub fn deleted_mailbox(&self, mailbox: MailboxGuid) -> Result<Option<DeletedMailboxRow>, ReadError> {
        store::load(self.view, &keys::deleted_mailbox(mailbox))
    }

    /// Messages with a UID of at least `from`, at most `limit`, ascending.
    pub fn messages(&self, mailbox: MailboxGuid, from: Uid, limit: usize) -> Result<Vec<MessageRow>, ReadError> {
        if self.mailbox(mailbox)?.is_none() {
            return Ok(Vec::new());
        }
        store::list(
            self.view,
            &(keys::message(mailbox, from), Space::Message.range(&[&mailbox.0]).1),
            limit,
        )
    }

    /// A message.
    pub fn message(&self, mailbox: MailboxGuid, uid: Uid) -> Result<Option<MessageRow>, ReadError> {
        if self.mailbox(mailbox)?.is_none() {
            return Ok(None);
        }
        store::load(self.view, &keys::message(mailbox, uid))
    }

    /// Where a message is, and the message. `None` when it is in no mailbox (any more).
    pub fn message_by_guid(
        &self,
        account: AccountId,
        message: MessageGuid,
    ) -> Result<Option<(MailboxGuid, MessageRow)>, ReadError> {
        match store::load(self.view, &keys::guid(account, message))? {
            Some(GuidRow::Live { mailbox, uid }) => Ok(self.message(mailbox, uid)?.map(|row| (mailbox, row))),
            Some(GuidRow::Gone { .. }) | None => Ok(None),
        }
    }

    /// The structure of a message, as it came with it. `None`: there is no such message, or its structure is made from the
    /// blob.
    pub fn structure(&self, mailbox: MailboxGuid, uid: Uid) -> Result<Option<Vec<u8>>, ReadError> {
        match self.message(mailbox, uid)? {
            Some(message) => self.structure_of_blob(message.blob),
            None => Ok(None),
        }
    }

    /// The same by the blob, which saves a read when the message's row is at hand.
    pub fn structure_of_blob(&self, blob: BlobId) -> Result<Option<Vec<u8>>, ReadError> {
        store::load::<serde_bytes::ByteBuf>(self.view, &keys::structure(blob))
            .map(|row| row.map(serde_bytes::ByteBuf::into_vec))
    }

    /// What changed above `since`, at least `limit` changes where there are so many: those of one op stay together.
    ///
    /// A `since` above HIGHESTMODSEQ is taken as 0 (rule U4). `None` when there is no such mailbox.
    pub fn changes_since(
        &self,
        mailbox: MailboxGuid,
        since: ModSeq,
        limit: usize,
    ) -> Result<Option<Changes>, ReadError> {
        let Some(row) = self.mailbox(mailbox)? else {
            return Ok(None);
        };
        let since = if since > row.highest_modseq { ModSeq(0) } else { since };
        let (_, to) = Space::Change.range(&[&mailbox.0]);
        let from = keys::change(mailbox, ModSeq(since.0.saturating_add(1)), Uid(0));
        let mut found: Vec<(ModSeq, Uid, ChangeRow)> = Vec::new();
        let mut next = None;
        store::scan(self.view, &(from, to), &mut |key, change| {
            let modseq = ModSeq(u64::from_be_bytes(store::part(key, 17)?));
            if found.len() >= limit.max(1)
                && let Some((last, ..)) = found.last()
                && *last != modseq
            {
                next = Some(*last);
                return Ok(false);
            }
            found.push((modseq, Uid(u32::from_be_bytes(store::part(key, 25)?)), change));
            Ok(true)
        })?;
        let mut changes = Vec::with_capacity(found.len());
        for (modseq, uid, change) in found {
            changes.push(match change {
                ChangeRow::Vanished(guid) => Change::Vanished { uid, guid, modseq },
                ChangeRow::Live => {
                    let key = keys::message(mailbox, uid);
                    let row = store::load(self.view, &key)?;
                    Change::Message(row.ok_or_else(|| store::corrupt(&key, "a change of a message that is not there"))?)
                }
            });
        }
        Ok(Some(Changes {
            changes,
            next,
            forgotten: since < row.forgotten_modseq,
        }))
    }

    /// Expunged messages of an account that are still kept, at most `limit`, in the order of their GUIDs.
    pub fn retained(&self, account: AccountId, limit: usize) -> Result<Vec<RetainedRow>, ReadError> {
        store::list(self.view, &Space::Retained.range(&[&account.0]), limit)
    }

    /// Every blob above `after` that a row refers to, at most `limit`, ascending.
    pub fn all_blobs(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, ReadError> {
        let (mut from, to) = Space::Blob.range(&[]);
        if let Some(after) = after {
            from = keys::blob(after);
            from.push(0);
        }
        let found = store::keys(self.view, &(from, to), limit)?;
        found.iter().map(|key| store::part(key, 1).map(BlobId)).collect()
    }

    /// Whether a row refers to the blob: a message, a retained one, or an entry of the queue.
    pub fn references_blob(&self, blob: BlobId) -> Result<bool, ReadError> {
        Ok(self.view.get(&keys::blob(blob))?.is_some())
    }

    /// An entry of the queue.
    pub fn queue_entry(&self, entry: QueueId) -> Result<Option<QueueEntry>, ReadError> {
        store::load(self.view, &keys::queue(entry))
    }

    /// Entries above `after`, at most `limit`, in the order of their ids.
    pub fn queue(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueEntry>, ReadError> {
        let (mut from, to) = Space::Queue.range(&[]);
        if let Some(after) = after {
            from = keys::queue(after);
            from.push(0);
        }
        store::list(self.view, &(from, to), limit)
    }

    /// Entries that are due at `now`, the longest due first, at most `limit`. An entry is not due while it is held, nor
    /// before its next attempt, nor before the deadline of an attempt under way.
    pub fn queue_due(&self, now: UnixMillis, limit: usize) -> Result<Vec<QueueEntry>, ReadError> {
        let (from, _) = Space::QueueDue.range(&[]);
        let to = Space::QueueDue.key(&[&now.0.saturating_add(1).to_be_bytes()]);
        let mut entries = Vec::new();
        for key in store::keys(self.view, &(from, to), limit)? {
            let id = QueueId(store::part(&key, 9)?);
            entries.push(
                self.queue_entry(id)?
                    .ok_or_else(|| store::corrupt(&key, "no such entry"))?,
            );
        }
        Ok(entries)
    }

    /// When the next entry is due; `None` when none waits.
    pub fn queue_next_due(&self) -> Result<Option<UnixMillis>, ReadError> {
        let first = store::keys(self.view, &Space::QueueDue.range(&[]), 1)?;
        first
            .first()
            .map(|key| store::part(key, 1).map(|due| UnixMillis(u64::from_be_bytes(due))))
            .transpose()
    }

    /// Whether `Prune` would find something at this op time.
    pub fn prune_due(&self, now: UnixMillis) -> Result<bool, ReadError> {
        let (from, _) = Space::Prune.range(&[]);
        let to = Space::Prune.key(&[&now.0.saturating_add(1).to_be_bytes()]);
        Ok(!store::keys(self.view, &(from, to), 1)?.is_empty())
    }

    /// The digest of the whole group.
    pub fn digest(&self) -> Result<Digest, ReadError> {
        crate::digest::stored(self.view)
    }

    /// How much the group holds. Costs one row for each account and one key for each queue entry.
    pub fn counts(&self) -> Result<Counts, ReadError> {
        let mut counts = Counts::default();
        store::scan(self.view, &Space::Account.range(&[]), &mut |_, row: AccountRow| {
            counts.accounts += 1;
            counts.mailboxes += u64::from(row.mailbox_count);
            counts.messages += row.message_count;
            counts.message_bytes += row.used_bytes;
            Ok(true)
        })?;
        counts.queue_entries = store::keys(self.view, &Space::Queue.range(&[]), usize::MAX)?.len() as u64;
        Ok(counts)
    }

    /// A mailbox that another row names.
    fn named(&self, guid: MailboxGuid) -> Result<MailboxRow, ReadError> {
        let key = keys::mailbox(guid);
        store::load(self.view, &key)?.ok_or_else(|| store::corrupt(&key, "a name of a mailbox that is not there"))
    }
}

/// What makes UIDNEXT of each mailbox what its messages say: [`core_types::mutants::Mutant::ReuseUid`].
///
/// # Errors
/// [`ReadError`]
#[cfg(feature = "mutants")]
pub fn forget_uid_next(view: &dyn KvRead) -> Result<core_types::Batch, ReadError> {
    let mut batch = core_types::Batch::default();
    for mailbox in store::list::<MailboxRow>(view, &Space::Mailbox.range(&[]), usize::MAX)? {
        let messages: Vec<MessageRow> = store::list(view, &Space::Message.range(&[&mailbox.guid.0]), usize::MAX)?;
        let uid_next = Uid(messages.last().map_or(1, |last| last.uid.0 + 1));
        let key = keys::mailbox(mailbox.guid);
        let row = store::encode(&MailboxRow { uid_next, ..mailbox });
        batch.put(key, row.map_err(|error| ReadError::Corrupt(error.to_string()))?);
    }
    Ok(batch)
}
