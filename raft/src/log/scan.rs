//! Reading the log: every segment once, oldest first, each from its beginning to its end. Time is linear; memory is one
//! segment beside the index.
//!
//! Here it is decided what is a torn tail and what is corruption; the argument stands in the parent module. What the disk
//! does not read, also when it is asked several times, is corruption.
//! Not here: mending (the writer zeroes a torn tail).

use std::ops::Range;
use std::sync::Arc;

use core_types::mutants::{self, Mutant};
use core_types::{Disk, DiskErrorKind, File, OpenMode};

use super::index::Index;
use super::record::{Context, Marker, SEGMENT_HEADER_BYTES, Salt, SegmentHeader, Stored};
use super::written::Written;
use super::{Damage, GroupKey, LogConfig, LogError, Place, Record, Segment, Segments};

/// The last segment of a log that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) number: u64,
    /// Where the next batch goes.
    pub(crate) end: u64,
    /// Octets of the file.
    pub(crate) capacity: u64,
    /// Bytes from `end` up to here are a torn tail.
    pub(crate) torn_end: u64,
    /// Everything before it is known to be durable.
    pub(crate) durable: u64,
    /// What the disk does not read of the file, ascending.
    pub(crate) unread: Vec<Range<u64>>,
}

#[derive(Default)]
pub(crate) struct Scan {
    pub(crate) index: Index,
    pub(crate) written: Written,
    pub(crate) segments: Segments,
    pub(crate) damages: Vec<Arc<Damage>>,
    pub(crate) last_seq: u64,
    /// `None` when there is no log.
    pub(crate) tail: Option<Tail>,
    /// What the last marker that was read knew to be durable in its segment.
    last_durable: u64,
    /// Damage that may concern any group that was not created after it.
    everyone: Option<Arc<Damage>>,
}

struct Opened {
    number: u64,
    segment: Segment,
    header: Option<SegmentHeader>,
}

/// Why no batch could be read at a place.
struct Bad {
    offset: u64,
    /// Whose batch it was, and where it ends, if its head could be read.
    groups: Option<Vec<GroupKey>>,
    end: u64,
    detail: &'static str,
}

impl Scan {
    /// Reads the log; with `limit`, the last segment only up to that offset, all of which is known to be whole.
    pub(crate) fn run(disk: &dyn Disk, config: &LogConfig, limit: Option<u64>) -> Result<Self, LogError> {
        let opened = open_segments(disk, config)?;
        let mut scan = Self::default();
        let Some(salt) = opened.iter().find_map(|opened| Some(opened.header.as_ref()?.salt)) else {
            if let Some(first) = opened.first() {
                return Err(LogError::Corrupt(Arc::new(damaged_header(&first.segment.path))));
            }
            scan.index = Index::new(Salt::default(), config.cache_bytes);
            return Ok(scan);
        };
        scan.index = Index::new(salt, config.cache_bytes);
        scan.written.oldest = 1;
        let mut previous: Option<u64> = None;
        for (position, one) in opened.iter().enumerate() {
            let next = opened.get(position + 1);
            let known_end = match next {
                Some(next) => next.header.as_ref().map(|header| header.previous_end),
                None => limit,
            };
            let path = &one.segment.path;
            if let Some(header) = &one.header {
                scan.last_seq = scan.last_seq.max(header.first_seq.saturating_sub(1));
                scan.written.oldest = scan.written.oldest.max(header.oldest);
            } else {
                scan.damage_everyone(damaged_header(path));
            }
            if previous.is_some_and(|previous| previous + 1 != one.number) {
                scan.damage_everyone(missing_segment(path));
            }
            previous = Some(one.number);
            scan.segments.insert(one.number, one.segment.clone());
            scan.segment(one, &salt, known_end, next.is_none())?;
        }
        if let Some(first) = opened.first()
            && first.number > scan.written.oldest
        {
            scan.damage_everyone(missing_segment(&first.segment.path));
        }
        Ok(scan)
    }

    fn segment(&mut self, one: &Opened, salt: &Salt, known_end: Option<u64>, last: bool) -> Result<(), LogError> {
        let file = &one.segment.file;
        let capacity = file.len().map_err(LogError::Disk)?;
        let mut bytes = vec![0; usize::try_from(capacity).unwrap_or(0)];
        let unread = file.read_around_at(0, &mut bytes).map_err(LogError::Disk)?;
        // Nobody knows what the disk does not read: it counts as what was durable, and is neither a tail nor the end.
        let unread_end = unread.last().map_or(0, |range| range.end);
        if one.header.as_ref().is_some_and(|header| capacity < header.capacity) {
            self.damage_everyone(cut_segment(&one.segment.path, capacity));
        }
        let context = Context {
            salt,
            segment: one.number,
        };
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        let mut torn_end = 0;
        self.last_durable = offset;
        loop {
            if known_end.is_some_and(|end| offset >= end) {
                break;
            }
            let bad = match self.batch(&bytes, context, offset) {
                Ok(next) => {
                    offset = next;
                    continue;
                }
                Err(bad) => bad,
            };
            let rest = from(&bytes, offset);
            let used = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            if used == 0 && known_end.is_none() && offset >= unread_end {
                break;
            }
            let (resume, durable) = markers_behind(&bytes, context, offset, self.last_seq);
            // Everything in a segment that has a successor was durable.
            let durable = known_end.unwrap_or_else(|| if last { durable.max(unread_end) } else { capacity });
            if offset < durable && !mutants::is_planted(Mutant::DamageAsTornTail) {
                // Batches may be missing behind this one, and nobody knows of which groups, unless the next one, or
                // nothing, follows.
                let is_last = bad.end >= unread_end && from(&bytes, bad.end).iter().all(|byte| *byte == 0);
                let is_alone = resume.or(known_end).map_or(is_last, |next| next == bad.end);
                self.damage(Damage {
                    segment: one.segment.path.clone(),
                    offset: bad.offset,
                    groups: bad.groups.filter(|_| is_alone),
                    detail: match unread.iter().any(|range| bad.offset < range.end) {
                        true => "the disk does not read it",
                        false => bad.detail,
                    },
                });
                offset = resume.or(known_end).unwrap_or(capacity);
                continue;
            }
            torn_end = offset + used as u64;
            break;
        }
        if last {
            // Nothing is written behind a header that cannot be read, or that is cut off.
            let end = if one.header.is_some() { offset } else { capacity };
            self.tail = Some(Tail {
                number: one.number,
                end,
                capacity,
                torn_end,
                durable: self.last_durable.min(end),
                unread,
            });
        }
        Ok(())
    }

    /// Reads the batch at `offset` and takes it as a whole; gives where the next one begins.
    fn batch(&mut self, bytes: &[u8], context: Context<'_>, offset: u64) -> Result<u64, Bad> {
        let bad = |offset, groups, end, detail| Bad {
            offset,
            groups,
            end,
            detail,
        };
        let marker = Marker::decode(from(bytes, offset), context, offset);
        let Some((marker, length)) = marker.filter(|(marker, _)| marker.seq > self.last_seq) else {
            return Err(bad(offset, None, offset, "the head of a batch is damaged"));
        };
        let mut place = offset + length as u64;
        let end = place.saturating_add(marker.bytes);
        let mut batch = Vec::new();
        while place < end {
            let record = Stored::decode(from(bytes, place), context, place, marker.seq);
            let Some((stored, length)) = record.filter(|(_, length)| place + *length as u64 <= end) else {
                return Err(bad(place, marker.groups, end, "a record is damaged"));
            };
            batch.push((
                stored,
                Place {
                    segment: context.segment,
                    offset: place,
                    length: u32::try_from(length).unwrap_or(u32::MAX),
                    seq: marker.seq,
                },
            ));
            place += length as u64;
        }
        self.last_seq = marker.seq;
        self.last_durable = marker.durable;
        for (stored, place) in batch {
            self.take(&stored, place);
        }
        Ok(end)
    }

    fn take(&mut self, stored: &Stored, place: Place) {
        let key = match stored {
            Stored::Boot { .. } | Stored::Oldest { .. } => return self.written.note(stored, place.segment),
            Stored::Group(key, _) | Stored::Carry(key, _) => *key,
        };
        let begins = matches!(stored, Stored::Group(_, Record::Created | Record::Removed));
        if !begins
            && !self.index.contains(key)
            && let Some(damage) = &self.everyone
        {
            self.index.damage(key, damage);
        }
        if begins || !self.index.is_damaged(key) {
            let whole = match stored {
                Stored::Group(_, record) => self.index.replay(key, record, place),
                Stored::Carry(_, meta) => {
                    self.index.replay_meta(key, meta);
                    true
                }
                _ => true,
            };
            if !whole {
                let segment = self.segments.get(&place.segment).map(|segment| segment.path.clone());
                self.damage(Damage {
                    segment: segment.unwrap_or_default(),
                    offset: place.offset,
                    groups: Some(vec![key]),
                    detail: "an entry does not follow the one before",
                });
            }
        }
        self.written.note(stored, place.segment);
    }

    fn damage(&mut self, damage: Damage) {
        let damage = Arc::new(damage);
        let concerned = damage.groups.clone().unwrap_or_else(|| self.index.keys());
        for key in concerned {
            self.index.damage(key, &damage);
        }
        if damage.groups.is_none() {
            self.everyone.get_or_insert_with(|| Arc::clone(&damage));
        }
        self.damages.push(damage);
    }

    fn damage_everyone(&mut self, damage: Damage) {
        self.damage(Damage { groups: None, ..damage });
    }
}

/// The first marker behind a damage, and the highest `durable` of all that are there.
fn markers_behind(bytes: &[u8], context: Context<'_>, offset: u64, last_seq: u64) -> (Option<u64>, u64) {
    let mut first = None;
    let mut durable = 0;
    let mut place = offset + 8;
    while place < bytes.len() as u64 {
        let found = Marker::decode(from(bytes, place), context, place).filter(|(marker, _)| marker.seq > last_seq);
        if let Some((marker, _)) = found {
            first = first.or(Some(place));
            durable = durable.max(marker.durable);
        }
        place += 8;
    }
    (first, durable)
}

/// The segments, in order, with their headers as far as they can be read.
fn open_segments(disk: &dyn Disk, config: &LogConfig) -> Result<Vec<Opened>, LogError> {
    let mut opened: Vec<Opened> = Vec::new();
    for name in disk.list(&config.directory).map_err(LogError::Disk)? {
        if !name.ends_with(".seg") {
            continue;
        }
        let path = format!("{}/{name}", config.directory);
        let file = disk.open(&path, OpenMode::Write).map_err(LogError::Disk)?;
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        let header = match file.read_exact_at(0, &mut bytes) {
            Ok(()) => decode_header(&path, &bytes)?,
            Err(error) if error.kind == DiskErrorKind::UnexpectedEnd => None,
            Err(error) if error.kind == DiskErrorKind::Other => read_header_again(&path, &file)?,
            Err(error) => return Err(LogError::Disk(error)),
        };
        if let Some(header) = header.as_ref().filter(|header| header.node != config.node) {
            return Err(LogError::WrongNode {
                path,
                found: header.node,
                wanted: config.node,
            });
        }
        opened.push(Opened {
            number: header.as_ref().map_or(0, |header| header.number),
            segment: Segment { path, file },
            header,
        });
    }
    // A segment whose header is damaged stands between its neighbours; the names give the order.
    for position in 0..opened.len() {
        let before = position.checked_sub(1).and_then(|before| opened.get(before));
        let number = match (before, opened.get(position + 1)) {
            (Some(before), _) => before.number + 1,
            (None, Some(next)) => next.number.saturating_sub(1),
            (None, None) => 1,
        };
        if let Some(one) = opened.get_mut(position).filter(|one| one.header.is_none()) {
            one.number = number;
        }
    }
    Ok(opened)
}

fn decode_header(path: &str, bytes: &[u8]) -> Result<Option<SegmentHeader>, LogError> {
    SegmentHeader::decode(bytes).map_err(|found| LogError::UnknownVersion {
        path: path.to_owned(),
        found,
    })
}

/// A header that the disk did not read counts as damaged if it still does not, while it reads something else of the file.
fn read_header_again(path: &str, file: &Arc<dyn File>) -> Result<Option<SegmentHeader>, LogError> {
    let mut bytes = vec![0; usize::try_from(file.len().map_err(LogError::Disk)?).unwrap_or(0)];
    let unread = file.read_around_at(0, &mut bytes).map_err(LogError::Disk)?;
    if unread.iter().any(|range| range.start < SEGMENT_HEADER_BYTES as u64) {
        return Ok(None);
    }
    decode_header(path, bytes.get(..SEGMENT_HEADER_BYTES).unwrap_or_default())
}

fn damaged_header(path: &str) -> Damage {
    Damage {
        segment: path.to_owned(),
        offset: 0,
        groups: None,
        detail: "the header of a segment is damaged",
    }
}

fn cut_segment(path: &str, length: u64) -> Damage {
    Damage {
        segment: path.to_owned(),
        offset: length,
        groups: None,
        detail: "the rest of a segment is cut off",
    }
}

fn missing_segment(path: &str) -> Damage {
    Damage {
        segment: path.to_owned(),
        offset: 0,
        groups: None,
        detail: "a segment before this one is missing",
    }
}

fn from(bytes: &[u8], offset: u64) -> &[u8] {
    usize::try_from(offset)
        .ok()
        .and_then(|offset| bytes.get(offset..))
        .unwrap_or_default()
}
