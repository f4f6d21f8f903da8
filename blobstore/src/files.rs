//! The files of blobs: where they lie, how one gets its place, how one is read, set aside and removed.
//!
//! Everything here blocks and runs on the pool. Invariants: a file gets its name only when its bytes are synced, and it
//! counts only when its directory is; what is set aside was verified to be wrong under the same lock under which files
//! get their names, so that a good file is never moved away.
//!
//! Not here: the journal, which blobs are wanted, async.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use core_types::{BlobId, BlockingPool, Disk, DiskError, DiskErrorKind, File, OpenMode};

use crate::error::BlobError;
use crate::format::{self, Kind, TABLE_BYTES_MAX, Table};

/// Where blobs' files are.
pub(crate) struct Files {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) pool: Arc<dyn BlockingPool>,
    compress: bool,
    next_temp: AtomicU64,
    /// Directories that are known to be there, by their first two bytes.
    directories: Mutex<BTreeSet<[u8; 2]>>,
    /// Held while a file gets its name and while one is verified to be set aside.
    naming: Mutex<()>,
}

/// A blob's encoded bytes with their table: a file, or memory.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) id: BlobId,
    pub(crate) table: Arc<Table>,
    pub(crate) source: Source,
}

/// Where encoded bytes are.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    File(Arc<dyn File>),
    Memory(Bytes),
}

/// A file that is removed when nobody needs it any more, unless it got a name of its own.
pub(crate) struct TempFile {
    pub(crate) path: String,
    pub(crate) file: Arc<dyn File>,
    disk: Arc<dyn Disk>,
    pool: Arc<dyn BlockingPool>,
    placed: AtomicBool,
}

impl std::fmt::Debug for TempFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TempFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.placed.load(Ordering::Acquire) {
            let (disk, path) = (Arc::clone(&self.disk), std::mem::take(&mut self.path));
            // What cannot be removed now goes when the store is opened the next time.
            self.pool.execute(Box::new(move || drop(disk.remove(&path))));
        }
    }
}

impl Files {
    /// Makes the directories and removes what an earlier life left unfinished.
    pub(crate) fn open(disk: Arc<dyn Disk>, pool: Arc<dyn BlockingPool>, compress: bool) -> Result<Self, BlobError> {
        disk.remove_dir_all(TEMP_DIR)?;
        for directory in [BLOB_DIR, TEMP_DIR, QUARANTINE_DIR] {
            disk.create_dir_all(directory)?;
        }
        Ok(Self {
            disk,
            pool,
            compress,
            next_temp: AtomicU64::new(1),
            directories: Mutex::default(),
            naming: Mutex::default(),
        })
    }

    pub(crate) fn create_temp(&self) -> Result<TempFile, BlobError> {
        let path = format!("{TEMP_DIR}/{}", self.next_temp.fetch_add(1, Ordering::Relaxed));
        let file = self.disk.open(&path, OpenMode::CreateNew)?;
        Ok(TempFile {
            path,
            file,
            disk: Arc::clone(&self.disk),
            pool: Arc::clone(&self.pool),
            placed: AtomicBool::new(false),
        })
    }

    /// Opens a blob's file and verifies its table. `NotFound`, or `Corrupt` when there is a file but no good table.
    pub(crate) fn open_stored(&self, id: BlobId) -> Result<Stored, BlobError> {
        match self.disk.open(&compressed_path(id), OpenMode::Read) {
            Ok(file) => return open_compressed(id, file),
            Err(error) if error.kind == DiskErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let file = match self.disk.open(&plain_path(id), OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Err(BlobError::NotFound(id)),
            Err(error) => return Err(error.into()),
        };
        let beside = match self.disk.open(&beside_path(id), OpenMode::Read) {
            Ok(beside) => read_tail(&beside, beside.len()?)?,
            Err(error) if error.kind == DiskErrorKind::NotFound => return Err(BlobError::Corrupt(id)),
            Err(error) => return Err(error.into()),
        };
        let table = Table::decode_beside(id, &beside, file.len()?).map_err(|_| BlobError::Corrupt(id))?;
        Ok(Stored {
            id,
            table: Arc::new(table),
            source: Source::File(file),
        })
    }

    /// Whether there is a file, not looking into it.
    pub(crate) fn exists(&self, id: BlobId) -> bool {
        [compressed_path(id), plain_path(id)]
            .iter()
            .any(|path| self.disk.open(path, OpenMode::Read).is_ok())
    }

    /// Opens a blob's file and verifies every frame; its length on disk.
    pub(crate) fn verify(&self, id: BlobId) -> Result<u64, BlobError> {
        let stored = self.open_stored(id)?;
        for index in 0..stored.table.frames.len() {
            stored.frame(index)?;
        }
        Ok(stored.table.frames_len())
    }

    /// Writes an encoded blob to a temporary file and syncs it; with compression off, the message itself and its table.
    /// The blob's name is not there before [`Files::place`].
    pub(crate) fn prepare(&self, stored: &Stored) -> Result<Prepared, BlobError> {
        if self.compress && stored.table.kind == Kind::Zstd {
            let temp = self.create_temp()?;
            let mut offset = 0;
            for index in 0..stored.table.frames.len() {
                let bytes = stored.encoded(index)?;
                temp.file.write_at(offset, &bytes)?;
                offset += bytes.len() as u64;
            }
            temp.file.write_at(offset, &stored.table.encode_skippable())?;
            temp.file.sync_data()?;
            return Ok(Prepared {
                id: stored.id,
                file: Arc::new(temp),
                beside: None,
            });
        }
        let temp = self.create_temp()?;
        let mut offset = 0;
        for index in 0..stored.table.frames.len() {
            let raw = stored.frame(index)?;
            temp.file.write_at(offset, &raw)?;
            offset += raw.len() as u64;
        }
        temp.file.sync_data()?;
        let beside = self.create_temp()?;
        beside
            .file
            .write_at(0, &format::plain_table(&stored.table.outline()).encode())?;
        beside.file.sync_data()?;
        Ok(Prepared {
            id: stored.id,
            file: Arc::new(temp),
            beside: Some(beside),
        })
    }

    /// A temporary file that holds the encoded blob already, synced here; or its plain form.
    pub(crate) fn prepare_temp(&self, stored: &Stored, temp: &Arc<TempFile>) -> Result<Prepared, BlobError> {
        // One that has its name already, and is put again, is not at that name any more: it was wrong there.
        if !self.compress || temp.placed.load(Ordering::Acquire) {
            return self.prepare(stored);
        }
        temp.file.sync_data()?;
        Ok(Prepared {
            id: stored.id,
            file: Arc::clone(temp),
            beside: None,
        })
    }

    /// Gives prepared files their names, durably: one sync for each directory.
    pub(crate) fn place(&self, prepared: &[Prepared]) -> Result<(), BlobError> {
        let mut directories = BTreeSet::new();
        for blob in prepared {
            self.make_directory(blob.id)?;
            let _naming = lock(&self.naming);
            if let Some(beside) = &blob.beside {
                // The table first: a message without its table would count as corrupt.
                beside.name(&beside_path(blob.id))?;
                blob.file.name(&plain_path(blob.id))?;
            } else {
                blob.file.name(&compressed_path(blob.id))?;
            }
            directories.insert(directory(blob.id));
        }
        for directory in directories {
            self.disk.sync_dir(&directory)?;
        }
        Ok(())
    }

    /// Sets a blob's file aside if it is wrong indeed, or, with `unread_too`, if the disk does not read it; whether it was.
    pub(crate) fn quarantine(&self, id: BlobId, unread_too: bool) -> Result<bool, BlobError> {
        let _naming = lock(&self.naming);
        match self.verify(id) {
            Err(BlobError::Corrupt(_)) => {}
            Err(BlobError::Disk(_)) if unread_too => {}
            _ => return Ok(false),
        }
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        for (path, suffix) in [
            (compressed_path(id), "eml.zst"),
            (plain_path(id), "eml"),
            (beside_path(id), "eml.idx"),
        ] {
            match self
                .disk
                .rename(&path, &format!("{QUARANTINE_DIR}/{id}.{number}.{suffix}"))
            {
                Ok(()) => {}
                Err(error) if error.kind == DiskErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.disk.sync_dir(&directory(id))?;
        self.disk.sync_dir(QUARANTINE_DIR)?;
        Ok(true)
    }

    /// Removes a blob's file; octets that it had. The name is gone durably only after the directory's next sync: one that
    /// comes back is collected again.
    pub(crate) fn remove(&self, id: BlobId) -> Result<u64, BlobError> {
        let _naming = lock(&self.naming);
        let mut length = 0;
        for path in [compressed_path(id), plain_path(id), beside_path(id)] {
            match self.disk.open(&path, OpenMode::Read) {
                Ok(file) => length += file.len()?,
                Err(error) if error.kind == DiskErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            }
            self.disk.remove(&path)?;
        }
        Ok(length)
    }

    /// The blobs in one directory, by its first two bytes.
    pub(crate) fn list(&self, first: u8, second: u8) -> Result<Vec<BlobId>, BlobError> {
        let names = none_when_missing(self.disk.list(&format!("{BLOB_DIR}/{first:02x}/{second:02x}")))?;
        let mut ids: Vec<BlobId> = names
            .iter()
            .filter_map(|name| name.strip_suffix(".eml.zst").or_else(|| name.strip_suffix(".eml")))
            .filter_map(BlobId::parse_hex)
            .filter(|id| id.0.starts_with(&[first, second]))
            .collect();
        ids.dedup();
        Ok(ids)
    }

    /// The second bytes of the directories below one of the 256 first ones.
    pub(crate) fn list_seconds(&self, first: u8) -> Result<Vec<u8>, BlobError> {
        let names = none_when_missing(self.disk.list(&format!("{BLOB_DIR}/{first:02x}")))?;
        Ok(names
            .iter()
            .filter_map(|name| u8::from_str_radix(name, 16).ok())
            .collect())
    }

    /// Makes a name durable that was found.
    pub(crate) fn sync_directory_of(&self, id: BlobId) -> Result<(), BlobError> {
        Ok(self.disk.sync_dir(&directory(id))?)
    }

    fn make_directory(&self, id: BlobId) -> Result<(), BlobError> {
        let key = [byte(id, 0), byte(id, 1)];
        if !lock(&self.directories).contains(&key) {
            self.disk.create_dir_all(&directory(id))?;
            lock(&self.directories).insert(key);
        }
        Ok(())
    }
}

/// Synced temporary files that wait for their names.
pub(crate) struct Prepared {
    pub(crate) id: BlobId,
    file: Arc<TempFile>,
    beside: Option<TempFile>,
}

impl TempFile {
    fn name(&self, path: &str) -> Result<(), DiskError> {
        // A second put of the same file finds it under its name already.
        if !self.placed.load(Ordering::Acquire) {
            self.disk.rename(&self.path, path)?;
            self.placed.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Stored {
    /// From a whole encoded file in memory.
    pub(crate) fn from_memory(id: BlobId, file: Bytes) -> Result<Self, BlobError> {
        let tail = file
            .get(file.len().saturating_sub(TABLE_BYTES_MAX)..)
            .unwrap_or_default();
        let table = Table::decode_tail(id, tail, file.len() as u64)?;
        Ok(Self {
            id,
            table: Arc::new(table),
            source: Source::Memory(file),
        })
    }

    /// A frame's bytes as they are stored.
    pub(crate) fn encoded(&self, index: usize) -> Result<Bytes, BlobError> {
        let (offset, length) = self.table.place(index).ok_or(BlobError::OutOfRange)?;
        match &self.source {
            Source::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_| BlobError::OutOfRange)?;
                if start.saturating_add(length) > bytes.len() {
                    return Err(BlobError::Corrupt(self.id));
                }
                Ok(bytes.slice(start..start + length))
            }
            Source::File(file) => {
                let mut bytes = vec![0; length];
                match file.read_exact_at(offset, &mut bytes) {
                    Ok(()) => Ok(bytes.into()),
                    Err(error) if error.kind == DiskErrorKind::UnexpectedEnd => Err(BlobError::Corrupt(self.id)),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// A frame of the message, verified.
    pub(crate) fn frame(&self, index: usize) -> Result<Bytes, BlobError> {
        let encoded = self.encoded(index)?;
        let outline = self.table.outline();
        match self.table.kind {
            Kind::Plain if outline.frame_fits(index, &encoded) => Ok(encoded),
            Kind::Plain => Err(BlobError::Corrupt(self.id)),
            Kind::Zstd => outline
                .decode_frame(index, &encoded)
                .map(Bytes::from)
                .map_err(|_| BlobError::Corrupt(self.id)),
        }
    }

    /// A frame compressed, after it was verified: for a peer.
    pub(crate) fn verified_encoded(&self, index: usize) -> Result<Bytes, BlobError> {
        let raw = self.frame(index)?;
        match self.table.kind {
            Kind::Zstd => self.encoded(index),
            Kind::Plain => format::compress(&raw).map(Bytes::from),
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open_compressed(id: BlobId, file: Arc<dyn File>) -> Result<Stored, BlobError> {
    let length = file.len()?;
    let tail = read_tail(&file, length)?;
    let table = Table::decode_tail(id, &tail, length).map_err(|_| BlobError::Corrupt(id))?;
    Ok(Stored {
        id,
        table: Arc::new(table),
        source: Source::File(file),
    })
}

fn read_tail(file: &Arc<dyn File>, length: u64) -> Result<Vec<u8>, BlobError> {
    let count = length.min(TABLE_BYTES_MAX as u64);
    let mut tail = vec![0; usize::try_from(count).unwrap_or(TABLE_BYTES_MAX)];
    file.read_exact_at(length - count, &mut tail)?;
    Ok(tail)
}

fn none_when_missing(names: Result<Vec<String>, DiskError>) -> Result<Vec<String>, BlobError> {
    match names {
        Ok(names) => Ok(names),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn byte(id: BlobId, index: usize) -> u8 {
    id.0.get(index).copied().unwrap_or(0)
}

fn directory(id: BlobId) -> String {
    format!("{BLOB_DIR}/{:02x}/{:02x}", byte(id, 0), byte(id, 1))
}

/// Where a blob's file is when it is compressed.
pub(crate) fn compressed_path(id: BlobId) -> String {
    format!("{}/{id}.eml.zst", directory(id))
}

/// Where a blob's message is when it is not compressed.
pub(crate) fn plain_path(id: BlobId) -> String {
    format!("{}/{id}.eml", directory(id))
}

fn beside_path(id: BlobId) -> String {
    format!("{}/{id}.eml.idx", directory(id))
}

const BLOB_DIR: &str = "blobs";
/// A directory of our own below `tmp`: it is emptied when the store is opened.
const TEMP_DIR: &str = "tmp/blobs";
const QUARANTINE_DIR: &str = "quarantine";
