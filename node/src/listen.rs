//! Binding the sockets for mail programs and handing their connections to the servers.

use std::net::SocketAddr;
use std::sync::Arc;

use smtp::Role;
use tokio::task::JoinSet;
use wire::{Connection, Limiter, Listening, ServerTls, serve_listener};

use crate::config::PlainLogin;
use crate::start::Parts;

/// Why a listener was not started.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be bound.
    #[error("{service}: {address}: {error}")]
    Bind {
        /// Which service.
        service: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// There is no certificate.
    #[error("certificate: {0}")]
    Certificate(#[from] crate::tls::CertificateError),
    /// The admin socket cannot be made.
    #[error("admin socket: {0}")]
    AdminSocket(std::io::Error),
}

const POP3_BUSY: &[u8] = b"-ERR [SYS/TEMP] Too many connections, try again later\r\n";

/// Binds everything that the configuration names.
pub(crate) async fn bind_all(
    parts: &Arc<Parts>,
    tls: &Arc<ServerTls>,
    listeners: &mut JoinSet<()>,
) -> Result<(), ListenError> {
    let bind = Binding {
        parts: Arc::clone(parts),
        tls: Arc::clone(tls),
        limiter: Limiter::default(),
    };
    let listen = &parts.config.listen;
    let hostname: Arc<str> = parts.config.hostname.as_str().into();
    let roles = [
        ("smtp", listen.smtp, false, Role::Relay),
        ("submission", listen.submission, false, Role::Submission),
        ("submissions", listen.submissions, true, Role::Submission),
        ("lmtp", listen.lmtp, false, Role::Lmtp),
    ];
    for (service, address, implicit_tls, role) in roles {
        let context = smtp::Context {
            store: parts.store.clone(),
            hostname: Arc::clone(&hostname),
            role,
        };
        let serve = move |connection: Connection| smtp::serve(connection, context.clone());
        bind.serve(service, address, implicit_tls, smtp::BUSY, serve, listeners)
            .await?;
    }
    let imap = imap::Context::new(parts.store.clone());
    for (service, address, implicit_tls) in [("imap", listen.imap, false), ("imaps", listen.imaps, true)] {
        let context = imap.clone();
        let serve = move |connection: Connection| imap::serve(connection, context.clone());
        bind.serve(service, address, implicit_tls, imap::BUSY, serve, listeners)
            .await?;
    }
    let pop3 = pop3::Context::new(parts.store.clone(), &parts.config.hostname);
    for (service, address, implicit_tls) in [("pop3", listen.pop3, false), ("pop3s", listen.pop3s, true)] {
        let context = pop3.clone();
        let serve = move |connection: Connection| pop3::serve(connection, context.clone());
        bind.serve(service, address, implicit_tls, POP3_BUSY, serve, listeners)
            .await?;
    }
    Ok(())
}

struct Binding {
    parts: Arc<Parts>,
    tls: Arc<ServerTls>,
    limiter: Limiter,
}

impl Binding {
    async fn serve<F: Future<Output = ()> + Send + 'static>(
        &self,
        service: &'static str,
        address: Option<SocketAddr>,
        implicit_tls: bool,
        busy: &'static [u8],
        serve: impl Fn(Connection) -> F + Send + Sync + 'static,
        listeners: &mut JoinSet<()>,
    ) -> Result<(), ListenError> {
        let Some(address) = address else { return Ok(()) };
        let listener = self
            .parts
            .network
            .listen(address)
            .await
            .map_err(|error| ListenError::Bind {
                service,
                address,
                error,
            })?;
        tracing::debug!(service, %address, "listening");
        let plain_login = match self.parts.config.plain_login {
            PlainLogin::Loopback => wire::PlainLogin::Loopback,
            PlainLogin::Never => wire::PlainLogin::Never,
            PlainLogin::Always => wire::PlainLogin::Always,
        };
        let listening = Listening {
            tls: Some(Arc::clone(&self.tls)),
            implicit_tls,
            plain_login,
        };
        listeners.spawn(serve_listener(
            listener,
            listening,
            self.limiter.listener(),
            busy,
            self.parts.shutdown.clone(),
            serve,
        ));
        Ok(())
    }
}
