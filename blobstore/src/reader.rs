//! Reading a blob, by ranges, verified frame by frame.
//!
//! Invariant: no byte is handed out that was not verified against the blob's name. Memory: one frame for each reader.
//! A frame of a local file that is wrong sets the file aside; the reader then gives [`BlobError::Corrupt`], and whoever
//! knows the replicas reads on from them (see `fetch`).

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use core_types::BlobId;
use core_types::limits::BLOB_FRAME_BYTES;
use futures_util::Stream;

use crate::BlobStore;
use crate::error::BlobError;
use crate::fetch::RemoteBlob;
use crate::files::{Stored, lock};
use crate::run::run;
use crate::writer::Encoded;

/// An open blob. Clones share the last frame that was read.
#[derive(Clone)]
pub struct BlobReader {
    id: BlobId,
    len: u64,
    origin: Origin,
    last_frame: Arc<Mutex<Option<(usize, Bytes)>>>,
}

#[derive(Clone)]
enum Origin {
    Local {
        store: BlobStore,
        stored: Stored,
        /// Keeps a temporary file until it was read.
        _encoded: Option<Encoded>,
    },
    Remote(Arc<RemoteBlob>),
}

/// The chunks of a range, in order; none is empty or has more than 1 MiB.
pub struct RangeReader {
    reader: BlobReader,
    range: Range<u64>,
}

impl BlobReader {
    pub(crate) fn local(store: BlobStore, stored: Stored, encoded: Option<Encoded>) -> Self {
        Self {
            id: stored.id,
            len: stored.table.raw_len,
            origin: Origin::Local {
                store,
                stored,
                _encoded: encoded,
            },
            last_frame: Arc::default(),
        }
    }

    pub(crate) fn remote(remote: RemoteBlob) -> Self {
        Self {
            id: remote.id(),
            len: remote.raw_len(),
            origin: Origin::Remote(Arc::new(remote)),
            last_frame: Arc::default(),
        }
    }

    /// The blob's name.
    #[must_use]
    pub fn id(&self) -> BlobId {
        self.id
    }

    /// Octets of the message.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the message has no octets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads a range; what lies beyond the end is left out (RFC 9051 6.4.5 partial fetches may reach beyond it).
    #[must_use]
    pub fn read_range(&self, range: Range<u64>) -> RangeReader {
        let end = range.end.min(self.len);
        RangeReader {
            reader: self.clone(),
            range: range.start.min(end)..end,
        }
    }

    /// Reads a range that is known to be small into one buffer.
    ///
    /// # Errors
    /// [`BlobError::OutOfRange`] when the range, cut at the end, has more than `limit` octets; else as
    /// [`RangeReader::next`].
    pub async fn read(&self, range: Range<u64>, limit: usize) -> Result<Bytes, BlobError> {
        let mut chunks = self.read_range(range);
        let length = chunks.range.end - chunks.range.start;
        let length = usize::try_from(length).map_err(|_| BlobError::OutOfRange)?;
        if length > limit {
            return Err(BlobError::OutOfRange);
        }
        let mut first = Bytes::new();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk?;
            if chunk.len() == length {
                first = chunk;
            } else {
                bytes.extend_from_slice(&chunk);
            }
        }
        Ok(if first.is_empty() { bytes.into() } else { first })
    }

    async fn frame(&self, index: usize) -> Result<Bytes, BlobError> {
        if let Some((last, frame)) = lock(&self.last_frame).as_ref()
            && *last == index
        {
            return Ok(frame.clone());
        }
        let frame = match &self.origin {
            Origin::Remote(remote) => remote.frame(index).await?,
            Origin::Local { store, stored, .. } => {
                let job = stored.clone();
                let frame = run(store.pool(), move || job.frame(index)).await?;
                if matches!(frame, Err(BlobError::Corrupt(_))) {
                    store.set_aside(self.id).await?;
                }
                frame?
            }
        };
        *lock(&self.last_frame) = Some((index, frame.clone()));
        Ok(frame)
    }
}

impl RangeReader {
    /// The next chunk; `None` at the end of the range.
    ///
    /// # Errors
    /// [`BlobError::Corrupt`]; [`BlobError::Unavailable`] for a blob read from peers; errors of the disk.
    pub async fn next(&mut self) -> Option<Result<Bytes, BlobError>> {
        if self.range.start >= self.range.end {
            return None;
        }
        let frame_bytes = BLOB_FRAME_BYTES as u64;
        let index = self.range.start / frame_bytes;
        let frame = match self.reader.frame(usize::try_from(index).unwrap_or(usize::MAX)).await {
            Ok(frame) => frame,
            Err(error) => {
                self.range.start = self.range.end;
                return Some(Err(error));
            }
        };
        let within = |position: u64| {
            usize::try_from(position - index * frame_bytes)
                .unwrap_or(usize::MAX)
                .min(frame.len())
        };
        let chunk = frame.slice(within(self.range.start)..within(self.range.end));
        if chunk.is_empty() {
            self.range.start = self.range.end;
            return Some(Err(BlobError::Corrupt(self.reader.id)));
        }
        self.range.start += chunk.len() as u64;
        Some(Ok(chunk))
    }

    /// The chunks as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, BlobError>> + Send {
        futures_util::stream::unfold(self, |mut chunks| async move {
            chunks.next().await.map(|chunk| (chunk, chunks))
        })
    }
}
