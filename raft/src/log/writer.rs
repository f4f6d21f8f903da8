//! The one job that writes: it owns the end of the log.
//!
//! A batch is one `write_at` and one `sync_data`; its requests are completed after that and before the next batch is
//! written. A batch stands in one segment. A new segment is whole and durable, its name included, before a batch goes into it.
//!
//! Not here: what is in memory (`index`), reading (`scan`).

use std::collections::BTreeSet;
use std::sync::Arc;

use core_types::mutants::{self, Mutant};
use core_types::{Disk, DiskErrorKind, Entropy, OpenMode, limits};

use super::record::{Context, Marker, SEGMENT_HEADER_BYTES, Salt, SegmentHeader, Stored, marker_length};
use super::scan::{Scan, Tail};
use super::spare::{self, Spare, Spares};
use super::written::Written;
use super::{Done, GroupKey, Inner, Item, LogConfig, LogError, LogPosition, Place, Record, Segment, Segments, Shared};

pub(crate) struct Writer {
    salt: Salt,
    number: u64,
    segment: Option<Segment>,
    capacity: u64,
    /// Everything before it is durable.
    durable: u64,
    /// Where the next batch goes; beyond `durable` when the last one was not synced.
    end: u64,
    /// Of the last batch that was tried.
    seq: u64,
    /// Of the last batch that is durable.
    durable_seq: u64,
    boot: (u64, u64),
    written: Written,
    /// Purged or removed since segments were last looked through.
    may_delete: bool,
}

impl Writer {
    /// Goes on where the scan ended; a torn tail is zeroed, durably.
    pub(crate) fn open(
        disk: &dyn Disk,
        config: &LogConfig,
        entropy: &dyn Entropy,
        scan: &mut Scan,
    ) -> Result<Self, LogError> {
        for name in disk.list(&config.directory).map_err(LogError::Disk)? {
            if name.ends_with(".tmp") {
                disk.remove(&format!("{}/{name}", config.directory))
                    .map_err(LogError::Disk)?;
            }
        }
        if scan.tail.is_none() {
            scan.index.salt = entropy.bytes();
        }
        let mut writer = Self {
            salt: scan.index.salt,
            number: 0,
            segment: None,
            capacity: 0,
            durable: 0,
            end: 0,
            seq: scan.last_seq,
            durable_seq: scan.last_seq,
            boot: scan.written.boot,
            written: std::mem::take(&mut scan.written),
            may_delete: true,
        };
        if let Some(tail) = &scan.tail {
            let segment = scan.segments.get(&tail.number).cloned();
            if let Some(segment) = &segment {
                make_durable(segment, tail)?;
            }
            writer.number = tail.number;
            writer.segment = segment;
            writer.capacity = tail.capacity;
            writer.durable = tail.end;
            writer.end = tail.end;
        } else {
            writer.written.oldest = 1;
        }
        Ok(writer)
    }

    /// Writes that the node has started.
    pub(crate) fn boot(
        &mut self,
        disk: &dyn Disk,
        config: &LogConfig,
        entropy: &dyn Entropy,
        segments: &mut Segments,
    ) -> Result<LogPosition, LogError> {
        let (count, nonce) = (self.boot.0 + 1, u64::from_le_bytes(entropy.bytes()));
        let stored = [Stored::Boot { count, nonce }];
        let need = batch_length(&stored);
        if self.end + need > self.capacity {
            let (number, segment) = self.roll(disk, config, need, None)?;
            segments.insert(number, segment);
        }
        self.write(&stored, true)?;
        Ok(self.position())
    }

    pub(crate) fn position(&self) -> LogPosition {
        LogPosition {
            boot: self.boot.0,
            nonce: self.boot.1,
            seq: self.durable_seq,
        }
    }

    /// Writes a batch at the end, for which there must be room.
    fn write(&mut self, batch: &[Stored], sync: bool) -> Result<Vec<Place>, LogError> {
        let Some(segment) = self.segment.clone() else {
            return Ok(Vec::new());
        };
        // A number is used once, also if this write fails: what it leaves behind is then never taken for a later batch's.
        self.seq += 1;
        let context = Context {
            salt: &self.salt,
            segment: self.number,
        };
        let groups = groups_of(batch);
        let records: u64 = batch.iter().map(|stored| stored.encoded_length() as u64).sum();
        let marker = Marker {
            seq: self.seq,
            durable: self.durable,
            bytes: records,
            groups: Some(groups.into_iter().collect()),
        };
        let mut bytes = Vec::with_capacity(usize::try_from(batch_length(batch)).unwrap_or(0));
        marker.encode(&mut bytes, context, self.end);
        let mut places = Vec::with_capacity(batch.len());
        for stored in batch {
            let offset = self.end + bytes.len() as u64;
            let start = bytes.len();
            stored.encode(&mut bytes, context, offset, self.seq);
            places.push(Place {
                segment: self.number,
                offset,
                length: u32::try_from(bytes.len() - start).unwrap_or(u32::MAX),
                seq: self.seq,
            });
        }
        if sync && mutants::is_planted(Mutant::AckBeforeSync) {
            segment.file.sync_data().map_err(LogError::SyncFailed)?;
        }
        segment.file.write_at(self.end, &bytes).map_err(LogError::of_write)?;
        if sync && !mutants::is_planted(Mutant::AckBeforeSync) {
            segment.file.sync_data().map_err(LogError::SyncFailed)?;
        }
        self.end += bytes.len() as u64;
        if sync {
            self.durable = self.end;
            self.durable_seq = self.seq;
        }
        for stored in batch {
            if let Stored::Boot { count, nonce } = stored {
                self.boot = (*count, *nonce);
            }
            self.written.note(stored, self.number);
        }
        Ok(places)
    }

    /// Begins the next segment, large enough for a batch of `need` octets.
    fn roll(
        &mut self,
        disk: &dyn Disk,
        config: &LogConfig,
        need: u64,
        spares: Option<&Spares>,
    ) -> Result<(u64, Segment), LogError> {
        if self.end > self.durable
            && let Some(segment) = &self.segment
        {
            segment.file.sync_data().map_err(LogError::SyncFailed)?;
            self.durable = self.end;
            self.durable_seq = self.seq;
        }
        let number = self.number + 1;
        let capacity = config
            .segment_bytes
            .max(SEGMENT_HEADER_BYTES as u64 + need)
            .next_multiple_of(SEGMENT_HEADER_BYTES as u64);
        let header = SegmentHeader {
            node: config.node,
            number,
            first_seq: self.seq + 1,
            salt: self.salt,
            previous_end: self.durable,
            oldest: self.written.oldest,
            capacity,
        };
        let directory = &config.directory;
        let temporary = spare::path_of(config);
        let path = format!("{directory}/{:016x}.seg", header.first_seq);
        // One of another size is of no use: a request needs more than usual.
        let ahead = spares.and_then(Spares::take).filter(|spare| spare.capacity == capacity);
        if let Err(error) = prepare(disk, &temporary, &header, capacity, ahead) {
            // It is of no use, and in the way of others on a full disk; the next try removes it if this fails.
            let _removed = disk.remove(&temporary);
            return Err(error);
        }
        disk.rename(&temporary, &path).map_err(LogError::of_write)?;
        if !mutants::is_planted(Mutant::DirectoryNotSynced) {
            disk.sync_dir(directory).map_err(LogError::SyncFailed)?;
        }
        // Once more, so that the file knows its name in errors.
        let file = disk.open(&path, OpenMode::Write).map_err(LogError::SyncFailed)?;
        let segment = Segment { path, file };
        self.number = number;
        self.segment = Some(segment.clone());
        self.capacity = capacity;
        self.durable = SEGMENT_HEADER_BYTES as u64;
        self.end = self.durable;
        self.may_delete = true;
        Ok((number, segment))
    }
}

/// Has the disk hold what the scan read, and zeros behind it.
fn make_durable(segment: &Segment, tail: &Tail) -> Result<(), LogError> {
    // What was read may be in the page cache only, and after a failed sync even marked as clean there, so that a sync alone
    // would do nothing: it is written again. It is what no marker proves to be durable, a batch or two.
    let mut from = tail.durable;
    for unread in tail.unread.iter().chain([&(tail.end..tail.end)]) {
        // What the disk does not read stays as it is: zeros in its place would be taken for the end of the log.
        let length = unread.start.min(tail.end).saturating_sub(from);
        if length > 0 {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            segment.file.read_exact_at(from, &mut bytes).map_err(LogError::Disk)?;
            segment.file.write_at(from, &bytes).map_err(LogError::SyncFailed)?;
        }
        from = from.max(unread.end);
    }
    if tail.torn_end > tail.end {
        tracing::warn!(
            path = segment.path,
            offset = tail.end,
            "a torn tail of the log is cut off"
        );
        let zeros = vec![0; usize::try_from(tail.torn_end - tail.end).unwrap_or(0)];
        segment.file.write_at(tail.end, &zeros).map_err(LogError::SyncFailed)?;
    }
    segment.file.sync_data().map_err(LogError::SyncFailed)
}

/// Writes a whole segment with its header, durably but for its name, or what is missing of one that was made ahead. Zeros, not
/// a hole: a later write then changes no block map, and `sync_data` has no journal to wait for.
fn prepare(
    disk: &dyn Disk,
    path: &str,
    header: &SegmentHeader,
    capacity: u64,
    ahead: Option<Spare>,
) -> Result<(), LogError> {
    let mut segment = match ahead {
        Some(spare) => spare,
        None => Spare {
            file: spare::create(disk, path)?,
            zeroed: 0,
            capacity,
        },
    };
    if segment.zeroed < capacity {
        segment.zero(capacity)?;
    }
    segment.file.write_at(0, &header.encode()).map_err(LogError::of_write)?;
    segment.file.sync_data().map_err(LogError::SyncFailed)
}

fn groups_of(batch: &[Stored]) -> BTreeSet<GroupKey> {
    batch
        .iter()
        .filter_map(|stored| match stored {
            Stored::Group(key, _) | Stored::Carry(key, _) => Some(*key),
            _ => None,
        })
        .collect()
}

fn batch_length(batch: &[Stored]) -> u64 {
    let records: usize = batch.iter().map(Stored::encoded_length).sum();
    (marker_length(groups_of(batch).len()) + records) as u64
}

/// Ends the log for good if the job that writes does not come to its end.
struct Guard<'a>(&'a Inner, bool);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.1 {
            let detail = "the job that writes the log ended unexpectedly";
            let error = core_types::DiskError::new(DiskErrorKind::Other, &self.0.config.directory, detail);
            fail(self.0, &LogError::SyncFailed(error), Vec::new());
        }
    }
}

/// Writes what waits, batch by batch, until nothing does.
pub(crate) fn drain(inner: &Arc<Inner>) {
    let mut guard = Guard(inner, false);
    let mut writer = inner.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut idle = false;
    loop {
        let mut items = {
            let mut shared = inner.lock();
            if shared.failed.is_some() || (shared.queue.is_empty() && idle) {
                shared.running = false;
                break;
            }
            take_batch(&mut shared, &inner.config)
        };
        if items.is_empty() {
            idle = true;
            if let Err(error) = write_idle(inner, &mut writer) {
                fail(inner, &error, Vec::new());
            }
            continue;
        }
        idle = false;
        match write_items(inner, &mut writer, &mut items) {
            Ok(()) => complete(items, &Ok(())),
            Err(LogError::Full(error)) => give_back(inner, &writer, &LogError::Full(error), items),
            Err(error) => fail(inner, &error, items),
        }
        if writer.may_delete
            && let Err(error) = delete_unneeded(inner, &mut writer)
        {
            fail(inner, &error, Vec::new());
        }
        if writer.end > writer.capacity / 2 {
            spare::begin(inner, writer.number);
        }
    }
    guard.1 = true;
}

fn take_batch(shared: &mut Shared, config: &LogConfig) -> Vec<Item> {
    let most = limits::LOG_BATCH_BYTES_MAX.min(usize::try_from(config.segment_bytes / 2).unwrap_or(usize::MAX));
    let mut bytes = 0;
    let mut items = Vec::new();
    while let Some(item) = shared.queue.front() {
        bytes += item.stored.encoded_length();
        if bytes > most && !items.is_empty() {
            return items;
        }
        items.extend(shared.queue.pop_front());
    }
    if !items.is_empty() {
        items.extend(committed_items(shared));
    }
    items
}

/// The committed marks that wait, as records that follow everything that was submitted before.
fn committed_items(shared: &mut Shared) -> Vec<Item> {
    std::mem::take(&mut shared.committed)
        .into_iter()
        .map(|(key, mark)| Item {
            stored: Stored::Group(key, Record::Committed(mark)),
            stamp: 0,
            done: None,
        })
        .collect()
}

/// Whether the batch leads to less being needed. Such a one may use what each segment keeps in reserve, so that a full disk can
/// be made emptier.
fn frees(batch: &[Stored]) -> bool {
    let frees = |stored: &Stored| match stored {
        Stored::Group(_, record) => matches!(record, Record::Purge { .. } | Record::Removed | Record::Committed(_)),
        Stored::Carry(..) | Stored::Boot { .. } | Stored::Oldest { .. } => true,
    };
    batch.iter().all(frees)
}

fn write_items(inner: &Inner, writer: &mut Writer, items: &mut [Item]) -> Result<(), LogError> {
    let batch: Vec<Stored> = items.iter().map(|item| item.stored.clone()).collect();
    let places = write_batch(inner, writer, &batch)?;
    writer.may_delete |= batch
        .iter()
        .any(|stored| matches!(stored, Stored::Group(_, Record::Purge { .. } | Record::Removed)));
    let mut shared = inner.lock();
    for (item, place) in items.iter().zip(places) {
        if let Stored::Group(key, Record::Append(entry)) = &item.stored {
            shared.index.written(*key, entry.mark.index, item.stamp, place);
        }
    }
    shared.index.evict();
    Ok(())
}

fn write_batch(inner: &Inner, writer: &mut Writer, batch: &[Stored]) -> Result<Vec<Place>, LogError> {
    let need = batch_length(batch);
    let reserve = inner.config.segment_bytes / RESERVE_SHARE;
    if writer.end + need + reserve > writer.capacity {
        match writer.roll(&*inner.disk, &inner.config, need + reserve, Some(&inner.spares)) {
            Ok((number, segment)) => {
                inner.lock().segments.insert(number, segment);
            }
            Err(LogError::Full(_)) if frees(batch) && writer.end + need <= writer.capacity => {}
            Err(error) => return Err(error),
        }
    }
    let places = writer.write(batch, true)?;
    inner.lock().position = writer.position();
    Ok(places)
}

/// Nothing waits: writes, without a sync, that the last batch is durable, and the committed marks that wait. No room for it
/// is no error.
fn write_idle(inner: &Inner, writer: &mut Writer) -> Result<(), LogError> {
    if writer.durable != writer.end {
        // The one before is not synced, and says the same.
        return Ok(());
    }
    let batch: Vec<Stored> = committed_items(&mut inner.lock())
        .into_iter()
        .map(|item| item.stored)
        .collect();
    let reserve = inner.config.segment_bytes / RESERVE_SHARE;
    if writer.end + batch_length(&batch) + reserve > writer.capacity {
        return Ok(());
    }
    match writer.write(&batch, false) {
        Ok(_) | Err(LogError::Full(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets the oldest segments go that nobody needs, after writing again what else stands in them.
fn delete_unneeded(inner: &Inner, writer: &mut Writer) -> Result<(), LogError> {
    writer.may_delete = false;
    let last = writer.written.last_unneeded(writer.number);
    let unneeded: Vec<(u64, Segment)> = {
        let shared = inner.lock();
        if !shared.index.damages().is_empty() {
            // What is damaged stays for whoever repairs it, and so that the next start finds it again.
            return Ok(());
        }
        let range = shared.segments.range(..=last);
        range.map(|(number, segment)| (*number, segment.clone())).collect()
    };
    if unneeded.is_empty() {
        return Ok(());
    }
    let carried = writer.written.carry(last);
    match write_batch(inner, writer, &carried) {
        Ok(_) => {}
        // Later, when there is room.
        Err(LogError::Full(_)) => return Ok(()),
        Err(error) => return Err(error),
    }
    for (number, segment) in unneeded {
        if let Err(error) = inner.disk.remove(&segment.path) {
            tracing::warn!(%error, "a segment of the log cannot be deleted; left for later");
            return Ok(());
        }
        // One by one: a crash must leave no gap.
        inner
            .disk
            .sync_dir(&inner.config.directory)
            .map_err(LogError::SyncFailed)?;
        inner.lock().segments.remove(&number);
    }
    // A roll for what was carried asks for another look; there is nothing more to find.
    writer.may_delete = false;
    Ok(())
}

/// Ends the log for good.
pub(crate) fn fail(inner: &Inner, error: &LogError, items: Vec<Item>) {
    tracing::error!(%error, "the log failed; the node must stop");
    let waiting = {
        let mut shared = inner.lock();
        shared.failed.get_or_insert_with(|| error.clone());
        std::mem::take(&mut shared.queue)
    };
    complete(items, &Err(error.clone()));
    complete(waiting, &Err(error.clone()));
}

/// No room: fails what is not written and has memory show again what the disk holds.
fn give_back(inner: &Inner, writer: &Writer, error: &LogError, items: Vec<Item>) {
    tracing::warn!(%error, "no room for the log");
    let (waiting, unreadable) = {
        let mut shared = inner.lock();
        let waiting = std::mem::take(&mut shared.queue);
        shared.committed.clear();
        let read = Scan::run(&*inner.disk, &inner.config, Some(writer.end));
        let unreadable = match read {
            Ok(scan) => {
                shared.index = scan.index;
                None
            }
            Err(error) => Some(error),
        };
        (waiting, unreadable)
    };
    if let Some(unreadable) = unreadable {
        return fail(inner, &unreadable, items.into_iter().chain(waiting).collect());
    }
    complete(items, &Err(error.clone()));
    complete(waiting, &Err(error.clone()));
}

fn complete(items: impl IntoIterator<Item = Item>, result: &Result<(), LogError>) {
    let all: Vec<Done> = items.into_iter().filter_map(|item| item.done).collect();
    for done in all {
        done(result.clone());
    }
}

/// One part in so many of a segment is kept in reserve.
const RESERVE_SHARE: u64 = 16;
