//! How faults are done, and undone.

use std::time::Duration;

use core_types::{Entropy, GroupId, NodeId};
use oracle::schedule::{Change, DiskOp, Fault, Moment, Step, Stored};
use platform::{CallClass, Delay, Effect, FaultRule, RuleId};

use super::Run;
use super::administrator::{Administrator, Task};
use super::found::Slot;
use crate::host::{Control, Host};
use crate::site::Standing;
use crate::tails;

impl Run {
    /// Nodes whose power went by itself: their tasks are dropped, and their disks lose what they lose.
    pub(super) fn bury(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host]) {
        for host in hosts {
            if host.is_trapped() {
                host.remove_trap();
                self.book.count("fault.trapped");
                self.kill(sim, host, true);
                self.trace.note(&host.name(), "trapped", "", &[]);
            }
            if host.disk().is_powered_off() && sim.is_host_running(host.name()) {
                self.kill(sim, host, true);
                self.trace.note(&host.name(), "buried", "", &[]);
            }
        }
    }

    /// The machine's process ends at once, if there is one.
    fn kill(&self, sim: &mut turmoil::Sim<'_>, host: &Host, power_loss: bool) {
        host.died(power_loss, &self.entropy);
        if sim.is_host_running(host.name()) {
            sim.crash(host.name());
        }
    }

    pub(super) fn start(&self, sim: &mut turmoil::Sim<'_>, host: &Host) {
        if !sim.is_host_running(host.name()) && !host.is_removed() {
            host.died(false, &self.entropy);
            sim.bounce(host.name());
        }
    }

    pub(super) fn take(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], step: Step) {
        let event = |place: usize| self.plan.schedule.events.get(place).cloned();
        match step {
            Step::Begin(place) => {
                let Some(event) = event(place) else { return };
                self.trace.note("run", "begins", &event.to_string(), &[]);
                self.book.count(&format!("fault.{}", event.fault.kind()));
                if !self.makes_sense(&event.fault) {
                    self.book.count("fault.passed_over");
                    return;
                }
                let rule = self.begin(sim, hosts, place, &event.fault);
                if !event.lasts.is_zero() {
                    self.active.insert(place, (event.fault, rule));
                }
            }
            Step::End(place) => {
                if let Some((fault, rule)) = self.active.remove(&place) {
                    self.trace.note("run", "ends", fault.kind().name(), &[]);
                    self.end(sim, hosts, place, &fault, rule);
                }
            }
            Step::Heal => {
                for (place, (fault, rule)) in std::mem::take(&mut self.active) {
                    self.end(sim, hosts, place, &fault, rule);
                }
                for host in hosts {
                    host.disk().heal();
                    self.start(sim, host);
                }
            }
        }
        self.inspect(|inspect| inspect.fault(sim.elapsed(), self.active.len()));
        self.weather
            .set(self.active.values().map(|(fault, _)| fault.clone()).collect());
        let machines: Vec<u64> = hosts.iter().map(Host::number).collect();
        let faults = self.active.values().map(|(fault, _)| fault);
        self.links.set(sim, faults, &machines, &self.names);
    }

    /// Whether it can be done as things are: machines that come and go are not there at any time.
    fn makes_sense(&self, fault: &Fault) -> bool {
        let is = |machine: &u64, standings: &[Standing]| {
            self.site
                .standing(*machine)
                .is_some_and(|standing| standings.contains(&standing))
        };
        match fault {
            Fault::ReplaceNode { node } => is(node, &[Standing::Member]) && self.site.claim(*node),
            Fault::Membership { change } => match change {
                Change::Add(node) => is(node, &[Standing::Spare, Standing::Gone]) && self.site.claim(*node),
                Change::Drain(node) => is(node, &[Standing::Member]) && self.site.claim(*node),
                Change::Remove(node) => is(node, &[Standing::Member, Standing::Drained]) && self.site.claim(*node),
                Change::Move { .. } => true,
            },
            _ => true,
        }
    }

    /// Leaders that were to die when the bytes of a message are durable on two nodes.
    pub(super) fn doom(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host]) {
        let ready: Vec<usize> = self
            .doomed
            .iter()
            .filter(|(_, before)| {
                let more = hosts
                    .iter()
                    .zip(before.iter())
                    .filter(|(host, before)| host.receipts() > **before);
                more.count() >= 2
            })
            .map(|(place, _)| *place)
            .collect();
        for place in ready {
            self.doomed.remove(&place);
            if let Some((Fault::KillLeader { group, power_loss, .. }, _)) = self.active.get(&place) {
                self.kill_leader(sim, hosts, place, *group, *power_loss);
            }
        }
    }

    fn kill_leader(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], place: usize, group: u32, power_loss: bool) {
        if let Some(host) = leader(hosts, group) {
            self.trace.note(&host.name(), "leader killed", &group.to_string(), &[]);
            self.book.count("fault.leader_killed");
            self.kill(sim, host, power_loss);
            self.victims.insert(place, host.number());
        }
    }

    /// Has an administrator do something, in the background.
    fn administer(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], place: usize, task: Task) {
        let ended = Slot::default();
        self.admins.push(ended.clone());
        let administrator = Administrator {
            site: self.site.clone(),
            hosts: hosts.to_vec(),
            book: self.book.clone(),
            trace: self.trace.clone(),
        };
        sim.client(format!("admin-{place}"), async move {
            administrator.work(task, ended).await;
            Ok(())
        });
    }

    fn change(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], place: usize, change: Change) {
        if let Change::Add(machine) = change
            && self.site.standing(machine) == Some(Standing::Gone)
            && let Some(host) = hosts.iter().find(|host| host.number() == machine)
        {
            self.kill(sim, host, false);
            host.wipe();
            self.start(sim, host);
        }
        self.administer(sim, hosts, place, Task::Change(change));
    }

    fn begin(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], place: usize, fault: &Fault) -> Option<RuleId> {
        let host = |node: &u64| &hosts[usize::try_from(node - 1).unwrap_or(0)];
        match fault {
            Fault::Crash { nodes, power_loss } => {
                for node in nodes {
                    self.kill(sim, host(node), *power_loss);
                }
            }
            Fault::PowerOffAfter { node, calls } => host(node).disk().power_off_after(*calls),
            Fault::Restart { node } => host(node).control(Control::Stop),
            Fault::ClockJump { node, millis } => host(node).set_skew(*millis),
            Fault::ClockDrift { node, ppm } => host(node).set_drift(*ppm, sim.elapsed()),
            Fault::DiskSlow { node, max } => host(node).disk().set_delays(Some(Delay {
                min: Duration::ZERO,
                max: *max,
            })),
            Fault::DiskFrozen { node } | Fault::Pause { node } => host(node).disk().freeze(),
            Fault::DiskFull { node } => {
                let disk = host(node).disk();
                let entropy: &dyn Entropy = &self.entropy;
                disk.set_capacity(Some(disk.used_bytes() + entropy.below(100_000)));
            }
            Fault::DiskEio { node, op, permille } => {
                let rule = FaultRule::always(Effect::Eio).on(classes(*op)).permille(*permille);
                return Some(host(node).disk().add_rule(rule));
            }
            Fault::ShortRead { node } => {
                return Some(
                    host(node)
                        .disk()
                        .add_rule(FaultRule::always(Effect::ShortRead).permille(300)),
                );
            }
            Fault::BitFlip { node, what } => {
                let entropy: &dyn Entropy = &self.entropy;
                let before = host(node).disk().image();
                let flipped = host(node).disk().flip_bit_under(prefix(*what), entropy.below(u64::MAX));
                self.book.found(tails::lost(*node, &before, &host(node).disk().image()));
                self.trace.note("run", "flipped", &format!("{flipped:?}"), &[]);
            }
            Fault::Misdirected { node, what } => {
                let rule = FaultRule::always(Effect::Misdirected).under(prefix(*what)).times(1);
                return Some(host(node).disk().add_rule(rule));
            }
            Fault::FileLost { node, what, cut } => {
                let host = host(node);
                self.kill(sim, host, false);
                self.lose_file(host, *what, *cut);
            }
            Fault::IndexLost { node, broken } => {
                self.kill(sim, host(node), false);
                host(node).lose_index(*broken, &self.entropy);
            }
            Fault::RestoreImage { node, age } => {
                self.kill(sim, host(node), false);
                host(node).restore(sim.elapsed(), *age);
            }
            Fault::LeaderTransfer { group, to } => {
                if let (Some(leader), Some(to)) = (leader(hosts, *group), host(to).node_id()) {
                    leader.control(Control::Transfer(GroupId(*group), NodeId(to)));
                }
            }
            Fault::PowerOffAt { node, what, op } => host(node).set_trap(prefix(*what), classes(*op)),
            Fault::KillLeader {
                group,
                when,
                power_loss,
            } => match when {
                Moment::Now => self.kill_leader(sim, hosts, place, *group, *power_loss),
                Moment::Receipts => {
                    self.doomed.insert(place, hosts.iter().map(Host::receipts).collect());
                }
            },
            Fault::ReplaceNode { node } => {
                let host = host(node);
                self.kill(sim, host, true);
                if let Some(old) = host.node_id() {
                    self.victims.insert(place, old);
                }
                host.wipe();
            }
            Fault::ClientDies { client, during } => {
                if let Some(world) = &self.world {
                    world.doom(*client, *during);
                }
            }
            Fault::Membership { change } => self.change(sim, hosts, place, *change),
            Fault::SnapshotNow { node } => host(node).control(Control::Snapshot),
            // The network looks at the active faults by itself.
            _ => {}
        }
        None
    }

    fn lose_file(&self, host: &Host, what: Stored, cut: bool) {
        let entropy: &dyn Entropy = &self.entropy;
        let paths: Vec<String> = host
            .disk()
            .paths()
            .into_iter()
            .filter(|path| path.starts_with(prefix(what)))
            .collect();
        let Some(path) = paths.get(usize::try_from(entropy.below(paths.len() as u64)).unwrap_or(0)) else {
            return;
        };
        self.trace.note("run", "lost file", path, &[]);
        if cut {
            host.disk().truncate_at_rest(path, entropy.below(4096));
        } else {
            host.disk().remove_at_rest(path);
        }
    }

    fn end(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], place: usize, fault: &Fault, rule: Option<RuleId>) {
        let host = |node: &u64| &hosts[usize::try_from(node - 1).unwrap_or(0)];
        for node in fault.down() {
            let host = host(&node);
            host.remove_trap();
            // The power is on again, whether it went off meanwhile or not; and who stops for too long is killed.
            let power_loss = matches!(fault, Fault::PowerOffAfter { .. });
            if (power_loss || matches!(fault, Fault::Restart { .. })) && sim.is_host_running(host.name()) {
                self.kill(sim, host, power_loss);
            }
            self.start(sim, host);
        }
        match fault {
            Fault::ClockJump { node, .. } => host(node).set_skew(0),
            Fault::ClockDrift { node, .. } => host(node).set_drift(0, sim.elapsed()),
            Fault::DiskSlow { node, .. } => host(node).disk().set_delays(None),
            Fault::DiskFrozen { node } | Fault::Pause { node } => {
                let still = |(fault, _): &(Fault, Option<RuleId>)| matches!(fault, Fault::DiskFrozen { node: other } | Fault::Pause { node: other } if other == node);
                if !self.active.values().any(still) {
                    host(node).disk().thaw();
                }
            }
            Fault::KillLeader { .. } => {
                self.doomed.remove(&place);
                if let Some(victim) = self.victims.remove(&place) {
                    self.start(sim, host(&victim));
                }
            }
            Fault::ReplaceNode { node } => match self.victims.remove(&place) {
                Some(old) => self.administer(sim, hosts, place, Task::Replace(*node, old)),
                None => self.site.free(*node),
            },
            Fault::DiskFull { node } => host(node).disk().set_capacity(None),
            Fault::DiskEio { node, .. } | Fault::ShortRead { node } | Fault::Misdirected { node, .. } => {
                if let Some(rule) = rule {
                    host(node).disk().remove_rule(rule);
                }
            }
            _ => {}
        }
    }
}

/// Where such data is. The node's own few files (its key, its members) have no copies: a node without them is a new one.
fn prefix(what: Stored) -> &'static str {
    match what {
        Stored::Any => "blobs/",
        other => other.path_prefix(),
    }
}

fn classes(op: DiskOp) -> &'static [CallClass] {
    match op {
        DiskOp::Read => &[CallClass::Read],
        DiskOp::Write => &[CallClass::Write],
        DiskOp::Sync => &[CallClass::Sync, CallClass::SyncDir],
    }
}

/// Who leads a group, as it thinks itself.
fn leader(hosts: &[Host], group: u32) -> Option<&Host> {
    hosts.iter().find(|host| {
        host.running()
            .and_then(|running| running.groups.group(GroupId(group)))
            .is_some_and(|group| group.is_leader())
    })
}
