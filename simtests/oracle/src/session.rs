//! The view of one IMAP session, followed from what the server says, and the rules that it has to keep to.
//!
//! | id | rule |
//! | --- | --- |
//! | S01 | EXISTS never falls: messages only leave by EXPUNGE (RFC 9051 7.5.1, 7.4.1) |
//! | S02 | sequence numbers are between 1 and the number of messages |
//! | S03 | no EXPUNGE while FETCH, STORE or SEARCH run (the UID forms may have it), nor while no command runs (7.5.1) |
//! | S04 | UIDs ascend with sequence numbers, and that of a message does not change (2.3.1.1) |
//! | S05 | a message that comes has a UID of at least the UIDNEXT told before, and UIDNEXT is above all UIDs |
//! | S06 | nothing of a mailbox is told while none is selected |
//!
//! One command at a time: a harness that pipelines tells the oldest one that runs.

use crate::Violation;
use crate::time::Time;

/// The commands that the rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandKind {
    /// FETCH by sequence number.
    Fetch,
    /// STORE by sequence number.
    Store,
    /// SEARCH (not UID SEARCH).
    Search,
    /// Any other, the UID forms and IDLE among them.
    Other,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct SessionView {
    name: String,
    selected: bool,
    running: Option<CommandKind>,
    /// UIDs by sequence number, where they are known.
    uids: Vec<Option<u32>>,
    /// For each place: the UIDNEXT that was told before the message came.
    floors: Vec<u32>,
    uid_next: u32,
    violations: Vec<Violation>,
}

impl SessionView {
    /// A session, with a name for what is found.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// SELECT or EXAMINE was answered with OK, and told so many messages and this UIDNEXT.
    pub fn select(&mut self, exists: u32, uid_next: u32) {
        self.selected = true;
        self.uid_next = uid_next;
        self.uids = vec![None; exists as usize];
        self.floors = vec![0; exists as usize];
    }

    /// CLOSE, UNSELECT, or a SELECT that is under way or failed.
    pub fn unselect(&mut self) {
        self.selected = false;
        self.uids.clear();
        self.floors.clear();
    }

    /// A command was sent.
    pub fn begin(&mut self, kind: CommandKind) {
        self.running = Some(kind);
    }

    /// Its tagged answer came.
    pub fn end(&mut self) {
        self.running = None;
    }

    /// `* n EXISTS`
    pub fn exists(&mut self, now: Time, count: u32) {
        if self.selected_for(now, "EXISTS") {
            let (count, had) = (count as usize, self.uids.len());
            if count < had {
                self.find(now, "S01", format!("EXISTS {count} after {had} without an EXPUNGE"));
            }
            self.uids.resize(count, None);
            self.floors.resize(count, self.uid_next);
        }
    }

    /// `* n EXPUNGE`; gives the UID of what went, where it is known.
    pub fn expunge(&mut self, now: Time, sequence: u32) -> Option<u32> {
        if !self.selected_for(now, "EXPUNGE") || !self.in_range(now, "EXPUNGE", sequence) {
            return None;
        }
        match self.running {
            Some(CommandKind::Other) => {}
            running => self.find(now, "S03", format!("EXPUNGE {sequence} while {running:?} runs")),
        }
        let place = sequence as usize - 1;
        self.floors.remove(place);
        self.uids.remove(place)
    }

    /// `* n FETCH`, with the UID where it was told.
    pub fn fetch(&mut self, now: Time, sequence: u32, uid: Option<u32>) {
        if !self.selected_for(now, "FETCH") || !self.in_range(now, "FETCH", sequence) {
            return;
        }
        let (Some(uid), place) = (uid, sequence as usize - 1) else {
            return;
        };
        let known = self.uids.get(place).copied().flatten();
        if known.is_some_and(|known| known != uid) {
            self.find(
                now,
                "S04",
                format!("message {sequence} had UID {known:?} and has {uid}"),
            );
        }
        let below = self.uids.iter().take(place).flatten().max().copied();
        let above = self.uids.iter().skip(place + 1).flatten().min().copied();
        if below.is_some_and(|below| below >= uid) || above.is_some_and(|above| above <= uid) {
            self.find(
                now,
                "S04",
                format!("message {sequence} has UID {uid} between {below:?} and {above:?}"),
            );
        }
        let floor = self.floors.get(place).copied().unwrap_or(0);
        if uid < floor {
            self.find(
                now,
                "S05",
                format!("message {sequence} came with UID {uid}, UIDNEXT was {floor}"),
            );
        } else if floor == 0 && uid >= self.uid_next {
            self.find(
                now,
                "S05",
                format!(
                    "message {sequence} of the SELECT has UID {uid}, UIDNEXT was {}",
                    self.uid_next
                ),
            );
        }
        if let Some(slot) = self.uids.get_mut(place) {
            *slot = Some(uid);
        }
    }

    /// `* SEARCH` with sequence numbers.
    pub fn search(&mut self, now: Time, sequences: &[u32]) {
        if self.selected_for(now, "SEARCH") {
            for sequence in sequences {
                self.in_range(now, "SEARCH", *sequence);
            }
        }
    }

    /// Number of messages in the view.
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.uids.len()).unwrap_or(u32::MAX)
    }

    /// The UID of a sequence number, where it is known.
    #[must_use]
    pub fn uid(&self, sequence: u32) -> Option<u32> {
        self.uids.get((sequence as usize).checked_sub(1)?).copied().flatten()
    }

    /// What was found since the last time it was asked.
    pub fn take_violations(&mut self) -> Vec<Violation> {
        std::mem::take(&mut self.violations)
    }

    fn find(&mut self, now: Time, id: &'static str, what: String) {
        let what = format!("{}: {what}", self.name);
        self.violations.push(Violation::at(id, now, what));
    }

    fn selected_for(&mut self, now: Time, what: &str) -> bool {
        if !self.selected {
            self.find(now, "S06", format!("{what} while no mailbox is selected"));
        }
        self.selected
    }

    fn in_range(&mut self, now: Time, what: &str, sequence: u32) -> bool {
        let fits = (1..=self.count()).contains(&sequence);
        if !fits {
            self.find(now, "S02", format!("{what} {sequence} of {} messages", self.count()));
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> SessionView {
        let mut session = SessionView::new("s");
        session.select(3, 10);
        session.begin(CommandKind::Other);
        for (sequence, uid) in [(1, 2), (2, 5), (3, 9)] {
            session.fetch(Time(1), sequence, Some(uid));
        }
        session
    }

    fn ids(session: &mut SessionView) -> Vec<&'static str> {
        let violations = session.take_violations();
        violations.iter().map(|violation| violation.id).collect()
    }

    #[test]
    fn a_session_that_keeps_the_rules_passes() {
        let mut session = session();
        assert_eq!(session.expunge(Time(2), 2), Some(5));
        session.exists(Time(2), 3);
        session.fetch(Time(2), 3, Some(12));
        session.fetch(Time(2), 2, Some(9));
        session.search(Time(2), &[1, 2, 3]);
        session.end();
        session.exists(Time(3), 4);
        session.begin(CommandKind::Store);
        session.fetch(Time(4), 1, None);
        session.end();
        session.unselect();
        session.select(0, 20);
        assert_eq!(ids(&mut session), [""; 0]);
        assert_eq!((session.count(), session.uid(1)), (0, None));
    }

    #[test]
    fn each_broken_rule_is_seen() {
        type Break = fn(&mut SessionView);
        let breaks: [(&str, Break); 12] = [
            ("S01", |session| session.exists(Time(2), 2)),
            ("S02", |session| session.fetch(Time(2), 4, None)),
            ("S02", |session| session.search(Time(2), &[0])),
            ("S02", |session| {
                session.expunge(Time(2), 4);
            }),
            ("S03", |session| {
                session.begin(CommandKind::Search);
                session.expunge(Time(2), 1);
            }),
            ("S03", |session| {
                session.end();
                session.expunge(Time(2), 1);
            }),
            ("S04", |session| session.fetch(Time(2), 3, Some(8))),
            ("S04", |session| {
                session.exists(Time(2), 5);
                session.fetch(Time(2), 5, Some(11));
                session.fetch(Time(2), 4, Some(12));
            }),
            ("S05", |session| {
                session.exists(Time(2), 4);
                session.fetch(Time(2), 4, Some(9));
            }),
            ("S05", |session| {
                session.select(1, 10);
                session.fetch(Time(2), 1, Some(10));
            }),
            ("S06", |session| {
                session.unselect();
                session.exists(Time(2), 1);
            }),
            ("S02", |session| session.fetch(Time(2), 0, Some(1))),
        ];
        for (id, break_it) in breaks {
            let mut session = session();
            break_it(&mut session);
            assert!(ids(&mut session).contains(&id), "{id}");
        }
    }
}
