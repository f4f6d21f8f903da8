//! The journal's writer: one ordered task that makes concurrent puts durable together, one fdatasync for each batch.
//!
//! Invariants: a put is answered only after the sync that covers its record; a batch is written only when the one before
//! it was synced; a blob is in the index exactly while its record is durable and its file is not. A segment is used again
//! only when the files of all its records are durable. A failed sync ends the journal for good.
//!
//! Not here: the record format (see `journal`), the files (see `filing`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use core_types::{BlobId, Disk, DiskErrorKind, Entropy, File, OpenMode};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::BlobConfig;
use crate::error::BlobError;
use crate::files::{Files, lock};
use crate::journal::{self, HEADER_BYTES, Header, KEY_OFFSETS, Key, Mark, RECORDS_START};
use crate::run::run;

/// A put that waits for its sync.
pub(crate) struct Append {
    pub(crate) id: BlobId,
    pub(crate) file: Bytes,
    pub(crate) done: oneshot::Sender<Result<(), BlobError>>,
}

/// What the journal holds, shared by its writer, the filing task and readers.
pub(crate) struct Journal {
    index: Mutex<Index>,
    poison: Mutex<Option<String>>,
    poisoned: AtomicBool,
    /// The filing task has work, or the committer a segment: whoever waits looks again.
    pub(crate) filing_wanted: Notify,
    pub(crate) progress: Notify,
    pub(crate) poison_noted: Notify,
    files: Arc<Files>,
    entropy: Arc<dyn Entropy>,
    config: BlobConfig,
}

#[derive(Default)]
struct Index {
    places: BTreeMap<BlobId, Place>,
    queue: VecDeque<BlobId>,
    backlog_bytes: u64,
    segments: BTreeMap<u64, Segment>,
    seq_last: u64,
    /// Why files cannot be written at the moment.
    filing_error: Option<BlobError>,
    free_slots: Vec<u32>,
}

struct Segment {
    slot: u32,
    file: Arc<dyn File>,
    waiting: usize,
    /// No more records will come.
    closed: bool,
    end: u32,
}

/// Where a record's payload is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) file: Arc<dyn File>,
    pub(crate) offset: u64,
    pub(crate) length: usize,
    pub(crate) crc: u32,
}

/// What the journal said when it was opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replay {
    pub(crate) blobs: usize,
    pub(crate) damaged: Vec<BlobId>,
    pub(crate) holes: u64,
}

/// The segment that records go to.
struct Current {
    seq: u64,
    file: Arc<dyn File>,
    key: Key,
    position: u32,
    prior_end: u32,
}

impl Journal {
    /// Reads what is there. Blocks.
    pub(crate) fn open(
        files: Arc<Files>,
        entropy: Arc<dyn Entropy>,
        config: BlobConfig,
    ) -> Result<(Self, Replay), BlobError> {
        let disk = Arc::clone(&files.disk);
        disk.create_dir_all(JOURNAL_DIR)?;
        let mut index = Index::default();
        let mut replay = Replay::default();
        let mut scans = BTreeMap::new();
        let mut hidden_lives = 0;
        for slot in 0..config.journal_segments {
            let file = match disk.open(&segment_path(slot), OpenMode::Write) {
                Ok(file) => file,
                Err(error) if error.kind == DiskErrorKind::NotFound => {
                    index.free_slots.push(slot);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0).min(SEGMENT_READ_BYTES_MAX)];
            let unread = file.read_around_at(0, &mut bytes)?;
            let mut scan = journal::scan(&bytes);
            if let Some(last) = unread.last() {
                tracing::error!(slot, unread = ?unread, "the disk does not read a part of the blob journal");
                // Nobody knows what was there: it counts as having been durable, maybe in a later life than what is seen.
                scan.safe_end = scan.safe_end.max(u32::try_from(last.end).unwrap_or(u32::MAX));
                hidden_lives = u64::from(config.journal_segments);
                replay.holes += u64::from(scan.released);
            }
            if scan.unreadable || (scan.seq == 0 && !unread.is_empty()) {
                // Never finished being made, when it is all zeros; else nobody knows what it held.
                let held = bytes.iter().any(|byte| *byte != 0) && !only_keys(&bytes);
                if held || !unread.is_empty() {
                    replay.holes += 1;
                }
                disk.rename(&segment_path(slot), &format!("{JOURNAL_DIR}/{slot}.unreadable"))?;
                disk.sync_dir(JOURNAL_DIR)?;
                index.free_slots.push(slot);
            } else if scan.seq == 0 || scan.released {
                index.seq_last = index.seq_last.max(scan.seq);
                index.free_slots.push(slot);
                scans.insert(scan.seq, (slot, file, scan));
            } else {
                index.seq_last = index.seq_last.max(scan.seq);
                scans.insert(scan.seq, (slot, file, scan));
            }
        }
        index.seq_last += hidden_lives;
        let ends: BTreeMap<u64, u32> = scans.iter().map(|(seq, (_, _, scan))| (*seq, scan.prior_end)).collect();
        for (seq, (slot, file, mut scan)) in scans
            .into_iter()
            .filter(|(seq, (_, _, scan))| *seq != 0 && !scan.released)
        {
            scan.safe_end = scan.safe_end.max(ends.get(&(seq + 1)).copied().unwrap_or(0));
            let damage = scan.damage();
            replay.holes += damage.holes;
            replay
                .damaged
                .extend(damage.blobs.iter().filter(|id| !files.exists(**id)));
            let segment = Segment {
                slot,
                file: Arc::clone(&file),
                waiting: 0,
                closed: true,
                end: scan.safe_end,
            };
            index.segments.insert(seq, segment);
            for found in scan.records.iter().filter(|found| found.payload_good) {
                let place = Place {
                    seq,
                    file: Arc::clone(&file),
                    offset: u64::from(found.offset) + HEADER_BYTES as u64,
                    length: found.header.payload_len as usize,
                    crc: found.header.payload_crc,
                };
                replay.blobs += usize::from(index.add(found.header.id, place));
            }
        }
        replay.damaged.retain(|id| !index.places.contains_key(id));
        index.free_slots.sort_unstable_by(|one, other| other.cmp(one));
        let journal = Self {
            index: Mutex::new(index),
            poison: Mutex::default(),
            poisoned: AtomicBool::new(false),
            filing_wanted: Notify::new(),
            progress: Notify::new(),
            poison_noted: Notify::new(),
            files,
            entropy,
            config,
        };
        journal.release_finished();
        Ok((journal, replay))
    }

    pub(crate) fn check(&self) -> Result<(), BlobError> {
        if !self.poisoned.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(BlobError::SyncFailed(lock(&self.poison).clone().unwrap_or_default()))
    }

    /// Takes note of an error: after a failed sync nothing is taken any more.
    pub(crate) fn note<T>(&self, result: Result<T, BlobError>) -> Result<T, BlobError> {
        if let Err(BlobError::SyncFailed(reason)) = &result {
            lock(&self.poison).get_or_insert_with(|| reason.clone());
            self.poisoned.store(true, Ordering::Release);
            tracing::error!(reason, "a sync failed: no blob is taken any more");
            self.poison_noted.notify_waiters();
            self.progress.notify_waiters();
        }
        result
    }

    /// The blobs that have no durable file yet.
    pub(crate) fn ids(&self) -> Vec<BlobId> {
        lock(&self.index).places.keys().copied().collect()
    }

    /// Where a blob is that has no durable file yet.
    pub(crate) fn place(&self, id: BlobId) -> Option<Place> {
        lock(&self.index).places.get(&id).cloned()
    }

    /// Blobs and octets without a durable file.
    pub(crate) fn backlog(&self) -> (u64, u64) {
        let index = lock(&self.index);
        (index.places.len() as u64, index.backlog_bytes)
    }

    /// Why files cannot be written at the moment.
    pub(crate) fn filing_error(&self) -> Option<BlobError> {
        lock(&self.index).filing_error.clone()
    }

    /// The next blobs to be written, oldest first; they stay in the index.
    pub(crate) fn next_to_file(&self, count: usize) -> Vec<(BlobId, Place)> {
        let index = lock(&self.index);
        let with_place = |id: &BlobId| index.places.get(id).map(|place| (*id, place.clone()));
        index.queue.iter().filter_map(with_place).take(count).collect()
    }

    /// `ids` have durable files now; the records of `damaged` cannot be read any more. Gives the damaged blobs of which
    /// the journal has nothing else: one that was put again meanwhile has another record, which is still to be filed.
    /// Blocks.
    pub(crate) fn filed(&self, ids: &[BlobId], damaged: &[(BlobId, Place)]) -> Vec<BlobId> {
        let mut index = lock(&self.index);
        for id in ids {
            index.remove(*id);
        }
        let mut lost = Vec::new();
        for (id, place) in damaged {
            if index.places.get(id).is_some_and(|now| now.is_same(place)) {
                index.remove(*id);
                lost.push(*id);
            }
        }
        while index.queue.front().is_some_and(|id| !index.places.contains_key(id)) {
            index.queue.pop_front();
        }
        index.filing_error = None;
        drop(index);
        self.release_finished();
        self.progress.notify_waiters();
        lost
    }

    /// Files cannot be written now.
    pub(crate) fn filing_failed(&self, error: BlobError) {
        lock(&self.index).filing_error = Some(error);
        self.progress.notify_waiters();
    }

    /// Lets go of segments that nothing waits for. Blocks.
    fn release_finished(&self) {
        let finished: Vec<(u64, Segment)> = {
            let mut index = lock(&self.index);
            let done = |segment: &Segment| segment.closed && segment.waiting == 0;
            let seqs: Vec<u64> = index
                .segments
                .iter()
                .filter(|(_, segment)| done(segment))
                .map(|(seq, _)| *seq)
                .collect();
            seqs.into_iter()
                .filter_map(|seq| index.segments.remove(&seq).map(|segment| (seq, segment)))
                .collect()
        };
        for (seq, segment) in finished {
            let mark = Mark {
                seq,
                durable_end: segment.end,
                released: true,
            };
            // Its loss does no harm: what is replayed once more gets the same file once more. It is synced when the slot
            // is used again, so that the new life's first batch is not taken for damage of the old one.
            if let Err(error) = segment.file.write_at(0, &mark.encode()) {
                tracing::warn!(%error, "the mark of a journal segment was not written");
            }
            lock(&self.index).free_slots.push(segment.slot);
        }
    }

    /// Takes appends until the store is dropped.
    pub(crate) async fn commit_all(self: Arc<Self>, mut appends: mpsc::Receiver<Append>) {
        let mut current: Option<Current> = None;
        let mut batch_number = 0;
        let mut next: Option<Append> = None;
        loop {
            let Some(first) = (match next.take() {
                Some(append) => Some(append),
                None => appends.recv().await,
            }) else {
                return;
            };
            if let Err(error) = self.check() {
                let _ = first.done.send(Err(error));
                continue;
            }
            let ready = match self
                .room_for(current.take(), journal::record_len(first.file.len()))
                .await
            {
                Ok(ready) => ready,
                Err(error) => {
                    let _ = first.done.send(Err(error));
                    continue;
                }
            };
            let mut room = (self.config.journal_segment_bytes - ready.position) as usize;
            let mut bytes = 0;
            let mut batch = Vec::new();
            let mut candidate = Some(first);
            while let Some(append) = candidate.take() {
                let length = journal::record_len(append.file.len());
                if length > room || (bytes > 0 && bytes + length > self.config.batch_bytes_max) {
                    next = Some(append);
                    break;
                }
                room -= length;
                bytes += length;
                batch.push(append);
                candidate = appends.try_recv().ok();
            }
            batch_number += 1;
            current = self.commit(ready, batch, batch_number).await;
        }
    }

    /// Makes one batch durable and answers it. Gives the segment back unless it cannot be used any more.
    async fn commit(self: &Arc<Self>, current: Current, batch: Vec<Append>, number: u64) -> Option<Current> {
        let (files, shared) = (Arc::clone(&self.files), Arc::clone(self));
        let job = run(&self.files.pool, move || {
            let mut current = current;
            let result = shared
                .check_space(files.disk.as_ref(), &batch)
                .and_then(|()| write_batch(&mut current, &batch, number));
            (current, batch, result)
        });
        let (current, batch, result) = job.await.ok()?;
        match self.note(result) {
            Ok(places) => {
                {
                    let mut index = lock(&self.index);
                    for (append, place) in batch.iter().zip(places) {
                        index.add(append.id, place);
                    }
                    if let Some(segment) = index.segments.get_mut(&current.seq) {
                        segment.end = current.position;
                    }
                }
                for append in batch {
                    let _ = append.done.send(Ok(()));
                }
                self.filing_wanted.notify_one();
            }
            Err(error) => {
                for append in batch {
                    let _ = append.done.send(Err(error.clone()));
                }
            }
        }
        Some(current)
    }

    /// The current segment if the record fits, else the next one.
    async fn room_for(self: &Arc<Self>, current: Option<Current>, length: usize) -> Result<Current, BlobError> {
        let mut prior_end = RECORDS_START;
        if let Some(current) = current {
            if current.position as usize + length <= self.config.journal_segment_bytes as usize {
                return Ok(current);
            }
            prior_end = current.position;
        }
        // Also after an error: the segment that was current then is closed, whatever it holds.
        let shared = Arc::clone(self);
        run(&self.files.pool, move || shared.close_all()).await?;
        let slot = loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            self.check()?;
            {
                let mut index = lock(&self.index);
                if let Some(slot) = index.free_slots.pop() {
                    break slot;
                }
                if let Some(error) = &index.filing_error {
                    return Err(error.clone());
                }
            }
            self.filing_wanted.notify_one();
            progress.await;
        };
        let shared = Arc::clone(self);
        let begun = run(&self.files.pool, move || shared.begin_segment(slot))
            .await
            .and_then(|begun| begun);
        let (file, key) = match self.note(begun) {
            Ok(begun) => begun,
            Err(error) => {
                lock(&self.index).free_slots.push(slot);
                return Err(error);
            }
        };
        let mut index = lock(&self.index);
        index.seq_last += 1;
        let seq = index.seq_last;
        let segment = Segment {
            slot,
            file: Arc::clone(&file),
            waiting: 0,
            closed: false,
            end: RECORDS_START,
        };
        index.segments.insert(seq, segment);
        Ok(Current {
            seq,
            file,
            key,
            position: RECORDS_START,
            prior_end,
        })
    }

    fn close_all(&self) {
        for segment in lock(&self.index).segments.values_mut() {
            segment.closed = true;
        }
        self.release_finished();
    }

    /// Opens a slot's file, or makes it: preallocated and synced, so that a batch's sync has no metadata to write.
    fn begin_segment(&self, slot: u32) -> Result<(Arc<dyn File>, Key), BlobError> {
        let disk = &self.files.disk;
        let path = segment_path(slot);
        if let Ok(file) = disk.open(&path, OpenMode::Write) {
            let mut head = vec![0; RECORDS_START as usize];
            if file.len()? == u64::from(self.config.journal_segment_bytes)
                && file.read_exact_at(0, &mut head).is_ok()
                && let Some(key) = journal::find_key(&head)
            {
                file.sync_data()?;
                return Ok((file, key));
            }
            disk.remove(&path)?;
        }
        let key = self.entropy.bytes();
        let file = disk.open(&path, OpenMode::CreateNew)?;
        let made = allocate(file.as_ref(), self.config.journal_segment_bytes, &key);
        if made.is_err() {
            // Half a segment takes the room that is missing.
            let _ = disk.remove(&path);
        }
        made?;
        disk.sync_dir(JOURNAL_DIR)?;
        Ok((file, key))
    }

    /// The files are still to be written: room that they need is not given away twice.
    fn check_space(&self, disk: &dyn Disk, batch: &[Append]) -> Result<(), BlobError> {
        let wanted: u64 = batch.iter().map(|append| append.file.len() as u64).sum();
        let (_, backlog) = self.backlog();
        if disk.free_bytes()? < self.config.reserve_bytes.saturating_add(backlog).saturating_add(wanted) {
            return Err(BlobError::Full);
        }
        Ok(())
    }
}

impl Index {
    /// Whether it was not there yet. A later record takes the place of an earlier one: the blob was put again because the
    /// earlier one cannot be read any more.
    fn add(&mut self, id: BlobId, place: Place) -> bool {
        let is_new = !self.remove(id);
        self.backlog_bytes += place.length as u64;
        if let Some(segment) = self.segments.get_mut(&place.seq) {
            segment.waiting += 1;
        }
        self.places.insert(id, place);
        if is_new {
            self.queue.push_back(id);
        }
        is_new
    }

    /// Whether it was there.
    fn remove(&mut self, id: BlobId) -> bool {
        let Some(place) = self.places.remove(&id) else {
            return false;
        };
        self.backlog_bytes = self.backlog_bytes.saturating_sub(place.length as u64);
        if let Some(segment) = self.segments.get_mut(&place.seq) {
            segment.waiting = segment.waiting.saturating_sub(1);
        }
        true
    }
}

impl Place {
    fn is_same(&self, other: &Self) -> bool {
        (self.seq, self.offset) == (other.seq, other.offset)
    }

    /// The encoded file. `None` when the segment has other bytes there by now. Blocks.
    pub(crate) fn read(&self) -> Result<Option<Bytes>, BlobError> {
        let mut bytes = vec![0; self.length];
        self.file.read_exact_at(self.offset, &mut bytes)?;
        Ok((crc32c::crc32c(&bytes) == self.crc).then(|| bytes.into()))
    }
}

fn write_batch(current: &mut Current, batch: &[Append], number: u64) -> Result<Vec<Place>, BlobError> {
    let mut bytes = Vec::new();
    let mut places = Vec::with_capacity(batch.len());
    for append in batch {
        let start = bytes.len();
        let header = Header {
            seq: current.seq,
            batch: number,
            batch_start: current.position,
            prior_end: current.prior_end,
            id: append.id,
            payload_len: u32::try_from(append.file.len()).map_err(|_| BlobError::TooLarge(u64::from(u32::MAX)))?,
            payload_crc: crc32c::crc32c(&append.file),
        };
        bytes.extend_from_slice(&header.encode(&current.key));
        places.push(Place {
            seq: current.seq,
            file: Arc::clone(&current.file),
            offset: u64::from(current.position) + bytes.len() as u64,
            length: append.file.len(),
            crc: header.payload_crc,
        });
        bytes.extend_from_slice(&append.file);
        bytes.resize(start + journal::record_len(append.file.len()), 0);
    }
    current.file.write_at(u64::from(current.position), &bytes)?;
    current.file.sync_data()?;
    current.position += u32::try_from(bytes.len()).map_err(|_| BlobError::TooLarge(u64::from(u32::MAX)))?;
    let mark = Mark {
        seq: current.seq,
        durable_end: current.position,
        released: false,
    };
    // The batch is durable whether or not this is written.
    if let Err(error) = current.file.write_at(0, &mark.encode()) {
        tracing::warn!(%error, "the mark of a journal segment was not written");
    }
    Ok(places)
}

fn allocate(file: &dyn File, length: u32, key: &Key) -> Result<(), BlobError> {
    let zeros = vec![0; 256 * 1024];
    let mut offset = 0;
    while offset < length {
        let count = (length - offset).min(256 * 1024);
        file.write_at(u64::from(offset), zeros.get(..count as usize).unwrap_or_default())?;
        offset += count;
    }
    for offset in KEY_OFFSETS {
        file.write_at(offset, &journal::encode_key(key))?;
    }
    Ok(file.sync_data()?)
}

/// A segment that was being made when the power went holds at most zeros and pieces of its key.
fn only_keys(bytes: &[u8]) -> bool {
    bytes
        .get(RECORDS_START as usize..)
        .unwrap_or_default()
        .iter()
        .all(|byte| *byte == 0)
}

fn segment_path(slot: u32) -> String {
    format!("{JOURNAL_DIR}/{slot}.segment")
}

const JOURNAL_DIR: &str = "blobs.journal";
/// More than any configured segment.
const SEGMENT_READ_BYTES_MAX: usize = 256 * 1024 * 1024;
