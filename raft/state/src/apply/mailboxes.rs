//! Making, deleting and renaming mailboxes (RFC 9051 6.3.4 to 6.3.6).
//!
//! A deleted mailbox's row becomes a tombstone, and its messages stay where they stand until `Prune` lets go of both, so
//! that deleting costs the same however many there are. Renaming INBOX does move its messages, and is refused beyond
//! `MESSAGES_PER_OP_MAX` of them.

use core_types::limits::{DELIVERY_MEMORY, MAILBOXES_PER_ACCOUNT_MAX, MESSAGES_PER_OP_MAX, RETENTION};
use core_types::{AccountId, MailboxGuid, MailboxName, ModSeq, Uid};

use crate::apply::tx::{Halt, Tx, refuse};
use crate::apply::{copy, messages, millis};
use crate::keys::{self, Space};
use crate::outcome::{Outcome, Refusal};
use crate::rows::{DeletedMailboxRow, Doomed, MailboxRow, MessageRow, SpecialUse};
use crate::{lanes, manifest, store};

pub(crate) fn apply_create(
    tx: &mut Tx<'_>,
    account: AccountId,
    name: &MailboxName,
    guid: MailboxGuid,
    special_use: Option<SpecialUse>,
) -> Result<Outcome, Halt> {
    tx.account(account)?;
    create(tx, account, name, guid, special_use)?;
    let uid_validity = tx.mailbox(account, guid)?.uid_validity;
    Ok(Outcome::MailboxCreated {
        mailbox: guid,
        uid_validity,
    })
}

pub(crate) fn apply_delete(tx: &mut Tx<'_>, account: AccountId, mailbox: MailboxGuid) -> Result<Outcome, Halt> {
    if tx.account(account)?.inbox == mailbox {
        return refuse(Refusal::InboxStays);
    }
    delete(tx, account, mailbox)?;
    Ok(Outcome::Done)
}

pub(crate) fn apply_rename(
    tx: &mut Tx<'_>,
    account: AccountId,
    mailbox: MailboxGuid,
    to: &MailboxName,
    new_guid: MailboxGuid,
) -> Result<Outcome, Halt> {
    let is_inbox = tx.account(account)?.inbox == mailbox;
    let from = tx.mailbox(account, mailbox)?.name.clone();
    if tx.exists(&keys::mailbox_name(account, to))? {
        return refuse(Refusal::AlreadyExists);
    }
    if is_inbox {
        return rename_inbox(tx, account, mailbox, to, new_guid);
    }
    if to.is_below(&from) {
        return refuse(Refusal::IntoItself);
    }
    // First every old name goes and then every new one comes, so that a name may pass from one mailbox to another.
    let mut renamed = Vec::new();
    for (name, guid) in names(tx, account)? {
        if let Some(moved) = name.moved(&from, to) {
            let moved = moved.map_err(|error| Refusal::BadName(error.to_string()))?;
            tx.delete(keys::mailbox_name(account, &name));
            renamed.push((guid, moved));
        }
    }
    create_superiors(tx, account, to, new_guid)?;
    for (guid, name) in renamed {
        let key = keys::mailbox_name(account, &name);
        if tx.exists(&key)? {
            return refuse(Refusal::AlreadyExists);
        }
        tx.put(key, &guid)?;
        tx.mailbox(account, guid)?.name = name.clone();
        tx.announce(guid);
        tx.manifest(manifest::mailbox(account, guid, &name));
    }
    tx.announce_list(account);
    Ok(Outcome::Done)
}

/// Makes a mailbox and what is missing above it.
pub(crate) fn create(
    tx: &mut Tx<'_>,
    account: AccountId,
    name: &MailboxName,
    guid: MailboxGuid,
    special_use: Option<SpecialUse>,
) -> Result<(), Halt> {
    if tx.exists(&keys::mailbox_name(account, name))? {
        return refuse(Refusal::AlreadyExists);
    }
    create_superiors(tx, account, name, guid)?;
    create_one(tx, account, name, guid, special_use)
}

/// Makes one mailbox, whose name is free.
pub(crate) fn create_one(
    tx: &mut Tx<'_>,
    account: AccountId,
    name: &MailboxName,
    guid: MailboxGuid,
    special_use: Option<SpecialUse>,
) -> Result<(), Halt> {
    // A GUID is for ever: not even a deleted mailbox gives it back.
    if tx.any_mailbox(guid)?.is_some() || tx.exists(&keys::deleted_mailbox(guid))? {
        return refuse(Refusal::AlreadyExists);
    }
    let seconds = tx.time.seconds();
    let owner = tx.account(account)?;
    if owner.mailbox_count as usize >= MAILBOXES_PER_ACCOUNT_MAX {
        return refuse(Refusal::Limit("MAILBOXES_PER_ACCOUNT_MAX".to_owned()));
    }
    let uid_validity = lanes::next_uid_validity(messages::TRUNK, seconds, owner.uid_validity_last)
        .ok_or_else(|| Refusal::Limit("UIDVALIDITY".to_owned()))?;
    owner.uid_validity_last = uid_validity;
    owner.mailbox_count += 1;
    tx.put(keys::mailbox_name(account, name), &guid)?;
    tx.add_mailbox(MailboxRow {
        guid,
        account,
        name: name.clone(),
        special_use,
        uid_validity,
        uid_next: Uid(1),
        highest_modseq: ModSeq(1),
        message_count: 0,
        unseen_count: 0,
        deleted_count: 0,
        size_bytes: 0,
        keywords: Vec::new(),
        forgotten_modseq: ModSeq(0),
        digest: [0; 4],
    });
    tx.manifest(manifest::mailbox(account, guid, name));
    Ok(())
}

/// Turns a mailbox into a tombstone.
pub(crate) fn delete(tx: &mut Tx<'_>, account: AccountId, mailbox: MailboxGuid) -> Result<(), Halt> {
    let row = tx.mailbox(account, mailbox)?.clone();
    let owner = tx.account(account)?;
    owner.mailbox_count = owner.mailbox_count.saturating_sub(1);
    owner.message_count = owner.message_count.saturating_sub(u64::from(row.message_count));
    owner.used_bytes = owner.used_bytes.saturating_sub(row.size_bytes);
    tx.delete(keys::mailbox_name(account, &row.name));
    tx.remove_mailbox(&row);
    tx.manifest(manifest::mailbox_gone(account, mailbox));
    tx.doom(
        tx.time.saturating_add(millis(DELIVERY_MEMORY.max(RETENTION))),
        Doomed::Mailbox(mailbox),
    )?;
    tx.put(
        keys::deleted_mailbox(mailbox),
        &DeletedMailboxRow {
            mailbox: row,
            deleted: tx.time,
        },
    )?;
    Ok(())
}

/// The account's mailboxes, by name.
pub(crate) fn names(tx: &Tx<'_>, account: AccountId) -> Result<Vec<(MailboxName, MailboxGuid)>, Halt> {
    let mut names = Vec::new();
    store::scan(tx.view(), &Space::MailboxName.range(&[&account.0]), &mut |key, guid| {
        let name = MailboxName::parse(store::text(key, 17)?);
        names.push((name.map_err(|error| store::corrupt(key, &error.to_string()))?, guid));
        Ok(true)
    })?;
    Ok(names)
}

/// RFC 9051 6.3.6: the messages of INBOX go into a new mailbox; INBOX and what is below it stay.
fn rename_inbox(
    tx: &mut Tx<'_>,
    account: AccountId,
    inbox: MailboxGuid,
    to: &MailboxName,
    new_guid: MailboxGuid,
) -> Result<Outcome, Halt> {
    if tx.mailbox(account, inbox)?.message_count as usize > MESSAGES_PER_OP_MAX {
        return refuse(Refusal::Limit("MESSAGES_PER_OP_MAX".to_owned()));
    }
    create(tx, account, to, new_guid, None)?;
    let originals: Vec<MessageRow> = store::list(tx.view(), &Space::Message.range(&[&inbox.0]), usize::MAX)?;
    copy::move_all(tx, account, (inbox, new_guid), &originals)?;
    let uid_validity = tx.mailbox(account, new_guid)?.uid_validity;
    Ok(Outcome::MailboxCreated {
        mailbox: new_guid,
        uid_validity,
    })
}

/// Makes the mailboxes above `name` that are missing, the highest first.
fn create_superiors(tx: &mut Tx<'_>, account: AccountId, name: &MailboxName, guid: MailboxGuid) -> Result<(), Halt> {
    let superiors: Vec<MailboxName> = std::iter::successors(name.parent(), MailboxName::parent).collect();
    for superior in superiors.iter().rev() {
        if !tx.exists(&keys::mailbox_name(account, superior))? {
            create_one(tx, account, superior, superior_guid(guid, superior), None)?;
        }
    }
    Ok(())
}

/// The GUID of a mailbox that is made because it is above another: `apply` draws nothing.
fn superior_guid(guid: MailboxGuid, name: &MailboxName) -> MailboxGuid {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"everpost superior mailbox 1");
    hasher.update(&guid.0);
    hasher.update(name.as_str().as_bytes());
    let mut derived = [0; 16];
    hasher.finalize_xof().fill(&mut derived);
    MailboxGuid(derived)
}
