//! Which message each UID is: from the answers to APPEND, COPY and MOVE, and from what was read.

use std::collections::{BTreeMap, BTreeSet};

use crate::Violation;
use crate::history::{Action, History, MailboxKey, Op, Outcome, Seen, Token};

/// What is known of the messages behind UIDs.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    tokens: BTreeMap<MailboxKey, BTreeMap<u32, Token>>,
}

/// Where an operation may have put a message.
#[derive(Clone, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) op: &'a Op,
    /// Its place in the history: operations are told apart by it.
    pub(super) place: usize,
    /// What is in it, where that is known.
    pub(super) token: Option<Token>,
    /// Its UID, where that was told.
    pub(super) uid: Option<u32>,
}

impl Tokens {
    /// Learns from a history; a UID that was two messages is a violation (I08).
    #[must_use]
    pub fn of(history: &History) -> (Self, Vec<Violation>) {
        let mut tokens = Self::default();
        let mut violations = Vec::new();
        let mut learn = |op: &Op, mailbox: &MailboxKey, uid: u32, token: Option<Token>| {
            let Some(token) = token else { return };
            let known = *tokens.at(mailbox).entry(uid).or_insert(token);
            if known != token {
                let what = format!("UID {uid} of {mailbox} was {known} and is {token}: {op}");
                violations.push(Violation::at("I08", op.invoked, what));
            }
        };
        for op in history.ops().iter().filter(|op| op.is_ok()) {
            match &op.action {
                Action::Append {
                    to,
                    token,
                    uid: Some(uid),
                    ..
                } => learn(op, to, *uid, Some(*token)),
                Action::Read {
                    mailbox,
                    messages,
                    some,
                    ..
                } => {
                    for (uid, seen) in messages.iter().flatten().chain(some) {
                        learn(op, mailbox, *uid, seen.token);
                    }
                }
                Action::Fetch {
                    mailbox,
                    uid: Some(uid),
                    token,
                    ..
                } => learn(op, mailbox, *uid, *token),
                _ => {}
            }
        }
        // A copy is what its original is; copies of copies take one round more each.
        while tokens.learn_from_copies(history) {}
        for copy in copies(history) {
            let known = (tokens.token(copy.from, copy.source), tokens.token(copy.to, copy.target));
            if let (Some(old), Some(new)) = known
                && old != new
            {
                let what = format!(
                    "UID {} became UID {}, {old} became {new}: {}",
                    copy.source, copy.target, copy.op
                );
                violations.push(Violation::at("I08", copy.op.invoked, what));
            }
        }
        (tokens, violations)
    }

    fn at(&mut self, mailbox: &MailboxKey) -> &mut BTreeMap<u32, Token> {
        self.tokens.entry(mailbox.clone()).or_default()
    }

    /// Whether there was anything to learn.
    fn learn_from_copies(&mut self, history: &History) -> bool {
        let mut learnt = false;
        for copy in copies(history) {
            let known = (self.token(copy.from, copy.source), self.token(copy.to, copy.target));
            match known {
                (Some(token), None) => self.at(copy.to).insert(copy.target, token),
                (None, Some(token)) => self.at(copy.from).insert(copy.source, token),
                _ => continue,
            };
            learnt = true;
        }
        learnt
    }

    /// What is behind a UID, where that is known.
    #[must_use]
    pub fn token(&self, mailbox: &MailboxKey, uid: u32) -> Option<Token> {
        self.tokens.get(mailbox)?.get(&uid).copied()
    }

    /// The UIDs of a mailbox under which a token was seen.
    pub fn uids_of(&self, mailbox: &MailboxKey, token: Token) -> impl Iterator<Item = u32> {
        let all = self.tokens.get(mailbox).into_iter().flatten();
        all.filter(move |(_, known)| **known == token).map(|(uid, _)| *uid)
    }

    /// All UIDs of a mailbox that the history names.
    #[must_use]
    pub fn uids(&self, history: &History, mailbox: &MailboxKey) -> BTreeSet<u32> {
        let mut all = BTreeSet::new();
        for op in history.ops() {
            match &op.action {
                Action::Append { to, uid, .. } if to == mailbox => all.extend(uid),
                Action::Copy { from, to, pairs } | Action::Move { from, to, pairs } => {
                    if from == mailbox {
                        all.extend(pairs.iter().map(|(source, _)| *source));
                    }
                    if to == mailbox {
                        all.extend(pairs.iter().filter_map(|(_, target)| *target));
                    }
                }
                Action::Store { mailbox: at, uids, .. } | Action::Expunge { mailbox: at, uids } if at == mailbox => {
                    all.extend(uids);
                }
                Action::Read {
                    mailbox: read,
                    messages,
                    some,
                    ..
                } if read == mailbox => {
                    all.extend(messages.iter().flatten().chain(some).map(|(uid, _): &(u32, Seen)| *uid));
                }
                Action::Fetch { mailbox: read, uid, .. } if read == mailbox => all.extend(uid),
                _ => {}
            }
        }
        all
    }

    /// Every message that an operation put, or may have put, into a mailbox.
    pub(super) fn arrivals<'a>(&self, history: &'a History, mailbox: &MailboxKey) -> Vec<Arrival<'a>> {
        let mut all = Vec::new();
        for (place, op) in history.ops().iter().enumerate() {
            if op.outcome == Outcome::Failed {
                continue;
            }
            let mut arrives = |token, uid: Option<u32>| {
                let uid = uid.filter(|_| op.is_ok());
                all.push(Arrival { op, place, token, uid });
            };
            match &op.action {
                Action::Deliver { to, token, .. } if to == mailbox => arrives(Some(*token), None),
                Action::Append { to, token, uid, .. } if to == mailbox => arrives(Some(*token), *uid),
                Action::Copy { from, to, pairs } | Action::Move { from, to, pairs } if to == mailbox => {
                    for (source, target) in pairs {
                        arrives(self.token(from, *source), *target);
                    }
                }
                _ => {}
            }
        }
        all
    }
}

/// One message copied or moved, with the UIDs that were told.
struct Copied<'a> {
    op: &'a Op,
    from: &'a MailboxKey,
    to: &'a MailboxKey,
    source: u32,
    target: u32,
}

fn copies(history: &History) -> impl Iterator<Item = Copied<'_>> {
    history.ops().iter().filter(|op| op.is_ok()).flat_map(|op| {
        let (Action::Copy { from, to, pairs } | Action::Move { from, to, pairs }) = &op.action else {
            return Vec::new();
        };
        let told = |(source, target): &(u32, Option<u32>)| {
            target.map(|target| Copied {
                op,
                from,
                to,
                source: *source,
                target,
            })
        };
        pairs.iter().filter_map(told).collect::<Vec<_>>()
    })
}
