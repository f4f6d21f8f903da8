//! The queue's worker: retries, back-off, expiry, delivery status notifications.
//!
//! The entries live in the state of mailbox groups (crate `state`); the leader of a group works them. An attempt is
//! announced in the group's log before it begins, so that no two nodes try at once, and a delivery into a mailbox here
//! repeats the GUID that the message got at its end of data: whatever is tried twice is delivered once.
//!
//! Not here: the rows and their rules, sending to other servers (such entries are held).

mod attempt;
mod dsn;
mod report;
mod schedule;
mod worker;

pub use dsn::{Action, Origin, Reported, Returned, Status, StatusReport};
pub use report::{Elsewhere, Reporter};
pub use worker::{Leads, Worker, run};
