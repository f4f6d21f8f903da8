//! What stands behind the interfaces of `core_types`.
//!
//! [`RealDisk`], [`SystemClock`], [`SystemEntropy`] and [`TokioPool`] are for production; [`FaultyDisk`] is a disk in
//! memory that loses what was not synced, tears writes, fills up and fails on purpose, and [`InlinePool`] and
//! [`SeededEntropy`] go with it.
//!
//! Here, and in `node`, are the only calls of `std::fs`, of the system's clock and of its randomness.

mod faulty_disk;
mod real_disk;
mod system;

pub use faulty_disk::{DiskCall, FaultyDisk};
pub use real_disk::{LockError, RealDisk};
pub use system::{InlinePool, ManualClock, SeededEntropy, SystemClock, SystemEntropy, TokioPool};
