//! Looks at the replicas while a run goes on: who leads, whose snapshots and logs change. What is rare is counted and noted.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::book::Book;
use crate::host::Host;
use crate::trace::Trace;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(20);
/// So long after a message's bytes became durable somewhere its delivery counts as under way.
const DELIVERY: Duration = Duration::from_millis(100);

/// What was seen last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    next: Duration,
    /// By group: the newest term with a leader, and who that is.
    leaders: BTreeMap<u32, (u64, u64)>,
    /// By group: the entry of the last change of the members.
    members: BTreeMap<u32, u64>,
    /// By machine, its life and group.
    replicas: BTreeMap<(u64, u64, u32), Reach>,
    receipts: u64,
    delivering_until: Duration,
}

/// Up to where snapshot and purged log reach.
type Reach = (Option<u64>, Option<u64>);

impl Watch {
    /// Looks, if it is time to.
    pub(super) fn look(&mut self, now: Duration, hosts: &[Host], book: &Book, trace: &Trace) {
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        let receipts: u64 = hosts.iter().map(Host::receipts).sum();
        if receipts > self.receipts {
            self.receipts = receipts;
            self.delivering_until = now + DELIVERY;
        }
        for host in hosts {
            let Some(running) = host.running() else { continue };
            for group in running.groups.list() {
                let status = group.status();
                let number = status.group.0;
                if group.is_leader() {
                    self.leads(now, host, number, status.term, book, trace);
                }
                let members = self.members.entry(number).or_insert(status.membership.index);
                if status.membership.index > *members {
                    *members = status.membership.index;
                    book.count("branch.membership_change");
                    let voters: Vec<u64> = status.membership.voters.iter().map(|node| node.0).collect();
                    trace.note("run", "members", &format!("group {number}: voters {voters:?}"), &[]);
                }
                let key = (host.number(), host.lives(), number);
                let (snapshot, purged) = (status.snapshot, status.purged);
                let seen = self.replicas.entry(key).or_insert((snapshot, purged));
                if snapshot > seen.0 {
                    seen.0 = snapshot;
                    book.count("branch.snapshot_made_or_installed");
                }
                if purged > seen.1 {
                    seen.1 = purged;
                    book.count("branch.log_purged");
                }
            }
        }
    }

    fn leads(&mut self, now: Duration, host: &Host, group: u32, term: u64, book: &Book, trace: &Trace) {
        let known = self.leaders.get(&group).copied();
        if known.is_some_and(|(newest, _)| newest >= term) {
            return;
        }
        self.leaders.insert(group, (term, host.number()));
        let text = format!("group {group}: {} in term {term}", host.name());
        trace.note("run", "leader", &text, &[]);
        if known.is_some_and(|(_, node)| node != host.number()) {
            book.count("branch.leader_change");
            if now < self.delivering_until {
                book.count("branch.leader_change_in_delivery");
            }
        }
    }
}
