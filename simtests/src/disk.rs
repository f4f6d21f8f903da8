//! One life's view of a node's simulated disk: the power can go at any call, and every call is in the trace.
//!
//! What was not synced when the power went is lost, kept or torn by [`FaultyDisk::crash`].

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::Arc;

use core_types::{Disk, DiskError, DiskErrorKind, File, OpenMode};
use platform::FaultyDisk;

use crate::trace::Trace;

/// What one life of a node runs on.
#[derive(Debug)]
pub struct Power {
    on: AtomicBool,
    /// Calls that still pass; negative: any number.
    fuse: AtomicI64,
}

impl Power {
    /// Power, without end.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            on: AtomicBool::new(true),
            fuse: AtomicI64::new(-1),
        })
    }

    /// The power goes at the disk call after this many.
    pub fn blow_after(&self, calls: u32) {
        self.fuse.store(i64::from(calls), Ordering::SeqCst);
    }

    /// No call passes from now on.
    pub fn cut(&self) {
        self.on.store(false, Ordering::SeqCst);
    }

    /// Whether calls pass.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::SeqCst)
    }

    fn tick(&self) {
        let left = self.fuse.load(Ordering::SeqCst);
        if left == 0 {
            self.cut();
        }
        if left > 0 {
            self.fuse.store(left - 1, Ordering::SeqCst);
        }
    }
}

/// One life's view of a disk.
#[derive(Clone)]
pub struct SimDisk {
    /// What is on it.
    pub disk: FaultyDisk,
    /// Whose it is.
    pub name: String,
    /// Without it no call passes.
    pub power: Arc<Power>,
    /// Where calls are noted.
    pub trace: Trace,
}

impl SimDisk {
    fn with<T>(&self, kind: &str, path: &str, bytes: &[u8], act: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
        self.power.tick();
        if !self.power.is_on() {
            return Err(DiskError::new(DiskErrorKind::Other, path, "there is no power"));
        }
        self.trace.note(&self.name, kind, path, bytes);
        act()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<dyn File>, DiskError> {
        let file = self.with("open", path, &[], || self.disk.open(path, mode))?;
        Ok(Arc::new(SimFile {
            path: path.to_owned(),
            file,
            disk: self.clone(),
        }))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        self.with("list", path, &[], || self.disk.list(path))
    }

    fn create_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.with("mkdir", path, &[], || self.disk.create_dir_all(path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.with("rename", from, to.as_bytes(), || self.disk.rename(from, to))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.with("remove", path, &[], || self.disk.remove(path))
    }

    fn remove_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.with("rmdir", path, &[], || self.disk.remove_dir_all(path))
    }

    fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        self.with("syncdir", path, &[], || self.disk.sync_dir(path))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.with("free", "", &[], || self.disk.free_bytes())
    }
}

struct SimFile {
    path: String,
    file: Arc<dyn File>,
    disk: SimDisk,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.path)
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.disk.with("read", &self.path, &offset.to_le_bytes(), || self.file.read_at(offset, buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.with("write", &self.path, bytes, || self.file.write_at(offset, bytes))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.disk.with("sync", &self.path, &[], || self.file.sync_data())
    }

    fn set_len(&self, length: u64) -> Result<(), DiskError> {
        self.disk.with("setlen", &self.path, &length.to_le_bytes(), || self.file.set_len(length))
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.disk.with("len", &self.path, &[], || self.file.len())
    }
}
