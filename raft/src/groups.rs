//! All groups of which this node holds a replica.
//!
//! They share one log, one index and one way to the other nodes; a group that closes does not touch the others. One task
//! per node looks after all of them: snapshots by size, checkpoints of the index, comparison of digests.
//!
//! Idle groups send heartbeats like busy ones.
//! Not here: which groups there are (the directory says so).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use core_types::{
    BlockingPool, Disk, DiskError, DiskErrorKind, GroupId, Incarnation, KvEngine, KvError, NodeId, WatchedDisk,
};
use openraft::storage::RaftLogStorage;
use openraft::{Raft, SnapshotPolicy};
use state::{Command, Effect, MachineKind, Outcome};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use transport::{Refused, Rpc, Service};

use crate::blocking;
use crate::config::{Config, GroupError, OpenError, Timers};
use crate::consensus::{Consensus, Membership, ProposeError, ReadFn, Unavailable};
use crate::frame::{self, Frame, Rejection, Reply};
use crate::generation::GroupRows;
use crate::group::{Group, MembershipStatus};
use crate::log::{Damage, GroupKey, Record, SharedLog};
use crate::log_store::LogStore;
use crate::machine::{self, Machine};
use crate::network::Network;
use crate::replica::{ApplyFn, Failed, Replica, Ties};
use crate::snapshot;
use crate::space::Space;

/// What is wrong with a replica that the log should know and does not.
const LOG_LOST: &str = "the log has lost this replica and the votes that it gave";
/// A command that is committed has this long at least to be applied here too.
const APPLY_WAIT_MIN: Duration = Duration::from_secs(1);

/// What the groups of a node work with.
#[derive(Clone)]
pub struct Dependencies {
    /// The node's data directory.
    pub disk: Arc<dyn Disk>,
    /// Where blocking work runs.
    pub pool: Arc<dyn BlockingPool>,
    /// The index.
    pub engine: Arc<dyn KvEngine>,
    /// The way to the other nodes.
    pub rpc: Arc<dyn Rpc>,
    /// The node's log.
    pub log: SharedLog,
}

/// The groups of this node. Clones are the same groups. It answers [`transport::ServiceId::RAFT`].
#[derive(Clone)]
pub struct Groups {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Arc<Config>,
    pub(crate) dependencies: Dependencies,
    apply: ApplyFn,
    groups: Mutex<BTreeMap<GroupId, Group>>,
    /// What outlives replicas that are being repaired.
    pub(crate) set_aside: Mutex<BTreeMap<GroupId, Ties>>,
    /// Held while a replica is opened, so that none is opened twice.
    pub(crate) opening: tokio::sync::Mutex<()>,
    space: Arc<Space>,
    pub(crate) failed: Failed,
    /// Checkpoints one after the other that found a full disk, though it has room.
    full_checkpoints: AtomicU32,
    maintenance: Mutex<Option<JoinHandle<()>>>,
}

impl Groups {
    /// No group is open yet. Needs a tokio runtime.
    #[must_use]
    pub fn open(config: Config, dependencies: Dependencies) -> Self {
        Self::with_machine(config, dependencies, state::apply)
    }

    pub(crate) fn with_machine(config: Config, mut dependencies: Dependencies, apply: ApplyFn) -> Self {
        // Whoever makes the call may take a failed sync for one that can be repeated: the node hears of it all the same.
        let failed = Failed::default();
        let tell = failed.clone();
        dependencies.disk = Arc::new(WatchedDisk::new(
            dependencies.disk,
            Box::new(move |error| tell.tell(&error.to_string())),
        ));
        let space = Space::new(
            Arc::clone(&dependencies.disk),
            Arc::clone(&dependencies.pool),
            config.propose_reserve_bytes,
        );
        let inner = Arc::new(Inner {
            config: Arc::new(config),
            dependencies,
            apply,
            groups: Mutex::default(),
            set_aside: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            space: Arc::new(space),
            failed,
            full_checkpoints: AtomicU32::new(0),
            maintenance: Mutex::default(),
        });
        let task = tokio::spawn(maintain(Arc::downgrade(&inner)));
        *inner.maintenance.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Self { inner }
    }

    /// Opens this node's replica of a group; an empty one if there is none. It takes part as soon as this returns.
    ///
    /// # Errors
    /// [`OpenError`]; the other groups are not touched.
    pub async fn open_group(
        &self,
        group: GroupId,
        incarnation: Incarnation,
        kind: MachineKind,
    ) -> Result<Group, OpenError> {
        let _opening = self.inner.opening.lock().await;
        if self.group(group).is_some() {
            return Err(OpenError::IsOpen(group));
        }
        let ties = Ties::new(self.inner.failed.clone());
        self.inner.open(group, incarnation, kind, ties).await
    }

    /// Returns, with the reason, once something failed after which nothing on this node's disk can be relied on: the node must
    /// stop. Never returns otherwise. Failures of the log are told by [`SharedLog::failure`].
    pub fn failed(&self) -> impl Future<Output = String> + Send + use<> {
        let mut failed = self.inner.failed.watch();
        async move {
            let reason = failed
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|reason| reason.clone());
            match reason {
                Some(reason) => reason,
                // The groups are gone, so they fail no more.
                None => std::future::pending().await,
            }
        }
    }

    /// An open group.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.inner.group(group)
    }

    fn replica(&self, group: GroupId) -> Result<Group, Unavailable> {
        self.group(group)
            .ok_or_else(|| Unavailable(group, "no replica here".to_owned()))
    }

    /// All open groups, in the order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<Group> {
        self.inner.locked().values().cloned().collect()
    }

    /// Stops a group's replica here, without a trace in its data. The other groups go on.
    pub async fn close_group(&self, group: GroupId) {
        // Not while it is being opened again.
        let _opening = self.inner.opening.lock().await;
        self.inner.close_group(group).await;
    }

    /// Stops a group's replica here and removes everything of it: log, rows, snapshots. For a replica that has left its group,
    /// or never joined it: its votes are forgotten.
    ///
    /// # Errors
    /// [`OpenError`]; asking again goes on where it ended.
    pub async fn remove_group(&self, group: GroupId, incarnation: Incarnation) -> Result<(), OpenError> {
        self.close_group(group).await;
        let log = &self.inner.dependencies.log;
        log.write(GroupKey { group, incarnation }, vec![Record::Removed])
            .await
            .map_err(|error| OpenError::Log {
                group,
                detail: error.to_string(),
            })?;
        let (disk, pool) = (
            Arc::clone(&self.inner.dependencies.disk),
            Arc::clone(&self.inner.dependencies.pool),
        );
        self.inner.clear(group, incarnation).await?;
        Ok(blocking::run(&*pool, move || snapshot::forget_behind(&*disk, group, incarnation)).await?)
    }

    /// Makes everything that was written to the index durable.
    ///
    /// # Errors
    /// [`DiskError`]. `Full` closes nothing: it may be repeated. After any other the index must not be used further; all groups
    /// are closed, and [`Groups::failed`] returns.
    pub async fn checkpoint(&self) -> Result<(), DiskError> {
        self.inner.checkpoint().await
    }

    /// Stops all groups, then makes the index durable.
    pub async fn shutdown(&self) {
        let task = self
            .inner
            .maintenance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            task.abort();
        }
        let groups: Vec<Group> = std::mem::take(&mut *self.inner.locked()).into_values().collect();
        for group in groups {
            stop(&group).await;
        }
        let engine = Arc::clone(&self.inner.dependencies.engine);
        let closed = blocking::run(&*self.inner.dependencies.pool, move || {
            engine
                .close()
                .map_err(|error| DiskError::new(DiskErrorKind::SyncFailed, "index", error.to_string()))
        });
        if let Err(error) = closed.await {
            // What is lost of the index is made again from snapshots and log.
            tracing::warn!(%error, "the index was not closed in order");
        }
    }
}

#[async_trait]
impl Service for Groups {
    async fn serve(&self, from: NodeId, request: Bytes) -> Result<Bytes, Refused> {
        let frame: Frame = frame::decode(&request).map_err(|error| Refused(error.to_string()))?;
        let reply: Reply = match self.group(frame.group) {
            None => Err(Rejection::UnknownGroup(frame.group)),
            Some(group) if group.incarnation() != frame.incarnation => Err(Rejection::OtherIncarnation {
                group: frame.group,
                ours: group.incarnation(),
            }),
            Some(group) => group.inner.serve(from, frame.request).await,
        };
        frame::encode(&reply).map_err(|error| Refused(error.to_string()))
    }
}

#[async_trait]
impl Consensus for Groups {
    fn groups(&self) -> Vec<GroupId> {
        self.inner.locked().keys().copied().collect()
    }

    async fn propose(&self, group: GroupId, command: Command, timeout: Duration) -> Result<Outcome, ProposeError> {
        let replica = self.replica(group)?;
        let deadline = Instant::now() + timeout;
        let proposed = replica.propose(&command, timeout).await.map_err(|error| match error {
            GroupError::StaleMembership { .. } => ProposeError::StaleMembership,
            GroupError::NotEnoughCopies { wanted, have } => ProposeError::NotEnoughCopies {
                present: have,
                needed: wanted,
            },
            GroupError::Unknown => ProposeError::Unknown,
            GroupError::TooLarge => ProposeError::TooLarge,
            GroupError::Full => ProposeError::Full,
            GroupError::NoLeader | GroupError::Closed(_) | GroupError::Refused(_) => {
                ProposeError::Unavailable(Unavailable(group, error.to_string()))
            }
        })?;
        let left = deadline.saturating_duration_since(Instant::now()).max(APPLY_WAIT_MIN);
        match replica.wait_applied(proposed.index, left).await {
            Ok(()) => Ok(proposed.outcome),
            // It is committed, but who asked would not see it here.
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    async fn read_barrier(&self, group: GroupId, timeout: Duration) -> Result<(), Unavailable> {
        let replica = self.replica(group)?;
        replica
            .read_barrier(timeout)
            .await
            .map_err(|error| Unavailable(group, error.to_string()))
    }

    async fn read(&self, group: GroupId, read: &mut ReadFn<'_>) -> Result<(), Unavailable> {
        let replica = self.replica(group)?;
        replica
            .read(read)
            .await
            .map_err(|error| Unavailable(group, error.to_string()))
    }

    fn effects(&self, group: GroupId) -> Result<broadcast::Receiver<Arc<[Effect]>>, Unavailable> {
        Ok(self.replica(group)?.effects())
    }

    fn membership(&self, group: GroupId) -> Result<Membership, Unavailable> {
        let replica = self.replica(group)?;
        let MembershipStatus {
            index,
            voters,
            learners,
        } = replica.membership();
        Ok(Membership {
            incarnation: replica.incarnation(),
            index,
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
        })
    }
}

impl Inner {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<GroupId, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn group(&self, group: GroupId) -> Option<Group> {
        self.locked().get(&group).cloned()
    }

    /// Why a replica must not be opened, as far as disk and log say without looking at its state.
    async fn fault(&self, key: GroupKey) -> Result<Option<String>, OpenError> {
        let GroupKey { group, incarnation } = key;
        let disk = Arc::clone(&self.dependencies.disk);
        let marked = blocking::run(&*self.dependencies.pool, move || {
            snapshot::marked(&*disk, group, incarnation)
        });
        if let Some(reason) = marked.await? {
            return Ok(Some(reason));
        }
        let log = &self.dependencies.log;
        Ok(match log.state(key) {
            Some(state) => state.damage.map(|damage| damage_text(&damage)),
            None => log.is_lost().then(|| LOG_LOST.to_owned()),
        })
    }

    /// Lets a replica that began anew take part in elections once it has applied what took it out: from there on it knows
    /// of every change of the members that the replica before it may have known.
    async fn admit(&self, group: &Group) {
        let replica = &group.inner.replica;
        let Some(behind) = replica.behind() else { return };
        if !replica.has_what_was_before() {
            return;
        }
        let (disk, id, incarnation) = (Arc::clone(&replica.disk), replica.group, replica.incarnation);
        let forgotten = blocking::run(&*replica.pool, move || snapshot::forget_behind(&*disk, id, incarnation));
        match forgotten.await {
            Ok(()) => {
                tracing::info!(
                    group = id.0,
                    index = behind,
                    "the replica has caught up with what took it out"
                );
                replica.has_caught_up();
                group.inner.raft.runtime_config().elect(true);
                // Until now nothing could be read.
                replica.publish_replaced();
            }
            Err(error) => tracing::warn!(group = id.0, error = %error, "it is tried again"),
        }
    }

    /// What the log found damaged of a replica while it ran.
    fn damage(&self, replica: &Replica) -> Option<String> {
        let (group, incarnation) = (replica.group, replica.incarnation);
        let state = self.dependencies.log.state(GroupKey { group, incarnation })?;
        state.damage.map(|damage| damage_text(&damage))
    }

    /// Stops a replica; nothing of it runs or writes any more on return. `opening` is held.
    pub(crate) async fn close_group(&self, group: GroupId) -> Option<Group> {
        let closing = self.locked().remove(&group)?;
        stop(&closing).await;
        let replica = &closing.inner.replica;
        replica.end();
        // Whatever it was applying is written; it begins nothing any more.
        drop(replica.busy.lock().await);
        Some(closing)
    }

    /// Removes rows, snapshots and the mark of a replica that is not open and of which the log holds nothing. The mark goes
    /// last, and only when no rows can come back any more.
    pub(crate) async fn clear(&self, group: GroupId, incarnation: Incarnation) -> Result<(), OpenError> {
        let Dependencies { disk, pool, engine, .. } = self.dependencies.clone();
        let files = Arc::clone(&disk);
        blocking::run(&*pool, move || snapshot::remove_all(&*files, group, incarnation)).await?;
        GroupRows::remove(engine, &*pool, group, incarnation).await?;
        self.checkpoint().await?;
        Ok(blocking::run(&*pool, move || snapshot::unmark(&*disk, group, incarnation)).await?)
    }

    /// Opens a replica; `opening` is held.
    pub(crate) async fn open(
        &self,
        group: GroupId,
        incarnation: Incarnation,
        kind: MachineKind,
        ties: Ties,
    ) -> Result<Group, OpenError> {
        match self.open_once(group, incarnation, kind, ties).await {
            Err(error @ OpenError::Log { .. }) => match self.fault(GroupKey { group, incarnation }).await? {
                // Its log was found to be damaged when it was read.
                Some(reason) => Err(OpenError::NeedsRepair { group, reason }),
                None => Err(error),
            },
            other => other,
        }
    }

    async fn open_once(
        &self,
        group: GroupId,
        incarnation: Incarnation,
        kind: MachineKind,
        ties: Ties,
    ) -> Result<Group, OpenError> {
        let Dependencies {
            disk,
            pool,
            engine,
            rpc,
            log,
        } = self.dependencies.clone();
        let failed = |detail: String| OpenError::Log { group, detail };
        let may_pass = Arc::clone(&ties.may_pass);
        let key = GroupKey { group, incarnation };
        let needs_repair = |reason: String| OpenError::NeedsRepair { group, reason };
        if let Some(reason) = self.fault(key).await? {
            return Err(needs_repair(reason));
        }
        let loading = Arc::clone(&disk);
        let (rows, snapshot, behind) = blocking::run(&*pool, move || {
            let rows = GroupRows::open(engine, group, incarnation);
            let behind = snapshot::noted_behind(&*loading, group, incarnation)?;
            Ok((rows, snapshot::load_newest(&*loading, group, incarnation)?, behind))
        })
        .await?;
        let rows = rows?;
        // A log is begun before anything is applied: what has a state had a log, and votes in it.
        if log.state(key).is_none() && (snapshot.is_some() || rows.machine_row()?.is_some()) {
            return Err(needs_repair(LOG_LOST.to_owned()));
        }
        rows.collect(&*pool).await?;
        let mut store = LogStore::open(log, key, Arc::clone(&may_pass))
            .await
            .map_err(|error| failed(error.to_string()))?;
        let network = Network {
            rpc,
            group,
            incarnation,
            timeout: self.config.rpc_timeout,
            pool: Arc::clone(&pool),
        };
        let apply = self.apply;
        let replica = Arc::new(Replica::new(
            group,
            incarnation,
            kind,
            rows,
            disk,
            pool,
            apply,
            snapshot,
            behind,
            ties,
        ));
        let machine = Machine::open(Arc::clone(&replica))?;
        let last = store.get_log_state().await.map_err(|error| failed(error.to_string()))?;
        if let Some(purged) = last.last_purged_log_id
            && machine.has().is_none_or(|has| has < purged)
        {
            return Err(needs_repair(format!(
                "the log begins behind entry {}, and neither index nor snapshot has what was before",
                purged.index
            )));
        }
        if let Err(error) = machine
            .save_what_the_log_lacks(last.last_log_id, last.last_purged_log_id)
            .await
        {
            if machine::may_pass(&error) {
                may_pass.store(true, Ordering::Release);
            }
            return Err(failed(error.to_string()));
        }
        let timers = if group == GroupId::DIRECTORY {
            self.config.directory_timers
        } else {
            self.config.timers
        };
        let settings = Arc::new(openraft_config(&self.config, timers, behind.is_none()).map_err(failed)?);
        let node = self.config.node.0;
        let raft = Raft::new(node, settings, network.clone(), store, machine)
            .await
            .map_err(|error| failed(replica.closed().unwrap_or_else(|| error.to_string())))?;
        let opened = Group::new(
            raft,
            replica,
            network,
            Arc::clone(&self.config),
            Arc::clone(&self.space),
        );
        tokio::spawn(stop_when_closed(opened.clone()));
        self.locked().insert(group, opened.clone());
        Ok(opened)
    }

    /// Opens a replica again that closed because the disk was full, or failed a call.
    async fn reopen(&self, closed: &Group) {
        let _opening = self.opening.lock().await;
        let group = closed.group();
        if !self
            .locked()
            .get(&group)
            .is_some_and(|now| Arc::ptr_eq(&now.inner, &closed.inner))
        {
            return; // Closed for good, or opened by somebody else meanwhile.
        }
        stop(closed).await;
        let replica = &closed.inner.replica;
        // Whatever it was applying is written before somebody else writes; it begins nothing any more.
        drop(replica.busy.lock().await);
        let ties = Ties {
            may_pass: Arc::default(),
            ..replica.ties.clone()
        };
        match self.open(group, replica.incarnation, replica.kind, ties).await {
            Ok(opened) => {
                tracing::info!(group = group.0, "the disk works again; replica opened again");
                opened.inner.replica.publish_replaced();
            }
            Err(OpenError::Index(KvError::Full)) => {
                self.failed.tell("the index does not see that the disk has room again")
            }
            Err(error) => {
                if let OpenError::NeedsRepair { reason, .. } = &error {
                    replica.ties.may_pass.store(false, Ordering::Release);
                    replica.close_for_repair(reason);
                }
                tracing::warn!(group = group.0, error = %error, "replica not opened again");
            }
        }
    }

    async fn checkpoint(&self) -> Result<(), DiskError> {
        let engine = Arc::clone(&self.dependencies.engine);
        let done = blocking::run(&*self.dependencies.pool, move || {
            engine.checkpoint().map_err(|error| {
                let kind = match error {
                    KvError::Full => DiskErrorKind::Full,
                    _ => DiskErrorKind::SyncFailed,
                };
                DiskError::new(kind, "index", error.to_string())
            })
        })
        .await;
        match &done {
            Ok(()) => self.full_checkpoints.store(0, Ordering::Relaxed),
            // What is not durable yet is still in memory and in the log, and the log is not purged without a snapshot.
            Err(error) if error.kind == DiskErrorKind::Full && !self.is_stuck().await => {
                tracing::warn!(error = %error, "the index was not made durable; it is tried again");
            }
            Err(error) => {
                self.give_up(&format!("checkpoint: {error}"));
            }
        }
        done
    }

    /// The index must not be used further: closes all groups, and the node is to stop.
    fn give_up(&self, reason: &str) {
        let groups: Vec<Group> = self.locked().values().cloned().collect();
        for group in groups {
            group.inner.replica.close(reason);
        }
        self.failed.tell(reason);
    }

    /// Counts a checkpoint that found the disk full; whether the index goes on saying so though there is room.
    async fn is_stuck(&self) -> bool {
        if self.space.is_low().await {
            self.full_checkpoints.store(0, Ordering::Relaxed);
            return false;
        }
        self.full_checkpoints.fetch_add(1, Ordering::Relaxed) >= 2
    }
}

/// Looks after all groups until they are gone.
async fn maintain(inner: Weak<Inner>) {
    let Some(config) = inner.upgrade().map(|inner| Arc::clone(&inner.config)) else {
        return;
    };
    let mut ticks = tokio::time::interval(config.maintenance_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut checkpoint_at = Instant::now() + config.checkpoint_interval;
    let mut digests_at = Instant::now() + config.digest_interval;
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        if let Some(reason) = inner.dependencies.engine.damage() {
            inner.give_up(&format!(
                "the index is damaged ({reason}); it is made anew at the next start"
            ));
            return;
        }
        let groups: Vec<Group> = inner.locked().values().cloned().collect();
        for group in &groups {
            let replica = &group.inner.replica;
            if let Some(reason) = inner.damage(replica) {
                replica.close_for_repair(&reason);
            }
            group.inner.notice_stop();
            if replica.closed().is_some() {
                if replica.may_pass() && !inner.space.is_low().await && replica.ties.attempts.begin() {
                    inner.reopen(group).await;
                }
                continue;
            }
            inner.admit(group).await;
            if *group.inner.replica.watch_unsaved().borrow() >= config.snapshot_bytes {
                group.inner.replica.reset_unsaved();
                group.trigger_snapshot().await;
            }
        }
        for key in inner.dependencies.log.pinning(config.log_segments_kept) {
            if let Some(group) = groups.iter().find(|group| group.group() == key.group) {
                group.let_go_of_log().await;
            }
        }
        if Instant::now() >= digests_at {
            digests_at = Instant::now() + config.digest_interval;
            for group in groups {
                tokio::spawn(async move { group.inner.compare_digests().await });
            }
        }
        if Instant::now() >= checkpoint_at {
            checkpoint_at = Instant::now() + config.checkpoint_interval;
            // It told of a failure itself.
            let _ = inner.checkpoint().await;
        }
    }
}

async fn stop_when_closed(group: Group) {
    let mut closed = group.inner.replica.watch_closed();
    // The watcher must not keep alive what it watches.
    let (raft, replica) = (group.inner.raft.clone(), Arc::downgrade(&group.inner.replica));
    drop(group);
    let is_closed = closed.wait_for(Option::is_some).await.is_ok();
    if is_closed && replica.upgrade().is_some() {
        // An error says that it has stopped already.
        let _ = raft.shutdown().await;
    }
}

/// What a log says of damage to a replica, in words.
fn damage_text(damage: &Damage) -> String {
    format!(
        "log damaged: {}, at offset {} of {}",
        damage.detail, damage.offset, damage.segment
    )
}

async fn stop(group: &Group) {
    // An error says that it has stopped already.
    let _ = group.inner.raft.shutdown().await;
}

fn openraft_config(config: &Config, timers: Timers, may_elect: bool) -> Result<openraft::Config, String> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let settings = openraft::Config {
        cluster_name: "everpost".to_owned(),
        heartbeat_interval: millis(timers.heartbeat),
        election_timeout_min: millis(timers.election_min),
        election_timeout_max: millis(timers.election_max),
        enable_pre_vote: Some(true),
        enable_elect: may_elect,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_entries),
        max_in_snapshot_log_to_keep: config.log_entries_kept,
        replication_lag_threshold: config.snapshot_entries.max(config.log_entries_kept),
        ..openraft::Config::default()
    };
    settings.validate().map_err(|error| error.to_string())
}
