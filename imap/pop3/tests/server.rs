//! Sessions over a mail store, told in the words on the wire, with the `pop3-*` rows of the catalogue of bad inputs as
//! they end at a client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use core_types::limits::{POP3_IDLE_TIMEOUT, POP3_JUNK_COMMANDS_MAX, SESSIONS_PER_ACCOUNT_MAX, WRITE_TIMEOUT};
use core_types::{GroupId, MailboxName};
use mailstore::testing::TestStore;
use pop3::{Context, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use wire::{BoxStream, Connection, Limiter, ServerTls, Shutdown};

const MESSAGE: &[u8] = b"From: a@example.org\r\nSubject: hello\r\n\r\none\r\ntwo\r\nthree\r\n";

/// A connection's server side, as one test wants it.
struct Setup {
    plain_login: bool,
    /// TLS has begun with the first octet.
    secure: bool,
    tls: Option<Arc<ServerTls>>,
    shutdown: Shutdown,
    /// Octets that fit between client and server.
    room: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            plain_login: true,
            secure: false,
            tls: None,
            shutdown: Shutdown::never(),
            room: 4096,
        }
    }
}

struct Client {
    stream: BoxStream,
    pending: Vec<u8>,
    server: JoinHandle<()>,
}

fn connection(setup: Setup, stream: BoxStream) -> Connection {
    let peer = "192.0.2.1:4711".parse().unwrap();
    Connection {
        stream,
        peer,
        secure: setup.secure,
        tls: setup.tls,
        plain_login: setup.plain_login,
        shutdown: setup.shutdown,
        permit: Limiter::new(1000, 1000).admit(peer.ip()).unwrap(),
    }
}

impl Client {
    fn connect(context: &Context, setup: Setup) -> Self {
        let (client, server) = tokio::io::duplex(setup.room);
        let connection = connection(setup, Box::new(server));
        Self {
            stream: Box::new(client),
            pending: Vec::new(),
            server: tokio::spawn(serve(connection, context.clone())),
        }
    }

    async fn greeted(context: &Context, setup: Setup) -> Self {
        let mut client = Self::connect(context, setup);
        assert_eq!(client.line().await, "+OK mail.example.test POP3 ready");
        client
    }

    async fn logged_in(context: &Context, user: u32) -> Self {
        let mut client = Self::greeted(context, Setup::default()).await;
        client.log_in(user).await;
        client
    }

    async fn log_in(&mut self, user: u32) {
        assert_eq!(self.ask(&format!("USER user{user}@example.test")).await, "+OK");
        let reply = self.ask("PASS secret").await;
        assert!(reply.starts_with("+OK "), "{reply}");
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a command and reads the first line of its answer.
    async fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n").as_bytes()).await;
        self.line().await
    }

    /// The octets up to and with `end`.
    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        let mut searched = 0_usize;
        loop {
            let from = searched.saturating_sub(end.len());
            if let Some(at) = self.pending[from..].windows(end.len()).position(|window| window == end) {
                let rest = self.pending.split_off(from + at + end.len());
                return std::mem::replace(&mut self.pending, rest);
            }
            searched = self.pending.len();
            let count = self.stream.read_buf(&mut self.pending).await.unwrap();
            assert!(count > 0, "closed after {:?}", String::from_utf8_lossy(&self.pending));
        }
    }

    async fn line(&mut self) -> String {
        let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
        line.trim_end().to_owned()
    }

    /// The lines of a listing, behind its first line.
    async fn listing(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.line().await.as_str() {
                "." => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// A message as the client has it in the end, behind the first line of the answer.
    async fn message(&mut self) -> Vec<u8> {
        // An empty message ends with the answer's own line end in front.
        let sent = self.until(b"\r\n.\r\n").await;
        let body = sent.strip_suffix(b".\r\n").unwrap();
        let lines = body.split_inclusive(|byte| *byte == b'\n');
        lines
            .flat_map(|line| line.strip_prefix(b".").unwrap_or(line))
            .copied()
            .collect()
    }

    /// What comes until the server closes.
    async fn rest(mut self) -> String {
        let _ = self.stream.read_to_end(&mut self.pending).await;
        self.server.await.unwrap();
        String::from_utf8(self.pending).unwrap()
    }

    /// Goes away without a word.
    async fn drop_connection(self) {
        drop(self.stream);
        self.server.await.unwrap();
    }

    async fn quit(mut self) -> String {
        self.send(b"QUIT\r\n").await;
        self.rest().await
    }
}

async fn store(users: u32) -> (TestStore, Context) {
    let test = TestStore::new(users).await;
    let context = Context::new(test.store.clone(), "mail.example.test");
    (test, context)
}

/// One account with so many messages.
async fn store_with(messages: usize) -> (TestStore, Context) {
    let (test, context) = store(1).await;
    for _ in 0..messages {
        test.deliver(&test.accounts[0], MESSAGE).await;
    }
    (test, context)
}

async fn count(context: &Context) -> String {
    let mut client = Client::logged_in(context, 1).await;
    let stat = client.ask("STAT").await;
    client.quit().await;
    stat.split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test]
async fn a_session_reads_and_deletes() {
    let (_test, context) = store_with(3).await;
    let size = MESSAGE.len();
    let mut client = Client::logged_in(&context, 1).await;
    assert_eq!(client.ask("STAT").await, format!("+OK 3 {}", 3 * size));
    assert_eq!(client.ask("LIST").await, "+OK");
    let sizes: Vec<_> = (1..=3).map(|number| format!("{number} {size}")).collect();
    assert_eq!(client.listing().await, sizes);
    client.ask("UIDL").await;
    let uidls = client.listing().await;
    assert_eq!(client.ask("RETR 2").await, format!("+OK {size} octets"));
    assert_eq!(client.message().await, MESSAGE);
    assert_eq!(client.ask("TOP 3 1").await, "+OK");
    let top = b"From: a@example.org\r\nSubject: hello\r\n\r\none\r\n";
    assert_eq!(client.message().await, top);
    assert!(client.ask("DELE 2").await.starts_with("+OK"));
    assert_eq!(client.ask("STAT").await, format!("+OK 2 {}", 2 * size));
    assert_eq!(client.quit().await, "+OK\r\n");
    assert_eq!(context.session_count(), 0);

    let mut client = Client::logged_in(&context, 1).await;
    client.ask("UIDL").await;
    let left = client.listing().await;
    let ids = |lines: &[String]| -> Vec<String> {
        let ids = lines.iter().map(|line| line.split(' ').nth(1).unwrap().to_owned());
        ids.collect()
    };
    let before = ids(&uidls);
    assert_eq!(ids(&left), [before[0].clone(), before[2].clone()]);
}

#[tokio::test]
async fn five_megabytes_come_byte_for_byte() {
    let (test, context) = store(1).await;
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    let mut number = 0_u32;
    while message.len() < 5_000_000 {
        message.extend_from_slice(match number % 5 {
            0 => b".\r\n".as_slice(),
            1 => b"..\r\n",
            2 => b".x\r\n",
            3 => b"\r\n",
            _ => b"a line without a dot at its start.\r\n",
        });
        message.extend_from_slice(format!("{number}\r\n").as_bytes());
        number += 1;
    }
    test.deliver(&test.accounts[0], &message).await;
    let setup = Setup {
        room: 64 * 1024,
        ..Setup::default()
    };
    let mut client = Client::greeted(&context, setup).await;
    client.log_in(1).await;
    assert_eq!(client.ask("RETR 1").await, format!("+OK {} octets", message.len()));
    assert!(client.message().await == message, "every octet");
    client.ask("TOP 1 0").await;
    assert_eq!(client.message().await, b"Subject: large\r\n\r\n");
    assert_eq!(client.ask("NOOP").await, "+OK");
}

#[tokio::test]
async fn pop3_dot_lines() {
    let (test, context) = store(1).await;
    let messages: [&[u8]; 3] = [b"A: b\r\n\r\n.\r\n..\r\n.x\r\nend", b".\r\n", b"A: b\r\n\r\n."];
    for message in messages {
        test.deliver(&test.accounts[0], message).await;
    }
    let mut client = Client::logged_in(&context, 1).await;
    for (number, message) in (1..).zip(messages) {
        client.ask(&format!("RETR {number}")).await;
        let mut expected = message.to_vec();
        if !expected.ends_with(b"\r\n") {
            expected.extend_from_slice(b"\r\n");
        }
        assert_eq!(client.message().await, expected);
    }
    assert_eq!(client.quit().await, "+OK\r\n");
}

#[tokio::test]
async fn pop3_pass_before_user() {
    let (_test, context) = store_with(1).await;
    let mut client = Client::greeted(&context, Setup::default()).await;
    assert!(client.ask("PASS secret").await.starts_with("-ERR"));
    client.log_in(1).await;
}

#[tokio::test]
async fn pop3_user_clear() {
    let (_test, context) = store(1).await;
    let setup = Setup {
        plain_login: false,
        ..Setup::default()
    };
    let mut client = Client::greeted(&context, setup).await;
    for command in [
        "USER user1@example.test",
        "PASS secret",
        "AUTH PLAIN AHVzZXIxQGV4YW1wbGUudGVzdABzZWNyZXQ=",
    ] {
        assert_eq!(client.ask(command).await, "-ERR [SYS/PERM] TLS needed");
    }
    assert!(client.ask("STAT").await.starts_with("-ERR"));
}

#[tokio::test]
async fn pop3_line_256() {
    let (_test, context) = store(1).await;
    let mut client = Client::greeted(&context, Setup::default()).await;
    assert!(client.ask(&"x".repeat(254)).await.starts_with("-ERR line too long"));
    assert!(client.ask("CAPA").await.starts_with("+OK"));
    client.listing().await;
    client.send(&[b'x'; 4096]).await;
    assert_eq!(client.rest().await, "-ERR line too long\r\n");
}

#[tokio::test]
async fn pop3_retr_deleted() {
    let (_test, context) = store_with(2).await;
    let mut client = Client::logged_in(&context, 1).await;
    client.ask("DELE 1").await;
    for command in ["RETR 1", "DELE 1", "TOP 1 0", "LIST 1", "UIDL 1", "RETR 3", "RETR 0"] {
        assert!(client.ask(command).await.starts_with("-ERR"), "{command}");
    }
}

#[tokio::test]
async fn pop3_drop_before_quit() {
    let (_test, context) = store_with(2).await;
    let mut client = Client::logged_in(&context, 1).await;
    client.ask("DELE 1").await;
    client.drop_connection().await;
    assert_eq!(count(&context).await, "2");
}

#[tokio::test]
async fn pop3_quit_no_quorum() {
    let (test, context) = store_with(2).await;
    let mut client = Client::logged_in(&context, 1).await;
    client.ask("DELE 1").await;
    test.set_available(test.accounts[0].group, false);
    assert!(client.quit().await.starts_with("-ERR [SYS/TEMP]"));
    test.set_available(test.accounts[0].group, true);
    assert_eq!(count(&context).await, "2");
}

#[tokio::test]
async fn pop3_new_mail_in_session() {
    let (test, context) = store_with(1).await;
    let mut client = Client::logged_in(&context, 1).await;
    test.deliver(&test.accounts[0], MESSAGE).await;
    assert_eq!(client.ask("STAT").await, format!("+OK 1 {}", MESSAGE.len()));
    assert!(client.ask("RETR 2").await.starts_with("-ERR"));
    client.ask("RSET").await;
    assert_eq!(client.ask("LIST").await, "+OK");
    assert_eq!(client.listing().await.len(), 1);
    client.ask("DELE 1").await;
    assert_eq!(client.quit().await, "+OK\r\n");
    assert_eq!(count(&context).await, "1");
}

#[tokio::test]
async fn pop3_uidl_stable() {
    let (test, context) = store_with(1).await;
    let uidl = async || {
        let mut client = Client::logged_in(&context, 1).await;
        client.ask("UIDL 1").await
    };
    let before = uidl().await;
    // Another UID in the INBOX, as after a merge.
    let mail = test.store.account(&test.accounts[0]);
    let inbox = mail.select(&MailboxName::inbox()).await.unwrap().unwrap();
    let archive = mail.mailbox_by_name(&MailboxName::parse("Archive").unwrap()).await;
    let (inbox, archive, old) = (inbox.mailbox.guid, archive.unwrap().unwrap().guid, inbox.messages);
    let guids = vec![old[0].guid];
    mail.move_messages(inbox, archive, guids.clone()).await.unwrap();
    mail.move_messages(archive, inbox, guids).await.unwrap();
    let new = mail.select(&MailboxName::inbox()).await.unwrap().unwrap().messages;
    assert_ne!(new[0].uid, old[0].uid);
    assert_eq!(uidl().await, before);
    assert_eq!(before, format!("+OK 1 {}", old[0].guid));
}

#[tokio::test]
async fn pop3_auth_resp_codes() {
    let (test, context) = store_with(1).await;
    let mut client = Client::greeted(&context, Setup::default()).await;
    for user in ["user1@example.test", "nobody@example.test", "no address"] {
        assert_eq!(client.ask(&format!("USER {user}")).await, "+OK");
        assert_eq!(client.ask("PASS wrong").await, "-ERR [AUTH] wrong name or password");
    }
    // Without a majority of the directory nobody can say that a password is wrong.
    test.set_available(GroupId::DIRECTORY, false);
    client.ask("USER user1@example.test").await;
    assert!(client.ask("PASS wrong").await.starts_with("-ERR [SYS/TEMP]"));
    test.set_available(GroupId::DIRECTORY, true);
    // The password is right, but the maildrop might be an old one.
    test.set_available(test.accounts[0].group, false);
    client.ask("USER user1@example.test").await;
    assert!(client.ask("PASS secret").await.starts_with("-ERR [SYS/TEMP]"));
    assert_eq!(context.session_count(), 0);
    test.set_available(test.accounts[0].group, true);
    client.log_in(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_network_with_too_many_failures_is_turned_away() {
    let (test, context) = store(1).await;
    let peer = "192.0.2.1".parse().unwrap();
    for _ in 0..200 {
        let _ = test
            .store
            .directory()
            .authenticate("user1@example.test", b"wrong", peer)
            .await;
    }
    let mut client = Client::greeted(&context, Setup::default()).await;
    client.send(b"USER user1@example.test\r\nPASS secret\r\nCAPA\r\n").await;
    let rest = client.rest().await;
    assert!(rest.starts_with("+OK\r\n-ERR [LOGIN-DELAY] "), "{rest}");
    assert_eq!(rest.lines().count(), 2, "and that is the end");
}

#[tokio::test]
async fn pop3_apop() {
    let (_test, context) = store(1).await;
    let mut client = Client::connect(&context, Setup::default());
    assert!(!client.line().await.contains('<'), "no APOP challenge in the greeting");
    assert!(client.ask("APOP user1@example.test 00").await.starts_with("-ERR"));
    client.ask("CAPA").await;
    assert!(!client.listing().await.iter().any(|line| line.contains("APOP")));
}

#[tokio::test]
async fn long_listings_are_whole_and_in_order() {
    let (test, context) = store_with(1).await;
    let mail = test.store.account(&test.accounts[0]);
    for _ in 0..12 {
        let inbox = mail.select(&MailboxName::inbox()).await.unwrap().unwrap();
        let guids = inbox.messages.iter().map(|message| message.guid).collect();
        mail.copy(inbox.mailbox.guid, inbox.mailbox.guid, guids).await.unwrap();
    }
    let inbox = mail.select(&MailboxName::inbox()).await.unwrap().unwrap();
    let mut client = Client::logged_in(&context, 1).await;
    client.send(b"UIDL\r\nNOOP\r\n").await;
    client.line().await;
    let lines = client.listing().await;
    assert_eq!(lines.len(), 4096);
    for (number, (line, message)) in (1..).zip(lines.iter().zip(&inbox.messages)) {
        assert_eq!(*line, format!("{number} {}", message.guid));
    }
    assert_eq!(client.line().await, "+OK", "the NOOP behind it");
    let all: String = (1..=4096).map(|number| format!("DELE {number}\r\n")).collect();
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let sending = tokio::spawn(async move {
        writer.write_all(all.as_bytes()).await.unwrap();
        writer.write_all(b"QUIT\r\n").await.unwrap();
    });
    let mut answers = String::new();
    reader.read_to_string(&mut answers).await.unwrap();
    sending.await.unwrap();
    assert_eq!(answers.lines().count(), 4097);
    assert!(answers.lines().all(|line| line.starts_with("+OK")));
    assert_eq!(count(&context).await, "0");
}

#[tokio::test]
async fn pop3_pipelining_burst() {
    let (_test, context) = store(1).await;
    let client = Client::logged_in(&context, 1).await;
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let sending = tokio::spawn(async move { writer.write_all(&b"NOOP\r\n".repeat(100_000)).await });
    let mut answers = String::new();
    reader.read_to_string(&mut answers).await.unwrap();
    client.server.await.unwrap();
    drop(reader);
    let _ = sending.await.unwrap();
    let lines: Vec<_> = answers.lines().collect();
    let (last, first) = lines.split_last().unwrap();
    assert!(last.starts_with("-ERR [SYS/TEMP]"), "{last}");
    assert!(first.iter().all(|line| *line == "+OK"));
    assert_eq!(lines.len(), POP3_JUNK_COMMANDS_MAX as usize);
}

#[tokio::test]
async fn a_message_whose_bytes_are_lost_is_refused_and_the_session_goes_on() {
    let (test, context) = store_with(2).await;
    let mut client = Client::logged_in(&context, 1).await;
    for path in test.disk.paths() {
        test.disk.make_unreadable(&path);
    }
    assert!(client.ask("RETR 1").await.starts_with("-ERR [SYS/TEMP]"));
    assert!(client.ask("TOP 2 0").await.starts_with("-ERR [SYS/TEMP]"));
    assert_eq!(client.ask("NOOP").await, "+OK");
    assert_eq!(client.quit().await, "+OK\r\n");
}

#[tokio::test]
async fn sessions_of_one_account_do_not_shut_each_other_out() {
    let (_test, context) = store_with(2).await;
    let mut first = Client::logged_in(&context, 1).await;
    let mut second = Client::logged_in(&context, 1).await;
    second.ask("DELE 1").await;
    first.ask("DELE 1").await;
    first.ask("RSET").await;
    assert_eq!(second.quit().await, "+OK\r\n");
    assert_eq!(
        first.ask("RETR 1").await,
        "-ERR the message was deleted by another session"
    );
    assert!(first.ask("RETR 2").await.starts_with("+OK"));
    first.message().await;
    first.ask("DELE 1").await;
    assert_eq!(first.quit().await, "+OK\r\n", "deleted is deleted");
    assert_eq!(count(&context).await, "1");
}

#[tokio::test]
async fn an_account_has_so_many_sessions_and_no_more() {
    let (_test, context) = store(2).await;
    let mut clients = Vec::new();
    for _ in 0..SESSIONS_PER_ACCOUNT_MAX {
        clients.push(Client::logged_in(&context, 1).await);
    }
    let mut late = Client::greeted(&context, Setup::default()).await;
    late.ask("USER user1@example.test").await;
    assert!(late.ask("PASS secret").await.starts_with("-ERR [IN-USE]"));
    Client::logged_in(&context, 2).await;
    clients.pop().unwrap().quit().await;
    late.log_in(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_and_nothing_deleted() {
    let (_test, context) = store_with(1).await;
    let mut client = Client::logged_in(&context, 1).await;
    client.ask("DELE 1").await;
    tokio::time::sleep(POP3_IDLE_TIMEOUT - Duration::from_secs(1)).await;
    assert_eq!(client.ask("NOOP").await, "+OK", "RFC 1939 3: ten minutes at least");
    for _ in 0..3 {
        tokio::time::sleep(POP3_IDLE_TIMEOUT / 4).await;
        client.send(b"x").await;
    }
    tokio::time::sleep(POP3_IDLE_TIMEOUT / 4).await;
    assert_eq!(client.rest().await, "", "octets that are no command do not count");
    assert_eq!(count(&context).await, "1");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_is_closed() {
    let (test, context) = store(1).await;
    test.deliver(&test.accounts[0], &b"x".repeat(1_000_000)).await;
    let mut client = Client::logged_in(&context, 1).await;
    client.send(b"DELE 1\r\nRSET\r\nRETR 1\r\n").await;
    tokio::time::sleep(WRITE_TIMEOUT * 2).await;
    tokio::time::timeout(Duration::from_secs(1), &mut client.server)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(context.session_count(), 0);
}

#[tokio::test]
async fn the_end_of_the_node_ends_sessions_without_update() {
    let (_test, context) = store_with(1).await;
    let (stopper, shutdown) = wire::Stopper::new();
    let setup = Setup {
        shutdown,
        ..Setup::default()
    };
    let mut client = Client::greeted(&context, setup).await;
    client.log_in(1).await;
    client.ask("DELE 1").await;
    stopper.stop();
    assert_eq!(client.rest().await, "");
    assert_eq!(count(&context).await, "1");
}

#[tokio::test]
async fn an_idle_session_is_small() {
    let (_test, context) = store(1).await;
    let session = serve(connection(Setup::default(), Box::new(tokio::io::empty())), context);
    assert!(size_of_val(&session) < 4096, "{} octets", size_of_val(&session));
}

mod stls {
    use super::*;
    use rustls::pki_types::{CertificateDer, ServerName};

    fn certificate() -> (Arc<ServerTls>, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(vec!["mail.example.test".to_owned()]).unwrap();
        let tls = ServerTls::from_pem(made.cert.pem().as_bytes(), made.signing_key.serialize_pem().as_bytes());
        (Arc::new(tls.unwrap()), made.cert.der().clone())
    }

    async fn handshake(client: Client, certificate: CertificateDer<'static>) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("mail.example.test").unwrap();
        let stream = connector.connect(name, client.stream).await.unwrap();
        Client {
            stream: Box::new(stream),
            ..client
        }
    }

    #[tokio::test]
    async fn a_session_goes_on_inside_tls() {
        let (_test, context) = store_with(1).await;
        let (tls, der) = certificate();
        let setup = Setup {
            plain_login: false,
            tls: Some(tls),
            ..Setup::default()
        };
        let mut client = Client::greeted(&context, setup).await;
        client.ask("CAPA").await;
        let capabilities = client.listing().await;
        assert!(capabilities.contains(&"STLS".to_owned()) && !capabilities.contains(&"USER".to_owned()));
        assert!(client.ask("STLS").await.starts_with("+OK"));
        let mut client = handshake(client, der).await;
        client.ask("CAPA").await;
        let capabilities = client.listing().await;
        assert!(!capabilities.contains(&"STLS".to_owned()) && capabilities.contains(&"SASL PLAIN".to_owned()));
        assert!(client.ask("STLS").await.starts_with("-ERR"));
        let plain = client.ask("AUTH PLAIN AHVzZXIxQGV4YW1wbGUudGVzdABzZWNyZXQ=").await;
        assert_eq!(plain, "+OK 1 messages");
        client.ask("RETR 1").await;
        assert_eq!(client.message().await, MESSAGE);
        assert_eq!(client.quit().await, "+OK\r\n");
    }

    #[tokio::test]
    async fn implicit_tls_needs_no_stls() {
        let (_test, context) = store_with(1).await;
        let setup = Setup {
            plain_login: false,
            secure: true,
            ..Setup::default()
        };
        let mut client = Client::greeted(&context, setup).await;
        client.ask("CAPA").await;
        assert!(!client.listing().await.contains(&"STLS".to_owned()));
        assert!(client.ask("STLS").await.starts_with("-ERR"));
        client.log_in(1).await;
    }

    #[tokio::test]
    async fn octets_behind_stls_end_the_session() {
        let (_test, context) = store(1).await;
        let (tls, _) = certificate();
        let setup = Setup {
            tls: Some(tls),
            ..Setup::default()
        };
        let mut client = Client::greeted(&context, setup).await;
        client.send(b"STLS\r\nUSER user1@example.test\r\n").await;
        assert_eq!(client.rest().await, "-ERR octets behind STLS\r\n");
    }

    #[tokio::test]
    async fn a_handshake_that_fails_ends_the_session() {
        let (_test, context) = store(1).await;
        let (tls, _) = certificate();
        let setup = Setup {
            tls: Some(tls),
            ..Setup::default()
        };
        let mut client = Client::greeted(&context, setup).await;
        client.ask("STLS").await;
        client.send(b"USER user1@example.test\r\nPASS secret\r\n").await;
        let mut answer = Vec::new();
        let _ = client.stream.read_to_end(&mut answer).await;
        client.server.await.unwrap();
        assert!(!answer.starts_with(b"+OK"), "no command runs");
    }
}
