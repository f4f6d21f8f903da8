//! A server without sockets, and a client that speaks lines.

use std::net::SocketAddr;
use std::sync::Arc;

use imap::Context;
use mailstore::testing::TestStore;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use wire::{BoxStream, Connection, Limiter, ServerTls, Shutdown};

pub struct Server {
    pub store: TestStore,
    pub context: Context,
    pub limiter: Limiter,
    pub shutdown: Shutdown,
}

pub struct Client {
    stream: BufReader<BoxStream>,
    tag: u32,
}

/// How a client comes.
#[derive(Clone)]
pub struct Coming {
    pub secure: bool,
    pub plain_login: bool,
    pub tls: Option<Arc<ServerTls>>,
    pub buffer: usize,
}

impl Default for Coming {
    fn default() -> Self {
        Self {
            secure: false,
            plain_login: true,
            tls: None,
            buffer: 1 << 20,
        }
    }
}

impl Server {
    pub async fn new() -> Self {
        Self::with_users(1).await
    }

    pub async fn with_users(users: u32) -> Self {
        let store = TestStore::new(users).await;
        let context = Context::new(store.store.clone());
        Self {
            store,
            context,
            limiter: Limiter::new(1000, 1000),
            shutdown: Shutdown::never(),
        }
    }

    /// A raw connection.
    pub fn open(&self, coming: Coming) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(coming.buffer);
        let peer: SocketAddr = "127.0.0.1:1000".parse().unwrap();
        let connection = Connection {
            stream: Box::new(theirs),
            peer,
            secure: coming.secure,
            tls: coming.tls,
            plain_login: coming.plain_login,
            shutdown: self.shutdown.clone(),
            permit: self.limiter.admit(peer.ip()).unwrap(),
        };
        tokio::spawn(imap::serve(connection, self.context.clone()));
        ours
    }

    /// A client that has read the greeting.
    pub async fn connect(&self) -> Client {
        self.connect_as(Coming::default()).await.0
    }

    pub async fn connect_as(&self, coming: Coming) -> (Client, String) {
        let mut client = Client::new(self.open(coming));
        let greeting = client.line().await;
        assert!(greeting.starts_with("* OK [CAPABILITY "), "{greeting}");
        (client, greeting)
    }

    /// A client that is logged in as `user1`.
    pub async fn login(&self) -> Client {
        let mut client = self.connect().await;
        client.ok("LOGIN user1@example.test secret").await;
        client
    }

    /// A client with INBOX selected.
    pub async fn select(&self) -> Client {
        let mut client = self.login().await;
        client.ok("SELECT INBOX").await;
        client
    }

    /// Delivers to `user1`.
    pub async fn deliver(&self, message: &[u8]) {
        self.store.deliver(&self.store.accounts[0], message).await;
    }
}

impl Client {
    pub fn new(stream: impl wire::Stream) -> Self {
        Self {
            stream: BufReader::new(Box::new(stream)),
            tag: 0,
        }
    }

    pub fn into_stream(self) -> BoxStream {
        self.stream.into_inner()
    }

    /// After STARTTLS was answered.
    pub async fn into_tls(self, connector: &tokio_rustls::TlsConnector) -> Self {
        let name = rustls_pki_types::ServerName::try_from("mail.example.test").unwrap();
        Self::new(connector.connect(name, self.into_stream()).await.unwrap())
    }

    pub async fn send(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).await.unwrap();
    }

    /// Octets up to LF; empty at the end. Not UTF-8 is replaced.
    pub async fn raw_line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        loop {
            match self.stream.read_u8().await {
                Ok(b'\n') => {
                    line.push(b'\n');
                    return line;
                }
                Ok(octet) => line.push(octet),
                Err(_) => return line,
            }
        }
    }

    /// One response with its literals.
    pub async fn response(&mut self) -> Vec<u8> {
        let mut response = Vec::new();
        loop {
            let line = self.raw_line().await;
            response.extend_from_slice(&line);
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let length = text
                .strip_suffix('}')
                .and_then(|text| text.rsplit_once('{'))
                .and_then(|(_, length)| length.parse::<usize>().ok());
            let Some(length) = length else { return response };
            let mut literal = vec![0; length];
            self.stream.read_exact(&mut literal).await.unwrap();
            response.extend_from_slice(&literal);
        }
    }

    pub async fn line(&mut self) -> String {
        String::from_utf8_lossy(&self.response().await).trim_end().to_owned()
    }

    /// Sends a command and reads to its end, all as it came.
    pub async fn command_bytes(&mut self, command: impl AsRef<[u8]>) -> Vec<u8> {
        self.tag += 1;
        let tag = format!("a{} ", self.tag);
        let mut octets = tag.clone().into_bytes();
        octets.extend_from_slice(command.as_ref());
        octets.extend_from_slice(b"\r\n");
        self.send(octets).await;
        self.until(&tag).await
    }

    pub async fn until(&mut self, prefix: &str) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let response = self.response().await;
            assert!(!response.is_empty(), "closed: {}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&response);
            if response.starts_with(prefix.as_bytes()) {
                return all;
            }
        }
    }

    pub async fn command(&mut self, command: &str) -> String {
        let all = self.command_bytes(command).await;
        String::from_utf8_lossy(&all)
            .replace(&format!("a{} ", self.tag), "TAG ")
            .replace("\r\n", "\n")
    }

    /// A command that succeeds.
    pub async fn ok(&mut self, command: &str) -> String {
        let answer = self.command(command).await;
        assert!(
            answer.lines().any(|line| line.starts_with("TAG OK")),
            "{command}: {answer}"
        );
        answer
    }

    /// A command that fails with this.
    pub async fn fails(&mut self, command: &str, with: &str) {
        let answer = self.command(command).await;
        let last = answer.lines().last().unwrap_or_default();
        assert!(last.starts_with(&format!("TAG {with}")), "{command}: {answer}");
    }

    /// APPEND with a literal that does not wait.
    pub async fn append(&mut self, mailbox: &str, message: &[u8]) -> String {
        let mut command = format!("APPEND {mailbox} {{{}+}}\r\n", message.len()).into_bytes();
        command.extend_from_slice(message);
        let all = self.command_bytes(command).await;
        let answer = String::from_utf8_lossy(&all).into_owned();
        assert!(answer.contains(" OK [APPENDUID "), "{answer}");
        answer
    }

    /// Reads to the end of the connection.
    pub async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        let _ = self.stream.read_to_end(&mut all).await;
        String::from_utf8_lossy(&all).into_owned()
    }
}

/// A certificate, and a client that trusts it.
pub fn test_tls() -> (Arc<ServerTls>, tokio_rustls::TlsConnector) {
    let made = rcgen::generate_simple_self_signed(vec!["mail.example.test".to_owned()]).unwrap();
    let tls = ServerTls::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Arc::new(tls), Arc::new(config).into())
}
