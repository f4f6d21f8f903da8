//! The queue's entries: messages on their way to recipients.
//!
//! The due index holds each entry that is not held, at the time from which somebody may try it: never before its next
//! attempt, and never before the deadline of an attempt under way. These times are the group's own: of what a node's clock
//! says only the differences count, and none beyond the longest there may be.
//!
//! Not here: when to try again and what to tell senders (`smtp/queue`).

use std::time::Duration;

use core_types::limits::{
    DELIVERY_MEMORY, QUEUE_ATTEMPT_TIME, QUEUE_EXPIRY, QUEUE_RETRY_MAX, SMTP_RECIPIENTS_MAX, STRUCTURE_BYTES_MAX,
};
use core_types::{NodeId, QueueId, UnixMillis};

use crate::apply::tx::{Halt, Tx, refuse};
use crate::apply::{blobs, millis};
use crate::command::QueueAction;
use crate::keys;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::rows::{Doomed, QueueEntry, RecipientState};

/// Why an entry is held that an administrator holds.
const HELD_BY_ADMINISTRATOR: &str = "held by an administrator";

/// The longest pause, with what makes it vary.
const PAUSE_MAX: Duration = Duration::from_secs(QUEUE_RETRY_MAX.as_secs() / 4 * 5);

pub(crate) fn enqueue(tx: &mut Tx<'_>, entry: &QueueEntry) -> Result<Outcome, Halt> {
    if tx.exists(&keys::queue(entry.id))? || tx.exists(&keys::queue_gone(entry.id))? {
        return Ok(Outcome::Done);
    }
    if entry.recipients.is_empty() {
        return refuse(Refusal::Invalid("a queue entry without recipients".to_owned()));
    }
    if entry.recipients.len() > SMTP_RECIPIENTS_MAX {
        return refuse(Refusal::Limit("SMTP_RECIPIENTS_MAX".to_owned()));
    }
    if entry.structure.len() > STRUCTURE_BYTES_MAX {
        return refuse(Refusal::Limit("STRUCTURE_BYTES_MAX".to_owned()));
    }
    // Its structure stays in the entry: it is needed once, and may be let go with it.
    blobs::refer(tx, entry.blob, &entry.receipts.nodes, &[])?;
    let entry = QueueEntry {
        expires: in_group_time(tx, entry.created, entry.expires, QUEUE_EXPIRY),
        next_attempt: in_group_time(tx, entry.created, entry.next_attempt, PAUSE_MAX),
        ..entry.clone()
    };
    put(tx, None, &entry)?;
    Ok(Outcome::Done)
}

/// A time as far from the group's as a node had it from its own.
fn in_group_time(tx: &Tx<'_>, now: UnixMillis, then: UnixMillis, at_most: Duration) -> UnixMillis {
    tx.time
        .saturating_add(then.0.saturating_sub(now.0).min(millis(at_most)))
}

pub(crate) fn attempt_started(
    tx: &mut Tx<'_>,
    id: QueueId,
    node: NodeId,
    deadline: UnixMillis,
) -> Result<Outcome, Halt> {
    let old = entry(tx, id)?;
    if let Some(reason) = &old.held {
        return refuse(Refusal::InUse(reason.clone()));
    }
    if let Some((other, until)) = old.attempt
        && other != node
        && until > tx.time
    {
        return refuse(Refusal::InUse(format!("node {other} tries it until {until}")));
    }
    let attempts = old.attempts.saturating_add(1);
    let deadline = in_group_time(tx, tx.claimed_time, deadline, QUEUE_ATTEMPT_TIME);
    let new = QueueEntry {
        attempt: Some((node, deadline)),
        attempts,
        ..old.clone()
    };
    put(tx, Some(&old), &new)?;
    Ok(Outcome::Done)
}

pub(crate) fn attempt_finished(
    tx: &mut Tx<'_>,
    id: QueueId,
    results: &[(u32, RecipientState)],
    next_attempt: UnixMillis,
) -> Result<Outcome, Halt> {
    let old = entry(tx, id)?;
    let mut new = QueueEntry {
        attempt: None,
        next_attempt: in_group_time(tx, tx.claimed_time, next_attempt, PAUSE_MAX),
        ..old.clone()
    };
    for (index, state) in results {
        let recipient = usize::try_from(*index)
            .ok()
            .and_then(|index| new.recipients.get_mut(index));
        let recipient = recipient.ok_or_else(|| Refusal::Invalid(format!("the entry has no recipient {index}")))?;
        // What is settled stays settled, whoever reports late.
        if matches!(recipient.state, RecipientState::Waiting(_)) {
            recipient.state = state.clone();
        }
    }
    if new
        .recipients
        .iter()
        .any(|recipient| matches!(recipient.state, RecipientState::Waiting(_)))
    {
        put(tx, Some(&old), &new)?;
    } else {
        remove(tx, &old)?;
    }
    Ok(Outcome::Done)
}

pub(crate) fn control(tx: &mut Tx<'_>, id: QueueId, action: QueueAction) -> Result<Outcome, Halt> {
    let old = entry(tx, id)?;
    match action {
        QueueAction::Hold => {
            let new = QueueEntry {
                held: Some(HELD_BY_ADMINISTRATOR.to_owned()),
                ..old.clone()
            };
            put(tx, Some(&old), &new)?;
        }
        QueueAction::Release => {
            let new = QueueEntry {
                held: None,
                attempts: 0,
                next_attempt: tx.time,
                expires: old.expires.max(tx.time.saturating_add(millis(QUEUE_EXPIRY))),
                ..old.clone()
            };
            put(tx, Some(&old), &new)?;
        }
        QueueAction::Drop => remove(tx, &old)?,
    }
    Ok(Outcome::Done)
}

/// From when somebody may try an entry; `None` while it is held.
fn due(entry: &QueueEntry) -> Option<UnixMillis> {
    if entry.held.is_some() {
        return None;
    }
    Some(
        entry
            .attempt
            .map_or(entry.next_attempt, |(_, deadline)| deadline.max(entry.next_attempt)),
    )
}

fn entry(tx: &Tx<'_>, id: QueueId) -> Result<QueueEntry, Halt> {
    Ok(tx
        .load(&keys::queue(id))?
        .ok_or_else(|| Refusal::NoSuchObject(format!("queue entry {id}")))?)
}

fn put(tx: &mut Tx<'_>, old: Option<&QueueEntry>, new: &QueueEntry) -> Result<(), Halt> {
    if let Some(at) = old.and_then(due) {
        tx.delete(keys::queue_due(at, new.id));
    }
    if let Some(at) = due(new) {
        tx.put(keys::queue_due(at, new.id), &())?;
    }
    tx.put(keys::queue(new.id), new)?;
    tx.effect(Effect::Queue);
    Ok(())
}

fn remove(tx: &mut Tx<'_>, old: &QueueEntry) -> Result<(), Halt> {
    if let Some(at) = due(old) {
        tx.delete(keys::queue_due(at, old.id));
    }
    tx.delete(keys::queue(old.id));
    tx.put(keys::queue_gone(old.id), &())?;
    tx.doom(
        tx.time.saturating_add(millis(DELIVERY_MEMORY)),
        Doomed::QueueGone(old.id),
    )?;
    blobs::release(tx, old.blob)?;
    tx.effect(Effect::Queue);
    Ok(())
}
