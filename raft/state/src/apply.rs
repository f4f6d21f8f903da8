//! Applying commands: where the state changes, and nowhere else.
//!
//! Total and deterministic: what does not fit gives a [`Refusal`] and changes nothing but the memory of the op; the same
//! commands on the same state give the same batches everywhere. An [`ApplyError`] says that this replica cannot go on (its
//! engine failed, its rows contradict each other, or the program is too old); then nothing may be written, and the replica
//! is closed and repaired.

use core_types::{Batch, KvError, KvRead};

use crate::command::Command;
use crate::outcome::{Effect, Outcome};
use crate::store::ReadError;

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
    let _ = (view, kind, command);
    Err(ApplyError::UnknownOp("not yet".to_owned()))
}
