//! A disk in memory that keeps only what was synced, and fails when it is told to.
//!
//! A crash undoes, at random, what was not synced: each write since the last [`File::sync_data`] is kept, dropped or torn
//! at a sector, and of the names changed in a directory since its last [`Disk::sync_dir`] a prefix is kept, in the order
//! in which they were changed. A file whose name is lost is lost, synced or not.
//!
//! Not modelled: misdirected writes, and latency (tests of that wrap the disk).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use core_types::{Disk, DiskError, DiskErrorKind, Entropy, File, OpenMode};

use crate::system::SeededEntropy;

/// See the module. Clones share the same disk.
#[derive(Clone)]
pub struct FaultyDisk {
    shared: Arc<Mutex<Shared>>,
}

/// A call that reached the disk and succeeded, as the trace keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskCall {
    /// `write_at`: path, offset, number of bytes.
    Write(String, u64, usize),
    /// `sync_data`
    Sync(String),
    /// `sync_dir`
    SyncDir(String),
    /// `rename`: from, to.
    Rename(String, String),
    /// `remove`
    Remove(String),
    /// A new file.
    Create(String),
    /// What a test noted with [`FaultyDisk::note`].
    Note(String),
}

#[derive(Default)]
struct Shared {
    /// Counts crashes: handles of an earlier life are dead.
    life: u64,
    files: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// How many handles of this life each file has.
    handles: BTreeMap<u64, usize>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Changes of names that no `sync_dir` has made durable, oldest first.
    name_changes: Vec<NameChange>,
    directories: BTreeSet<String>,
    capacity: Option<u64>,
    fail_syncs: u32,
    unreadable: BTreeSet<String>,
    trace: Option<Vec<DiskCall>>,
}

#[derive(Default)]
struct Inode {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
}

enum Pending {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

enum NameChange {
    Put(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

impl NameChange {
    fn touches(&self, directory: &str) -> bool {
        match self {
            Self::Put(path, _) | Self::Remove(path) => parent(path) == directory,
            Self::Rename(from, to, _) => parent(from) == directory || parent(to) == directory,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Put(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl Default for FaultyDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk").finish_non_exhaustive()
    }
}

impl FaultyDisk {
    /// An empty disk without faults.
    #[must_use]
    pub fn new() -> Self {
        let shared = Shared {
            directories: BTreeSet::from([String::new()]),
            ..Shared::default()
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
        }
    }

    /// Power loss: what was not synced is kept, dropped or torn as the seed decides. All open files are dead.
    pub fn crash(&self, seed: u64) {
        let entropy: &dyn Entropy = &SeededEntropy::new(seed);
        let mut shared = self.lock();
        shared.life += 1;
        shared.handles.clear();
        shared.fail_syncs = 0;
        let kept = usize::try_from(entropy.below(shared.name_changes.len() as u64 + 1)).unwrap_or(0);
        let changes = std::mem::take(&mut shared.name_changes);
        for change in changes.iter().take(kept) {
            change.apply(&mut shared.durable_names);
        }
        shared.names = shared.durable_names.clone();
        let live: BTreeSet<u64> = shared.names.values().copied().collect();
        shared.files.retain(|inode, _| live.contains(inode));
        for inode in shared.files.values_mut() {
            for pending in std::mem::take(&mut inode.pending) {
                keep_randomly(&mut inode.durable, pending, entropy);
            }
            inode.current.clone_from(&inode.durable);
        }
    }

    /// Power loss that keeps nothing that was not synced.
    pub fn crash_strictly(&self) {
        let mut shared = self.lock();
        shared.life += 1;
        shared.handles.clear();
        shared.fail_syncs = 0;
        shared.name_changes.clear();
        shared.names = shared.durable_names.clone();
        let live: BTreeSet<u64> = shared.names.values().copied().collect();
        shared.files.retain(|inode, _| live.contains(inode));
        for inode in shared.files.values_mut() {
            inode.pending.clear();
            inode.current.clone_from(&inode.durable);
        }
    }

    /// From now on all files together hold at most this many bytes; `None` lifts it.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// The next `count` syncs (of files or directories) fail.
    pub fn fail_syncs(&self, count: u32) {
        self.lock().fail_syncs = count;
    }

    /// Reads of this file fail from now on.
    pub fn make_unreadable(&self, path: &str) {
        self.lock().unreadable.insert(path.to_owned());
    }

    /// Flips one bit of a file, at rest and as it is now. Nothing happens beyond its end.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u8) {
        let mut shared = self.lock();
        let Some(inode) = shared
            .names
            .get(path)
            .copied()
            .and_then(|inode| shared.files.get_mut(&inode))
        else {
            return;
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for bytes in [&mut inode.current, &mut inode.durable] {
            if let Some(byte) = bytes.get_mut(offset) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Keeps a trace of the calls from now on.
    pub fn start_trace(&self) {
        self.lock().trace = Some(Vec::new());
    }

    /// Adds a test's own word to the trace, such as an acknowledgement.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        self.lock().record(|| DiskCall::Note(text));
    }

    /// The trace so far.
    #[must_use]
    pub fn trace(&self) -> Vec<DiskCall> {
        self.lock().trace.clone().unwrap_or_default()
    }

    /// The paths of all files, in order.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn record(&mut self, call: impl FnOnce() -> DiskCall) {
        if let Some(trace) = &mut self.trace {
            trace.push(call());
        }
    }

    /// What is removed and open nowhere takes no room, although a crash may bring it back.
    fn used_bytes(&self) -> u64 {
        let live: BTreeSet<&u64> = self.names.values().chain(self.handles.keys()).collect();
        let live = live.into_iter().filter_map(|inode| self.files.get(inode));
        live.map(|inode| inode.current.len() as u64).sum()
    }

    fn room_for(&self, path: &str, more: u64) -> Result<(), DiskError> {
        match self.capacity {
            Some(capacity) if self.used_bytes().saturating_add(more) > capacity => {
                Err(DiskError::new(DiskErrorKind::Full, path, "no space left (injected)"))
            }
            _ => Ok(()),
        }
    }

    fn fail_sync(&mut self, path: &str) -> Result<(), DiskError> {
        if self.fail_syncs == 0 {
            return Ok(());
        }
        self.fail_syncs -= 1;
        Err(DiskError::new(
            DiskErrorKind::SyncFailed,
            path,
            "sync failed (injected)",
        ))
    }

    fn require_dir(&self, path: &str) -> Result<(), DiskError> {
        if self.directories.contains(path) {
            return Ok(());
        }
        Err(DiskError::new(DiskErrorKind::NotFound, path, "no such directory"))
    }

    fn not_found(path: &str) -> DiskError {
        DiskError::new(DiskErrorKind::NotFound, path, "no such file")
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<dyn File>, DiskError> {
        let mut shared = self.lock();
        shared.require_dir(parent(path))?;
        let inode = match (shared.names.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => {
                return Err(DiskError::new(DiskErrorKind::AlreadyExists, path, "file exists"));
            }
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::Write) => return Err(Shared::not_found(path)),
            (None, OpenMode::CreateNew | OpenMode::CreateOrOpen) => {
                let inode = shared.next_inode;
                shared.next_inode += 1;
                shared.files.insert(inode, Inode::default());
                shared.names.insert(path.to_owned(), inode);
                shared.name_changes.push(NameChange::Put(path.to_owned(), inode));
                shared.record(|| DiskCall::Create(path.to_owned()));
                inode
            }
        };
        *shared.handles.entry(inode).or_insert(0) += 1;
        Ok(Arc::new(FaultyFile {
            path: path.to_owned(),
            inode,
            life: shared.life,
            writable: mode != OpenMode::Read,
            shared: Arc::downgrade(&self.shared),
        }))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        let shared = self.lock();
        shared.require_dir(path)?;
        let name = |entry: &String| {
            (!entry.is_empty() && parent(entry) == path).then(|| {
                entry
                    .rsplit_once('/')
                    .map_or(entry.as_str(), |(_, name)| name)
                    .to_owned()
            })
        };
        let names: BTreeSet<String> = shared
            .names
            .keys()
            .chain(&shared.directories)
            .filter_map(name)
            .collect();
        Ok(names.into_iter().collect())
    }

    fn create_dir_all(&self, path: &str) -> Result<(), DiskError> {
        let mut shared = self.lock();
        let mut prefix = String::new();
        for part in path.split('/') {
            if !prefix.is_empty() {
                prefix.push('/');
            }
            prefix.push_str(part);
            shared.directories.insert(prefix.clone());
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut shared = self.lock();
        shared.require_dir(parent(to))?;
        let inode = shared.names.remove(from).ok_or_else(|| Shared::not_found(from))?;
        shared.names.insert(to.to_owned(), inode);
        shared
            .name_changes
            .push(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        shared.record(|| DiskCall::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let mut shared = self.lock();
        shared.names.remove(path).ok_or_else(|| Shared::not_found(path))?;
        shared.name_changes.push(NameChange::Remove(path.to_owned()));
        shared.record(|| DiskCall::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &str) -> Result<(), DiskError> {
        let mut shared = self.lock();
        let inside =
            |entry: &String| entry == path || entry.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        let gone: Vec<String> = shared.names.keys().filter(|name| inside(name)).cloned().collect();
        for name in gone {
            shared.names.remove(&name);
            shared.name_changes.push(NameChange::Remove(name));
        }
        shared.directories.retain(|directory| !inside(directory));
        Ok(())
    }

    fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        let mut shared = self.lock();
        shared.require_dir(path)?;
        shared.fail_sync(path)?;
        let (durable, pending) = std::mem::take(&mut shared.name_changes)
            .into_iter()
            .partition(|change: &NameChange| change.touches(path));
        shared.name_changes = pending;
        let durable: Vec<NameChange> = durable;
        for change in durable {
            change.apply(&mut shared.durable_names);
        }
        shared.record(|| DiskCall::SyncDir(path.to_owned()));
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let shared = self.lock();
        Ok(shared
            .capacity
            .map_or(1 << 40, |capacity| capacity.saturating_sub(shared.used_bytes())))
    }
}

struct FaultyFile {
    path: String,
    inode: u64,
    life: u64,
    writable: bool,
    shared: Weak<Mutex<Shared>>,
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyFile({})", self.path)
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.life != self.life {
            return;
        }
        match shared.handles.get_mut(&self.inode) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                shared.handles.remove(&self.inode);
            }
        }
    }
}

impl FaultyFile {
    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> Result<T, DiskError>) -> Result<T, DiskError> {
        let dead = || {
            DiskError::new(
                DiskErrorKind::Other,
                &self.path,
                "the disk crashed since this file was opened",
            )
        };
        let shared = self.shared.upgrade().ok_or_else(dead)?;
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.life != self.life {
            return Err(dead());
        }
        // A file that was removed while it was open lives on until its last handle is gone.
        shared.files.entry(self.inode).or_default();
        act(&mut shared)
    }

    fn writable(&self) -> Result<(), DiskError> {
        if self.writable {
            return Ok(());
        }
        Err(DiskError::new(DiskErrorKind::Other, &self.path, "opened to read"))
    }
}

impl File for FaultyFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.with(|shared| {
            if shared.unreadable.contains(&self.path) {
                return Err(DiskError::new(
                    DiskErrorKind::Other,
                    &self.path,
                    "input/output error (injected)",
                ));
            }
            let Some(inode) = shared.files.get(&self.inode) else {
                return Ok(0);
            };
            let rest = usize::try_from(offset)
                .ok()
                .and_then(|offset| inode.current.get(offset..))
                .unwrap_or_default();
            let count = rest.len().min(buffer.len());
            if let (Some(target), Some(source)) = (buffer.get_mut(..count), rest.get(..count)) {
                target.copy_from_slice(source);
            }
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.writable()?;
        self.with(|shared| {
            let length = shared
                .files
                .get(&self.inode)
                .map_or(0, |inode| inode.current.len() as u64);
            shared.room_for(&self.path, (offset + bytes.len() as u64).saturating_sub(length))?;
            if let Some(inode) = shared.files.get_mut(&self.inode) {
                overwrite(&mut inode.current, offset, bytes);
                inode.pending.push(Pending::Write(offset, bytes.to_vec()));
            }
            shared.record(|| DiskCall::Write(self.path.clone(), offset, bytes.len()));
            Ok(())
        })
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.with(|shared| {
            shared.fail_sync(&self.path)?;
            if let Some(inode) = shared.files.get_mut(&self.inode) {
                // Only what changed is copied: a preallocated segment is large, a batch small.
                for pending in std::mem::take(&mut inode.pending) {
                    match pending {
                        Pending::Write(offset, bytes) => overwrite(&mut inode.durable, offset, &bytes),
                        Pending::SetLen(length) => resize(&mut inode.durable, length),
                    }
                }
            }
            shared.record(|| DiskCall::Sync(self.path.clone()));
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> Result<(), DiskError> {
        self.writable()?;
        self.with(|shared| {
            let now = shared
                .files
                .get(&self.inode)
                .map_or(0, |inode| inode.current.len() as u64);
            shared.room_for(&self.path, length.saturating_sub(now))?;
            if let Some(inode) = shared.files.get_mut(&self.inode) {
                resize(&mut inode.current, length);
                inode.pending.push(Pending::SetLen(length));
            }
            Ok(())
        })
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.with(|shared| {
            Ok(shared
                .files
                .get(&self.inode)
                .map_or(0, |inode| inode.current.len() as u64))
        })
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn resize(bytes: &mut Vec<u8>, length: u64) {
    bytes.resize(usize::try_from(length).unwrap_or(0), 0);
}

fn overwrite(target: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let offset = usize::try_from(offset).unwrap_or(0);
    let end = offset + bytes.len();
    if target.len() < end {
        target.resize(end, 0);
    }
    if let Some(place) = target.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// Keeps, drops or tears a write that was not synced.
fn keep_randomly(durable: &mut Vec<u8>, pending: Pending, entropy: &dyn Entropy) {
    match (pending, entropy.below(3)) {
        (_, 0) => {}
        (Pending::Write(offset, bytes), 1) => {
            // Torn: some of the sectors that it covers reached the disk.
            let mut start = 0;
            while start < bytes.len() {
                let position = usize::try_from(offset).unwrap_or(0) + start;
                let end = bytes.len().min(start + SECTOR_BYTES - position % SECTOR_BYTES);
                if entropy.below(2) == 0 {
                    overwrite(
                        durable,
                        offset + start as u64,
                        bytes.get(start..end).unwrap_or_default(),
                    );
                }
                start = end;
            }
        }
        (Pending::Write(offset, bytes), _) => overwrite(durable, offset, &bytes),
        (Pending::SetLen(length), _) => resize(durable, length),
    }
}

const SECTOR_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &FaultyDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(path, OpenMode::Read).ok()?;
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(0, &mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn what_is_synced_with_its_name_survives_and_nothing_else_does() {
        let disk = FaultyDisk::new();
        disk.create_dir_all("d").unwrap();
        for (name, sync_file, sync_dir) in [("both", true, true), ("file", true, false)] {
            let file = disk.open(&format!("d/{name}"), OpenMode::CreateNew).unwrap();
            file.write_at(0, b"durable").unwrap();
            if sync_file {
                file.sync_data().unwrap();
            }
            if sync_dir {
                disk.sync_dir("d").unwrap();
            }
            file.write_at(0, b"newer..").unwrap();
        }
        disk.crash_strictly();
        assert_eq!(read(&disk, "d/both").as_deref(), Some(&b"durable"[..]));
        assert_eq!(read(&disk, "d/file"), None);
    }

    #[test]
    fn a_rename_without_a_sync_of_the_directory_may_be_undone() {
        let (mut undone, mut done) = (false, false);
        for seed in 0..50 {
            let disk = FaultyDisk::new();
            let file = disk.open("tmp", OpenMode::CreateNew).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir("").unwrap();
            disk.rename("tmp", "final").unwrap();
            disk.crash(seed);
            let paths = disk.paths();
            assert_eq!(paths.len(), 1);
            undone |= paths == ["tmp"];
            done |= paths == ["final"];
        }
        assert!(undone && done);
    }

    #[test]
    fn writes_tear_at_sectors() {
        let mut torn = false;
        for seed in 0..50 {
            let disk = FaultyDisk::new();
            let file = disk.open("f", OpenMode::CreateNew).unwrap();
            file.set_len(2048).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir("").unwrap();
            file.write_at(100, &[7; 1500]).unwrap();
            disk.crash(seed);
            let bytes = read(&disk, "f").unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0 || *byte == 7));
            let sevens = bytes.iter().filter(|byte| **byte == 7).count();
            torn |= sevens != 0 && sevens != 1500;
            assert!(file.read_at(0, &mut [0]).is_err(), "handles die with the crash");
        }
        assert!(torn);
    }

    #[test]
    fn a_removed_file_gives_its_room_back_with_its_last_handle() {
        let disk = FaultyDisk::new();
        disk.set_capacity(Some(10));
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        file.write_at(0, &[1; 10]).unwrap();
        let again = disk.open("f", OpenMode::Read).unwrap();
        disk.remove("f").unwrap();
        drop(file);
        assert_eq!(disk.free_bytes().unwrap(), 0, "it is open");
        drop(again);
        assert_eq!(disk.free_bytes().unwrap(), 10);
        // Another file takes its place.
        for name in ["a", "b"] {
            disk.open(name, OpenMode::CreateNew)
                .unwrap()
                .write_at(0, &[1; 5])
                .unwrap();
        }
        disk.rename("a", "b").unwrap();
        assert_eq!(disk.free_bytes().unwrap(), 5);
    }

    #[test]
    fn faults_come_when_asked_for() {
        let disk = FaultyDisk::new();
        disk.start_trace();
        disk.set_capacity(Some(10));
        let file = disk.open("f", OpenMode::CreateOrOpen).unwrap();
        assert_eq!(file.write_at(0, &[1; 11]).unwrap_err().kind, DiskErrorKind::Full);
        file.write_at(0, &[1; 10]).unwrap();
        disk.fail_syncs(1);
        assert_eq!(file.sync_data().unwrap_err().kind, DiskErrorKind::SyncFailed);
        file.sync_data().unwrap();
        disk.flip_bit("f", 3, 0);
        assert_eq!(read(&disk, "f").unwrap()[3], 0);
        disk.make_unreadable("f");
        assert!(file.read_at(0, &mut [0]).is_err());
        assert_eq!(
            disk.trace(),
            [
                DiskCall::Create("f".into()),
                DiskCall::Write("f".into(), 0, 10),
                DiskCall::Sync("f".into())
            ]
        );
    }
}
