//! The disk as the system sees it: files that lose what was not synced, and directories that do too.
//!
//! All calls block; on an async thread they go through [`crate::BlockingPool`]. Paths are relative to the node's data
//! directory, with `/` between components; an absolute path or `..` is refused.

mod watched;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use watched::{SyncHook, WatchedDisk};

/// A node's data directory.
///
/// Durability is explicit: bytes are durable after [`File::sync_data`], and a name (created, renamed or removed) after
/// [`Disk::sync_dir`] of the directory that holds it. Whoever sees a sync fail must stop using what it wrote: see
/// [`DiskErrorKind::SyncFailed`].
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound` for a missing file unless the mode creates it, `AlreadyExists` for [`OpenMode::CreateNew`].
    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<dyn File>, DiskError>;

    /// The names in a directory, in ascending order, without `.` and `..`.
    ///
    /// # Errors
    /// `NotFound` when there is no such directory.
    fn list(&self, path: &str) -> Result<Vec<String>, DiskError>;

    /// Creates a directory and its parents; does nothing if it is there. Each new name is durable on return.
    ///
    /// # Errors
    /// As the system reports them.
    fn create_dir_all(&self, path: &str) -> Result<(), DiskError>;

    /// Gives a file another name, atomically, in place of what had it. Durable after [`Disk::sync_dir`] of both
    /// directories.
    ///
    /// # Errors
    /// As the system reports them.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` when it is not there.
    fn remove(&self, path: &str) -> Result<(), DiskError>;

    /// Removes a directory and everything in it; nothing if it is not there.
    ///
    /// # Errors
    /// As the system reports them.
    fn remove_dir_all(&self, path: &str) -> Result<(), DiskError>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Any error is `SyncFailed`.
    fn sync_dir(&self, path: &str) -> Result<(), DiskError>;

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// As the system reports them.
    fn free_bytes(&self) -> Result<u64, DiskError>;
}

/// An open file. Offsets are in bytes. Concurrent calls are allowed; overlapping writes are the caller's to order.
pub trait File: Send + Sync + fmt::Debug {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 only at or beyond the end.
    ///
    /// # Errors
    /// As the system reports them.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError>;

    /// Writes all bytes at `offset`, growing the file where needed. Not durable before [`File::sync_data`].
    ///
    /// # Errors
    /// `Full` when there is no space; part of the bytes may have been written then.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes what was written, and the file's length, durable (fdatasync).
    ///
    /// # Errors
    /// Any error is `SyncFailed`: what was written since the last sync is in an unknown state, for good.
    fn sync_data(&self) -> Result<(), DiskError>;

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// As the system reports them.
    fn set_len(&self, length: u64) -> Result<(), DiskError>;

    /// The file's length in bytes.
    ///
    /// # Errors
    /// As the system reports them.
    fn len(&self) -> Result<u64, DiskError>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As [`File::len`].
    fn is_empty(&self) -> Result<bool, DiskError> {
        Ok(self.len()? == 0)
    }
}

impl dyn File {
    /// Reads exactly `buffer.len()` bytes at `offset`.
    ///
    /// # Errors
    /// `UnexpectedEnd` when the file ends before.
    pub fn read_exact_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), DiskError> {
        while !buffer.is_empty() {
            let count = self.read_at(offset, buffer)?;
            if count == 0 {
                return Err(DiskError::new(DiskErrorKind::UnexpectedEnd, "file", "file ends early"));
            }
            offset += count as u64;
            buffer = buffer.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }
}

impl dyn File {
    /// Reads `buffer.len()` bytes at `offset` as far as the disk reads them: gives the ranges of the file that it does not
    /// read, also when it is asked several times. They are zeros in the buffer, which says nothing about what they held.
    ///
    /// # Errors
    /// `UnexpectedEnd` when the file ends before; that of the disk when it reads nothing at all.
    pub fn read_around_at(&self, offset: u64, buffer: &mut [u8]) -> Result<Vec<Range<u64>>, DiskError> {
        let Err(mut last) = self.read_trying(offset, buffer) else {
            return Ok(Vec::new());
        };
        if last.kind != DiskErrorKind::Other {
            return Err(last);
        }
        let mut unread: Vec<Range<u64>> = Vec::new();
        let mut has_read = false;
        let mut place = offset;
        for piece in buffer.chunks_mut(READ_PIECE_BYTES) {
            let end = place + piece.len() as u64;
            match self.read_trying(place, piece) {
                Ok(()) => has_read = true,
                Err(error) if error.kind != DiskErrorKind::Other => return Err(error),
                Err(error) => {
                    piece.fill(0);
                    last = error;
                    match unread.last_mut().filter(|before| before.end == place) {
                        Some(before) => before.end = end,
                        None => unread.push(place..end),
                    }
                }
            }
            place = end;
        }
        if has_read { Ok(unread) } else { Err(last) }
    }

    fn read_trying(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut result = self.read_exact_at(offset, buffer);
        for _ in 1..READ_ATTEMPTS {
            if !matches!(&result, Err(error) if error.kind == DiskErrorKind::Other) {
                break;
            }
            result = self.read_exact_at(offset, buffer);
        }
        result
    }
}

/// What of a file counts as unread where the disk does not read it: a sector of today's disks.
const READ_PIECE_BYTES: usize = 4096;
/// How often a read is tried that may fail for a moment.
const READ_ATTEMPTS: u32 = 5;

/// How [`Disk::open`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A new file, to read and write; an error if the name is taken.
    CreateNew,
    /// An existing or new file, to read and write; its bytes are kept.
    CreateOrOpen,
}

/// What went wrong on the disk, and where.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{path}: {detail}")]
pub struct DiskError {
    /// The kind, which decides what the caller does.
    pub kind: DiskErrorKind,
    /// The path, relative to the data directory.
    pub path: String,
    /// The system's words.
    pub detail: String,
}

impl DiskError {
    /// An error at a path.
    #[must_use]
    pub fn new(kind: DiskErrorKind, path: &str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            path: path.to_owned(),
            detail: detail.into(),
        }
    }
}

/// The kinds of disk error that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No such file or directory.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// No space left (also quota of the file system).
    Full,
    /// The file ends before the bytes asked for.
    UnexpectedEnd,
    /// A sync failed. What was written since the last good sync is in an unknown state, and a later sync that works
    /// proves nothing about it: the node stops.
    SyncFailed,
    /// Anything else: permissions, EIO, a bad path.
    Other,
}
