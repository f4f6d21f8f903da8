//! Message blobs: one file for each message, named by its BLAKE3 hash, durable on several nodes.
//!
//! A message comes in through a [`BlobWriter`] and becomes a [`Sealed`] blob, hashed and compressed once. [`BlobStore::put`]
//! makes it durable on this node, through the blob journal or straight in its file; a [`Replicator`] does so on all voters
//! of a group and gathers the receipts. A [`BlobReader`] gives ranges of it, each octet verified, from this node or from a
//! peer. [`Repair`], scrubbing and collection keep what is referred to, and only that.
//!
//! Not here, and never: what a message means, who may read it, which group refers to it, when passes run.

mod audit;
mod collect;
mod committer;
mod copies;
mod count;
mod error;
mod fetch;
mod files;
mod filing;
pub mod format;
pub mod fuzzing;
mod health;
mod journal;
mod manifest;
mod pins;
mod reader;
mod receiving;
mod repair;
mod replicator;
mod run;
mod service;
mod silent;
mod store;
#[cfg(test)]
mod testing;
mod wire;
mod writer;

pub use audit::Audit;
pub use collect::{CollectReport, IsReferenced, ScrubReport, Walk};
pub use error::BlobError;
pub use fetch::Fetcher;
pub use health::{BlobStatus, CorruptHook};
pub use manifest::{Manifest, ManifestLine, ManifestLines, OldFiles};
pub use reader::{BlobReader, RangeReader};
pub use repair::{Compared, References, ReferencesOf, Repair, RepairReport};
pub use replicator::Replicator;
pub use run::run;
pub use service::BlobService;
pub use store::{BlobConfig, BlobStore};
pub use writer::{BlobWriter, Encoded, Sealed, TempHandle};
