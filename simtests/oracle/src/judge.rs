//! All checks of a run in one place: told what happens while it does, asked at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Violation;
use crate::dump::{AccountCounts, Dump, check_counts, compare};
use crate::history::{History, MailboxKey};
use crate::mail::{self, FinalMessage};
use crate::mailbox;
use crate::numbering::clients::Clients;
use crate::numbering::{Announcements, MailboxView};
use crate::raft::Replicas;
use crate::time::Time;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    /// What clients do and are told.
    pub history: History,
    /// What replicas say of themselves; what it finds goes to [`Judge::found`].
    pub replicas: Replicas,
    announcements: Announcements,
    clients: BTreeMap<MailboxKey, (Time, Clients)>,
    violations: Vec<Violation>,
}

/// What is there when everything is quiet.
#[derive(Clone, Debug, Default)]
pub struct Last {
    /// Every message, as one node shows it.
    pub messages: Vec<FinalMessage>,
    /// What each node holds.
    pub dumps: BTreeMap<u64, Dump>,
    /// The counters of each account, from any node.
    pub accounts: Vec<AccountCounts>,
}

/// The judgement of a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Everything that is wrong.
    pub violations: Vec<Violation>,
    /// Checks of linearizability that were not decided.
    pub gave_up: Vec<String>,
    /// Those that were.
    pub decided: usize,
}

impl Judge {
    /// Nothing happened.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Something was found to be wrong.
    pub fn found(&mut self, violations: impl IntoIterator<Item = Violation>) {
        self.violations.extend(violations);
    }

    /// A mailbox was looked at: the command that confirmed the state began at `began`, and the last of it was read at
    /// `ended`. Looks may overlap.
    pub fn look(&mut self, node: u64, began: Time, ended: Time, view: &MailboxView) {
        let found = self.announcements.observe(node, began, ended, view);
        self.violations.extend(found);
        // Clients do one thing after the other: a look that began before their last one ended is not theirs.
        let (free, clients) = self.clients.entry(view.mailbox.clone()).or_default();
        if began >= *free {
            *free = ended;
            self.violations.extend(clients.sync(node, ended, view));
        }
    }

    /// A machine has another node from now on.
    pub fn replaced(&mut self, node: u64) {
        self.announcements.forget_node(node);
        self.replicas.forget_node(node);
    }

    /// What was found so far, without what only [`Judge::finish`] finds.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// How many violations were found so far, without those that only [`Judge::finish`] finds.
    #[must_use]
    pub fn violation_count(&self) -> usize {
        self.violations.len()
    }

    /// Judges the run. Operations have to end within `bound`; each check of linearizability looks at no more than `budget`
    /// states.
    #[must_use]
    pub fn finish(mut self, now: Time, last: &Last, bound: Duration, budget: usize) -> Report {
        let judgement = mailbox::judge(&self.history, budget);
        self.found(self.history.overdue(now, bound));
        self.found(mail::judge(&self.history, &last.messages));
        self.found(judgement.violations);
        self.found(compare(&last.dumps, 20));
        for account in &last.accounts {
            self.found(check_counts(account));
        }
        Report {
            violations: self.violations,
            gave_up: judgement.gave_up,
            decided: judgement.decided,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Action, Outcome, Token};
    use crate::numbering::ViewMessage;

    fn view(uids: &[u32]) -> MailboxView {
        let message = |uid: &u32| ViewMessage {
            uid: *uid,
            identity: u128::from(*uid),
            flags: crate::history::FlagSet::default(),
            modseq: 0,
            uidl: None,
        };
        MailboxView {
            mailbox: MailboxKey::new(1, "INBOX"),
            uid_validity: 1,
            uid_next: uids.last().map_or(1, |uid| uid + 1),
            highest_modseq: 0,
            messages: uids.iter().map(message).collect(),
            vanished: None,
            forgotten_modseq: 0,
        }
    }

    #[test]
    fn looks_that_overlap_owe_each_other_nothing() {
        let mut judge = Judge::new();
        judge.look(1, Time(10), Time(20), &view(&[1, 2]));
        judge.look(1, Time(5), Time(30), &view(&[1]));
        assert_eq!(judge.violation_count(), 0);
        judge.look(1, Time(21), Time(40), &view(&[1]));
        assert_eq!(judge.violation_count(), 1, "UIDNEXT fell");
        judge.look(2, Time(41), Time(42), &view(&[1]));
        judge.replaced(1);
        judge.look(1, Time(43), Time(44), &view(&[1]));
        assert_eq!(judge.violation_count(), 1);
        judge.look(2, Time(45), Time(46), &view(&[1, 2, 3]));
        judge.look(2, Time(47), Time(48), &view(&[1, 3]));
        judge.look(2, Time(49), Time(50), &view(&[1, 2, 3]));
        assert_eq!(judge.violation_count(), 2, "UID 2 came back");
    }

    #[test]
    fn everything_is_judged_at_the_end() {
        let mut judge = Judge::new();
        let inbox = MailboxKey::new(1, "INBOX");
        let deliver = Action::Deliver {
            to: inbox.clone(),
            token: Token(1),
            digest: [0; 32],
        };
        let op = judge.history.invoke(1, 1, Time(1), deliver);
        judge.history.end(op, Time(50_000_000), Outcome::Ok, |_| {});
        let read = Action::Read {
            mailbox: inbox,
            messages: Some(Vec::new()),
            some: Vec::new(),
            count: None,
        };
        let op = judge.history.invoke(1, 1, Time(50_000_001), read);
        judge.history.end(op, Time(50_000_002), Outcome::Ok, |_| {});
        let mut last = Last::default();
        last.dumps.insert(1, Dump::new());
        let mut other = Dump::new();
        other.put("a", "b", 1);
        last.dumps.insert(2, other);
        last.accounts.push(AccountCounts::default());
        let report = judge.finish(Time(60_000_000), &last, Duration::from_secs(10), 1000);
        let ids: Vec<&str> = report.violations.iter().map(|violation| violation.id).collect();
        assert_eq!(ids, ["I33", "I01", "I13", "I12", "I16"]);
        assert_eq!((report.decided, report.gave_up.len()), (1, 0));
    }
}
