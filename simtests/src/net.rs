//! turmoil's network as a node sees it: QUIC over its UDP, mail programs over its TCP.
//!
//! Cuts, loss, duplication, delay and reordering are made here, datagram by datagram, from the seed: turmoil's own fail rate
//! clears everything in flight on a link. Mail programs are not cut off: what they find is the other nodes' trouble.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use core_types::Entropy;
use futures_util::FutureExt;
use node::machine::{AnyListener, Network};
use oracle::schedule::{Fault, Link};
use platform::SeededEntropy;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use transport::{Resolver, Socket, Tuning};
use wire::BoxStream;

use crate::trace::Trace;

/// Octets of a datagram. Larger ones make a run faster, and are as good a test.
const MTU: u16 = 4000;

/// The state of the network between the nodes: the faults that last just now. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Weather(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    /// Machines by their addresses.
    machines: BTreeMap<IpAddr, u64>,
}

impl Weather {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a machine is.
    pub fn place(&self, machine: u64, address: IpAddr) {
        self.state().machines.insert(address, machine);
    }

    /// From now on these faults last.
    pub fn set(&self, faults: Vec<Fault>) {
        self.state().faults = faults;
    }

    fn link(&self, from: u64, to: IpAddr) -> Link {
        let state = self.state();
        if state.faults.is_empty() {
            return Link::default();
        }
        let to = state.machines.get(&to).copied().unwrap_or(0);
        Link::under(&state.faults, from, to)
    }
}

/// The network of one node.
pub struct SimNetwork {
    /// The node's name.
    pub name: String,
    /// The machine's number.
    pub machine: u64,
    /// Faults.
    pub weather: Weather,
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
            machine: self.machine,
            weather: self.weather.clone(),
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
    machine: u64,
    weather: Weather,
    trace: Trace,
    entropy: SeededEntropy,
}

impl fmt::Debug for SimUdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimUdp({})", self.name)
    }
}

impl SimUdp {
    fn hit(&self, permille: u16) -> bool {
        permille > 0 && self.below(1000) < u64::from(permille)
    }

    fn below(&self, bound: u64) -> u64 {
        let entropy: &dyn Entropy = &self.entropy;
        entropy.below(bound)
    }

    /// How late a datagram comes.
    fn delay(&self, link: &Link) -> Duration {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let spread = link.delay_max.saturating_sub(link.delay_min);
        let mut delay = link.delay_min;
        if !spread.is_zero() {
            delay += Duration::from_micros(self.below(micros(spread) + 1));
        }
        if self.hit(link.reorder_permille) {
            delay += Duration::from_micros(self.below(micros(link.reorder_by) + 1));
        }
        delay
    }
}

impl AsyncUdpSocket for SimUdp {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let to = transmit.destination;
        let link = self.weather.link(self.machine, to.ip());
        if link.cut || self.hit(link.loss_permille) {
            self.trace.note(&self.name, "lost", &to.to_string(), transmit.contents);
            return Ok(());
        }
        self.trace.note(&self.name, "sent", &to.to_string(), transmit.contents);
        let times = if self.hit(link.duplicate_permille) { 2 } else { 1 };
        for _ in 0..times {
            let delay = self.delay(&link);
            if delay.is_zero() {
                // A network says nothing of what it does not deliver.
                let _ = self.socket.try_send_to(transmit.contents, to);
                continue;
            }
            let (socket, late) = (Arc::downgrade(&self.socket), transmit.contents.to_vec());
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                if let Some(socket) = socket.upgrade() {
                    let _ = socket.try_send_to(&late, to);
                }
            });
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
