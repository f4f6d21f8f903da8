//! One connection to a peer: asking over it, and what bounds it.
//!
//! A QUIC connection has one send window for all its streams, so a full window would make a heartbeat wait behind blobs
//! whatever the streams' priorities. So each share of classes may have only so many octets unacknowledged, and all
//! shares together stay below the window ([`SEND_WINDOW`]); what is beyond waits here, in the order of its coming.
//!
//! Not here: which connection is used (`peer`), what is done with a request that comes in (`serve`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use core_types::limits::{FRAME_BYTES_MAX, PEER_REQUESTS_MAX, PEER_STREAMS_MAX};
use core_types::{NodeId, UnixMillis};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::frame::{self, Frame, Reach, ReadError, Request, Status};
use crate::rpc::Class;

/// Octets that quinn holds for a connection until they are acknowledged; also how much a peer may send unread.
pub(crate) const SEND_WINDOW: u32 = 64 * 1024 * 1024;
/// Octets of one stream that a peer may send unread.
pub(crate) const STREAM_WINDOW: u32 = 8 * 1024 * 1024;

/// A live connection to a node whose certificate, membership and hello were good.
pub(crate) struct Link {
    pub(crate) node: NodeId,
    /// The peer's boot, from its hello.
    pub(crate) boot: u128,
    /// Whether this node dialled.
    pub(crate) dialled: bool,
    /// Counts this node's links; a later one has a greater number.
    pub(crate) serial: u64,
    pub(crate) since: UnixMillis,
    pub(crate) born: Instant,
    /// Where the peer sees this node.
    pub(crate) observed: String,
    pub(crate) connection: quinn::Connection,
    /// Nothing came for a while: the way may be cut.
    suspect: AtomicBool,
    reaches: Mutex<(u64, BTreeSet<NodeId>)>,
    shares: PerClass<Share>,
    /// What this node does for the peer.
    pub(crate) load: PerClass<Load>,
    pub(crate) malformed_count: AtomicU64,
}

/// One thing for each class.
#[derive(Default)]
pub(crate) struct PerClass<T> {
    bulk: T,
    blob: T,
    store: T,
    log: T,
    control: T,
}

impl<T> PerClass<T> {
    pub(crate) fn of(&self, class: Class) -> &T {
        match class {
            Class::Bulk => &self.bulk,
            Class::Blob => &self.blob,
            Class::Store => &self.store,
            Class::Log => &self.log,
            Class::Control => &self.control,
        }
    }
}

/// How much of the connection one class may use at once.
struct Share {
    octets: Semaphore,
    octets_max: u32,
    streams: Semaphore,
}

impl Share {
    fn new(octets_max: u32) -> Self {
        let (octets, streams) = (
            Semaphore::new(octets_max as usize),
            Semaphore::new(PEER_STREAMS_MAX as usize),
        );
        Self {
            octets,
            octets_max,
            streams,
        }
    }

    async fn octets(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let count = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.octets_max);
        self.octets.acquire_many(count).await.ok()
    }
}

/// What is under way for a peer in one class.
#[derive(Default)]
pub(crate) struct Load {
    requests: AtomicU32,
    pub(crate) request_bytes: AtomicU64,
    pub(crate) answer_bytes: AtomicU64,
}

impl Load {
    /// Counts one request for as long as the guard lives; `None` when the bound is reached.
    pub(crate) fn enter(&self) -> Option<Entered<'_>> {
        enter(&self.requests)
    }
}

/// Adds to a counter as long as it lives.
pub(crate) struct Entered<'a>(&'a AtomicU32);

pub(crate) fn enter(counter: &AtomicU32) -> Option<Entered<'_>> {
    let add = |count: u32| (count < PEER_REQUESTS_MAX).then_some(count + 1);
    counter
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)
        .ok()
        .map(|_| Entered(counter))
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Octets counted against a bound as long as it lives.
pub(crate) struct Held<'a>(&'a AtomicU64, u64);

pub(crate) fn hold(counter: &AtomicU64, bytes: u64, max: u64) -> Option<Held<'_>> {
    let add = |held: u64| held.checked_add(bytes).filter(|sum| *sum <= max);
    counter
        .fetch_update(Ordering::AcqRel, Ordering::Acquire, add)
        .ok()
        .map(|_| Held(counter, bytes))
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// How far a request has come; tells "nothing was sent" from "it may have been carried out".
#[derive(Default)]
pub(crate) struct Stage(AtomicU8);

impl Stage {
    const WAITING: u8 = 1;
    const SENT: u8 = 2;

    /// It waits for its share of the connection.
    pub(crate) fn is_waiting(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::WAITING
    }

    /// Some of it may have been sent.
    pub(crate) fn is_sent(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::SENT
    }

    /// Nothing of it is with anybody (any more).
    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Release);
    }

    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Release);
    }
}

/// Why asking over a link gave no answer at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AskError {
    /// The connection was gone before anything was sent.
    Unsent,
    /// The connection or the stream ended; it may have been carried out.
    Lost,
    /// The answer is larger than a frame may be.
    TooLarge(u64),
}

pub(crate) struct Birth {
    pub(crate) node: NodeId,
    pub(crate) boot: u128,
    pub(crate) dialled: bool,
    pub(crate) serial: u64,
    pub(crate) since: UnixMillis,
    pub(crate) observed: String,
}

impl Link {
    pub(crate) fn new(birth: Birth, connection: quinn::Connection) -> Self {
        let Birth {
            node,
            boot,
            dialled,
            serial,
            since,
            observed,
        } = birth;
        Self {
            node,
            boot,
            dialled,
            serial,
            since,
            born: Instant::now(),
            observed,
            connection,
            suspect: AtomicBool::new(false),
            reaches: Mutex::default(),
            // Together 44 MiB, safely below what the peer lets us send unread: quinn renews a window by eighths.
            shares: PerClass {
                bulk: Share::new(10 << 20),
                blob: Share::new(10 << 20),
                store: Share::new(8 << 20),
                log: Share::new(8 << 20),
                control: Share::new(8 << 20),
            },
            load: PerClass::default(),
            malformed_count: AtomicU64::new(0),
        }
    }

    /// Whether requests should go over it.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_open() && !self.suspect.load(Ordering::Acquire)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Says whether the peer is silent; `true` when that is news.
    pub(crate) fn set_suspect(&self, suspect: bool) -> bool {
        self.suspect.swap(suspect, Ordering::AcqRel) != suspect
    }

    /// Datagrams that came from the peer so far.
    pub(crate) fn received_count(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    pub(crate) fn reaches(&self, node: NodeId) -> bool {
        self.reaches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .1
            .contains(&node)
    }

    /// Takes the peer's notice; `true` when it says anything new.
    pub(crate) fn set_reaches(&self, reach: Reach) -> bool {
        let mut known = self.reaches.lock().unwrap_or_else(PoisonError::into_inner);
        if reach.seq <= known.0 {
            return false;
        }
        let nodes = reach.nodes.into_iter().map(NodeId).collect();
        let news = known.1 != nodes;
        *known = (reach.seq, nodes);
        news
    }

    /// Whether anything that the peer asked for is under way.
    pub(crate) fn is_serving(&self) -> bool {
        let classes = [Class::Bulk, Class::Blob, Class::Store, Class::Log, Class::Control];
        classes
            .iter()
            .any(|class| self.load.of(*class).requests.load(Ordering::Acquire) > 0)
    }

    pub(crate) fn close(&self, code: CloseCode) {
        self.connection.close(code.number(), code.reason());
    }

    /// Sends a request and reads its answer. The caller sets the deadline; dropping it resets the streams.
    pub(crate) async fn ask(&self, request: Request, body: Bytes, stage: &Stage) -> Result<(Status, Bytes), AskError> {
        let share = self.shares.of(request.class);
        stage.set(Stage::WAITING);
        let _stream = share.streams.acquire().await.map_err(|_| AskError::Unsent)?;
        let octets = share.octets(body.len()).await.ok_or(AskError::Unsent)?;
        let header = Frame::Request(request).encode().map_err(|_| AskError::Unsent)?;
        let (send, mut recv) = self.connection.open_bi().await.map_err(|_| AskError::Unsent)?;
        let mut send = ResetOnDrop(send);
        stage.set(Stage::SENT);
        let _ = send.0.set_priority(i32::from(frame::class_number(request.class)));
        match write_frame(&mut send.0, &header, body).await {
            // Stopped: the peer answers without having read everything.
            Ok(()) | Err(quinn::WriteError::Stopped(_)) => {}
            Err(_) => return Err(AskError::Lost),
        }
        let acknowledged = send.0.stopped();
        let answer = read_answer(&mut recv);
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // The peer has it all: others may send while it thinks.
            _ = acknowledged => drop(octets),
        }
        answer.await
    }

    /// Sends an answer and waits until the peer has it, so that a slow reader holds only its own share.
    pub(crate) async fn answer(&self, send: quinn::SendStream, class: Class, status: Status, body: Bytes) {
        let mut send = ResetOnDrop(send);
        let Ok(header) = status.encode() else { return };
        let Some(_octets) = self.shares.of(class).octets(body.len()).await else {
            return;
        };
        let _ = send.0.set_priority(i32::from(frame::class_number(class)));
        if write_frame(&mut send.0, &header, body).await.is_ok() {
            let _ = send.0.stopped().await;
        }
    }

    /// Tells the peer which nodes this one reaches.
    pub(crate) async fn send_reach(&self, reach: &Reach) -> Result<(), quinn::ConnectionError> {
        let Ok(header) = Frame::Reach.encode() else {
            return Ok(());
        };
        let Ok(body) = frame::encode_body(reach) else {
            return Ok(());
        };
        let mut send = self.connection.open_uni().await?;
        let _ = send.set_priority(i32::from(frame::class_number(Class::Control)));
        // A failed write means that the connection is going; its owner notices.
        let _ = write_frame(&mut send, &header, body).await;
        Ok(())
    }
}

/// Writes a frame and ends the stream.
pub(crate) async fn write_frame(
    send: &mut quinn::SendStream,
    header: &[u8],
    body: Bytes,
) -> Result<(), quinn::WriteError> {
    send.write_chunk(frame::head(header, body.len())).await?;
    if !body.is_empty() {
        send.write_chunk(body).await?;
    }
    // Already ended or stopped: then there is nothing to end.
    let _ = send.finish();
    Ok(())
}

/// Reads an answer whole.
pub(crate) async fn read_answer(recv: &mut quinn::RecvStream) -> Result<(Status, Bytes), AskError> {
    let (header, bytes) = frame::read_head(recv).await.map_err(|_| AskError::Lost)?;
    let status = Status::decode(&header).map_err(|_| AskError::Lost)?;
    match frame::read_body(recv, bytes, FRAME_BYTES_MAX).await {
        Ok(body) => Ok((status, body)),
        Err(ReadError::TooLarge(bytes)) => Err(AskError::TooLarge(bytes)),
        Err(ReadError::Cut | ReadError::Malformed) => Err(AskError::Lost),
    }
}

/// A stream that is reset, not ended, when it is dropped half-written (quinn would end it).
pub(crate) struct ResetOnDrop(pub(crate) quinn::SendStream);

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        // After everything was sent and acknowledged this does nothing.
        let _ = self.0.reset(CANCELLED.into());
    }
}

/// Why a node closes a connection, as the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseCode {
    Done,
    NotMember,
    Duplicate,
    Shutdown,
    BadHello,
    Malformed,
}

impl CloseCode {
    pub(crate) fn number(self) -> quinn::VarInt {
        quinn::VarInt::from_u32(match self {
            Self::Done => 0,
            Self::NotMember => 1,
            Self::Duplicate => 2,
            Self::Shutdown => 3,
            Self::BadHello => 4,
            Self::Malformed => 5,
        })
    }

    pub(crate) fn reason(self) -> &'static [u8] {
        match self {
            Self::Done => b"done",
            Self::NotMember => b"not a member",
            Self::Duplicate => b"another connection is used",
            Self::Shutdown => b"shutting down",
            Self::BadHello => b"no common version, or no hello",
            Self::Malformed => b"too many malformed frames",
        }
    }

    /// Whether the peer closed for one of the reasons that are nobody's fault.
    pub(crate) fn is_harmless(error: &quinn::ConnectionError) -> bool {
        let quinn::ConnectionError::ApplicationClosed(close) = error else {
            return false;
        };
        [Self::Done, Self::Duplicate, Self::Shutdown]
            .iter()
            .any(|code| close.error_code == code.number())
    }
}

/// How often a link's silence is looked at; silent twice in a row makes it suspect, well within the idle time-out.
pub(crate) const SILENCE_TICK: Duration = Duration::from_millis(500);
/// Code of a stream whose asker does not wait any more.
pub(crate) const CANCELLED: u32 = 1;
/// Code of a stream that was no frame of ours.
pub(crate) const GARBAGE: u32 = 2;
