//! A disk in memory that keeps only what was synced, and fails when it is told to.
//!
//! A crash undoes, at random, what was not synced: each write since the last [`core_types::File::sync_data`] is kept,
//! dropped or torn at a sector, and of the names changed in a directory since its last [`Disk::sync_dir`] a prefix is
//! kept, in the order in which they were changed. A file whose name is lost is lost, synced or not.
//!
//! While it runs, calls fail, lie, go elsewhere or give less as [`FaultRule`]s say; it fills up
//! ([`FaultyDisk::set_capacity`]), stands still ([`FaultyDisk::freeze`]) or loses power between two calls
//! ([`FaultyDisk::power_off_after`]). At rest, bits flip, files shrink or vanish, and the whole disk goes back to an earlier
//! [`DiskImage`]. Everything is drawn from seeds: the same calls under the same seeds give the same disk.
//!
//! **Time.** [`Disk`] is synchronous, so nothing sleeps here. Each call adds to a debt what it takes; a simulated
//! `BlockingPool` runs the jobs of a node one after the other and does, for each:
//!
//! ```ignore
//! let wait = loop { match disk.begin_job() { Some(wait) => break wait, None => sleep(MILLISECOND).await } };
//! sleep(wait).await;
//! job();
//! ```
//!
//! so that a job waits for what the jobs before it took and, in advance, for one sync of its own. Calls made outside of a
//! pool take no time and pass a frozen disk.
//!
//! Not modelled: write caches that reorder across a sync, other than by [`Effect::IgnoredSync`].

mod call;
mod faults;
mod file;
mod pages;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_types::{Disk, DiskError, DiskErrorKind, Entropy, File, OpenMode};

pub use call::{CallClass, CallEvent, DiskCall};
pub use faults::{Delay, Effect, FaultRule, RuleId};
use file::FaultyFile;
pub use state::DiskImage;
use state::{NameChange, Shared, Site, entropy_of, parent};

/// What a tear, a misdirected write and a full disk go by.
const SECTOR_BYTES: usize = 512;

/// See [`FaultyDisk::set_hook`].
pub type DiskHook = Arc<dyn Fn(&CallEvent<'_>) + Send + Sync>;

/// See the module. Clones share the same disk.
#[derive(Clone)]
pub struct FaultyDisk {
    shared: Arc<Mutex<Shared>>,
}

/// A bit that flipped at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BitFlip {
    /// The file.
    pub path: String,
    /// The byte.
    pub offset: u64,
    /// The bit, 0 the lowest.
    pub bit: u8,
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

    /// What rules and delays draw from now on; 0 at first.
    pub fn reseed(&self, seed: u64) {
        self.lock().faults.reseed(seed);
    }

    /// Power loss: what was not synced is kept, dropped or torn as the seed decides. All open files are dead. Rules,
    /// delays and the capacity stay.
    pub fn crash(&self, seed: u64) {
        self.lock().crash(Some(&entropy_of(seed)));
    }

    /// Power loss that keeps nothing that was not synced.
    pub fn crash_strictly(&self) {
        self.lock().crash(None);
    }

    /// The process dies and the operating system lives: all open files are dead, and nothing is lost, though what was not
    /// synced may still be lost by a later [`FaultyDisk::crash`].
    pub fn kill(&self) {
        self.lock().kill();
    }

    /// After so many more calls every call fails, until the disk is crashed, killed or restored: the power fails between
    /// any two calls, also within a job.
    pub fn power_off_after(&self, calls: u64) {
        self.lock().faults.power_fails_in = Some(calls);
    }

    /// Whether the power failed, so that the node has to be crashed.
    #[must_use]
    pub fn is_powered_off(&self) -> bool {
        self.lock().faults.powered_off
    }

    /// What is durable now: an image of the disk as a power loss would leave it.
    #[must_use]
    pub fn image(&self) -> DiskImage {
        self.lock().image()
    }

    /// The disk is as it was when the image was taken, of this disk or another. All open files are dead.
    pub fn restore(&self, image: &DiskImage) {
        let mut shared = self.lock();
        shared.restore(image);
        shared.faults.fire("disk.restore");
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&self) {
        self.restore(&DiskImage::empty());
    }

    /// From now on all files together hold at most this many bytes; `None` lifts it. A write that does not fit leaves the
    /// sectors that fit; a full disk takes no new file.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Bytes of all files that are there or open.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.lock().used_bytes()
    }

    /// The next `count` syncs (of files or directories) fail, as under [`Effect::Eio`].
    pub fn fail_syncs(&self, count: u32) {
        self.lock().fail_syncs = count;
    }

    /// Reads of this file fail from now on.
    pub fn make_unreadable(&self, path: &str) {
        self.lock().unreadable.insert(path.to_owned());
    }

    /// Sectors of this file, under whatever name, that cannot be read from now on, until one write covers the range.
    /// Nothing happens where there is no such file.
    pub fn make_range_unreadable(&self, path: &str, range: Range<u64>) {
        let mut shared = self.lock();
        if let Some(inode) = shared.names.get(path).copied() {
            shared.bad_ranges.entry(inode).or_default().push(range);
        }
    }

    /// Turns a fault on.
    pub fn add_rule(&self, rule: FaultRule) -> RuleId {
        self.lock().faults.add(rule)
    }

    /// Turns a fault off.
    pub fn remove_rule(&self, rule: RuleId) {
        self.lock().faults.remove(rule);
    }

    /// Turns off all rules, delays, unreadable files and sectors, failing syncs, the freeze, the power failure to come, and the
    /// capacity. What is damaged stays so.
    pub fn heal(&self) {
        let mut shared = self.lock();
        shared.faults.clear();
        shared.unreadable.clear();
        shared.bad_ranges.clear();
        shared.fail_syncs = 0;
        shared.capacity = None;
    }

    /// How long calls of a class take from now on; `None` for no time.
    pub fn set_delay(&self, class: CallClass, delay: Option<Delay>) {
        self.lock().faults.set_delay(class, delay);
    }

    /// [`FaultyDisk::set_delay`] for all classes.
    pub fn set_delays(&self, delay: Option<Delay>) {
        let mut shared = self.lock();
        for class in CallClass::ALL {
            shared.faults.set_delay(class, delay);
        }
    }

    /// Draws how long a call of a class takes.
    #[must_use]
    pub fn delay_of(&self, class: CallClass) -> Duration {
        self.lock().faults.delay_of(class)
    }

    /// How long the calls took since the last time this, or [`FaultyDisk::begin_job`], was asked.
    #[must_use]
    pub fn take_delay(&self) -> Duration {
        self.lock().faults.take_delay()
    }

    /// How long a pool waits before its next job on this disk; `None` while the disk is frozen. See the module.
    #[must_use]
    pub fn begin_job(&self) -> Option<Duration> {
        self.lock().faults.begin_job()
    }

    /// No job begins until [`FaultyDisk::thaw`].
    pub fn freeze(&self) {
        let mut shared = self.lock();
        shared.faults.frozen = true;
        shared.faults.fire("disk.freeze");
    }

    /// Ends [`FaultyDisk::freeze`].
    pub fn thaw(&self) {
        self.lock().faults.frozen = false;
    }

    /// Flips one bit of a file, at rest and as it is now. Nothing happens beyond its end.
    pub fn flip_bit(&self, path: &str, offset: u64, bit: u8) {
        self.lock().at_rest(path, |pages| {
            pages.flip(offset, bit);
        });
    }

    /// Flips a bit that the seed chooses, in a sector that is not all zeros, of a file whose path begins so; each byte of
    /// those files is about equally likely. `None` when there is none.
    pub fn flip_bit_under(&self, path_prefix: &str, seed: u64) -> Option<BitFlip> {
        let entropy: &dyn Entropy = &entropy_of(seed);
        let mut shared = self.lock();
        let files: Vec<(String, u64)> = shared
            .names
            .keys()
            .filter(|path| path.starts_with(path_prefix))
            .filter_map(|path| Some((path.clone(), shared.pages(path)?.len())))
            .collect();
        let total = files.iter().map(|(_, length)| length).sum();
        for _ in 0..FLIP_TRIES {
            let mut place = entropy.below(total);
            let chosen = files.iter().find(|(_, length)| {
                let here = place < *length;
                place -= if here { 0 } else { *length };
                here
            });
            let (path, _) = chosen?;
            if shared.pages(path)?.is_used_around(place) {
                let bit = u8::try_from(entropy.below(8)).unwrap_or(0);
                shared.at_rest(path, |pages| {
                    pages.flip(place, bit);
                });
                shared.faults.fire("disk.bit_flip");
                return Some(BitFlip {
                    path: path.clone(),
                    offset: place,
                    bit,
                });
            }
        }
        None
    }

    /// Cuts a file, at rest and as it is now.
    pub fn truncate_at_rest(&self, path: &str, length: u64) {
        let mut shared = self.lock();
        shared.at_rest(path, |pages| pages.resize(length.min(pages.len())));
        shared.faults.fire("disk.file_cut");
    }

    /// Takes away, durably, the files whose path begins so; gives their paths.
    pub fn remove_at_rest(&self, path_prefix: &str) -> Vec<String> {
        let mut shared = self.lock();
        let gone = |path: &String| path.starts_with(path_prefix);
        let paths = shared.names.keys().filter(|path| gone(path)).cloned().collect();
        shared.names.retain(|path, _| !gone(path));
        shared.durable_names.retain(|path, _| !gone(path));
        shared.faults.fire("disk.file_lost");
        paths
    }

    /// Every call from now on is shown to the hook, with what came of it, in order. The hook must not call the disk.
    pub fn set_hook(&self, hook: Option<DiskHook>) {
        self.lock().hook = hook;
    }

    /// How often each fault really hit, by name (`disk.eio.write`, `disk.full`, `disk.crash.writes_lost`, ...).
    #[must_use]
    pub fn fired(&self) -> BTreeMap<String, u64> {
        self.lock().faults.fired.clone()
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

    /// The files that are open now, by path, and how often each; one that has no name any more counts under the empty path.
    #[must_use]
    pub fn open_files(&self) -> BTreeMap<String, usize> {
        let shared = self.lock();
        let paths: BTreeMap<u64, &String> = shared.names.iter().map(|(path, inode)| (*inode, path)).collect();
        let mut open = BTreeMap::new();
        for (inode, count) in &shared.handles {
            let path = paths.get(inode).map_or_else(String::new, |path| (*path).clone());
            *open.entry(path).or_insert(0) += count;
        }
        open
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<dyn File>, DiskError> {
        let mut shared = self.lock();
        let there = shared.names.get(path).copied();
        let creates = there.is_none() && matches!(mode, OpenMode::CreateNew | OpenMode::CreateOrOpen);
        let class = if creates { CallClass::Create } else { CallClass::Open };
        let inode = shared.call(Site::new(class, path), |shared, _, _| {
            shared.require_dir(parent(path))?;
            match there {
                Some(_) if mode == OpenMode::CreateNew => {
                    Err(DiskError::new(DiskErrorKind::AlreadyExists, path, "file exists"))
                }
                Some(inode) => Ok(inode),
                None if !creates => Err(not_found(path)),
                None => {
                    // Its directory entry needs room.
                    shared.room_for(path, 1)?;
                    let inode = shared.next_inode;
                    shared.next_inode += 1;
                    shared.files.insert(inode, state::Inode::default());
                    shared.names.insert(path.to_owned(), inode);
                    shared.name_changes.push(NameChange::Put(path.to_owned(), inode));
                    shared.record(|| DiskCall::Create(path.to_owned()));
                    Ok(inode)
                }
            }
        })?;
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
        self.lock().call(Site::new(CallClass::List, path), |shared, site, _| {
            shared.require_dir(path)?;
            let name = |entry: &String| {
                (!entry.is_empty() && parent(entry) == path).then(|| {
                    entry
                        .rsplit_once('/')
                        .map_or(entry.as_str(), |(_, name)| name)
                        .to_owned()
                })
            };
            let entries = shared.names.keys().chain(&shared.directories);
            let names: BTreeSet<String> = entries.filter_map(name).collect();
            if shared.hook.is_some() {
                let text: String = names.iter().flat_map(|name| [name, "\n"]).collect();
                site.digest = shared.digest(text.as_bytes());
            }
            Ok(names.into_iter().collect())
        })
    }

    fn create_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.lock().call(Site::new(CallClass::CreateDir, path), |shared, _, _| {
            let mut prefix = String::new();
            for part in path.split('/') {
                if !prefix.is_empty() {
                    prefix.push('/');
                }
                prefix.push_str(part);
                shared.directories.insert(prefix.clone());
            }
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut site = Site::new(CallClass::Rename, from);
        site.to = to;
        self.lock().call(site, |shared, _, _| {
            shared.require_dir(parent(to))?;
            let inode = shared.names.remove(from).ok_or_else(|| not_found(from))?;
            shared.names.insert(to.to_owned(), inode);
            let change = NameChange::Rename(from.to_owned(), to.to_owned(), inode);
            shared.name_changes.push(change);
            shared.record(|| DiskCall::Rename(from.to_owned(), to.to_owned()));
            Ok(())
        })
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.lock().call(Site::new(CallClass::Remove, path), |shared, _, _| {
            shared.names.remove(path).ok_or_else(|| not_found(path))?;
            shared.name_changes.push(NameChange::Remove(path.to_owned()));
            shared.record(|| DiskCall::Remove(path.to_owned()));
            Ok(())
        })
    }

    fn remove_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.lock().call(Site::new(CallClass::Remove, path), |shared, _, _| {
            let inside =
                |entry: &String| entry == path || entry.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
            let gone: Vec<String> = shared.names.keys().filter(|name| inside(name)).cloned().collect();
            for name in gone {
                shared.names.remove(&name);
                shared.name_changes.push(NameChange::Remove(name));
            }
            shared.directories.retain(|directory| !inside(directory));
            Ok(())
        })
    }

    fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        self.lock()
            .call(Site::new(CallClass::SyncDir, path), |shared, site, effect| {
                shared.sync_dir(site, effect)
            })
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(self.lock().room().unwrap_or(1 << 40))
    }
}

fn not_found(path: &str) -> DiskError {
    DiskError::new(DiskErrorKind::NotFound, path, "no such file")
}

/// Sectors of zeros that a flip passes over before it gives up.
const FLIP_TRIES: u32 = 1000;

#[cfg(test)]
mod tests;
