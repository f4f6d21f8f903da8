//! What the groups of a node are told at their start, and the errors that they answer with.

use std::time::Duration;

use core_types::{GroupId, Incarnation, KvError, NodeId, limits};
use serde::{Deserialize, Serialize};
use state::Outcome;

/// How a group keeps time. All are durations between events of the Raft protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Between two heartbeats of a leader. Idle groups have them too.
    pub heartbeat: Duration,
    /// The least time without a leader after which a replica asks for votes.
    pub election_min: Duration,
    /// The most; the real time is drawn between the two.
    pub election_max: Duration,
}

impl Timers {
    /// For a group inside a site.
    pub const SITE: Self = Self {
        heartbeat: Duration::from_millis(200),
        election_min: Duration::from_millis(450),
        election_max: Duration::from_millis(800),
    };
    /// For a group over several sites.
    pub const WIDE: Self = Self {
        heartbeat: Duration::from_millis(500),
        election_min: Duration::from_millis(1500),
        election_max: Duration::from_millis(3000),
    };
}

/// What the groups of a node are told at their start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// For mailbox groups.
    pub timers: Timers,
    /// For the directory group.
    pub directory_timers: Timers,
    /// When a request to another node is given up.
    pub rpc_timeout: Duration,
    /// How long a change of the membership or of the leader is tried.
    pub request_timeout: Duration,
    /// How long a commit waits for the live voters that a majority did not need.
    pub all_voters_wait: Duration,
    /// A snapshot is made after this many entries.
    pub snapshot_entries: u64,
    /// A snapshot is made after this many octets of commands.
    pub snapshot_bytes: u64,
    /// Entries that stay in the log behind a snapshot, so that a replica that was away briefly needs no snapshot.
    pub log_entries_kept: u64,
    /// Segments of the node's log that a group with few commands may keep from being let go. Beyond it the group makes a
    /// snapshot and lets go of all entries that are in it.
    pub log_segments_kept: usize,
    /// Octets of free disk below which a leader takes no ops but those that free space, and below which a replica that closed
    /// for want of space stays closed.
    pub propose_reserve_bytes: u64,
    /// Between two looks at all groups: sizes, replicas that closed.
    pub maintenance_interval: Duration,
    /// Between two checkpoints of the index.
    pub checkpoint_interval: Duration,
    /// Between two comparisons of digests.
    pub digest_interval: Duration,
}

impl Config {
    /// The defaults.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            timers: Timers::SITE,
            directory_timers: Timers::SITE,
            rpc_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            all_voters_wait: Duration::from_millis(200),
            snapshot_entries: 10_000,
            snapshot_bytes: 64 * 1024 * 1024,
            log_entries_kept: 1000,
            log_segments_kept: 8,
            propose_reserve_bytes: limits::PROPOSE_RESERVE_BYTES,
            maintenance_interval: Duration::from_secs(1),
            checkpoint_interval: Duration::from_secs(30),
            digest_interval: Duration::from_secs(10),
        }
    }
}

/// A command that is committed and applied at the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposed {
    /// What came of it.
    pub outcome: Outcome,
    /// Its place in the log: a replica that has applied this index shows the change.
    pub index: u64,
}

/// Why a group did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GroupError {
    /// No leader was reached in time. Nothing was proposed.
    #[error("no leader of the group can be reached")]
    NoLeader,
    /// The receipts were given, or the voters worked out, under another membership or incarnation: the blob is to be stored
    /// again with the present voters. If an earlier attempt of the same op came through, the message's GUID makes the repetition harmless.
    #[error("the membership has changed: it is that of entry {index} of incarnation {incarnation} now")]
    StaleMembership {
        /// The group's incarnation.
        incarnation: Incarnation,
        /// The log index of the present membership.
        index: u64,
    },
    /// The receipts cover too few voters.
    #[error("{have} durable copies of the blob, {wanted} are wanted")]
    NotEnoughCopies {
        /// How many are wanted now.
        wanted: usize,
        /// How many voters the receipts name.
        have: usize,
    },
    /// The command may or may not have been carried out. Asking again with the same op id tells.
    #[error("the outcome is unknown")]
    Unknown,
    /// The command is larger than an entry may be.
    #[error("larger than a log entry may be")]
    TooLarge,
    /// This replica is closed; the reason.
    #[error("this replica of the group is closed: {0}")]
    Closed(String),
    /// What was asked for does not fit the group as it is (membership changes); the reason.
    #[error("refused: {0}")]
    Refused(String),
    /// The leader's disk has too little room for more. Nothing was proposed; there may be room later.
    #[error("no space left on the disk of the group's leader")]
    Full,
}

/// Why a read cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BarrierError {
    /// No leader that a majority confirms was reached in time, or this replica did not catch up with it.
    #[error("no leader that a majority confirms can be reached")]
    NoLeader,
    /// This replica is closed; the reason.
    #[error("this replica of the group is closed: {0}")]
    Closed(String),
}

/// Why a group cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The group is open already, in this incarnation.
    #[error("group {0} is open already")]
    IsOpen(GroupId),
    /// The index failed or is damaged: it is set aside and rebuilt.
    #[error(transparent)]
    Index(#[from] KvError),
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] core_types::DiskError),
    /// The replica cannot go on by itself: its votes or its state are lost or wrong. It takes part again after
    /// [`crate::Groups::repair_group`].
    #[error("group {group}: {reason}")]
    NeedsRepair {
        /// Which group.
        group: GroupId,
        /// What is wrong.
        reason: String,
    },
    /// The log does not fit the state, or the group cannot be started.
    #[error("group {group}: {detail}")]
    Log {
        /// Which group.
        group: GroupId,
        /// What is wrong.
        detail: String,
    },
}

/// Why a replica was not repaired, this time.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// Nobody took it out of its group; why not. The replica is as before.
    #[error("group {group}: {detail}")]
    NotTakenOut {
        /// Which group.
        group: GroupId,
        /// What is wanting.
        detail: String,
    },
    /// It was taken out, but could not be cleared or opened here. Repairing it again goes on.
    #[error(transparent)]
    Open(#[from] OpenError),
}
