//! The format of the blob journal: what a segment holds, and what can be said about it after a crash.
//!
//! A segment is a preallocated file that is used again and again; each life has a sequence number of its own, which every
//! record repeats. Records carry a keyed MAC of their header (the key is random and in the segment), since the payload of
//! a record is a stranger's mail, which must not be able to forge one. Layout: mark at 0, key at 512 and again at 1024,
//! records from 4096, each padded to 8 octets.
//!
//! What was acknowledged is known: a batch is written only when the one before it was synced, so everything before the
//! last batch was durable; the mark says so for the last batch too, as far as it reached the disk. Damage below is
//! reported; damage above is a torn tail, and was never acknowledged.
//!
//! Not here: writing (see `committer`), files.

use core_types::BlobId;

use crate::error::BlobError;
use crate::format::{Cursor, malformed};

/// A record's header without magic and MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The segment's life.
    pub(crate) seq: u64,
    /// Which batch, ascending over all lives of one opening.
    pub(crate) batch: u64,
    /// Where the batch begins.
    pub(crate) batch_start: u32,
    /// Where the records of the life before (`seq - 1`) ended.
    pub(crate) prior_end: u32,
    pub(crate) id: BlobId,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
}

/// What a segment says of itself, written after a sync and not synced itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) seq: u64,
    /// Everything below is durable.
    pub(crate) durable_end: u32,
    /// Every record has a durable file: the life is over.
    pub(crate) released: bool,
}

/// A record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: u32,
    pub(crate) header: Header,
    pub(crate) payload_good: bool,
}

/// What a segment holds of its last life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// 0 when it never had a record.
    pub(crate) seq: u64,
    pub(crate) released: bool,
    pub(crate) records: Vec<Found>,
    /// Everything below was durable once.
    pub(crate) safe_end: u32,
    /// Where the records of the life before ended.
    pub(crate) prior_end: u32,
    /// Neither copy of the key could be read: nothing can be said.
    pub(crate) unreadable: bool,
}

/// What is missing below [`Scan::safe_end`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Places without a record that could be read.
    pub(crate) holes: u64,
    /// Blobs whose record is there and whose bytes are wrong.
    pub(crate) blobs: Vec<BlobId>,
}

/// A segment's key.
pub(crate) type Key = [u8; 32];

impl Header {
    pub(crate) fn encode(&self, key: &Key) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(RECORD_MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.batch.to_le_bytes());
        bytes.extend_from_slice(&self.batch_start.to_le_bytes());
        bytes.extend_from_slice(&self.prior_end.to_le_bytes());
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&self.payload_len.to_le_bytes());
        bytes.extend_from_slice(&self.payload_crc.to_le_bytes());
        let mac = mac(key, &bytes);
        bytes.extend_from_slice(&mac);
        bytes
    }

    fn decode(bytes: &[u8], key: &Key) -> Result<Self, BlobError> {
        let (body, found) = bytes
            .get(..HEADER_BYTES)
            .and_then(<[u8]>::split_last_chunk::<MAC_BYTES>)
            .ok_or_else(|| malformed("cut"))?;
        if !body.starts_with(RECORD_MAGIC) || mac(key, body) != *found {
            return Err(malformed("no record"));
        }
        let mut cursor = Cursor(body.get(RECORD_MAGIC.len()..).unwrap_or_default());
        if cursor.u32()? != VERSION {
            return Err(malformed("unknown version of a record"));
        }
        Ok(Self {
            seq: cursor.u64()?,
            batch: cursor.u64()?,
            batch_start: cursor.u32()?,
            prior_end: cursor.u32()?,
            id: BlobId(cursor.array()?),
            payload_len: cursor.u32()?,
            payload_crc: cursor.u32()?,
        })
    }
}

impl Mark {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MARK_MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.durable_end.to_le_bytes());
        bytes.extend_from_slice(&u32::from(self.released).to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.get(..MARK_BYTES - 4)?;
        let mut crc = Cursor(bytes.get(MARK_BYTES - 4..MARK_BYTES)?);
        if !body.starts_with(MARK_MAGIC) || crc.u32().ok()? != crc32c::crc32c(body) {
            return None;
        }
        let mut cursor = Cursor(body.get(MARK_MAGIC.len()..)?);
        (cursor.u32().ok()? == VERSION).then_some(())?;
        Some(Self {
            seq: cursor.u64().ok()?,
            durable_end: cursor.u32().ok()?,
            released: cursor.u32().ok()? != 0,
        })
    }
}

/// The first octets of a new segment, which are written twice over: a key that cannot be read makes it worthless.
pub(crate) fn encode_key(key: &Key) -> Vec<u8> {
    let mut bytes = KEY_MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(key);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// The key of a segment, from its first octets.
pub(crate) fn find_key(segment: &[u8]) -> Option<Key> {
    KEY_OFFSETS.iter().find_map(|offset| {
        let start = usize::try_from(*offset).ok()?;
        let bytes = segment.get(start..start + KEY_BYTES)?;
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let version = body.get(KEY_MAGIC.len()..)?;
        (body.starts_with(KEY_MAGIC) && version.starts_with(&VERSION.to_le_bytes())).then_some(())?;
        (u32::from_le_bytes(*crc) == crc32c::crc32c(body)).then_some(())?;
        body.last_chunk::<32>().copied()
    })
}

/// Octets that a record with this payload takes.
pub(crate) fn record_len(payload_len: usize) -> usize {
    (HEADER_BYTES + payload_len).next_multiple_of(ALIGNMENT)
}

/// Looks at a whole segment.
pub(crate) fn scan(segment: &[u8]) -> Scan {
    let Some(key) = find_key(segment) else {
        return Scan {
            unreadable: true,
            ..Scan::default()
        };
    };
    let mut records: Vec<Found> = Vec::new();
    let mut seq = 0;
    let mut offset = RECORDS_START as usize;
    while offset + HEADER_BYTES <= segment.len() {
        let bytes = segment.get(offset..).unwrap_or_default();
        // Every place is looked at, also within payloads: what stands there may be left over from an earlier life, and
        // tells nothing about where the next record is.
        if bytes.starts_with(RECORD_MAGIC)
            && let Ok(header) = Header::decode(bytes, &key)
            && header.seq >= seq
        {
            if header.seq > seq {
                seq = header.seq;
                records.clear();
            }
            let payload = bytes
                .get(HEADER_BYTES..)
                .and_then(|rest| rest.get(..header.payload_len as usize));
            let payload_good = payload.is_some_and(|payload| crc32c::crc32c(payload) == header.payload_crc);
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            records.push(Found {
                offset,
                header,
                payload_good,
            });
        }
        offset += ALIGNMENT;
    }
    let mark = Mark::decode(segment).filter(|mark| mark.seq == seq);
    let last_batch = records.iter().max_by_key(|found| found.header.batch);
    let safe_end = last_batch
        .map_or(RECORDS_START, |found| found.header.batch_start)
        .max(mark.map_or(RECORDS_START, |mark| mark.durable_end));
    Scan {
        seq,
        released: mark.is_some_and(|mark| mark.released),
        prior_end: last_batch.map_or(RECORDS_START, |found| found.header.prior_end),
        records,
        safe_end,
        unreadable: false,
    }
}

impl Scan {
    /// What is missing of what was durable.
    pub(crate) fn damage(&self) -> Damage {
        let mut damage = Damage::default();
        let mut cursor = RECORDS_START;
        for found in &self.records {
            if cursor >= self.safe_end {
                break;
            }
            if found.offset > cursor {
                damage.holes += 1;
            }
            if !found.payload_good && found.offset < self.safe_end {
                damage.blobs.push(found.header.id);
            }
            let length = u32::try_from(record_len(found.header.payload_len as usize)).unwrap_or(u32::MAX);
            cursor = cursor.max(found.offset.saturating_add(length));
        }
        if cursor < self.safe_end {
            damage.holes += 1;
        }
        damage
    }
}

fn mac(key: &Key, bytes: &[u8]) -> [u8; MAC_BYTES] {
    let mut mac = [0; MAC_BYTES];
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(bytes);
    hasher.finalize_xof().fill(&mut mac);
    mac
}

const VERSION: u32 = 1;
const RECORD_MAGIC: &[u8; 4] = b"EVBR";
const MARK_MAGIC: &[u8; 4] = b"EVBM";
const KEY_MAGIC: &[u8; 4] = b"EVBK";
const MAC_BYTES: usize = 16;
const MARK_BYTES: usize = 28;
const KEY_BYTES: usize = 44;
const ALIGNMENT: usize = 8;
/// Octets of a record's header.
pub(crate) const HEADER_BYTES: usize = 88;
/// Where the records begin.
pub(crate) const RECORDS_START: u32 = 4096;
/// Where the key stands, twice.
pub(crate) const KEY_OFFSETS: [u64; 2] = [512, 1024];

#[cfg(test)]
mod tests;
