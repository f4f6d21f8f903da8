//! What a node does by itself to stay well: repair, scrubbing, collection, pruning, syncing; and what it notices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use blobstore::{BlobError, IsReferenced, References, RepairReport};
use core_types::{BlobId, GroupId, NodeId};
use mailstore::MailStore;
use raft::Group;
use raft::consensus::Consensus;
use state::{GroupOp, MailboxOp, Outcome};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use transport::Rpc;

use crate::follow::Removal;
use crate::placement::reach::Reach;
use crate::report::BlobReport;
use crate::start::{Parts, leads, others};

/// What the passes found last.
#[derive(Debug, Default)]
pub(crate) struct Health {
    found: Mutex<Found>,
    /// Somebody wants all blobs to be looked at now.
    again: Notify,
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
    rounds_begun: u64,
    rounds_done: u64,
}

impl Health {
    fn lock(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has all blobs looked at now.
    pub(crate) fn look_again(&self) {
        self.again.notify_one();
    }

    /// Passes over all blobs that have ended, and the number of the next one to begin.
    pub(crate) fn rounds(&self) -> (u64, u64) {
        let found = self.lock();
        (found.rounds_done, found.rounds_begun + 1)
    }

    fn round_begins(&self) {
        self.lock().rounds_begun += 1;
    }

    fn round_ends(&self) {
        let mut found = self.lock();
        found.rounds_done = found.rounds_begun;
    }

    /// What the last pass over a group's blobs found.
    pub(crate) fn last_pass(&self, group: GroupId) -> Option<BlobReport> {
        self.lock().repairs.get(&group).map(BlobReport::from)
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

    pub(crate) fn manifest_gap(&self, group: GroupId) {
        self.lock().manifest_gaps.insert(group);
    }

    pub(crate) fn manifest_whole(&self, group: GroupId) {
        self.lock().manifest_gaps.remove(&group);
    }

    pub(crate) fn manifest_gaps(&self) -> Vec<GroupId> {
        self.lock().manifest_gaps.iter().copied().collect()
    }

    /// A group that is placed here could not be opened; why.
    pub(crate) fn not_opened(&self, group: GroupId, reason: String) {
        self.lock().not_opened.insert(group, reason);
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
    tasks.spawn(repair(Arc::clone(parts)));
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
    tokio::select! {
        biased;
        reason = log => reason,
        reason = parts.store.blobs().sync_failed() => reason,
        reason = parts.groups.failed() => reason,
    }
}

/// The blobs that a group's replica here refers to.
struct GroupReferences {
    groups: Arc<dyn Consensus>,
    group: GroupId,
}

#[async_trait]
impl References for GroupReferences {
    async fn page(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, BlobError> {
        let read = self.groups.query(self.group, |view| {
            state::mailbox::Reader::new(view).all_blobs(after, limit)
        });
        read.await.map_err(|error| BlobError::Peer(error.to_string()))
    }
}

/// Sees to it that this node has every blob that its groups refer to, and says so in the log where that is waited for; the group's leader also sees to the other voters.
async fn repair(parts: Arc<Parts>) {
    loop {
        let began = Instant::now();
        let seen = what_moves(&parts);
        let mut soon = false;
        parts.health.round_begins();
        for group in parts.groups.list() {
            soon |= repair_group(&parts, &group).await;
        }
        parts.health.round_ends();
        // A pass looks at every blob: it is to cost a small part of the time, however many there are.
        let pause = if soon {
            REPAIR_SOON
        } else {
            (began.elapsed() * REPAIR_COST).clamp(REPAIR_EVERY, REPAIR_LONGEST)
        };
        tokio::select! {
            biased;
            () = parts.health.again.notified() => {}
            () = tokio::time::sleep(pause) => {}
            () = moved_from(&parts, seen) => {}
        }
    }
}

/// Repairs one group's blobs. Returns whether another pass is worth it soon.
async fn repair_group(parts: &Arc<Parts>, group: &Group) -> bool {
    let (node, id) = (parts.identity.node(), group.group());
    let status = group.status();
    if status.closed.is_some() {
        return false;
    }
    let membership = &status.membership;
    if !membership.voters.contains(&node) && !membership.learners.contains(&node) {
        return false;
    }
    let recorded = parts
        .store
        .groups()
        .query(id, |view| state::group::Reader::new(view).replica(node))
        .await;
    let Ok(recorded) = recorded else { return false };
    // Under each membership anew. A voter: whoever voted before it may then let its blobs go. A learner: it may have been added
    // anew, and what the replica before it had says nothing.
    let due = recorded.caught_up < membership.index.max(1)
        || (!membership.voters.contains(&node) && is_to_vote(parts, id).await);
    // The state here has to be the whole one before it can say which blobs are needed.
    if due && group.read_barrier(BARRIER_PATIENCE).await.is_err() {
        return true;
    }
    let applied = group.status().applied.unwrap_or(0);
    let mut soon = due;
    let mut whole = true;
    if id != GroupId::DIRECTORY {
        let references = GroupReferences {
            groups: Arc::clone(parts.store.groups()),
            group: id,
        };
        let voters: Vec<_> = membership.voters.iter().copied().collect();
        match parts.repairer.repair_pass(&references, &voters, true).await {
            Ok(report) => {
                whole = report.lacking_here == 0;
                soon |= report.lacking_here > 0
                    || report.copied + report.fetched > 0
                    || (report.under_replicated > 0 && report.unanswered.is_empty())
                    // One that has just come back is connected before it takes blobs.
                    || report.unanswered.iter().any(|voter| parts.transport.is_reachable(*voter));
                if report.missing > 0 {
                    tracing::error!(group = %id, missing = report.missing, "blobs that no reachable node has");
                }
                parts.health.lock().repairs.insert(id, report);
            }
            Err(error) => {
                whole = false;
                tracing::warn!(group = %id, %error, "the repair pass ended early");
            }
        }
    }
    if due && whole && applied > 0 {
        let op = GroupOp::CaughtUp {
            replica: node,
            index: applied,
        };
        if let Err(error) = parts.store.propose_group_op(id, op).await {
            tracing::debug!(group = %id, %error, "caught up, but that could not be written now");
        }
    }
    soon
}

/// Whether the plan wants this node to vote in a group.
async fn is_to_vote(parts: &Parts, group: GroupId) -> bool {
    let row = parts.store.directory().query(|reader| reader.group(group)).await;
    row.is_ok_and(|row| row.is_some_and(|row| row.voters.contains(&parts.identity.node())))
}

/// What makes a repair pass worth while when it changes: groups, memberships, who is connected, and who did not take a blob.
type Moves = (Vec<(GroupId, u64, BTreeSet<NodeId>)>, Vec<NodeId>);

fn what_moves(parts: &Arc<Parts>) -> Moves {
    let groups = parts.groups.list();
    let memberships = groups
        .iter()
        .map(Group::status)
        .map(|status| (status.group, status.membership.index, status.not_taking_blobs))
        .collect();
    let connected = parts
        .transport
        .peers_status()
        .into_iter()
        .filter(|peer| peer.connected)
        .map(|peer| peer.node);
    (memberships, connected.collect())
}

/// Returns when something has moved: whoever waits for `CaughtUp` or for a copy is not to wait long.
async fn moved_from(parts: &Arc<Parts>, before: Moves) {
    loop {
        tokio::time::sleep(MOVES_LOOK).await;
        if what_moves(parts) != before {
            return;
        }
    }
}

/// Fetches blobs that turned out to be wrong.
async fn refetch(parts: Arc<Parts>) {
    let (sender, mut wrong) = mpsc::channel(REFETCH_WAITING_MAX);
    parts.store.blobs().set_corrupt_hook(Arc::new(move |blob| {
        // Full: the scrubber or the next repair pass finds it again.
        let _ = sender.try_send(blob);
    }));
    while let Some(blob) = wrong.recv().await {
        let node = parts.identity.node();
        let nodes: BTreeSet<_> = parts
            .groups
            .list()
            .iter()
            .flat_map(|group| group.membership().voters)
            .collect();
        let nodes: Vec<_> = nodes.into_iter().collect();
        let peers: Vec<_> = others(node, &nodes).collect();
        match parts.fetcher.fetch(blob, &peers).await {
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
        let all_placed = crate::follow::placed_here(&parts).await.len() == ids.len() && !ids.is_empty();
        let read = groups;
        let is_referenced: IsReferenced = Arc::new(move |blob| {
            let read = read.clone();
            Box::pin(async move { referenced_by_any(&read, blob).await })
        });
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

async fn referenced_by_any(groups: &[Group], blob: BlobId) -> Result<bool, BlobError> {
    for group in groups {
        let mut referenced = Ok(false);
        group
            .read(&mut |view| referenced = state::mailbox::Reader::new(view).references_blob(blob))
            .await
            .map_err(|error| BlobError::Peer(error.to_string()))?;
        if referenced.map_err(|error| BlobError::Peer(error.to_string()))? {
            return Ok(true);
        }
    }
    Ok(false)
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
/// Between two repair passes while something is to be repaired.
const REPAIR_SOON: Duration = Duration::from_secs(2);
/// Between two repair passes.
const REPAIR_EVERY: Duration = Duration::from_secs(30);
/// A pass is followed by a pause of this many times its length.
const REPAIR_COST: u32 = 20;
/// The longest such pause.
const REPAIR_LONGEST: Duration = Duration::from_secs(3600);
/// How long a confirmation by the majority may take.
const BARRIER_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at memberships and connections.
const MOVES_LOOK: Duration = Duration::from_millis(200);
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
