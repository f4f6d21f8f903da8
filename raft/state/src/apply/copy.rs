//! `Copy` and `Move` within an account (RFC 9051 6.4.7, RFC 6851): all messages or none.

use std::collections::BTreeSet;

use core_types::{AccountId, MailboxGuid, MessageGuid};

use crate::apply::blobs;
use crate::apply::messages::{self, Entering};
use crate::apply::tx::{Halt, Tx, refuse};
use crate::keys;
use crate::outcome::{Outcome, Refusal};
use crate::rows::MessageRow;

/// Copies messages; each copy's GUID is derived, the rest of it is the original's.
pub(crate) fn apply_copy(
    tx: &mut Tx<'_>,
    account: AccountId,
    (from, to): (MailboxGuid, MailboxGuid),
    guids: &[MessageGuid],
    seed: &[u8; 16],
) -> Result<Outcome, Halt> {
    let originals = originals(tx, account, (from, to), guids)?;
    let size: u64 = originals
        .iter()
        .map(|message| message.size)
        .fold(0, u64::saturating_add);
    let owner = tx.account(account)?;
    let is_full = owner
        .quota_bytes
        .is_some_and(|quota| owner.used_bytes.saturating_add(size) > quota);
    if is_full && !originals.is_empty() {
        return refuse(Refusal::OverQuota);
    }
    let mut uids = Vec::with_capacity(originals.len());
    for original in &originals {
        let guid = original.guid.derive(seed);
        if tx.exists(&keys::guid(account, guid))? {
            // A seed is drawn for each COPY: this one was used before.
            return refuse(Refusal::AlreadyExists);
        }
        let copy = messages::enter(tx, account, to, &Entering::again(original, guid))?;
        blobs::refer(tx, original.blob, &[], &[])?;
        uids.push((original.uid, copy.uid));
    }
    copied(tx, account, (from, to), uids)
}

/// Moves messages; they keep their GUIDs and get new UIDs, also within one mailbox.
pub(crate) fn apply_move(
    tx: &mut Tx<'_>,
    account: AccountId,
    (from, to): (MailboxGuid, MailboxGuid),
    guids: &[MessageGuid],
) -> Result<Outcome, Halt> {
    let originals = originals(tx, account, (from, to), guids)?;
    let uids = move_all(tx, account, (from, to), &originals)?;
    copied(tx, account, (from, to), uids)
}

/// Moves these messages, which are in `from`.
pub(crate) fn move_all(
    tx: &mut Tx<'_>,
    account: AccountId,
    (from, to): (MailboxGuid, MailboxGuid),
    originals: &[MessageRow],
) -> Result<Vec<(core_types::Uid, core_types::Uid)>, Halt> {
    let mut uids = Vec::with_capacity(originals.len());
    for original in originals {
        messages::leave(tx, account, from, original)?;
        let moved = messages::enter(tx, account, to, &Entering::again(original, original.guid))?;
        uids.push((original.uid, moved.uid));
    }
    Ok(uids)
}

fn originals(
    tx: &mut Tx<'_>,
    account: AccountId,
    (from, to): (MailboxGuid, MailboxGuid),
    guids: &[MessageGuid],
) -> Result<Vec<MessageRow>, Halt> {
    messages::check_count(guids)?;
    tx.account(account)?;
    tx.mailbox(account, from)?;
    tx.mailbox(account, to)?;
    let mut seen = BTreeSet::new();
    let mut originals = Vec::new();
    for guid in guids {
        if seen.insert(*guid) {
            originals.extend(tx.message(account, from, *guid)?);
        }
    }
    Ok(originals)
}

fn copied(
    tx: &mut Tx<'_>,
    account: AccountId,
    (from, to): (MailboxGuid, MailboxGuid),
    uids: Vec<(core_types::Uid, core_types::Uid)>,
) -> Result<Outcome, Halt> {
    let uid_validity = tx.mailbox(account, to)?.uid_validity;
    let source_modseq = tx.mailbox(account, from)?.highest_modseq;
    Ok(Outcome::Copied {
        uid_validity,
        uids,
        source_modseq,
    })
}
