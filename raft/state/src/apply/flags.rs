//! `StoreFlags` (RFC 9051 6.4.6, RFC 7162 3.1.3).
//!
//! A message whose flags come out as they were keeps its MODSEQ, and a mailbox without a changed message keeps its
//! HIGHESTMODSEQ.

use std::collections::BTreeSet;

use core_types::{AccountId, Flags, MailboxGuid, MessageGuid, ModSeq};

use crate::apply::messages;
use crate::apply::tx::{Halt, Tx};
use crate::command::FlagChange;
use crate::outcome::Outcome;

pub(crate) fn apply(
    tx: &mut Tx<'_>,
    account: AccountId,
    mailbox: MailboxGuid,
    guids: &[MessageGuid],
    change: FlagChange,
    flags: &Flags,
    unchanged_since: Option<ModSeq>,
) -> Result<Outcome, Halt> {
    messages::check_count(guids)?;
    tx.account(account)?;
    let row = tx.mailbox(account, mailbox)?;
    let keywords = match change {
        FlagChange::Remove => row.keywords.clone(),
        FlagChange::Replace | FlagChange::Add => messages::keywords_with(row, flags)?,
    };
    let flags = messages::spelled(&keywords, flags);

    let (mut modified, mut missing) = (Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for guid in guids {
        if !seen.insert(*guid) {
            continue;
        }
        let Some(message) = tx.message(account, mailbox, *guid)? else {
            missing.push(*guid);
            continue;
        };
        if unchanged_since.is_some_and(|since| message.modseq > since) {
            modified.push(message.uid);
            continue;
        }
        let mut changed = message.flags.clone();
        match change {
            FlagChange::Replace => changed = flags.clone(),
            FlagChange::Add => changed.add(&flags),
            FlagChange::Remove => changed.remove(&flags),
        }
        if changed != message.flags {
            tx.mailbox(account, mailbox)?.keywords.clone_from(&keywords);
            messages::set_flags(tx, account, mailbox, &message, changed)?;
        }
    }
    modified.sort_unstable();
    let highest_modseq = tx.mailbox(account, mailbox)?.highest_modseq;
    Ok(Outcome::Stored {
        highest_modseq,
        modified,
        missing,
    })
}
