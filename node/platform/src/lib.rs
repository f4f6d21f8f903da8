//! What stands behind the interfaces of `core_types`.
//!
//! [`RealDisk`], [`SystemClock`], [`SystemEntropy`] and [`TokioPool`] are for production; [`FaultyDisk`] is a disk in
//! memory that loses what was not synced, tears writes, fills up, fails, slows down and rots on purpose, and [`InlinePool`] and
//! [`SeededEntropy`] go with it.
//!
//! Here, and in `node`, are the only calls of `std::fs`, of the system's clock and of its randomness.

mod faulty_disk;
mod real_disk;
mod system;

pub use faulty_disk::{
    BitFlip, CallClass, CallEvent, Delay, DiskCall, DiskHook, DiskImage, Effect, FaultRule, FaultyDisk, RuleId,
};
pub use real_disk::{LockError, RealDisk};
pub use system::{InlinePool, ManualClock, SeededEntropy, SystemClock, SystemEntropy, TokioPool};
