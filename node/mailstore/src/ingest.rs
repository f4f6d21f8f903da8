//! A message on its way in: hashed, compressed and scanned as its bytes come, never whole in memory.

use std::sync::Arc;

use blobstore::{BlobWriter, Sealed};
use core_types::limits::{BLOB_RESERVE_BYTES, MESSAGE_BYTES_MAX, MESSAGE_TRACE_BYTES_MAX, PROPOSE_RESERVE_BYTES};
use core_types::{BlobId, UnixMillis};

use crate::{MailStore, StoreError};

/// Takes a message's bytes. Dropped before [`MailStore::finish_ingest`], it leaves nothing behind.
pub struct Ingest {
    writer: BlobWriter,
    scanner: mime::Scanner,
    size: u64,
}

/// A message whose bytes are all here, on this node only and not durable yet.
#[derive(Clone)]
pub struct Ingested {
    pub(crate) sealed: Arc<Sealed>,
    pub(crate) structure: Vec<u8>,
    size: u64,
    received_at: UnixMillis,
}

impl MailStore {
    /// Whether this node has room for a message of so many octets: what a front end asks before the client sends it. A look
    /// at the disk each time, so that mail is taken again as soon as there is room.
    ///
    /// # Errors
    /// [`StoreError::Full`]; [`StoreError::Internal`].
    pub async fn check_room(&self, bytes: u64) -> Result<(), StoreError> {
        // Below the reserve the groups that this node leads would refuse the op after the client has sent everything.
        if self.inner.blobs.free_bytes().await? < bytes.saturating_add(PROPOSE_RESERVE_BYTES) {
            return Err(StoreError::Full);
        }
        Ok(())
    }

    /// Begins to take a message.
    #[must_use]
    pub fn ingest(&self) -> Ingest {
        Ingest {
            writer: self.inner.blobs.writer(),
            scanner: mime::Scanner::new(),
            size: 0,
        }
    }

    /// Ends a message: from now on it has a name.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Internal`].
    pub async fn finish_ingest(&self, ingest: Ingest) -> Result<Ingested, StoreError> {
        let structure = ingest.scanner.finish().to_bytes();
        let sealed = ingest.writer.finish().await?;
        Ok(Ingested {
            sealed: Arc::new(sealed),
            structure,
            size: ingest.size,
            received_at: self.inner.clock.now(),
        })
    }
}

impl Ingest {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] beyond [`MESSAGE_BYTES_MAX`] and the trace fields, [`StoreError::Full`], [`StoreError::Internal`].
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        // The trace fields that a front end puts in front do not make a message of the largest size too large.
        if self.size > MESSAGE_BYTES_MAX.saturating_add(MESSAGE_TRACE_BYTES_MAX) {
            return Err(StoreError::TooLarge("message"));
        }
        self.scanner.feed(bytes);
        Ok(self.writer.write(bytes).await?)
    }

    /// Octets so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Ingested {
    /// The name of its bytes.
    #[must_use]
    pub fn blob(&self) -> BlobId {
        self.sealed.id()
    }

    /// Octets.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When its last byte came.
    #[must_use]
    pub fn received_at(&self) -> UnixMillis {
        self.received_at
    }
}

const _: () = assert!(PROPOSE_RESERVE_BYTES >= BLOB_RESERVE_BYTES);
