//! Four kinds of clients that keep a copy of a mailbox. Each asks a view only for what its kind asks a server for, and is
//! then compared with all of it.

use std::collections::BTreeMap;

use super::{Identity, MailboxView};
use crate::Violation;
use crate::history::FlagSet;
use crate::time::Time;

/// All four kinds, for one mailbox.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    /// See [`HighWater`].
    pub high_water: HighWater,
    /// See [`FullList`].
    pub full_list: FullList,
    /// See [`Resync`].
    pub resync: Resync,
    /// See [`Pop`].
    pub pop: Pop,
}

impl Clients {
    /// Clients that know nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All four sync with a node.
    pub fn sync(&mut self, node: u64, now: Time, view: &MailboxView) -> Vec<Violation> {
        let mut violations = self.high_water.sync(node, now, view);
        violations.extend(self.full_list.sync(node, now, view));
        if view.highest_modseq != 0 {
            violations.extend(self.resync.sync(node, now, view));
        }
        if view.messages.iter().all(|message| message.uidl.is_some()) {
            violations.extend(self.pop.sync(node, now, view));
        }
        violations
    }
}

fn violation(id: &'static str, node: u64, now: Time, view: &MailboxView, what: &str) -> Violation {
    Violation::at(id, now, format!("{} at node {node}: {what}", view.mailbox))
}

/// Fetches what has a UID of at least the UIDNEXT that it was last told (`UID FETCH n:*`), and nothing else (U2).
#[derive(Clone, Debug, Default)]
pub struct HighWater {
    uid_validity: u32,
    next: u32,
    copy: BTreeMap<u32, Identity>,
}

impl HighWater {
    /// Syncs with a node.
    pub fn sync(&mut self, node: u64, now: Time, view: &MailboxView) -> Vec<Violation> {
        if self.uid_validity != view.uid_validity {
            *self = Self {
                uid_validity: view.uid_validity,
                ..Self::default()
            };
        }
        let next = self.next;
        let new = view.messages.iter().filter(|message| message.uid >= next);
        self.copy.extend(new.map(|message| (message.uid, message.identity)));
        self.next = view.uid_next;
        let mut violations = Vec::new();
        for message in &view.messages {
            let uid = message.uid;
            match self.copy.get(&uid) {
                None => {
                    let what = format!("a client that had asked up to {next} never gets UID {uid}");
                    violations.push(violation("U2", node, now, view, &what));
                    self.copy.insert(uid, message.identity);
                }
                Some(known) if *known != message.identity => {
                    let what = format!("a client holds another message as UID {uid}");
                    violations.push(violation("U1", node, now, view, &what));
                }
                Some(_) => {}
            }
        }
        violations
    }
}

/// Lists all UIDs each time, and fetches those that it does not know (U1).
#[derive(Clone, Debug, Default)]
pub struct FullList {
    uid_validity: u32,
    copy: BTreeMap<u32, Identity>,
}

impl FullList {
    /// Syncs with a node.
    pub fn sync(&mut self, node: u64, now: Time, view: &MailboxView) -> Vec<Violation> {
        if self.uid_validity != view.uid_validity {
            self.copy.clear();
            self.uid_validity = view.uid_validity;
        }
        let mut violations = Vec::new();
        let mut copy = BTreeMap::new();
        for message in &view.messages {
            // It never drops what it knew of a UID that is gone: a UID that comes back has to be the same message.
            let known = *self.copy.get(&message.uid).unwrap_or(&message.identity);
            if known != message.identity {
                let what = format!("a client holds another message as UID {}", message.uid);
                violations.push(violation("U1", node, now, view, &what));
            }
            copy.insert(message.uid, known);
        }
        self.copy.extend(copy);
        violations
    }
}

/// Asks for what changed and vanished since the HIGHESTMODSEQ that it was last told, as QRESYNC does (U4).
#[derive(Clone, Debug, Default)]
pub struct Resync {
    uid_validity: u32,
    modseq: u64,
    copy: BTreeMap<u32, (Identity, FlagSet)>,
}

impl Resync {
    /// Syncs with a node.
    pub fn sync(&mut self, node: u64, now: Time, view: &MailboxView) -> Vec<Violation> {
        if self.uid_validity != view.uid_validity {
            *self = Self {
                uid_validity: view.uid_validity,
                ..Self::default()
            };
        }
        // A value above the server's is answered as if it were 0 (U4).
        let since = if self.modseq > view.highest_modseq {
            0
        } else {
            self.modseq
        };
        let all_told = since >= view.forgotten_modseq && since != 0;
        match &view.vanished {
            Some(vanished) if all_told => {
                for (uid, _) in vanished.iter().filter(|(_, modseq)| *modseq > since) {
                    self.copy.remove(uid);
                }
            }
            _ => self.copy.retain(|uid, _| view.message(*uid).is_some()),
        }
        for message in view.messages.iter().filter(|message| message.modseq > since) {
            let new = (message.identity, message.flags);
            let held = self.copy.entry(message.uid).or_insert(new);
            held.1 = message.flags;
        }
        self.modseq = view.highest_modseq;
        let mut violations = Vec::new();
        for message in &view.messages {
            let uid = message.uid;
            let what = match self.copy.get(&uid) {
                None => Some(("U4", format!("a client that asked since {since} never gets UID {uid}"))),
                Some((identity, _)) if *identity != message.identity => {
                    Some(("U1", format!("a client holds another message as UID {uid}")))
                }
                Some((_, flags)) if *flags != message.flags => {
                    let now = message.flags;
                    let what =
                        format!("a client that asked since {since} holds {flags} for UID {uid}, which has {now}");
                    Some(("U4", what))
                }
                Some(_) => None,
            };
            violations.extend(what.map(|(id, what)| violation(id, node, now, view, &what)));
        }
        for uid in self.copy.keys().filter(|uid| view.message(**uid).is_none()) {
            let what = format!("a client that asked since {since} still holds UID {uid}, which vanished");
            violations.push(violation("U4", node, now, view, &what));
        }
        // Each violation is told once.
        let there = view.messages.iter();
        self.copy = there
            .map(|message| (message.uid, (message.identity, message.flags)))
            .collect();
        violations
    }
}

/// Leaves mail on the server, and fetches what has a UIDL that it does not know (RFC 1939 7). Identities have to be
/// MessageGuids here: copies of one message are two.
#[derive(Clone, Debug, Default)]
pub struct Pop {
    by_uidl: BTreeMap<String, Identity>,
    by_identity: BTreeMap<Identity, String>,
}

impl Pop {
    /// Syncs with a node.
    pub fn sync(&mut self, node: u64, now: Time, view: &MailboxView) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut listed = BTreeMap::new();
        for message in &view.messages {
            let (uid, identity) = (message.uid, message.identity);
            let Some(uidl) = &message.uidl else { continue };
            if let Some(other) = listed.insert(uidl.clone(), uid) {
                let what = format!("UIDL {uidl} is that of UID {other} and of {uid}");
                violations.push(violation("I11", node, now, view, &what));
            }
            let known = *self.by_uidl.entry(uidl.clone()).or_insert(identity);
            if known != identity {
                let what = format!("UIDL {uidl} was {known:x} and is {identity:x}: a client never fetches it");
                violations.push(violation("I11", node, now, view, &what));
            }
            let named = self.by_identity.entry(identity).or_insert_with(|| uidl.clone());
            if named != uidl {
                let what = format!("{identity:x} had UIDL {named} and has {uidl}: a client fetches it twice");
                violations.push(violation("I11", node, now, view, &what));
                named.clone_from(uidl);
            }
        }
        violations
    }
}
