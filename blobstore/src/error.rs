//! What can go wrong with blobs, by who has to do something about it.

use core_types::codec::CodecError;
use core_types::{BlobId, DiskError, DiskErrorKind};

/// Why a blob was not stored, read or removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BlobError {
    /// It is not here; peers may have it.
    #[error("blob {0} is not here")]
    NotFound(BlobId),
    /// Its bytes here are not what its name says. The file was set aside, and nothing of the wrong part was served.
    #[error("blob {0} is corrupt")]
    Corrupt(BlobId),
    /// Bytes that a peer sent do not give the blob that it named.
    #[error("the bytes received do not hash to {0}")]
    WrongHash(BlobId),
    /// No node that was asked has the blob, or none could be reached.
    #[error("no reachable node has blob {0}")]
    Unavailable(BlobId),
    /// No space left; may pass.
    #[error("no space left for blobs")]
    Full,
    /// A sync failed, now or before: the store takes nothing any more, and the node has to stop.
    #[error("a sync failed: {0}")]
    SyncFailed(String),
    /// The message has more octets than the limit.
    #[error("a blob has at most {0} octets")]
    TooLarge(u64),
    /// The range does not lie within the blob.
    #[error("the range is beyond the blob's end")]
    OutOfRange,
    /// Bytes that do not follow a format.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The store is closed, or the work was given up.
    #[error("the blob store is closed")]
    Closed,
    /// Another error of the disk.
    #[error(transparent)]
    Disk(DiskError),
    /// A peer refused or did not answer.
    #[error("peer: {0}")]
    Peer(String),
}

impl From<DiskError> for BlobError {
    fn from(error: DiskError) -> Self {
        match error.kind {
            DiskErrorKind::Full => Self::Full,
            DiskErrorKind::SyncFailed => Self::SyncFailed(error.to_string()),
            _ => Self::Disk(error),
        }
    }
}

impl From<CodecError> for BlobError {
    fn from(error: CodecError) -> Self {
        Self::Malformed(error.to_string())
    }
}
