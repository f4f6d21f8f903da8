//! Taking a message in, piece by piece, whatever its length: hashed and compressed once.
//!
//! Memory: [`core_types::limits::MESSAGE_MEMORY_BYTES_MAX`] while the message comes in; what goes beyond is kept in a
//! scratch file until a frame is full, which then is compressed in one job of the pool (some 2 MiB while it runs). A
//! writer or a [`Sealed`] that is dropped takes its files with it.
//!
//! Not here: durability (see `store`).

use std::sync::Arc;

use bytes::Bytes;
use core_types::BlobId;
use core_types::limits::{BLOB_BYTES_MAX, BLOB_FRAME_BYTES};

use crate::error::BlobError;
use crate::files::{Files, Source, Stored, TempFile};
use crate::format::{self, Encoder, Table};
use crate::reader::BlobReader;
use crate::run::run;

/// Takes one message in.
pub struct BlobWriter {
    files: Arc<Files>,
    memory_max: usize,
    buffer: Vec<u8>,
    raw_len: u64,
    spool: Option<Spool>,
    /// A job was given up or failed: what was written is not known.
    broken: bool,
}

/// A whole message, hashed and encoded, not durable yet. Clones share its bytes.
#[derive(Clone, Debug)]
pub struct Sealed {
    stored: Stored,
    encoded: Encoded,
}

/// Where a sealed message's encoding is.
#[derive(Clone, Debug)]
pub enum Encoded {
    /// A small one: the whole file in memory.
    Memory(Bytes),
    /// A large one: a temporary file of the store.
    TempFile(TempHandle),
}

/// Keeps a temporary file while anybody holds it.
#[derive(Clone, Debug)]
pub struct TempHandle(pub(crate) Arc<TempFile>);

/// What a large message has on disk so far.
pub(crate) struct Spool {
    encoder: Encoder,
    target: TempFile,
    scratch: TempFile,
    scratch_len: usize,
}

impl BlobWriter {
    pub(crate) fn new(files: Arc<Files>, memory_max: usize) -> Self {
        Self {
            files,
            // Pieces have to fill frames exactly.
            memory_max: memory_max.clamp(1, BLOB_FRAME_BYTES),
            buffer: Vec::new(),
            raw_len: 0,
            spool: None,
            broken: false,
        }
    }

    /// Octets so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.raw_len
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.raw_len == 0
    }

    /// Octets of the message in memory now.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Takes the next octets.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`] above [`BLOB_BYTES_MAX`], [`BlobError::Full`]; the writer is of no use after an error.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), BlobError> {
        if self.broken {
            return Err(BlobError::Closed);
        }
        if self.raw_len.saturating_add(bytes.len() as u64) > BLOB_BYTES_MAX {
            self.broken = true;
            return Err(BlobError::TooLarge(BLOB_BYTES_MAX));
        }
        self.raw_len += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.piece_room() == 0 {
                self.spill().await?;
            }
            let room = self.piece_room().min(bytes.len());
            let (head, rest) = bytes.split_at(room);
            if self.buffer.capacity() - self.buffer.len() < head.len() {
                let more = (self.buffer.len() + head.len())
                    .next_power_of_two()
                    .min(self.memory_max);
                self.buffer.reserve_exact(more.saturating_sub(self.buffer.len()));
            }
            self.buffer.extend_from_slice(head);
            bytes = rest;
        }
        Ok(())
    }

    /// Ends the message.
    ///
    /// # Errors
    /// As [`BlobWriter::write`].
    pub async fn finish(mut self) -> Result<Sealed, BlobError> {
        if self.broken {
            return Err(BlobError::Closed);
        }
        let buffer = std::mem::take(&mut self.buffer);
        let Some(mut spool) = self.spool.take() else {
            let (id, table, file) = run(&self.files.pool, move || format::encode(&buffer)).await??;
            return Ok(Sealed::memory(id, table, file.into()));
        };
        run(&self.files.pool, move || {
            spool.add(&buffer)?;
            spool.end()
        })
        .await?
    }

    /// Octets that the buffer may still take: never past the end of a frame.
    fn piece_room(&self) -> usize {
        let on_disk = self.spool.as_ref().map_or(0, |spool| spool.scratch_len);
        let frame_room = BLOB_FRAME_BYTES.saturating_sub(on_disk + self.buffer.len());
        (self.memory_max - self.buffer.len()).min(frame_room)
    }

    async fn spill(&mut self) -> Result<(), BlobError> {
        self.broken = true;
        let (files, mut buffer, spool) = (
            Arc::clone(&self.files),
            std::mem::take(&mut self.buffer),
            self.spool.take(),
        );
        let (buffer, spool) = run(&self.files.pool, move || {
            let mut spool = match spool {
                Some(spool) => spool,
                None => Spool::new(&files)?,
            };
            spool.add(&buffer)?;
            buffer.clear();
            Ok::<_, BlobError>((buffer, spool))
        })
        .await??;
        self.buffer = buffer;
        self.spool = Some(spool);
        self.broken = false;
        Ok(())
    }
}

impl Spool {
    fn new(files: &Files) -> Result<Self, BlobError> {
        Ok(Self {
            encoder: Encoder::default(),
            target: files.create_temp()?,
            scratch: files.create_temp()?,
            scratch_len: 0,
        })
    }

    /// Takes a piece that does not reach past the end of the frame.
    fn add(&mut self, piece: &[u8]) -> Result<(), BlobError> {
        if self.scratch_len + piece.len() < BLOB_FRAME_BYTES {
            self.scratch.file.write_at(self.scratch_len as u64, piece)?;
            self.scratch_len += piece.len();
            return Ok(());
        }
        self.end_frame(piece)
    }

    fn end_frame(&mut self, piece: &[u8]) -> Result<(), BlobError> {
        let mut raw = vec![0; self.scratch_len];
        self.scratch.file.read_exact_at(0, &mut raw)?;
        raw.extend_from_slice(piece);
        if !raw.is_empty() {
            let offset = self.encoder.frames_len();
            let encoded = self.encoder.encode_frame(&raw)?;
            self.target.file.write_at(offset, &encoded)?;
        }
        self.scratch_len = 0;
        Ok(())
    }

    fn end(mut self) -> Result<Sealed, BlobError> {
        self.end_frame(&[])?;
        let (id, table) = self.encoder.finish();
        self.target
            .file
            .write_at(table.frames_len(), &table.encode_skippable())?;
        Ok(Sealed::temp(id, table, self.target))
    }
}

impl Sealed {
    pub(crate) fn memory(id: BlobId, table: Table, file: Bytes) -> Self {
        let source = Source::Memory(file.clone());
        Self {
            stored: Stored {
                id,
                table: Arc::new(table),
                source,
            },
            encoded: Encoded::Memory(file),
        }
    }

    pub(crate) fn temp(id: BlobId, table: Table, temp: TempFile) -> Self {
        let source = Source::File(Arc::clone(&temp.file));
        Self {
            stored: Stored {
                id,
                table: Arc::new(table),
                source,
            },
            encoded: Encoded::TempFile(TempHandle(Arc::new(temp))),
        }
    }

    /// The message's name.
    #[must_use]
    pub fn id(&self) -> BlobId {
        self.stored.id
    }

    /// Octets of the message.
    #[must_use]
    pub fn raw_len(&self) -> u64 {
        self.stored.table.raw_len
    }

    /// Octets that its file has.
    #[must_use]
    pub fn encoded_len(&self) -> u64 {
        self.stored.table.frames_len() + self.stored.table.encode_skippable().len() as u64
    }

    /// Its encoding.
    #[must_use]
    pub fn encoded(&self) -> &Encoded {
        &self.encoded
    }

    /// Reads it before it is stored, for example to parse it at its delivery.
    #[must_use]
    pub fn reader(&self, store: &crate::BlobStore) -> BlobReader {
        BlobReader::local(store.clone(), self.stored.clone(), Some(self.encoded.clone()))
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }
}
