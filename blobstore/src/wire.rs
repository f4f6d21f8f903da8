//! What nodes ask each other about blobs.
//!
//! Every request and answer begins with a version (`core_types::codec`) and fits one frame of the transport. A whole
//! encoded blob goes in one `Put`; a larger one as `Begin`, one `Frame` after the other, and `Commit`. What arrives is
//! verified frame by frame against the blob's name, so nobody's word has to be trusted.

use bytes::Bytes;
use core_types::limits::FRAME_BYTES_MAX;
use core_types::{BlobId, GroupId, codec};
use serde::{Deserialize, Serialize};

use crate::error::BlobError;
use crate::format::Outline;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Make this blob durable; the whole encoded file.
    Put { id: BlobId, file: Bytes },
    /// A large blob follows under this number of the sender's.
    Begin {
        transfer: u64,
        id: BlobId,
        outline: Outline,
    },
    /// Its next frame.
    Frame { transfer: u64, index: u32, encoded: Bytes },
    /// Make it durable.
    Commit { transfer: u64, id: BlobId },
    /// Forget it.
    Abort { transfer: u64 },
    /// What does the blob consist of?
    Describe { id: BlobId },
    /// One frame of it, compressed.
    ReadFrame { id: BlobId, index: u32 },
    /// Which of these are there?
    Has { ids: Vec<BlobId> },
    /// Of the blobs above `after` up to `through` to which this group refers: are those that are there the ones with this
    /// digest?
    Compare {
        group: GroupId,
        after: Option<BlobId>,
        through: BlobId,
        digest: [u8; 32],
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is durable.
    Stored,
    /// Frames that have arrived.
    Received { frames: u32 },
    /// The bytes do not give that name: the asker should look at its own copy.
    WrongHash,
    /// No space.
    Full,
    /// No such blob, or no such transfer (any more).
    Missing,
    /// What the blob consists of.
    Outline(Outline),
    /// A frame.
    Frame(Bytes),
    /// For each id whether it is there.
    Has(Vec<bool>),
    /// It cannot be done now; why.
    Failed(String),
    /// They are.
    Same,
    /// They are not.
    Differs,
}

pub(crate) fn encode_request(request: &Request) -> Result<Bytes, BlobError> {
    Ok(codec::encode(VERSION, request, FRAME_BYTES_MAX)?.into())
}

pub(crate) fn decode_request(bytes: &[u8]) -> Result<Request, BlobError> {
    Ok(codec::decode(VERSION, bytes, FRAME_BYTES_MAX)?)
}

pub(crate) fn encode_answer(answer: &Answer) -> Result<Bytes, BlobError> {
    Ok(codec::encode(VERSION, answer, FRAME_BYTES_MAX)?.into())
}

pub(crate) fn decode_answer(bytes: &[u8]) -> Result<Answer, BlobError> {
    Ok(codec::decode(VERSION, bytes, FRAME_BYTES_MAX)?)
}

const VERSION: u8 = 1;
