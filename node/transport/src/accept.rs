//! Accepting: handshakes under way are bounded, addresses prove themselves by Retry under load (RFC 9000 8.1.2), and only
//! members get further than the handshake; holders of a join token get one request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use core_types::NodeId;
use core_types::limits::HANDSHAKES_MAX;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Incoming};
use rustls_pki_types::CertificateDer;
use tokio::time::timeout;

use crate::dial::{HELLO_TIMEOUT, has_common_version, hello};
use crate::frame::{self, Frame, Hello, NOTICE_BYTES_MAX, Status};
use crate::identity::{CertificateName, Presented};
use crate::link::{CloseCode, write_frame};
use crate::refusals::explain;
use crate::serve::{run_link, serve_joiner};
use crate::tls::ALPN;
use crate::transport::Inner;

/// Accepts connections until the endpoint is closed.
pub(crate) async fn accept_connections(inner: Arc<Inner>) {
    let pending = Arc::new(AtomicUsize::new(0));
    while let Some(incoming) = inner.endpoint.accept().await {
        let count = pending.load(Ordering::Acquire);
        if !incoming.remote_address_validated() && count >= inner.handshakes_retry {
            // May fail only for validated addresses.
            let _ = incoming.retry();
            continue;
        }
        if count >= HANDSHAKES_MAX {
            incoming.ignore();
            continue;
        }
        let guard = Pending::new(&pending);
        let inner = Arc::clone(&inner);
        tokio::spawn(async move { handshake(&inner, incoming, guard).await });
    }
}

/// Counts a handshake as long as it is under way.
struct Pending(Arc<AtomicUsize>);

impl Pending {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn handshake(inner: &Arc<Inner>, incoming: Incoming, pending: Pending) {
    let address = incoming.remote_address();
    let refused = |reason: &str| inner.refusals.note(address, reason);
    let Ok(connecting) = incoming.accept() else { return };
    let connection = match timeout(HANDSHAKE_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error @ (quinn::ConnectionError::TransportError(_) | quinn::ConnectionError::ConnectionClosed(_)))) => {
            // Wrong authority, expired, no certificate, wrong protocol, spent token: rustls says which.
            return refused(&explain(&error));
        }
        Ok(Err(_)) | Err(_) => return,
    };
    if protocol(&connection).as_deref() != Some(ALPN) {
        connection.close(0_u32.into(), b"wrong protocol");
        return refused("wrong protocol");
    }
    let Some(Presented {
        name: Some(name),
        key: Some(key),
        ..
    }) = presented(&connection)
    else {
        connection.close(0_u32.into(), b"no identity");
        return refused("no identity in the certificate");
    };
    match name {
        CertificateName::Join { .. } => {
            drop(pending);
            serve_joiner(inner, &connection, key).await;
            connection.close(0_u32.into(), b"done");
        }
        CertificateName::Node { node, .. }
            if node != inner.node && inner.peers_source.member_key(node) == Some(key) =>
        {
            welcome(inner, node, connection, pending).await;
        }
        CertificateName::Node { .. } | CertificateName::Authority { .. } => {
            close(&connection, CloseCode::NotMember);
            refused(&format!("{name} is not a member"));
        }
    }
}

async fn welcome(inner: &Arc<Inner>, node: NodeId, connection: Connection, pending: Pending) {
    let Ok(Some(theirs)) = timeout(HELLO_TIMEOUT, exchange_hello(inner, &connection)).await else {
        if connection.close_reason().is_none() {
            close(&connection, CloseCode::BadHello);
            inner
                .refusals
                .note(connection.remote_address(), "no hello, or no common version");
        }
        return;
    };
    drop(pending);
    let Some(peer) = inner.peer(node) else {
        return close(&connection, CloseCode::Shutdown);
    };
    let link = inner.new_link(node, theirs, false, connection);
    inner.install(&peer, &link);
    run_link(inner, &link).await;
    inner.uninstall(&peer, &link);
    peer.wake.notify_one();
}

async fn exchange_hello(inner: &Inner, connection: &Connection) -> Option<Hello> {
    let (mut send, mut recv) = connection.accept_bi().await.ok()?;
    let (header, bytes) = frame::read_head(&mut recv).await.ok()?;
    if Frame::decode(&header) != Ok(Frame::Hello) {
        return None;
    }
    let body = frame::read_body(&mut recv, bytes, NOTICE_BYTES_MAX).await.ok()?;
    let theirs = Hello::decode(&body).ok().filter(has_common_version)?;
    let ours = frame::encode_body(&hello(inner, connection)).ok()?;
    write_frame(&mut send, &Status::Done.encode().ok()?, ours).await.ok()?;
    Some(theirs)
}

fn close(connection: &Connection, code: CloseCode) {
    connection.close(code.number(), code.reason());
}

fn protocol(connection: &Connection) -> Option<Vec<u8>> {
    connection.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// What the peer's certificate says; the handshake has checked that it may.
pub(crate) fn presented(connection: &Connection) -> Option<Presented> {
    let chain = connection
        .peer_identity()?
        .downcast::<Vec<CertificateDer<'static>>>()
        .ok()?;
    Presented::parse(chain.first()?).ok()
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
