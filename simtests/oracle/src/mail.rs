//! I01, I04, I05, I06, I09: acknowledged mail is there, once, with its bytes, and nothing else is.
//!
//! Judged at the end, when everything is quiet, from the history and from all messages of all mailboxes as they then are
//! (by IMAP, or from a replica's state), and from every body that was read on the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::Violation;
use crate::history::{Action, FlagSet, History, MailboxKey, Op, Outcome, Token};
use crate::mailbox::Tokens;

/// A message as it is at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinalMessage {
    /// Where.
    pub mailbox: MailboxKey,
    /// Its UID.
    pub uid: u32,
    /// From its body; `None` when there is none in it.
    pub token: Option<Token>,
    /// BLAKE3 of its bytes, without what the server put in front.
    pub digest: [u8; 32],
    /// Its flags; not judged here.
    pub flags: FlagSet,
}

/// Judges. `last` holds every message of every mailbox.
#[must_use]
pub fn judge(history: &History, last: &[FinalMessage]) -> Vec<Violation> {
    let (tokens, _) = Tokens::of(history);
    let sent = sent(history);
    let mut violations = bodies(history, &sent, last);
    violations.extend(counts(history, &tokens, &sent, last));
    violations.extend(places(history, &tokens, last));
    violations
}

/// What was tried, by account and token.
type SentBy<'a> = BTreeMap<(u32, Token), (&'a Op, [u8; 32])>;

fn sent(history: &History) -> SentBy<'_> {
    let mut sent = BTreeMap::new();
    for op in history.ops() {
        if let Action::Deliver { to, token, digest } | Action::Append { to, token, digest, .. } = &op.action {
            sent.insert((to.account, *token), (op, *digest));
        }
    }
    sent
}

/// I04 and I06, for every body that was ever read.
fn bodies(history: &History, sent: &SentBy<'_>, last: &[FinalMessage]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut body = |at, mailbox: &MailboxKey, uid: Option<u32>, token: Option<Token>, digest: [u8; 32]| {
        let place = format!("{mailbox} UID {uid:?}");
        let found = token.and_then(|token| sent.get(&(mailbox.account, token)));
        let violation = match found {
            None => Some(("I04", format!("{place} holds {token:?}, which nobody sent there"))),
            Some((op, _)) if op.outcome == Outcome::Failed => {
                Some(("I04", format!("{place} holds what was refused: {op}")))
            }
            Some((op, expected)) if *expected != digest => {
                Some(("I06", format!("{place} has other bytes than were sent: {op}")))
            }
            Some(_) => None,
        };
        violations.extend(violation.map(|(id, what)| Violation { id, at, what }));
    };
    for op in history.ops().iter().filter(|op| op.is_ok()) {
        if let Action::Fetch {
            mailbox,
            uid,
            token,
            digest,
        } = &op.action
        {
            body(Some(op.invoked), mailbox, *uid, *token, *digest);
        }
    }
    for message in last {
        body(None, &message.mailbox, Some(message.uid), message.token, message.digest);
    }
    violations
}

/// How many of a token an account may have at the end.
#[derive(Default)]
struct Bounds {
    certain: i64,
    possible: i64,
}

/// I01 and I05: over all mailboxes of an account, as many of each token as operations explain.
fn counts(history: &History, tokens: &Tokens, sent: &SentBy<'_>, last: &[FinalMessage]) -> Vec<Violation> {
    let mut bounds: BTreeMap<(u32, Token), Bounds> = BTreeMap::new();
    let expunged = |outcome_ok: bool| -> BTreeSet<(MailboxKey, u32)> {
        let mut all = BTreeSet::new();
        for op in history.ops() {
            if let Action::Expunge { mailbox, uids } = &op.action
                && op.outcome != Outcome::Failed
                && op.is_ok() == outcome_ok
            {
                all.extend(uids.iter().map(|uid| (mailbox.clone(), *uid)));
            }
        }
        all
    };
    let (certainly, maybe) = (expunged(true), expunged(false));
    let mut moved = BTreeSet::new();
    let mut deleted = BTreeSet::new();
    // Sources whose content nobody saw: they may be anything.
    let (mut copies_unseen, mut expunges_unseen) = (BTreeMap::new(), BTreeMap::new());
    for op in history.ops().iter().filter(|op| op.outcome != Outcome::Failed) {
        let sure = i64::from(op.outcome != Outcome::Unknown);
        match &op.action {
            Action::Deliver { to, token, .. } | Action::Append { to, token, .. } => {
                let bounds = bounds.entry((to.account, *token)).or_default();
                bounds.certain += sure;
                bounds.possible += 1;
            }
            Action::Copy { from, pairs, .. } => {
                for (source, _) in pairs {
                    match tokens.token(from, *source) {
                        Some(token) => {
                            let bounds = bounds.entry((from.account, token)).or_default();
                            bounds.certain += sure;
                            bounds.possible += 1;
                        }
                        None => *copies_unseen.entry(from.account).or_insert(0) += 1,
                    }
                }
            }
            Action::Move { from, pairs, .. } => {
                moved.extend(pairs.iter().map(|(source, _)| (from.clone(), *source)));
            }
            Action::Delete { mailbox, .. } => {
                deleted.insert(mailbox.clone());
            }
            _ => {}
        }
    }
    for (mailbox, uid) in certainly.union(&maybe) {
        let place = (mailbox.clone(), *uid);
        let Some(token) = tokens.token(mailbox, *uid) else {
            *expunges_unseen.entry(mailbox.account).or_insert(0) += 1;
            continue;
        };
        let bounds = bounds.entry((mailbox.account, token)).or_default();
        bounds.certain -= 1;
        // What was also moved away may have gone that way instead.
        bounds.possible -= i64::from(certainly.contains(&place) && !moved.contains(&place));
    }
    let mut there: BTreeMap<(u32, Token), Vec<String>> = BTreeMap::new();
    for message in last {
        if let Some(token) = message.token {
            let place = format!("{} UID {}", message.mailbox, message.uid);
            there.entry((message.mailbox.account, token)).or_default().push(place);
        }
    }
    let mut violations = Vec::new();
    for ((account, token), (op, _)) in sent {
        let bounds = bounds.remove(&(*account, *token)).unwrap_or_default();
        let places = there.remove(&(*account, *token)).unwrap_or_default();
        let count = i64::try_from(places.len()).unwrap_or(i64::MAX);
        let touches = |mailbox: &&MailboxKey| {
            tokens.uids_of(mailbox, *token).next().is_some() || arrives_in(history, tokens, mailbox, *token)
        };
        let in_deleted = deleted.iter().any(|mailbox| touches(&mailbox));
        let least = bounds.certain - expunges_unseen.get(account).copied().unwrap_or(0);
        let most = bounds.possible + copies_unseen.get(account).copied().unwrap_or(0);
        if count < least && !in_deleted {
            let what = format!("{token} is there {count} times and not at least {least} ({places:?}): {op}");
            violations.push(Violation::new("I01", what));
        }
        if count > most.max(0) {
            let what = format!("{token} is there {count} times and not at most {most} ({places:?}): {op}");
            violations.push(Violation::new("I05", what));
        }
    }
    violations
}

fn arrives_in(history: &History, tokens: &Tokens, mailbox: &MailboxKey, token: Token) -> bool {
    history.ops().iter().any(|op| match &op.action {
        Action::Deliver { to, token: sent, .. } | Action::Append { to, token: sent, .. } => {
            to == mailbox && *sent == token
        }
        Action::Copy { from, to, pairs } | Action::Move { from, to, pairs } => {
            let carries = |(source, _): &(u32, Option<u32>)| tokens.token(from, *source).is_none_or(|one| one == token);
            to == mailbox && pairs.iter().any(carries)
        }
        _ => false,
    })
}

/// I01 and I09 per UID: what was told to be under a UID, and was never touched, is there; what was told to be gone is not.
fn places(history: &History, tokens: &Tokens, last: &[FinalMessage]) -> Vec<Violation> {
    let there: BTreeMap<(&MailboxKey, u32), Option<Token>> = last
        .iter()
        .map(|message| ((&message.mailbox, message.uid), message.token))
        .collect();
    let (mut told, mut gone, mut may_be_gone) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    let mut deleted = BTreeSet::new();
    for op in history.ops().iter().filter(|op| op.outcome != Outcome::Failed) {
        let ok = op.is_ok();
        match &op.action {
            Action::Append { to, uid: Some(uid), .. } if ok => {
                told.insert((to, *uid), op);
            }
            Action::Copy { from, to, pairs } | Action::Move { from, to, pairs } => {
                for (source, target) in pairs {
                    if let (Some(target), true) = (target, ok) {
                        told.insert((to, *target), op);
                    }
                    if matches!(op.action, Action::Move { .. }) {
                        may_be_gone.insert((from, *source));
                        if ok {
                            gone.insert((from, *source), op);
                        }
                    }
                }
            }
            Action::Expunge { mailbox, uids } => {
                for uid in uids {
                    may_be_gone.insert((mailbox, *uid));
                    if ok {
                        gone.insert((mailbox, *uid), op);
                    }
                }
            }
            Action::Delete { mailbox, .. } => {
                deleted.insert(mailbox);
            }
            Action::Read {
                mailbox,
                messages,
                some,
                ..
            } if ok => {
                for (uid, _) in messages.iter().flatten().chain(some) {
                    told.entry((mailbox, *uid)).or_insert(op);
                }
            }
            _ => {}
        }
    }
    let mut violations = Vec::new();
    for ((mailbox, uid), op) in &told {
        if may_be_gone.contains(&(*mailbox, *uid)) || deleted.contains(mailbox) {
            continue;
        }
        let known = tokens.token(mailbox, *uid);
        match there.get(&(*mailbox, *uid)) {
            None => {
                let what = format!("UID {uid} of {mailbox} ({known:?}) is gone, and nobody expunged it: {op}");
                violations.push(Violation::new("I01", what));
            }
            Some(token) if known.is_some() && token.is_some() && known != *token => {
                let what = format!("UID {uid} of {mailbox} was {known:?} and is {token:?}: {op}");
                violations.push(Violation::new("I08", what));
            }
            Some(_) => {}
        }
    }
    for ((mailbox, uid), op) in gone {
        if there.contains_key(&(mailbox, uid)) {
            let what = format!("UID {uid} of {mailbox} is there, and was gone: {op}");
            violations.push(Violation::at("I09", op.invoked, what));
        }
    }
    violations
}

#[cfg(test)]
mod tests;
