//! U1 to U4, I07 to I11: what clients that keep a copy of a mailbox rely on, judged by such clients.
//!
//! The harness looks at mailboxes as a client may see them: by SELECT and FETCH, or in a replica's state right after a
//! read of that mailbox was confirmed there. Each look is a [`MailboxView`]. [`Announcements`] holds each node to what it
//! said before; the clients of [`clients`] roam: each is shown views of any node, in the order of time, asks for what its
//! kind asks for, and must then hold what is there.

pub mod clients;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::Violation;
use crate::history::{FlagSet, MailboxKey};
use crate::time::Time;

/// Which message it is: its MessageGuid, or where only bodies are seen, its token.
pub type Identity = u128;

/// A message as it is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewMessage {
    /// Its UID.
    pub uid: u32,
    /// Which it is.
    pub identity: Identity,
    /// Its flags.
    pub flags: FlagSet,
    /// Its MODSEQ; 0 where none is told.
    pub modseq: u64,
    /// Its UIDL, where POP3 was asked.
    pub uidl: Option<String>,
}

/// A mailbox as one node shows it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxView {
    /// Which.
    pub mailbox: MailboxKey,
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT.
    pub uid_next: u32,
    /// HIGHESTMODSEQ; 0 where none is told.
    pub highest_modseq: u64,
    /// All messages, as they are numbered.
    pub messages: Vec<ViewMessage>,
    /// The UIDs that vanished, with their MODSEQs, as far as they are remembered; `None` where that is not known.
    pub vanished: Option<Vec<(u32, u64)>>,
    /// The greatest MODSEQ of a vanished message that is not remembered any more; 0 when all are.
    pub forgotten_modseq: u64,
}

impl MailboxView {
    fn message(&self, uid: u32) -> Option<&ViewMessage> {
        let place = self.messages.binary_search_by_key(&uid, |message| message.uid).ok()?;
        self.messages.get(place)
    }

    /// What is wrong with it by itself: UIDs ascend and stay below UIDNEXT, MODSEQs do not exceed HIGHESTMODSEQ.
    #[must_use]
    pub fn check(&self, now: Time) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut last = 0;
        for message in &self.messages {
            if message.uid <= last {
                let what = format!("{}: UID {} follows {last}", self.mailbox, message.uid);
                violations.push(Violation::at("I07", now, what));
            }
            last = message.uid;
            if message.uid >= self.uid_next {
                let what = format!(
                    "{}: UID {} is there, UIDNEXT is {}",
                    self.mailbox, message.uid, self.uid_next
                );
                violations.push(Violation::at("I09", now, what));
            }
            if message.modseq > self.highest_modseq {
                let what = format!(
                    "{}: UID {} has MODSEQ {}, HIGHESTMODSEQ is {}",
                    self.mailbox, message.uid, message.modseq, self.highest_modseq
                );
                violations.push(Violation::at("I10", now, what));
            }
        }
        violations
    }
}

/// What each node announced, and what each UID ever was.
#[derive(Clone, Debug, Default)]
pub struct Announcements {
    /// The last few views of each node and mailbox, each with the time when it was complete.
    last: BTreeMap<(u64, MailboxKey), Vec<(Time, MailboxView)>>,
    identities: BTreeMap<(MailboxKey, u32, u32), Identity>,
    assigned: BTreeMap<(MailboxKey, u32), u32>,
}

impl Announcements {
    /// Nothing was announced.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A node is gone for good: another under its number owes nothing.
    pub fn forget_node(&mut self, node: u64) {
        self.last.retain(|(of, _), _| *of != node);
    }

    /// A UID was given, in the order of the log (I07).
    pub fn assigned(&mut self, now: Time, mailbox: &MailboxKey, uid_validity: u32, uid: u32) -> Vec<Violation> {
        let last = self.assigned.entry((mailbox.clone(), uid_validity)).or_insert(0);
        let before = std::mem::replace(last, uid.max(*last));
        if uid > before {
            return Vec::new();
        }
        let what = format!("{mailbox}: UID {uid} was given after {before}");
        vec![Violation::at("I07", now, what)]
    }

    /// A node showed a mailbox: the command that confirmed the state began at `began`, and the last of it was read `now`.
    /// It owes something to what was complete before it began; sessions at one node may overlap.
    pub fn observe(&mut self, node: u64, began: Time, now: Time, view: &MailboxView) -> Vec<Violation> {
        let mut violations = view.check(now);
        for message in &view.messages {
            let key = (view.mailbox.clone(), view.uid_validity, message.uid);
            let known = *self.identities.entry(key).or_insert(message.identity);
            if known != message.identity {
                let what = format!(
                    "{}: UID {} under UIDVALIDITY {} was {known:x}, at node {node} it is {:x}",
                    view.mailbox, message.uid, view.uid_validity, message.identity
                );
                violations.push(Violation::at("U1", now, what));
            }
        }
        let key = (node, view.mailbox.clone());
        let views = self.last.entry(key).or_default();
        let preceding = views.iter().filter(|(complete, _)| *complete < began);
        let newest = preceding.max_by_key(|(complete, view)| (view.highest_modseq, view.uid_next, *complete));
        let mut broken = false;
        if let Some((_, before)) = newest {
            let mut find = |id, what: String| {
                let what = format!("{} at node {node}: {what}", view.mailbox);
                violations.push(Violation::at(id, now, what));
                broken = true;
            };
            if before.uid_validity == view.uid_validity {
                follow(before, view, &mut find);
            } else {
                let (old, new) = (before.uid_validity, view.uid_validity);
                find("U3", format!("UIDVALIDITY was {old} and is {new}"));
            }
        }
        if broken {
            // Each is told once.
            views.clear();
        }
        views.push((now, view.clone()));
        if views.len() > VIEWS_MAX {
            views.remove(0);
        }
        violations
    }
}

/// Views of a mailbox at a node that are remembered: more than there are sessions at a time.
const VIEWS_MAX: usize = 16;

/// Whether a view may follow another at the same node.
fn follow(before: &MailboxView, view: &MailboxView, find: &mut impl FnMut(&'static str, String)) {
    if view.uid_next < before.uid_next {
        find(
            "I09",
            format!("UIDNEXT was {} and is {}", before.uid_next, view.uid_next),
        );
    }
    let announced = before.highest_modseq;
    if view.highest_modseq < announced {
        find(
            "U4",
            format!("HIGHESTMODSEQ was {announced} and is {}", view.highest_modseq),
        );
    }
    for message in &view.messages {
        let uid = message.uid;
        match before.message(uid) {
            None if uid < before.uid_next => {
                find(
                    "U2",
                    format!("UID {uid} shows up, UIDNEXT was {} before", before.uid_next),
                );
            }
            None if announced != 0 && message.modseq <= announced => {
                let modseq = message.modseq;
                find(
                    "U4",
                    format!("UID {uid} came with MODSEQ {modseq}, HIGHESTMODSEQ was {announced}"),
                );
            }
            Some(old) if old.flags != message.flags && announced != 0 && message.modseq <= announced => {
                let modseq = message.modseq;
                find(
                    "U4",
                    format!("UID {uid} changed with MODSEQ {modseq}, HIGHESTMODSEQ was {announced}"),
                );
            }
            Some(old) if message.modseq < old.modseq => {
                find(
                    "I10",
                    format!("the MODSEQ of UID {uid} was {} and is {}", old.modseq, message.modseq),
                );
            }
            _ => {}
        }
    }
    let Some(vanished) = &view.vanished else { return };
    for old in &before.messages {
        if view.message(old.uid).is_some() || view.forgotten_modseq > announced {
            continue;
        }
        let told = vanished
            .iter()
            .any(|(uid, modseq)| *uid == old.uid && *modseq > announced);
        if !told {
            let uid = old.uid;
            find("U4", format!("UID {uid} vanished without a MODSEQ above {announced}"));
        }
    }
}
