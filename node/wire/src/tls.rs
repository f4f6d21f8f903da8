//! TLS towards clients (rustls with ring; TLS 1.2 and 1.3). No session is resumed: tickets would have to be bound to
//! their listener, and a full handshake is cheap for connections that live as long as mail's do.

use std::sync::Arc;

use core_types::limits::TLS_HANDSHAKE_TIMEOUT;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::BoxStream;

/// A certificate with its key, ready to accept.
pub struct ServerTls {
    acceptor: tokio_rustls::TlsAcceptor,
}

/// Why TLS failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate or the key cannot be used.
    #[error("certificate or key: {0}")]
    Certificate(String),
    /// The handshake failed.
    #[error("handshake: {0}")]
    Handshake(#[from] std::io::Error),
    /// The handshake took too long.
    #[error("the handshake took longer than {TLS_HANDSHAKE_TIMEOUT:?}")]
    Timeout,
}

impl ServerTls {
    /// Of a chain (the server's certificate first) and its key, both PEM.
    ///
    /// # Errors
    /// [`TlsError::Certificate`].
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let wrong = |error: &dyn std::fmt::Display| TlsError::Certificate(error.to_string());
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(&error))?;
        if chain.is_empty() {
            return Err(TlsError::Certificate("there is no certificate in the file".to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| wrong(&error))?;
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self {
            acceptor: tokio_rustls::TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// [`TlsError`]; the connection is to be closed without another word.
    pub async fn accept(&self, stream: BoxStream) -> Result<BoxStream, TlsError> {
        match tokio::time::timeout(TLS_HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(TlsError::Timeout),
        }
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerTls")
    }
}
