//! The format of a blob's file: independent zstd frames of 1 MiB of message each, and a table in a skippable frame.
//!
//! `zstd -dc FILE` gives the exact message, since decoders pass over skippable frames (RFC 8878 3.1.2). The table holds
//! each frame's hash as a node of the BLAKE3 tree: a frame is a subtree, so that the hashes of all frames give the blob's
//! name, and one frame can be verified against the name without the others. Invariant: a [`Table`] that was decoded or
//! made here gives the name it was asked for.
//!
//! Layout: frames, then `magic u32, length u32` of the skippable frame, then the payload: version u8, kind u8, two zero
//! bytes, raw length u64, frame count u32, and for each frame raw length u32, encoded length u32, hash; then the footer:
//! payload length u32, CRC-32C of the payload u32, 8 bytes of magic. All little-endian. An uncompressed message has the
//! payload and the footer in a file beside it.
//!
//! Not here: files, journal, peers.

use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use core_types::BlobId;
use core_types::limits::{BLOB_BYTES_MAX, BLOB_FRAME_BYTES};
use serde::{Deserialize, Serialize};

use crate::error::BlobError;

/// A node of the BLAKE3 tree.
pub type FrameHash = [u8; 32];

/// How the frames of a file are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each is a zstd frame.
    Zstd,
    /// The bytes as they are.
    Plain,
}

/// One frame as it stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Octets of the message in it.
    pub raw_len: u32,
    /// Octets that it takes.
    pub encoded_len: u32,
    /// Its place in the BLAKE3 tree; of a blob of one frame the name itself.
    pub hash: FrameHash,
}

/// What a blob consists of, whatever its encoding: enough to verify each frame against the blob's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// Octets of the message.
    pub raw_len: u64,
    /// Each frame's hash.
    pub hashes: Vec<FrameHash>,
}

/// The frames of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// How the frames are encoded.
    pub kind: Kind,
    /// Octets of the message.
    pub raw_len: u64,
    /// The frames in order.
    pub frames: Vec<Frame>,
}

/// Octets that an encoded frame has at most: zstd's bound for input that cannot be compressed, rounded up.
pub const FRAME_ENCODED_BYTES_MAX: usize = BLOB_FRAME_BYTES + 16 * 1024;
/// Octets at a file's end within which the table lies.
pub const TABLE_BYTES_MAX: usize = 4096;

impl Outline {
    /// Checks that the frames give the blob's name.
    ///
    /// # Errors
    /// [`BlobError::WrongHash`]; [`BlobError::TooLarge`].
    pub fn verify(&self, id: BlobId) -> Result<(), BlobError> {
        if self.raw_len > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge(BLOB_BYTES_MAX));
        }
        if self.hashes.len() as u64 != frame_count(self.raw_len) || root(&self.hashes, self.raw_len) != id.0 {
            return Err(BlobError::WrongHash(id));
        }
        Ok(())
    }

    /// Octets of the message in a frame; 0 when there is no such frame.
    #[must_use]
    pub fn frame_raw_len(&self, index: usize) -> usize {
        frame_raw_len(self.raw_len, index)
    }

    /// Whether these bytes are that frame.
    #[must_use]
    pub fn frame_fits(&self, index: usize, raw: &[u8]) -> bool {
        raw.len() == self.frame_raw_len(index)
            && self
                .hashes
                .get(index)
                .is_some_and(|hash| *hash == frame_hash(index, raw, self.hashes.len() == 1))
    }

    /// Decodes a zstd frame and verifies it.
    ///
    /// # Errors
    /// [`BlobError::Malformed`] when it is not that frame. Memory: never more than the frame's announced length.
    pub fn decode_frame(&self, index: usize, encoded: &[u8]) -> Result<Vec<u8>, BlobError> {
        let raw = decompress(encoded, self.frame_raw_len(index))?;
        if self.frame_fits(index, &raw) {
            Ok(raw)
        } else {
            Err(BlobError::Malformed("a frame's hash differs".to_owned()))
        }
    }
}

impl Table {
    /// What the blob consists of.
    #[must_use]
    pub fn outline(&self) -> Outline {
        Outline {
            raw_len: self.raw_len,
            hashes: self.frames.iter().map(|frame| frame.hash).collect(),
        }
    }

    /// Where a frame begins in the file, and its length there.
    #[must_use]
    pub fn place(&self, index: usize) -> Option<(u64, usize)> {
        let before = self.frames.get(..index)?;
        let offset = before.iter().map(|frame| u64::from(frame.encoded_len)).sum();
        Some((offset, self.frames.get(index)?.encoded_len as usize))
    }

    /// Octets of all encoded frames.
    #[must_use]
    pub fn frames_len(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.encoded_len)).sum()
    }

    /// The skippable frame that ends a compressed file.
    #[must_use]
    pub fn encode_skippable(&self) -> Vec<u8> {
        let tail = self.encode();
        let mut bytes = Vec::with_capacity(tail.len() + SKIPPABLE_HEADER_BYTES);
        bytes.extend_from_slice(&SKIPPABLE_MAGIC.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(tail.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&tail);
        bytes
    }

    /// Payload and footer, as they stand beside an uncompressed message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, u8::from(self.kind == Kind::Plain), 0, 0];
        bytes.extend_from_slice(&self.raw_len.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(self.frames.len()).unwrap_or(u32::MAX).to_le_bytes());
        for frame in &self.frames {
            bytes.extend_from_slice(&frame.raw_len.to_le_bytes());
            bytes.extend_from_slice(&frame.encoded_len.to_le_bytes());
            bytes.extend_from_slice(&frame.hash);
        }
        let (length, crc) = (bytes.len(), crc32c::crc32c(&bytes));
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(FOOTER_MAGIC);
        bytes
    }

    /// Finds the table in the last bytes of a compressed file ([`TABLE_BYTES_MAX`] of them, or the whole file), and checks
    /// it against the blob's name and the file's length.
    ///
    /// # Errors
    /// [`BlobError::Malformed`] or [`BlobError::WrongHash`].
    pub fn decode_tail(id: BlobId, tail: &[u8], file_len: u64) -> Result<Self, BlobError> {
        let (table, length) = Self::decode_payload(id, tail)?;
        let skippable_len = length + SKIPPABLE_HEADER_BYTES;
        let header = tail
            .len()
            .checked_sub(skippable_len)
            .and_then(|start| tail.get(start..start + SKIPPABLE_HEADER_BYTES))
            .ok_or_else(|| malformed("the skippable frame is cut"))?;
        let mut expected = SKIPPABLE_MAGIC.to_le_bytes().to_vec();
        expected.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        if header != expected.as_slice() {
            return Err(malformed("the skippable frame's header is wrong"));
        }
        if table.kind != Kind::Zstd || table.frames_len() + skippable_len as u64 != file_len {
            return Err(malformed("the table does not fit the file"));
        }
        Ok(table)
    }

    /// Decodes the table that stands beside an uncompressed message.
    ///
    /// # Errors
    /// As [`Table::decode_tail`].
    pub fn decode_beside(id: BlobId, bytes: &[u8], file_len: u64) -> Result<Self, BlobError> {
        let (table, length) = Self::decode_payload(id, bytes)?;
        if length != bytes.len() || table.kind != Kind::Plain || table.raw_len != file_len {
            return Err(malformed("the table does not fit the file"));
        }
        Ok(table)
    }

    /// The table at the end of the bytes, and how many of them payload and footer take.
    fn decode_payload(id: BlobId, bytes: &[u8]) -> Result<(Self, usize), BlobError> {
        let short = || malformed("the table is cut");
        let (rest, footer) = bytes.split_last_chunk::<FOOTER_BYTES>().ok_or_else(short)?;
        let mut footer = Cursor(footer);
        let (payload_len, crc) = (footer.u32()? as usize, footer.u32()?);
        if footer.0 != FOOTER_MAGIC {
            return Err(malformed("no table at the end"));
        }
        let start = rest.len().checked_sub(payload_len).ok_or_else(short)?;
        let payload = rest.get(start..).ok_or_else(short)?;
        if crc32c::crc32c(payload) != crc {
            return Err(malformed("the table's CRC differs"));
        }
        let mut cursor = Cursor(payload);
        let head = cursor.u32()?.to_le_bytes();
        let kind = match head {
            [VERSION, 0, 0, 0] => Kind::Zstd,
            [VERSION, 1, 0, 0] => Kind::Plain,
            _ => return Err(malformed("unknown version of the table")),
        };
        let raw_len = cursor.u64()?;
        let count = cursor.u32()? as usize;
        if raw_len > BLOB_BYTES_MAX || count as u64 != frame_count(raw_len) || cursor.0.len() != count * FRAME_ROW_BYTES
        {
            return Err(malformed("the table's lengths do not fit"));
        }
        let mut frames = Vec::with_capacity(count);
        for index in 0..count {
            let frame = Frame {
                raw_len: cursor.u32()?,
                encoded_len: cursor.u32()?,
                hash: cursor.array()?,
            };
            let encoded_fits = match kind {
                Kind::Zstd => frame.encoded_len as usize <= FRAME_ENCODED_BYTES_MAX,
                Kind::Plain => frame.encoded_len == frame.raw_len,
            };
            if frame.raw_len as usize != frame_raw_len(raw_len, index) || !encoded_fits {
                return Err(malformed("a frame's length does not fit"));
            }
            frames.push(frame);
        }
        let table = Self { kind, raw_len, frames };
        table.outline().verify(id)?;
        Ok((table, payload_len + FOOTER_BYTES))
    }
}

/// Makes the table of a blob frame by frame, with each frame's encoding.
#[derive(Debug, Default)]
pub struct Encoder {
    frames: Vec<Frame>,
    raw_len: u64,
    first_root: Option<FrameHash>,
}

impl Encoder {
    /// Hashes and compresses the next frame. All but the last have [`BLOB_FRAME_BYTES`]; none is empty.
    ///
    /// # Errors
    /// [`BlobError::Malformed`] when zstd refuses.
    pub fn encode_frame(&mut self, raw: &[u8]) -> Result<Vec<u8>, BlobError> {
        let index = self.frames.len();
        let hasher = subtree_hasher(index, raw);
        if index == 0 {
            self.first_root = Some(*hasher.finalize().as_bytes());
        }
        let encoded = compress(raw)?;
        self.frames.push(Frame {
            raw_len: u32::try_from(raw.len()).unwrap_or(u32::MAX),
            encoded_len: u32::try_from(encoded.len()).unwrap_or(u32::MAX),
            hash: hasher.finalize_non_root(),
        });
        self.raw_len += raw.len() as u64;
        Ok(encoded)
    }

    /// Octets of the frames so far.
    #[must_use]
    pub fn frames_len(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.encoded_len)).sum()
    }

    /// The blob's name and its table.
    #[must_use]
    pub fn finish(mut self) -> (BlobId, Table) {
        if let ([only], Some(root)) = (self.frames.as_mut_slice(), self.first_root) {
            only.hash = root;
        }
        let table = Table {
            kind: Kind::Zstd,
            raw_len: self.raw_len,
            frames: self.frames,
        };
        let outline = table.outline();
        (BlobId(root(&outline.hashes, outline.raw_len)), table)
    }
}

/// Encodes a whole message in memory.
///
/// # Errors
/// [`BlobError::Malformed`] when zstd refuses.
pub fn encode(raw: &[u8]) -> Result<(BlobId, Table, Vec<u8>), BlobError> {
    let mut encoder = Encoder::default();
    let mut file = Vec::with_capacity(raw.len() / 2 + 256);
    for frame in raw.chunks(BLOB_FRAME_BYTES) {
        file.extend_from_slice(&encoder.encode_frame(frame)?);
    }
    let (id, table) = encoder.finish();
    file.extend_from_slice(&table.encode_skippable());
    Ok((id, table, file))
}

/// The table of a plain file from the outline.
#[must_use]
pub fn plain_table(outline: &Outline) -> Table {
    let frame = |(index, hash): (usize, &FrameHash)| {
        let length = u32::try_from(outline.frame_raw_len(index)).unwrap_or(u32::MAX);
        Frame {
            raw_len: length,
            encoded_len: length,
            hash: *hash,
        }
    };
    Table {
        kind: Kind::Plain,
        raw_len: outline.raw_len,
        frames: outline.hashes.iter().enumerate().map(frame).collect(),
    }
}

/// Compresses one frame, with zstd's own checksum so that `zstd -t` finds damage too.
///
/// # Errors
/// [`BlobError::Malformed`] when zstd refuses.
pub fn compress(raw: &[u8]) -> Result<Vec<u8>, BlobError> {
    let refused = |error: std::io::Error| BlobError::Malformed(format!("zstd: {error}"));
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(refused)?;
    compressor
        .set_parameter(zstd::zstd_safe::CParameter::ChecksumFlag(true))
        .map_err(refused)?;
    compressor.compress(raw).map_err(refused)
}

/// Decompresses into exactly `raw_len` octets; whatever the bytes announce, no more memory is used.
fn decompress(encoded: &[u8], raw_len: usize) -> Result<Vec<u8>, BlobError> {
    let refused = |error: std::io::Error| BlobError::Malformed(format!("zstd: {error}"));
    let mut raw = vec![0; raw_len];
    let length = zstd::bulk::Decompressor::new()
        .and_then(|mut decompressor| decompressor.decompress_to_buffer(encoded, raw.as_mut_slice()))
        .map_err(refused)?;
    if length == raw_len {
        Ok(raw)
    } else {
        Err(malformed("a frame is shorter than announced"))
    }
}

/// The frames that a message of this length has.
#[must_use]
pub fn frame_count(raw_len: u64) -> u64 {
    raw_len.div_ceil(BLOB_FRAME_BYTES as u64)
}

fn frame_raw_len(raw_len: u64, index: usize) -> usize {
    let start = (index as u64).saturating_mul(BLOB_FRAME_BYTES as u64);
    usize::try_from(raw_len.saturating_sub(start)).map_or(BLOB_FRAME_BYTES, |rest| rest.min(BLOB_FRAME_BYTES))
}

fn subtree_hasher(index: usize, raw: &[u8]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    if index > 0 {
        hasher.set_input_offset(index as u64 * BLOB_FRAME_BYTES as u64);
    }
    hasher.update(raw);
    hasher
}

fn frame_hash(index: usize, raw: &[u8], only: bool) -> FrameHash {
    let hasher = subtree_hasher(index, raw);
    if only {
        *hasher.finalize().as_bytes()
    } else if raw.is_empty() {
        // No frame is empty, and an empty subtree has no hash.
        [0; 32]
    } else {
        hasher.finalize_non_root()
    }
}

/// The root of the tree over the frames. A wrong number of hashes gives a hash that no blob has.
fn root(hashes: &[FrameHash], raw_len: u64) -> FrameHash {
    match hashes {
        [] => *blake3::hash(b"").as_bytes(),
        [only] => *only,
        _ => {
            let (left, right) = split(hashes, raw_len);
            *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
        }
    }
}

fn split(hashes: &[FrameHash], raw_len: u64) -> (FrameHash, FrameHash) {
    let left_len = left_subtree_len(raw_len);
    let middle =
        usize::try_from(left_len / BLOB_FRAME_BYTES as u64).map_or(1, |middle| middle.clamp(1, hashes.len() - 1));
    let (left, right) = hashes.split_at(middle);
    (
        subtree(left, left_len),
        subtree(right, raw_len.saturating_sub(left_len)),
    )
}

fn subtree(hashes: &[FrameHash], raw_len: u64) -> FrameHash {
    match hashes {
        [] => [0; 32],
        [only] => *only,
        _ => {
            let (left, right) = split(hashes, raw_len);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

pub(crate) fn malformed(what: &str) -> BlobError {
    BlobError::Malformed(what.to_owned())
}

/// Reads numbers from the front of bytes.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl Cursor<'_> {
    pub(crate) fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], BlobError> {
        let (head, rest) = self.0.split_first_chunk::<LENGTH>().ok_or_else(|| malformed("cut"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, BlobError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BlobError> {
        self.array().map(u64::from_le_bytes)
    }
}

const VERSION: u8 = 1;
const ZSTD_LEVEL: i32 = 1;
/// One of the sixteen magic numbers of skippable frames (RFC 8878 3.1.2).
const SKIPPABLE_MAGIC: u32 = 0x184D_2A5B;
const SKIPPABLE_HEADER_BYTES: usize = 8;
const FOOTER_MAGIC: &[u8; 8] = b"EVPBLOB1";
const FOOTER_BYTES: usize = 16;
const FRAME_ROW_BYTES: usize = 40;

#[cfg(test)]
mod tests;
