//! Composition: configuration, start order, listeners, signals, health.
//!
//! The only crate that builds the whole. Not here: a rule of mail, of Raft, or of a protocol.

mod agreement;
mod care;
mod checks;
pub mod commands;
pub mod config;
mod departure;
mod face;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fence;
mod files;
mod follow;
mod listen;
pub mod machine;
mod manifests;
mod members;
mod metrics;
mod placement;
pub mod quickstart;
pub mod recover;
mod repair;
mod report;
mod start;
mod tls;

pub use start::{Node, StartError};
