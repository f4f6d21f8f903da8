//! A disk that remembers that a sync failed, so that no caller can forget it.
//!
//! After the first failed sync, of whatever file or directory, somebody is told, and every later sync fails too: one that
//! works would prove nothing about what was written before, and nothing may be acknowledged on it.
//!
//! Not here: who is told, and what they do (the node stops).

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::{Disk, DiskError, DiskErrorKind, File, OpenMode};

/// Who is told of the first failed sync. Must not block.
pub type SyncHook = Box<dyn Fn(&DiskError) + Send + Sync>;

/// See the module.
pub struct WatchedDisk {
    disk: Arc<dyn Disk>,
    watch: Arc<Watch>,
}

struct Watch {
    first: OnceLock<DiskError>,
    tell: SyncHook,
}

struct WatchedFile {
    file: Arc<dyn File>,
    watch: Arc<Watch>,
}

impl WatchedDisk {
    /// Watches a disk. `tell` is called once, with the first failure.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, tell: SyncHook) -> Self {
        let watch = Watch {
            first: OnceLock::new(),
            tell,
        };
        Self {
            disk,
            watch: Arc::new(watch),
        }
    }
}

impl Watch {
    fn note<T>(&self, result: Result<T, DiskError>) -> Result<T, DiskError> {
        if let Err(error) = &result
            && error.kind == DiskErrorKind::SyncFailed
            && self.first.set(error.clone()).is_ok()
        {
            (self.tell)(error);
        }
        result
    }

    fn sync(&self, sync: impl FnOnce() -> Result<(), DiskError>) -> Result<(), DiskError> {
        match self.first.get() {
            Some(first) => Err(first.clone()),
            None => self.note(sync()),
        }
    }
}

impl fmt::Debug for WatchedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.fmt(f)
    }
}

impl Disk for WatchedDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<dyn File>, DiskError> {
        let file = self.watch.note(self.disk.open(path, mode))?;
        let watch = Arc::clone(&self.watch);
        Ok(Arc::new(WatchedFile { file, watch }))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        self.disk.list(path)
    }

    fn create_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.watch.note(self.disk.create_dir_all(path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.watch.note(self.disk.rename(from, to))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.watch.note(self.disk.remove(path))
    }

    fn remove_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.watch.note(self.disk.remove_dir_all(path))
    }

    fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        self.watch.sync(|| self.disk.sync_dir(path))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.disk.free_bytes()
    }
}

impl File for WatchedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.watch.note(self.file.write_at(offset, bytes))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.watch.sync(|| self.file.sync_data())
    }

    fn set_len(&self, length: u64) -> Result<(), DiskError> {
        self.watch.note(self.file.set_len(length))
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.file.len()
    }
}
