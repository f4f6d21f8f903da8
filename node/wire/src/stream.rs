//! One connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Permit, ServerTls, Shutdown};

/// What bytes come from and go to.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// Any stream.
pub type BoxStream = Box<dyn Stream>;

/// How the connections of one listener are to be treated.
#[derive(Clone)]
pub struct Listening {
    /// The certificate, for implicit TLS and for STARTTLS. Without it neither is offered.
    pub tls: Option<Arc<ServerTls>>,
    /// TLS begins with the first byte.
    pub implicit_tls: bool,
    /// Logging in without TLS is offered.
    pub plain_login: PlainLogin,
}

/// To whom logging in without TLS is offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PlainLogin {
    /// To clients on this machine.
    #[default]
    Loopback,
    /// To nobody.
    Never,
    /// To everybody.
    Always,
}

impl PlainLogin {
    /// Whether this client may.
    #[must_use]
    pub fn permits(self, peer: IpAddr) -> bool {
        match self {
            Self::Loopback => peer.to_canonical().is_loopback(),
            Self::Never => false,
            Self::Always => true,
        }
    }
}

/// A client's connection, with implicit TLS done.
pub struct Connection {
    /// Its bytes.
    pub stream: BoxStream,
    /// The client.
    pub peer: SocketAddr,
    /// Whether TLS is on.
    pub secure: bool,
    /// For STARTTLS; `None` where it is not offered, or TLS is on.
    pub tls: Option<Arc<ServerTls>>,
    /// Whether logging in is offered before TLS.
    pub plain_login: bool,
    /// Ends when the node stops.
    pub shutdown: Shutdown,
    /// Counts the connection as long as it is held.
    pub permit: Permit,
}
