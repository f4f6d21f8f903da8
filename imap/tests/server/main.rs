//! Stories of IMAP sessions, told on the wire, over the real mail store of one node in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

mod client;
mod login;
mod mailboxes;
mod messages;
mod model;
mod robustness;
mod sharing;
