//! `Prune`: lets go of what is past its time, in the order in which it became due, at most so many rows at once.

use core_types::{MailboxGuid, UnixMillis};

use crate::apply::tx::{Halt, Tx};
use crate::apply::{blobs, idempotency};
use crate::keys::{self, Space};
use crate::outcome::Outcome;
use crate::rows::{Doomed, MessageRow, RetainedRow};
use crate::store;

pub(crate) fn apply(tx: &mut Tx<'_>, limit: u32) -> Result<Outcome, Halt> {
    let limit = limit as usize;
    let due = due_range(tx.time);
    let mut rows = 0;
    let mut doomed: Vec<(Vec<u8>, Doomed)> = Vec::new();
    if limit > 0 {
        store::scan(tx.view(), &due, &mut |key, row| {
            doomed.push((key.to_vec(), row));
            Ok(doomed.len() < limit)
        })?;
    }
    for (key, row) in doomed {
        if rows >= limit {
            break;
        }
        let is_done = let_go(tx, row, limit, &mut rows)?;
        if is_done {
            tx.delete(key);
            rows += 1;
        }
    }
    rows += idempotency::settle_stale(tx, limit.saturating_sub(rows))?;
    let more = rows >= limit || !store::keys(tx.view(), &due, 1)?.is_empty();
    Ok(Outcome::Pruned {
        rows: u32::try_from(rows).unwrap_or(u32::MAX),
        more,
    })
}

/// Lets go of one thing, or of a part of it; `rows` counts what went beside it. Whether nothing of it is left.
fn let_go(tx: &mut Tx<'_>, doomed: Doomed, limit: usize, rows: &mut usize) -> Result<bool, Halt> {
    match doomed {
        Doomed::Retained(account, message) => {
            let key = keys::retained(account, message);
            let retained: Option<RetainedRow> = tx.load(&key)?;
            if let Some(retained) = retained {
                tx.delete(key);
                blobs::release(tx, retained.message.blob)?;
            }
        }
        Doomed::Guid(account, message) => tx.delete(keys::guid(account, message)),
        Doomed::Vanished(mailbox, modseq, uid) => {
            tx.delete(keys::change(mailbox, modseq, uid));
            if let Some(row) = tx.any_mailbox(mailbox)? {
                row.forgotten_modseq = row.forgotten_modseq.max(modseq);
            }
        }
        Doomed::Mailbox(mailbox) => return let_mailbox_go(tx, mailbox, limit, rows),
        Doomed::QueueGone(entry) => tx.delete(keys::queue_gone(entry)),
    }
    Ok(true)
}

fn let_mailbox_go(tx: &mut Tx<'_>, mailbox: MailboxGuid, limit: usize, rows: &mut usize) -> Result<bool, Halt> {
    let key = keys::deleted_mailbox(mailbox);
    let tombstone: Option<crate::rows::DeletedMailboxRow> = tx.load(&key)?;
    let Some(tombstone) = tombstone else { return Ok(true) };
    let account = tombstone.mailbox.account;
    let messages: Vec<MessageRow> = store::list(
        tx.view(),
        &Space::Message.range(&[&mailbox.0]),
        limit.saturating_sub(*rows),
    )?;
    for message in messages {
        tx.delete(keys::message(mailbox, message.uid));
        tx.delete(keys::change(mailbox, message.modseq, message.uid));
        tx.delete(keys::guid(account, message.guid));
        blobs::release(tx, message.blob)?;
        *rows += 1;
    }
    // What vanished from it was due before it was, so its change index is empty with its last message.
    if *rows >= limit {
        return Ok(false);
    }
    tx.delete(key);
    Ok(true)
}

fn due_range(time: UnixMillis) -> (Vec<u8>, Vec<u8>) {
    let (from, _) = Space::Prune.range(&[]);
    (from, Space::Prune.key(&[&time.0.saturating_add(1).to_be_bytes()]))
}
