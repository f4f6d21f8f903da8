//! A server on one end of a pipe, a client that speaks literally on the other.

use std::net::SocketAddr;
use std::sync::Arc;

use core_types::MailboxName;
use directory::Account;
use mailstore::testing::TestStore;
use smtp::{Context, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use wire::{BoxStream, Connection, Limiter, ServerTls, Shutdown};

/// How a connection is made.
pub(crate) struct Setup<'a> {
    pub(crate) test: &'a TestStore,
    pub(crate) role: Role,
    pub(crate) peer: &'a str,
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) plain_login: bool,
    pub(crate) shutdown: Shutdown,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(test: &'a TestStore, role: Role) -> Self {
        Self {
            test,
            role,
            peer: "192.0.2.1:1234",
            tls: None,
            plain_login: true,
            shutdown: Shutdown::never(),
        }
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            store: self.test.store.clone(),
            hostname: "mx.example.test".into(),
            role: self.role,
        }
    }

    /// Connects, without waiting for the greeting.
    pub(crate) fn connect(self) -> Client {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let peer: SocketAddr = self.peer.parse().unwrap();
        let context = self.context();
        let connection = Connection {
            stream: Box::new(far),
            peer,
            secure: false,
            tls: self.tls,
            plain_login: self.plain_login,
            shutdown: self.shutdown,
            permit: Limiter::default().admit(peer.ip()).unwrap(),
        };
        Client {
            stream: Box::new(near),
            unread: Vec::new(),
            server: Some(tokio::spawn(smtp::serve(connection, context))),
        }
    }

    /// Connects and says hello.
    pub(crate) async fn greeted(self) -> Client {
        let hello = if self.role == Role::Lmtp { "LHLO" } else { "EHLO" };
        let mut client = self.connect();
        assert!(client.reply().await.starts_with("220 mx.example.test "));
        assert!(client.say(&format!("{hello} client.example")).await.starts_with("250"));
        client
    }

    /// Connects, says hello and logs in as the first user.
    pub(crate) async fn logged_in(self) -> Client {
        let mut client = self.greeted().await;
        let login = plain("user1@example.test", "secret");
        assert!(client.say(&format!("AUTH PLAIN {login}")).await.starts_with("235"));
        client
    }
}

pub(crate) fn plain(name: &str, password: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(format!("\0{name}\0{password}"))
}

pub(crate) struct Client {
    pub(crate) stream: BoxStream,
    unread: Vec<u8>,
    server: Option<JoinHandle<()>>,
}

impl Client {
    pub(crate) fn over(stream: BoxStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
            server: None,
        }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next line, with its end; what there is when the connection ends.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                return String::from_utf8(self.unread.drain(..=end).collect()).unwrap();
            }
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece).await {
                Ok(0) | Err(_) => return String::from_utf8(std::mem::take(&mut self.unread)).unwrap(),
                Ok(count) => self.unread.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// The next reply, all its lines; empty when the connection ended.
    pub(crate) async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let line = self.line().await;
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply.replace("\r\n", "\n").trim_end().to_owned();
            }
        }
    }

    pub(crate) async fn say(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n")).await;
        self.reply().await
    }

    /// Says commands whose replies must begin so.
    pub(crate) async fn script(&mut self, dialogue: &[(&str, &str)]) {
        for (command, expected) in dialogue {
            let reply = self.say(command).await;
            assert!(reply.starts_with(expected), "{command:?} was answered {reply:?}");
        }
    }

    /// Sends a message to recipients; the reply (SMTP), or the first one (LMTP).
    pub(crate) async fn message(&mut self, from: &str, to: &[&str], text: &str) -> String {
        self.script(&[(&format!("MAIL FROM:<{from}>"), "250")]).await;
        for to in to {
            self.script(&[(&format!("RCPT TO:<{to}>"), "250")]).await;
        }
        self.script(&[("DATA", "354")]).await;
        self.send(format!("{text}\r\n.\r\n")).await;
        self.reply().await
    }

    pub(crate) async fn expect_closed(&mut self) {
        assert_eq!(self.line().await, "");
    }

    /// Goes away; returns when the server is through with the connection.
    pub(crate) async fn leave(self) {
        let Self { stream, server, .. } = self;
        drop(stream);
        if let Some(server) = server {
            server.await.unwrap();
        }
    }
}

/// The messages of an INBOX.
pub(crate) async fn inbox(test: &TestStore, account: &Account) -> Vec<String> {
    let mail = test.store.account(account);
    let inbox = mail.select(&MailboxName::inbox()).await.unwrap().unwrap();
    let mut messages = Vec::new();
    for row in inbox.messages {
        let bytes = mail.open(&row).await.unwrap();
        messages.push(String::from_utf8(bytes.read_all(0..u64::MAX).await.unwrap()).unwrap());
    }
    messages
}

/// What follows the trace fields.
pub(crate) fn without_trace(message: &str) -> &str {
    let received = message.find("Received: ").unwrap();
    let date = message[received..].find(";\r\n\t").unwrap() + received + 4;
    let end = message[date..].find("\r\n").unwrap();
    &message[date + end + 2..]
}
