//! Consensus as the layers above see it: propose, read, watch. They know nothing else of Raft.
//!
//! [`crate::local::LocalGroups`] is the same without replication, for tests of what stands above.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use core_types::{GroupId, Incarnation, KvRead, NodeId};
use state::{Command, Effect, Outcome, ReadError};
use tokio::sync::broadcast;

/// What [`Consensus::read`] calls with the state.
pub type ReadFn<'a> = dyn FnMut(&dyn KvRead) + Send + 'a;

/// The groups that this node can reach, whether it has a replica of them or not.
#[async_trait]
pub trait Consensus: Send + Sync + 'static {
    /// The groups with a replica here, in order.
    fn groups(&self) -> Vec<GroupId>;

    /// Has the group commit a command, from whatever node, and waits until the replica here has applied it. A change of
    /// leader is ridden out, by the same op id, as long as `timeout` lasts.
    ///
    /// # Errors
    /// [`ProposeError`].
    async fn propose(&self, group: GroupId, command: Command, timeout: Duration) -> Result<Outcome, ProposeError>;

    /// Returns once the replica here has applied everything that was acknowledged anywhere before the call (ReadIndex).
    ///
    /// # Errors
    /// [`Unavailable`] when no majority confirms it in time.
    async fn read_barrier(&self, group: GroupId, timeout: Duration) -> Result<(), Unavailable>;

    /// Calls `read` with the group's state as this node knows it: consistent, and unchanged while `read` runs.
    ///
    /// # Errors
    /// [`Unavailable`] when there is no replica here, or it is closed. `read` was not called then.
    async fn read(&self, group: GroupId, read: &mut ReadFn<'_>) -> Result<(), Unavailable>;

    /// What changes in the group from now on, as the replica here applies it. A receiver that lags must look at
    /// everything anew.
    ///
    /// # Errors
    /// [`Unavailable`] when there is no replica here.
    fn effects(&self, group: GroupId) -> Result<broadcast::Receiver<Arc<[Effect]>>, Unavailable>;

    /// Who votes in the group, as this node knows it.
    ///
    /// # Errors
    /// [`Unavailable`] when there is no replica here.
    fn membership(&self, group: GroupId) -> Result<Membership, Unavailable>;
}

impl dyn Consensus {
    /// [`Consensus::read`] with a result.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn query<T: Send>(
        &self,
        group: GroupId,
        read: impl FnOnce(&dyn KvRead) -> Result<T, ReadError> + Send,
    ) -> Result<T, QueryError> {
        let mut read = Some(read);
        let mut result = None;
        self.read(group, &mut |view| result = read.take().map(|read| read(view)))
            .await?;
        match result {
            Some(result) => Ok(result?),
            None => Err(QueryError::Unavailable(Unavailable(
                group,
                "the replica did not answer".to_owned(),
            ))),
        }
    }
}

/// Who votes in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The life of the group.
    pub incarnation: Incarnation,
    /// The log index of this membership.
    pub index: u64,
    /// Those that vote.
    pub voters: Vec<NodeId>,
    /// Those that only follow.
    pub learners: Vec<NodeId>,
}

/// Why a command was not committed, or not known to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was not committed: no leader could be reached in time.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// It was not committed: the receipts were made under another membership. The blob is to be stored again.
    #[error("the group's membership is another than the receipts were made under")]
    StaleMembership,
    /// It was not committed: the receipts name too few copies.
    #[error("{present} durable copies, {needed} are needed")]
    NotEnoughCopies {
        /// Copies on voters that count.
        present: usize,
        /// Copies that are needed.
        needed: usize,
    },
    /// Nobody knows yet: it may be committed later. Asking again with the same op id finds out.
    #[error("the outcome is not known")]
    Unknown,
    /// It was not committed: it is larger than an entry may be.
    #[error("the command is larger than a log entry may be")]
    TooLarge,
    /// It was not committed: the leader's disk has too little room. There may be room later.
    #[error("no space left on the disk of the group's leader")]
    Full,
}

/// A group cannot be used now; why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {0} is not available: {1}")]
pub struct Unavailable(pub GroupId, pub String);

/// Why a read has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// The group cannot be used here now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The index failed, or the state is damaged.
    #[error(transparent)]
    State(#[from] ReadError),
}
