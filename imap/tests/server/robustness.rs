//! Clients that break rules, break off, or want too much.

use tokio::io::AsyncWriteExt;

use crate::client::Server;

#[tokio::test]
async fn imap_literal_cut() {
    let server = Server::new().await;
    let mut client = server.login().await;
    let before = server.store.disk.paths();
    client.send("x APPEND INBOX {3000000+}\r\n").await;
    client.send(vec![b'x'; 2_000_000]).await;
    let mut stream = client.into_stream();
    stream.shutdown().await.unwrap();
    drop(stream);
    let mut other = server.login().await;
    assert!(other.ok("STATUS INBOX (MESSAGES)").await.contains("MESSAGES 0"));
    // The session ends and takes its file along.
    for _ in 0..1000 {
        if server.store.disk.paths() == before {
            return;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(server.store.disk.paths(), before);
}

#[tokio::test]
async fn imap_literal_nonsync_huge() {
    let server = Server::new().await;
    let mut client = server.connect().await;
    client.send("a LOGIN {104857600+}\r\n").await;
    let rest = client.rest().await;
    assert!(rest.starts_with("* BYE [ALERT]"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_too_slowly_is_given_up() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.send("x APPEND INBOX {3000000}\r\n").await;
    assert!(client.line().await.starts_with('+'));
    let begin = tokio::time::Instant::now();
    for _ in 0..11 {
        client.send("0123456789").await;
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
    let rest = client.rest().await;
    assert!(rest.starts_with("* BYE"), "{rest}");
    assert_eq!(begin.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_message_may_take_its_time_to_come() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.send("x APPEND INBOX {300000}\r\n").await;
    assert!(client.line().await.starts_with('+'));
    for _ in 0..10 {
        client.send(vec![b'x'; 30_000]).await;
        tokio::time::sleep(std::time::Duration::from_secs(50)).await;
    }
    client.send("\r\n").await;
    assert!(client.line().await.starts_with("x OK [APPENDUID"));
}

#[tokio::test]
async fn syntax_errors_do_not_end_the_session() {
    let server = Server::new().await;
    let mut client = server.select().await;
    for command in [
        "FETCH 1 (FLAGS",
        "LOGIN \"abc",
        "NOSUCH",
        "FETCH",
        "SEARCH",
        "STORE 1 FLAGS",
    ] {
        client.fails(command, "BAD").await;
    }
    client.send("* NOOP\r\n").await;
    assert!(client.line().await.starts_with("* BAD"));
    client.ok("NOOP").await;
}

#[tokio::test]
async fn pipelined_commands_are_answered_in_order() {
    let server = Server::new().await;
    let mut client = server.connect().await;
    client
        .send("1 LOGIN user1@example.test secret\r\n2 SELECT INBOX\r\n3 APPEND INBOX {3+}\r\nabc\r\n4 NOOP\r\n5 LOGOUT\r\n")
        .await;
    let rest = client.rest().await;
    let tagged: Vec<&str> = rest.lines().filter(|line| !line.starts_with('*')).collect();
    for (line, tag) in tagged.iter().zip(["1 OK", "2 OK", "3 OK", "4 OK", "5 OK"]) {
        assert!(line.starts_with(tag), "{rest}");
    }
    assert_eq!(tagged.len(), 5, "{rest}");
}

#[tokio::test]
async fn imap_search_regexish() {
    let server = Server::new().await;
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    message.resize(4 * 1024 * 1024, b'a');
    let mut client = server.select().await;
    client.append("INBOX", &message).await;
    for _ in 0..4 {
        client.ok("COPY 1 INBOX").await;
    }
    let needle = format!("{}b", "a".repeat(60 * 1024));
    let search = format!("SEARCH BODY {{{}+}}\r\n{needle}", needle.len());
    // Others get their turn between any two windows of a text.
    let mut other = server.select().await;
    let rounds = std::cell::Cell::new(0);
    let others = async {
        loop {
            other.ok("NOOP").await;
            rounds.set(rounds.get() + 1);
        }
    };
    tokio::select! {
        biased;
        answer = client.command(&search) => assert!(answer.contains("* SEARCH\n"), "{answer}"),
        () = others => {}
    }
    assert!(rounds.get() >= 20, "{}", rounds.get());

    // A search ends with its client: within a window, not with the mailbox.
    for _ in 0..60 {
        client.ok("COPY 1 INBOX").await;
    }
    client.ok("NOOP").await;
    client.send(format!("z {search}\r\n")).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    let sessions = server.limiter.count();
    drop(client);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.limiter.count(), sessions - 1);
}

#[tokio::test]
async fn an_idle_session_is_small() {
    let server = Server::new().await;
    let (_ours, theirs) = tokio::io::duplex(64);
    let peer = "127.0.0.1:1".parse().unwrap();
    let connection = wire::Connection {
        stream: Box::new(theirs),
        peer,
        secure: false,
        tls: None,
        plain_login: true,
        shutdown: wire::Shutdown::never(),
        permit: server.limiter.admit(peer.ip()).unwrap(),
    };
    let session = imap::serve(connection, server.context.clone());
    assert!(size_of_val(&session) < 8 * 1024, "{}", size_of_val(&session));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_before_the_literal_is_sent() {
    let server = Server::new().await;
    let mut client = server.login().await;
    server.store.set_room(Some(4));
    client.fails("APPEND INBOX {5}", "NO [UNAVAILABLE]").await;
    client.fails("APPEND INBOX {5+}\r\nabcde", "NO [UNAVAILABLE]").await;
    client.append("INBOX", b"abcd").await;
    server.store.set_room(None);
    client.append("INBOX", b"abcde").await;
    client.ok("SELECT INBOX").await;
    assert!(client.ok("STATUS INBOX (MESSAGES)").await.contains("MESSAGES 2"));
}
