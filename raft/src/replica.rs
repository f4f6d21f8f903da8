//! What the parts of one replica of one group share: the state machine adapter, the network service and the face.
//!
//! Not here: openraft; it holds the adapter, and the face holds it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use core_types::{BlockingPool, Disk, GroupId, Incarnation, KvRead};
use serde::{Deserialize, Serialize};
use state::digest::Digest;
use state::{Applied, ApplyError, Command, Effect, MachineKind};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::generation::GroupRows;
use crate::snapshot::SnapshotFile;

/// The state machine: `state::apply`, and others in tests.
pub(crate) type ApplyFn = fn(&dyn KvRead, MachineKind, &Command) -> Result<Applied, ApplyError>;

/// Entries between two digests that are kept for comparison.
pub(crate) const DIGEST_INTERVAL: u64 = 64;
/// How many digests are kept: replicas that are less than this many intervals apart can be compared.
const DIGESTS_KEPT: usize = 64;
/// Events that a watcher may lag behind before it has to look at everything again. Cost: this many events per group.
const EFFECTS_KEPT: usize = 1024;

/// Between two attempts to open a replica again, at most.
const ATTEMPT_WAIT_MAX: Duration = Duration::from_secs(60);
/// After so long without an attempt the next one is a first one.
const ATTEMPTS_FORGOTTEN: Duration = Duration::from_secs(600);

/// The digest of the state right after an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DigestAt {
    pub(crate) index: u64,
    pub(crate) digest: Digest,
}

/// What a replica shares with what is around it.
#[derive(Clone)]
pub(crate) struct Ties {
    /// Outlives the replica when it is opened again, so that whoever watches hears on.
    pub(crate) effects: broadcast::Sender<Arc<[Effect]>>,
    /// A write found no room on the disk, or the system refused a call: that may pass, and the replica can then be opened
    /// again.
    pub(crate) may_pass: Arc<AtomicBool>,
    /// To open it again.
    pub(crate) attempts: Attempts,
    /// Why the node must stop.
    pub(crate) failed: Failed,
}

impl Ties {
    pub(crate) fn new(failed: Failed) -> Self {
        Self {
            effects: broadcast::Sender::new(EFFECTS_KEPT),
            may_pass: Arc::default(),
            attempts: Attempts::default(),
            failed,
        }
    }
}

/// When a replica may be opened again: at once, then after longer and longer, so that a disk that goes on failing is not
/// worn out by replicas that open and close. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attempts(Arc<Mutex<Attempted>>);

#[derive(Debug, Default)]
struct Attempted {
    count: u32,
    last: Option<Instant>,
}

impl Attempts {
    /// Whether it is time for an attempt, which is counted then.
    pub(crate) fn begin(&self) -> bool {
        let mut attempted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let waited = attempted.last.map(|last| now.saturating_duration_since(last));
        if waited.is_some_and(|waited| waited >= ATTEMPTS_FORGOTTEN) {
            attempted.count = 0;
        }
        let wait = match attempted.count {
            0 => Duration::ZERO,
            count => (Duration::from_secs(1) * 2_u32.saturating_pow(count)).min(ATTEMPT_WAIT_MAX),
        };
        if waited.is_some_and(|waited| waited < wait) {
            return false;
        }
        attempted.count = attempted.count.saturating_add(1);
        attempted.last = Some(now);
        true
    }
}

/// Remembers the first reason for which the node must stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failed(watch::Sender<Option<String>>);

impl Failed {
    pub(crate) fn tell(&self, reason: &str) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                tracing::error!(reason, "the node must stop");
                *first = Some(reason.to_owned());
            }
            is_first
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }
}

pub(crate) struct Replica {
    pub(crate) group: GroupId,
    pub(crate) incarnation: Incarnation,
    pub(crate) kind: MachineKind,
    pub(crate) rows: Arc<GroupRows>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) pool: Arc<dyn BlockingPool>,
    pub(crate) apply: ApplyFn,
    pub(crate) snapshot: Mutex<Option<SnapshotFile>>,
    digests: Mutex<VecDeque<DigestAt>>,
    pub(crate) ties: Ties,
    /// Held while rows are changed: once a closed replica's was held, it changes none any more.
    pub(crate) busy: tokio::sync::Mutex<()>,
    /// The index behind the last applied entry: 0 when nothing is applied.
    applied: watch::Sender<u64>,
    closed: watch::Sender<Option<String>>,
    fault: OnceLock<String>,
    /// It takes part in no election before it has applied this entry.
    behind: Mutex<Option<u64>>,
    /// Octets of commands applied since the last snapshot.
    unsaved_bytes: watch::Sender<u64>,
}

impl Replica {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one thing that a replica has; there is one caller"
    )]
    pub(crate) fn new(
        group: GroupId,
        incarnation: Incarnation,
        kind: MachineKind,
        rows: Arc<GroupRows>,
        disk: Arc<dyn Disk>,
        pool: Arc<dyn BlockingPool>,
        apply: ApplyFn,
        snapshot: Option<SnapshotFile>,
        behind: Option<u64>,
        ties: Ties,
    ) -> Self {
        Self {
            group,
            incarnation,
            kind,
            rows,
            disk,
            pool,
            apply,
            snapshot: Mutex::new(snapshot),
            digests: Mutex::default(),
            ties,
            busy: tokio::sync::Mutex::default(),
            applied: watch::Sender::new(0),
            closed: watch::Sender::new(None),
            fault: OnceLock::new(),
            behind: Mutex::new(behind),
            unsaved_bytes: watch::Sender::new(0),
        }
    }

    /// Stops this replica for good; the first reason stays.
    pub(crate) fn close(&self, reason: &str) {
        self.closed.send_if_modified(|closed| {
            let is_first = closed.is_none();
            if is_first {
                tracing::error!(group = self.group.0, reason, "replica closed");
                *closed = Some(reason.to_owned());
            }
            is_first
        });
    }

    /// Stops this replica in order.
    pub(crate) fn end(&self) {
        self.closed.send_if_modified(|closed| {
            let is_first = closed.is_none();
            closed.get_or_insert_with(|| "it was ended".to_owned());
            is_first
        });
    }

    /// Stops this replica, which is to be repaired from the others.
    pub(crate) fn close_for_repair(&self, reason: &str) {
        let _ = self.fault.set(reason.to_owned());
        self.close(reason);
    }

    /// Why it is to be repaired from the others.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    pub(crate) fn closed(&self) -> Option<String> {
        self.closed.borrow().clone()
    }

    /// Waits until nobody changes its rows and files, and keeps others from it. Once it is closed they may be those of
    /// another replica, which took its place.
    pub(crate) async fn lock_open(&self) -> io::Result<tokio::sync::MutexGuard<'_, ()>> {
        let busy = self.busy.lock().await;
        match self.closed() {
            Some(reason) => Err(io::Error::other(reason)),
            None => Ok(busy),
        }
    }

    /// Notes a failure that may pass.
    pub(crate) fn note_passing(&self) {
        self.ties.may_pass.store(true, Ordering::Release);
    }

    /// Whether this replica closed for a reason that may pass, or would have.
    pub(crate) fn may_pass(&self) -> bool {
        self.ties.may_pass.load(Ordering::Acquire)
    }

    /// Up to which entry it knows too little to take part in an election.
    pub(crate) fn behind(&self) -> Option<u64> {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has applied what the replica had that it takes the place of.
    pub(crate) fn has_what_was_before(&self) -> bool {
        let Some(behind) = self.behind() else { return true };
        self.applied().is_some_and(|applied| applied >= behind)
    }

    pub(crate) fn has_caught_up(&self) {
        *self.behind.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn watch_closed(&self) -> watch::Receiver<Option<String>> {
        self.closed.subscribe()
    }

    pub(crate) fn publish(&self, event: Arc<[Effect]>) {
        // An error says only that nobody watches.
        let _ = self.ties.effects.send(event);
    }

    /// Tells every watcher that the state was replaced as a whole.
    pub(crate) fn publish_replaced(&self) {
        self.publish(Arc::new([Effect::Replaced]));
    }

    pub(crate) fn watch_effects(&self) -> broadcast::Receiver<Arc<[Effect]>> {
        self.ties.effects.subscribe()
    }

    pub(crate) fn set_applied(&self, next_index: u64) {
        self.applied.send_replace(next_index);
    }

    pub(crate) fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The last applied entry.
    pub(crate) fn applied(&self) -> Option<u64> {
        self.applied.borrow().checked_sub(1)
    }

    pub(crate) fn add_unsaved(&self, bytes: u64) {
        self.unsaved_bytes.send_modify(|sum| *sum = sum.saturating_add(bytes));
    }

    pub(crate) fn reset_unsaved(&self) {
        self.unsaved_bytes.send_replace(0);
    }

    pub(crate) fn watch_unsaved(&self) -> watch::Receiver<u64> {
        self.unsaved_bytes.subscribe()
    }

    pub(crate) fn keep_digest(&self, at: DigestAt) {
        let mut digests = self.locked_digests();
        // After an install the same index may come again, and with it everything above.
        while digests.back().is_some_and(|last| last.index >= at.index) {
            digests.pop_back();
        }
        digests.push_back(at);
        while digests.len() > DIGESTS_KEPT {
            digests.pop_front();
        }
    }

    pub(crate) fn digests(&self) -> Vec<DigestAt> {
        self.locked_digests().iter().copied().collect()
    }

    pub(crate) fn current_snapshot(&self) -> Option<SnapshotFile> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes a verified file the group's snapshot, unless there is a newer one, and gives back the one that is not needed
    /// any more.
    pub(crate) fn replace_snapshot(&self, file: SnapshotFile) -> Option<SnapshotFile> {
        let mut current = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        match current.as_ref() {
            Some(old) if old.header.meta.last_log_id > file.header.meta.last_log_id => Some(file),
            Some(old) if old.path == file.path => {
                *current = Some(file);
                None
            }
            _ => current.replace(file),
        }
    }

    fn locked_digests(&self) -> MutexGuard<'_, VecDeque<DigestAt>> {
        self.digests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_opened_again_at_once_then_less_and_less_often() {
        let attempts = Attempts::default();
        let begun = Instant::now();
        let mut at = Vec::new();
        while at.len() < 9 {
            if attempts.begin() {
                at.push(begun.elapsed().as_secs());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(at, [0, 2, 6, 14, 30, 62, 122, 182, 242]);
        tokio::time::sleep(ATTEMPTS_FORGOTTEN).await;
        assert!(attempts.clone().begin() && !attempts.begin());
    }
}
