//! What a replica says of itself.

use std::collections::{BTreeMap, BTreeSet};

use core_types::{GroupId, Incarnation, NodeId};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use state::digest::Digest;

use super::{Group, Inner};

/// What a replica is in its group now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It orders the commands.
    Leader,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It follows without a vote, or is not a member (yet, or any more).
    Learner,
    /// It has stopped; see [`GroupStatus::closed`].
    Closed,
}

/// Who takes part in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MembershipStatus {
    /// The log index of the entry that says so: what receipts name.
    pub index: u64,
    /// Those that vote; in the middle of a change the old ones and the new ones.
    pub voters: BTreeSet<NodeId>,
    /// Those that follow without a vote.
    pub learners: BTreeSet<NodeId>,
}

/// What a replica says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupStatus {
    /// Which group.
    pub group: GroupId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// What the replica is.
    pub role: Role,
    /// The leader, as far as it knows.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// The last entry of its log.
    pub last_log: Option<u64>,
    /// The last entry that it knows to be committed.
    pub committed: Option<u64>,
    /// The last entry that it has applied.
    pub applied: Option<u64>,
    /// Up to where its snapshot reaches.
    pub snapshot: Option<u64>,
    /// Up to where its log was let go.
    pub purged: Option<u64>,
    /// Who takes part.
    pub membership: MembershipStatus,
    /// At the leader: by how many entries each other replica lags behind its log.
    pub lag: BTreeMap<NodeId, u64>,
    /// The last digest that was kept for comparison, and after which entry.
    pub digest: Option<(u64, Digest)>,
    /// Voters that lately did not take a blob, as the commands said to this replica while it led.
    pub not_taking_blobs: BTreeSet<NodeId>,
    /// Copies differ, and no majority says which is right.
    pub alarm: Option<String>,
    /// Why the replica has stopped.
    pub closed: Option<String>,
}

impl Group {
    /// Who takes part in the group, as far as this replica knows.
    #[must_use]
    pub fn membership(&self) -> MembershipStatus {
        self.inner.membership()
    }

    /// Whether a change of the voters is under way, or was left unfinished by a leader: the old ones and the new ones both
    /// have to agree to everything.
    #[must_use]
    pub fn is_in_joint_change(&self) -> bool {
        let metrics = self.inner.raft.metrics();
        let stored = metrics.borrow_watched().membership_config.clone();
        stored.membership().get_joint_config().len() > 1
    }

    /// Whether this replica leads, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.inner.is_leader()
    }

    /// What this replica says of itself.
    #[must_use]
    pub fn status(&self) -> GroupStatus {
        self.inner.status()
    }
}

impl Inner {
    /// Closes the replica when openraft has stopped by itself: its log failed, or it found itself contradicted.
    pub(crate) fn notice_stop(&self) {
        let error = self
            .raft
            .metrics()
            .borrow_watched()
            .running_state
            .as_ref()
            .err()
            .map(ToString::to_string);
        if let Some(error) = error {
            self.replica.close(&error);
        }
    }

    pub(crate) fn is_leader(&self) -> bool {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        now.state == ServerState::Leader && now.current_leader == Some(self.node().0)
    }

    pub(crate) fn membership(&self) -> MembershipStatus {
        let metrics = self.raft.metrics();
        let stored = metrics.borrow_watched().membership_config.clone();
        MembershipStatus {
            index: stored.log_id().as_ref().map_or(0, |id| id.index),
            voters: stored.membership().voter_ids().map(NodeId).collect(),
            learners: stored.membership().learner_ids().map(NodeId).collect(),
        }
    }

    fn status(&self) -> GroupStatus {
        let membership = self.membership();
        let closed = self.replica.closed();
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let role = match now.state {
            _ if closed.is_some() => Role::Closed,
            ServerState::Leader => Role::Leader,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Closed,
        };
        let next = now.last_log_index.map_or(0, |index| index + 1);
        let lag = now
            .replication
            .iter()
            .flatten()
            .filter(|(node, _)| **node != self.node().0)
            .map(|(node, matched)| (NodeId(*node), next.saturating_sub(matched.map_or(0, |id| id.index + 1))))
            .collect();
        GroupStatus {
            group: self.replica.group,
            incarnation: self.replica.incarnation,
            role,
            leader: now.current_leader.map(NodeId),
            term: now.current_term,
            last_log: now.last_log_index,
            committed: now.local_committed.map(|id| id.index),
            applied: self.replica.applied(),
            snapshot: now.snapshot.map(|id| id.index),
            purged: now.purged.map(|id| id.index),
            membership,
            lag,
            digest: self.replica.digests().last().map(|at| (at.index, at.digest)),
            not_taking_blobs: Self::locked(&self.skipped).clone(),
            alarm: Self::locked(&self.alarm).clone(),
            closed,
        }
    }
}
