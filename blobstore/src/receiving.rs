//! A blob that arrives frame by frame from a peer: verified as it comes, kept in memory when small.
//!
//! Everything here blocks and runs on the pool. Memory: up to 1 MiB of encoded frames, then a temporary file.

use core_types::BlobId;
use core_types::limits::BLOB_INLINE_BYTES_MAX;

use crate::error::BlobError;
use crate::files::{Files, TempFile};
use crate::format::{Frame, Kind, Outline, Table, malformed};
use crate::writer::Sealed;

/// See the module.
pub(crate) struct Receiving {
    id: BlobId,
    outline: Outline,
    frames: Vec<Frame>,
    sink: Sink,
    len: u64,
    /// Octets that the file has more than were synced.
    unsynced: u64,
}

enum Sink {
    Memory(Vec<u8>),
    File(TempFile),
}

impl Receiving {
    /// Begins; the outline has to give the name.
    pub(crate) fn new(files: &Files, id: BlobId, outline: Outline) -> Result<Self, BlobError> {
        outline.verify(id)?;
        let sink = if outline.hashes.len() > 1 {
            Sink::File(files.create_temp()?)
        } else {
            Sink::Memory(Vec::new())
        };
        Ok(Self {
            id,
            outline,
            frames: Vec::new(),
            sink,
            len: 0,
            unsynced: 0,
        })
    }

    /// Frames that have arrived.
    pub(crate) fn count(&self) -> usize {
        self.frames.len()
    }

    pub(crate) fn id(&self) -> BlobId {
        self.id
    }

    /// Takes a frame; one that was taken already changes nothing.
    pub(crate) fn add(&mut self, index: usize, encoded: &[u8]) -> Result<(), BlobError> {
        if index < self.frames.len() {
            return Ok(());
        }
        if index != self.frames.len() {
            return Err(malformed("a frame is missing"));
        }
        let raw = self
            .outline
            .decode_frame(index, encoded)
            .map_err(|_| BlobError::WrongHash(self.id))?;
        match &mut self.sink {
            Sink::Memory(bytes) => bytes.extend_from_slice(encoded),
            Sink::File(temp) => {
                temp.file.write_at(self.len, encoded)?;
                self.unsynced += encoded.len() as u64;
                // So that the last sync, for which the other side waits, has little left to do.
                if self.unsynced >= SYNC_EVERY_BYTES {
                    temp.file.sync_data()?;
                    self.unsynced = 0;
                }
            }
        }
        self.len += encoded.len() as u64;
        self.frames.push(Frame {
            raw_len: u32::try_from(raw.len()).unwrap_or(u32::MAX),
            encoded_len: u32::try_from(encoded.len()).unwrap_or(u32::MAX),
            hash: self.outline.hashes.get(index).copied().unwrap_or_default(),
        });
        Ok(())
    }

    /// The whole blob.
    pub(crate) fn finish(self) -> Result<Sealed, BlobError> {
        if self.frames.len() != self.outline.hashes.len() {
            return Err(malformed("frames are missing"));
        }
        let table = Table {
            kind: Kind::Zstd,
            raw_len: self.outline.raw_len,
            frames: self.frames,
        };
        let tail = table.encode_skippable();
        match self.sink {
            Sink::Memory(mut bytes) => {
                bytes.extend_from_slice(&tail);
                Ok(Sealed::memory(self.id, table, bytes.into()))
            }
            Sink::File(temp) => {
                temp.file.write_at(self.len, &tail)?;
                Ok(Sealed::temp(self.id, table, temp))
            }
        }
    }
}

const SYNC_EVERY_BYTES: u64 = 8 * BLOB_INLINE_BYTES_MAX as u64;
