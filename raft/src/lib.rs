//! Consensus: openraft behind our own face, the shared log, snapshots, the index engine, group membership.

mod types;
