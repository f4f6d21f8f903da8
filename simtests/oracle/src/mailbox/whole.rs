//! A mailbox as the set of its messages, without their flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::resolve::{Arrival, Tokens};
use super::timed;
use crate::history::{Action, History, MailboxKey, Outcome, Token};
use crate::linear::{Bits, Model, Timed};
use crate::time::Time;

/// The model: messages by their place in a list of UIDs.
pub(super) struct Whole {
    /// The UID of each place; `None` for a message that was acknowledged and never seen.
    names: Vec<String>,
}

/// What is done or seen.
#[derive(Clone, Debug)]
pub(super) struct WholeOp {
    pub(super) kind: Kind,
    text: String,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// These come and those go.
    Change { add: Bits, remove: Bits },
    /// Exactly these, or so many, are there; these are there, and those not.
    See {
        exactly: Option<Bits>,
        at_least: Bits,
        count: Option<usize>,
    },
}

impl fmt::Display for WholeOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Model for Whole {
    type Op = WholeOp;
    type State = Bits;

    fn initial(&self) -> Bits {
        Bits::new(self.names.len())
    }

    fn step(&self, state: &Bits, op: &WholeOp) -> Option<Bits> {
        match &op.kind {
            Kind::Change { add, remove } => {
                let mut bits = state.clone();
                bits.add(add);
                bits.remove(remove);
                Some(bits)
            }
            Kind::See {
                exactly,
                at_least,
                count,
            } => {
                let mut missing = at_least.clone();
                missing.remove(state);
                let fits = exactly.as_ref().is_none_or(|exactly| exactly == state)
                    && missing.count() == 0
                    && count.is_none_or(|count| count == state.count());
                fits.then(|| state.clone())
            }
        }
    }

    fn show(&self, state: &Bits) -> String {
        format!("UIDs {}", self.list(state))
    }

    fn mismatch(&self, state: &Bits, op: &WholeOp) -> String {
        let Kind::See {
            exactly,
            at_least,
            count,
        } = &op.kind
        else {
            return String::new();
        };
        let (mut missing, mut unexpected) = (state.clone(), exactly.as_ref().unwrap_or(at_least).clone());
        missing.remove(exactly.as_ref().unwrap_or(state));
        unexpected.remove(state);
        format!(
            "not seen: {}; seen and not there: {}; count {count:?} of {}",
            self.list(&missing),
            self.list(&unexpected),
            state.count()
        )
    }

    fn is_read(&self, op: &WholeOp) -> bool {
        matches!(op.kind, Kind::See { .. })
    }
}

impl Whole {
    /// Number of messages that are told apart.
    pub(super) fn count(&self) -> usize {
        self.names.len()
    }

    fn list(&self, set: &Bits) -> String {
        let names: Vec<&str> = set
            .iter()
            .filter_map(|place| self.names.get(place))
            .map(String::as_str)
            .collect();
        names.join(",")
    }
}

/// The history of a mailbox.
pub(super) fn of(history: &History, tokens: &Tokens, mailbox: &MailboxKey) -> (Whole, Vec<Timed<WholeOp>>) {
    let builder = Builder::new(history, tokens, mailbox);
    let ops = builder.ops(history, mailbox);
    (Whole { names: builder.names }, ops)
}

/// What keeps messages and operations from being told apart.
struct Doubt {
    /// There are reads that show only how many there are.
    counts: bool,
    /// There are messages that were listed and never looked into: any may be what an operation brought.
    unread: bool,
    /// When the first operation began that brought nobody knows what.
    wild: Option<Time>,
}

struct Builder {
    names: Vec<String>,
    by_uid: BTreeMap<u32, usize>,
    /// What each operation, by its place in the history, adds.
    adds: BTreeMap<usize, Vec<usize>>,
    /// UIDs that may have come at any time from then on, nobody knows by which operation.
    loose: Vec<(usize, Time)>,
}

impl Builder {
    fn new(history: &History, tokens: &Tokens, mailbox: &MailboxKey) -> Self {
        let mut builder = Self {
            names: Vec::new(),
            by_uid: BTreeMap::new(),
            adds: BTreeMap::new(),
            loose: Vec::new(),
        };
        for uid in tokens.uids(history, mailbox) {
            builder.by_uid.insert(uid, builder.names.len());
            builder.names.push(uid.to_string());
        }
        let arrivals = tokens.arrivals(history, mailbox);
        let mut free: BTreeSet<u32> = builder.by_uid.keys().copied().collect();
        for arrival in &arrivals {
            if let Some(place) = arrival.uid.and_then(|uid| builder.by_uid.get(&uid).copied()) {
                free.remove(&arrival.uid.unwrap_or(0));
                builder.adds.entry(arrival.place).or_default().push(place);
            }
        }
        let counts = history.ops().iter().any(|op| {
            matches!(
                &op.action,
                Action::Read {
                    count: Some(_),
                    messages: None,
                    ..
                }
            )
        });
        let unread = free.iter().any(|uid| tokens.token(mailbox, *uid).is_none());
        let mut untold: BTreeMap<Option<Token>, Vec<&Arrival<'_>>> = BTreeMap::new();
        for arrival in arrivals.iter().filter(|arrival| arrival.uid.is_none()) {
            untold.entry(arrival.token).or_default().push(arrival);
        }
        let doubt = Doubt {
            counts,
            unread,
            wild: untold
                .get(&None)
                .into_iter()
                .flatten()
                .map(|arrival| arrival.op.invoked)
                .min(),
        };
        for (token, arrivals) in untold {
            let seen: Vec<u32> = free
                .iter()
                .copied()
                .filter(|uid| token.is_some() && tokens.token(mailbox, *uid) == token)
                .collect();
            builder.place(&arrivals, &seen, &doubt);
            for uid in &seen {
                free.remove(uid);
            }
        }
        for uid in free {
            if let Some(place) = builder.by_uid.get(&uid) {
                builder.loose.push((*place, Time(0)));
            }
        }
        builder
    }

    /// Gives the UIDs under which something was seen to the operations that may have brought it.
    fn place(&mut self, arrivals: &[&Arrival<'_>], seen: &[u32], doubt: &Doubt) {
        match (arrivals, seen) {
            ([arrival], [uid]) if doubt.wild.is_none() => {
                let place = self.by_uid.get(uid).copied();
                self.adds.entry(arrival.place).or_default().extend(place);
            }
            (_, []) => {
                // Never seen. What was acknowledged must show in the reads that follow; of the rest only numbers speak.
                for arrival in arrivals {
                    if !doubt.counts && (doubt.unread || !arrival.op.is_ok()) {
                        continue;
                    }
                    // Of several messages that were to be copied some may have been gone by then.
                    if doubt.unread || !arrival.op.is_ok() {
                        self.loose.push((self.names.len(), arrival.op.invoked));
                    } else {
                        self.adds.entry(arrival.place).or_default().push(self.names.len());
                    }
                    let token = arrival.token.map_or_else(String::new, |token| token.to_string());
                    self.names.push(format!("never seen{token}"));
                }
            }
            _ => {
                let since = arrivals
                    .iter()
                    .map(|arrival| arrival.op.invoked)
                    .chain(doubt.wild)
                    .min();
                let since = since.unwrap_or_default();
                let places = seen.iter().filter_map(|uid| self.by_uid.get(uid));
                self.loose.extend(places.map(|place| (*place, since)));
                // Those of which only numbers speak.
                for _ in seen.len()..arrivals.len() * usize::from(doubt.counts) {
                    self.loose.push((self.names.len(), since));
                    self.names.push("never seen".to_owned());
                }
            }
        }
    }

    fn bits(&self, uids: impl IntoIterator<Item = u32>) -> Bits {
        let mut bits = Bits::new(self.names.len());
        for uid in uids {
            if let Some(place) = self.by_uid.get(&uid) {
                bits.insert(*place);
            }
        }
        bits
    }

    fn ops(&self, history: &History, mailbox: &MailboxKey) -> Vec<Timed<WholeOp>> {
        let mut ops = Vec::new();
        for (place, since) in &self.loose {
            let mut add = Bits::new(self.names.len());
            add.insert(*place);
            let remove = Bits::new(self.names.len());
            let text = format!(
                "UID {} comes from somewhere",
                self.names.get(*place).map_or("", |name| name)
            );
            let op = WholeOp {
                kind: Kind::Change { add, remove },
                text,
            };
            ops.push(Timed {
                op,
                invoked: *since,
                ended: None,
            });
        }
        for (place, op) in history.ops().iter().enumerate() {
            if op.outcome == Outcome::Failed {
                continue;
            }
            if let Some(kind) = self.kind(place, op, mailbox) {
                let text = format!("client {} node {}: {}", op.client, op.node, op.action);
                ops.push(timed(op, WholeOp { kind, text }));
            }
        }
        ops
    }

    fn kind(&self, place: usize, op: &crate::history::Op, mailbox: &MailboxKey) -> Option<Kind> {
        let mut add = Bits::new(self.names.len());
        for place in self.adds.get(&place).into_iter().flatten() {
            add.insert(*place);
        }
        let nothing = || Bits::new(self.names.len());
        let remove = match &op.action {
            Action::Expunge { mailbox: at, uids } if at == mailbox => self.bits(uids.iter().copied()),
            Action::Move { from, pairs, .. } if from == mailbox => self.bits(pairs.iter().map(|(source, _)| *source)),
            Action::Delete { mailbox: at, .. } if at == mailbox => {
                let mut all = nothing();
                (0..self.names.len()).for_each(|place| all.insert(place));
                all
            }
            Action::Read {
                mailbox: at,
                messages,
                some,
                count,
            } if at == mailbox && op.is_ok() => {
                return Some(Kind::See {
                    exactly: messages
                        .as_ref()
                        .map(|messages| self.bits(messages.iter().map(|(uid, _)| *uid))),
                    at_least: self.bits(some.iter().map(|(uid, _)| *uid)),
                    count: count.map(|count| count as usize),
                });
            }
            _ => nothing(),
        };
        (add.count() + remove.count() > 0).then_some(Kind::Change { add, remove })
    }
}
