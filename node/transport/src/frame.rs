//! Frames on QUIC streams: a header with our codec's version, then a body with its length in front.
//!
//! One request and its answer share a bidirectional stream; a unidirectional one carries a single notice. Header fields
//! are plain numbers, so that a newer peer's unknown kind, class or version is told apart from garbage: the first is
//! answered as unsupported, the second resets the stream. Nothing is allocated on the word of a length.
//!
//! Layout: `u16` header length, header, `u32` body length, body; integers little-endian.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use core_types::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX};
use core_types::{NodeId, codec};
use serde::{Deserialize, Serialize};

use crate::rpc::{Class, ServiceId};

/// The version of headers that this program writes.
pub(crate) const FRAME_VERSION: u8 = 1;
/// Nodes in one notice of reachability.
pub(crate) const REACH_NODES_MAX: usize = 4096;

/// What a frame on a new stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first of a connection: the body is a [`Hello`].
    Hello,
    /// A request; the body is for the service.
    Request(Request),
    /// Which nodes the sender reaches itself; the body is a [`Reach`].
    Reach,
}

/// A request's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its priority.
    pub class: Class,
    /// Who is to answer.
    pub service: ServiceId,
    /// The way it takes.
    pub route: Route,
    /// How long the asker waits; whole milliseconds.
    pub timeout: Duration,
}

/// The way of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// From the connection's peer to this node.
    Direct,
    /// To be handed on to this node.
    Relay(NodeId),
    /// Handed on by the connection's peer for this node.
    Relayed(NodeId),
}

/// What an answer's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The body is the service's answer.
    Done,
    /// The body is the service's reason (UTF-8).
    Refused,
    /// This node knows no such version, kind, class or service; the body says which.
    Unsupported,
    /// Too much is under way.
    Busy,
    /// The request or the answer was larger than a frame may be.
    TooLarge,
    /// The relay does not reach the node; nothing was sent.
    Unreachable,
    /// The relay got no answer.
    NoAnswer,
}

/// Why a header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not one of ours.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// Well-formed, but from a newer version than this.
    #[error("unsupported frame: {0}")]
    Unsupported(String),
}

/// What two nodes tell each other before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Random bits of this start of the node.
    pub boot: u128,
    /// The oldest frame version that it reads.
    pub version_min: u8,
    /// The newest frame version that it reads; the lower of both newest ones is used.
    pub version_max: u8,
    /// The address from which it sees the other.
    pub observed: String,
}

/// Which nodes the sender is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Counts the notices of a connection; an older one that comes late is ignored.
    pub seq: u64,
    /// The nodes' ids.
    pub nodes: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct RequestHeader {
    kind: u16,
    class: u8,
    service: u16,
    node: u64,
    timeout_millis: u32,
}

#[derive(Serialize, Deserialize)]
struct AnswerHeader {
    status: u16,
}

impl Frame {
    /// The header's bytes.
    ///
    /// # Errors
    /// None for what this program makes.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let header = match self {
            Self::Hello => RequestHeader::bare(KIND_HELLO),
            Self::Reach => RequestHeader::bare(KIND_REACH),
            Self::Request(request) => {
                let (kind, node) = match request.route {
                    Route::Direct => (KIND_DIRECT, NodeId(0)),
                    Route::Relay(to) => (KIND_RELAY, to),
                    Route::Relayed(from) => (KIND_RELAYED, from),
                };
                RequestHeader {
                    kind,
                    class: class_number(request.class),
                    service: request.service.0,
                    node: node.0,
                    timeout_millis: u32::try_from(request.timeout.as_millis()).unwrap_or(u32::MAX),
                }
            }
        };
        encode(&header)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Any [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let header: RequestHeader = decode(bytes)?;
        let route = match header.kind {
            KIND_HELLO => return Ok(Self::Hello),
            KIND_REACH => return Ok(Self::Reach),
            KIND_DIRECT => Route::Direct,
            KIND_RELAY => Route::Relay(NodeId(header.node)),
            KIND_RELAYED => Route::Relayed(NodeId(header.node)),
            other => return Err(FrameError::Unsupported(format!("kind {other}"))),
        };
        let class = match header.class {
            0 => Class::Bulk,
            1 => Class::Blob,
            2 => Class::Store,
            3 => Class::Log,
            4 => Class::Control,
            other => return Err(FrameError::Unsupported(format!("class {other}"))),
        };
        let timeout = Duration::from_millis(u64::from(header.timeout_millis));
        Ok(Self::Request(Request {
            class,
            service: ServiceId(header.service),
            route,
            timeout,
        }))
    }
}

impl RequestHeader {
    fn bare(kind: u16) -> Self {
        Self {
            kind,
            class: 0,
            service: 0,
            node: 0,
            timeout_millis: 0,
        }
    }
}

impl Status {
    /// The header's bytes.
    ///
    /// # Errors
    /// None for what this program makes.
    pub fn encode(self) -> Result<Vec<u8>, FrameError> {
        let status = match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Unsupported => 2,
            Self::Busy => 3,
            Self::TooLarge => 4,
            Self::Unreachable => 5,
            Self::NoAnswer => 6,
        };
        encode(&AnswerHeader { status })
    }

    /// Reads a header.
    ///
    /// # Errors
    /// Any [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let header: AnswerHeader = decode(bytes)?;
        Ok(match header.status {
            0 => Self::Done,
            1 => Self::Refused,
            2 => Self::Unsupported,
            3 => Self::Busy,
            4 => Self::TooLarge,
            5 => Self::Unreachable,
            6 => Self::NoAnswer,
            other => return Err(FrameError::Unsupported(format!("status {other}"))),
        })
    }
}

/// The number of a class on the wire and as a stream's priority.
pub(crate) fn class_number(class: Class) -> u8 {
    match class {
        Class::Bulk => 0,
        Class::Blob => 1,
        Class::Store => 2,
        Class::Log => 3,
        Class::Control => 4,
    }
}

/// Everything of a frame that comes before its body.
pub(crate) fn head(header: &[u8], body_bytes: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(header.len() + 6);
    head.put_u16_le(u16::try_from(header.len()).unwrap_or(u16::MAX));
    head.put_slice(header);
    head.put_u32_le(u32::try_from(body_bytes).unwrap_or(u32::MAX));
    head.freeze()
}

/// Why a frame could not be read from its stream.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The stream or the connection ended before the frame did.
    Cut,
    /// The header's length is out of range.
    Malformed,
    /// The body is announced larger than the limit.
    TooLarge(u64),
}

/// Reads a header's bytes and the announced length of the body.
pub(crate) async fn read_head(stream: &mut quinn::RecvStream) -> Result<(Vec<u8>, u64), ReadError> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).await.map_err(|_| ReadError::Cut)?;
    let length = usize::from(u16::from_le_bytes(length));
    if length == 0 || length > FRAME_HEADER_BYTES_MAX {
        return Err(ReadError::Malformed);
    }
    let mut header = vec![0; length];
    stream.read_exact(&mut header).await.map_err(|_| ReadError::Cut)?;
    let mut body_bytes = [0; 4];
    stream.read_exact(&mut body_bytes).await.map_err(|_| ReadError::Cut)?;
    Ok((header, u64::from(u32::from_le_bytes(body_bytes))))
}

/// Reads a body of the announced length. Memory grows with what has come, not with what was announced.
pub(crate) async fn read_body(stream: &mut quinn::RecvStream, bytes: u64, limit: u64) -> Result<Bytes, ReadError> {
    if bytes > limit.min(FRAME_BYTES_MAX) {
        return Err(ReadError::TooLarge(bytes));
    }
    let total = usize::try_from(bytes).map_err(|_| ReadError::TooLarge(bytes))?;
    let mut body = BytesMut::with_capacity(total.min(64 * 1024));
    while body.len() < total {
        match stream.read_chunk(total - body.len(), true).await {
            // The whole body in one chunk needs no copy.
            Ok(Some(chunk)) if body.is_empty() && chunk.bytes.len() == total => return Ok(chunk.bytes),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk.bytes),
            Ok(None) | Err(_) => return Err(ReadError::Cut),
        }
    }
    Ok(body.freeze())
}

/// Encodes a [`Hello`] or [`Reach`].
pub(crate) fn encode_body<T: Serialize>(body: &T) -> Result<Bytes, FrameError> {
    codec::encode(FRAME_VERSION, body, NOTICE_BYTES_MAX)
        .map(Bytes::from)
        .map_err(|error| FrameError::Malformed(error.to_string()))
}

/// Octets of a hello or a notice.
pub(crate) const NOTICE_BYTES_MAX: u64 = REACH_NODES_MAX as u64 * 8 + 64;

impl Hello {
    /// Reads a hello's body.
    ///
    /// # Errors
    /// Any [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        codec::decode(FRAME_VERSION, bytes, NOTICE_BYTES_MAX).map_err(from_codec)
    }
}

impl Reach {
    /// Reads a notice's body.
    ///
    /// # Errors
    /// Any [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        codec::decode(FRAME_VERSION, bytes, NOTICE_BYTES_MAX).map_err(from_codec)
    }
}

fn encode<T: Serialize>(header: &T) -> Result<Vec<u8>, FrameError> {
    codec::encode(FRAME_VERSION, header, FRAME_HEADER_BYTES_MAX as u64)
        .map_err(|error| FrameError::Malformed(error.to_string()))
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    codec::decode(FRAME_VERSION, bytes, FRAME_HEADER_BYTES_MAX as u64).map_err(from_codec)
}

fn from_codec(error: codec::CodecError) -> FrameError {
    match error {
        // Versions count up from 1; a first byte far away is no version of ours but noise.
        codec::CodecError::UnknownVersion { found, .. } if found > 0 && found < VERSION_PLAUSIBLE => {
            FrameError::Unsupported(error.to_string())
        }
        other => FrameError::Malformed(other.to_string()),
    }
}

const KIND_HELLO: u16 = 1;
const KIND_DIRECT: u16 = 2;
const KIND_RELAY: u16 = 3;
const KIND_RELAYED: u16 = 4;
const KIND_REACH: u16 = 5;
const VERSION_PLAUSIBLE: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for route in [Route::Direct, Route::Relay(NodeId(9)), Route::Relayed(NodeId(u64::MAX))] {
            for class in [Class::Bulk, Class::Blob, Class::Store, Class::Log, Class::Control] {
                let timeout = Duration::from_millis(1500);
                let frame = Frame::Request(Request {
                    class,
                    service: ServiceId(7),
                    route,
                    timeout,
                });
                assert_eq!(Frame::decode(&frame.encode().unwrap()), Ok(frame));
            }
        }
        assert_eq!(Frame::decode(&Frame::Hello.encode().unwrap()), Ok(Frame::Hello));
        assert_eq!(Frame::decode(&Frame::Reach.encode().unwrap()), Ok(Frame::Reach));
    }

    #[test]
    fn the_urgent_classes_have_the_greater_numbers() {
        let mut classes = [Class::Control, Class::Blob, Class::Log, Class::Bulk, Class::Store];
        classes.sort_unstable();
        assert_eq!(classes.map(class_number), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn newer_frames_are_told_apart_from_garbage() {
        let mut newer = Frame::Hello.encode().unwrap();
        newer[0] = 2;
        assert!(matches!(Frame::decode(&newer), Err(FrameError::Unsupported(_))));
        let mut kind = Frame::Hello.encode().unwrap();
        kind[1] = 99;
        assert!(matches!(Frame::decode(&kind), Err(FrameError::Unsupported(_))));
        let request = Request {
            class: Class::Log,
            service: ServiceId::RAFT,
            route: Route::Direct,
            timeout: Duration::from_secs(1),
        };
        let mut class = Frame::Request(request).encode().unwrap();
        class[3] = 5;
        assert!(matches!(Frame::decode(&class), Err(FrameError::Unsupported(_))));
        for garbage in [&[][..], &[0], &[1], &[0xff; 18], &[1; 17], &[1; 19]] {
            assert!(
                matches!(Frame::decode(garbage), Err(FrameError::Malformed(_))),
                "{garbage:?}"
            );
        }
    }
}
