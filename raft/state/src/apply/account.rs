//! Accounts of a mailbox group, and what they are subscribed to.

use core_types::limits::MAILBOXES_PER_ACCOUNT_MAX;
use core_types::{AccountId, MailboxGuid, MailboxName, UidValidity};

use crate::apply::mailboxes;
use crate::apply::tx::{Halt, Tx, refuse};
use crate::keys::{self, Space};
use crate::outcome::{Outcome, Refusal};
use crate::rows::{AccountRow, SpecialUse};
use crate::{manifest, store};

pub(crate) fn create(
    tx: &mut Tx<'_>,
    account: AccountId,
    inbox: MailboxGuid,
    further: &[(MailboxName, MailboxGuid, Option<SpecialUse>)],
    quota_bytes: Option<u64>,
) -> Result<Outcome, Halt> {
    if tx.exists(&keys::account(account))? {
        return refuse(Refusal::AlreadyExists);
    }
    tx.add_account(
        account,
        AccountRow {
            inbox,
            uid_validity_last: UidValidity(0),
            quota_bytes,
            used_bytes: 0,
            message_count: 0,
            mailbox_count: 0,
            subscription_count: 0,
        },
    );
    mailboxes::create(tx, account, &MailboxName::inbox(), inbox, None)?;
    subscribe(tx, account, &MailboxName::inbox(), true)?;
    for (name, guid, special_use) in further {
        mailboxes::create(tx, account, name, *guid, *special_use)?;
        subscribe(tx, account, name, true)?;
    }
    Ok(Outcome::Done)
}

pub(crate) fn remove(tx: &mut Tx<'_>, account: AccountId) -> Result<Outcome, Halt> {
    tx.account(account)?;
    for (_, mailbox) in mailboxes::names(tx, account)? {
        mailboxes::delete(tx, account, mailbox)?;
    }
    for key in store::keys(tx.view(), &Space::Subscription.range(&[&account.0]), usize::MAX)? {
        tx.delete(key);
    }
    tx.remove_account(account);
    tx.announce_list(account);
    tx.manifest(manifest::account_gone(account));
    Ok(Outcome::Done)
}

pub(crate) fn set_quota(tx: &mut Tx<'_>, account: AccountId, quota_bytes: Option<u64>) -> Result<Outcome, Halt> {
    tx.account(account)?.quota_bytes = quota_bytes;
    Ok(Outcome::Done)
}

pub(crate) fn subscribe(
    tx: &mut Tx<'_>,
    account: AccountId,
    name: &MailboxName,
    subscribed: bool,
) -> Result<Outcome, Halt> {
    let key = keys::subscription(account, name);
    let is_subscribed = tx.exists(&key)?;
    let owner = tx.account(account)?;
    if subscribed == is_subscribed {
        return Ok(Outcome::Done);
    }
    if subscribed {
        // A subscription needs no mailbox, so it is counted by itself; the same number is plenty.
        if owner.subscription_count as usize >= MAILBOXES_PER_ACCOUNT_MAX {
            return refuse(Refusal::Limit("MAILBOXES_PER_ACCOUNT_MAX".to_owned()));
        }
        owner.subscription_count += 1;
        tx.put(key, &())?;
    } else {
        owner.subscription_count = owner.subscription_count.saturating_sub(1);
        tx.delete(key);
    }
    tx.announce_list(account);
    Ok(Outcome::Done)
}
