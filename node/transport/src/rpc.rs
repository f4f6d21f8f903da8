//! Requests between nodes, as those who make and answer them see it.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use core_types::NodeId;

/// What a request is for; decides its priority, the greater the more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Chunks of snapshots, repair.
    Bulk,
    /// Messages on their way to a receipt.
    Blob,
    /// Small requests of the mail store and of administration.
    Store,
    /// Log entries.
    Log,
    /// Votes, heartbeats, liveness.
    Control,
}

/// Who answers a request at the other node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u16);

impl ServiceId {
    /// The crate `raft`.
    pub const RAFT: Self = Self(1);
    /// The crate `blobstore`.
    pub const BLOB: Self = Self(2);
    /// The crate `mailstore`.
    pub const STORE: Self = Self(3);
    /// Joining; the only one that a holder of a mere join token may ask.
    pub const JOIN: Self = Self(4);
    /// What nodes remember of each other's logs.
    pub const FENCE: Self = Self(5);
    /// The crate `node`: what a node says of its replicas, for administrators.
    pub const REPORT: Self = Self(6);
}

/// Requests to other nodes. In production QUIC; tests and simulations have others.
#[async_trait]
pub trait Rpc: Send + Sync + 'static {
    /// This node.
    fn node(&self) -> NodeId;

    /// Asks a node and waits for its answer. A request may be carried out although its answer was lost: whoever asks for
    /// a change makes it idempotent.
    ///
    /// # Errors
    /// [`CallError`]; after `timeout` at the latest.
    async fn call(
        &self,
        to: NodeId,
        class: Class,
        service: ServiceId,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError>;

    /// Whether the node was reached lately, directly or through another node. Answers at once from what is known.
    fn is_reachable(&self, to: NodeId) -> bool;
}

/// Answers requests of other nodes.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers one request. Never panics, whatever the bytes.
    ///
    /// # Errors
    /// [`Refused`] goes back to the asker as [`CallError::Refused`].
    async fn serve(&self, from: NodeId, request: Bytes) -> Result<Bytes, Refused>;
}

/// Why a request has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The node can be reached in no way; nothing was sent.
    #[error("node {0} cannot be reached")]
    Unreachable(NodeId),
    /// No answer in time, or the connection was lost: it may have been carried out.
    #[error("node {0} did not answer in time")]
    NoAnswer(NodeId),
    /// The node answered that it will not.
    #[error("refused: {0}")]
    Refused(String),
    /// The request or the answer is larger than a frame may be.
    #[error("frame too large: {0} bytes")]
    TooLarge(u64),
    /// Too many requests to this node wait already.
    #[error("too many requests to node {0} are under way")]
    Busy(NodeId),
}

/// The refusal of a request, with its reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);
