//! Swarm: each seed turns a random subset of the kinds of faults on, each at a random rate, so that over many seeds also
//! rare mixtures come up, and each kind alone.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::{Change, DiskOp, During, Fault, FaultKind, Links, Moment, Stored};
use super::{Atlas, ClientPlan, ClientRole, Event, Schedule};
use crate::rng::Rng;
use crate::time::Time;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY_MILLIS: u64 = 86_400_000;

impl Atlas {
    /// The schedule of a seed: the same for the same seed and atlas. [`Atlas::check`] holds for it.
    #[must_use]
    pub fn schedule(&self, seed: u64) -> Schedule {
        let mut schedule = Schedule {
            seed,
            nodes: self.nodes.clone(),
            duration: self.duration,
            heal: self.heal(),
            clients: self.clients(seed),
            ..Schedule::default()
        };
        for (name, least, most) in &self.knobs {
            let mut rng = Rng::named(seed, &format!("knob {name}"));
            let value = match rng.below(4) {
                0 => *least,
                1 => *most,
                _ => rng.between(*least, *most),
            };
            schedule.knobs.insert(name.clone(), value);
        }
        let mut drawn = self.draw_events(seed);
        drawn.sort_by_key(|event| event.at);
        let mut members: BTreeSet<u64> = self.nodes.iter().copied().collect();
        for event in drawn {
            if schedule.events.len() == self.events_max {
                break;
            }
            if !self.keeps_members(&mut members.clone(), &event.fault) {
                continue;
            }
            schedule.events.push(event);
            if self.check(&schedule).is_err() {
                schedule.events.pop();
            } else if let Some(event) = schedule.events.last() {
                self.keeps_members(&mut members, &event.fault);
            }
        }
        schedule
    }

    fn clients(&self, seed: u64) -> Vec<ClientPlan> {
        let mut rng = Rng::named(seed, "clients");
        let most = u64::from(self.clients_max.max(1));
        let count = rng.between(most.min(3), most);
        let client = |id| ClientPlan {
            id: u32::try_from(id).unwrap_or(u32::MAX),
            seed: rng.word(),
            user: u32::try_from(rng.between(1, u64::from(self.users.max(1)))).unwrap_or(1),
            node: rng.pick(&self.nodes).copied().unwrap_or(1),
            // Somebody has to bring mail, to change it, and to look at it.
            role: match id {
                1 => ClientRole::Deliver,
                2 => ClientRole::Write,
                3 => ClientRole::Read,
                _ => rng.pick(ClientRole::ALL).copied().unwrap_or(ClientRole::Read),
            },
        };
        (1..=count).map(client).collect()
    }

    fn draw_events(&self, seed: u64) -> Vec<Event> {
        let mut swarm = Rng::named(seed, "swarm");
        // One run in twenty has no fault at all: what fails there fails without help.
        if swarm.chance(50) {
            return Vec::new();
        }
        let most = swarm.between(150, 800);
        let mut on: BTreeSet<FaultKind> = BTreeSet::new();
        for kind in FaultKind::ALL {
            // Drawn for each kind there is, so that turning one off leaves the others as they were.
            if swarm.chance(most) && self.kinds.contains(kind) {
                on.insert(*kind);
            }
        }
        if on.is_empty() {
            let kinds: Vec<FaultKind> = self.kinds.iter().copied().collect();
            on.extend(swarm.pick(&kinds));
        }
        on.into_iter().flat_map(|kind| self.draw_kind(seed, kind)).collect()
    }

    /// The events of one kind: a Poisson process with a rate of its own.
    fn draw_kind(&self, seed: u64, kind: FaultKind) -> Vec<Event> {
        let mut rng = Rng::named(seed, kind.name());
        let span = self.heal().since_start().saturating_sub(self.warm_up);
        let mean = rng.duration(2 * SECOND, span.max(3 * SECOND));
        let lasts_max = rng.duration(200 * MILLISECOND, span.mul_f64(0.7).max(SECOND));
        let mut events = Vec::new();
        let mut at = Time::after(self.warm_up);
        // The first comes soon enough that a kind that is on is seen.
        at = at.plus(Duration::from_micros(rng.below(Time::after(span.min(mean)).0)));
        while at < self.heal() && events.len() < self.events_max {
            if let Some(fault) = self.draw_fault(kind, &mut rng) {
                let left = self.heal().since_start().saturating_sub(at.since_start());
                let lasts = match kind.is_instant() {
                    true => Duration::ZERO,
                    false => rng.duration(50 * MILLISECOND, lasts_max).min(left),
                };
                events.push(Event { at, lasts, fault });
            }
            let gap = mean.mul_f64(exponential(&mut rng)).max(MILLISECOND);
            at = at.plus(gap);
        }
        events
    }

    fn draw_fault(&self, kind: FaultKind, rng: &mut Rng) -> Option<Fault> {
        let node = *rng.pick(&self.nodes)?;
        Some(match kind {
            FaultKind::Crash => {
                let count_max = if rng.chance(700) { 1 } else { self.nodes.len() };
                let nodes = rng.some_of(&self.nodes, count_max);
                let nodes = if rng.chance(100) { self.nodes.clone() } else { nodes };
                let power_loss = rng.chance(600);
                Fault::Crash { nodes, power_loss }
            }
            FaultKind::PowerOffAfter => Fault::PowerOffAfter {
                node,
                calls: rng.below(60),
            },
            FaultKind::Restart => Fault::Restart { node },
            FaultKind::Pause => Fault::Pause { node },
            FaultKind::Partition | FaultKind::OneWay | FaultKind::Bridge => self.draw_cut(kind, rng)?,
            FaultKind::Loss => Fault::Loss {
                links: self.draw_links(rng),
                permille: permille(rng, 300),
            },
            FaultKind::Duplicate => Fault::Duplicate {
                links: self.draw_links(rng),
                permille: permille(rng, 500),
            },
            FaultKind::Reorder => Fault::Reorder {
                links: self.draw_links(rng),
                permille: permille(rng, 300),
                by: rng.duration(MILLISECOND, SECOND),
            },
            FaultKind::Delay => {
                let min = rng.duration(MILLISECOND, 300 * MILLISECOND);
                let max = min + rng.duration(MILLISECOND, SECOND);
                let links = self.draw_links(rng);
                Fault::Delay { links, min, max }
            }
            FaultKind::SlowNode => Fault::SlowNode {
                node,
                by: rng.duration(5 * MILLISECOND, SECOND),
            },
            FaultKind::ClockJump => {
                let millis = i64::try_from(rng.between(1, 17)).unwrap_or(1);
                let day = i64::try_from(rng.below(DAY_MILLIS)).unwrap_or(0);
                let size = (1_i64 << millis).max(if rng.chance(300) { day } else { 0 });
                let millis = if rng.chance(500) { size } else { -size };
                Fault::ClockJump { node, millis }
            }
            FaultKind::ClockDrift => Fault::ClockDrift {
                node,
                ppm: i64::try_from(rng.below(100_001)).unwrap_or(0) - 50_000,
            },
            _ => return self.draw_stored(kind, node, rng),
        })
    }

    fn draw_stored(&self, kind: FaultKind, node: u64, rng: &mut Rng) -> Option<Fault> {
        let what = *rng.pick(&[
            Stored::Log,
            Stored::Log,
            Stored::Blob,
            Stored::BlobJournal,
            Stored::Snapshot,
            Stored::Manifest,
            Stored::Any,
        ])?;
        Some(match kind {
            FaultKind::DiskSlow => Fault::DiskSlow {
                node,
                max: rng.duration(MILLISECOND, 2 * SECOND),
            },
            FaultKind::DiskFrozen => Fault::DiskFrozen { node },
            FaultKind::DiskFull => Fault::DiskFull { node },
            FaultKind::DiskEio => Fault::DiskEio {
                node,
                op: *rng.pick(&[DiskOp::Read, DiskOp::Write, DiskOp::Sync])?,
                permille: permille(rng, 1000),
            },
            FaultKind::ShortRead => Fault::ShortRead { node },
            FaultKind::BitFlip => Fault::BitFlip { node, what },
            FaultKind::Misdirected => Fault::Misdirected { node, what },
            FaultKind::FileLost => Fault::FileLost {
                node,
                what,
                cut: rng.chance(500),
            },
            FaultKind::IndexLost => Fault::IndexLost {
                node,
                broken: rng.chance(300),
            },
            FaultKind::RestoreImage => Fault::RestoreImage {
                node,
                age: rng.duration(100 * MILLISECOND, 30 * SECOND),
            },
            FaultKind::ReplaceNode => Fault::ReplaceNode { node },
            FaultKind::SnapshotNow => Fault::SnapshotNow { node },
            FaultKind::LeaderTransfer => Fault::LeaderTransfer {
                group: u32::try_from(rng.between(0, u64::from(self.groups))).unwrap_or(0),
                to: node,
            },
            FaultKind::Membership => Fault::Membership {
                change: self.draw_change(node, rng)?,
            },
            FaultKind::ClientDies => Fault::ClientDies {
                client: u32::try_from(rng.between(1, u64::from(self.clients_max.max(1)))).unwrap_or(1),
                during: *rng.pick(&[During::Data, During::Append, During::Idle])?,
            },
            FaultKind::ClientCut => {
                let clients: Vec<u64> = (1..=u64::from(self.clients_max.max(1))).collect();
                let clients = rng.some_of(&clients, clients.len());
                let nodes = rng.some_of(&self.nodes, self.nodes.len());
                Fault::ClientCut { clients, nodes }
            }
            FaultKind::PowerOffAt => Fault::PowerOffAt {
                node,
                what,
                op: *rng.pick(&[DiskOp::Write, DiskOp::Sync])?,
            },
            FaultKind::KillLeader => Fault::KillLeader {
                group: u32::try_from(rng.between(0, u64::from(self.groups))).unwrap_or(0),
                when: *rng.pick(&[Moment::Now, Moment::Receipts])?,
                power_loss: rng.chance(500),
            },
            _ => return None,
        })
    }

    fn draw_change(&self, node: u64, rng: &mut Rng) -> Option<Change> {
        Some(match rng.below(4) {
            0 => Change::Add(*rng.pick(&self.spares)?),
            1 => Change::Drain(node),
            2 => Change::Remove(node),
            _ => {
                let all: Vec<u64> = self.nodes.iter().chain(&self.spares).copied().collect();
                let to = *rng.pick(&all)?;
                if to == node {
                    return None;
                }
                let group = u32::try_from(rng.between(1, u64::from(self.groups.max(1)))).unwrap_or(1);
                Change::Move { group, from: node, to }
            }
        })
    }

    fn draw_cut(&self, kind: FaultKind, rng: &mut Rng) -> Option<Fault> {
        let mut nodes = self.nodes.clone();
        if nodes.len() < 2 {
            return None;
        }
        rng.shuffle(&mut nodes);
        let cut = usize::try_from(rng.between(1, nodes.len() as u64 - 1)).unwrap_or(1);
        let (left, right) = nodes.split_at_checked(cut)?;
        let (mut left, mut right) = (left.to_vec(), right.to_vec());
        left.sort_unstable();
        right.sort_unstable();
        Some(match kind {
            FaultKind::OneWay => Fault::OneWay { from: left, to: right },
            FaultKind::Bridge => {
                // The bridge is one of the larger side, so that both sides keep somebody.
                let longer = if left.len() > right.len() {
                    &mut left
                } else {
                    &mut right
                };
                if longer.len() < 2 {
                    return None;
                }
                longer.pop();
                Fault::Bridge { left, right }
            }
            _ if rng.chance(150) => Fault::Partition {
                groups: nodes.into_iter().map(|node| vec![node]).collect(),
            },
            _ => Fault::Partition {
                groups: vec![left, right],
            },
        })
    }

    fn draw_links(&self, rng: &mut Rng) -> Links {
        let from = rng.pick(&self.nodes).copied().unwrap_or(1);
        let to = rng.pick(&self.nodes).copied().unwrap_or(1);
        match rng.below(3) {
            0 => Links::All,
            1 => Links::Of(from),
            _ if from == to => Links::Of(from),
            _ => Links::Between(from, to),
        }
    }

    /// Applies a change of members; whether it makes sense and leaves enough of them.
    fn keeps_members(&self, members: &mut BTreeSet<u64>, fault: &Fault) -> bool {
        match fault {
            Fault::Membership { change } => match change {
                Change::Add(node) => members.insert(*node),
                Change::Drain(node) | Change::Remove(node) => members.remove(node) && members.len() >= self.members_min,
                Change::Move { from, to, .. } => members.contains(from) && members.contains(to),
            },
            Fault::LeaderTransfer { to: node, .. } | Fault::ReplaceNode { node } => members.contains(node),
            _ => true,
        }
    }
}

/// Each order of magnitude about equally likely, from 1 to the most.
fn permille(rng: &mut Rng, most: u64) -> u16 {
    let drawn = rng.duration(Duration::from_micros(1), Duration::from_micros(most));
    u16::try_from(drawn.as_micros()).unwrap_or(1)
}

/// Exponentially distributed, mean 1, by steps of 1/1024.
fn exponential(rng: &mut Rng) -> f64 {
    let uniform = (rng.below(1023) + 1) as f64 / 1024.0;
    -uniform.ln()
}
