//! Consensus: openraft behind our own face, the shared log, snapshots, the index engine, group membership.
//!
//! [`Groups`] holds this node's replica of each group; a [`Group`] takes commands and gives reads. Commands go through the
//! leader's log ([`log`], one for all groups of the node) and are applied by the crate `state` to the group's part of the
//! index ([`index`]). Only this crate knows openraft, and nothing of it shows outside.
//!
//! Not here: what commands mean (`state`), connections (`transport`), bytes of messages (`blobstore`), which groups there are
//! (the directory).

mod blocking;
mod config;
pub mod consensus;
mod frame;
pub mod fuzzing;
mod generation;
mod group;
mod groups;
pub mod index;
pub mod local;
pub mod log;
mod log_store;
mod machine;
mod network;
pub mod outside;
mod receipts;
mod repair;
mod replica;
mod snapshot;
mod space;
mod transfer;
mod types;

#[cfg(test)]
mod tests;

pub use config::{BarrierError, Config, GroupError, OpenError, Proposed, RepairError, Timers};
pub use group::{Group, GroupStatus, MembershipStatus, Role};
pub use groups::{Dependencies, Groups};
pub use repair::Ailing;
