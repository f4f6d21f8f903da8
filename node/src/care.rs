//! What a node does by itself to stay well: repair (its own module), scrubbing, collection, pruning, syncing; and what it notices.

pub(crate) mod copies;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blobstore::RepairReport;
use core_types::GroupId;
use mailstore::MailStore;
use raft::Group;
use state::{MailboxOp, Outcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use transport::Rpc;

use crate::follow::Removal;
use crate::placement::reach::Reach;
use crate::start::{Parts, leads};

/// What was found last.
#[derive(Debug, Default)]
pub(crate) struct Health {
    found: Mutex<Found>,
    /// For how long nodes have not been reached.
    pub(crate) reach: Reach,
    /// Whether this node is a member still.
    pub(crate) removal: Removal,
}

#[derive(Debug, Default)]
struct Found {
    repairs: BTreeMap<GroupId, RepairReport>,
    manifest_gaps: BTreeSet<GroupId>,
    not_opened: BTreeMap<GroupId, String>,
    /// What a group that is led here waits for before it goes on towards its plan.
    waits: BTreeMap<GroupId, String>,
    /// Looks at all blobs that were wanted.
    look: u64,
    /// The last of them that has ended.
    looks: BTreeMap<GroupId, u64>,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wants each group's blobs here to be looked at once more; the number of that look.
    pub(crate) fn look_again(&self) -> u64 {
        let mut found = self.lock();
        found.look += 1;
        found.look
    }

    /// The number of the last look that was wanted.
    pub(crate) fn look(&self) -> u64 {
        self.lock().look
    }

    /// A look at a group's blobs has ended.
    pub(crate) fn looked(&self, group: GroupId, look: u64) {
        self.lock().looks.insert(group, look);
    }

    /// The last look at a group's blobs that has ended.
    pub(crate) fn last_look(&self, group: GroupId) -> u64 {
        self.lock().looks.get(&group).copied().unwrap_or(0)
    }

    /// How a group's blobs were when they were looked at last.
    pub(crate) fn blobs_of(&self, group: GroupId) -> Option<RepairReport> {
        self.lock().repairs.get(&group).cloned()
    }

    /// Notes what a group waits for; `None` when for nothing.
    pub(crate) fn waits(&self, group: GroupId, what: Option<String>) {
        let mut found = self.lock();
        match what {
            Some(what) => found.waits.insert(group, what),
            None => found.waits.remove(&group),
        };
    }

    pub(crate) fn waiting(&self, group: GroupId) -> Option<String> {
        self.lock().waits.get(&group).cloned()
    }

    pub(crate) fn repaired(&self, group: GroupId, report: RepairReport) {
        self.lock().repairs.insert(group, report);
    }

    pub(crate) fn manifest_gap(&self, group: GroupId) {
        self.lock().manifest_gaps.insert(group);
    }

    pub(crate) fn manifest_whole(&self, group: GroupId) {
        self.lock().manifest_gaps.remove(&group);
    }

    pub(crate) fn manifest_gaps(&self) -> Vec<GroupId> {
        self.lock().manifest_gaps.iter().copied().collect()
    }

    /// A group that is placed here could not be opened; why. Returns whether that is news.
    pub(crate) fn not_opened(&self, group: GroupId, reason: String) -> bool {
        self.lock().not_opened.insert(group, reason.clone()) != Some(reason)
    }

    /// A group was opened.
    pub(crate) fn opened(&self, group: GroupId) {
        self.lock().not_opened.remove(&group);
    }

    pub(crate) fn all_not_opened(&self) -> Vec<(GroupId, String)> {
        self.lock()
            .not_opened
            .iter()
            .map(|(group, reason)| (*group, reason.clone()))
            .collect()
    }

    /// Blobs with too few copies, and blobs that nobody has, over all groups.
    pub(crate) fn repairs(&self) -> (u64, u64) {
        let found = self.lock();
        let sum = |field: fn(&RepairReport) -> u64| found.repairs.values().map(field).sum();
        (sum(|report| report.under_replicated), sum(|report| report.missing))
    }
}

pub(crate) fn spawn_all(parts: &Arc<Parts>, tasks: &mut JoinSet<()>) {
    tasks.spawn(copies::watch_moves(Arc::clone(parts)));
    tasks.spawn(refetch(Arc::clone(parts)));
    tasks.spawn(scrub(Arc::clone(parts)));
    tasks.spawn(collect(Arc::clone(parts)));
    tasks.spawn(prune(Arc::clone(parts)));
    tasks.spawn(sync_manifest(Arc::clone(parts)));
    tasks.spawn(release_log(Arc::clone(parts)));
    tasks.spawn(keep_connections(Arc::clone(parts)));
    let groups = parts.groups.clone();
    let worker = queue::Worker {
        store: parts.store.clone(),
        node: parts.identity.node(),
        hostname: parts.config.hostname.as_str().into(),
        leads: Arc::new(move |group| leads(&groups, group)),
    };
    tasks.spawn(queue::run(worker, parts.shutdown.clone()));
}

/// Returns, with the reason, when a sync failed.
pub(crate) async fn watch_syncs(parts: &Arc<Parts>) -> String {
    let log = async {
        loop {
            if let Some(error) = parts.log.failure() {
                return error.to_string();
            }
            tokio::time::sleep(FAILURE_LOOK).await;
        }
    };
    let mut told = parts.sync_failure.subscribe();
    let anywhere = async move {
        let reason = told
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        reason = log => reason,
        reason = anywhere => reason,
        reason = parts.store.blobs().sync_failed() => reason,
        reason = parts.groups.failed() => reason,
    }
}

/// Fetches blobs that turned out to be wrong.
async fn refetch(parts: Arc<Parts>) {
    let (sender, mut wrong) = mpsc::channel(REFETCH_WAITING_MAX);
    parts.store.blobs().set_corrupt_hook(Arc::new(move |blob| {
        // Full: the scrubber or the next comparison finds it again.
        let _ = sender.try_send(blob);
    }));
    while let Some(blob) = wrong.recv().await {
        match parts.fetcher.fetch(blob, &parts.store.blob_nodes()).await {
            Ok(()) => tracing::info!(%blob, "a damaged blob was replaced from another node"),
            Err(error) => tracing::error!(%blob, %error, "a damaged blob cannot be replaced now"),
        }
    }
}

async fn scrub(parts: Arc<Parts>) {
    loop {
        tokio::time::sleep(parts.rhythm.scrub).await;
        match parts.store.blobs().scrub_pass(SCRUB_BYTES_PER_SECOND).await {
            Ok(report) => tracing::info!(checked = report.checked, corrupt = report.corrupt, "scrubbed"),
            Err(error) => tracing::warn!(%error, "scrubbing ended early"),
        }
    }
}

/// Removes blobs that nothing refers to, only while every group of the node is open and well.
async fn collect(parts: Arc<Parts>) {
    loop {
        tokio::time::sleep(parts.rhythm.collect).await;
        let groups = parts.groups.list();
        let well = groups.iter().all(|group| {
            let status = group.status();
            status.closed.is_none()
                && status.alarm.is_none()
                && status.committed.is_some_and(|index| status.applied >= Some(index))
        });
        let ids: Vec<GroupId> = groups
            .iter()
            .map(Group::group)
            .filter(|id| *id != GroupId::DIRECTORY)
            .collect();
        // A node that is cut off knows neither what was committed nor what will be: it may not remove anything.
        let mut well = well;
        for group in &groups {
            well = well && group.read_barrier(BARRIER_PATIENCE).await.is_ok();
        }
        let placed = crate::follow::placed_here(&parts).await;
        let placed: BTreeSet<GroupId> = placed.into_iter().map(|(group, _)| group).collect();
        // Also what is placed here and not open has references.
        let all_placed = !ids.is_empty() && placed == ids.iter().copied().collect();
        let is_referenced = mailstore::is_referenced(parts.store.groups(), ids.clone());
        match parts
            .store
            .blobs()
            .collect_pass(is_referenced, well && all_placed)
            .await
        {
            Ok(report) if report.removed > 0 => {
                tracing::info!(
                    removed = report.removed,
                    bytes = report.removed_bytes,
                    "unreferenced blobs removed"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the collection ended early"),
        }
    }
}

/// Lets the groups that this node leads forget what is past its time.
async fn prune(parts: Arc<Parts>) {
    loop {
        tokio::time::sleep(parts.rhythm.prune).await;
        for group in parts.groups.list() {
            let id = group.group();
            if id == GroupId::DIRECTORY || !group.is_leader() {
                continue;
            }
            while let Ok(Outcome::Pruned { more: true, .. }) = prune_once(&parts.store, id).await {
                tokio::time::sleep(PRUNE_PAUSE).await;
            }
        }
    }
}

async fn prune_once(store: &MailStore, group: GroupId) -> Result<Outcome, mailstore::StoreError> {
    store.propose(group, MailboxOp::Prune { limit: PRUNE_ROWS }).await
}

async fn sync_manifest(parts: Arc<Parts>) {
    loop {
        tokio::time::sleep(MANIFEST_SYNC_EVERY).await;
        if let Err(error) = parts.manifest.sync().await {
            tracing::warn!(%error, "the manifest was not synced");
        }
    }
}

/// Keeps a connection to every member, also to those with whom there is nothing to talk about just now: who is reached is
/// shown in `status`, and a relay has to be there before it is needed.
async fn keep_connections(parts: Arc<Parts>) {
    loop {
        for (member, ..) in parts.members.seed().nodes {
            // Asking is enough: a member that is not connected is dialled.
            let _ = member == parts.identity.node() || parts.transport.is_reachable(member);
        }
        tokio::time::sleep(CONNECTIONS_LOOK).await;
    }
}

/// Has groups that keep old segments of the log from being let go make a snapshot.
async fn release_log(parts: Arc<Parts>) {
    loop {
        tokio::time::sleep(LOG_LOOK).await;
        if parts.log.segment_count() <= LOG_SEGMENTS_KEPT {
            continue;
        }
        for key in parts.log.pinning(LOG_SEGMENTS_KEPT) {
            if let Some(group) = parts.groups.group(key.group) {
                group.trigger_snapshot().await;
            }
        }
    }
}

/// Between two looks at the log's health. A failed write fails its requests at once; this only stops the node.
const FAILURE_LOOK: Duration = Duration::from_millis(100);
/// How long a confirmation by the majority may take.
const BARRIER_PATIENCE: Duration = Duration::from_secs(5);
/// Damaged blobs that wait to be fetched.
const REFETCH_WAITING_MAX: usize = 1024;
/// How fast blobs are scrubbed: a tenth of what an ordinary disk reads.
const SCRUB_BYTES_PER_SECOND: u64 = 10 * 1024 * 1024;
/// Rows of one pruning op.
const PRUNE_ROWS: u32 = 1000;
/// The pause between two pruning ops.
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
/// Between two syncs of the manifests.
const MANIFEST_SYNC_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the connections.
const CONNECTIONS_LOOK: Duration = Duration::from_secs(1);
/// Between two looks at the size of the log.
const LOG_LOOK: Duration = Duration::from_secs(30);
/// Segments of the log that may stand before snapshots are asked for.
const LOG_SEGMENTS_KEPT: usize = 4;
