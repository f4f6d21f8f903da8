//! The faults, as data: what the harness does to the system, when told to.

use std::fmt;
use std::time::Duration;

/// Which links a network fault concerns: datagrams between nodes, and those between clients and nodes where the harness
/// has them pass the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Links {
    /// All.
    All,
    /// To and from one node.
    Of(u64),
    /// From one node to another, that direction only.
    Between(u64, u64),
}

impl Links {
    /// Whether the link is one of them.
    #[must_use]
    pub fn contain(self, from: u64, to: u64) -> bool {
        match self {
            Self::All => true,
            Self::Of(node) => node == from || node == to,
            Self::Between(a, b) => (a, b) == (from, to),
        }
    }
}

/// What of a node's data is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stored {
    /// The log.
    Log,
    /// Files of blobs.
    Blob,
    /// The journal of blobs.
    BlobJournal,
    /// Snapshots in files.
    Snapshot,
    /// The manifest.
    Manifest,
    /// Any file at all.
    Any,
}

impl Stored {
    /// What the paths of such files begin with, in a node's data directory.
    #[must_use]
    pub fn path_prefix(self) -> &'static str {
        match self {
            Self::Log => "log/",
            Self::Blob => "blobs/",
            Self::BlobJournal => "blobs.journal/",
            Self::Snapshot => "snapshots/",
            Self::Manifest => "manifest/",
            Self::Any => "",
        }
    }
}

/// The disk calls that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskOp {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Syncs, of files and directories.
    Sync,
}

/// In the middle of what a client dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum During {
    /// The data of an SMTP transaction.
    Data,
    /// The literal of an APPEND.
    Append,
    /// IDLE.
    Idle,
}

/// When a leader is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// At once.
    Now,
    /// As soon as two nodes have made a message's bytes durable: before what refers to them is proposed.
    Receipts,
}

/// A change of the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A new node joins; the id is the one that it is to have.
    Add(u64),
    /// A node is drained, and stays as a member without replicas.
    Drain(u64),
    /// A node is removed.
    Remove(u64),
    /// A group's replica goes from one node to another.
    Move {
        /// The group.
        group: u32,
        /// Whose replica goes.
        from: u64,
        /// Who gets one.
        to: u64,
    },
}

/// One fault. What it does for a time ends with its event (see [`super::Event::lasts`]); what it did at once stays done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The processes die at once, and start again when the event ends.
    Crash {
        /// Who.
        nodes: Vec<u64>,
        /// Also what was not synced is lost.
        power_loss: bool,
    },
    /// The power of one node fails between two calls of its disk; it starts again when the event ends.
    PowerOffAfter {
        /// Who.
        node: u64,
        /// Calls until then.
        calls: u64,
    },
    /// The process is stopped in order, and starts again when the event ends.
    Restart {
        /// Who.
        node: u64,
    },
    /// The process stands still (as under SIGSTOP) until the event ends.
    Pause {
        /// Who.
        node: u64,
    },
    /// Nodes reach only those of their own group.
    Partition {
        /// Each node in one of them.
        groups: Vec<Vec<u64>>,
    },
    /// What some send to others does not come; the other direction works.
    OneWay {
        /// The senders.
        from: Vec<u64>,
        /// The receivers.
        to: Vec<u64>,
    },
    /// Two sides do not reach each other; all others reach both.
    Bridge {
        /// One side.
        left: Vec<u64>,
        /// The other.
        right: Vec<u64>,
    },
    /// Datagrams are lost.
    Loss {
        /// Where.
        links: Links,
        /// Of a thousand.
        permille: u16,
    },
    /// Datagrams come twice.
    Duplicate {
        /// Where.
        links: Links,
        /// Of a thousand.
        permille: u16,
    },
    /// Datagrams are overtaken.
    Reorder {
        /// Where.
        links: Links,
        /// Of a thousand.
        permille: u16,
        /// How late they come at most.
        by: Duration,
    },
    /// Datagrams take longer.
    Delay {
        /// Where.
        links: Links,
        /// At least.
        min: Duration,
        /// At most.
        max: Duration,
    },
    /// Whatever a node receives it works on only later: an overloaded machine.
    SlowNode {
        /// Who.
        node: u64,
        /// How much later.
        by: Duration,
    },
    /// A wall clock jumps, and jumps back when the event ends.
    ClockJump {
        /// Whose.
        node: u64,
        /// Forward, or back when negative.
        millis: i64,
    },
    /// A wall clock goes wrong, and is set right when the event ends.
    ClockDrift {
        /// Whose.
        node: u64,
        /// Parts in a million, too fast when positive.
        ppm: i64,
    },
    /// Disk calls take time.
    DiskSlow {
        /// Whose.
        node: u64,
        /// Each at most.
        max: Duration,
    },
    /// No disk call comes back.
    DiskFrozen {
        /// Whose.
        node: u64,
    },
    /// The disk has no more room.
    DiskFull {
        /// Whose.
        node: u64,
    },
    /// Disk calls fail.
    DiskEio {
        /// Whose.
        node: u64,
        /// Which.
        op: DiskOp,
        /// Of a thousand.
        permille: u16,
    },
    /// Reads give less than asked for.
    ShortRead {
        /// Whose.
        node: u64,
    },
    /// A bit flips at rest. Damage.
    BitFlip {
        /// Where.
        node: u64,
        /// In what.
        what: Stored,
    },
    /// One write goes elsewhere. Damage.
    Misdirected {
        /// Where.
        node: u64,
        /// In what.
        what: Stored,
    },
    /// A file is cut or gone; the node is down meanwhile and starts when the event ends. Damage.
    FileLost {
        /// Where.
        node: u64,
        /// Of what.
        what: Stored,
        /// Only its end.
        cut: bool,
    },
    /// The process dies, and its index comes back as it once was, or broken; it starts again when the event ends. No damage:
    /// the index can be rebuilt.
    IndexLost {
        /// Whose.
        node: u64,
        /// Broken rather than old.
        broken: bool,
    },
    /// The node goes down, and its whole disk comes back as it was some time ago when the event ends. Damage.
    RestoreImage {
        /// Whose.
        node: u64,
        /// How long ago.
        age: Duration,
    },
    /// The node and its data are gone; an empty one takes its place, under a new id, when the event ends. Damage.
    ReplaceNode {
        /// Who.
        node: u64,
    },
    /// An administrator changes the members.
    Membership {
        /// How.
        change: Change,
    },
    /// A leader is asked to hand over.
    LeaderTransfer {
        /// Of which group.
        group: u32,
        /// To whom.
        to: u64,
    },
    /// Snapshots are taken and logs purged, now.
    SnapshotNow {
        /// Where.
        node: u64,
    },
    /// A client vanishes in the middle of something, the next time it does it.
    ClientDies {
        /// Which.
        client: u32,
        /// Of what.
        during: During,
    },
    /// Clients and nodes do not reach each other: connections that are open are dead from then on, and do not know it.
    ClientCut {
        /// Which clients.
        clients: Vec<u64>,
        /// Which nodes.
        nodes: Vec<u64>,
    },
    /// The power of one node fails at the next such call of its disk; it starts again when the event ends.
    PowerOffAt {
        /// Who.
        node: u64,
        /// On which data.
        what: Stored,
        /// Which call.
        op: DiskOp,
    },
    /// Whoever leads a group dies; it starts again when the event ends.
    KillLeader {
        /// Of which group.
        group: u32,
        /// When, after the event began.
        when: Moment,
        /// Also what was not synced is lost.
        power_loss: bool,
    },
}

macro_rules! kinds {
    ($($kind:ident $name:literal),* $(,)?) => {
        /// The kinds of faults, to turn on and off and to count.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $(
                #[doc = concat!("[`Fault::", stringify!($kind), "`]")]
                $kind,
            )*
        }

        impl FaultKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name, as schedules and counters write it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }

        impl Fault {
            /// Its kind.
            #[must_use]
            pub fn kind(&self) -> FaultKind {
                match self {
                    $(Self::$kind { .. } => FaultKind::$kind,)*
                }
            }
        }
    };
}

kinds! {
    Crash "crash",
    PowerOffAfter "power_off_after",
    Restart "restart",
    Pause "pause",
    Partition "partition",
    OneWay "one_way",
    Bridge "bridge",
    Loss "loss",
    Duplicate "duplicate",
    Reorder "reorder",
    Delay "delay",
    SlowNode "slow_node",
    ClockJump "clock_jump",
    ClockDrift "clock_drift",
    DiskSlow "disk_slow",
    DiskFrozen "disk_frozen",
    DiskFull "disk_full",
    DiskEio "disk_eio",
    ShortRead "short_read",
    BitFlip "bit_flip",
    Misdirected "misdirected",
    FileLost "file_lost",
    IndexLost "index_lost",
    RestoreImage "restore_image",
    ReplaceNode "replace_node",
    Membership "membership",
    LeaderTransfer "leader_transfer",
    SnapshotNow "snapshot_now",
    ClientDies "client_dies",
    ClientCut "client_cut",
    PowerOffAt "power_off_at",
    KillLeader "kill_leader",
}

impl FaultKind {
    /// Whether it is over as soon as it is done: such an event lasts no time.
    #[must_use]
    pub fn is_instant(self) -> bool {
        matches!(
            self,
            Self::BitFlip
                | Self::Misdirected
                | Self::Membership
                | Self::LeaderTransfer
                | Self::SnapshotNow
                | Self::ClientDies
        )
    }

    /// Whether it spoils what was durable on a node: what [`super::Atlas::damaged_max`] bounds.
    #[must_use]
    pub fn is_damage(self) -> bool {
        matches!(
            self,
            Self::BitFlip | Self::Misdirected | Self::FileLost | Self::RestoreImage | Self::ReplaceNode
        )
    }
}

impl Fault {
    /// The nodes that are down, or do not answer, while it lasts.
    #[must_use]
    pub fn down(&self) -> Vec<u64> {
        match self {
            Self::Crash { nodes, .. } => nodes.clone(),
            Self::PowerOffAfter { node, .. }
            | Self::PowerOffAt { node, .. }
            | Self::Restart { node }
            | Self::Pause { node }
            | Self::FileLost { node, .. }
            | Self::IndexLost { node, .. }
            | Self::RestoreImage { node, .. }
            | Self::ReplaceNode { node } => vec![*node],
            _ => Vec::new(),
        }
    }

    /// The node whose durable data it spoils.
    #[must_use]
    pub fn damaged(&self) -> Option<u64> {
        match self {
            Self::BitFlip { node, .. }
            | Self::Misdirected { node, .. }
            | Self::FileLost { node, .. }
            | Self::RestoreImage { node, .. }
            | Self::ReplaceNode { node } => Some(*node),
            _ => None,
        }
    }

    /// Lesser faults of the same kind, the least first: what a shrinker tries in its place.
    #[must_use]
    pub fn simpler(&self) -> Vec<Self> {
        let without_one = |nodes: &[u64]| -> Vec<Vec<u64>> {
            let keep = |out: usize| {
                let rest = nodes.iter().enumerate().filter(|(place, _)| *place != out);
                rest.map(|(_, node)| *node).collect()
            };
            if nodes.len() < 2 {
                return Vec::new();
            }
            (0..nodes.len()).map(keep).collect()
        };
        match self {
            Self::Crash { nodes, power_loss } => {
                let fewer = without_one(nodes).into_iter().map(|nodes| Self::Crash {
                    nodes,
                    power_loss: *power_loss,
                });
                let gentler = power_loss.then(|| Self::Crash {
                    nodes: nodes.clone(),
                    power_loss: false,
                });
                fewer.chain(gentler).collect()
            }
            Self::OneWay { from, to } => {
                let less_from = without_one(from).into_iter().map(|from| (from, to.clone()));
                let less_to = without_one(to).into_iter().map(|to| (from.clone(), to));
                less_from
                    .chain(less_to)
                    .map(|(from, to)| Self::OneWay { from, to })
                    .collect()
            }
            Self::RestoreImage { node, .. }
            | Self::ReplaceNode { node }
            | Self::PowerOffAfter { node, .. }
            | Self::PowerOffAt { node, .. } => {
                vec![Self::Crash {
                    nodes: vec![*node],
                    power_loss: true,
                }]
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What happens to a datagram on a link while some faults last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Nothing gets through.
    pub cut: bool,
    /// Lost, of a thousand.
    pub loss_permille: u16,
    /// Doubled, of a thousand.
    pub duplicate_permille: u16,
    /// Overtaken, of a thousand.
    pub reorder_permille: u16,
    /// How late an overtaken one comes at most.
    pub reorder_by: Duration,
    /// Added to every one, at least.
    pub delay_min: Duration,
    /// Added to every one, at most.
    pub delay_max: Duration,
}

impl Link {
    /// The link from one node to another while these faults last. Cuts add up, of the rest the worst counts.
    #[must_use]
    pub fn under<'a>(faults: impl IntoIterator<Item = &'a Fault>, from: u64, to: u64) -> Self {
        let mut link = Self::default();
        for fault in faults {
            match fault {
                Fault::Partition { groups } => {
                    let group_of = |node| groups.iter().position(|group| group.contains(&node));
                    if let (Some(one), Some(other)) = (group_of(from), group_of(to)) {
                        link.cut |= one != other;
                    }
                }
                Fault::OneWay {
                    from: senders,
                    to: receivers,
                } => {
                    link.cut |= senders.contains(&from) && receivers.contains(&to);
                }
                Fault::Bridge { left, right } => {
                    link.cut |= left.contains(&from) && right.contains(&to);
                    link.cut |= right.contains(&from) && left.contains(&to);
                }
                Fault::Loss { links, permille } if links.contain(from, to) => {
                    link.loss_permille = link.loss_permille.max(*permille);
                }
                Fault::Duplicate { links, permille } if links.contain(from, to) => {
                    link.duplicate_permille = link.duplicate_permille.max(*permille);
                }
                Fault::Reorder { links, permille, by } if links.contain(from, to) => {
                    link.reorder_permille = link.reorder_permille.max(*permille);
                    link.reorder_by = link.reorder_by.max(*by);
                }
                Fault::Delay { links, min, max } if links.contain(from, to) => {
                    link.delay_min = link.delay_min.max(*min);
                    link.delay_max = link.delay_max.max(*max);
                }
                Fault::SlowNode { node, by } if *node == to => {
                    link.delay_min = link.delay_min.max(*by);
                    link.delay_max = link.delay_max.max(*by);
                }
                _ => {}
            }
        }
        link
    }
}
