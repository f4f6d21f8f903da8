//! A message's bytes and structure, verified before a byte of them is handed out.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use blobstore::{BlobError, BlobReader, Fetcher};
use bytes::Bytes;
use core_types::{BlobId, NodeId};
use mime::Structure;
use state::rows::MessageRow;

use crate::{AccountMail, MailStore, StoreError};

/// A message's bytes, to be read in pieces.
pub struct MessageBytes {
    /// Another one after the copy here turned out damaged, or could not be read.
    reader: Mutex<BlobReader>,
    blob: BlobId,
    size: u64,
    fetcher: Fetcher,
    /// Those that may have it.
    nodes: Vec<NodeId>,
}

impl MessageBytes {
    /// Octets of the whole message.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The bytes of a range, at most one frame (1 MiB) of them: what follows is asked for with a later start. Empty at or
    /// beyond the end.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`] when the bytes turn out damaged and no other node has them; errors of the disk when it
    /// does not read them and no other node has them.
    pub async fn read(&self, range: Range<u64>) -> Result<Bytes, StoreError> {
        let reader = self.reader().clone();
        // Another node's copy is read on from the same place.
        let reader = match reader.read_range(range.clone()).next().await.transpose() {
            // The one here was set aside.
            Err(BlobError::Corrupt(_)) => self.fetcher.open_blob(self.blob, &self.nodes).await?,
            // The one here may be good, and would be opened again.
            Err(error @ BlobError::Disk(_)) => {
                tracing::warn!(blob = %self.blob, %error, "read from a peer instead");
                let elsewhere = self.fetcher.open_elsewhere(self.blob, &self.nodes).await;
                elsewhere.map_err(|_| error)?
            }
            piece => return Ok(piece?.unwrap_or_default()),
        };
        *self.reader() = reader.clone();
        let piece = reader.read_range(range).next().await.transpose()?;
        Ok(piece.unwrap_or_default())
    }

    fn reader(&self) -> MutexGuard<'_, BlobReader> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All bytes of a range, which the caller knows to be small.
    ///
    /// # Errors
    /// As [`MessageBytes::read`].
    pub async fn read_all(&self, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let end = range.end.min(self.size());
        let mut start = range.start;
        let mut bytes = Vec::new();
        while start < end {
            let piece = self.read(start..end).await?;
            if piece.is_empty() {
                break;
            }
            start += piece.len() as u64;
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

impl MailStore {
    /// Opens a message's bytes: here, or, when this node lacks them, from another.
    ///
    /// # Errors
    /// [`StoreError::BlobMissing`] when no node that can be reached has them.
    pub async fn open_blob(&self, blob: BlobId) -> Result<MessageBytes, StoreError> {
        let nodes = self.blob_nodes();
        let reader = self.inner.fetcher.open_blob(blob, &nodes).await?;
        Ok(MessageBytes {
            blob,
            size: reader.len(),
            reader: Mutex::new(reader),
            fetcher: self.inner.fetcher.clone(),
            nodes,
        })
    }

    /// The nodes that may have the blobs of this node's groups: first those that vote in one of them, then those that only
    /// follow.
    #[must_use]
    pub fn blob_nodes(&self) -> Vec<NodeId> {
        let (mut voters, mut learners) = (BTreeSet::new(), BTreeSet::new());
        for group in self.inner.groups.groups() {
            if let Ok(membership) = self.inner.groups.membership(group) {
                voters.extend(membership.voters);
                learners.extend(membership.learners);
            }
        }
        let learners = learners.difference(&voters);
        voters.iter().chain(learners).copied().collect()
    }
}

impl AccountMail {
    /// Opens a message's bytes.
    ///
    /// # Errors
    /// As [`MailStore::open_blob`].
    pub async fn open(&self, message: &MessageRow) -> Result<MessageBytes, StoreError> {
        self.store().open_blob(message.blob).await
    }

    /// A message's part tree and envelope: from the index, or made from its bytes where the index does not keep it or
    /// keeps an older version of it.
    ///
    /// # Errors
    /// As [`MailStore::open_blob`].
    pub async fn structure(&self, message: &MessageRow) -> Result<Structure, StoreError> {
        let kept = self.read(|reader| reader.structure_of_blob(message.blob)).await?;
        if let Some(structure) = kept
            .filter(|bytes| !bytes.is_empty())
            .and_then(|bytes| Structure::from_bytes(&bytes).ok())
        {
            return Ok(structure);
        }
        let bytes = self.open(message).await?;
        let mut scanner = mime::Scanner::new();
        let mut start = 0;
        loop {
            let piece = bytes.read(start..bytes.size()).await?;
            if piece.is_empty() {
                return Ok(scanner.finish());
            }
            start += piece.len() as u64;
            scanner.feed(&piece);
        }
    }
}
