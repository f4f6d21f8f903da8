//! What the log holds, in memory: per group where each entry stands, the recent ones themselves, and the marks.
//!
//! The index shows what was *submitted*, since openraft reads entries back before they are durable. An entry that is not yet
//! written has no place and is never dropped from memory.
//!
//! Not here: the disk; what may be deleted (`written`, which knows only what is durable).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use core_types::limits;

use super::record::{Meta, Salt};
use super::{Damage, GroupKey, GroupState, LogEntry, LogError, LogMark, Place, Record};

#[derive(Default)]
pub(crate) struct Index {
    pub(crate) salt: Salt,
    groups: BTreeMap<GroupKey, GroupLog>,
    /// Entries that are in memory, oldest first; some of them gone since.
    cached: VecDeque<(GroupKey, u64, u64)>,
    cached_bytes: usize,
    cache_bytes_max: usize,
    cached_compact_at: usize,
    next_stamp: u64,
}

#[derive(Default)]
pub(crate) struct GroupLog {
    pub(crate) meta: Meta,
    first: u64,
    slots: VecDeque<Slot>,
    damage: Option<Arc<Damage>>,
}

struct Slot {
    term: u64,
    /// Tells this entry from a later one with the same index.
    stamp: u64,
    place: Option<Place>,
    body: Option<Bytes>,
}

/// An entry as [`Index::find`] finds it.
pub(crate) enum Found {
    Cached(LogEntry),
    Stored(LogMark, Place),
}

impl Found {
    pub(crate) fn segment(&self) -> Option<u64> {
        match self {
            Self::Cached(_) => None,
            Self::Stored(_, place) => Some(place.segment),
        }
    }
}

impl GroupLog {
    fn last(&self) -> Option<LogMark> {
        let index = (self.first + self.slots.len() as u64).checked_sub(1);
        match (self.slots.back(), index) {
            (Some(slot), Some(index)) => Some(LogMark { term: slot.term, index }),
            _ => self.meta.purged,
        }
    }

    /// The index that the next entry must have; `None` if any will do.
    fn next(&self) -> Option<u64> {
        if self.slots.is_empty() && self.meta.purged.is_none() {
            return None;
        }
        self.last().map(|last| last.index + 1)
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        let position = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get(position)
    }

    fn slot_mut(&mut self, index: u64) -> Option<&mut Slot> {
        let position = usize::try_from(index.checked_sub(self.first)?).ok()?;
        self.slots.get_mut(position)
    }

    /// Drops entries from `from` on; gives back the octets that were in memory.
    fn truncate(&mut self, from: u64) -> usize {
        let keep = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        if keep >= self.slots.len() {
            return 0;
        }
        self.slots.drain(keep..).map(|slot| slot.cached_bytes()).sum()
    }

    fn purge(&mut self, upto: LogMark) -> usize {
        if self.meta.purged.is_none_or(|purged| purged.index < upto.index) {
            self.meta.purged = Some(upto);
        }
        if upto.index < self.first {
            return 0;
        }
        let count = usize::try_from(upto.index - self.first + 1).unwrap_or(usize::MAX);
        let freed = self
            .slots
            .drain(..count.min(self.slots.len()))
            .map(|slot| slot.cached_bytes())
            .sum();
        self.first = upto.index + 1;
        freed
    }

    fn clear(&mut self) -> usize {
        self.slots.drain(..).map(|slot| slot.cached_bytes()).sum()
    }
}

impl Slot {
    fn cached_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.len() + SLOT_BYTES)
    }
}

impl Index {
    pub(crate) fn new(salt: Salt, cache_bytes_max: usize) -> Self {
        Self {
            salt,
            cache_bytes_max,
            ..Self::default()
        }
    }

    /// The group, if it may be worked with.
    pub(crate) fn healthy_mut(&mut self, key: GroupKey) -> Result<&mut GroupLog, LogError> {
        self.healthy(key)?;
        self.groups.get_mut(&key).ok_or(LogError::NoGroup(key))
    }

    fn healthy(&self, key: GroupKey) -> Result<&GroupLog, LogError> {
        let group = self.groups.get(&key).ok_or(LogError::NoGroup(key))?;
        match &group.damage {
            Some(damage) => Err(LogError::Corrupt(Arc::clone(damage))),
            None => Ok(group),
        }
    }

    /// Whether the records can all be taken.
    pub(crate) fn check(&self, key: GroupKey, records: &[Record]) -> Result<(), LogError> {
        let mut healthy = self.healthy(key);
        if records.is_empty() {
            return healthy.map(|_| ());
        }
        let mut next = healthy.as_ref().ok().and_then(|group| group.next());
        for record in records {
            if matches!(record, Record::Created | Record::Removed) {
                next = None;
                healthy = match record {
                    Record::Created => Ok(&NEW_GROUP),
                    _ => Err(LogError::NoGroup(key)),
                };
                continue;
            }
            let group = healthy.as_ref().map_err(Clone::clone)?;
            match record {
                Record::Append(entry) => {
                    let index = entry.mark.index;
                    if entry.body.len() > limits::LOG_RECORD_BYTES_MAX {
                        return Err(LogError::TooLarge(entry.body.len()));
                    }
                    if next.is_some_and(|next| next != index) || index == u64::MAX {
                        return Err(LogError::Hole { key, index });
                    }
                    next = Some(index + 1);
                }
                Record::Vote(vote) if vote.len() > limits::LOG_RECORD_BYTES_MAX / 2 => {
                    return Err(LogError::TooLarge(vote.len()));
                }
                Record::Truncate { from } => {
                    let bottom = group.meta.purged.map_or(group.first, |purged| purged.index + 1);
                    next = match next {
                        _ if *from <= bottom && group.meta.purged.is_none() => None,
                        Some(next) => Some(next.min((*from).max(bottom))),
                        None => None,
                    };
                }
                Record::Purge { upto } => next = Some(next.unwrap_or(0).max(upto.index.saturating_add(1))),
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes a record that was checked; its entry stays in memory until it is written. Gives the entry's stamp.
    pub(crate) fn submit(&mut self, key: GroupKey, record: &Record) -> u64 {
        self.next_stamp += 1;
        let stamp = self.next_stamp;
        // Checked before: there is no hole.
        let _whole = self.apply(key, record, stamp, None);
        if let Record::Append(entry) = record {
            if let Some(slot) = self.slot_mut(key, entry.mark.index) {
                slot.body = Some(entry.body.clone());
            }
            self.cached.push_back((key, entry.mark.index, stamp));
            self.cached_bytes += entry.body.len() + SLOT_BYTES;
            self.evict();
            self.forget_gone();
        }
        stamp
    }

    /// Takes a record that was read from the log. `false` when it does not fit the ones before.
    pub(crate) fn replay(&mut self, key: GroupKey, record: &Record, place: Place) -> bool {
        self.next_stamp += 1;
        self.apply(key, record, self.next_stamp, Some(place))
    }

    /// Takes the marks that were written again.
    pub(crate) fn replay_meta(&mut self, key: GroupKey, meta: &Meta) {
        let group = self.groups.entry(key).or_default();
        let purged = meta.purged;
        group.meta = meta.clone();
        if let Some(purged) = purged {
            group.purge(purged);
        }
    }

    fn apply(&mut self, key: GroupKey, record: &Record, stamp: u64, place: Option<Place>) -> bool {
        if let Record::Removed = record {
            if let Some(mut group) = self.groups.remove(&key) {
                self.cached_bytes -= group.clear();
            }
            return true;
        }
        let group = self.groups.entry(key).or_default();
        let mut freed = 0;
        let mut whole = true;
        match record {
            Record::Append(entry) => {
                let index = entry.mark.index;
                freed = group.truncate(index);
                whole = group.slots.is_empty() || index == group.first + group.slots.len() as u64;
                if whole {
                    if group.slots.is_empty() {
                        group.first = index;
                    }
                    group.slots.push_back(Slot {
                        term: entry.mark.term,
                        stamp,
                        place,
                        body: None,
                    });
                }
            }
            Record::Vote(vote) => group.meta.vote = Some(vote.clone()),
            Record::Truncate { from } => freed = group.truncate(*from),
            Record::Purge { upto } => freed = group.purge(*upto),
            Record::Committed(mark) => group.meta.committed = Some(*mark),
            Record::Created => {
                freed = group.clear();
                *group = GroupLog::default();
            }
            Record::Removed => {}
        }
        self.cached_bytes -= freed;
        whole
    }

    fn slot_mut(&mut self, key: GroupKey, index: u64) -> Option<&mut Slot> {
        self.groups.get_mut(&key)?.slot_mut(index)
    }

    /// An entry is durable at this place; nothing if it is gone since.
    pub(crate) fn written(&mut self, key: GroupKey, index: u64, stamp: u64, place: Place) {
        if let Some(slot) = self.slot_mut(key, index).filter(|slot| slot.stamp == stamp) {
            slot.place = Some(place);
        }
    }

    /// Lets entries go from memory, oldest first, but none that is not yet written.
    pub(crate) fn evict(&mut self) {
        while self.cached_bytes > self.cache_bytes_max {
            let Some((key, index, stamp)) = self.cached.pop_front() else {
                return;
            };
            let Some(slot) = self.slot_mut(key, index).filter(|slot| slot.stamp == stamp) else {
                continue;
            };
            if slot.place.is_none() {
                self.cached.push_front((key, index, stamp));
                return;
            }
            let freed = slot.cached_bytes();
            slot.body = None;
            self.cached_bytes -= freed;
        }
    }

    /// Keeps the list of what is in memory from growing with entries that were purged. Linear, but rare enough to be
    /// constant for each entry.
    fn forget_gone(&mut self) {
        if self.cached.len() < self.cached_compact_at {
            return;
        }
        let groups = &self.groups;
        self.cached.retain(|(key, index, stamp)| {
            let slot = groups.get(key).and_then(|group| group.slot(*index));
            slot.is_some_and(|slot| slot.stamp == *stamp && slot.body.is_some())
        });
        self.cached_compact_at = CACHED_COMPACT_MIN.max(self.cached.len() * 2);
    }

    pub(crate) fn find(&self, key: GroupKey, range: Range<u64>, bytes_max: usize) -> Result<Vec<Found>, LogError> {
        let group = self.healthy(key)?;
        let end = range.end.min(group.first + group.slots.len() as u64);
        let mut found = Vec::new();
        let mut bytes = 0_usize;
        for index in range.start.max(group.first)..end {
            let Some(slot) = group.slot(index) else { break };
            let mark = LogMark { term: slot.term, index };
            let (entry, length) = match (&slot.body, slot.place) {
                (Some(body), _) => {
                    let body = body.clone();
                    let length = body.len();
                    (Found::Cached(LogEntry { mark, body }), length)
                }
                (None, Some(place)) => (
                    Found::Stored(mark, place),
                    usize::try_from(place.length).unwrap_or(usize::MAX),
                ),
                (None, None) => break,
            };
            bytes = bytes.saturating_add(length);
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(entry);
        }
        Ok(found)
    }

    pub(crate) fn state(&self, key: GroupKey) -> Option<GroupState> {
        let group = self.groups.get(&key)?;
        let last = group.last();
        // A mark says something only about the entry that it names. Where that one is not here (it found no room), those before
        // it may be another leader's, which were to be cut off: they are not committed because something after them was.
        let committed = group.meta.committed.filter(|mark| {
            let is_purged = group.meta.purged.is_some_and(|purged| mark.index <= purged.index);
            is_purged || group.slot(mark.index).is_some_and(|slot| slot.term == mark.term)
        });
        Some(GroupState {
            vote: group.meta.vote.clone(),
            last,
            purged: group.meta.purged,
            committed,
            damage: group.damage.clone(),
        })
    }

    #[cfg(test)]
    pub(crate) fn forget_cached(&mut self) {
        let most = std::mem::take(&mut self.cache_bytes_max);
        self.evict();
        self.cache_bytes_max = most;
    }

    #[cfg(test)]
    pub(crate) fn place(&self, key: GroupKey, index: u64) -> Option<Place> {
        self.groups.get(&key)?.slot(index)?.place
    }

    pub(crate) fn keys(&self) -> Vec<GroupKey> {
        self.groups.keys().copied().collect()
    }

    pub(crate) fn contains(&self, key: GroupKey) -> bool {
        self.groups.contains_key(&key)
    }

    pub(crate) fn is_damaged(&self, key: GroupKey) -> bool {
        self.groups.get(&key).is_some_and(|group| group.damage.is_some())
    }

    /// Marks a group, known or not, as one that must not vote. The first damage stays.
    pub(crate) fn damage(&mut self, key: GroupKey, damage: &Arc<Damage>) {
        let group = self.groups.entry(key).or_default();
        if group.damage.is_none() {
            group.damage = Some(Arc::clone(damage));
        }
    }

    /// Marks a group of which an entry cannot be read back, unless that entry is gone meanwhile.
    pub(crate) fn damage_entry(&mut self, key: GroupKey, index: u64, place: Place, damage: &Arc<Damage>) {
        if self.slot_mut(key, index).is_some_and(|slot| slot.place == Some(place)) {
            self.damage(key, damage);
        }
    }

    pub(crate) fn damages(&self) -> Vec<Arc<Damage>> {
        let mut damages: Vec<Arc<Damage>> = Vec::new();
        for damage in self.groups.values().filter_map(|group| group.damage.as_ref()) {
            if !damages.contains(damage) {
                damages.push(Arc::clone(damage));
            }
        }
        damages
    }

    /// The groups whose first entry stands in a segment below `bound`.
    pub(crate) fn with_entries_before(&self, bound: u64) -> Vec<GroupKey> {
        let first_segment = |group: &GroupLog| group.slots.front()?.place.map(|place| place.segment);
        self.groups
            .iter()
            .filter(|(_, group)| first_segment(group).is_some_and(|segment| segment < bound))
            .map(|(key, _)| *key)
            .collect()
    }
}

static NEW_GROUP: GroupLog = GroupLog {
    meta: Meta {
        vote: None,
        purged: None,
        committed: None,
    },
    first: 0,
    slots: VecDeque::new(),
    damage: None,
};

/// What an entry costs in memory besides its body.
const SLOT_BYTES: usize = 128;
const CACHED_COMPACT_MIN: usize = 1024;
