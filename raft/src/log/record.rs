//! The bytes of the log: segment headers, batch markers and records. Pure; every decoder takes any bytes.
//!
//! Each check sum starts from the log's salt, the segment's number and the place of the bytes, and a record's also from the
//! number of its batch. So bytes that stand where they were not written, or are left over from a batch that was given up,
//! are not taken for records, and nobody who does not know the salt (128 random bits that never leave the node) can put a
//! batch marker into an entry.
//!
//! Not here: files, what the records mean.

use bytes::Bytes;
use core_types::{GroupId, Incarnation, NodeId, codec, limits};
use serde::{Deserialize, Serialize};

use super::{GroupKey, LogEntry, LogMark, Record};

/// Octets of a segment's header: one sector, so that no batch shares it.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 512;
/// Octets of a record before its body.
pub(crate) const RECORD_HEADER_BYTES: usize = 40;
/// Groups that a marker names; a batch with more of them counts as one that touches all.
const MARKER_GROUPS_MAX: usize = 1024;
const VERSION: u8 = 1;
const MAGIC: &[u8; 7] = b"evplog\0";
const META_VERSION: u8 = 1;

/// The 128 random bits of a log.
pub(crate) type Salt = [u8; 16];

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Whose log this is.
    pub(crate) node: NodeId,
    /// Counts the segments of the log, from 1.
    pub(crate) number: u64,
    /// Every batch in it has at least this number.
    pub(crate) first_seq: u64,
    pub(crate) salt: Salt,
    /// Where the segment before it ended. All of that was durable before this header was written.
    pub(crate) previous_end: u64,
    /// The lowest segment that was still needed when this one began.
    pub(crate) oldest: u64,
    /// Octets of the file. It is made whole before it gets its name: one that is shorter was cut.
    pub(crate) capacity: u64,
}

/// Octets of a header without its check sum.
const HEADER_BODY_BYTES: usize = 72;

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(MAGIC);
        for number in [self.node.0, self.number, self.first_seq, self.previous_end, self.oldest] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.salt);
        bytes.extend_from_slice(&self.capacity.to_le_bytes());
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.resize(SEGMENT_HEADER_BYTES, 0);
        bytes
    }

    /// `None` unless the bytes are a whole header; an unknown version is `Err` with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Self>, u8> {
        let Some((body, rest)) = bytes.split_at_checked(HEADER_BODY_BYTES) else {
            return Ok(None);
        };
        if body.get(1..8) != Some(MAGIC) || read_u32(rest, 0) != Some(crc32c::crc32c(body)) {
            return Ok(None);
        }
        match body.first() {
            Some(&VERSION) => {}
            other => return Err(other.copied().unwrap_or(0)),
        }
        let parse = || {
            Some(Self {
                node: NodeId(read_u64(body, 8)?),
                number: read_u64(body, 16)?,
                first_seq: read_u64(body, 24)?,
                previous_end: read_u64(body, 32)?,
                oldest: read_u64(body, 40)?,
                salt: body.get(48..64)?.try_into().ok()?,
                capacity: read_u64(body, 64)?,
            })
        };
        Ok(parse())
    }
}

/// What decides a check sum besides the bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    pub(crate) salt: &'a Salt,
    pub(crate) segment: u64,
}

impl Context<'_> {
    fn seed(&self, offset: u64, seq: u64) -> u32 {
        let mut crc = crc32c::crc32c(self.salt);
        for number in [self.segment, offset, seq] {
            crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
        }
        crc
    }
}

/// The head of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// Counts the batches of a log, those that failed included.
    pub(crate) seq: u64,
    /// Everything in this segment before this offset was durable before this batch was written.
    pub(crate) durable: u64,
    /// Octets of the records that follow.
    pub(crate) bytes: u64,
    /// The groups that the batch touches; `None` for more than can be listed.
    pub(crate) groups: Option<Vec<GroupKey>>,
}

/// A record as it stands in a segment, its own words included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// A group's record.
    Group(GroupKey, Record),
    /// A group's vote, purged and committed marks, written again before the segments that hold them go.
    Carry(GroupKey, Meta),
    /// A start of the node.
    Boot { count: u64, nonce: u64 },
    /// Segments below this number may be missing from now on.
    Oldest { segment: u64 },
}

/// What a group has besides entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) vote: Option<Bytes>,
    pub(crate) purged: Option<LogMark>,
    pub(crate) committed: Option<LogMark>,
}

mod kind {
    pub(super) const BATCH: u8 = 1;
    pub(super) const APPEND: u8 = 2;
    pub(super) const VOTE: u8 = 3;
    pub(super) const TRUNCATE: u8 = 4;
    pub(super) const PURGE: u8 = 5;
    pub(super) const COMMITTED: u8 = 6;
    pub(super) const CREATED: u8 = 7;
    pub(super) const REMOVED: u8 = 8;
    pub(super) const CARRY: u8 = 9;
    pub(super) const BOOT: u8 = 10;
    pub(super) const OLDEST: u8 = 11;
}

struct Fields<'a> {
    kind: u8,
    key: GroupKey,
    index: u64,
    term: u64,
    body: &'a [u8],
}

/// Octets that a record with this body takes.
pub(crate) fn padded_length(body: usize) -> usize {
    (RECORD_HEADER_BYTES + body).next_multiple_of(8)
}

/// Octets of a marker that names this many groups.
pub(crate) fn marker_length(groups: usize) -> usize {
    let listed = if groups > MARKER_GROUPS_MAX { 0 } else { groups };
    padded_length(16 + 24 + 1 + listed * 8)
}

fn put(out: &mut Vec<u8>, context: Context<'_>, offset: u64, seq: u64, fields: &Fields<'_>) {
    let start = out.len();
    let length = u32::try_from(RECORD_HEADER_BYTES + fields.body.len()).unwrap_or(u32::MAX);
    let mut checked = Vec::with_capacity(RECORD_HEADER_BYTES - 8);
    checked.extend_from_slice(&[VERSION, fields.kind, 0, 0]);
    checked.extend_from_slice(&fields.key.incarnation.0.to_le_bytes());
    checked.extend_from_slice(&fields.key.group.0.to_le_bytes());
    checked.extend_from_slice(&[0; 4]);
    checked.extend_from_slice(&fields.index.to_le_bytes());
    checked.extend_from_slice(&fields.term.to_le_bytes());
    let crc = crc32c::crc32c_append(context.seed(offset, seq), &length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &checked);
    let crc = crc32c::crc32c_append(crc, fields.body);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&checked);
    out.extend_from_slice(fields.body);
    out.resize(start + padded_length(fields.body.len()), 0);
}

/// Checks and cuts one record at `offset` of a segment. `None` for anything but a whole one of this version.
fn cut<'a>(bytes: &'a [u8], context: Context<'_>, offset: u64, seq: u64) -> Option<(Fields<'a>, usize)> {
    let length = usize::try_from(read_u32(bytes, 0)?).ok()?;
    if !(RECORD_HEADER_BYTES..=limits::LOG_RECORD_BYTES_MAX + RECORD_HEADER_BYTES).contains(&length) {
        return None;
    }
    let whole = bytes.get(..length)?;
    let crc = crc32c::crc32c_append(context.seed(offset, seq), whole.get(..4)?);
    if crc32c::crc32c_append(crc, whole.get(8..)?) != read_u32(whole, 4)? || *whole.get(8)? != VERSION {
        return None;
    }
    let fields = Fields {
        kind: *whole.get(9)?,
        key: GroupKey {
            incarnation: Incarnation(read_u32(whole, 12)?),
            group: GroupId(read_u32(whole, 16)?),
        },
        index: read_u64(whole, 24)?,
        term: read_u64(whole, 32)?,
        body: whole.get(RECORD_HEADER_BYTES..)?,
    };
    Some((fields, length.next_multiple_of(8)))
}

const NO_GROUP: GroupKey = GroupKey {
    group: GroupId(0),
    incarnation: Incarnation(0),
};

impl Marker {
    pub(crate) fn encode(&self, out: &mut Vec<u8>, context: Context<'_>, offset: u64) {
        let mut body = Vec::with_capacity(64);
        body.extend_from_slice(context.salt);
        for number in [self.seq, self.durable, self.bytes] {
            body.extend_from_slice(&number.to_le_bytes());
        }
        let listed = self
            .groups
            .as_deref()
            .filter(|groups| groups.len() <= MARKER_GROUPS_MAX);
        body.push(u8::from(listed.is_some()));
        for key in listed.unwrap_or_default() {
            body.extend_from_slice(&key.group.0.to_le_bytes());
            body.extend_from_slice(&key.incarnation.0.to_le_bytes());
        }
        let fields = Fields {
            kind: kind::BATCH,
            key: NO_GROUP,
            index: 0,
            term: 0,
            body: &body,
        };
        put(out, context, offset, 0, &fields);
    }

    /// The marker at `offset`, of which `bytes` are the octets from there on, and its own length.
    pub(crate) fn decode(bytes: &[u8], context: Context<'_>, offset: u64) -> Option<(Self, usize)> {
        // The cheap looks first: a damaged segment is searched for markers at every eighth octet.
        if *bytes.get(9)? != kind::BATCH || bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + 16)? != context.salt {
            return None;
        }
        let (fields, length) = cut(bytes, context, offset, 0)?;
        let body = fields.body;
        let (listed, groups) = body.get(40..)?.split_first()?;
        let groups = (*listed == 1).then(|| {
            groups
                .chunks_exact(8)
                .filter_map(|pair| {
                    Some(GroupKey {
                        group: GroupId(read_u32(pair, 0)?),
                        incarnation: Incarnation(read_u32(pair, 4)?),
                    })
                })
                .collect()
        });
        let marker = Self {
            seq: read_u64(body, 16)?,
            durable: read_u64(body, 24)?,
            bytes: read_u64(body, 32)?,
            groups,
        };
        Some((marker, length))
    }
}

impl Stored {
    /// Appends the record's bytes, which will stand at `offset` of the context's segment, to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, context: Context<'_>, offset: u64, seq: u64) {
        let body = self.body();
        let (kind, key, index, term) = match self {
            Self::Group(key, record) => match record {
                Record::Append(entry) => (kind::APPEND, *key, entry.mark.index, entry.mark.term),
                Record::Vote(_) => (kind::VOTE, *key, 0, 0),
                Record::Truncate { from } => (kind::TRUNCATE, *key, *from, 0),
                Record::Purge { upto } => (kind::PURGE, *key, upto.index, upto.term),
                Record::Committed(mark) => (kind::COMMITTED, *key, mark.index, mark.term),
                Record::Created => (kind::CREATED, *key, 0, 0),
                Record::Removed => (kind::REMOVED, *key, 0, 0),
            },
            Self::Carry(key, _) => (kind::CARRY, *key, 0, 0),
            Self::Boot { count, nonce } => (kind::BOOT, NO_GROUP, *count, *nonce),
            Self::Oldest { segment } => (kind::OLDEST, NO_GROUP, *segment, 0),
        };
        let fields = Fields {
            kind,
            key,
            index,
            term,
            body: &body,
        };
        put(out, context, offset, seq, &fields);
    }

    /// Octets that it takes in a segment.
    pub(crate) fn encoded_length(&self) -> usize {
        padded_length(self.body().len())
    }

    fn body(&self) -> Bytes {
        match self {
            Self::Group(_, Record::Append(entry)) => entry.body.clone(),
            Self::Group(_, Record::Vote(vote)) => vote.clone(),
            // Three optional fields of fixed size and a vote that was accepted: never above the limit.
            Self::Carry(_, meta) => codec::encode(META_VERSION, meta, limits::LOG_RECORD_BYTES_MAX as u64)
                .map(Bytes::from)
                .unwrap_or_default(),
            _ => Bytes::new(),
        }
    }

    /// The record at `offset` of the context's segment, in the batch `seq`, and its length. `None` when it is damaged,
    /// not there, or of a kind that this program does not know.
    pub(crate) fn decode(bytes: &[u8], context: Context<'_>, offset: u64, seq: u64) -> Option<(Self, usize)> {
        let (fields, length) = cut(bytes, context, offset, seq)?;
        let mark = LogMark {
            term: fields.term,
            index: fields.index,
        };
        let body = || Bytes::copy_from_slice(fields.body);
        let record = match fields.kind {
            kind::APPEND => Record::Append(LogEntry { mark, body: body() }),
            kind::VOTE => Record::Vote(body()),
            kind::TRUNCATE => Record::Truncate { from: fields.index },
            kind::PURGE => Record::Purge { upto: mark },
            kind::COMMITTED => Record::Committed(mark),
            kind::CREATED => Record::Created,
            kind::REMOVED => Record::Removed,
            kind::CARRY => {
                let meta = codec::decode(META_VERSION, fields.body, limits::LOG_RECORD_BYTES_MAX as u64).ok()?;
                return Some((Self::Carry(fields.key, meta), length));
            }
            kind::BOOT => {
                let boot = Self::Boot {
                    count: fields.index,
                    nonce: fields.term,
                };
                return Some((boot, length));
            }
            kind::OLDEST => return Some((Self::Oldest { segment: fields.index }, length)),
            _ => return None,
        };
        Some((Self::Group(fields.key, record), length))
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// For the fuzzer: decodes any bytes as a header, as a marker and as a record; what decodes must encode to the same bytes.
///
/// # Panics
/// When it does not.
pub fn fuzz_records(bytes: &[u8]) {
    if let Ok(Some(header)) = SegmentHeader::decode(bytes) {
        assert_eq!(bytes.get(..68), header.encode().get(..68));
    }
    let salt = [0; 16];
    let context = Context {
        salt: &salt,
        segment: 1,
    };
    if let Some((marker, length)) = Marker::decode(bytes, context, 512) {
        let mut again = Vec::new();
        marker.encode(&mut again, context, 512);
        assert_eq!(Marker::decode(&again, context, 512), Some((marker, length)));
    }
    // The first octet's parity decides whether the check sum is mended first, so that the decoder behind it is reached.
    let mut mended = bytes.to_vec();
    if bytes.first().is_some_and(|byte| byte % 2 == 0) && mended.len() >= RECORD_HEADER_BYTES {
        let length = u32::try_from(mended.len()).unwrap_or(u32::MAX).to_le_bytes();
        let crc = crc32c::crc32c_append(context.seed(512, 7), &length);
        let crc = crc32c::crc32c_append(crc, mended.get(8..).unwrap_or_default());
        for (target, source) in mended.iter_mut().zip(length.into_iter().chain(crc.to_le_bytes())) {
            *target = source;
        }
    }
    if let Some((stored, length)) = Stored::decode(&mended, context, 512, 7) {
        let mut again = Vec::new();
        stored.encode(&mut again, context, 512, 7);
        assert_eq!(
            Stored::decode(&again, context, 512, 7).map(|(stored, _)| stored),
            Some(stored)
        );
        assert!(length >= RECORD_HEADER_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use core_types::Entropy;
    use platform::SeededEntropy;

    use super::*;

    const KEY: GroupKey = GroupKey {
        group: GroupId(3),
        incarnation: Incarnation(2),
    };

    fn every_kind() -> Vec<Stored> {
        let mark = LogMark { term: 4, index: 9 };
        let body = Bytes::from_static(b"an entry");
        let mut kinds: Vec<Stored> = [
            Record::Append(LogEntry {
                mark,
                body: body.clone(),
            }),
            Record::Vote(body.clone()),
            Record::Truncate { from: 7 },
            Record::Purge { upto: mark },
            Record::Committed(mark),
            Record::Created,
            Record::Removed,
        ]
        .map(|record| Stored::Group(KEY, record))
        .into();
        let meta = Meta {
            vote: Some(body),
            purged: None,
            committed: Some(mark),
        };
        kinds.push(Stored::Carry(KEY, meta));
        kinds.push(Stored::Boot { count: 1, nonce: 2 });
        kinds.push(Stored::Oldest { segment: 5 });
        kinds
    }

    #[test]
    fn records_round_trip_and_only_where_they_were_written() {
        let salt = [9; 16];
        let context = Context {
            salt: &salt,
            segment: 4,
        };
        for stored in every_kind() {
            let mut bytes = Vec::new();
            stored.encode(&mut bytes, context, 512, 7);
            assert_eq!(bytes.len(), stored.encoded_length());
            assert_eq!(bytes.len() % 8, 0);
            let length = bytes.len();
            assert_eq!(Stored::decode(&bytes, context, 512, 7), Some((stored, length)));
            assert_eq!(Stored::decode(&bytes, context, 520, 7), None);
            assert_eq!(Stored::decode(&bytes, context, 512, 8), None);
            let other = Context { segment: 5, ..context };
            assert_eq!(Stored::decode(&bytes, other, 512, 7), None);
        }
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let salt = [9; 16];
        let context = Context {
            salt: &salt,
            segment: 4,
        };
        for stored in every_kind() {
            let mut bytes = Vec::new();
            stored.encode(&mut bytes, context, 512, 7);
            let length = read_u32(&bytes, 0).unwrap() as usize;
            for bit in 0..length * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Stored::decode(&bytes, context, 512, 7), None, "bit {bit}");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_marker_of_too_many_groups_stands_for_all() {
        let salt = [9; 16];
        let context = Context {
            salt: &salt,
            segment: 4,
        };
        for (count, listed) in [
            (0, true),
            (1, true),
            (MARKER_GROUPS_MAX, true),
            (MARKER_GROUPS_MAX + 1, false),
        ] {
            let marker = Marker {
                seq: 5,
                durable: 512,
                bytes: 80,
                groups: Some(vec![KEY; count]),
            };
            let mut bytes = Vec::new();
            marker.encode(&mut bytes, context, 1024);
            assert_eq!(bytes.len(), marker_length(count));
            let (decoded, _) = Marker::decode(&bytes, context, 1024).unwrap();
            assert_eq!(decoded.groups.is_some(), listed);
            assert_eq!(Marker::decode(&bytes, context, 1032), None);
        }
    }

    #[test]
    fn a_header_of_another_version_is_named() {
        let header = SegmentHeader {
            node: NodeId(1),
            number: 2,
            first_seq: 3,
            salt: [4; 16],
            previous_end: 5,
            oldest: 1,
            capacity: 1 << 20,
        };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(Some(header)));
        assert_eq!(SegmentHeader::decode(&bytes[..HEADER_BODY_BYTES + 3]), Ok(None));
        bytes[0] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Ok(None));
        let crc = crc32c::crc32c(&bytes[..HEADER_BODY_BYTES]);
        bytes[HEADER_BODY_BYTES..HEADER_BODY_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(2));
    }

    #[test]
    fn any_bytes_are_decoded_or_refused() {
        for seed in 0..3000 {
            let entropy: &dyn Entropy = &SeededEntropy::new(seed);
            let mut bytes = vec![0; usize::try_from(entropy.below(200)).unwrap()];
            entropy.fill(&mut bytes);
            if let Some(kind) = bytes.get_mut(9) {
                *kind %= 13;
            }
            if let Some(version) = bytes.get_mut(8) {
                *version = 1;
            }
            fuzz_records(&bytes);
        }
    }
}
