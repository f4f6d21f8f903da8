//! The state machines of mailbox groups and of the directory group.
//!
//! `apply(view, command) -> (batch, outcome, effects)`: pure, deterministic and total. The same code runs under Raft, on
//! an island, in a merge, in property tests and in the simulation. UIDs, MODSEQs and UIDVALIDITYs are given here and
//! nowhere else.
//!
//! Not here, and never: IO, a clock, randomness, async, floats, the order of a hash map. Time, GUIDs and seeds are in the
//! command; the state is an ordered map of bytes ([`core_types::KvRead`]), which the caller owns.

pub mod apply;
pub mod command;
pub mod digest;
pub mod directory;
pub mod fuzzing;
pub mod group;
pub mod kept_engine;
mod keys;
pub mod lanes;
pub mod mailbox;
pub mod manifest;
pub mod memory_engine;
pub mod outcome;
pub mod overlay;
pub mod rows;
mod store;

pub use apply::{Applied, ApplyError, MachineKind, apply};
pub use command::{Command, DirectoryOp, GroupOp, MailboxOp, Op};
pub use kept_engine::KeptEngine;
pub use memory_engine::MemoryEngine;
pub use outcome::{Effect, Outcome, Refusal};
pub use overlay::Overlay;
pub use store::ReadError;
