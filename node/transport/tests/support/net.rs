//! A small cluster on 127.0.0.1 with real QUIC, sockets whose datagrams can be cut off, and peers that keep no rule.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use core_types::{Clock, Entropy, NodeId, SiteId, UnixMillis};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Runtime, TokioRuntime, UdpPoller};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use transport::{
    Authority, Config, NodeIdentity, NodeKey, Peers, Refused, Service, Socket, SystemResolver, Transport, Tuning,
    Validity,
};

pub const CLUSTER: u128 = 0xfeed;
pub const SECOND: Duration = Duration::from_secs(1);
pub const PATIENT: Duration = Duration::from_secs(15);

pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64)
    }
}

/// Randomness that repeats.
pub struct Seeded(Mutex<u64>);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        let mut state = self.0.lock().unwrap();
        for byte in buffer {
            *state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = (*state >> 56) as u8;
        }
    }
}

/// The members, as a test sets them.
#[derive(Default)]
pub struct Directory {
    members: RwLock<BTreeMap<NodeId, (String, [u8; 32])>>,
    tokens: RwLock<BTreeSet<[u8; 32]>>,
}

impl Directory {
    pub fn set_member(&self, node: u64, address: &str, key: [u8; 32]) {
        self.members
            .write()
            .unwrap()
            .insert(NodeId(node), (address.to_owned(), key));
    }

    pub fn remove_member(&self, node: u64) {
        self.members.write().unwrap().remove(&NodeId(node));
    }

    pub fn add_token(&self, key: [u8; 32]) {
        self.tokens.write().unwrap().insert(key);
    }

    /// Spends the token; whether it was pending.
    pub fn spend_token(&self, key: &[u8; 32]) -> bool {
        self.tokens.write().unwrap().remove(key)
    }
}

impl Peers for Directory {
    fn address(&self, node: NodeId) -> Option<String> {
        self.members.read().unwrap().get(&node).map(|member| member.0.clone())
    }

    fn member_key(&self, node: NodeId) -> Option<[u8; 32]> {
        self.members.read().unwrap().get(&node).map(|member| member.1)
    }

    fn is_pending_token(&self, key: &[u8; 32]) -> bool {
        self.tokens.read().unwrap().contains(key)
    }
}

/// What the sockets of one test share: which ways are cut.
#[derive(Default)]
pub struct Wires {
    cut: Mutex<BTreeSet<(SocketAddr, SocketAddr)>>,
    retries: AtomicUsize,
    first_datagram: Mutex<Option<Vec<u8>>>,
}

impl Wires {
    pub fn cut(&self, one: SocketAddr, other: SocketAddr) {
        self.cut.lock().unwrap().extend([(one, other), (other, one)]);
    }

    pub fn mend(&self) {
        self.cut.lock().unwrap().clear();
    }

    pub fn retry_count(&self) -> usize {
        self.retries.load(Ordering::SeqCst)
    }

    pub fn first_datagram(&self) -> Option<Vec<u8>> {
        self.first_datagram.lock().unwrap().clone()
    }

    pub fn socket(self: &Arc<Self>, address: &str) -> (Socket, SocketAddr) {
        let socket = UdpSocket::bind(address).unwrap();
        let local = socket.local_addr().unwrap();
        let inner = TokioRuntime.wrap_udp_socket(socket).unwrap();
        let socket = WiredSocket {
            inner,
            local,
            wires: Arc::clone(self),
        };
        (Socket::Abstract(Arc::new(socket), Arc::new(TokioRuntime)), local)
    }
}

struct WiredSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    local: SocketAddr,
    wires: Arc<Wires>,
}

impl fmt::Debug for WiredSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WiredSocket")
    }
}

impl AsyncUdpSocket for WiredSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.wires
            .first_datagram
            .lock()
            .unwrap()
            .get_or_insert_with(|| transmit.contents.to_vec());
        // RFC 9000 17.2.5: a long header of type 3 is a Retry.
        if transmit.contents[0] & 0xf0 == 0xf0 {
            self.wires.retries.fetch_add(1, Ordering::SeqCst);
        }
        if self
            .wires
            .cut
            .lock()
            .unwrap()
            .contains(&(self.local, transmit.destination))
        {
            return Ok(());
        }
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// A service made of a function.
pub struct Answers<F>(pub F);

#[async_trait]
impl<F> Service for Answers<F>
where
    F: Fn(NodeId, Bytes) -> Result<Bytes, Refused> + Send + Sync + 'static,
{
    async fn serve(&self, from: NodeId, request: Bytes) -> Result<Bytes, Refused> {
        (self.0)(from, request)
    }
}

/// Gives the request back.
pub fn echo() -> Arc<dyn Service> {
    Arc::new(Answers(|_, request| Ok(request)))
}

/// Never answers.
pub struct Hangs;

#[async_trait]
impl Service for Hangs {
    async fn serve(&self, _from: NodeId, _request: Bytes) -> Result<Bytes, Refused> {
        std::future::pending().await
    }
}

pub struct Net {
    pub authority: Authority,
    pub directory: Arc<Directory>,
    pub wires: Arc<Wires>,
}

impl Net {
    pub fn new() -> Self {
        let authority = Authority::create(CLUSTER, usual(), &Seeded::new(1)).unwrap();
        Self {
            authority,
            directory: Arc::default(),
            wires: Arc::default(),
        }
    }

    pub fn identity(&self, node: u64) -> NodeIdentity {
        identity(&self.authority, node, usual())
    }

    /// Starts a member on a free port.
    pub fn start(&self, node: u64) -> (Arc<Transport>, SocketAddr) {
        self.start_at(node, "127.0.0.1:0", Tuning::default())
    }

    pub fn start_at(&self, node: u64, address: &str, tuning: Tuning) -> (Arc<Transport>, SocketAddr) {
        let identity = self.identity(node);
        let (socket, local) = self.wires.socket(address);
        self.directory
            .set_member(node, &local.to_string(), identity.key().public());
        let config = Config {
            identity,
            socket,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(Seeded::new(node + u64::from(local.port()) + SystemClock.now().0)),
            resolver: Arc::new(SystemResolver),
            tuning,
        };
        let transport = Transport::start(config, Arc::clone(&self.directory) as Arc<dyn Peers>).unwrap();
        (Arc::new(transport), local)
    }
}

pub fn usual() -> Validity {
    Validity::usual(SystemClock.now())
}

pub fn identity(authority: &Authority, node: u64, validity: Validity) -> NodeIdentity {
    let entropy = Seeded::new(1000 + node);
    let key = NodeKey::generate(&entropy).unwrap();
    let certificate = authority
        .issue_node_certificate(&key.public(), SiteId(1), NodeId(node), validity, &entropy)
        .unwrap();
    NodeIdentity::new(key, &certificate, authority.certificate()).unwrap()
}

/// Waits until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {what}");
}

/// A client that shows what it likes and believes everything.
pub struct Stranger {
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub alpn: Vec<Vec<u8>>,
}

impl Stranger {
    pub fn showing(identity: &NodeIdentity) -> Self {
        let certificate = Some((identity.certificate().to_vec(), identity.key().pkcs8().to_vec()));
        Self {
            certificate,
            alpn: vec![b"everpost/1".to_vec()],
        }
    }

    pub fn config(&self) -> quinn::ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible));
        let mut config = match &self.certificate {
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from(certificate.clone())],
                    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone())),
                )
                .unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.clone();
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.receive_window(quinn::VarInt::from_u32(64 << 20));
        config.transport_config(Arc::new(transport));
        config
    }

    /// Connects; the endpoint must be kept.
    pub async fn connect(
        &self,
        to: SocketAddr,
    ) -> (quinn::Endpoint, Result<quinn::Connection, quinn::ConnectionError>) {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connection = endpoint
            .connect_with(self.config(), to, "x.everpost.internal")
            .unwrap()
            .await;
        (endpoint, connection)
    }

    /// Connects and is turned away; why.
    pub async fn refusal(&self, to: SocketAddr) -> quinn::ConnectionError {
        let (_endpoint, connection) = self.connect(to).await;
        match connection {
            Err(error) => error,
            // TLS 1.3: the client hears of its certificate's refusal after its own side is done.
            Ok(connection) => {
                assert!(connection.open_bi().await.is_err() || connection.accept_bi().await.is_err());
                connection.closed().await
            }
        }
    }
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
