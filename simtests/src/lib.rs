//! Deterministic simulation of whole clusters: the real node - front ends, mail store, Raft, blob store, QUIC with TLS - many
//! times in one process, over turmoil's network and virtual time, on simulated disks, driven by protocol clients.
//!
//! One seed is one history. Only what [`node::machine::Machine`] holds is exchanged.

#[cfg(not(tokio_unstable))]
compile_error!(
    "the simulation needs `--cfg tokio_unstable` (simtests/.cargo/config.toml); a RUSTFLAGS variable hides it. Use `cargo sim`."
);

pub mod book;
pub mod check;
pub mod child;
pub mod client;
pub mod host;
#[cfg(feature = "mutants")]
pub mod hunt;
pub mod inspect;
pub mod net;
pub mod os;
pub mod pool;
pub mod run;
pub mod scenario;
pub mod site;
pub mod tails;
pub mod tool;
pub mod trace;
pub mod workload;
