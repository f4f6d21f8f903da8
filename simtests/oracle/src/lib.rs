//! The pure parts of the simulation: what happens to a cluster, what its clients were told, and the judgement of both.
//!
//! No clock, no IO, no async, no randomness but a seed's: everything here can be tried without a cluster, and is, with
//! clean histories that have to pass and planted violations that have to be found.
//!
//! | module | what | ids |
//! | --- | --- | --- |
//! | [`schedule`] | faults as data: a seed's random schedule that has to be survivable, as text, shrunk | |
//! | [`history`] | the record of what clients did and were told | I33 |
//! | [`message`] | messages that tell by themselves what they are | |
//! | [`mail`] | acknowledged mail is there once with its bytes, and nothing else is | I01 I04 I05 I06 I08 I09 |
//! | [`mailbox`] | linearizability of reads, flags and names ([`linear`] is the checker) | I08 I12 I13 I16 |
//! | [`numbering`] | UIDs, UIDVALIDITY, MODSEQs, UIDLs, by clients that keep copies | U1..U4 I07 I09 I10 I11 |
//! | [`session`] | the view of one IMAP session | S01..S06 |
//! | [`dump`] | equality of nodes, counters against sums, the tree of mailboxes | I07 I09 I10 I12 I15 I16 |
//! | [`raft`] | Raft's own, and one state per log index | I23 I24 |
//! | [`judge`] | all of these in one place | |
//! | [`coverage`] | how often each fault and rare branch was really hit | |
//!
//! Not here: what needs the cluster itself (durable copies at the acknowledgement, blobs, memory, tasks, liveness).
//!
//! # Use
//!
//! ```
//! use oracle::coverage::Coverage;
//! use oracle::history::{Action, MailboxKey, Outcome, Token};
//! use oracle::judge::{Judge, Last};
//! use oracle::mail::FinalMessage;
//! use oracle::message::{compose, digest};
//! use oracle::schedule::{Atlas, FaultKind, Schedule, Step, shrink};
//! use oracle::time::Time;
//! use oracle::Violation;
//!
//! // Stands for a cluster under turmoil.
//! fn run(schedule: &Schedule, coverage: &mut Coverage) -> Vec<Violation> {
//!     for (_at, step) in schedule.steps() {
//!         if let Step::Begin(place) = step {
//!             coverage.hit(&format!("fault.{}", schedule.events[place].fault.kind()));
//!         }
//!     }
//!     let (inbox, token) = (MailboxKey::new(1, "INBOX"), Token(1));
//!     let digest = digest(&compose(token, 2000));
//!     let mut judge = Judge::new();
//!     let deliver = Action::Deliver { to: inbox.clone(), token, digest };
//!     let op = judge.history.invoke(1, 2, Time(1_000), deliver);
//!     judge.history.end(op, Time(9_000), Outcome::Ok, |_| {});
//!     // A bug: whoever crashed lost it.
//!     let mut last = Last::default();
//!     if !schedule.events.iter().any(|event| event.fault.kind() == FaultKind::Crash) {
//!         let message = FinalMessage { mailbox: inbox, uid: 1, token: Some(token), digest, flags: Default::default() };
//!         last.messages.push(message);
//!     }
//!     judge.finish(Time(60_000_000), &last, schedule.duration, 100_000).violations
//! }
//!
//! let atlas = Atlas::site(3).without(&[FaultKind::Membership]);
//! let mut coverage = Coverage::new();
//! let failing = (0..100).map(|seed| atlas.schedule(seed)).find(|schedule| {
//!     let mut of_run = Coverage::of_one_run();
//!     let failed = !run(schedule, &mut of_run).is_empty();
//!     coverage.merge(&of_run);
//!     failed
//! });
//! let small = shrink(&failing.unwrap(), 500, |schedule| !run(schedule, &mut Coverage::new()).is_empty());
//! assert_eq!(small.schedule.events.len(), 1);
//! assert_eq!(Schedule::parse(&small.schedule.to_string()), Ok(small.schedule));
//! ```

pub mod coverage;
pub mod dump;
pub mod history;
pub mod judge;
pub mod linear;
pub mod mail;
pub mod mailbox;
pub mod message;
#[cfg(test)]
mod naive;
pub mod numbering;
pub mod raft;
pub mod rng;
pub mod schedule;
pub mod session;
pub mod time;
mod violation;

pub use violation::Violation;
