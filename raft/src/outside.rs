//! What a node's replicas show to whoever looks at them from outside, as a simulation does that judges Raft's own rules.
//!
//! Nothing here changes anything, and nothing of the product needs it. Not here: what a replica says of itself
//! ([`crate::GroupStatus`]).

use std::sync::{Arc, Weak};

use core_types::{GroupId, Incarnation, KvEngine, NodeId};
use state::digest::Digest;

use crate::generation::GroupRows;
use crate::group::Inner;
use crate::log::SharedLog;
use crate::log_store::decode_vote;
use crate::machine::MachineRow;
use crate::{Group, Groups};

/// What a node may do in a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// For whom the node voted, or whom it follows.
    pub node: NodeId,
    /// A majority voted so: it follows.
    pub is_elected: bool,
}

/// What the index holds of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The last entry whose effects are in it.
    pub applied: Option<u64>,
    /// The digest of the rows that stand beside it.
    pub digest: Digest,
    /// The last members that it knows of.
    pub members: Vec<NodeId>,
}

impl Groups {
    /// The log of the node.
    #[must_use]
    pub fn log(&self) -> &SharedLog {
        &self.inner.dependencies.log
    }
}

/// One opening of a replica: a replica that closed and was opened again is another one. Holds nothing of it.
#[derive(Clone)]
pub struct Opening(Weak<Inner>);

impl PartialEq for Opening {
    fn eq(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl Group {
    /// Which opening of the replica this is.
    #[must_use]
    pub fn opening(&self) -> Opening {
        Opening(Arc::downgrade(&self.inner))
    }
}

/// What the bytes of a vote say ([`crate::log::GroupState::vote`]); `None` when they are none.
#[must_use]
pub fn vote(bytes: &[u8]) -> Option<Vote> {
    let vote = decode_vote(bytes).ok()?;
    Some(Vote {
        term: vote.leader_id.term,
        node: NodeId(vote.leader_id.voted_for),
        is_elected: vote.committed,
    })
}

/// What an index holds of a replica; `None` when there is nothing, or nothing that can be read.
#[must_use]
pub fn kept(index: Arc<dyn KvEngine>, group: GroupId, incarnation: Incarnation) -> Option<Kept> {
    let rows = GroupRows::open(index, group, incarnation).ok()?;
    let row = MachineRow::decode(&rows.machine_row().ok()??).ok()?;
    Some(Kept {
        applied: row.applied.map(|id| id.index),
        digest: row.digest,
        members: row.membership.membership().voter_ids().map(NodeId).collect(),
    })
}
