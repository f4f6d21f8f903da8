//! Applying commands: where the state changes, and nowhere else.
//!
//! Total and deterministic: what does not fit gives a [`Refusal`] and changes nothing but the memory of the op; the same
//! commands on the same state give the same batches everywhere. An [`ApplyError`] says that this replica cannot go on (its
//! engine failed, its rows contradict each other, or the program is too old); then nothing may be written, and the replica
//! is closed and repaired.

mod account;
mod blobs;
mod copy;
mod deliver;
mod expunge;
mod flags;
mod group;
mod idempotency;
mod mailboxes;
mod messages;
mod prune;
mod queue;
#[cfg(test)]
mod tests;
pub(crate) mod tx;

use std::time::Duration;

use core_types::limits::OP_TIME_STEP_MAX;
use core_types::{Batch, KvError, KvRead, UnixMillis};

pub use group::FEATURE_LEVEL;

use crate::apply::idempotency::Admission;
use crate::apply::tx::{Halt, Tx, refuse};
use crate::command::{Command, MailboxOp, Op};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::overlay::Overlay;
use crate::rows::GroupMetaRow;
use crate::store::{self, ReadError};
use crate::{digest, directory, keys};

/// Which state machine a group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineKind {
    /// Accounts' mailboxes and the queue.
    Mailbox,
    /// The cluster-wide directory.
    Directory,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// What to write. Empty when the command was a repetition.
    pub batch: Batch,
    /// For the command's maker.
    pub outcome: Outcome,
    /// For those who watch. Not part of the state; a repetition has none.
    pub effects: Vec<Effect>,
}

/// Why this replica cannot apply a command. Nothing may be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// The engine failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// Rows do not decode or contradict each other.
    #[error("state damaged: {0}")]
    Corrupt(String),
    /// The log asks for something that this program does not know: it is too old.
    #[error("unknown op: {0}")]
    UnknownOp(String),
}

impl From<ReadError> for ApplyError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Kv(error) => Self::Kv(error),
            ReadError::Corrupt(what) => Self::Corrupt(what),
        }
    }
}

/// Applies a command to the state that `view` shows, which is the group's logical keys only.
///
/// # Errors
/// [`ApplyError`].
pub fn apply(view: &dyn KvRead, kind: MachineKind, command: &Command) -> Result<Applied, ApplyError> {
    let mut state = Overlay::new(view);
    let mut meta: GroupMetaRow = store::load(view, &keys::meta())?.unwrap_or_default();
    let time = op_time(meta.time, command.time);
    let op_digest = match idempotency::admit(&mut state, command, time)? {
        Admission::New(digest) => digest,
        Admission::Known(outcome) => {
            return Ok(Applied {
                batch: Batch::default(),
                outcome,
                effects: Vec::new(),
            });
        }
        Admission::Full(refusal) => {
            return finish(view, state, Outcome::Refused(refusal), Vec::new());
        }
    };
    meta.time = Some(time);
    state.put(keys::meta(), tx::encoded(&meta)?);

    let mut tx = Tx::new(&state, time, command.time);
    let (outcome, changed) = match run(&mut tx, kind, &command.op) {
        Ok(outcome) => (outcome, Some(tx.finish()?)),
        Err(Halt::Refused(refusal)) => (Outcome::Refused(refusal), None),
        Err(Halt::Failed(error)) => return Err(error),
    };
    let mut effects = Vec::new();
    if let Some((batch, caused)) = changed {
        state.add(&batch);
        effects = caused;
    }
    idempotency::remember(&mut state, command.op_id, op_digest, &outcome)?;
    finish(view, state, outcome, effects)
}

/// The group's time after an op: never back, and never far ahead at once, so that one wrong clock cannot end all memories.
fn op_time(previous: Option<UnixMillis>, claimed: UnixMillis) -> UnixMillis {
    match previous {
        Some(previous) => previous.max(claimed.min(previous.saturating_add(millis(OP_TIME_STEP_MAX)))),
        None => claimed,
    }
}

fn run(tx: &mut Tx<'_>, kind: MachineKind, op: &Op) -> Result<Outcome, Halt> {
    match (kind, op) {
        (_, Op::Group(op)) => group::apply(tx, op),
        (MachineKind::Mailbox, Op::Mailbox(op)) => apply_mailbox_op(tx, op),
        (MachineKind::Directory, Op::Directory(op)) => directory::apply::apply(tx, op),
        (MachineKind::Mailbox, Op::Directory(_)) => {
            refuse(Refusal::Invalid("a directory op in a mailbox group".into()))
        }
        (MachineKind::Directory, Op::Mailbox(_)) => {
            refuse(Refusal::Invalid("a mailbox op in the directory group".into()))
        }
    }
}

fn apply_mailbox_op(tx: &mut Tx<'_>, op: &MailboxOp) -> Result<Outcome, Halt> {
    match op {
        MailboxOp::CreateAccount {
            account,
            inbox,
            mailboxes,
            quota_bytes,
        } => account::create(tx, *account, *inbox, mailboxes, *quota_bytes),
        MailboxOp::RemoveAccount { account } => account::remove(tx, *account),
        MailboxOp::SetQuota { account, quota_bytes } => account::set_quota(tx, *account, *quota_bytes),
        MailboxOp::Deliver(delivery) => deliver::apply(tx, delivery),
        MailboxOp::StoreFlags {
            account,
            mailbox,
            messages,
            change,
            flags,
            unchanged_since,
        } => flags::apply(tx, *account, *mailbox, messages, *change, flags, *unchanged_since),
        MailboxOp::Copy {
            account,
            from,
            to,
            messages,
            seed,
        } => copy::apply_copy(tx, *account, (*from, *to), messages, seed),
        MailboxOp::Move {
            account,
            from,
            to,
            messages,
        } => copy::apply_move(tx, *account, (*from, *to), messages),
        MailboxOp::Expunge {
            account,
            mailbox,
            messages,
            only_deleted,
        } => expunge::apply(tx, *account, *mailbox, messages, *only_deleted),
        MailboxOp::CreateMailbox {
            account,
            name,
            guid,
            special_use,
        } => mailboxes::apply_create(tx, *account, name, *guid, *special_use),
        MailboxOp::DeleteMailbox { account, mailbox } => mailboxes::apply_delete(tx, *account, *mailbox),
        MailboxOp::RenameMailbox {
            account,
            mailbox,
            to,
            new_guid,
        } => mailboxes::apply_rename(tx, *account, *mailbox, to, *new_guid),
        MailboxOp::Subscribe {
            account,
            name,
            subscribed,
        } => account::subscribe(tx, *account, name, *subscribed),
        MailboxOp::Enqueue(entry) => queue::enqueue(tx, entry),
        MailboxOp::AttemptStarted { entry, node, deadline } => queue::attempt_started(tx, *entry, *node, *deadline),
        MailboxOp::AttemptFinished {
            entry,
            results,
            next_attempt,
        } => queue::attempt_finished(tx, *entry, results, *next_attempt),
        MailboxOp::QueueControl { entry, action } => queue::control(tx, *entry, *action),
        MailboxOp::Prune { limit } => prune::apply(tx, *limit),
    }
}

fn finish(
    view: &dyn KvRead,
    state: Overlay<'_>,
    outcome: Outcome,
    effects: Vec<Effect>,
) -> Result<Applied, ApplyError> {
    let mut batch = state.into_batch();
    if !batch.is_empty() {
        digest::update(view, &mut batch)?;
    }
    Ok(Applied {
        batch,
        outcome,
        effects,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
