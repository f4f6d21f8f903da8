//! Clients that are slow, many, or hasty.

use std::time::Duration;

use core_types::limits::{SMTP_COMMAND_TIMEOUT, SMTP_DATA_RATE_WINDOW};
use mailstore::testing::TestStore;
use smtp::Role;
use tokio::time::Instant;
use wire::{Limiter, Listening, PlainLogin};

use super::support::{Client, Setup, inbox};
use super::tls::listen_with;

#[tokio::test(start_paused = true)]
async fn smtp_early_talker_over_the_wire() {
    let test = TestStore::new(1).await;
    for role in [Role::Relay, Role::Submission, Role::Lmtp] {
        let mut client = Setup::new(&test, role).connect();
        client.send("EHLO client.example\r\n").await;
        assert!(client.reply().await.starts_with("554 5.5.0"));
        client.expect_closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn smtp_slow_command() {
    let test = TestStore::new(1).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    let began = Instant::now();
    let reply = loop {
        client.send("N").await;
        if let Ok(reply) = tokio::time::timeout(Duration::from_secs(20), client.reply()).await {
            break reply;
        }
    };
    assert!(reply.starts_with("421 4.4.2"), "{reply}");
    assert!(began.elapsed() >= SMTP_COMMAND_TIMEOUT);
    assert!(began.elapsed() < SMTP_COMMAND_TIMEOUT + Duration::from_secs(2));
    client.expect_closed().await;
}

#[tokio::test(start_paused = true)]
async fn smtp_slow_data() {
    let test = TestStore::new(1).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    client
        .script(&[
            ("MAIL FROM:<>", "250"),
            ("RCPT TO:<user1@example.test>", "250"),
            ("DATA", "354"),
        ])
        .await;
    // Fast enough for ten minutes.
    for _ in 0..600 {
        client.send([b"x".repeat(600).as_slice(), b"\r\n"].concat()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let began = Instant::now();
    let reply = loop {
        client.send([b"x".repeat(48).as_slice(), b"\r\n"].concat()).await;
        if let Ok(reply) = tokio::time::timeout(Duration::from_secs(1), client.reply()).await {
            break reply;
        }
    };
    assert!(reply.starts_with("421 4.4.2"), "{reply}");
    assert!(began.elapsed() <= 2 * SMTP_DATA_RATE_WINDOW, "{:?}", began.elapsed());
    client.leave().await;
    assert!(inbox(&test, &test.accounts[0]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn silence_in_a_message_ends_it() {
    let test = TestStore::new(1).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    client
        .script(&[
            ("MAIL FROM:<>", "250"),
            ("RCPT TO:<user1@example.test>", "250"),
            ("DATA", "354"),
        ])
        .await;
    assert!(client.reply().await.starts_with("421 4.4.2"));
}

#[tokio::test(start_paused = true)]
async fn smtp_conn_flood() {
    let test = TestStore::new(0).await;
    let listening = Listening {
        tls: None,
        implicit_tls: false,
        plain_login: PlainLogin::Never,
    };
    let limiter = Limiter::default();
    let listener = listen_with(&test, Role::Relay, listening, limiter.clone());
    let mut held = Vec::new();
    let mut turned_away = 0;
    for _ in 0..2000 {
        let (near, far) = tokio::io::duplex(1024);
        listener.send(Box::new(far)).await.unwrap();
        let mut client = Client::over(Box::new(near));
        let reply = client.reply().await;
        if reply.starts_with("220 ") {
            held.push(client);
        } else {
            assert!(reply.starts_with("421 4.7.0"), "{reply}");
            client.expect_closed().await;
            turned_away += 1;
        }
    }
    assert_eq!(held.len(), core_types::limits::CONNECTIONS_PER_ADDRESS_MAX);
    assert_eq!(turned_away, 2000 - held.len());
    assert_eq!(limiter.count(), held.len());
}

#[tokio::test(start_paused = true)]
async fn smtp_disk_full_data() {
    let test = TestStore::new(1).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    // It becomes full while the message comes.
    client
        .script(&[
            ("MAIL FROM:<a@b.example>", "250"),
            ("RCPT TO:<user1@example.test>", "250"),
            ("DATA", "354"),
        ])
        .await;
    test.disk.set_capacity(Some(0));
    let text = format!("Subject: large\r\n\r\n{}", "x\r\n".repeat(1_000_000));
    client.send(format!("{text}\r\n.\r\n")).await;
    let reply = client.reply().await;
    assert!(reply.starts_with("452 4.3.1"), "{reply}");
    assert!(inbox(&test, &test.accounts[0]).await.is_empty());
    client.script(&[("MAIL FROM:<a@b.example>", "452 4.3.1")]).await;
    test.disk.set_capacity(None);
    let reply = client
        .message("a@b.example", &["user1@example.test"], "Subject: x\r\n\r\nbody")
        .await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    assert_eq!(inbox(&test, &test.accounts[0]).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_before_the_message_is_sent() {
    let test = TestStore::new(1).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    let mut lmtp = Setup::new(&test, Role::Lmtp).greeted().await;
    let room = |octets: Option<u64>| test.set_room(octets);
    room(Some(1000));
    client
        .script(&[
            ("MAIL FROM:<a@b.example> SIZE=1001", "452 4.3.1"),
            ("RCPT TO:<user1@example.test>", "503"),
            ("MAIL FROM:<a@b.example> SIZE=1000", "250"),
            ("RCPT TO:<user1@example.test>", "250"),
        ])
        .await;
    room(Some(999));
    client.script(&[("DATA", "452 4.3.1"), ("DATA", "503")]).await;
    // The octets of a refused chunk are no commands, and each recipient of LMTP has its reply.
    room(Some(5));
    for (last, replies) in [(" LAST", 2), ("", 1)] {
        lmtp.send(format!(
            "MAIL FROM:<>\r\nRCPT TO:<user1@example.test>\r\nRCPT TO:<user1@example.test>\r\nBDAT 6{last}\r\nQUIT\r\n"
        ))
        .await;
        for _ in 0..3 {
            assert!(lmtp.reply().await.starts_with("250"));
        }
        for _ in 0..replies {
            let reply = lmtp.reply().await;
            assert!(reply.starts_with("452 4.3.1"), "{reply}");
        }
        lmtp.script(&[("BDAT 0 LAST", "503"), ("NOOP", "250"), ("RSET", "250")])
            .await;
    }
    room(None);
    let text = "Subject: x\r\n\r\nbody";
    for client in [&mut client, &mut lmtp] {
        let reply = client.message("a@b.example", &["user1@example.test"], text).await;
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
    }
    assert_eq!(inbox(&test, &test.accounts[0]).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_large_message_streams_through_a_small_pipe() {
    let test = TestStore::new(1).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    let text = format!("Subject: large\r\n\r\n{}", "0123456789abcde\r\n".repeat(400_000));
    let reply = client
        .message("a@b.example", &["user1@example.test"], text.trim_end())
        .await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    let messages = inbox(&test, &test.accounts[0]).await;
    assert_eq!(super::support::without_trace(&messages[0]), text);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_vanishes_in_a_message_leaves_nothing() {
    let test = TestStore::new(1).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    client
        .script(&[
            ("MAIL FROM:<>", "250"),
            ("RCPT TO:<user1@example.test>", "250"),
            ("DATA", "354"),
        ])
        .await;
    client.send("Subject: half\r\n\r\n").await;
    client.leave().await;
    assert!(inbox(&test, &test.accounts[0]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_small() {
    let test = TestStore::new(0).await;
    let setup = Setup::new(&test, Role::Relay);
    let context = setup.context();
    let (_near, far) = tokio::io::duplex(16);
    let connection = wire::Connection {
        stream: Box::new(far),
        peer: "192.0.2.1:1".parse().unwrap(),
        secure: false,
        tls: None,
        plain_login: false,
        shutdown: setup.shutdown,
        permit: Limiter::default().admit("192.0.2.1".parse().unwrap()).unwrap(),
    };
    let size = size_of_val(&smtp::serve(connection, context));
    assert!(size < 6 * 1024, "{size} octets");
}
