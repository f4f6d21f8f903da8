//! Why the mail store did not do what it was asked. The front ends turn each kind into their protocol's words in one
//! table each.

use blobstore::BlobError;
use core_types::{BlobId, DiskError, DiskErrorKind, KvError};
use raft::consensus::{ProposeError, QueryError, Unavailable};
use state::{Outcome, ReadError, Refusal};

/// See the variants; who is at fault differs.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The state machine said no: the request does not fit the state. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not now: no majority, no replica, too few copies. Nothing was changed. Try again.
    #[error("not available now: {0}")]
    Unavailable(String),
    /// Nobody knows whether it was done.
    #[error("the outcome is not known")]
    Unknown,
    /// No space on the disk. Try again later.
    #[error("no space left on the disk")]
    Full,
    /// The message's bytes are on no node that can be reached, or damaged here and not to be had elsewhere.
    #[error("the bytes of message {0} cannot be had now")]
    BlobMissing(BlobId),
    /// Larger than a limit allows; which.
    #[error("too large: {0}")]
    TooLarge(&'static str),
    /// The disk or the index failed.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<Unavailable> for StoreError {
    fn from(error: Unavailable) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<QueryError> for StoreError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Unavailable(error) => error.into(),
            QueryError::State(error) => error.into(),
        }
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Kv(error) => error.into(),
            ReadError::Corrupt(what) => Self::Internal(what),
        }
    }
}

impl From<KvError> for StoreError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Full => Self::Full,
            error => Self::Internal(error.to_string()),
        }
    }
}

impl From<ProposeError> for StoreError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Unknown => Self::Unknown,
            ProposeError::TooLarge => Self::TooLarge("log entry"),
            ProposeError::Full => Self::Full,
            error => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> Self {
        match error.kind {
            DiskErrorKind::Full => Self::Full,
            _ => Self::Internal(error.to_string()),
        }
    }
}

impl From<BlobError> for StoreError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::NotFound(blob) | BlobError::Corrupt(blob) | BlobError::Unavailable(blob) => {
                Self::BlobMissing(blob)
            }
            BlobError::Full => Self::Full,
            BlobError::TooLarge(_) => Self::TooLarge("message"),
            error => Self::Internal(error.to_string()),
        }
    }
}

impl StoreError {
    /// An outcome that does not belong to the op that was proposed: a defect here, not the client's.
    pub(crate) fn unexpected(outcome: &Outcome) -> Self {
        Self::Internal(format!("unexpected outcome {outcome:?}"))
    }
}
