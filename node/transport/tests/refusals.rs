//! What peers get that are not who they say, or do not keep to the protocol; and joining.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "support/net.rs"]
mod net;

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use core_types::limits::{FRAME_BYTES_MAX, PEER_CLASS_BYTES_MAX};
use core_types::{Clock, NodeId, UnixMillis};
use net::{Answers, CLUSTER, Directory, Net, PATIENT, SECOND, Seeded, Stranger, SystemClock, echo, identity, usual};
use rustls::AlertDescription;
use transport::frame::{Frame, Hello, Request, Route, Status};
use transport::{
    Authority, Class, JoinError, JoinService, JoinToken, Joiner, Peers, Refused, Rpc, ServiceId, SystemResolver,
    Transport, Tuning, Validity, join,
};

const ECHO: ServiceId = ServiceId(100);

fn alert(error: &quinn::ConnectionError) -> Option<AlertDescription> {
    let code = match error {
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        quinn::ConnectionError::TransportError(error) => u64::from(error.code),
        _ => return None,
    };
    (0x100..0x200)
        .contains(&code)
        .then(|| AlertDescription::from((code - 0x100) as u8))
}

#[tokio::test]
async fn quic_no_client_cert() {
    let net = Net::new();
    let (_one, address) = net.start(1);
    let stranger = Stranger {
        certificate: None,
        alpn: vec![b"everpost/1".to_vec()],
    };
    assert_eq!(
        alert(&stranger.refusal(address).await),
        Some(AlertDescription::CertificateRequired)
    );
}

#[tokio::test]
async fn quic_wrong_ca() {
    let net = Net::new();
    let (_one, address) = net.start(1);
    let refusal =
        |identity: transport::NodeIdentity| async move { alert(&Stranger::showing(&identity).refusal(address).await) };
    let other = Authority::create(CLUSTER, usual(), &Seeded::new(99)).unwrap();
    // Another key under the same authority's name: the signature does not fit.
    let wrong = refusal(identity(&other, 2, usual())).await;
    assert!(
        matches!(
            wrong,
            Some(AlertDescription::UnknownCA | AlertDescription::DecryptError)
        ),
        "{wrong:?}"
    );
    let other_cluster = Authority::create(CLUSTER + 1, usual(), &Seeded::new(98)).unwrap();
    assert_eq!(
        refusal(identity(&other_cluster, 2, usual())).await,
        Some(AlertDescription::UnknownCA)
    );
    let now = SystemClock.now().0;
    let hour = 3_600_000;
    let past = Validity {
        not_before: UnixMillis(now - 2 * hour),
        not_after: UnixMillis(now - hour),
    };
    assert_eq!(
        refusal(identity(&net.authority, 2, past)).await,
        Some(AlertDescription::CertificateExpired)
    );
    let future = Validity {
        not_before: UnixMillis(now + hour),
        not_after: UnixMillis(now + 2 * hour),
    };
    let early = refusal(identity(&net.authority, 2, future)).await;
    assert!(early.is_some(), "{early:?}");
    // The right authority, but the directory has no such member, or another key.
    let unknown = Stranger::showing(&net.identity(7)).refusal(address).await;
    assert!(matches!(&unknown, quinn::ConnectionError::ApplicationClosed(close) if close.reason == "not a member"));
    net.directory.set_member(7, "127.0.0.1:1", [5; 32]);
    let other_key = Stranger::showing(&net.identity(7)).refusal(address).await;
    assert!(matches!(&other_key, quinn::ConnectionError::ApplicationClosed(close) if close.reason == "not a member"));
}

#[tokio::test]
async fn quic_wrong_alpn() {
    let net = Net::new();
    let (_one, address) = net.start(1);
    net.directory
        .set_member(2, "127.0.0.1:1", net.identity(2).key().public());
    for alpn in [vec![b"h3".to_vec()], Vec::new()] {
        let stranger = Stranger {
            alpn,
            ..Stranger::showing(&net.identity(2))
        };
        let refusal = stranger.refusal(address).await;
        assert_eq!(
            alert(&refusal),
            Some(AlertDescription::NoApplicationProtocol),
            "{refusal:?}"
        );
    }
}

#[tokio::test]
async fn a_node_that_is_not_the_one_wanted_is_not_talked_to() {
    let net = Net::new();
    let ((one, _), (two, address)) = (net.start(1), net.start(2));
    two.register(ECHO, echo());
    // Somebody else answers at node 3's address.
    net.directory
        .set_member(3, &address.to_string(), net.identity(3).key().public());
    assert!(
        one.call(NodeId(3), Class::Log, ECHO, Bytes::new(), SECOND)
            .await
            .is_err()
    );
    assert!(!one.is_reachable(NodeId(3)));
}

/// A member with a connection of its own making, hello said.
async fn raw_member(net: &Net, node: u64, to: SocketAddr) -> (quinn::Endpoint, quinn::Connection) {
    let identity = net.identity(node);
    net.directory.set_member(node, "127.0.0.1:1", identity.key().public());
    let (endpoint, connection) = Stranger::showing(&identity).connect(to).await;
    let connection = connection.unwrap();
    let hello = Hello {
        boot: 1,
        version_min: 1,
        version_max: 9,
        observed: String::new(),
    };
    let body = core_types::codec::encode(1, &hello, 1000).unwrap();
    let (status, body) = raw_ask(&connection, &Frame::Hello.encode().unwrap(), body.len(), &body)
        .await
        .unwrap();
    assert_eq!(status, Status::Done);
    Hello::decode(&body).unwrap();
    (endpoint, connection)
}

async fn raw_send(
    connection: &quinn::Connection,
    header: &[u8],
    announced: usize,
    body: &[u8],
) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, recv) = connection.open_bi().await.unwrap();
    let mut bytes = (header.len() as u16).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(&(announced as u32).to_le_bytes());
    bytes.extend_from_slice(body);
    // The peer may stop the stream before everything is written.
    let _ = send.write_all(&bytes).await;
    (send, recv)
}

async fn raw_read(recv: &mut quinn::RecvStream) -> Option<(Status, Vec<u8>)> {
    let all = tokio::time::timeout(PATIENT, recv.read_to_end(16 << 20))
        .await
        .unwrap()
        .ok()?;
    let header = usize::from(u16::from_le_bytes([*all.first()?, *all.get(1)?]));
    Some((Status::decode(&all[2..2 + header]).unwrap(), all[6 + header..].to_vec()))
}

async fn raw_ask(
    connection: &quinn::Connection,
    header: &[u8],
    announced: usize,
    body: &[u8],
) -> Option<(Status, Vec<u8>)> {
    let (mut send, mut recv) = raw_send(connection, header, announced, body).await;
    let _ = send.finish();
    raw_read(&mut recv).await
}

fn request(class: Class, service: ServiceId) -> Vec<u8> {
    let timeout = Duration::from_secs(10);
    Frame::Request(Request {
        class,
        service,
        route: Route::Direct,
        timeout,
    })
    .encode()
    .unwrap()
}

fn malformed_count(transport: &Transport, node: u64) -> u64 {
    transport
        .peers_status()
        .iter()
        .find(|status| status.node == NodeId(node))
        .unwrap()
        .malformed_count
}

#[tokio::test]
async fn quic_decode_garbage() {
    let net = Net::new();
    let (one, address) = net.start(1);
    one.register(ECHO, echo());
    let (_endpoint, connection) = raw_member(&net, 2, address).await;
    let garbage: [&[u8]; 3] = [&[0xff; 40], &[0, 0, 0, 0, 0, 0], &[18, 0, 1, 0xfe, 0xfe, 9, 9, 0, 0]];
    for bytes in &garbage[..2] {
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let answer = tokio::time::timeout(PATIENT, recv.read_to_end(100)).await.unwrap();
        assert!(
            matches!(answer, Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(_)))),
            "{answer:?}"
        );
    }
    // Cut in the middle: simply over.
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(garbage[2]).await.unwrap();
    send.finish().unwrap();
    let _ = tokio::time::timeout(PATIENT, recv.read_to_end(100)).await.unwrap();
    // A relayed request for a sender that is no member, and one to a node that nobody reaches.
    for (route, expected) in [
        (Route::Relayed(NodeId(77)), Status::Refused),
        (Route::Relay(NodeId(77)), Status::Unreachable),
    ] {
        let timeout = Duration::from_secs(1);
        let header = Frame::Request(Request {
            class: Class::Log,
            service: ECHO,
            route,
            timeout,
        })
        .encode()
        .unwrap();
        assert_eq!(raw_ask(&connection, &header, 0, b"").await.unwrap().0, expected);
    }
    assert_eq!(malformed_count(&one, 2), 2);
    let (status, body) = raw_ask(&connection, &request(Class::Store, ECHO), 2, b"ok")
        .await
        .unwrap();
    assert_eq!((status, body.as_slice()), (Status::Done, b"ok".as_slice()));
}

#[tokio::test]
async fn quic_unknown_variant() {
    let net = Net::new();
    let (one, address) = net.start(1);
    one.register(ECHO, echo());
    let (_endpoint, connection) = raw_member(&net, 2, address).await;
    let known = request(Class::Store, ECHO);
    let (mut version, mut kind, mut class) = (known.clone(), known.clone(), known.clone());
    version[0] = 2;
    kind[1] = 200;
    class[3] = 9;
    for header in [version, kind, class, request(Class::Store, ServiceId(999))] {
        assert_eq!(
            raw_ask(&connection, &header, 0, b"").await.unwrap().0,
            Status::Unsupported
        );
    }
    assert_eq!(raw_ask(&connection, &known, 2, b"ok").await.unwrap().0, Status::Done);
    assert_eq!(malformed_count(&one, 2), 0);
}

#[tokio::test]
async fn quic_entry_too_big() {
    let net = Net::new();
    let (one, address) = net.start(1);
    one.register(ECHO, echo());
    let (_endpoint, connection) = raw_member(&net, 2, address).await;
    for announced in [FRAME_BYTES_MAX as usize + 1, 100 << 20, u32::MAX as usize] {
        // Announced and begun, never sent: the answer comes at once.
        let (_send, mut recv) = raw_send(&connection, &request(Class::Log, ECHO), announced, &[0; 1000]).await;
        assert_eq!(raw_read(&mut recv).await.unwrap().0, Status::TooLarge);
    }
    let body = vec![3; FRAME_BYTES_MAX as usize];
    let (status, answer) = raw_ask(&connection, &request(Class::Log, ECHO), body.len(), &body)
        .await
        .unwrap();
    assert_eq!((status, answer.len()), (Status::Done, body.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_slow_peer() {
    let net = Net::new();
    let (one, address) = net.start(1);
    one.register(ECHO, echo());
    one.register(
        ServiceId::BLOB,
        Arc::new(Answers(|_, _| Ok(Bytes::from(vec![0; FRAME_BYTES_MAX as usize])))),
    );
    let (_endpoint, connection) = raw_member(&net, 2, address).await;
    let mut unread = Vec::new();
    for _ in 0..40 {
        let (mut send, recv) = raw_send(&connection, &request(Class::Blob, ServiceId::BLOB), 0, b"").await;
        send.finish().unwrap();
        unread.push(recv);
    }
    // Nothing of those is read; other classes do not notice.
    for class in [Class::Control, Class::Log, Class::Store] {
        let asked = tokio::time::timeout(SECOND, raw_ask(&connection, &request(class, ECHO), 2, b"ok")).await;
        assert_eq!(asked.unwrap().unwrap().0, Status::Done);
    }
    // What one peer's answers may hold here is bounded: the rest was refused, or given up when it was not read.
    let held = (PEER_CLASS_BYTES_MAX / FRAME_BYTES_MAX) as usize;
    let mut refused = 0;
    for mut recv in unread.into_iter().rev() {
        if let Some((Status::Busy, _)) = raw_read(&mut recv).await {
            refused += 1;
        }
    }
    assert!(refused >= 40 - 2 * held, "{refused}");
}

#[tokio::test]
async fn quic_amplification() {
    let net = Net::new();
    let tuning = Tuning {
        handshakes_retry: Some(0),
        ..Tuning::default()
    };
    let (one, address) = net.start_at(1, "127.0.0.1:0", tuning);
    let (two, _) = net.start(2);
    one.register(ECHO, echo());
    // A true peer comes through the Retry.
    two.call(NodeId(1), Class::Store, ECHO, Bytes::new(), PATIENT)
        .await
        .unwrap();
    assert_eq!(net.wires.retry_count(), 1);
    // A first datagram under a forged address gets at most three times its size (RFC 9000 8.1), here a Retry only.
    for (target, retry) in [(address, true), (net.start(3).1, false)] {
        let initial = net.wires.first_datagram().unwrap();
        let forged = UdpSocket::bind("127.0.0.1:0").unwrap();
        forged.set_nonblocking(true).unwrap();
        let forged = tokio::net::UdpSocket::from_std(forged).unwrap();
        forged.send_to(&initial, target).await.unwrap();
        let (mut received, mut first) = (0, None);
        let mut buffer = [0; 2000];
        while let Ok(length) = tokio::time::timeout(Duration::from_millis(400), forged.recv(&mut buffer)).await {
            received += length.unwrap();
            first.get_or_insert(buffer[0]);
        }
        assert!(received <= 3 * initial.len(), "{received}");
        if retry {
            assert_eq!(first.map(|byte| byte & 0xf0), Some(0xf0));
            assert!(received < 200, "{received}");
        }
    }
}

/// Takes a joiner in once, as the directory would.
struct Door(Arc<Directory>, Mutex<Option<Bytes>>);

#[async_trait]
impl JoinService for Door {
    async fn join(&self, token_key: [u8; 32], request: Bytes) -> Result<Bytes, Refused> {
        if !self.0.spend_token(&token_key) {
            return Err(Refused("the token is spent".to_owned()));
        }
        *self.1.lock().unwrap() = Some(request);
        Ok(Bytes::from_static(b"welcome"))
    }
}

fn token(net: &Net, addresses: &[&str], seed: u64) -> JoinToken {
    let addresses = addresses.iter().map(|&address| address.to_owned()).collect();
    JoinToken::generate(CLUSTER, net.authority.fingerprint(), addresses, &Seeded::new(seed)).unwrap()
}

async fn join_with(net: &Net, token: &JoinToken) -> Result<Bytes, JoinError> {
    let token = JoinToken::parse(&token.text().unwrap()).unwrap();
    let joiner = Joiner {
        token,
        socket: net.wires.socket("127.0.0.1:0").0,
        clock: Arc::new(SystemClock),
        resolver: Arc::new(SystemResolver),
        tuning: Tuning::default(),
    };
    join(joiner, Bytes::from_static(b"my key"), PATIENT).await
}

#[tokio::test]
async fn a_pending_token_joins_and_the_dead_address_is_passed_over() {
    let net = Net::new();
    let (one, address) = net.start(1);
    let door = Arc::new(Door(Arc::clone(&net.directory), Mutex::default()));
    one.register_join(Arc::clone(&door) as Arc<dyn JoinService>);
    let token = token(&net, &["127.0.0.1:9", &address.to_string()], 5);
    net.directory.add_token(token.key().unwrap().public());
    assert_eq!(join_with(&net, &token).await.unwrap(), "welcome");
    assert_eq!(door.1.lock().unwrap().as_deref(), Some(b"my key".as_slice()));
}

#[tokio::test]
async fn quic_join_token_replay() {
    let net = Net::new();
    let (one, address) = net.start(1);
    one.register(ECHO, echo());
    one.register_join(Arc::new(Door(Arc::clone(&net.directory), Mutex::default())));
    let spent = token(&net, &[&address.to_string()], 5);
    let key = spent.key().unwrap();
    net.directory.add_token(key.public());
    assert!(net.directory.is_pending_token(&key.public()));
    join_with(&net, &spent).await.unwrap();
    // Used twice, or expired: the handshake itself fails. Guessed: likewise.
    assert!(matches!(join_with(&net, &spent).await, Err(JoinError::TokenRefused)));
    assert!(matches!(
        join_with(&net, &token(&net, &[&address.to_string()], 6)).await,
        Err(JoinError::TokenRefused)
    ));
    // Spent between the handshake and the request: the service says so, once and for all.
    let raced = token(&net, &[&address.to_string()], 7);
    net.directory.add_token(raced.key().unwrap().public());
    struct Late;
    #[async_trait]
    impl JoinService for Late {
        async fn join(&self, _token_key: [u8; 32], _request: Bytes) -> Result<Bytes, Refused> {
            Err(Refused("the token is spent".to_owned()))
        }
    }
    one.register_join(Arc::new(Late));
    assert!(matches!(join_with(&net, &raced).await, Err(JoinError::Refused(reason)) if reason == "the token is spent"));
}

#[tokio::test]
async fn a_token_of_another_cluster_talks_to_nobody() {
    let net = Net::new();
    let (_one, address) = net.start(1);
    let addresses = vec![address.to_string()];
    let other = JoinToken::generate(CLUSTER, [1; 32], addresses, &Seeded::new(5)).unwrap();
    net.directory.add_token(other.key().unwrap().public());
    assert!(matches!(
        join_with(&net, &other).await,
        Err(JoinError::WrongCluster { .. })
    ));
}

#[test]
fn quic_gap_fragments() {
    assert!(quinn_proto_patch() >= 15, "RUSTSEC-2026-0185");
}

#[test]
fn quic_bad_transport_params() {
    assert!(quinn_proto_patch() >= 14, "RUSTSEC-2026-0037");
}

/// The third number of quinn-proto's locked version 0.11.x.
fn quinn_proto_patch() -> u32 {
    let lock = include_str!("../../../Cargo.lock");
    let version = lock.split("name = \"quinn-proto\"\nversion = \"0.11.").nth(1).unwrap();
    version.split('"').next().unwrap().parse().unwrap()
}
