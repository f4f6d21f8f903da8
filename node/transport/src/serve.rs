//! What happens with the streams that a peer opens: requests are admitted, carried out or handed on, and answered.
//!
//! Every stream is read at once or refused at once: one left unread would hold a part of the connection's window and
//! could in the end stop the urgent ones. A service is never cut off half-way because its asker went away.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use core_types::NodeId;
use core_types::limits::{FRAME_BYTES_MAX, JOIN_BYTES_MAX, PEER_CLASS_BYTES_MAX};
use tokio::time::{sleep, timeout};

use crate::frame::{self, Frame, FrameError, Reach, ReadError, Request, Route, Status};
use crate::link::{AskError, CloseCode, GARBAGE, Link, SILENCE_TICK, Stage, enter, hold, write_frame};
use crate::rpc::{Class, ServiceId};
use crate::transport::Inner;

/// Works a link until it is closed.
pub(crate) async fn run_link(inner: &Arc<Inner>, link: &Arc<Link>) {
    tokio::select! {
        biased;
        _ = link.connection.closed() => {}
        () = accept_requests(inner, link) => {}
        () = accept_notices(inner, link) => {}
        () = tell_reach(inner, link) => {}
        () = watch_silence(inner, link) => {}
    }
}

async fn accept_requests(inner: &Arc<Inner>, link: &Arc<Link>) {
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        let (inner, link) = (Arc::clone(inner), Arc::clone(link));
        tokio::spawn(async move { serve_stream(&inner, &link, send, recv).await });
    }
}

async fn accept_notices(inner: &Arc<Inner>, link: &Arc<Link>) {
    while let Ok(mut recv) = link.connection.accept_uni().await {
        let reach = timeout(READ_TIMEOUT, read_notice(&mut recv)).await;
        match reach {
            Ok(Ok(Some(reach))) => {
                if link.set_reaches(reach) {
                    inner.bump();
                }
            }
            // A newer peer's other notices are not for us.
            Ok(Ok(None)) => {}
            Ok(Err(())) | Err(_) => mark_malformed(inner, link, "malformed notice"),
        }
    }
    pending::<()>().await;
}

async fn read_notice(recv: &mut quinn::RecvStream) -> Result<Option<Reach>, ()> {
    let (header, bytes) = frame::read_head(recv).await.map_err(|_| ())?;
    match Frame::decode(&header) {
        Ok(Frame::Reach) => {}
        Ok(_) => return Err(()),
        Err(FrameError::Unsupported(_)) => return Ok(None),
        Err(FrameError::Malformed(_)) => return Err(()),
    }
    let body = frame::read_body(recv, bytes, frame::NOTICE_BYTES_MAX)
        .await
        .map_err(|_| ())?;
    Reach::decode(&body).map(Some).map_err(|_| ())
}

async fn tell_reach(inner: &Arc<Inner>, link: &Arc<Link>) {
    let mut reach = inner.reach.subscribe();
    for seq in 1.. {
        let nodes: Vec<u64> = reach.borrow_and_update().iter().map(|node| node.0).collect();
        if link.send_reach(&Reach { seq, nodes }).await.is_err() || reach.changed().await.is_err() {
            break;
        }
    }
    pending::<()>().await;
}

/// Keep-alives bring something every half second; a peer that is silent for two looks is gone or cut off.
async fn watch_silence(inner: &Arc<Inner>, link: &Arc<Link>) {
    let (mut received, mut silent_ticks) = (0, 0_u32);
    loop {
        sleep(SILENCE_TICK).await;
        let now = link.received_count();
        silent_ticks = if now == received {
            silent_ticks.saturating_add(1)
        } else {
            0
        };
        received = now;
        // One silent look alone changes nothing: a request without an answer may have made the link suspect before.
        if silent_ticks != 1 && link.set_suspect(silent_ticks >= 2) {
            inner.links_changed();
        }
    }
}

async fn serve_stream(inner: &Arc<Inner>, link: &Arc<Link>, send: quinn::SendStream, mut recv: quinn::RecvStream) {
    let Ok(head) = timeout(READ_TIMEOUT, frame::read_head(&mut recv)).await else {
        return;
    };
    let (header, bytes) = match head {
        Ok(head) => head,
        // Cancelled by the asker, or lost with the connection.
        Err(ReadError::Cut) => return,
        Err(ReadError::Malformed | ReadError::TooLarge(_)) => {
            mark_malformed(inner, link, "malformed frame");
            return reset(send, recv);
        }
    };
    let request = match Frame::decode(&header) {
        Ok(Frame::Request(request)) => request,
        Err(FrameError::Unsupported(what)) => {
            let _ = recv.stop(GARBAGE.into());
            return link
                .answer(send, Class::Control, Status::Unsupported, what.into())
                .await;
        }
        Ok(Frame::Hello | Frame::Reach) | Err(FrameError::Malformed(_)) => {
            mark_malformed(inner, link, "malformed frame");
            return reset(send, recv);
        }
    };
    let _ = send.set_priority(i32::from(frame::class_number(request.class)));
    let load = link.load.of(request.class);
    let (status, body) = {
        let admitted = load.enter().and_then(|entered| {
            let held = hold(&load.request_bytes, bytes.min(FRAME_BYTES_MAX), PEER_CLASS_BYTES_MAX)?;
            Some((entered, held))
        });
        let Some(_admitted) = admitted.filter(|_| !inner.is_closing()) else {
            let _ = recv.stop(GARBAGE.into());
            return link.answer(send, request.class, Status::Busy, Bytes::new()).await;
        };
        match timeout(READ_TIMEOUT, frame::read_body(&mut recv, bytes, FRAME_BYTES_MAX)).await {
            Ok(Ok(body)) => carry_out(inner, link, request, body).await,
            Ok(Err(ReadError::TooLarge(bytes))) => {
                let _ = recv.stop(GARBAGE.into());
                (Status::TooLarge, Bytes::copy_from_slice(&bytes.to_le_bytes()))
            }
            Ok(Err(ReadError::Cut | ReadError::Malformed)) | Err(_) => return,
        }
    };
    let Some(_held) = hold(&load.answer_bytes, body.len() as u64, PEER_CLASS_BYTES_MAX) else {
        return link.answer(send, request.class, Status::Busy, Bytes::new()).await;
    };
    // The asker waits no longer than its time-out; a peer that never reads does not keep its answers here.
    let patience = request.timeout.clamp(ANSWER_TIMEOUT_MIN, ANSWER_TIMEOUT_MAX);
    let _ = timeout(patience, link.answer(send, request.class, status, body)).await;
}

async fn carry_out(inner: &Arc<Inner>, link: &Link, request: Request, body: Bytes) -> (Status, Bytes) {
    let from = match request.route {
        Route::Direct => link.node,
        Route::Relay(to) => return hand_on(inner, link.node, to, request, body).await,
        // The relay is a member, or it would have no connection; it is trusted with the name of another member.
        Route::Relayed(from) if inner.peers_source.member_key(from).is_some() && from != inner.node => from,
        Route::Relayed(from) => return (Status::Refused, format!("node {from} is not a member").into()),
    };
    serve_here(inner, from, request.service, request.timeout, body).await
}

/// Asks a service of this node.
pub(crate) async fn serve_here(
    inner: &Inner,
    from: NodeId,
    service: ServiceId,
    patience: Duration,
    body: Bytes,
) -> (Status, Bytes) {
    let Some(handler) = inner.service(service) else {
        return (Status::Unsupported, format!("service {}", service.0).into());
    };
    // Beyond the asker's time only a service that hangs is cut off, so that it does not hold its place for ever.
    match timeout(patience.saturating_add(SERVICE_GRACE), handler.serve(from, body)).await {
        Ok(Ok(answer)) if answer.len() as u64 > FRAME_BYTES_MAX => (
            Status::TooLarge,
            Bytes::copy_from_slice(&(answer.len() as u64).to_le_bytes()),
        ),
        Ok(Ok(answer)) => (Status::Done, answer),
        Ok(Err(refused)) => {
            let reason: String = refused.0.chars().take(REASON_CHARS_MAX).collect();
            (Status::Refused, reason.into())
        }
        Err(_) => (Status::NoAnswer, Bytes::new()),
    }
}

/// Hands a request on to the node that it is for: one hop only, over a connection of our own.
async fn hand_on(inner: &Arc<Inner>, from: NodeId, to: NodeId, request: Request, body: Bytes) -> (Status, Bytes) {
    let Some((peer, link)) = inner
        .known_peer(to)
        .and_then(|peer| peer.usable().map(|link| (peer, link)))
    else {
        return (Status::Unreachable, Bytes::new());
    };
    let Some(_entered) = enter(peer.calls.of(request.class)) else {
        return (Status::Busy, Bytes::new());
    };
    let stage = Stage::default();
    let relayed = Request {
        route: Route::Relayed(from),
        ..request
    };
    match timeout(request.timeout, link.ask(relayed, body, &stage)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(AskError::Unsent)) => (Status::Unreachable, Bytes::new()),
        Ok(Err(AskError::TooLarge(bytes))) => (Status::TooLarge, Bytes::copy_from_slice(&bytes.to_le_bytes())),
        Err(_) if stage.is_waiting() => (Status::Busy, Bytes::new()),
        Ok(Err(AskError::Lost)) | Err(_) => (Status::NoAnswer, Bytes::new()),
    }
}

/// Serves the holder of a join token: one request, and only to join.
pub(crate) async fn serve_joiner(inner: &Inner, connection: &quinn::Connection, token_key: [u8; 32]) {
    let Ok(Ok((mut send, mut recv))) = timeout(READ_TIMEOUT, connection.accept_bi()).await else {
        return;
    };
    let answer = timeout(READ_TIMEOUT, async {
        let Ok((header, bytes)) = frame::read_head(&mut recv).await else {
            return None;
        };
        match Frame::decode(&header) {
            Ok(Frame::Request(request)) if request.service == ServiceId::JOIN && request.route == Route::Direct => {
                let body = frame::read_body(&mut recv, bytes, JOIN_BYTES_MAX).await.ok()?;
                let Some(service) = inner.join_service() else {
                    return Some((Status::Unsupported, Bytes::from_static(b"this node takes no joiners")));
                };
                Some(match service.join(token_key, body).await {
                    Ok(answer) => (Status::Done, answer),
                    Err(refused) => (Status::Refused, refused.0.into()),
                })
            }
            Ok(_) => Some((Status::Refused, Bytes::from_static(b"a join token allows joining only"))),
            Err(FrameError::Unsupported(what)) => Some((Status::Unsupported, what.into())),
            Err(FrameError::Malformed(_)) => None,
        }
    });
    let Ok(Some((status, body))) = answer.await else {
        return reset(send, recv);
    };
    let Ok(header) = status.encode() else { return };
    let _ = timeout(READ_TIMEOUT, async {
        if write_frame(&mut send, &header, body).await.is_ok() {
            let _ = send.stopped().await;
        }
    })
    .await;
}

fn reset(mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
    // Both may be closed already.
    let _ = send.reset(GARBAGE.into());
    let _ = recv.stop(GARBAGE.into());
}

fn mark_malformed(inner: &Inner, link: &Link, what: &str) {
    let count = link.malformed_count.fetch_add(1, Ordering::AcqRel).saturating_add(1);
    inner.refusals.note(link.connection.remote_address(), what);
    if count >= MALFORMED_MAX {
        link.close(CloseCode::Malformed);
    }
}

/// How long a frame may take from its first octet to its last.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT_MIN: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT_MAX: Duration = Duration::from_secs(60);
const SERVICE_GRACE: Duration = Duration::from_secs(30);
const REASON_CHARS_MAX: usize = 1000;
/// Malformed frames of one connection at which it is closed.
const MALFORMED_MAX: u64 = 64;
