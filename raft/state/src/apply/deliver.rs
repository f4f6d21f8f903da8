//! `Deliver`: a new message for mailboxes of one or several accounts, once for each GUID.

use core_types::AccountId;
use core_types::limits::{BLOB_BYTES_MAX, SMTP_RECIPIENTS_MAX, STRUCTURE_BYTES_MAX};

use crate::apply::tx::{Halt, Tx, refuse};
use crate::apply::{blobs, messages};
use crate::command::{Delivery, DeliveryTarget};
use crate::keys;
use crate::outcome::{Outcome, Placed, Refusal};
use crate::rows::{DeletedMailboxRow, GuidRow};
use crate::store;

pub(crate) fn apply(tx: &mut Tx<'_>, delivery: &Delivery) -> Result<Outcome, Halt> {
    if delivery.targets.is_empty() {
        return refuse(Refusal::Invalid("a delivery to nobody".to_owned()));
    }
    if delivery.targets.len() > SMTP_RECIPIENTS_MAX {
        return refuse(Refusal::Limit("SMTP_RECIPIENTS_MAX".to_owned()));
    }
    // The stored octets: the trace fields in front of a message do not count as the message's.
    if delivery.message.size > BLOB_BYTES_MAX {
        return refuse(Refusal::Limit("BLOB_BYTES_MAX".to_owned()));
    }
    if delivery.message.structure.len() > STRUCTURE_BYTES_MAX {
        return refuse(Refusal::Limit("STRUCTURE_BYTES_MAX".to_owned()));
    }
    let mut results = Vec::with_capacity(delivery.targets.len());
    for target in &delivery.targets {
        results.push(match deliver_to(tx, delivery, target) {
            Ok(placed) => Ok(placed),
            Err(Halt::Refused(refusal)) => Err(refusal),
            Err(failed) => return Err(failed),
        });
    }
    Ok(Outcome::Delivered(results))
}

/// Delivers to one target. When it refuses, nothing has changed, so that the other targets are not touched.
fn deliver_to(tx: &mut Tx<'_>, delivery: &Delivery, target: &DeliveryTarget) -> Result<Placed, Halt> {
    let DeliveryTarget {
        account,
        guid,
        mailbox,
        flags,
    } = target;
    if let Some(remembered) = tx.load(&keys::guid(*account, *guid))? {
        return repeated(tx, *account, remembered);
    }
    let message = &delivery.message;
    let owner = tx.account(*account)?;
    let mailbox = mailbox.unwrap_or(owner.inbox);
    let is_full = owner
        .quota_bytes
        .is_some_and(|quota| owner.used_bytes.saturating_add(message.size) > quota);
    tx.mailbox(*account, mailbox)?;
    if delivery.enforce_quota && is_full {
        return refuse(Refusal::OverQuota);
    }
    let entering = messages::Entering {
        guid: *guid,
        email_id: message.email_id,
        blob: message.blob,
        size: message.size,
        internal_date: message.internal_date,
        flags,
    };
    let row = messages::enter(tx, *account, mailbox, &entering)?;
    blobs::refer(tx, message.blob, &delivery.receipts.nodes, &message.structure)?;
    let uid_validity = tx.mailbox(*account, mailbox)?.uid_validity;
    Ok(Placed {
        mailbox,
        uid_validity,
        uid: row.uid,
        modseq: row.modseq,
        repeated: false,
    })
}

/// Where the message is that had been delivered by this GUID, or was last.
fn repeated(tx: &mut Tx<'_>, account: AccountId, remembered: GuidRow) -> Result<Placed, Halt> {
    match remembered {
        GuidRow::Gone {
            mailbox,
            uid_validity,
            uid,
            modseq,
        } => Ok(Placed {
            mailbox,
            uid_validity,
            uid,
            modseq,
            repeated: true,
        }),
        GuidRow::Live { mailbox, uid } => {
            let row = match tx.any_mailbox(mailbox)? {
                Some(row) => row.clone(),
                None => {
                    let key = keys::deleted_mailbox(mailbox);
                    let tombstone: Option<DeletedMailboxRow> = tx.load(&key)?;
                    tombstone
                        .ok_or_else(|| store::corrupt(&key, "a GUID in a mailbox that never was"))?
                        .mailbox
                }
            };
            debug_assert_eq!(row.account, account);
            let (uid_validity, modseq) = (row.uid_validity, row.highest_modseq);
            Ok(Placed {
                mailbox,
                uid_validity,
                uid,
                modseq,
                repeated: true,
            })
        }
    }
}
