//! turmoil's network as a node sees it: QUIC over its UDP, mail programs over its TCP.
//!
//! Loss, duplication and one-way silence are made here, datagram by datagram, from the seed: turmoil's own fail rate clears
//! everything in flight on a link.

use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use core_types::Entropy;
use futures_util::FutureExt;
use node::machine::{AnyListener, Network};
use platform::SeededEntropy;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use transport::{Resolver, Socket, Tuning};
use wire::BoxStream;

use crate::trace::Trace;

/// Octets of a datagram. Larger ones make a run faster, and are as good a test.
const MTU: u16 = 4000;

/// What one node's network does to its datagrams. Rates are in thousandths.
#[derive(Debug, Default)]
pub struct Weather {
    /// Datagrams that are lost.
    pub loss: AtomicU32,
    /// Datagrams that arrive twice.
    pub duplicates: AtomicU32,
}

/// The network of one node.
pub struct SimNetwork {
    /// The node's name.
    pub name: String,
    /// Faults.
    pub weather: Arc<Weather>,
    /// Where datagrams are noted.
    pub trace: Trace,
    /// Decides which datagrams are hit.
    pub seed: u64,
}

#[async_trait]
impl Network for SimNetwork {
    fn cluster_socket(&self, address: SocketAddr) -> io::Result<Socket> {
        let local = SocketAddr::from(([0, 0, 0, 0], address.port()));
        let socket = turmoil::net::UdpSocket::bind(local)
            .now_or_never()
            .ok_or_else(|| io::Error::other("binding waits"))??;
        let udp = SimUdp {
            socket: Arc::new(socket),
            readable: Mutex::new(None),
            name: self.name.clone(),
            weather: Arc::clone(&self.weather),
            trace: self.trace.clone(),
            entropy: SeededEntropy::new(self.seed),
        };
        Ok(Socket::Abstract(Arc::new(udp), Arc::new(quinn::TokioRuntime)))
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<AnyListener> {
        let local = SocketAddr::from(([0, 0, 0, 0], address.port()));
        Ok(Box::new(SimListener(turmoil::net::TcpListener::bind(local).await?)))
    }

    fn resolver(&self) -> Arc<dyn Resolver> {
        Arc::new(Literal)
    }

    fn tuning(&self) -> Tuning {
        Tuning {
            mtu: Some(MTU),
            ..Tuning::default()
        }
    }
}

struct Literal;

#[async_trait]
impl Resolver for Literal {
    async fn resolve(&self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        let address = host_port
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::NotFound, "no literal address"))?;
        Ok(vec![address])
    }
}

struct SimListener(turmoil::net::TcpListener);

#[async_trait]
impl wire::Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(BoxStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((Box::new(stream), peer))
    }
}

type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

struct SimUdp {
    socket: Arc<turmoil::net::UdpSocket>,
    readable: Mutex<Option<Readable>>,
    name: String,
    weather: Arc<Weather>,
    trace: Trace,
    entropy: SeededEntropy,
}

impl fmt::Debug for SimUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimUdp({})", self.name)
    }
}

impl SimUdp {
    fn hit(&self, rate: &AtomicU32) -> bool {
        let rate = rate.load(Ordering::Relaxed);
        let entropy: &dyn Entropy = &self.entropy;
        rate > 0 && entropy.below(1000) < u64::from(rate)
    }
}

impl AsyncUdpSocket for SimUdp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let to = transmit.destination;
        if self.hit(&self.weather.loss) {
            self.trace.note(&self.name, "lost", &to.to_string(), transmit.contents);
            return Ok(());
        }
        self.trace.note(&self.name, "sent", &to.to_string(), transmit.contents);
        let times = if self.hit(&self.weather.duplicates) { 2 } else { 1 };
        for _ in 0..times {
            // A network says nothing of what it does not deliver.
            let _ = self.socket.try_send_to(transmit.contents, to);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut readable = self.readable.lock().expect("nobody panics with the socket");
        let (Some(buffer), Some(meta)) = (buffers.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        loop {
            if readable.is_none() {
                match self.socket.try_recv_from(buffer) {
                    Ok((length, from)) => {
                        let received = buffer.get(..length).unwrap_or_default();
                        self.trace.note(&self.name, "got", &from.to_string(), received);
                        *meta = RecvMeta {
                            addr: from,
                            len: length,
                            stride: length,
                            ecn: None,
                            dst_ip: None,
                        };
                        return Poll::Ready(Ok(1));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let socket = Arc::clone(&self.socket);
                        *readable = Some(Box::pin(async move { socket.readable().await }));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if let Some(future) = readable.as_mut() {
                ready!(future.as_mut().poll(cx))?;
                *readable = None;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
