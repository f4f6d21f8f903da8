//! TLS: STARTTLS, and TLS from the first byte.

use std::sync::Arc;
use std::time::Duration;

use core_types::limits::TLS_HANDSHAKE_TIMEOUT;
use mailstore::testing::TestStore;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use smtp::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use wire::{BoxStream, Limiter, Listener, Listening, PlainLogin, ServerTls, Shutdown, serve_listener};

use super::support::{Client, Setup, inbox, plain};

struct Certificate {
    server: Arc<ServerTls>,
    root: CertificateDer<'static>,
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(vec!["mx.example.test".to_owned()]).unwrap();
    let server = ServerTls::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap();
    Certificate {
        server: Arc::new(server),
        root: made.cert.der().clone(),
    }
}

fn connector(root: &CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn shake(connector: &TlsConnector, stream: BoxStream, name: &str) -> tokio_rustls::client::TlsStream<BoxStream> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    connector.connect(name, stream).await.unwrap()
}

async fn starttls(client: Client, root: &CertificateDer<'static>) -> Client {
    let mut client = client;
    client.script(&[("STARTTLS", "220 2.0.0")]).await;
    Client::over(Box::new(
        shake(&connector(root), client.stream, "mx.example.test").await,
    ))
}

fn listening(server: &Arc<ServerTls>, implicit_tls: bool) -> Listening {
    Listening {
        tls: Some(Arc::clone(server)),
        implicit_tls,
        plain_login: PlainLogin::Never,
    }
}

/// Hands out pipes as if they were accepted.
struct Pipes(tokio::sync::mpsc::Receiver<BoxStream>);

#[async_trait::async_trait]
impl Listener for Pipes {
    async fn accept(&mut self) -> std::io::Result<(BoxStream, std::net::SocketAddr)> {
        match self.0.recv().await {
            Some(stream) => Ok((stream, "192.0.2.1:7".parse().unwrap())),
            None => std::future::pending().await,
        }
    }
}

fn listen(test: &TestStore, role: Role, listening: Listening) -> tokio::sync::mpsc::Sender<BoxStream> {
    listen_with(test, role, listening, Limiter::default())
}

pub(crate) fn listen_with(
    test: &TestStore,
    role: Role,
    listening: Listening,
    limiter: Limiter,
) -> tokio::sync::mpsc::Sender<BoxStream> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let context = Setup::new(test, role).context();
    tokio::spawn(serve_listener(
        Pipes(receiver),
        listening,
        limiter,
        smtp::BUSY,
        Shutdown::never(),
        move |connection| smtp::serve(connection, context.clone()),
    ));
    sender
}

async fn dial(listener: &tokio::sync::mpsc::Sender<BoxStream>) -> BoxStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    listener.send(Box::new(far)).await.unwrap();
    Box::new(near)
}

#[tokio::test(start_paused = true)]
async fn a_message_sent_after_starttls_is_marked_so() {
    let test = TestStore::new(1).await;
    let tls = certificate();
    let client = Setup {
        tls: Some(Arc::clone(&tls.server)),
        ..Setup::new(&test, Role::Relay)
    }
    .greeted()
    .await;
    let mut client = starttls(client, &tls.root).await;
    let extensions = client.say("EHLO client.example").await;
    assert!(!extensions.contains("STARTTLS"), "{extensions}");
    client.script(&[("STARTTLS", "503 5.5.1")]).await;
    let reply = client
        .message("a@b.example", &["user1@example.test"], "Subject: x\r\n\r\ny")
        .await;
    assert!(reply.starts_with("250"), "{reply}");
    assert!(inbox(&test, &test.accounts[0]).await[0].contains(" with ESMTPS id "));
}

#[tokio::test(start_paused = true)]
async fn who_logged_in_before_tls_has_to_do_it_again() {
    let test = TestStore::new(1).await;
    let tls = certificate();
    let client = Setup {
        tls: Some(Arc::clone(&tls.server)),
        ..Setup::new(&test, Role::Submission)
    }
    .logged_in()
    .await;
    let mut client = starttls(client, &tls.root).await;
    client
        .script(&[
            ("MAIL FROM:<user1@example.test>", "503 5.5.1"),
            ("EHLO client.example", "250"),
            ("MAIL FROM:<user1@example.test>", "530 5.7.0"),
            (&format!("AUTH PLAIN {}", plain("user1@example.test", "secret")), "235"),
            ("MAIL FROM:<user1@example.test>", "250"),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn smtp_starttls_no_handshake() {
    let test = TestStore::new(0).await;
    let tls = certificate();
    let mut client = Setup {
        tls: Some(tls.server),
        ..Setup::new(&test, Role::Relay)
    }
    .greeted()
    .await;
    client.script(&[("STARTTLS", "220")]).await;
    let began = tokio::time::Instant::now();
    client.expect_closed().await;
    let waited = began.elapsed();
    assert!(
        waited >= TLS_HANDSHAKE_TIMEOUT && waited < TLS_HANDSHAKE_TIMEOUT + Duration::from_secs(5),
        "{waited:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn smtp_plain_on_465() {
    let test = TestStore::new(0).await;
    let tls = certificate();
    let listener = listen(&test, Role::Submission, listening(&tls.server, true));
    let mut stream = dial(&listener).await;
    stream.write_all(b"EHLO client.example\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // A TLS alert record, or nothing; never a reply.
    assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    let stream = shake(&connector(&tls.root), dial(&listener).await, "mx.example.test").await;
    let mut client = Client::over(Box::new(stream));
    assert!(client.reply().await.starts_with("220 "));
    assert!(client.say("EHLO client.example").await.contains("AUTH PLAIN"));
}

#[tokio::test(start_paused = true)]
async fn smtp_tls_sni_flood() {
    let test = TestStore::new(0).await;
    let tls = certificate();
    let listener = listen(&test, Role::Submission, listening(&tls.server, true));
    // The name in the handshake is one that nobody has; the certificate that comes is the only one there is.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(tls.root.clone()).unwrap();
    for index in 0..50 {
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let name = ServerName::try_from(format!("random{index}.example")).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let Err(error) = connector.connect(name, dial(&listener).await).await else {
            panic!("the certificate names another server")
        };
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn smtp_tls_ticket_cross() {
    let test = TestStore::new(0).await;
    let tls = certificate();
    // One client with one memory of tickets, to both listeners, with one certificate: the worst case.
    let connector = connector(&tls.root);
    let submission = listen(&test, Role::Submission, listening(&tls.server, true));
    let relay = listen(&test, Role::Relay, listening(&tls.server, false));
    for _ in 0..2 {
        let stream = shake(&connector, dial(&submission).await, "mx.example.test").await;
        let mut client = Client::over(Box::new(stream));
        client.reply().await;
        client.script(&[("QUIT", "221")]).await;
    }
    let mut clear = Client::over(dial(&relay).await);
    clear.reply().await;
    clear
        .script(&[("EHLO client.example", "250"), ("STARTTLS", "220")])
        .await;
    let stream = shake(&connector, clear.stream, "mx.example.test").await;
    let kind = stream.get_ref().1.handshake_kind();
    assert_eq!(kind, Some(rustls::HandshakeKind::Full));
}
