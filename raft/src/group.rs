//! One replica of one group, as the rest of the node sees it.
//!
//! Any replica takes commands and reads; what needs the leader is sent there, and asked again of the next leader, by the same
//! op id, until the time is up. Reads come from the local state, after [`Group::read_barrier`] where they must be the latest.
//!
//! Not here: what commands mean; nodes without a replica, which ask through the mail store.

mod compare;
mod leader;
mod serve;
mod status;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_types::mutants::{self, Mutant};
use core_types::{GroupId, Incarnation, NodeId};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{EmptyNode, Raft};
use state::digest::Digest;
use state::{Command, Effect};
use tokio::sync::{RwLock, broadcast};
use tokio::time::{Instant, timeout_at};
use transport::{CallError, Class};

use crate::config::{BarrierError, Config, GroupError, Proposed};
use crate::consensus::ReadFn;
use crate::frame::{Answer, Attempt, Change, Request};
use crate::machine::{Machine, MachineRow};
use crate::network::Network;
use crate::replica::Replica;
use crate::space::Space;
use crate::transfer::Incoming;
use crate::types::{EncodedCommand, TypeConfig};

pub use status::{GroupStatus, MembershipStatus, Role};

/// Between two attempts to reach a leader.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// A replica of a group on this node. Clones are the same replica.
#[derive(Clone)]
pub struct Group {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) raft: Raft<TypeConfig, Machine>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) network: Network,
    pub(crate) config: Arc<Config>,
    space: Arc<Space>,
    /// Voters that lately refused a blob or did not answer, as the commands say.
    skipped: Mutex<BTreeSet<NodeId>>,
    /// Copies differ, and no majority says which is right.
    alarm: Mutex<Option<String>>,
    /// Held for reading from the check of receipts to the submission of the command, for writing while the membership
    /// changes: no command goes in under another membership than the one its receipts were checked against.
    gate: RwLock<()>,
    incoming: Arc<tokio::sync::Mutex<Option<Incoming>>>,
}

/// What is asked of the leader.
#[derive(Clone, Debug)]
enum Ask {
    Propose(EncodedCommand),
    ReadIndex,
    Change(Change),
}

/// Why the leader gave nothing.
enum Failure {
    NoLeader,
    Unknown,
    Refused(GroupError),
    Closed(String),
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {} on node {}", self.group(), self.inner.config.node)
    }
}

impl Group {
    pub(crate) fn new(
        raft: Raft<TypeConfig, Machine>,
        replica: Arc<Replica>,
        network: Network,
        config: Arc<Config>,
        space: Arc<Space>,
    ) -> Self {
        let inner = Inner {
            raft,
            replica,
            network,
            config,
            space,
            skipped: Mutex::default(),
            alarm: Mutex::default(),
            gate: RwLock::new(()),
            incoming: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Which group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.inner.replica.group
    }

    /// Which life of it.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.inner.replica.incarnation
    }

    /// Begins the group's life with these voters; one of them calls it, once. Does nothing if the group lives already.
    ///
    /// # Errors
    /// `Closed`; `Refused` when this node is not among the voters.
    pub async fn initialize(&self, voters: &BTreeSet<NodeId>) -> Result<(), GroupError> {
        let members: std::collections::BTreeMap<u64, EmptyNode> =
            voters.iter().map(|node| (node.0, EmptyNode::new())).collect();
        match self.inner.raft.initialize(members).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(error)) => Err(GroupError::Refused(error.to_string())),
            Err(RaftError::Fatal(error)) => Err(self.inner.closed_by(&error.to_string())),
        }
    }

    /// Has a command committed and applied by the leader, wherever it is. A change of leader is ridden out, by the same op
    /// id, while there is time.
    ///
    /// # Errors
    /// [`GroupError`]; the command was not carried out, except with `Unknown`, where it may have been.
    pub async fn propose(&self, command: &Command, patience: Duration) -> Result<Proposed, GroupError> {
        let data = EncodedCommand::encode(command).map_err(|_| GroupError::TooLarge)?;
        let pick = |answer| {
            if let Answer::Proposed(attempt) = answer {
                Some(attempt)
            } else {
                None
            }
        };
        Ok(self
            .inner
            .ask_leader(Ask::Propose(data), Instant::now() + patience, pick)
            .await?)
    }

    /// Returns when this replica shows every change that was acknowledged anywhere before the call (ReadIndex).
    ///
    /// # Errors
    /// [`BarrierError`].
    pub async fn read_barrier(&self, patience: Duration) -> Result<(), BarrierError> {
        if mutants::is_planted(Mutant::SkipReadIndex) {
            return Ok(());
        }
        let deadline = Instant::now() + patience;
        let pick = |answer| {
            if let Answer::ReadIndex(attempt) = answer {
                Some(attempt)
            } else {
                None
            }
        };
        let next = self
            .inner
            .ask_leader(Ask::ReadIndex, deadline, pick)
            .await
            .map_err(|failure| match failure {
                Failure::Closed(reason) => BarrierError::Closed(reason),
                Failure::NoLeader | Failure::Unknown | Failure::Refused(_) => BarrierError::NoLeader,
            })?;
        self.inner.wait_applied(next, deadline).await
    }

    /// Returns when this replica has applied the entry of an index: what [`Proposed::index`] says is then shown here.
    ///
    /// # Errors
    /// [`BarrierError`] after the time, or when the replica is closed.
    pub async fn wait_applied(&self, index: u64, patience: Duration) -> Result<(), BarrierError> {
        self.inner
            .wait_applied(index.saturating_add(1), Instant::now() + patience)
            .await
    }

    /// Whether this replica is the leader, confirmed by a majority during the call.
    pub async fn confirm_leadership(&self, patience: Duration) -> bool {
        matches!(self.inner.read_here(Instant::now() + patience).await, Attempt::Done(_))
    }

    /// Calls `read` with the replica's state, by the group's logical keys; it does not change meanwhile. Nothing is applied
    /// while `read` runs, so it is one query.
    ///
    /// # Errors
    /// `Closed`, also while a replica that begins anew has not come as far as the one before it was; `read` was not called
    /// then.
    pub async fn read(&self, read: &mut ReadFn<'_>) -> Result<(), GroupError> {
        let replica = &self.inner.replica;
        if let Some(reason) = replica.closed() {
            return Err(GroupError::Closed(reason));
        }
        // It would show what was long ago, or nothing, where the one before it has shown more.
        if !replica.has_what_was_before() {
            return Err(GroupError::Closed("it begins anew".to_owned()));
        }
        replica.rows.read(read).await;
        Ok(())
    }

    /// The changes that this replica applies from now on. A receiver that lags must look at everything anew, as after
    /// [`Effect::Replaced`].
    #[must_use]
    pub fn effects(&self) -> broadcast::Receiver<Arc<[Effect]>> {
        self.inner.replica.watch_effects()
    }

    /// Adds a replica that follows without a vote. Returns when that is committed, not when the replica has caught up.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn add_learner(&self, node: NodeId) -> Result<(), GroupError> {
        self.change(Change::AddLearner(node.0)).await
    }

    /// Makes these replicas the voters; each is a voter or learner already. Those that are not among them any more leave the
    /// group.
    ///
    /// # Errors
    /// [`GroupError`].
    pub async fn change_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), GroupError> {
        self.change(Change::Voters(voters.iter().map(|node| node.0).collect()))
            .await
    }

    /// As [`Group::change_voters`], but those that are not among them any more stay in the group, without a vote: they keep
    /// what they have until [`Group::remove_learners`]. `after` is the index of the membership from which the voters were
    /// worked out: a leader that is new may have another one by now.
    ///
    /// # Errors
    /// [`GroupError`]; `StaleMembership` when that membership is not in force any more.
    pub async fn change_voters_keeping(&self, voters: &BTreeSet<NodeId>, after: u64) -> Result<(), GroupError> {
        let voters = voters.iter().map(|node| node.0).collect();
        self.change(Change::VotersKeeping { voters, after }).await
    }

    /// Has replicas that do not vote leave the group.
    ///
    /// # Errors
    /// [`GroupError`]; `Refused` when one of them votes or is not there.
    pub async fn remove_learners(&self, learners: &BTreeSet<NodeId>) -> Result<(), GroupError> {
        self.change(Change::RemoveLearners(learners.iter().map(|node| node.0).collect()))
            .await
    }

    /// The digests of this replica's state after some entries, the last one after the last applied entry. Two replicas that
    /// have both a digest after the same entry have the same state there if the digests are the same.
    ///
    /// # Errors
    /// `Closed`; `Refused` when the state cannot be read.
    pub async fn digests(&self) -> Result<Vec<(u64, Digest)>, GroupError> {
        let replica = &self.inner.replica;
        let mut now = None;
        // Both are of one batch.
        self.read(&mut |view| now = Some((replica.rows.machine_row(), state::digest::stored(view))))
            .await?;
        let refused = |error: &dyn fmt::Display| GroupError::Refused(error.to_string());
        let (row, digest) = now.ok_or_else(|| refused(&"the replica did not answer"))?;
        let row = row.map_err(|error| refused(&error))?;
        let row = row.map(|bytes| MachineRow::decode(&bytes)).transpose();
        let applied = row
            .map_err(|error| refused(&error))?
            .and_then(|row| row.applied)
            .map(|id| id.index);
        let digest = digest.map_err(|error| refused(&error))?;
        let kept = replica.digests().into_iter().map(|at| (at.index, at.digest));
        // What is above was applied since.
        let mut digests: Vec<_> = kept.filter(|(index, _)| Some(*index) < applied).collect();
        digests.extend(applied.map(|applied| (applied, digest)));
        Ok(digests)
    }

    /// Has the leader hand over to another voter.
    ///
    /// # Errors
    /// [`GroupError`]; `Unknown` when the old leader still led when the time was up.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), GroupError> {
        self.change(Change::Leader(to.0)).await
    }

    async fn change(&self, change: Change) -> Result<(), GroupError> {
        let pick = |answer| {
            if let Answer::Changed(attempt) = answer {
                Some(attempt)
            } else {
                None
            }
        };
        let deadline = Instant::now() + self.inner.config.request_timeout;
        Ok(self.inner.ask_leader(Ask::Change(change), deadline, pick).await?)
    }

    /// Has this replica make a snapshot of its state, in the background.
    pub async fn trigger_snapshot(&self) {
        // An error says that the replica has stopped; its status tells why.
        let _ = self.inner.raft.trigger().snapshot().await;
    }
}

impl Group {
    /// Lets go of every entry that is in the snapshot, and has a new one made if entries were applied since.
    pub(crate) async fn let_go_of_log(&self) {
        let status = self.status();
        if status.snapshot < status.applied {
            self.trigger_snapshot().await;
        }
        if let Some(snapshot) = status.snapshot {
            // An error says that the replica has stopped; its status tells why.
            let _ = self.inner.raft.trigger().purge_log(snapshot).await;
        }
    }
}

impl Inner {
    fn node(&self) -> NodeId {
        self.config.node
    }

    fn closed_by(&self, error: &str) -> GroupError {
        GroupError::Closed(self.replica.closed().unwrap_or_else(|| error.to_owned()))
    }

    fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the leader, wherever it is, and again while there is time.
    async fn ask_leader<T>(
        &self,
        ask: Ask,
        deadline: Instant,
        pick: impl Fn(Answer) -> Option<Attempt<T>>,
    ) -> Result<T, Failure> {
        let mut may_be_done = false;
        let mut hint = None;
        loop {
            if let Some(reason) = self.replica.closed() {
                return Err(if may_be_done {
                    Failure::Unknown
                } else {
                    Failure::Closed(reason)
                });
            }
            if Instant::now() >= deadline {
                return Err(if may_be_done {
                    Failure::Unknown
                } else {
                    Failure::NoLeader
                });
            }
            let leader = hint
                .take()
                .or_else(|| self.raft.metrics().borrow_watched().current_leader);
            let attempt = match leader {
                None => Attempt::NotLeader(None),
                Some(leader) if leader == self.node().0 => {
                    pick(self.answer(ask.clone(), deadline).await).unwrap_or(Attempt::NotLeader(None))
                }
                Some(leader) => self.ask_remote(NodeId(leader), &ask, deadline, &pick).await,
            };
            match attempt {
                Attempt::Done(done) => return Ok(done),
                // The membership is looked at before the memory of ops. What it asks for, to store the blob again and repeat
                // the delivery by its GUID, is harmless if an earlier attempt came through.
                Attempt::Refused(error @ GroupError::StaleMembership { .. }) => return Err(Failure::Refused(error)),
                // It says nothing of an earlier attempt.
                Attempt::Refused(_) if may_be_done => return Err(Failure::Unknown),
                Attempt::Refused(error) => return Err(Failure::Refused(error)),
                Attempt::NotLeader(other) => hint = other.filter(|other| Some(*other) != leader),
                Attempt::Unknown => may_be_done = true,
            }
            if hint.is_none() {
                let mut metrics = self.raft.metrics();
                let pause = deadline.min(Instant::now() + RETRY_PAUSE);
                // Whichever comes first; an error says that the replica stopped, which the next round sees.
                let _ = timeout_at(pause, metrics.changed()).await;
                tokio::time::sleep_until(pause).await;
            }
        }
    }

    async fn ask_remote<T>(
        &self,
        leader: NodeId,
        ask: &Ask,
        deadline: Instant,
        pick: &impl Fn(Answer) -> Option<Attempt<T>>,
    ) -> Attempt<T> {
        let timeout = self
            .config
            .rpc_timeout
            .min(deadline.saturating_duration_since(Instant::now()));
        // The leader gives up a little earlier than we do, so that its word comes in time.
        let patience = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) * 9 / 10;
        let request = match ask.clone() {
            Ask::Propose(command) => Request::Propose { command, patience },
            Ask::ReadIndex => Request::ReadIndex { patience },
            Ask::Change(change) => Request::Change { change, patience },
        };
        match self.network.call(leader, Class::Store, request, timeout).await {
            Ok(answer) => pick(answer).unwrap_or(Attempt::Unknown),
            Err(CallError::TooLarge(_)) => Attempt::Refused(GroupError::TooLarge),
            Err(CallError::NoAnswer(_)) => Attempt::Unknown,
            Err(CallError::Unreachable(_) | CallError::Refused(_) | CallError::Busy(_)) => Attempt::NotLeader(None),
        }
    }

    async fn wait_applied(&self, next_index: u64, deadline: Instant) -> Result<(), BarrierError> {
        let mut applied = self.replica.watch_applied();
        let mut closed = self.replica.watch_closed();
        tokio::select! {
            biased;
            waited = timeout_at(deadline, applied.wait_for(|applied| *applied >= next_index)) => match waited {
                Ok(Ok(_)) => Ok(()),
                _ => Err(BarrierError::NoLeader),
            },
            reason = closed.wait_for(Option::is_some) => Err(match reason {
                Ok(reason) => BarrierError::Closed(reason.clone().unwrap_or_default()),
                Err(_) => BarrierError::NoLeader,
            }),
        }
    }
}

impl From<Failure> for GroupError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoLeader => Self::NoLeader,
            Failure::Unknown => Self::Unknown,
            Failure::Refused(error) => error,
            Failure::Closed(reason) => Self::Closed(reason),
        }
    }
}
