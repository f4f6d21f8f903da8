//! How openraft reaches the other replicas of a group: each message is one request of [`transport::Rpc`].
//!
//! Votes and heartbeats go as [`Class::Control`], entries as [`Class::Log`], chunks of snapshots as [`Class::Bulk`], so that
//! none waits for a less urgent one. Not here: connections; the other end ([`crate::group`]).

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use core_types::{BlockingPool, GroupId, Incarnation, NodeId, limits};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, EntryPayload, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use transport::{CallError, Class, Rpc, ServiceId};

use crate::frame::{self, Answer, Frame, Reply, Request};
use crate::machine::SnapshotData;
use crate::transfer;
use crate::types::{Entry, LogId, SnapshotMeta, TypeConfig, Vote};

type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Octets of entries in one request. Far below a frame, so that one request never takes long; a larger entry goes alone.
const APPEND_BYTES: usize = 2 * 1024 * 1024;
/// What an entry takes beside its command, at most.
const ENTRY_OVERHEAD: usize = 64;
/// What a membership entry takes, at most: 31 replicas in two configurations.
const MEMBERSHIP_BYTES: usize = 4096;

/// Makes the way to each replica of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) rpc: Arc<dyn Rpc>,
    pub(crate) group: GroupId,
    pub(crate) incarnation: Incarnation,
    pub(crate) timeout: Duration,
    pub(crate) pool: Arc<dyn BlockingPool>,
}

impl Network {
    /// # Errors
    /// [`CallError`]; a [`frame::Rejection`] counts as refused.
    pub(crate) async fn call(
        &self,
        to: NodeId,
        class: Class,
        request: Request,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let frame = Frame {
            group: self.group,
            incarnation: self.incarnation,
            request,
        };
        let bytes = frame::encode(&frame).map_err(|_| CallError::TooLarge(limits::FRAME_BYTES_MAX))?;
        let answer = self.rpc.call(to, class, ServiceId::RAFT, bytes, timeout).await?;
        frame::decode::<Reply>(&answer)
            .map_err(|error| CallError::Refused(error.to_string()))?
            .map_err(|rejection| CallError::Refused(rejection.to_string()))
    }
}

/// The way to one replica.
pub(crate) struct Peer {
    network: Network,
    target: u64,
    class: Class,
    /// The last entry that the replica acknowledged to this client.
    acknowledged: Option<LogId>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, _: &EmptyNode) -> Peer {
        Peer {
            network: self.clone(),
            target,
            class: Class::Log,
            acknowledged: None,
        }
    }

    async fn new_heartbeat_client(&mut self, target: u64, _: &EmptyNode) -> Peer {
        Peer {
            network: self.clone(),
            target,
            class: Class::Control,
            acknowledged: None,
        }
    }

    async fn new_snapshot_client(&mut self, target: u64, _: &EmptyNode) -> Peer {
        Peer {
            network: self.clone(),
            target,
            class: Class::Bulk,
            acknowledged: None,
        }
    }
}

impl Peer {
    async fn ask(&self, class: Class, request: Request, action: RPCTypes) -> Result<Answer, RPCError<TypeConfig>> {
        let timeout = self.network.timeout;
        self.network
            .call(NodeId(self.target), class, request, timeout)
            .await
            .map_err(|error| match error {
                CallError::NoAnswer(_) => RPCError::Timeout(Timeout {
                    action,
                    id: self.network.rpc.node().0,
                    target: self.target,
                    timeout,
                }),
                CallError::Unreachable(_) | CallError::Refused(_) => RPCError::Unreachable(Unreachable::new(&error)),
                CallError::TooLarge(_) | CallError::Busy(_) => RPCError::Network(NetworkError::new(&error)),
            })
    }
}

impl Peer {
    /// Tells a replica that it lost what it had acknowledged: it is to be repaired from the others.
    async fn reverted(&self, entry: Option<LogId>) -> RPCError<TypeConfig> {
        let index = entry.map_or(0, |entry| entry.index);
        let (group, target) = (self.network.group, self.target);
        tracing::error!(%group, node = target, index, "a replica lost what it had acknowledged");
        // One that does not answer is told at the next heartbeat.
        let _ = self
            .ask(Class::Control, Request::Reverted { index }, RPCTypes::AppendEntries)
            .await;
        RPCError::Unreachable(Unreachable::new(&io::Error::other(
            "the replica lost what it had acknowledged",
        )))
    }
}

fn unexpected() -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string("an answer to another request"))
}

/// How many entries from the beginning fit one request; at least one.
fn count_that_fits(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        bytes += ENTRY_OVERHEAD
            + match &entry.payload {
                EntryPayload::Normal(data) => data.0.len(),
                EntryPayload::Membership(_) => MEMBERSHIP_BYTES,
                EntryPayload::Blank => 0,
            };
        bytes <= APPEND_BYTES
    };
    entries.iter().take_while(fits).count().max(1)
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        mut rpc: AppendEntriesRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let count = count_that_fits(&rpc.entries);
        let is_part = count < rpc.entries.len();
        rpc.entries.truncate(count);
        let prev = rpc.prev_log_id;
        let last = rpc.entries.last().map(|entry| entry.log_id);
        match self
            .ask(self.class, Request::Append(rpc), RPCTypes::AppendEntries)
            .await?
        {
            Answer::Append(AppendEntriesResponse::Success) => {
                self.acknowledged = self.acknowledged.max(last).max(prev);
                Ok(match is_part {
                    true => AppendEntriesResponse::PartialSuccess(last),
                    false => AppendEntriesResponse::Success,
                })
            }
            // openraft takes for granted that only a previous entry can conflict, and would panic.
            Answer::Append(AppendEntriesResponse::Conflict) if prev.is_none() => Err(unexpected()),
            // It also takes for granted that what was acknowledged stays. A heartbeat follows the last entry that was.
            Answer::Append(AppendEntriesResponse::Conflict)
                if self.class == Class::Control || prev <= self.acknowledged =>
            {
                Err(self.reverted(prev).await)
            }
            Answer::Append(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(Class::Control, Request::Vote(rpc), RPCTypes::Vote).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self.ask(Class::Control, Request::PreVote(rpc), RPCTypes::Vote).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let Some(file) = snapshot.snapshot else {
            let error = io::Error::other("there is no file to send");
            return Err(StreamingError::Network(NetworkError::new(&error)));
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = transfer::send(&self.network, NodeId(self.target), vote, file) => sent,
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        match self
            .ask(
                Class::Control,
                Request::TransferLeader(request),
                RPCTypes::TransferLeader,
            )
            .await?
        {
            Answer::TransferLeader(response) => Ok(response),
            _ => Err(unexpected()),
        }
    }
}

/// Whether a request to append is one that a leader could have made: what follows a gap, runs backwards or is not of the
/// leader's time is refused before openraft sees it, and the log stays as it is.
pub(crate) fn is_well_formed(request: &AppendEntriesRequest<TypeConfig>) -> bool {
    let mut last = request.prev_log_id;
    for entry in &request.entries {
        let is_next = match last {
            None => entry.log_id.index == 0,
            Some(last) => {
                last.index.checked_add(1) == Some(entry.log_id.index) && last.leader_id <= entry.log_id.leader_id
            }
        };
        if !is_next {
            return false;
        }
        last = Some(entry.log_id);
    }
    request.vote.committed && last.is_none_or(|last| last.leader_id.term <= request.vote.leader_id.term)
}

/// Whether a leader of this vote can have a snapshot of this state, which openraft takes for granted.
pub(crate) fn may_install(vote: &Vote, meta: &SnapshotMeta, committed: Option<LogId>) -> bool {
    let Some(last) = meta.last_log_id else { return false };
    vote.committed
        && last.leader_id.term <= vote.leader_id.term
        && committed.is_none_or(|committed| last <= committed || last.index > committed.index)
}
