//! Messages entering and leaving a mailbox: UIDs, MODSEQs, counters, digest and change index together, so that no op can
//! forget one of them.
//!
//! Not here: the blob's references, the memory of GUIDs that went, what is retained.

use core_types::limits::{DELIVERY_MEMORY, KEYWORDS_PER_MAILBOX_MAX, MESSAGES_PER_OP_MAX};
use core_types::{AccountId, BlobId, EmailId, Flags, Keyword, MailboxGuid, MessageGuid, Slot, Uid, UnixMillis};

use crate::apply::millis;
use crate::apply::tx::{self, Halt, Tx, refuse};
use crate::digest;
use crate::keys;
use crate::lanes;
use crate::manifest;
use crate::outcome::Refusal;
use crate::rows::{ChangeRow, Doomed, GuidRow, MailboxRow, MessageRow};

/// The trunk's slot; islands will pass their own.
pub(crate) const TRUNK: Slot = Slot(0);

/// What of a message does not depend on the mailbox.
pub(crate) struct Entering<'a> {
    pub(crate) guid: MessageGuid,
    pub(crate) email_id: EmailId,
    pub(crate) blob: BlobId,
    pub(crate) size: u64,
    pub(crate) internal_date: UnixMillis,
    pub(crate) flags: &'a Flags,
}

impl<'a> Entering<'a> {
    /// A message of another mailbox, under this GUID.
    pub(crate) fn again(row: &'a MessageRow, guid: MessageGuid) -> Self {
        let MessageRow {
            email_id,
            blob,
            size,
            internal_date,
            flags,
            ..
        } = row;
        Self {
            guid,
            email_id: *email_id,
            blob: *blob,
            size: *size,
            internal_date: *internal_date,
            flags,
        }
    }
}

/// Refuses ops that name too many messages.
pub(crate) fn check_count(messages: &[MessageGuid]) -> Result<(), Halt> {
    if messages.len() > MESSAGES_PER_OP_MAX {
        return refuse(Refusal::Limit("MESSAGES_PER_OP_MAX".to_owned()));
    }
    Ok(())
}

/// Puts a message into a mailbox. When it refuses, nothing has changed.
pub(crate) fn enter(
    tx: &mut Tx<'_>,
    account: AccountId,
    mailbox: MailboxGuid,
    message: &Entering<'_>,
) -> Result<MessageRow, Halt> {
    let save_date = tx.time;
    tx.account(account)?;
    let row = tx.mailbox(account, mailbox)?;
    let uid = lanes::next_uid(TRUNK, row.uid_next).ok_or_else(|| Refusal::Limit("UIDs".to_owned()))?;
    let keywords = keywords_with(row, message.flags)?;
    let flags = spelled(&keywords, message.flags);
    row.keywords = keywords;
    row.uid_next = Uid(uid.0.saturating_add(1));
    let name = row.name.clone();

    let modseq = tx.modseq(account, mailbox)?;
    let Entering {
        guid,
        email_id,
        blob,
        size,
        internal_date,
        ..
    } = *message;
    let entered = MessageRow {
        uid,
        guid,
        email_id,
        blob,
        size,
        internal_date,
        save_date,
        flags,
        modseq,
    };
    let bytes = tx::encoded(&entered)?;
    let key = keys::message(mailbox, uid);
    let row = tx.mailbox(account, mailbox)?;
    digest::add(&mut row.digest, &key, &bytes);
    count(row, &entered, Change::In);
    let owner = tx.account(account)?;
    owner.used_bytes = owner.used_bytes.saturating_add(size);
    owner.message_count += 1;
    tx.put_bytes(key, bytes);
    tx.put(keys::change(mailbox, modseq, uid), &ChangeRow::Live)?;
    tx.put(keys::guid(account, guid), &GuidRow::Live { mailbox, uid })?;
    tx.manifest(manifest::add(account, mailbox, &name, &entered));
    Ok(entered)
}

/// Takes a message out of a mailbox; its GUID's row is left to the caller.
pub(crate) fn leave(
    tx: &mut Tx<'_>,
    account: AccountId,
    mailbox: MailboxGuid,
    message: &MessageRow,
) -> Result<(), Halt> {
    let modseq = tx.modseq(account, mailbox)?;
    let key = keys::message(mailbox, message.uid);
    let bytes = tx::encoded(message)?;
    let row = tx.mailbox(account, mailbox)?;
    digest::subtract(&mut row.digest, &key, &bytes);
    count(row, message, Change::Out);
    let owner = tx.account(account)?;
    owner.used_bytes = owner.used_bytes.saturating_sub(message.size);
    owner.message_count = owner.message_count.saturating_sub(1);
    tx.delete(key);
    tx.delete(keys::change(mailbox, message.modseq, message.uid));
    tx.put(
        keys::change(mailbox, modseq, message.uid),
        &ChangeRow::Vanished(message.guid),
    )?;
    let due = tx.time.saturating_add(millis(DELIVERY_MEMORY));
    tx.doom(due, Doomed::Vanished(mailbox, modseq, message.uid))?;
    Ok(())
}

/// Gives a message other flags, which the mailbox's keywords hold already.
pub(crate) fn set_flags(
    tx: &mut Tx<'_>,
    account: AccountId,
    mailbox: MailboxGuid,
    old: &MessageRow,
    flags: Flags,
) -> Result<(), Halt> {
    let modseq = tx.modseq(account, mailbox)?;
    let new = MessageRow {
        flags,
        modseq,
        ..old.clone()
    };
    let key = keys::message(mailbox, old.uid);
    let (old_bytes, new_bytes) = (tx::encoded(old)?, tx::encoded(&new)?);
    let row = tx.mailbox(account, mailbox)?;
    digest::subtract(&mut row.digest, &key, &old_bytes);
    digest::add(&mut row.digest, &key, &new_bytes);
    count(row, old, Change::Out);
    count(row, &new, Change::In);
    tx.put_bytes(key, new_bytes);
    tx.delete(keys::change(mailbox, old.modseq, old.uid));
    tx.put(keys::change(mailbox, modseq, new.uid), &ChangeRow::Live)?;
    tx.manifest(manifest::flags(account, &new));
    Ok(())
}

/// The mailbox's keywords once it has these flags too.
pub(crate) fn keywords_with(row: &MailboxRow, flags: &Flags) -> Result<Vec<Keyword>, Refusal> {
    let mut keywords = row.keywords.clone();
    for keyword in &flags.keywords {
        if let Err(place) = keywords.binary_search(keyword) {
            keywords.insert(place, keyword.clone());
        }
    }
    if keywords.len() > KEYWORDS_PER_MAILBOX_MAX {
        return Err(Refusal::Limit("KEYWORDS_PER_MAILBOX_MAX".to_owned()));
    }
    Ok(keywords)
}

/// The flags with keywords spelled as the mailbox first had them.
pub(crate) fn spelled(keywords: &[Keyword], flags: &Flags) -> Flags {
    let spell = |keyword: &Keyword| {
        let known = keywords
            .binary_search(keyword)
            .ok()
            .and_then(|place| keywords.get(place));
        known.unwrap_or(keyword).clone()
    };
    let mut spelled = Flags::system(flags.system);
    spelled.keywords = flags.keywords.iter().map(spell).collect();
    spelled
}

#[derive(Clone, Copy)]
enum Change {
    In,
    Out,
}

fn count(row: &mut MailboxRow, message: &MessageRow, change: Change) {
    let step = |counter: &mut u32, counts: bool| {
        if counts {
            *counter = match change {
                Change::In => counter.saturating_add(1),
                Change::Out => counter.saturating_sub(1),
            };
        }
    };
    step(&mut row.message_count, true);
    step(&mut row.unseen_count, !message.flags.has(Flags::SEEN));
    step(&mut row.deleted_count, message.flags.has(Flags::DELETED));
    row.size_bytes = match change {
        Change::In => row.size_bytes.saturating_add(message.size),
        Change::Out => row.size_bytes.saturating_sub(message.size),
    };
}
