//! Where a group's rows stand in the node's index, and how an older state of them is read while the trunk moves on.
//!
//! A key of the engine is `version (1) group (4) incarnation (4) space (1)` and then what belongs to the space:
//!
//! | space | behind it | value |
//! | --- | --- | --- |
//! | 00 | 00 | which base is live |
//! | 00 | 01 | what the state machine adapter keeps about itself, written with the rows it describes |
//! | 1b | logical key | a row of base `b` |
//! | 2b | pin (8) logical key | what a row of base `b` was, saved for a pin: 01 and the value, or 00 where there was none |
//!
//! **Pins.** An open pin shows the rows as they were when it was made. Before a row is changed, its old value is saved under
//! the newest open pin, unless a save at or above that pin holds one already. A reader of pin `p` takes the first save of a
//! key at or above `p`, else the live row. Saves go when no pin at or below theirs is open.
//!
//! **Bases.** A snapshot from another replica is written beside the live rows, as another base, and one small batch then
//! makes that base the live one. A crash before it leaves the old state whole; the pins of the old base stay readable.
//!
//! Pins do not survive the process: saves and bases that are not live are collected after open.
//! Not here: what is in the rows; files of snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_types::kv::prefix_end;
use core_types::{Batch, BlockingPool, GroupId, Incarnation, KvEngine, KvError, KvRead};
use tokio::sync::RwLock;

use crate::blocking;
use crate::consensus::ReadFn;

const KEY_VERSION: u8 = 1;
const SPACE_META: u8 = 0x00;
const SPACE_ROWS: u8 = 0x10;
const SPACE_SAVES: u8 = 0x20;
const META_BASE: u8 = 0x00;
const META_MACHINE: u8 = 0x01;
/// Bases are numbered 0 to 15, so that they fit the space's byte.
const BASES: u8 = 16;
/// Keys that one batch removes, so that clearing a large state never makes one large batch.
const CLEAR_KEYS: usize = 1024;

/// The rows of one replica of one group.
pub(crate) struct GroupRows {
    engine: Arc<dyn KvEngine>,
    /// Version, group, incarnation.
    prefix: [u8; 9],
    base: AtomicU8,
    /// Held for writing while a batch is written, for reading by whoever reads more than one row.
    lock: RwLock<()>,
    pins: Mutex<Pins>,
}

#[derive(Default)]
struct Pins {
    last: u64,
    /// The open pins and their bases.
    open: BTreeMap<u64, u8>,
    /// The pins of the live base under which there may be saves: the open ones and those above an open one.
    saved: BTreeSet<u64>,
    /// Prefixes of keys that nobody reads any more.
    garbage: Vec<Vec<u8>>,
    /// Bases that the garbage or an installation under way uses.
    busy: BTreeSet<u8>,
}

impl GroupRows {
    /// Opens a group's rows. What an earlier process left behind is to be collected ([`Self::collect`]) before a pin is made
    /// or another state installed.
    pub(crate) fn open(
        engine: Arc<dyn KvEngine>,
        group: GroupId,
        incarnation: Incarnation,
    ) -> Result<Arc<Self>, KvError> {
        let mut prefix = [KEY_VERSION; 9];
        for (byte, value) in prefix
            .iter_mut()
            .skip(1)
            .zip(group.0.to_be_bytes().into_iter().chain(incarnation.0.to_be_bytes()))
        {
            *byte = value;
        }
        let rows = Self {
            engine,
            prefix,
            base: AtomicU8::new(0),
            lock: RwLock::new(()),
            pins: Mutex::new(Pins::default()),
        };
        let live = match rows.engine.get(&rows.key(SPACE_META, &[META_BASE]))?.as_deref() {
            None => 0,
            Some([base]) if *base < BASES => *base,
            Some(other) => return Err(KvError::Damaged(format!("live base of group {group}: {other:02x?}"))),
        };
        rows.base.store(live, Ordering::Release);
        {
            let mut pins = rows.pins();
            for base in 0..BASES {
                pins.garbage.push(rows.key(SPACE_SAVES | base, &[]));
                if base != live {
                    pins.garbage.push(rows.key(SPACE_ROWS | base, &[]));
                    pins.busy.insert(base);
                }
            }
        }
        Ok(Arc::new(rows))
    }

    /// Removes everything that stands in the index for a replica, piece by piece. It is not open.
    pub(crate) async fn remove(
        engine: Arc<dyn KvEngine>,
        pool: &dyn BlockingPool,
        group: GroupId,
        incarnation: Incarnation,
    ) -> Result<(), KvError> {
        let rows = Self::open(engine, group, incarnation)?;
        // Which base is live goes last: what is left after a crash is then still found.
        rows.pins()
            .garbage
            .extend([rows.key(SPACE_ROWS | rows.live(), &[]), rows.key(SPACE_META, &[])]);
        rows.collect(pool).await
    }

    /// What the last [`Self::write`] or [`Install::finish`] said about itself.
    pub(crate) fn machine_row(&self) -> Result<Option<Vec<u8>>, KvError> {
        self.engine.get(&self.key(SPACE_META, &[META_MACHINE]))
    }

    /// Writes changes of rows and the adapter's own row as one batch.
    pub(crate) async fn write(&self, changes: &Batch, machine_row: &[u8]) -> Result<(), KvError> {
        let mut batch = Batch::default();
        let rows = SPACE_ROWS | self.live();
        for (key, value) in changes.iter() {
            match value {
                Some(value) => batch.put(self.key(rows, key), value),
                None => batch.delete(self.key(rows, key)),
            }
        }
        batch.put(self.key(SPACE_META, &[META_MACHINE]), machine_row);
        let _guard = self.lock.write().await;
        self.add_saves(changes, &mut batch)?;
        self.engine.write(&batch)
    }

    /// See [`core_types::mutants::Mutant::ReuseUid`].
    #[cfg(feature = "mutants")]
    pub(crate) fn forget_uid_next(&self) -> Result<(), KvError> {
        let changes = state::mailbox::forget_uid_next(self).map_err(|error| KvError::Io(error.to_string()))?;
        let mut batch = Batch::default();
        for (key, value) in changes.iter() {
            batch.put(self.key(SPACE_ROWS | self.live(), key), value.unwrap_or_default());
        }
        self.engine.write(&batch)
    }

    /// Calls `read` with the live rows, which do not change while it runs.
    pub(crate) async fn read(&self, read: &mut ReadFn<'_>) {
        let _guard = self.lock.read().await;
        read(self);
    }

    /// Keeps the present state readable until the pin is dropped. Not to be called while a write is under way.
    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        let mut pins = self.pins();
        pins.last += 1;
        let (id, base) = (pins.last, self.live());
        pins.open.insert(id, base);
        pins.saved.insert(id);
        Pin {
            rows: Arc::clone(self),
            id,
            base,
        }
    }

    /// Begins to write another state beside the live one.
    pub(crate) fn install(self: &Arc<Self>) -> Result<Install, KvError> {
        let mut pins = self.pins();
        let live = self.live();
        let base = (0..BASES)
            .find(|base| *base != live && !pins.busy.contains(base) && !pins.open.values().any(|used| used == base))
            .ok_or_else(|| KvError::Io("every base of the group is in use".to_owned()))?;
        pins.busy.insert(base);
        Ok(Install {
            rows: Arc::clone(self),
            base,
            done: false,
        })
    }

    /// Removes what no pin needs any more, piece by piece on the pool: nothing else waits for more than one piece.
    pub(crate) async fn collect(self: &Arc<Self>, pool: &dyn BlockingPool) -> Result<(), KvError> {
        while self.collect_piece(pool).await? {}
        Ok(())
    }

    /// Removes so much of it as one batch may; whether there is more.
    pub(crate) async fn collect_piece(self: &Arc<Self>, pool: &dyn BlockingPool) -> Result<bool, KvError> {
        if self.pins().garbage.is_empty() {
            return Ok(false);
        }
        let rows = Arc::clone(self);
        let collected = blocking::run(pool, move || Ok(rows.collect_here(CLEAR_KEYS)));
        let more = collected.await.map_err(|error| KvError::Io(error.to_string()))??;
        // Work that waits on this thread comes first.
        tokio::task::yield_now().await;
        Ok(more)
    }

    /// Removes at most `keys` keys of what no pin needs any more; whether there is more.
    fn collect_here(&self, keys: usize) -> Result<bool, KvError> {
        let mut left = keys;
        loop {
            let Some(prefix) = self.pins().garbage.first().cloned() else {
                return Ok(false);
            };
            if left == 0 {
                return Ok(true);
            }
            let removed = self.clear(&prefix, left)?;
            if removed == left {
                return Ok(true);
            }
            left -= removed;
            let mut pins = self.pins();
            pins.garbage.retain(|other| *other != prefix);
            if let Some(space) = prefix.get(9)
                && !pins
                    .garbage
                    .iter()
                    .any(|other| other.get(9).is_some_and(|left| left & 0x0F == space & 0x0F))
                && space & 0x0F != self.live()
            {
                pins.busy.remove(&(space & 0x0F));
            }
        }
    }

    fn add_saves(&self, changes: &Batch, batch: &mut Batch) -> Result<(), KvError> {
        let live = self.live();
        let saved: Vec<u64> = {
            let pins = self.pins();
            let Some(newest) = pins
                .open
                .iter()
                .rev()
                .find(|(_, base)| **base == live)
                .map(|(pin, _)| *pin)
            else {
                return Ok(());
            };
            pins.saved.range(newest..).copied().collect()
        };
        let Some(newest) = saved.first() else { return Ok(()) };
        for (key, _) in changes.iter() {
            let mut is_saved = false;
            for pin in &saved {
                is_saved = is_saved || self.engine.get(&self.save_key(live, *pin, key))?.is_some();
            }
            if !is_saved {
                let save = match self.engine.get(&self.key(SPACE_ROWS | live, key))? {
                    None => vec![0],
                    Some(value) => [&[1], value.as_slice()].concat(),
                };
                batch.put(self.save_key(live, *newest, key), save);
            }
        }
        Ok(())
    }

    fn close(&self, id: u64, base: u8) {
        let live = self.live();
        let mut pins = self.pins();
        pins.open.remove(&id);
        let oldest = pins.open.iter().find(|(_, other)| **other == base).map(|(pin, _)| *pin);
        if base == live {
            let unread: Vec<u64> = pins
                .saved
                .iter()
                .copied()
                .filter(|pin| oldest.is_none_or(|oldest| *pin < oldest))
                .collect();
            for pin in unread {
                pins.saved.remove(&pin);
                pins.garbage.push(self.save_key(base, pin, &[]));
            }
        } else if oldest.is_none() {
            self.discard(&mut pins, base);
        }
    }

    fn discard(&self, pins: &mut Pins, base: u8) {
        pins.busy.insert(base);
        pins.garbage.push(self.key(SPACE_ROWS | base, &[]));
        pins.garbage.push(self.key(SPACE_SAVES | base, &[]));
    }

    /// Removes the first keys with a prefix, at most so many; how many there were.
    fn clear(&self, prefix: &[u8], keys: usize) -> Result<usize, KvError> {
        let end = prefix_end(prefix).unwrap_or_else(|| vec![0xFF]);
        let mut batch = Batch::default();
        self.engine.scan(prefix, &end, &mut |key, _| {
            batch.delete(key);
            batch.len() < keys
        })?;
        if !batch.is_empty() {
            self.engine.write(&batch)?;
        }
        Ok(batch.len())
    }

    fn live(&self) -> u8 {
        self.base.load(Ordering::Acquire)
    }

    fn key(&self, space: u8, rest: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 1 + rest.len());
        key.extend_from_slice(&self.prefix);
        key.push(space);
        key.extend_from_slice(rest);
        key
    }

    fn save_key(&self, base: u8, pin: u64, key: &[u8]) -> Vec<u8> {
        self.key(SPACE_SAVES | base, &[&pin.to_be_bytes(), key].concat())
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        // Nothing that can panic runs while it is held.
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scan_under(
        &self,
        prefix: &[u8],
        (from, to): (&[u8], &[u8]),
        back: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), KvError> {
        let (from, to) = ([prefix, from].concat(), [prefix, to].concat());
        let mut stripped =
            |key: &[u8], value: &[u8]| key.get(prefix.len()..).is_none_or(|logical| visit(logical, value));
        if back {
            self.engine.scan_back(&from, &to, &mut stripped)
        } else {
            self.engine.scan(&from, &to, &mut stripped)
        }
    }
}

/// The live rows. Reads of several rows agree only in [`GroupRows::read`], or in the one task that writes.
impl KvRead for GroupRows {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.engine.get(&self.key(SPACE_ROWS | self.live(), key))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        self.scan_under(&self.key(SPACE_ROWS | self.live(), &[]), (from, to), false, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        self.scan_under(&self.key(SPACE_ROWS | self.live(), &[]), (from, to), true, visit)
    }
}

/// One base of a replica as the index has it, without opening it: what is read is not trusted yet.
pub(crate) struct StoredRows<'a> {
    engine: &'a dyn KvRead,
    prefix: [u8; 9],
    live: u8,
}

impl<'a> StoredRows<'a> {
    /// Every replica that the index knows, one after the other.
    pub(crate) fn next(engine: &'a dyn KvRead, after: Option<&Self>) -> Result<Option<Self>, KvError> {
        let from = after.map_or_else(Vec::new, |last| prefix_end(&last.prefix).unwrap_or_else(|| vec![0xFF]));
        let mut first = None;
        engine.scan(&from, &[0xFF], &mut |key, _| {
            first = Some(key.to_vec());
            false
        })?;
        let Some(first) = first else { return Ok(None) };
        let prefix: [u8; 9] = first
            .first_chunk()
            .filter(|prefix| prefix.first() == Some(&KEY_VERSION))
            .copied()
            .ok_or_else(|| KvError::Damaged(format!("a key that cannot be: {first:02x?}")))?;
        let mut rows = Self {
            engine,
            prefix,
            live: 0,
        };
        rows.live = match rows.meta(META_BASE)?.as_deref() {
            None => 0,
            Some([base]) if *base < BASES => *base,
            Some(other) => return Err(KvError::Damaged(format!("a live base that cannot be: {other:02x?}"))),
        };
        Ok(Some(rows))
    }

    /// What the adapter wrote with the rows last.
    pub(crate) fn machine_row(&self) -> Result<Option<Vec<u8>>, KvError> {
        self.meta(META_MACHINE)
    }

    /// Group and incarnation as they stand in the keys.
    pub(crate) fn name(&self) -> &[u8] {
        self.prefix.get(1..).unwrap_or_default()
    }

    fn meta(&self, which: u8) -> Result<Option<Vec<u8>>, KvError> {
        self.engine.get(&[&self.prefix[..], &[SPACE_META, which]].concat())
    }

    fn rows(&self, key: &[u8]) -> Vec<u8> {
        [&self.prefix[..], &[SPACE_ROWS | self.live], key].concat()
    }
}

impl KvRead for StoredRows<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.engine.get(&self.rows(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        let length = self.rows(&[]).len();
        self.engine.scan(&self.rows(from), &self.rows(to), &mut |key, value| {
            key.get(length..).is_none_or(|logical| visit(logical, value))
        })
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        let length = self.rows(&[]).len();
        self.engine
            .scan_back(&self.rows(from), &self.rows(to), &mut |key, value| {
                key.get(length..).is_none_or(|logical| visit(logical, value))
            })
    }
}

/// An older state that stays readable until this is dropped.
pub(crate) struct Pin {
    rows: Arc<GroupRows>,
    id: u64,
    base: u8,
}

/// Keys and values.
pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;
/// Rows of one source, in the order of the scan; `true` when there may be more.
type Chunk = (Rows, bool);

impl Pin {
    /// At most `limit` rows (at least one, if there is one) with `from <= key < to`, in ascending order, and whether there are
    /// more. The trunk may move on between two calls.
    pub(crate) async fn chunk(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Chunk, KvError> {
        let _guard = self.rows.lock.read().await;
        let mut rows = Vec::new();
        let mut from = from.to_vec();
        loop {
            let (mut more_rows, next) = self.merge_chunk(&from, to, limit)?;
            rows.append(&mut more_rows);
            match next {
                Some(next) if rows.is_empty() => from = next,
                next => return Ok((rows, next.is_some())),
            }
        }
    }

    /// What of a part of the range is there, and where the next part begins.
    fn merge_chunk(&self, from: &[u8], to: &[u8], limit: usize) -> Result<(Rows, Option<Vec<u8>>), KvError> {
        let mut merged: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
        let mut bound: Option<Vec<u8>> = None;
        let mut add = |source: Chunk, is_save: bool| {
            let (entries, truncated) = source;
            if truncated && let Some((last, _)) = entries.last() {
                bound = Some(
                    bound
                        .take()
                        .map_or_else(|| last.clone(), |other| other.min(last.clone())),
                );
            }
            for (key, value) in entries {
                let value = if is_save {
                    value
                        .split_first()
                        .and_then(|(tag, old)| (*tag == 1).then(|| old.to_vec()))
                } else {
                    Some(value)
                };
                merged.insert(key, value);
            }
        };
        add(
            self.source(&self.rows.key(SPACE_ROWS | self.base, &[]), from, to, limit)?,
            false,
        );
        // From the newest to the oldest, so that the first save at or above this pin has the last word.
        for pin in self.layers().into_iter().rev() {
            add(
                self.source(&self.rows.save_key(self.base, pin, &[]), from, to, limit)?,
                true,
            );
        }
        let rows = merged
            .into_iter()
            .filter(|(key, _)| bound.as_ref().is_none_or(|bound| key <= bound))
            .filter_map(|(key, value)| value.map(|value| (key, value)))
            .collect();
        let next = bound.map(|mut last| {
            last.push(0);
            last
        });
        Ok((rows, next))
    }

    fn source(&self, prefix: &[u8], from: &[u8], to: &[u8], limit: usize) -> Result<Chunk, KvError> {
        let mut entries = Vec::new();
        let mut truncated = false;
        self.rows.scan_under(prefix, (from, to), false, &mut |key, value| {
            truncated = entries.len() >= limit.max(1);
            if !truncated {
                entries.push((key.to_vec(), value.to_vec()));
            }
            !truncated
        })?;
        Ok((entries, truncated))
    }

    /// The pins under which saves for this one may stand, in ascending order.
    fn layers(&self) -> Vec<u64> {
        let pins = self.rows.pins();
        if self.base == self.rows.live() {
            pins.saved.range(self.id..).copied().collect()
        } else {
            // Of a base that is not live any more all saves stay until its last pin goes; those of closed pins among them,
            // so every pin that ever was is asked.
            (self.id..=pins.last).collect()
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.rows.close(self.id, self.base);
    }
}

/// A state that is being written beside the live one. Dropped before [`Self::finish`], it leaves nothing.
pub(crate) struct Install {
    rows: Arc<GroupRows>,
    base: u8,
    done: bool,
}

impl Install {
    /// Adds rows.
    pub(crate) fn add(&self, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), KvError> {
        let mut batch = Batch::default();
        for (key, value) in rows {
            batch.put(self.rows.key(SPACE_ROWS | self.base, key), value.as_slice());
        }
        self.rows.engine.write(&batch)
    }

    /// The digest of the state, as its rows say.
    pub(crate) fn digest(&self) -> Result<state::digest::Digest, state::ReadError> {
        state::digest::stored(&StoredRows {
            engine: &*self.rows.engine,
            prefix: self.rows.prefix,
            live: self.base,
        })
    }

    /// Makes the state the live one. What it takes the place of is to be collected.
    pub(crate) async fn finish(mut self, machine_row: &[u8]) -> Result<(), KvError> {
        let mut batch = Batch::default();
        batch.put(self.rows.key(SPACE_META, &[META_BASE]), [self.base]);
        batch.put(self.rows.key(SPACE_META, &[META_MACHINE]), machine_row);
        let guard = self.rows.lock.write().await;
        self.rows.engine.write(&batch)?;
        {
            let mut pins = self.rows.pins();
            let old = self.rows.base.swap(self.base, Ordering::AcqRel);
            pins.saved.clear();
            pins.busy.remove(&self.base);
            if !pins.open.values().any(|base| *base == old) {
                self.rows.discard(&mut pins, old);
            }
        }
        self.done = true;
        drop(guard);
        Ok(())
    }
}

impl Drop for Install {
    fn drop(&mut self) {
        if !self.done {
            let mut pins = self.rows.pins();
            self.rows.discard(&mut pins, self.base);
        }
    }
}

#[cfg(test)]
mod tests;
