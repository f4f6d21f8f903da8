//! One UID of a mailbox as an object: not there yet, there with its flags, gone.

use std::fmt;

use super::resolve::{Arrival, Tokens};
use super::timed;
use crate::history::{Action, FlagChange, FlagSet, MailboxKey, Op, Seen, Token};
use crate::linear::{Model, Timed};
use crate::time::Time;

/// The model.
pub(super) struct Message;

/// A message's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// Its UID was not given yet.
    NotYet,
    /// It is there, with these flags among those that are known.
    There { flags: u32, known: u32 },
    /// It is gone, for good.
    Gone,
}

/// What is done to it, or seen of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum MessageOp {
    Arrive(Option<FlagSet>),
    Store(FlagChange, FlagSet),
    Go,
    SeeNothing,
    See(Option<FlagSet>),
}

impl fmt::Display for MessageOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arrive(Some(flags)) => write!(f, "arrive {flags}"),
            Self::Arrive(None) => write!(f, "arrive"),
            Self::Store(change, flags) => write!(f, "store {change:?} {flags}"),
            Self::Go => write!(f, "expunge"),
            Self::SeeNothing => write!(f, "not seen"),
            Self::See(Some(flags)) => write!(f, "seen {flags}"),
            Self::See(None) => write!(f, "seen"),
        }
    }
}

impl Model for Message {
    type Op = MessageOp;
    type State = State;

    fn initial(&self) -> State {
        State::NotYet
    }

    fn step(&self, state: &State, op: &MessageOp) -> Option<State> {
        match (*state, *op) {
            (State::NotYet, MessageOp::Arrive(flags)) => Some(State::There {
                flags: flags.unwrap_or_default().0,
                known: flags.map_or(0, |_| u32::MAX),
            }),
            (_, MessageOp::Arrive(_)) => None,
            (State::There { flags, known }, MessageOp::Store(change, set)) => Some(match change {
                FlagChange::Replace => State::There {
                    flags: set.0,
                    known: u32::MAX,
                },
                FlagChange::Add => State::There {
                    flags: flags | set.0,
                    known: known | set.0,
                },
                FlagChange::Remove => State::There {
                    flags: flags & !set.0,
                    known: known | set.0,
                },
            }),
            (State::There { .. }, MessageOp::Go) => Some(State::Gone),
            // Messages that are not there are passed over.
            (State::NotYet | State::Gone, MessageOp::Store(..) | MessageOp::Go | MessageOp::SeeNothing) => Some(*state),
            (State::There { .. }, MessageOp::See(None)) => Some(*state),
            (State::There { flags, known }, MessageOp::See(Some(seen))) => {
                ((flags ^ seen.0) & known == 0).then_some(State::There {
                    flags: seen.0,
                    known: u32::MAX,
                })
            }
            (State::There { .. }, MessageOp::SeeNothing) | (State::NotYet | State::Gone, MessageOp::See(_)) => None,
        }
    }

    fn show(&self, state: &State) -> String {
        match state {
            State::NotYet => "not there yet".to_owned(),
            State::There { flags, known: u32::MAX } => format!("there {}", FlagSet(*flags)),
            State::There { flags, known } => format!("there {} of {}", FlagSet(*flags), FlagSet(*known)),
            State::Gone => "gone".to_owned(),
        }
    }

    fn is_read(&self, op: &MessageOp) -> bool {
        matches!(op, MessageOp::See(_) | MessageOp::SeeNothing)
    }
}

/// The history of one UID, from the operations that touch its mailbox and did not fail.
pub(super) fn of(
    touching: &[&Op],
    arrivals: &[Arrival<'_>],
    tokens: &Tokens,
    mailbox: &MailboxKey,
    uid: u32,
) -> Vec<Timed<MessageOp>> {
    let mut ops = vec![arrival(arrivals, tokens, mailbox, uid)];
    for op in touching {
        match &op.action {
            Action::Store {
                mailbox: at,
                uids,
                change,
                flags,
            } if at == mailbox && uids.contains(&uid) => ops.push(timed(op, MessageOp::Store(*change, *flags))),
            Action::Expunge { mailbox: at, uids } if at == mailbox && uids.contains(&uid) => {
                ops.push(timed(op, MessageOp::Go));
            }
            Action::Move { from, pairs, .. } if from == mailbox && pairs.iter().any(|(source, _)| *source == uid) => {
                ops.push(timed(op, MessageOp::Go));
            }
            Action::Delete { mailbox: at, .. } if at == mailbox => ops.push(timed(op, MessageOp::Go)),
            Action::Read {
                mailbox: at,
                messages,
                some,
                ..
            } if at == mailbox && op.is_ok() => {
                let find = |list: &[(u32, Seen)]| {
                    let place = list.binary_search_by_key(&uid, |(uid, _)| *uid).ok()?;
                    list.get(place).copied()
                };
                let listed = messages.as_deref().and_then(find).or_else(|| find(some));
                match listed {
                    Some((_, seen)) => ops.push(timed(op, MessageOp::See(seen.flags))),
                    None if messages.is_some() => ops.push(timed(op, MessageOp::SeeNothing)),
                    None => {}
                }
            }
            _ => {}
        }
    }
    ops
}

/// How the message came: by the operation that says so, or by the only one that can have been; otherwise at any time.
fn arrival(arrivals: &[Arrival<'_>], tokens: &Tokens, mailbox: &MailboxKey, uid: u32) -> Timed<MessageOp> {
    let told = arrivals.iter().find(|arrival| arrival.uid == Some(uid));
    let token = tokens.token(mailbox, uid);
    let same = || {
        arrivals
            .iter()
            .filter(move |arrival| arrival.uid.is_none() && arrival.token.is_some() && arrival.token == token)
    };
    let wild = arrivals
        .iter()
        .filter(|arrival| arrival.uid.is_none() && arrival.token.is_none());
    let wild: Vec<Time> = wild.map(|arrival| arrival.op.invoked).collect();
    let only = || {
        let mut same = same();
        let first = same.next();
        let is_only = same.next().is_none()
            && wild.is_empty()
            && token.is_some_and(|token| is_alone(tokens, arrivals, mailbox, token));
        first.filter(|_| is_only)
    };
    if let Some(arrival) = told.or_else(only) {
        let flags = match &arrival.op.action {
            Action::Deliver { .. } => Some(FlagSet::default()),
            Action::Append { flags, .. } => Some(*flags),
            _ => None,
        };
        return timed(arrival.op, MessageOp::Arrive(flags));
    }
    Timed {
        op: MessageOp::Arrive(None),
        invoked: match token {
            Some(_) => same()
                .map(|arrival| arrival.op.invoked)
                .chain(wild)
                .min()
                .unwrap_or_default(),
            None => Time(0),
        },
        ended: None,
    }
}

/// Whether the token was seen under one UID only, those that are told apart.
fn is_alone(tokens: &Tokens, arrivals: &[Arrival<'_>], mailbox: &MailboxKey, token: Token) -> bool {
    let told = |uid: &u32| arrivals.iter().any(|arrival| arrival.uid == Some(*uid));
    tokens.uids_of(mailbox, token).filter(|uid| !told(uid)).count() == 1
}
