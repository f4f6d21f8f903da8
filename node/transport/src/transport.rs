//! [`Transport`]: the requests of a node to all others, over whatever way there is.
//!
//! A node is dialled when somebody asks for it first, and kept connected from then. When its connection is down or
//! silent, a request takes one hop through a node that says that it reaches it. Nothing is sent twice: a request that
//! may have arrived and brought no answer ends as [`CallError::NoAnswer`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use core_types::limits::{FRAME_BYTES_MAX, HANDSHAKES_RETRY};
use core_types::{Clock, Entropy, NodeId, UnixMillis};
use quinn::Endpoint;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::endpoint::{self, Socket, Tuning};
use crate::frame::{Hello, REACH_NODES_MAX, Request, Route, Status};
use crate::identity::NodeIdentity;
use crate::link::{AskError, Birth, CloseCode, Link, Stage, enter};
use crate::peer::Peer;
use crate::peers::{JoinService, Peers, Resolver};
use crate::refusals::Refusals;
use crate::rpc::{CallError, Class, Rpc, Service, ServiceId};
use crate::{accept, dial, serve, tls};

/// What a transport needs to start.
pub struct Config {
    /// Who this node is.
    pub identity: NodeIdentity,
    /// Where it listens and from where it dials.
    pub socket: Socket,
    /// For certificates' times.
    pub clock: Arc<dyn Clock>,
    /// For back-off and the boot's number.
    pub entropy: Arc<dyn Entropy>,
    /// For names in addresses.
    pub resolver: Arc<dyn Resolver>,
    /// Settings of QUIC; [`Tuning::default`] in production.
    pub tuning: Tuning,
}

/// Why a transport could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The socket cannot be used.
    #[error("cluster socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The identity cannot be used for TLS.
    #[error("cluster identity: {0}")]
    Identity(String),
}

/// How one other node is reached just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The node.
    pub node: NodeId,
    /// Whether there is a connection that is not silent.
    pub connected: bool,
    /// The node through which requests go while there is none.
    pub via_relay: Option<NodeId>,
    /// The connection's smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Since when the connection stands.
    pub since: Option<UnixMillis>,
    /// Where the peer sees this node, `address:port`.
    pub observed: Option<String>,
    /// Attempts to dial that failed since the last success.
    pub failures: u32,
    /// Malformed frames that came over the connection.
    pub malformed_count: u64,
    /// The peer said last that this node is no member of the cluster.
    pub refuses_as_stranger: bool,
}

/// Requests to other nodes over QUIC, and the services of this one. Dropping it closes all connections at once;
/// [`Transport::shutdown`] is kinder.
pub struct Transport {
    inner: Arc<Inner>,
}

/// What all tasks of a transport share.
pub(crate) struct Inner {
    pub(crate) node: NodeId,
    pub(crate) boot: u128,
    pub(crate) endpoint: Endpoint,
    pub(crate) client_config: quinn::ClientConfig,
    pub(crate) peers_source: Arc<dyn Peers>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) refusals: Refusals,
    pub(crate) handshakes_retry: usize,
    /// The nodes that this one reaches itself.
    pub(crate) reach: watch::Sender<BTreeSet<NodeId>>,
    clock: Arc<dyn Clock>,
    peers: Mutex<BTreeMap<NodeId, Arc<Peer>>>,
    services: RwLock<BTreeMap<ServiceId, Arc<dyn Service>>>,
    join: RwLock<Option<Arc<dyn JoinService>>>,
    /// Counts what may let a waiting request go on.
    changes: watch::Sender<u64>,
    serials: AtomicU64,
    closing: AtomicBool,
}

impl Transport {
    /// Listens and is ready to dial. Services may be registered afterwards.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(config: Config, peers: Arc<dyn Peers>) -> Result<Self, StartError> {
        let Config {
            identity,
            socket,
            clock,
            entropy,
            resolver,
            tuning,
        } = config;
        let identity_error = |error: tls::TlsError| StartError::Identity(error.to_string());
        let server = tls::server_config(&identity, Arc::clone(&peers), Arc::clone(&clock)).map_err(identity_error)?;
        let client = tls::client_config(&identity, Arc::clone(&clock)).map_err(identity_error)?;
        let inner = Arc::new(Inner {
            node: identity.node(),
            boot: u128::from_le_bytes(entropy.bytes()),
            endpoint: endpoint::open(socket, Some(endpoint::server_config(server, &tuning)))?,
            client_config: endpoint::client_config(client, &tuning),
            peers_source: peers,
            resolver,
            entropy,
            refusals: Refusals::default(),
            handshakes_retry: tuning.handshakes_retry.unwrap_or(HANDSHAKES_RETRY),
            reach: watch::Sender::default(),
            clock,
            peers: Mutex::default(),
            services: RwLock::default(),
            join: RwLock::default(),
            changes: watch::Sender::default(),
            serials: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        tokio::spawn(accept::accept_connections(Arc::clone(&inner)));
        Ok(Self { inner })
    }

    /// Lets a service answer from now on; replaces an earlier one of that id.
    pub fn register(&self, id: ServiceId, service: Arc<dyn Service>) {
        self.inner
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, service);
    }

    /// Lets holders of join tokens join through this node from now on.
    pub fn register_join(&self, service: Arc<dyn JoinService>) {
        *self.inner.join.write().unwrap_or_else(PoisonError::into_inner) = Some(service);
    }

    /// The address of the cluster socket.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn local_addr(&self) -> std::io::Result<std::net::SocketAddr> {
        self.inner.endpoint.local_addr()
    }

    /// The directory's members or their addresses changed: who is no member any more is disconnected, and who is not
    /// connected is dialled at once.
    pub fn peers_changed(&self) {
        for peer in self.inner.all_peers() {
            if self.inner.peers_source.member_key(peer.node).is_none() {
                for link in peer.links() {
                    link.close(CloseCode::NotMember);
                }
            }
            peer.wake.notify_one();
        }
    }

    /// How the nodes that this one has had to do with are reached, by id.
    #[must_use]
    pub fn peers_status(&self) -> Vec<PeerStatus> {
        let status = |peer: Arc<Peer>| {
            let link = peer.link(self.inner.node);
            let connected = link.as_ref().is_some_and(|link| link.is_usable());
            let relay = if connected {
                None
            } else {
                self.inner.relay(peer.node, &BTreeSet::new())
            };
            PeerStatus {
                node: peer.node,
                connected,
                via_relay: relay.map(|link| link.node),
                rtt: link.as_ref().map(|link| link.connection.rtt()),
                since: link.as_ref().map(|link| link.since),
                observed: link.as_ref().map(|link| link.observed.clone()),
                failures: peer.dial().failures,
                refuses_as_stranger: peer.dial().is_stranger,
                malformed_count: link
                    .as_ref()
                    .map_or(0, |link| link.malformed_count.load(Ordering::Acquire)),
            }
        };
        self.inner.all_peers().into_iter().map(status).collect()
    }

    /// Takes no further requests, lets those under way end for at most half a second, and closes all connections, so
    /// that the peers know at once.
    pub async fn shutdown(&self) {
        self.inner.closing.store(true, Ordering::Release);
        let deadline = Instant::now() + SHUTDOWN_PATIENCE;
        while self.inner.is_serving() && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        self.inner.close();
        // Tells the peers; those that do not answer are not waited for.
        let _ = timeout(SHUTDOWN_PATIENCE, self.inner.endpoint.wait_idle()).await;
    }

    /// Lets go of everything that was registered, and closes without waiting for anything: for a node that is dropped.
    pub fn abandon(&self) {
        self.inner.close();
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.inner.close();
    }
}

#[async_trait]
impl Rpc for Transport {
    fn node(&self) -> NodeId {
        self.inner.node
    }

    async fn call(
        &self,
        to: NodeId,
        class: Class,
        service: ServiceId,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        if request.len() as u64 > FRAME_BYTES_MAX {
            return Err(CallError::TooLarge(request.len() as u64));
        }
        let deadline = Instant::now() + timeout;
        if to == self.inner.node {
            let served = serve::serve_here(&self.inner, to, service, timeout, request);
            let Ok((status, body)) = timeout_at(deadline, served).await else {
                return Err(CallError::NoAnswer(to));
            };
            return answered(to, status, body);
        }
        let Some(peer) = self.inner.want(to) else {
            return Err(CallError::Unreachable(to));
        };
        let Some(_entered) = enter(peer.calls.of(class)) else {
            return Err(CallError::Busy(to));
        };
        let stage = Stage::default();
        let direct = peer.link(self.inner.node).map(|link| (link.received_count(), link));
        let call = Call {
            inner: &self.inner,
            peer: &peer,
            class,
            service,
            request,
            deadline,
            stage: &stage,
        };
        match timeout_at(deadline, call.run()).await {
            Ok(result) => result,
            Err(_) if stage.is_sent() => {
                self.inner.note_silence(direct.as_ref(), timeout);
                Err(CallError::NoAnswer(to))
            }
            Err(_) if stage.is_waiting() => Err(CallError::Busy(to)),
            Err(_) => Err(CallError::Unreachable(to)),
        }
    }

    fn is_reachable(&self, to: NodeId) -> bool {
        if to == self.inner.node {
            return true;
        }
        let Some(peer) = self.inner.want(to) else { return false };
        peer.usable().is_some() || self.inner.relay(to, &BTreeSet::new()).is_some()
    }
}

/// One request on its way.
struct Call<'a> {
    inner: &'a Arc<Inner>,
    peer: &'a Arc<Peer>,
    class: Class,
    service: ServiceId,
    request: Bytes,
    deadline: Instant,
    stage: &'a Stage,
}

/// Where a request goes next.
enum Way {
    Over(Arc<Link>),
    Wait,
    None,
}

impl Call<'_> {
    async fn run(&self) -> Result<Bytes, CallError> {
        let to = self.peer.node;
        let mut changes = self.inner.changes.subscribe();
        let attempts = self.peer.dial().attempts;
        let patience = Instant::now() + DIRECT_PATIENCE;
        let mut failed_relays = BTreeSet::new();
        loop {
            changes.mark_unchanged();
            match self.way(attempts, patience, &failed_relays) {
                Way::None => return Err(CallError::Unreachable(to)),
                Way::Wait => {
                    tokio::select! {
                        biased;
                        _ = changes.changed() => {}
                        // A relay that was passed over is taken now.
                        () = tokio::time::sleep_until(patience), if Instant::now() < patience => {}
                    }
                }
                Way::Over(link) => {
                    let relayed = link.node != to;
                    let answer = link.ask(self.header(&link), self.request.clone(), self.stage).await;
                    match answer {
                        Ok((Status::Unreachable, _)) if relayed => {
                            failed_relays.insert(link.node);
                            self.stage.reset();
                        }
                        Ok((status, body)) => return answered(to, status, body),
                        Err(AskError::Unsent) => {
                            if relayed {
                                failed_relays.insert(link.node);
                            }
                            self.stage.reset();
                            // The link is closed: let its owner notice.
                            tokio::task::yield_now().await;
                        }
                        Err(AskError::Lost) => return Err(CallError::NoAnswer(to)),
                        Err(AskError::TooLarge(bytes)) => return Err(CallError::TooLarge(bytes)),
                    }
                }
            }
        }
    }

    fn header(&self, link: &Link) -> Request {
        let to = self.peer.node;
        Request {
            class: self.class,
            service: self.service,
            route: if link.node == to {
                Route::Direct
            } else {
                Route::Relay(to)
            },
            timeout: self.deadline.saturating_duration_since(Instant::now()),
        }
    }

    fn way(&self, attempts: u64, patience: Instant, failed_relays: &BTreeSet<NodeId>) -> Way {
        let direct = self.peer.link(self.inner.node);
        if let Some(link) = direct.clone().filter(|link| link.is_usable()) {
            return Way::Over(link);
        }
        let dial = self.peer.dial();
        let relay = self.inner.relay(self.peer.node, failed_relays);
        if let Some(link) = relay
            && (direct.is_some() || dial.failures > 0 || Instant::now() >= patience)
        {
            return Way::Over(link);
        }
        // Silent, but there is nothing better.
        if let Some(link) = direct {
            return Way::Over(link);
        }
        let failed_now = dial.attempts != attempts || (dial.failures > 0 && !dial.dialling);
        if failed_now || self.inner.is_closing() || self.inner.peers_source.address(self.peer.node).is_none() {
            return Way::None;
        }
        Way::Wait
    }
}

fn answered(to: NodeId, status: Status, body: Bytes) -> Result<Bytes, CallError> {
    let text = || String::from_utf8_lossy(&body).into_owned();
    match status {
        Status::Done => Ok(body),
        Status::Refused => Err(CallError::Refused(text())),
        Status::Unsupported => Err(CallError::Refused(format!("unsupported by node {to}: {}", text()))),
        Status::Busy => Err(CallError::Busy(to)),
        Status::TooLarge => {
            let bytes = body
                .first_chunk()
                .map_or(FRAME_BYTES_MAX, |bytes| u64::from_le_bytes(*bytes));
            Err(CallError::TooLarge(bytes))
        }
        Status::Unreachable => Err(CallError::Unreachable(to)),
        Status::NoAnswer => Err(CallError::NoAnswer(to)),
    }
}

impl Inner {
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// What is known of a node, made when it is asked for first; `None` when this node shuts down.
    pub(crate) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closing() {
            return None;
        }
        Some(Arc::clone(
            peers.entry(node).or_insert_with(|| Arc::new(Peer::new(node))),
        ))
    }

    /// What is known of a node with which this one has had to do.
    pub(crate) fn known_peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&node)
            .cloned()
    }

    pub(crate) fn service(&self, id: ServiceId) -> Option<Arc<dyn Service>> {
        self.services
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    pub(crate) fn join_service(&self) -> Option<Arc<dyn JoinService>> {
        self.join.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn new_link(
        &self,
        node: NodeId,
        hello: Hello,
        dialled: bool,
        connection: quinn::Connection,
    ) -> Arc<Link> {
        let serial = self.serials.fetch_add(1, Ordering::AcqRel);
        let Hello { boot, observed, .. } = hello;
        Arc::new(Link::new(
            Birth {
                node,
                boot,
                dialled,
                serial,
                since: self.clock.now(),
                observed,
            },
            connection,
        ))
    }

    /// Uses a connection from now on.
    pub(crate) fn install(self: &Arc<Self>, peer: &Arc<Peer>, link: &Arc<Link>) {
        peer.change_dial(|dial| dial.is_stranger = false);
        if peer.add(link) {
            let (inner, peer) = (Arc::clone(self), Arc::clone(peer));
            tokio::spawn(async move {
                sleep(DUPLICATE_PATIENCE).await;
                peer.prune(inner.node);
            });
        }
        tracing::debug!(node = %link.node, dialled = link.dialled, "connected");
        self.links_changed();
    }

    /// A connection is over.
    pub(crate) fn uninstall(&self, peer: &Peer, link: &Link) {
        peer.remove(link);
        tracing::debug!(node = %link.node, reason = ?link.connection.close_reason(), "disconnected");
        self.links_changed();
    }

    /// Tells waiting requests and the peers which nodes are reached now.
    pub(crate) fn links_changed(&self) {
        let reached: BTreeSet<NodeId> = self
            .all_peers()
            .into_iter()
            .filter(|peer| peer.usable().is_some())
            .map(|peer| peer.node)
            .take(REACH_NODES_MAX)
            .collect();
        self.reach.send_if_modified(|known| {
            let news = *known != reached;
            *known = reached;
            news
        });
        self.bump();
    }

    /// A request got no answer: when nothing at all came from the peer for that long, the way there may be cut, and the
    /// next request tries another one before the connection's own time-out.
    fn note_silence(&self, direct: Option<&(u64, Arc<Link>)>, waited: Duration) {
        if let Some((received, link)) = direct
            && waited >= SILENCE_MIN
            && link.received_count() == *received
            && link.set_suspect(true)
        {
            self.links_changed();
        }
    }

    /// Lets waiting requests look again.
    pub(crate) fn bump(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The connection to a node that says that it reaches `to`; of several the one with the shortest round trip.
    fn relay(&self, to: NodeId, except: &BTreeSet<NodeId>) -> Option<Arc<Link>> {
        let usable = |peer: Arc<Peer>| (peer.node != to && !except.contains(&peer.node)).then(|| peer.usable())?;
        let links = self
            .all_peers()
            .into_iter()
            .filter_map(usable)
            .filter(|link| link.reaches(to));
        links.min_by_key(|link| (link.connection.rtt(), link.node))
    }

    fn want(self: &Arc<Self>, node: NodeId) -> Option<Arc<Peer>> {
        let peer = self.peer(node)?;
        if peer.want() {
            tokio::spawn(dial::keep_connected(Arc::clone(self), Arc::clone(&peer)));
        }
        Some(peer)
    }

    fn all_peers(&self) -> Vec<Arc<Peer>> {
        self.peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    fn is_serving(&self) -> bool {
        self.all_peers()
            .iter()
            .flat_map(|peer| peer.links())
            .any(|link| link.is_serving())
    }

    fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.endpoint
            .close(CloseCode::Shutdown.number(), CloseCode::Shutdown.reason());
        // Services often hold the transport: without this neither would ever be dropped.
        self.services.write().unwrap_or_else(PoisonError::into_inner).clear();
        *self.join.write().unwrap_or_else(PoisonError::into_inner) = None;
        for peer in self.all_peers() {
            peer.wake.notify_one();
        }
        self.bump();
    }
}

/// How long a request waits for the first dial before it takes a hop through another node.
const DIRECT_PATIENCE: Duration = Duration::from_millis(200);
/// How long the second of two connections still answers what is under way.
const DUPLICATE_PATIENCE: Duration = Duration::from_secs(3);
/// Keep-alives bring something from a living peer within this time.
const SILENCE_MIN: Duration = Duration::from_millis(700);
const SHUTDOWN_PATIENCE: Duration = Duration::from_millis(500);
