//! I13, I12: what DESIGN promises of reads ("SELECT, STATUS, NOOP and POP3 login see every write acknowledged anywhere
//! before the command began") judged as linearizability, mailbox by mailbox, and per account for the tree of names.
//!
//! A mailbox is judged twice: each message by itself, with its flags (cheap, nearly always decided), and all messages
//! together, without flags (stronger: a read shows one moment; exponential in the worst case).
//!
//! A COPY or MOVE between mailboxes is judged in each of the two by itself. UNSEEN and the other counters are not judged
//! here but when everything is quiet (see [`crate::dump`]).

mod message;
mod names;
mod resolve;
mod tighten;
mod whole;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::Violation;
use crate::history::{Action, History, MailboxKey, Op, Outcome};
use crate::linear::{Timed, Verdict, check};
use tighten::tighten;

pub use resolve::Tokens;

/// What the checks of linearizability found.
#[derive(Clone, Debug, Default)]
pub struct Judgement {
    /// What is proven wrong.
    pub violations: Vec<Violation>,
    /// What was not decided within the budget.
    pub gave_up: Vec<String>,
    /// How many checks were decided.
    pub decided: usize,
}

impl Judgement {
    fn add(&mut self, what: &str, id: &'static str, verdict: Verdict) {
        match verdict {
            Verdict::Linearizable => self.decided += 1,
            Verdict::Violated(why) => {
                self.decided += 1;
                self.violations
                    .push(Violation::new(id, format!("{what} is not linearizable: {why}")));
            }
            Verdict::GaveUp => self.gave_up.push(what.to_owned()),
        }
    }
}

/// Judges all mailboxes and all trees of names of a history; `budget` bounds the states looked at in each check (100,000
/// take about a second).
#[must_use]
pub fn judge(history: &History, budget: usize) -> Judgement {
    let mut judgement = Judgement::default();
    let (tokens, conflicts) = Tokens::of(history);
    judgement.violations.extend(conflicts);
    for mailbox in mailboxes(history) {
        let (model, ops) = whole::of(history, &tokens, &mailbox);
        let mut narrowed = ops.clone();
        tighten(&mut narrowed, model.count());
        // Where it fails, the history is searched as it was: that tells better what does not fit.
        let verdict = match check(&model, &narrowed, budget) {
            Verdict::Violated(why) => match check(&model, &ops, budget) {
                Verdict::GaveUp => Verdict::Violated(why),
                verdict => verdict,
            },
            verdict => verdict,
        };
        judgement.add(&format!("the set of messages of {mailbox}"), "I13", verdict);
        let arrivals = tokens.arrivals(history, &mailbox);
        let touching: Vec<&Op> = history.ops().iter().filter(|op| touches(op, &mailbox)).collect();
        for uid in tokens.uids(history, &mailbox) {
            let ops = message::of(&touching, &arrivals, &tokens, &mailbox, uid);
            let what = format!("UID {uid} of {mailbox}");
            judgement.add(&what, "I12", check(&message::Message, &ops, budget));
        }
    }
    let accounts: BTreeSet<u32> = history.ops().iter().filter_map(names::account).collect();
    for account in accounts {
        let ops = names::of(history, account);
        let what = format!("the tree of mailboxes of user{account}");
        judgement.add(&what, "I16", check(&names::Names, &ops, budget));
    }
    judgement
}

/// All mailboxes that a history touches.
#[must_use]
pub fn mailboxes(history: &History) -> BTreeSet<MailboxKey> {
    history.ops().iter().flat_map(touched).flatten().cloned().collect()
}

fn touches(op: &Op, mailbox: &MailboxKey) -> bool {
    op.outcome != Outcome::Failed && touched(op).into_iter().flatten().any(|touched| touched == mailbox)
}

/// The mailboxes that an operation touches.
fn touched(op: &Op) -> [Option<&MailboxKey>; 2] {
    match &op.action {
        Action::Deliver { to, .. } | Action::Append { to, .. } => [Some(to), None],
        Action::Copy { from, to, .. } | Action::Move { from, to, .. } => [Some(from), Some(to)],
        Action::Store { mailbox, .. }
        | Action::Expunge { mailbox, .. }
        | Action::Delete { mailbox, .. }
        | Action::Read { mailbox, .. }
        | Action::Fetch { mailbox, .. } => [Some(mailbox), None],
        Action::Create { .. } | Action::Rename { .. } | Action::List { .. } => [None, None],
    }
}

fn timed<O>(op: &Op, what: O) -> Timed<O> {
    Timed {
        op: what,
        invoked: op.invoked,
        ended: op.deadline(),
    }
}
