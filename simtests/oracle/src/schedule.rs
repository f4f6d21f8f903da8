//! Schedules: which faults hit a run, when, and for how long; who the clients are.
//!
//! A schedule is data, complete in itself: the harness draws nothing more that decides what happens to whom, so that one
//! event can be taken away without changing the others. Node numbers are machines, from 1: a machine whose node was
//! replaced keeps its number under its new node id.

mod fault;
mod generate;
mod shrink;
mod text;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::time::Time;

pub use fault::{Change, DiskOp, During, Fault, FaultKind, Link, Links, Moment, Stored};
pub use shrink::{Shrunk, shrink};
pub use text::ParseError;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Where it came from; what the harness draws itself (latencies, which bit) comes from it too.
    pub seed: u64,
    /// The machines that are members at the start.
    pub nodes: Vec<u64>,
    /// How long the run is.
    pub duration: Duration,
    /// When everything is healed: from then on liveness holds.
    pub heal: Time,
    /// Settings of the run by name, such as the number of groups.
    pub knobs: BTreeMap<String, u64>,
    /// The clients.
    pub clients: Vec<ClientPlan>,
    /// The faults, by time.
    pub events: Vec<Event>,
}

/// One fault at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it begins.
    pub at: Time,
    /// How long it lasts; nothing for one that is over at once.
    pub lasts: Duration,
    /// What.
    pub fault: Fault,
}

impl Event {
    /// When it ends.
    #[must_use]
    pub fn end(&self) -> Time {
        self.at.plus(self.lasts)
    }
}

/// A client of a run. What it does in detail is drawn from its own seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// Its number.
    pub id: u32,
    /// What it draws from.
    pub seed: u64,
    /// Whose mail it works on, from 1.
    pub user: u32,
    /// The node it connects to first.
    pub node: u64,
    /// What it does.
    pub role: ClientRole,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientRole {
    /// Sends mail by SMTP or LMTP.
    Deliver,
    /// IMAP: appends, flags, copies, moves, expunges, makes and deletes mailboxes.
    Write,
    /// IMAP: selects and reads.
    Read,
    /// IMAP: idles.
    Idle,
    /// POP3: lists, retrieves, deletes.
    Pop,
}

impl ClientRole {
    /// All of them.
    pub const ALL: &[Self] = &[Self::Deliver, Self::Write, Self::Read, Self::Idle, Self::Pop];

    /// The name, as schedules write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Write => "write",
            Self::Read => "read",
            Self::Idle => "idle",
            Self::Pop => "pop",
        }
    }
}

/// One step of a run; the number is the event's place in [`Schedule::events`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The fault ends.
    End(usize),
    /// The fault begins.
    Begin(usize),
    /// All faults are over: what is down starts, links and disks and clocks are as they should be.
    Heal,
}

impl Schedule {
    /// The steps of the run in order of time; at one time ends come before beginnings. A fault that is over at once has no
    /// end.
    #[must_use]
    pub fn steps(&self) -> Vec<(Time, Step)> {
        let mut steps = vec![(self.heal, Step::Heal)];
        for (place, event) in self.events.iter().enumerate() {
            steps.push((event.at, Step::Begin(place)));
            if !event.lasts.is_zero() {
                steps.push((event.end(), Step::End(place)));
            }
        }
        steps.sort();
        steps
    }

    /// A setting; the given value when the schedule does not say.
    #[must_use]
    pub fn knob(&self, name: &str, default: u64) -> u64 {
        self.knobs.get(name).copied().unwrap_or(default)
    }
}

/// What a generator may do: the shape of runs, and how much damage must be survivable.
#[derive(Clone, Debug)]
pub struct Atlas {
    /// Machines that are members at the start.
    pub nodes: Vec<u64>,
    /// Machines that may be added.
    pub spares: Vec<u64>,
    /// Mailbox groups, 1 to this, for what concerns one group; 0 is the directory's.
    pub groups: u32,
    /// Users, 1 to this.
    pub users: u32,
    /// Most clients; at least one.
    pub clients_max: u32,
    /// How long a run is.
    pub duration: Duration,
    /// No fault before this: the cluster starts, and there is something to lose.
    pub warm_up: Duration,
    /// No fault in so much time at the end.
    pub calm: Duration,
    /// Most events in a run.
    pub events_max: usize,
    /// The kinds that a run may have.
    pub kinds: BTreeSet<FaultKind>,
    /// On how many nodes durable data may be spoilt at a time. A minority, or mail is lost by right.
    pub damaged_max: usize,
    /// How long after its damage ended a node counts as whole again: longer than repair takes. `None` for never.
    pub repair: Option<Duration>,
    /// The fewest members that changes may leave.
    pub members_min: usize,
    /// Settings: name, least, most. Half of the time one of the extremes is taken.
    pub knobs: Vec<(String, u64, u64)>,
}

impl Atlas {
    /// A site of so many nodes, runs of a minute, every kind of fault; damage on a fixed minority.
    #[must_use]
    pub fn site(nodes: u64) -> Self {
        Self {
            nodes: (1..=nodes).collect(),
            spares: Vec::new(),
            groups: 2,
            users: 3,
            clients_max: 6,
            duration: Duration::from_secs(60),
            warm_up: Duration::from_secs(3),
            calm: Duration::from_secs(20),
            events_max: 40,
            kinds: FaultKind::ALL.iter().copied().collect(),
            damaged_max: usize::try_from(nodes.saturating_sub(1) / 2).unwrap_or(0),
            repair: None,
            members_min: 3,
            knobs: Vec::new(),
        }
    }

    /// Only these kinds.
    #[must_use]
    pub fn only(mut self, kinds: &[FaultKind]) -> Self {
        self.kinds = kinds.iter().copied().collect();
        self
    }

    /// All but these kinds.
    #[must_use]
    pub fn without(mut self, kinds: &[FaultKind]) -> Self {
        self.kinds.retain(|kind| !kinds.contains(kind));
        self
    }

    /// When faults are over.
    #[must_use]
    pub fn heal(&self) -> Time {
        Time::after(self.duration.saturating_sub(self.calm))
    }

    /// Whether a system has to survive this schedule: everything ends before the calm, no more nodes are damaged at a time
    /// than may be, no machine is taken down twice at a time.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self, schedule: &Schedule) -> Result<(), String> {
        for (place, event) in schedule.events.iter().enumerate() {
            if event.end() > schedule.heal {
                return Err(format!("\"{event}\" does not end before {}", schedule.heal));
            }
            if !self.kinds.contains(&event.fault.kind()) {
                return Err(format!("\"{event}\" is of a kind that is off"));
            }
            let earlier = schedule.events.get(..place).unwrap_or_default();
            let mut damaged: BTreeSet<u64> = earlier
                .iter()
                .filter(|other| self.is_damaged_at(other, event.at))
                .filter_map(|other| other.fault.damaged())
                .collect();
            damaged.extend(event.fault.damaged());
            if event.fault.damaged().is_some() && damaged.len() > self.damaged_max {
                return Err(format!("\"{event}\" damages one node too many: {damaged:?}"));
            }
            let down = event.fault.down();
            for other in earlier.iter().filter(|other| other.end() > event.at) {
                if other.fault.down().iter().any(|node| down.contains(node)) {
                    return Err(format!("\"{event}\" takes down what \"{other}\" did"));
                }
            }
        }
        Ok(())
    }

    /// Whether a node that an event damaged still counts as damaged.
    fn is_damaged_at(&self, event: &Event, at: Time) -> bool {
        self.repair.is_none_or(|repair| event.end().plus(repair) > at)
    }
}
