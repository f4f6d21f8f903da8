//! A node's disk whose power can go at any call, between a write and its sync too.
//!
//! What was not synced is then lost or kept by [`FaultyDisk::crash`]. Syncs take real time, on a thread of their own, so
//! that whatever does not wait for them is seen to run ahead. A [`Trace`] keeps the calls of several disks in one order.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use core_types::{Disk, DiskError, DiskErrorKind, File, NodeId, OpenMode};
use platform::FaultyDisk;

/// What one life of a node, or the whole site, runs on.
pub(crate) struct Power {
    on: RwLock<bool>,
    /// Calls that still pass; negative: any number.
    fuse: AtomicI64,
}

impl Power {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            on: RwLock::new(true),
            fuse: AtomicI64::new(-1),
        })
    }

    /// The power goes at the disk call after this many.
    pub(crate) fn blow_after(&self, calls: u32) {
        self.fuse.store(i64::from(calls), Ordering::SeqCst);
    }

    /// Returns when no call is under way any more, and none passes from then on.
    pub(crate) fn cut(&self) {
        *self.on.write().unwrap() = false;
    }

    pub(crate) fn is_on(&self) -> bool {
        *self.on.read().unwrap()
    }

    fn tick(&self) {
        let before = self.fuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            (left >= 0).then_some(left - 1)
        });
        if before == Ok(0) {
            self.cut();
        }
    }
}

/// A call that has ended, or a word of the test's own.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Wrote {
        path: String,
        bytes: Vec<u8>,
    },
    /// `began` is the length of the trace when the sync was asked for: it covers what stands before it.
    Synced {
        path: String,
        began: usize,
    },
    DirSynced {
        path: String,
        began: usize,
    },
    Renamed {
        from: String,
        to: String,
    },
    Acked {
        guid: [u8; 16],
        blob: core_types::BlobId,
    },
}

/// The calls of all disks, in one order.
#[derive(Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<(NodeId, Event)>>>);

impl Trace {
    pub(crate) fn note(&self, node: NodeId, event: Event) {
        self.0.lock().unwrap().push((node, event));
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub(crate) fn events(&self) -> Vec<(NodeId, Event)> {
        self.0.lock().unwrap().clone()
    }
}

/// One life's view of a disk.
#[derive(Clone)]
pub(crate) struct PoweredDisk {
    pub(crate) disk: FaultyDisk,
    pub(crate) node: NodeId,
    pub(crate) own: Arc<Power>,
    pub(crate) site: Arc<Power>,
    /// How long a sync takes.
    pub(crate) sync_time: Duration,
    pub(crate) trace: Option<Trace>,
}

impl PoweredDisk {
    fn with<T>(&self, act: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
        self.own.tick();
        self.site.tick();
        let (own, site) = (self.own.on.read().unwrap(), self.site.on.read().unwrap());
        if *own && *site {
            act()
        } else {
            Err(DiskError::new(DiskErrorKind::Other, "", "there is no power"))
        }
    }

    fn note(&self, event: impl FnOnce() -> Event) {
        if let Some(trace) = &self.trace {
            trace.note(self.node, event());
        }
    }

    fn began(&self) -> usize {
        self.trace.as_ref().map_or(0, Trace::len)
    }
}

impl Disk for PoweredDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<dyn File>, DiskError> {
        let file = self.with(|| self.disk.open(path, mode))?;
        Ok(Arc::new(PoweredFile {
            path: path.to_owned(),
            file,
            disk: self.clone(),
        }))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        self.with(|| self.disk.list(path))
    }

    fn create_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.with(|| self.disk.create_dir_all(path))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.with(|| self.disk.rename(from, to))?;
        self.note(|| Event::Renamed {
            from: from.to_owned(),
            to: to.to_owned(),
        });
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.with(|| self.disk.remove(path))
    }

    fn remove_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.with(|| self.disk.remove_dir_all(path))
    }

    fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        let began = self.began();
        std::thread::sleep(self.sync_time);
        self.with(|| self.disk.sync_dir(path))?;
        self.note(|| Event::DirSynced {
            path: path.to_owned(),
            began,
        });
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.with(|| self.disk.free_bytes())
    }
}

struct PoweredFile {
    path: String,
    file: Arc<dyn File>,
    disk: PoweredDisk,
}

impl fmt::Debug for PoweredFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoweredFile({})", self.path)
    }
}

impl File for PoweredFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.disk.with(|| self.file.read_at(offset, buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.with(|| self.file.write_at(offset, bytes))?;
        self.disk.note(|| Event::Wrote {
            path: self.path.clone(),
            bytes: bytes.to_vec(),
        });
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        let began = self.disk.began();
        std::thread::sleep(self.disk.sync_time);
        self.disk.with(|| self.file.sync_data())?;
        self.disk.note(|| Event::Synced {
            path: self.path.clone(),
            began,
        });
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), DiskError> {
        self.disk.with(|| self.file.set_len(length))
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.disk.with(|| self.file.len())
    }
}
