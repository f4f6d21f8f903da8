//! Dialling: one task for each node that somebody wants to reach. It tries the address that the directory has now, backs
//! off from 50 ms to 2 s with jitter, and works the connection once it stands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError};
use tokio::time::{sleep, timeout};

use crate::frame::{self, FRAME_VERSION, Frame, Hello, Status};
use crate::link::{CloseCode, Link, read_answer, write_frame};
use crate::peer::Peer;
use crate::refusals::explain;
use crate::serve::run_link;
use crate::tls;
use crate::transport::Inner;

/// Keeps a node connected for as long as it is wanted. Ends when the transport shuts down.
pub(crate) async fn keep_connected(inner: Arc<Inner>, peer: Arc<Peer>) {
    let mut failures = 0_u32;
    while !inner.is_closing() {
        if !peer.is_wanted() || peer.links().iter().any(|link| link.is_open()) {
            peer.wake.notified().await;
            continue;
        }
        peer.change_dial(|dial| dial.dialling = true);
        let link = match inner.peers_source.address(peer.node) {
            Some(address) => dial(&inner, &peer, &address).await,
            None => None,
        };
        if let Some(link) = &link {
            inner.install(&peer, link);
        }
        // Not before it is installed: a waiting request takes an attempt that ended without a link as failed.
        peer.change_dial(|dial| {
            dial.dialling = false;
            dial.attempts = dial.attempts.wrapping_add(1);
            dial.failures = if link.is_some() {
                0
            } else {
                dial.failures.saturating_add(1)
            };
        });
        inner.bump();
        failures = failures.saturating_add(1);
        if let Some(link) = link {
            run_link(&inner, &link).await;
            inner.uninstall(&peer, &link);
            if link.born.elapsed() >= SHORT_LIFE {
                failures = 0;
                continue;
            }
        }
        tokio::select! {
            biased;
            // The directory or the wish changed.
            () = peer.wake.notified() => {}
            () = sleep(back_off(failures, inner.entropy.below(1 << 16))) => {}
        }
    }
}

/// 50 ms, doubled with each failure up to 2 s, of which a random part between a half and all is waited.
fn back_off(failures: u32, random: u64) -> Duration {
    let step = BACK_OFF_MIN
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(BACK_OFF_MAX);
    let half = step / 2;
    half + half.mul_f64((random % 1024) as f64 / 1024.0)
}

async fn dial(inner: &Arc<Inner>, peer: &Peer, address: &str) -> Option<Arc<Link>> {
    let addresses = match timeout(RESOLVE_TIMEOUT, inner.resolver.resolve(address)).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            tracing::debug!(node = %peer.node, address, %error, "address not found");
            return None;
        }
        Err(_) => return None,
    };
    for address in addresses {
        match connect(inner, peer, address).await {
            Ok(link) => return Some(link),
            Err(Failure::Stranger(reason)) => {
                peer.change_dial(|dial| dial.is_stranger = true);
                inner.refusals.note(address, &reason);
            }
            // Silence and a refused port are daily business; what the peer's certificate or membership says is not.
            Err(Failure::Quiet(reason)) => tracing::debug!(node = %peer.node, %address, reason, "not connected"),
            Err(Failure::Refusal(reason)) => inner.refusals.note(address, &reason),
        }
        if inner.is_closing() {
            break;
        }
    }
    None
}

enum Failure {
    Quiet(String),
    Refusal(String),
    /// The peer says that this node is no member.
    Stranger(String),
}

impl From<ConnectionError> for Failure {
    fn from(error: ConnectionError) -> Self {
        match &error {
            ConnectionError::TransportError(_) | ConnectionError::ConnectionClosed(_) => Self::Refusal(explain(&error)),
            ConnectionError::ApplicationClosed(close) if close.error_code == CloseCode::NotMember.number() => {
                Self::Stranger(error.to_string())
            }
            ConnectionError::ApplicationClosed(_) if !CloseCode::is_harmless(&error) => {
                Self::Refusal(error.to_string())
            }
            _ => Self::Quiet(error.to_string()),
        }
    }
}

async fn connect(inner: &Arc<Inner>, peer: &Peer, address: SocketAddr) -> Result<Arc<Link>, Failure> {
    let connecting = inner
        .endpoint
        .connect_with(inner.client_config.clone(), address, &tls::server_name(peer.node))
        .map_err(|error| Failure::Quiet(error.to_string()))?;
    let connection = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connected) => connected?,
        Err(_) => return Err(Failure::Quiet("timed out".to_owned())),
    };
    // The name in the certificate was checked in the handshake; the key makes it the member.
    let shown = crate::accept::presented(&connection);
    let member_key = inner.peers_source.member_key(peer.node);
    if member_key.is_none() || shown.and_then(|shown| shown.key) != member_key {
        connection.close(0_u32.into(), b"not the member's key");
        return Err(Failure::Refusal("not the member's key".to_owned()));
    }
    let Ok(Some(answer)) = timeout(HELLO_TIMEOUT, say_hello(inner, &connection)).await else {
        if let Some(reason) = connection.close_reason() {
            return Err(reason.into());
        }
        connection.close(CloseCode::BadHello.number(), CloseCode::BadHello.reason());
        return Err(Failure::Refusal("no hello in time, or no common version".to_owned()));
    };
    Ok(inner.new_link(peer.node, answer, true, connection))
}

async fn say_hello(inner: &Inner, connection: &Connection) -> Option<Hello> {
    let hello = hello(inner, connection);
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    let header = Frame::Hello.encode().ok()?;
    write_frame(&mut send, &header, frame::encode_body(&hello).ok()?)
        .await
        .ok()?;
    let (status, body): (Status, Bytes) = read_answer(&mut recv).await.ok()?;
    let hello = Hello::decode(&body).ok().filter(|_| status == Status::Done)?;
    has_common_version(&hello).then_some(hello)
}

/// What this node says of itself.
pub(crate) fn hello(inner: &Inner, connection: &Connection) -> Hello {
    Hello {
        boot: inner.boot,
        version_min: FRAME_VERSION,
        version_max: FRAME_VERSION,
        observed: connection.remote_address().to_string(),
    }
}

/// Whether both nodes read some version of frames.
pub(crate) fn has_common_version(hello: &Hello) -> bool {
    (hello.version_min..=hello.version_max).contains(&FRAME_VERSION)
}

const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// A connection that ends earlier was no success.
const SHORT_LIFE: Duration = Duration::from_secs(1);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_grows_from_50_ms_to_2_s_and_varies() {
        for random in [0, 17, 1023, u64::MAX] {
            for failures in 1..40 {
                let wait = back_off(failures, random);
                assert!(wait >= BACK_OFF_MIN / 2 && wait <= BACK_OFF_MAX, "{wait:?}");
            }
            assert!(back_off(1, random) <= BACK_OFF_MIN);
            assert!(back_off(9, random) >= BACK_OFF_MAX / 2);
        }
        assert_ne!(back_off(5, 1), back_off(5, 1000));
    }
}
