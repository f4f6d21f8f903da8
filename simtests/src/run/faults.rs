//! How faults are done, and undone.

use std::time::Duration;

use core_types::{Entropy, GroupId, NodeId};
use oracle::schedule::{DiskOp, Fault, Step, Stored};
use platform::{CallClass, Delay, Effect, FaultRule, RuleId};

use super::Run;
use crate::host::{Control, Host};
use crate::tails;

impl Run {
    /// Nodes whose power went by itself: their tasks are dropped, and their disks lose what they lose.
    pub(super) fn bury(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host]) {
        for host in hosts {
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
        if !sim.is_host_running(host.name()) {
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
                self.ledger.book.count(&format!("fault.{}", event.fault.kind()));
                let rule = self.begin(sim, hosts, &event.fault);
                if !event.lasts.is_zero() {
                    self.active.insert(place, (event.fault, rule));
                }
            }
            Step::End(place) => {
                if let Some((fault, rule)) = self.active.remove(&place) {
                    self.trace.note("run", "ends", fault.kind().name(), &[]);
                    self.end(sim, hosts, &fault, rule);
                }
            }
            Step::Heal => {
                for (_, (fault, rule)) in std::mem::take(&mut self.active) {
                    self.end(sim, hosts, &fault, rule);
                }
                for host in hosts {
                    host.disk().heal();
                    self.start(sim, host);
                }
            }
        }
        self.weather
            .set(self.active.values().map(|(fault, _)| fault.clone()).collect());
    }

    fn begin(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], fault: &Fault) -> Option<RuleId> {
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
            Fault::DiskFrozen { node } => host(node).disk().freeze(),
            Fault::DiskFull { node } => {
                let disk = host(node).disk();
                let entropy: &dyn Entropy = &self.entropy;
                disk.set_capacity(Some(disk.used_bytes() + entropy.below(100_000)));
            }
            Fault::DiskEio { node, op, permille } => {
                let classes: &[CallClass] = match op {
                    DiskOp::Read => &[CallClass::Read],
                    DiskOp::Write => &[CallClass::Write],
                    DiskOp::Sync => &[CallClass::Sync, CallClass::SyncDir],
                };
                let rule = FaultRule::always(Effect::Eio).on(classes).permille(*permille);
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
                self.ledger
                    .book
                    .found(tails::lost(*node, &before, &host(node).disk().image()));
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
                for host in hosts {
                    let group = GroupId(*group);
                    let leads = |running: &crate::host::Running| {
                        running.groups.group(group).is_some_and(|group| group.is_leader())
                    };
                    if host.running().is_some_and(|running| leads(&running)) {
                        host.control(Control::Transfer(group, NodeId(*to)));
                    }
                }
            }
            Fault::SnapshotNow { node } => host(node).control(Control::Snapshot),
            // The network looks at the active faults by itself; the rest is not in the atlas.
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

    fn end(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], fault: &Fault, rule: Option<RuleId>) {
        let host = |node: &u64| &hosts[usize::try_from(node - 1).unwrap_or(0)];
        for node in fault.down() {
            let host = host(&node);
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
            Fault::DiskFrozen { node } => host(node).disk().thaw(),
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
