//! Accepting connections: counting them, shaking hands where TLS begins at once, and handing them to a server.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::{BoxStream, Connection, Limiter, Listening, Shutdown};

/// A bound socket, or a simulated one.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The next connection.
    ///
    /// # Errors
    /// As the system reports them; the listener may be used on.
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)>;
}

#[async_trait]
impl Listener for tokio::net::TcpListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        // Small answers are not to wait for the acknowledgement of earlier ones.
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer))
    }
}

#[async_trait]
impl Listener for Box<dyn Listener> {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        self.as_mut().accept().await
    }
}

/// Accepts until the node stops, then waits for the connections under way, a few seconds at most.
///
/// `busy` is said to a client for whom there is no room (`421 ...`, `* BYE ...`), in clear listeners only.
pub async fn serve_listener<F>(
    mut listener: impl Listener,
    listening: Listening,
    limiter: Limiter,
    busy: &'static [u8],
    shutdown: Shutdown,
    serve: impl Fn(Connection) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let serve = Arc::new(serve);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.stopped() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (mut stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or the peer is gone already: the next attempt may do better.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(permit) = limiter.admit(peer.ip()) else {
            tracing::info!(%peer, "turned away: too many connections");
            if !listening.implicit_tls {
                let _ = tokio::time::timeout(BUSY_TIMEOUT, stream.write_all(busy)).await;
            }
            continue;
        };
        let connection = Connection {
            stream,
            peer,
            secure: false,
            tls: listening.tls.clone(),
            plain_login: listening.plain_login.permits(peer.ip()),
            shutdown: shutdown.clone(),
            permit,
        };
        let serve = Arc::clone(&serve);
        let implicit_tls = listening.implicit_tls;
        connections.spawn(async move {
            match begin(connection, implicit_tls).await {
                Ok(connection) => serve(connection).await,
                Err(error) => tracing::info!(%peer, %error, "TLS failed"),
            }
        });
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_TIME, drained).await.is_err() {
        connections.abort_all();
    }
}

async fn begin(mut connection: Connection, implicit_tls: bool) -> Result<Connection, crate::TlsError> {
    if implicit_tls && let Some(tls) = connection.tls.take() {
        connection.stream = tls.accept(connection.stream).await?;
        connection.secure = true;
    }
    Ok(connection)
}

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client that is turned away may take to be told.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);
/// How long connections under way may take to end when the node stops.
const DRAIN_TIME: Duration = Duration::from_secs(5);
