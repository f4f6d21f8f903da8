//! Consensus: openraft behind our own face, the shared log, snapshots, the index engine, group membership.

pub mod log;
mod log_store;
mod types;
