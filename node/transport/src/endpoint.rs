//! The QUIC endpoint: its socket, time-outs and windows.

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use core_types::limits::{HANDSHAKES_MAX, PEER_STREAMS_MAX};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AsyncUdpSocket, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, Runtime, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};

use crate::link::{SEND_WINDOW, STREAM_WINDOW};

/// Where datagrams come and go.
pub enum Socket {
    /// A bound socket of the operating system.
    Std(UdpSocket),
    /// Another one, with what runs it: a simulated network.
    Abstract(Arc<dyn AsyncUdpSocket>, Arc<dyn Runtime>),
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Std(socket) => f.debug_tuple("Std").field(socket).finish(),
            Self::Abstract(socket, _) => f.debug_tuple("Abstract").field(socket).finish(),
        }
    }
}

/// Settings that only simulations and tests change.
#[derive(Clone, Debug, Default)]
pub struct Tuning {
    /// Octets of a datagram, fixed, without discovery; `None` finds out.
    pub mtu: Option<u16>,
    /// Handshakes under way from which new addresses get a Retry; `None` takes
    /// [`HANDSHAKES_RETRY`](core_types::limits::HANDSHAKES_RETRY).
    pub handshakes_retry: Option<usize>,
}

pub(crate) fn open(socket: Socket, server: Option<ServerConfig>) -> io::Result<Endpoint> {
    let config = EndpointConfig::default();
    match socket {
        Socket::Std(socket) => Endpoint::new(config, server, socket, Arc::new(TokioRuntime)),
        Socket::Abstract(socket, runtime) => Endpoint::new_with_abstract_socket(config, server, socket, runtime),
    }
}

pub(crate) fn server_config(tls: Arc<QuicServerConfig>, tuning: &Tuning) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(tls);
    config
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_MAX);
    config.transport_config(Arc::new(transport_config(tuning)));
    config
}

pub(crate) fn client_config(tls: Arc<QuicClientConfig>, tuning: &Tuning) -> ClientConfig {
    let mut config = ClientConfig::new(tls);
    config.transport_config(Arc::new(transport_config(tuning)));
    config
}

fn transport_config(tuning: &Tuning) -> TransportConfig {
    let mut config = TransportConfig::default();
    // A restarted peer is noticed by time only: small keep-alives do not trigger a stateless reset everywhere.
    config.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MILLIS))));
    config.keep_alive_interval(Some(KEEP_ALIVE));
    config.max_concurrent_bidi_streams(VarInt::from_u32(PEER_STREAMS_MAX * CLASSES + 8));
    config.max_concurrent_uni_streams(VarInt::from_u32(8));
    config.stream_receive_window(VarInt::from_u32(STREAM_WINDOW));
    config.receive_window(VarInt::from_u32(SEND_WINDOW));
    config.send_window(u64::from(SEND_WINDOW));
    config.datagram_receive_buffer_size(None);
    if let Some(mtu) = tuning.mtu {
        config
            .initial_mtu(mtu)
            .min_mtu(mtu.min(1200))
            .mtu_discovery_config(None);
    }
    config
}

const IDLE_TIMEOUT_MILLIS: u32 = 2000;
const KEEP_ALIVE: Duration = Duration::from_millis(500);
const CLASSES: u32 = 5;
/// Octets of all handshakes that nobody has looked at yet.
const INCOMING_BYTES_MAX: u64 = 16 * 1024 * 1024;
