//! The words of the system as types, its limits, and the four interfaces through which everything outside reaches it.
//!
//! Every other crate may import this one; it imports none of ours.
//!
//! Not here, and never: IO, a clock that is read, randomness that is drawn, tokio, any protocol's grammar.
//! [`Disk`], [`Clock`], [`Entropy`] and [`BlockingPool`] are interfaces only; `platform` holds what stands behind them
//! in production, and the tests and the simulation hold theirs.

pub mod address;
pub mod codec;
pub mod disk;
pub mod ids;
pub mod interfaces;
pub mod kv;
pub mod limits;
pub mod mailbox;
pub mod mutants;
pub mod testing;

pub use address::{Address, Domain, LocalPart};
pub use disk::{Disk, DiskError, DiskErrorKind, File, OpenMode, WatchedDisk};
pub use ids::{
    AccountId, BlobId, EmailId, GroupId, Incarnation, MailboxGuid, MessageGuid, NodeId, OpId, QueueId, SiteId, Slot,
};
pub use interfaces::{BlockingPool, Clock, Entropy, UnixMillis};
pub use kv::{Batch, KvEngine, KvError, KvRead};
pub use mailbox::{Flags, Keyword, MailboxName, ModSeq, Uid, UidValidity};
