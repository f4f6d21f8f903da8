//! Requests between the replicas of a group, as they are sent.
//!
//! Every frame names the group and its incarnation; one of another incarnation is refused by name, so that a replica that
//! was left behind by a recovery knows that it was. Version byte and encoding are those of [`core_types::codec`].

use std::collections::BTreeSet;

use bytes::Bytes;
use core_types::codec::{self, CodecError};
use core_types::{GroupId, Incarnation, limits};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{GroupError, Proposed};
use crate::replica::DigestAt;
use crate::types::{EncodedCommand, TypeConfig, Vote};

const VERSION: u8 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Frame {
    pub(crate) group: GroupId,
    pub(crate) incarnation: Incarnation,
    pub(crate) request: Request,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<TypeConfig>),
    PreVote(VoteRequest<TypeConfig>),
    TransferLeader(TransferLeaderRequest<TypeConfig>),
    SnapshotChunk(Chunk),
    /// Every octet of the snapshot of this name was sent: install it.
    SnapshotInstall {
        vote: Vote,
        hash: [u8; 32],
    },
    /// To the leader.
    Propose {
        command: EncodedCommand,
        /// How long the asker waits, in milliseconds.
        patience: u64,
    },
    /// To the leader: up to which index must a replica have applied, to have seen everything acknowledged before now?
    ReadIndex {
        /// How long the asker waits, in milliseconds.
        patience: u64,
    },
    /// To the leader.
    Change {
        change: Change,
        /// How long the asker waits, in milliseconds.
        patience: u64,
    },
    /// To every replica, from the leader.
    Digests,
    /// From the leader: a majority has this digest at this index. A replica that has another closes.
    CompareDigest(DigestAt),
    /// To the leader, from a node whose replica cannot go on: to be taken out of the members.
    TakeOut {
        /// How long the asker waits, in milliseconds.
        patience: u64,
    },
    /// From the leader: the replica had acknowledged this entry, and has it no more.
    Reverted {
        /// Of the entry.
        index: u64,
    },
}

/// A part of a snapshot's file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Chunk {
    pub(crate) vote: Vote,
    /// Names the file.
    pub(crate) hash: [u8; 32],
    /// Octets of the file.
    pub(crate) length: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// A change of the membership or of the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    AddLearner(u64),
    Voters(BTreeSet<u64>),
    Leader(u64),
    /// These vote; those that voted before follow.
    VotersKeeping {
        voters: BTreeSet<u64>,
        /// The log index of the membership that this is to follow.
        after: u64,
    },
    /// These learners leave the group.
    RemoveLearners(BTreeSet<u64>),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<TypeConfig>),
    Vote(VoteResponse<TypeConfig>),
    TransferLeader(TransferLeaderResponse<TypeConfig>),
    /// The vote that the replica has, and the offset that it wants next.
    SnapshotChunk {
        vote: Vote,
        next: u64,
    },
    SnapshotInstalled(SnapshotResponse<TypeConfig>),
    Proposed(Attempt<Proposed>),
    /// The least index that need not be applied: one above the last that must.
    ReadIndex(Attempt<u64>),
    Changed(Attempt<()>),
    Digests(Vec<DigestAt>),
    Compared,
    TakenOut {
        attempt: Attempt<Exit>,
        /// Who votes, as far as the replica that answers knows.
        voters: BTreeSet<u64>,
    },
}

/// How a node was taken out of the members: a commit that a leader vouches for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// The leader's vote once the change was committed.
    pub(crate) vote: Vote,
    /// Where the members without the node stand in the log.
    pub(crate) index: u64,
}

/// What came of asking one replica as the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Attempt<T> {
    Done(T),
    /// It is not the leader; it may know who is. Nothing was done.
    NotLeader(Option<u64>),
    /// It may or may not have been done.
    Unknown,
    /// Asking another replica would not help.
    Refused(GroupError),
}

/// Why a replica did not even look at a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Rejection {
    #[error("the node has no replica of group {0}")]
    UnknownGroup(GroupId),
    #[error("group {group} is in incarnation {ours} here")]
    OtherIncarnation { group: GroupId, ours: Incarnation },
    #[error("the replica is closed: {0}")]
    Closed(String),
    #[error("not acceptable: {0}")]
    Invalid(String),
    #[error("the replica has begun anew and takes part in no election before it has caught up")]
    Behind,
}

pub(crate) type Reply = Result<Answer, Rejection>;

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
    codec::encode(VERSION, value, limits::FRAME_BYTES_MAX).map(Bytes::from)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    codec::decode(VERSION, bytes, limits::FRAME_BYTES_MAX)
}
