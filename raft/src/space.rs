//! Whether the disk has room for more ops, looked up at most once a second.
//!
//! Not here: what is done about it (the leader refuses, `groups` opens replicas again); the blobs' own reserve.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_types::{BlockingPool, Disk, Flags};
use state::{Command, MailboxOp, Op};
use tokio::time::Instant;

use crate::blocking;

/// Between two looks at the disk.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Space {
    disk: Arc<dyn Disk>,
    pool: Arc<dyn BlockingPool>,
    reserve: u64,
    looked: Mutex<Looked>,
}

#[derive(Default)]
struct Looked {
    at: Option<Instant>,
    is_low: bool,
}

impl Space {
    pub(crate) fn new(disk: Arc<dyn Disk>, pool: Arc<dyn BlockingPool>, reserve: u64) -> Self {
        Self {
            disk,
            pool,
            reserve,
            looked: Mutex::default(),
        }
    }

    /// Whether less than the reserve is free. A disk that does not say how much is free counts as it did before.
    pub(crate) async fn is_low(&self) -> bool {
        let is_due = {
            let mut looked = self.locked();
            let now = Instant::now();
            let is_due = looked.at.is_none_or(|at| now - at >= LOOK_INTERVAL);
            if is_due {
                looked.at = Some(now);
            }
            is_due
        };
        if is_due {
            let disk = Arc::clone(&self.disk);
            if let Ok(free) = blocking::run(&*self.pool, move || disk.free_bytes()).await {
                self.locked().is_low = free < self.reserve;
            }
        }
        self.locked().is_low
    }

    fn locked(&self) -> MutexGuard<'_, Looked> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an op makes room, now or once it is pruned; also what leads to that, and what a group says of itself.
pub(crate) fn makes_room(command: &Command) -> bool {
    match &command.op {
        Op::Directory(_) => false,
        Op::Group(_) => true,
        Op::Mailbox(op) => match op {
            MailboxOp::RemoveAccount { .. }
            | MailboxOp::Expunge { .. }
            | MailboxOp::DeleteMailbox { .. }
            | MailboxOp::AttemptFinished { .. }
            | MailboxOp::QueueControl { .. }
            | MailboxOp::Prune { .. } => true,
            // IMAP marks messages before it expunges them.
            MailboxOp::StoreFlags { flags, .. } => flags.has(Flags::DELETED),
            _ => false,
        },
    }
}
