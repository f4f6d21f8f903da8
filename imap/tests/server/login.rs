//! Greeting, capabilities, TLS, logging in and out.

use crate::client::{Client, Coming, Server};

#[tokio::test]
async fn a_session_greets_logs_in_and_ends() {
    let server = Server::new().await;
    let (mut client, greeting) = server.connect_as(Coming::default()).await;
    assert!(
        greeting.contains("AUTH=PLAIN") && !greeting.contains("UIDPLUS"),
        "{greeting}"
    );
    client.fails("SELECT INBOX", "BAD").await;
    client.fails("FETCH 1 FLAGS", "BAD").await;
    let answer = client.ok("LOGIN user1@example.test secret").await;
    assert!(
        answer.contains("[CAPABILITY IMAP4rev1") && answer.contains("UIDPLUS"),
        "{answer}"
    );
    client.fails("LOGIN user1@example.test secret", "BAD").await;
    client.fails("FETCH 1 FLAGS", "BAD").await;
    assert!(
        client
            .ok("NAMESPACE")
            .await
            .contains("* NAMESPACE ((\"\" \"/\")) NIL NIL")
    );
    assert!(client.ok("ID NIL").await.contains("* ID (\"name\" \"Everpost\")"));
    let answer = client.command("LOGOUT").await;
    assert!(answer.starts_with("* BYE") && answer.contains("TAG OK"), "{answer}");
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn sasl_plain_works_with_and_without_an_initial_response() {
    let server = Server::new().await;
    // NUL user1@example.test NUL secret
    let message = "AHVzZXIxQGV4YW1wbGUudGVzdABzZWNyZXQ=";
    let mut client = server.connect().await;
    client.ok(&format!("AUTHENTICATE PLAIN {message}")).await;
    let mut client = server.connect().await;
    client.send("x AUTHENTICATE PLAIN\r\n").await;
    assert!(client.line().await.starts_with('+'));
    client.send(format!("{message}\r\n")).await;
    assert!(client.line().await.starts_with("x OK [CAPABILITY"));
    let mut client = server.connect().await;
    client.fails("AUTHENTICATE CRAM-MD5", "NO").await;
    client.fails("AUTHENTICATE PLAIN AGEAYgBj", "BAD").await;
}

#[tokio::test(start_paused = true)]
async fn imap_auth_bad_base64() {
    let server = Server::new().await;
    let mut client = server.connect().await;
    let mut other = server.connect().await;
    client.send("x AUTHENTICATE PLAIN\r\n").await;
    client.line().await;
    client.send("====\r\n").await;
    assert!(client.line().await.starts_with("x BAD"));
    client.send("y AUTHENTICATE PLAIN\r\n").await;
    client.line().await;
    client.send("A".repeat(300_000)).await;
    let answer = client.rest().await;
    assert!(answer.starts_with("* BYE"), "{answer}");
    other.ok("LOGIN user1@example.test secret").await;
}

#[tokio::test(start_paused = true)]
async fn imap_auth_timing() {
    let server = Server::new().await;
    let mut client = server.connect().await;
    let known = client.command("LOGIN user1@example.test wrong").await;
    let unknown = client.command("LOGIN nobody@example.test wrong").await;
    assert!(known.contains("NO [AUTHENTICATIONFAILED]"), "{known}");
    assert_eq!(known, unknown);
    // The session goes on.
    client.ok("LOGIN user1@example.test secret").await;
}

#[tokio::test]
async fn imap_login_clear() {
    let server = Server::new().await;
    let coming = Coming {
        plain_login: false,
        ..Coming::default()
    };
    let (mut client, greeting) = server.connect_as(coming).await;
    assert!(
        greeting.contains("LOGINDISABLED") && !greeting.contains("AUTH="),
        "{greeting}"
    );
    client
        .fails("LOGIN user1@example.test secret", "NO [PRIVACYREQUIRED]")
        .await;
    client
        .fails("LOGIN user1@example.test wrong", "NO [PRIVACYREQUIRED]")
        .await;
    client.fails("AUTHENTICATE PLAIN", "NO [PRIVACYREQUIRED]").await;
    client.fails("STARTTLS", "BAD").await;
}

#[tokio::test]
async fn imap_preauth_never() {
    let server = Server::new().await;
    for (secure, plain_login) in [(false, false), (false, true), (true, false), (true, true)] {
        let coming = Coming {
            secure,
            plain_login,
            ..Coming::default()
        };
        let (mut client, greeting) = server.connect_as(coming).await;
        assert!(greeting.starts_with("* OK"), "{greeting}");
        client.fails("LIST \"\" *", "BAD").await;
    }
}

#[tokio::test]
async fn imap_caps_before_tls() {
    let server = Server::new().await;
    let (tls, connector) = crate::client::test_tls();
    let coming = Coming {
        plain_login: false,
        tls: Some(tls),
        ..Coming::default()
    };
    let (mut client, greeting) = server.connect_as(coming).await;
    assert!(
        greeting.contains("STARTTLS") && greeting.contains("LOGINDISABLED"),
        "{greeting}"
    );
    client.ok("STARTTLS").await;
    let mut client = client.into_tls(&connector).await;
    // The server says it unasked.
    let line = client.line().await;
    assert!(
        line.starts_with("* CAPABILITY IMAP4rev1") && line.contains("AUTH=PLAIN"),
        "{line}"
    );
    assert!(!line.contains("STARTTLS") && !line.contains("LOGINDISABLED"), "{line}");
    client.fails("STARTTLS", "BAD").await;
    let answer = client.ok("LOGIN user1@example.test secret").await;
    assert!(answer.contains("[CAPABILITY IMAP4rev1"), "{answer}");
    assert!(client.ok("CAPABILITY").await.contains("UIDPLUS"));
}

#[tokio::test]
async fn imap_starttls_injection() {
    let server = Server::new().await;
    let coming = Coming {
        plain_login: false,
        tls: Some(crate::client::test_tls().0),
        ..Coming::default()
    };
    let (mut client, _) = server.connect_as(coming).await;
    client.send("a STARTTLS\r\nb LOGIN user1@example.test secret\r\n").await;
    let rest = client.rest().await;
    assert!(rest.starts_with("* BYE") && !rest.contains("b OK"), "{rest}");
}

#[tokio::test]
async fn imap_starttls_after_login() {
    let server = Server::new().await;
    server.login().await.fails("STARTTLS", "BAD").await;
}

#[tokio::test]
async fn imap_http_first() {
    let server = Server::new().await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let rest = client.rest().await;
    assert!(rest.starts_with("* BYE") && rest.lines().count() == 1, "{rest}");
}

#[tokio::test]
async fn imap_max_sessions() {
    let server = Server::with_users(2).await;
    let mut clients: Vec<Client> = Vec::new();
    for _ in 0..core_types::limits::SESSIONS_PER_ACCOUNT_MAX {
        clients.push(server.login().await);
    }
    let mut client = server.connect().await;
    client.fails("LOGIN user1@example.test secret", "NO [LIMIT]").await;
    server.connect().await.ok("LOGIN user2@example.test secret").await;
    clients.pop().unwrap().command("LOGOUT").await;
    // The place is free as soon as the session is over.
    loop {
        tokio::task::yield_now().await;
        if client
            .command("LOGIN user1@example.test secret")
            .await
            .contains("TAG OK")
        {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_log_in_is_sent_away() {
    let server = Server::new().await;
    let mut client = server.connect().await;
    client.send("a LOGIN").await;
    assert!(client.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn who_sends_no_commands_before_login_is_sent_away() {
    let server = Server::new().await;
    let mut client = server.connect().await;
    client.send("x NONSENSE\r\n".repeat(50)).await;
    let rest = client.rest().await;
    assert_eq!(rest.matches("x BAD").count(), 20, "{rest}");
    assert!(rest.ends_with("* BYE Too many errors\r\n"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn who_guesses_passwords_is_sent_away() {
    let server = Server::new().await;
    let mut client = server.connect().await;
    client.send("x LOGIN user1@example.test wrong\r\n".repeat(9)).await;
    let rest = client.rest().await;
    assert!(rest.matches("x NO").count() < 5 && rest.contains("* BYE"), "{rest}");
}

#[tokio::test]
async fn a_directory_that_cannot_answer_does_not_say_wrong() {
    let server = Server::new().await;
    server.store.set_available(core_types::GroupId::DIRECTORY, false);
    let mut client = server.connect().await;
    client.fails("LOGIN user1@example.test wrong", "NO [UNAVAILABLE]").await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_log_in_does_not_stay() {
    let server = Server::new().await;
    let mut client = server.connect().await;
    let begin = tokio::time::Instant::now();
    for _ in 0..9 {
        client.send("x NOOP\r\n").await;
        assert!(client.line().await.starts_with("x OK"));
        tokio::time::sleep(std::time::Duration::from_secs(19)).await;
    }
    assert_eq!(client.rest().await, "* BYE Too slow to log in\r\n");
    assert_eq!(
        begin.elapsed().as_secs(),
        core_types::limits::IMAP_LOGIN_TIME_MAX.as_secs()
    );
}
