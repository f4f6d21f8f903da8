//! One log for all groups of a node: preallocated segments, one ordered pipeline, one sync for each batch.
//!
//! Whatever the groups submit goes through one queue. One job at a time takes what waits there, whichever the groups, writes
//! it with one `write_at`, makes it durable with one `sync_data`, and only then completes it. The order of submission is the
//! order in the log.
//!
//! # The durable watermark
//!
//! A batch is written only after every batch before it was synced, and it begins with a marker that says up to where
//! (`durable`) the segment was durable before it was written. So a valid marker proves that everything before its `durable`
//! was once on the disk, whole. When the log is opened and something is damaged, the markers *behind* the damage decide:
//!
//! - one of them, or the header of a later segment, has a `durable` beyond the damage: what is damaged was durable, hence
//!   perhaps acknowledged. That is **corruption**. It is reported with its place and with the groups that the batch touched
//!   (all, if the marker itself is damaged), and those groups must not vote until they are repaired;
//! - none has: the bytes belong to a write that no sync is known to have covered, so a crash may have torn it. It is a **torn
//!   tail**: everything from the beginning of that batch on is zeroed, durably, and the log goes on there.
//!
//! So that the last batch before a pause is covered too, an empty batch is written, but not synced, when the queue runs
//! empty. It reaches the disk by and by, or with the next sync; until then damage to the very last batch looks like a torn
//! tail, and only the peers' memory of [`SharedLog::position`] can tell. Since such a batch is not synced, a marker's
//! `durable` is not simply where the batch before it ended.
//!
//! The disk is trusted to write a sector of 512 octets whole or not at all, and to leave others alone.
//!
//! # What fails how
//!
//! - A failed sync, or a failed write, ends the log: what came before is in an unknown state, and a later sync that works
//!   proves nothing about it. Everything pending and everything later fails; the node stops.
//! - A full disk (no room for the next segment) fails what was submitted and not yet written; the log stays as it was before
//!   that, and works again when there is room.
//!
//! Not here: what votes and entries mean (`log_store`), when to make snapshots (a group that purges nothing keeps every
//! segment since its oldest entry: [`SharedLog::pinning`] names it).

mod index;
mod life;
mod record;
mod scan;
mod spare;
mod writer;
mod written;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use core_types::{BlockingPool, Disk, DiskError, DiskErrorKind, Entropy, File, GroupId, Incarnation, NodeId, limits};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use record::fuzz_records;

use index::{Found, Index};
use record::{Context, Stored};
use scan::Scan;
use spare::Spares;
use writer::Writer;

/// A replica's log within the node's: a group in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupKey {
    /// Which group.
    pub group: GroupId,
    /// Which life of it.
    pub incarnation: Incarnation,
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.group, self.incarnation)
    }
}

/// The place of an entry in its group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogMark {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// The first entry of a group has index 0.
    pub index: u64,
}

/// An entry; the log does not look into its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub mark: LogMark,
    /// At most [`limits::LOG_RECORD_BYTES_MAX`] octets.
    pub body: Bytes,
}

/// What a group can have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The entry after the last one.
    Append(LogEntry),
    /// The latest vote, in the caller's encoding.
    Vote(Bytes),
    /// Entries from this index on are gone.
    Truncate {
        /// The first that is gone.
        from: u64,
    },
    /// Entries up to this one are not needed any more.
    Purge {
        /// The last that is not needed; may lie beyond the last entry.
        upto: LogMark,
    },
    /// Everything up to here is committed.
    Committed(LogMark),
    /// The group begins, empty. Also what repairs a damaged one.
    Created,
    /// The replica is gone, with everything of it.
    Removed,
}

/// Where a node's log stands: compared by the node's peers, so that one that comes back with an older disk is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// Counts the times that the log was opened.
    pub boot: u64,
    /// Drawn when it was opened: two lives with the same count and another nonce come from one image.
    pub nonce: u64,
    /// The last batch that is durable.
    pub seq: u64,
}

/// Bytes that were durable and are not what they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The path of the segment.
    pub segment: String,
    /// Octets from its beginning.
    pub offset: u64,
    /// The groups that it may concern; `None` for all that the log held then.
    pub groups: Option<Vec<GroupKey>>,
    /// What was found.
    pub detail: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at offset {} of {}; groups: ",
            self.detail, self.offset, self.segment
        )?;
        match &self.groups {
            None => write!(f, "all"),
            Some(groups) => groups.iter().try_for_each(|key| write!(f, "{key} ")),
        }
    }
}

/// Why the log did not do it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// No room for the next segment. Nothing of the request is kept; works again when there is room.
    #[error("the log has no room on the disk: {0}")]
    Full(DiskError),
    /// A sync or a write failed, now or before: the node must stop.
    #[error("the log failed and takes nothing more: {0}")]
    SyncFailed(DiskError),
    /// Reading failed.
    #[error("the log cannot be read: {0}")]
    Disk(DiskError),
    /// What was durable is damaged. The groups concerned must not vote until they are created anew.
    #[error("the log is damaged: {0}")]
    Corrupt(Arc<Damage>),
    /// An entry that is not the one after the last.
    #[error("group {key}: entry {index} does not follow the last one")]
    Hole {
        /// Whose.
        key: GroupKey,
        /// The entry's index.
        index: u64,
    },
    /// The group was not created, or is removed.
    #[error("the log knows no group {0}")]
    NoGroup(GroupKey),
    /// The process ends.
    #[error("the log ends with the process")]
    Ended,
    /// A record above [`limits::LOG_RECORD_BYTES_MAX`].
    #[error("a record of {0} bytes is too large for the log")]
    TooLarge(usize),
    /// The log belongs to another node.
    #[error("the log in {path} belongs to node {found}, not to node {wanted}")]
    WrongNode {
        /// The segment that says so.
        path: String,
        /// Whose it is.
        found: NodeId,
        /// Who this is.
        wanted: NodeId,
    },
    /// A segment of a format that this program does not know.
    #[error("{path}: unknown version {found} of the log")]
    UnknownVersion {
        /// The segment.
        path: String,
        /// Its version.
        found: u8,
    },
}

impl LogError {
    fn of_write(error: DiskError) -> Self {
        match error.kind {
            DiskErrorKind::Full => Self::Full(error),
            _ => Self::SyncFailed(error),
        }
    }
}

/// What a group's log holds besides entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The latest vote.
    pub vote: Option<Bytes>,
    /// The last entry, or what was purged last if there is none.
    pub last: Option<LogMark>,
    /// What was purged last.
    pub purged: Option<LogMark>,
    /// The highest known to be committed; never beyond `last`, which openraft would not start with.
    pub committed: Option<LogMark>,
    /// Set when the group must not vote.
    pub damage: Option<Arc<Damage>>,
}

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// Whose it is.
    pub node: NodeId,
    /// Its directory, relative to the data directory.
    pub directory: String,
    /// Octets of a segment.
    pub segment_bytes: u64,
    /// Octets of entries kept in memory.
    pub cache_bytes: usize,
}

impl LogConfig {
    /// The usual sizes, in `log`.
    #[must_use]
    pub fn new(node: NodeId) -> Self {
        Self {
            node,
            directory: "log".to_owned(),
            segment_bytes: limits::LOG_SEGMENT_BYTES,
            cache_bytes: limits::LOG_CACHE_BYTES_MAX,
        }
    }
}

/// Called once, when the request is durable or has failed; never before. Runs where the log is written: it must be quick.
pub type Done = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// The log of a node. Clones are the same log.
#[derive(Clone)]
pub struct SharedLog {
    inner: Arc<Inner>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    pool: Arc<dyn BlockingPool>,
    config: LogConfig,
    /// Held for moments only, never over a disk call (except after a full disk, to read the log anew).
    shared: Mutex<Shared>,
    /// Held by the one job that writes.
    writer: Mutex<Writer>,
    spares: Spares,
    /// There was a log before this one, and it is gone.
    is_lost: AtomicBool,
    /// Octets that may still be submitted.
    room: Arc<Semaphore>,
}

struct Shared {
    index: Index,
    segments: Segments,
    queue: VecDeque<Item>,
    /// Committed marks that wait for a batch to go with.
    committed: BTreeMap<GroupKey, LogMark>,
    running: bool,
    failed: Option<LogError>,
    position: LogPosition,
    found: LogPosition,
}

type Segments = BTreeMap<u64, Segment>;

#[derive(Clone)]
struct Segment {
    path: String,
    file: Arc<dyn File>,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    segment: u64,
    offset: u64,
    length: u32,
    seq: u64,
}

struct Item {
    stored: Stored,
    stamp: u64,
    done: Option<Done>,
}

impl fmt::Debug for SharedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLog").finish_non_exhaustive()
    }
}

impl SharedLog {
    /// Opens the log, or begins one where there is none. Blocks; time and memory are linear in the log.
    ///
    /// Damage does not keep a log from being opened: see [`SharedLog::damages`].
    ///
    /// # Errors
    /// `Full` when there is no room, `WrongNode`, `UnknownVersion`; `Disk` and `SyncFailed` as they come. A log of which
    /// nothing can be read is set aside: see [`SharedLog::is_lost`].
    pub fn open(
        disk: Arc<dyn Disk>,
        pool: Arc<dyn BlockingPool>,
        entropy: &dyn Entropy,
        config: LogConfig,
    ) -> Result<Self, LogError> {
        disk.create_dir_all(&config.directory).map_err(LogError::of_write)?;
        let mut scan = match Scan::run(&*disk, &config, None) {
            Err(LogError::Corrupt(damage)) => {
                tracing::error!(%damage, "nothing of the log can be read; it is set aside as lost");
                life::set_aside(&*disk, &config)?;
                Scan::run(&*disk, &config, None)?
            }
            read => read?,
        };
        for damage in &scan.damages {
            tracing::error!(%damage, "the log is damaged where it was durable");
        }
        let mut writer = Writer::open(&*disk, &config, entropy, &mut scan)?;
        let Scan {
            index, mut segments, ..
        } = scan;
        let found = writer.position();
        let position = writer.boot(&*disk, &config, entropy, &mut segments)?;
        let is_lost = life::is_lost(&*disk, &config, &index.salt)?;
        if is_lost {
            tracing::error!(
                directory = config.directory,
                "the log that this node once began is gone, and with it the votes of its groups"
            );
        }
        let shared = Shared {
            index,
            segments,
            queue: VecDeque::new(),
            committed: BTreeMap::new(),
            running: false,
            failed: None,
            position,
            found,
        };
        let inner = Inner {
            disk,
            pool,
            config,
            shared: Mutex::new(shared),
            writer: Mutex::new(writer),
            spares: Spares::default(),
            is_lost: AtomicBool::new(is_lost),
            room: Arc::new(Semaphore::new(limits::LOG_QUEUE_BYTES_MAX)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Waits until there is room for this many octets in the queue; the room is free again when the permit is dropped, which
    /// `done` should do. `None` when the log is gone.
    pub async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes.min(limits::LOG_QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        Arc::clone(&self.inner.room).acquire_many_owned(bytes).await.ok()
    }

    /// Takes a group's records, in order, after everything that was submitted before. They can be read at once; `done` is
    /// called when they are durable.
    ///
    /// An error is also given to `done`, and then nothing of the request is kept.
    pub fn submit(&self, key: GroupKey, records: Vec<Record>, done: Done) {
        let refused = {
            let mut shared = self.inner.lock();
            shared.accept(key, records, done).err()
        };
        match refused {
            Some((done, error)) => done(Err(error)),
            None => self.inner.start(),
        }
    }

    /// Submits, and waits until it is durable. Dropping the future takes nothing back.
    ///
    /// # Errors
    /// Why it was refused, or how the log failed.
    pub async fn write(&self, key: GroupKey, records: Vec<Record>) -> Result<(), LogError> {
        let (tell, told) = oneshot::channel();
        self.submit(
            key,
            records,
            Box::new(move |result| {
                // Nobody waits any more if this fails; the records are in order all the same.
                let _gone = tell.send(result);
            }),
        );
        match told.await {
            Ok(result) => result,
            // Only a job that was dropped before it ran completes nothing: the runtime ends.
            Err(_) => Err(self.failure().unwrap_or(LogError::NoGroup(key))),
        }
    }

    /// Notes how far a group is committed. Written with whatever is written next, without a sync of its own; may be lost.
    ///
    /// # Errors
    /// `NoGroup`, `Corrupt`, or how the log failed.
    pub fn note_committed(&self, key: GroupKey, mark: LogMark) -> Result<(), LogError> {
        let mut shared = self.inner.lock();
        if let Some(failed) = &shared.failed {
            return Err(failed.clone());
        }
        let group = shared.index.healthy_mut(key)?;
        if group
            .meta
            .committed
            .is_none_or(|committed| committed.index < mark.index)
        {
            group.meta.committed = Some(mark);
            shared.committed.insert(key, mark);
        }
        Ok(())
    }

    /// Entries of a group from `range`, in order; less than asked for when they are not there. Ends early once
    /// `bytes_max` is exceeded, but never before one entry. Blocks unless [`SharedLog::is_cached`].
    ///
    /// # Errors
    /// `NoGroup`; `Corrupt` for damage that is found now or was before; `Disk`.
    pub fn read(&self, key: GroupKey, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        let (found, segments, salt) = {
            let shared = self.inner.lock();
            let found = shared.index.find(key, range, bytes_max)?;
            let wanted: std::collections::BTreeSet<u64> = found.iter().filter_map(Found::segment).collect();
            let segments: Segments = wanted
                .into_iter()
                .filter_map(|number| Some((number, shared.segments.get(&number)?.clone())))
                .collect();
            (found, segments, shared.index.salt)
        };
        let mut entries = Vec::with_capacity(found.len());
        for found in found {
            let (mark, place) = match found {
                Found::Cached(entry) => {
                    entries.push(entry);
                    continue;
                }
                Found::Stored(mark, place) => (mark, place),
            };
            let segment = segments.get(&place.segment).ok_or(LogError::NoGroup(key))?;
            let read = read_entry(segment, &salt, key, mark, place);
            if let Err(LogError::Corrupt(damage)) = &read {
                tracing::error!(%damage, "the log is damaged where it was durable");
                self.inner.lock().index.damage_entry(key, mark.index, place, damage);
            }
            entries.push(read?);
        }
        Ok(entries)
    }

    /// Whether [`SharedLog::read`] of the same would not touch the disk.
    ///
    /// # Errors
    /// As [`SharedLog::read`].
    pub fn is_cached(&self, key: GroupKey, range: Range<u64>, bytes_max: usize) -> Result<bool, LogError> {
        let found = self.inner.lock().index.find(key, range, bytes_max)?;
        Ok(found.iter().all(|found| found.segment().is_none()))
    }

    /// The state of a group's log as submitted; `None` for a group that it does not know.
    #[must_use]
    pub fn state(&self, key: GroupKey) -> Option<GroupState> {
        self.inner.lock().index.state(key)
    }

    /// All groups that the log knows, in order.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupKey> {
        self.inner.lock().index.keys()
    }

    /// The damage of groups that were not created anew since, each once.
    #[must_use]
    pub fn damages(&self) -> Vec<Arc<Damage>> {
        self.inner.lock().index.damages()
    }

    /// Whether the node once began another log, which is gone: a replica that this one does not know may have voted there.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.inner.is_lost.load(Ordering::Acquire)
    }

    /// Where the log was when it was opened; all zero for one that was begun then.
    #[must_use]
    pub fn found(&self) -> LogPosition {
        self.inner.lock().found
    }

    /// Goes on as what it is: an older image of a log that was in start `boot` at least. What it does not know says nothing
    /// any more ([`SharedLog::is_lost`]), and its position is above every one that it had. Blocks for a small file.
    ///
    /// # Errors
    /// How the log failed.
    pub async fn fence(&self, boot: u64) -> Result<(), LogError> {
        let inner = Arc::clone(&self.inner);
        let (tell, told) = oneshot::channel();
        self.inner.pool.execute(Box::new(move || {
            let _gone = tell.send(life::forget(&*inner.disk, &inner.config));
        }));
        told.await.map_err(|_| self.failure().unwrap_or(LogError::Ended))??;
        self.inner.is_lost.store(true, Ordering::Release);
        let (tell, told) = oneshot::channel();
        let (stored, higher) = {
            let mut shared = self.inner.lock();
            if let Some(failed) = &shared.failed {
                return Err(failed.clone());
            }
            let count = boot.max(shared.position.boot).saturating_add(1);
            let nonce = shared.position.nonce;
            let done: Done = Box::new(move |result| {
                let _gone = tell.send(result);
            });
            shared.queue.push_back(Item {
                stored: Stored::Boot { count, nonce },
                stamp: 0,
                done: Some(done),
            });
            let seq = shared.position.seq;
            (
                count,
                LogPosition {
                    boot: count,
                    nonce,
                    seq,
                },
            )
        };
        self.inner.start();
        told.await.map_err(|_| self.failure().unwrap_or(LogError::Ended))??;
        tracing::warn!(start = stored, "the log goes on above what is remembered of it");
        self.inner.lock().found = higher;
        Ok(())
    }

    /// How far the log is durable.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.inner.lock().position
    }

    /// Whether everything that was submitted is durable, so that what [`SharedLog::state`] says would survive a power loss.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let shared = self.inner.lock();
        !shared.running && shared.queue.is_empty() && shared.failed.is_none()
    }

    /// How the log failed for good, if it did: the node must stop.
    #[must_use]
    pub fn failure(&self) -> Option<LogError> {
        self.inner.lock().failed.clone()
    }

    /// Segments on the disk.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.inner.lock().segments.len()
    }

    /// The groups whose entries keep the oldest segment on the disk, if there are more than `segments` of them: those that
    /// should make a snapshot and purge.
    #[must_use]
    pub fn pinning(&self, segments: usize) -> Vec<GroupKey> {
        let shared = self.inner.lock();
        if shared.segments.len() <= segments {
            return Vec::new();
        }
        let bound = shared.segments.keys().rev().nth(segments.saturating_sub(1)).copied();
        shared.index.with_entries_before(bound.unwrap_or(0))
    }

    /// The path of the segment in which an entry stands, and where in it.
    #[cfg(test)]
    pub(crate) fn place_of(&self, key: GroupKey, index: u64) -> (String, u64) {
        let shared = self.inner.lock();
        let place = shared.index.place(key, index).unwrap();
        (shared.segments[&place.segment].path.clone(), place.offset)
    }

    /// Drops every written entry from memory.
    #[cfg(test)]
    pub(crate) fn forget_cached(&self) {
        self.inner.lock().index.forget_cached();
    }

    /// Whose log it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.inner.config.node
    }

    /// The pool that blocking reads belong on.
    #[must_use]
    pub fn pool(&self) -> Arc<dyn BlockingPool> {
        Arc::clone(&self.inner.pool)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what waits written, unless a job is at it.
    fn start(self: &Arc<Self>) {
        {
            let mut shared = self.lock();
            if shared.running || shared.queue.is_empty() {
                return;
            }
            shared.running = true;
        }
        let inner = Arc::clone(self);
        self.pool.execute(Box::new(move || writer::drain(&inner)));
    }
}

impl Shared {
    fn accept(&mut self, key: GroupKey, records: Vec<Record>, done: Done) -> Result<(), (Done, LogError)> {
        if let Some(failed) = &self.failed {
            return Err((done, failed.clone()));
        }
        if let Err(error) = self.index.check(key, &records) {
            return Err((done, error));
        }
        let mut done = Some(done);
        let count = records.len();
        if count == 0 {
            // Nothing to write, but what was submitted before must be durable when it is completed.
            let stored = Stored::Oldest { segment: 0 };
            self.queue.push_back(Item { stored, stamp: 0, done });
            return Ok(());
        }
        for (position, record) in records.into_iter().enumerate() {
            let stamp = self.index.submit(key, &record);
            if matches!(record, Record::Created | Record::Removed) {
                self.committed.remove(&key);
            }
            let done = if position + 1 == count { done.take() } else { None };
            let stored = Stored::Group(key, record);
            self.queue.push_back(Item { stored, stamp, done });
        }
        Ok(())
    }
}

fn read_entry(
    segment: &Segment,
    salt: &record::Salt,
    key: GroupKey,
    mark: LogMark,
    place: Place,
) -> Result<LogEntry, LogError> {
    let mut bytes = vec![0; usize::try_from(place.length).unwrap_or(0)];
    segment
        .file
        .read_exact_at(place.offset, &mut bytes)
        .map_err(LogError::Disk)?;
    let context = Context {
        salt,
        segment: place.segment,
    };
    match Stored::decode(&bytes, context, place.offset, place.seq) {
        Some((Stored::Group(found, Record::Append(entry)), _)) if found == key && entry.mark == mark => Ok(entry),
        _ => Err(LogError::Corrupt(Arc::new(Damage {
            segment: segment.path.clone(),
            offset: place.offset,
            groups: Some(vec![key]),
            detail: "an entry is not what was written",
        }))),
    }
}

#[cfg(test)]
mod tests;
