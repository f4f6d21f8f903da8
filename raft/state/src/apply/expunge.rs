//! `Expunge`: messages leave their mailbox for good; their bytes are retained for a while, and their GUIDs remembered.

use std::collections::BTreeSet;

use core_types::limits::{DELIVERY_MEMORY, RETENTION};
use core_types::{AccountId, Flags, MailboxGuid, MessageGuid};

use crate::apply::tx::{Halt, Tx};
use crate::apply::{messages, millis};
use crate::outcome::Outcome;
use crate::rows::{Doomed, GuidRow, RetainedRow};
use crate::{keys, manifest};

pub(crate) fn apply(
    tx: &mut Tx<'_>,
    account: AccountId,
    mailbox: MailboxGuid,
    guids: &[MessageGuid],
    only_deleted: bool,
) -> Result<Outcome, Halt> {
    messages::check_count(guids)?;
    tx.account(account)?;
    let uid_validity = tx.mailbox(account, mailbox)?.uid_validity;
    let mut uids = BTreeSet::new();
    for guid in guids {
        // A message named twice is gone at the second.
        let Some(message) = tx.message(account, mailbox, *guid)? else {
            continue;
        };
        if only_deleted && !message.flags.has(Flags::DELETED) {
            continue;
        }
        messages::leave(tx, account, mailbox, &message)?;
        let (uid, modseq) = (message.uid, tx.modseq(account, mailbox)?);
        tx.put(
            keys::guid(account, *guid),
            &GuidRow::Gone {
                mailbox,
                uid_validity,
                uid,
                modseq,
            },
        )?;
        tx.doom(
            tx.time.saturating_add(millis(DELIVERY_MEMORY)),
            Doomed::Guid(account, *guid),
        )?;
        tx.put(
            keys::retained(account, *guid),
            &RetainedRow {
                account,
                mailbox,
                expunged: tx.time,
                message,
            },
        )?;
        tx.doom(
            tx.time.saturating_add(millis(RETENTION)),
            Doomed::Retained(account, *guid),
        )?;
        tx.manifest(manifest::gone(account, *guid));
        uids.insert(uid);
    }
    let highest_modseq = tx.mailbox(account, mailbox)?.highest_modseq;
    Ok(Outcome::Expunged {
        uids: uids.into_iter().collect(),
        highest_modseq,
    })
}
