//! Several sessions of one account, and deliveries meanwhile.

use std::time::Duration;

use crate::client::Server;

#[tokio::test]
async fn news_are_told_at_the_end_of_commands() {
    let server = Server::new().await;
    let (mut one, mut two) = (server.select().await, server.select().await);
    one.append("INBOX", b"Subject: one\r\n\r\none\r\n").await;
    one.append("INBOX", b"Subject: two\r\n\r\ntwo\r\n").await;
    assert!(two.ok("NOOP").await.contains("* 2 EXISTS\n"));
    one.ok("STORE 1 +FLAGS (\\Deleted)").await;
    assert!(two.ok("NOOP").await.contains("* 1 FETCH (FLAGS (\\Deleted"));
    one.ok("EXPUNGE").await;
    // Not in FETCH, STORE and SEARCH: sequence numbers stay what they were.
    let answer = two.command("FETCH 1:2 (FLAGS)").await;
    assert!(
        !answer.contains("EXPUNGE\n") && answer.contains("* 2 FETCH"),
        "{answer}"
    );
    two.fails("FETCH 1:2 (RFC822.SIZE)", "NO [EXPUNGEISSUED]").await;
    assert!(two.ok("SEARCH ALL").await.contains("* SEARCH 2\n"));
    assert!(two.ok("CHECK").await.contains("* 1 EXPUNGE\n"));
    assert!(two.ok("FETCH 1 UID").await.contains("UID 2"));
}

#[tokio::test]
async fn idle_tells_at_once() {
    let server = Server::new().await;
    let mut client = server.select().await;
    client.send("i IDLE\r\n").await;
    assert!(client.line().await.starts_with("+ "));
    server.deliver(b"Subject: one\r\n\r\none\r\n").await;
    assert_eq!(client.line().await, "* 1 EXISTS");
    assert_eq!(client.line().await, "* 1 RECENT");
    let mut other = server.select().await;
    other.ok("STORE 1 +FLAGS (\\Deleted)").await;
    assert!(client.line().await.starts_with("* 1 FETCH (FLAGS (\\Deleted"));
    other.ok("EXPUNGE").await;
    assert_eq!(client.line().await, "* 1 EXPUNGE");
    client.send("DONE\r\n").await;
    assert_eq!(client.line().await, "i OK IDLE completed");
}

#[tokio::test]
async fn imap_idle_other() {
    let server = Server::new().await;
    let mut client = server.select().await;
    client.send("i IDLE\r\n").await;
    client.line().await;
    client.send("x NOOP\r\n").await;
    assert!(client.line().await.starts_with("i BAD"));
    assert!(client.ok("NOOP").await.starts_with("TAG OK"));
}

#[tokio::test(start_paused = true)]
async fn imap_idle_30min() {
    let server = Server::new().await;
    let mut client = server.select().await;
    let begin = tokio::time::Instant::now();
    client.send("i IDLE\r\n").await;
    client.line().await;
    assert!(client.rest().await.starts_with("* BYE [INACTIVE] "));
    let minutes = begin.elapsed().as_secs() / 60;
    assert!((29..=30).contains(&minutes), "{minutes}");
}

#[tokio::test]
async fn imap_idle_flood() {
    let server = Server::new().await;
    let coming = crate::client::Coming {
        buffer: 256,
        ..crate::client::Coming::default()
    };
    let (mut client, _) = server.connect_as(coming).await;
    client.ok("LOGIN user1@example.test secret").await;
    client.ok("SELECT INBOX").await;
    client.send("i IDLE\r\n").await;
    client.line().await;
    let account = server.store.accounts[0].clone();
    let mail = server.store.store.account(&account);
    let inbox = mail
        .mailbox_by_name(&core_types::MailboxName::inbox())
        .await
        .unwrap()
        .unwrap();
    let message = server.store.ingest(b"Subject: flood\r\n\r\nflood\r\n").await;
    for _ in 0..2000 {
        mail.append(inbox.guid, &message, core_types::Flags::default(), None)
            .await
            .unwrap();
    }
    // What waited has become few words.
    client.send("DONE\r\n").await;
    let mut lines = 0;
    let mut last = String::new();
    loop {
        let line = client.line().await;
        if line.starts_with("i OK") {
            break;
        }
        if line.ends_with("EXISTS") {
            last = line;
        }
        lines += 1;
    }
    assert_eq!(last, "* 2000 EXISTS");
    assert!(lines < 200, "{lines}");
}

#[tokio::test]
async fn imap_select_deleted() {
    let server = Server::new().await;
    let (mut one, mut two) = (server.login().await, server.login().await);
    one.ok("CREATE x").await;
    two.ok("SELECT x").await;
    one.ok("SELECT x").await;
    assert!(one.ok("DELETE x").await.starts_with("TAG OK"));
    one.fails("FETCH 1 FLAGS", "BAD").await;
    two.send("z NOOP\r\n").await;
    assert!(two.rest().await.starts_with("* BYE"));
    let mut three = server.login().await;
    one.ok("CREATE y").await;
    three.ok("SELECT y").await;
    three.send("i IDLE\r\n").await;
    three.line().await;
    one.ok("DELETE y").await;
    assert!(three.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn a_renamed_mailbox_stays_selected() {
    let server = Server::new().await;
    let (mut one, mut two) = (server.login().await, server.login().await);
    one.ok("CREATE x").await;
    two.ok("SELECT x").await;
    one.ok("RENAME x y").await;
    one.append("y", b"Subject: one\r\n\r\none\r\n").await;
    assert!(two.ok("NOOP").await.contains("* 1 EXISTS"));
}

#[tokio::test]
async fn an_idle_session_stays_with_its_account() {
    let server = Server::with_users(2).await;
    server.deliver(b"Subject: one\r\n\r\none\r\n").await;
    let mut one = server.select().await;
    one.send("i IDLE\r\n").await;
    one.line().await;
    let mut two = server.connect().await;
    two.ok("LOGIN user2@example.test secret").await;
    assert!(two.ok("SELECT INBOX").await.contains("* 0 EXISTS"));
    one.send("DONE\r\n").await;
    assert!(one.line().await.starts_with("i OK"));
    assert!(one.ok("FETCH 1 BODY.PEEK[TEXT]").await.contains("one"));
}

#[tokio::test(start_paused = true)]
async fn imap_fetch_all_slow_reader() {
    let server = Server::with_users(2).await;
    let account = server.store.accounts[0].clone();
    let mail = server.store.store.account(&account);
    let inbox = mail
        .mailbox_by_name(&core_types::MailboxName::inbox())
        .await
        .unwrap()
        .unwrap();
    let message = server
        .store
        .ingest(&[b"Subject: x\r\n\r\n".as_slice(), &[b'x'; 4000]].concat())
        .await;
    for _ in 0..300 {
        mail.append(inbox.guid, &message, core_types::Flags::default(), None)
            .await
            .unwrap();
    }
    let coming = crate::client::Coming {
        buffer: 1024,
        ..crate::client::Coming::default()
    };
    let (mut slow, _) = server.connect_as(coming).await;
    slow.ok("LOGIN user1@example.test secret").await;
    slow.ok("SELECT INBOX").await;
    slow.send("x FETCH 1:* BODY.PEEK[]\r\n").await;
    // Others are not held up by it, nor are deliveries.
    let mut other = server.select().await;
    assert!(other.ok("FETCH 300 BODY.PEEK[]").await.contains("Subject: x"));
    server.deliver(b"Subject: y\r\n\r\ny\r\n").await;
    assert!(other.ok("NOOP").await.contains("* 301 EXISTS"));
    // A reader of 1 KiB/s is served.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(slow.response().await.len() > 4000);
    }
    // One that does not read at all is given up.
    tokio::time::sleep(core_types::limits::WRITE_TIMEOUT + Duration::from_secs(1)).await;
    let rest = slow.rest().await;
    assert!(rest.len() < 100_000 && !rest.contains("x OK"), "{}", rest.len());
}

#[tokio::test]
async fn news_of_many_commands_are_told_all_at_once() {
    let server = Server::new().await;
    let (mut one, mut two) = (server.select().await, server.select().await);
    one.append("INBOX", b"Subject: x\r\n\r\nx\r\n").await;
    one.append("INBOX", b"Subject: y\r\n\r\ny\r\n").await;
    // More changes than are read at once, in several ops.
    for _ in 0..11 {
        one.ok("COPY 1:* INBOX").await;
    }
    let answer = two.ok("NOOP").await;
    assert!(answer.contains("* 4096 EXISTS\n"), "{answer}");
    assert!(two.ok("NOOP").await.starts_with("TAG OK"));
    // Read by pages, of which none is left out, nor any of its messages.
    let answer = two.ok("FETCH 1:* UID").await;
    assert_eq!(
        answer.lines().filter(|line| line.contains(" FETCH (UID ")).count(),
        4096
    );
    let answer = two.ok("SEARCH ALL").await;
    let found = answer
        .lines()
        .next()
        .unwrap()
        .split(' ')
        .skip(2)
        .map(|number| number.parse::<u32>().unwrap());
    assert!(found.eq(1..=4096));
}

#[tokio::test]
async fn who_counts_in_uids_is_not_told_of_those_that_are_gone() {
    let server = Server::new().await;
    let (mut one, mut two) = (server.select().await, server.select().await);
    one.append("INBOX", b"Subject: x\r\n\r\nx\r\n").await;
    one.append("INBOX", b"Subject: y\r\n\r\ny\r\n").await;
    two.ok("NOOP").await;
    one.ok("STORE 1 +FLAGS (\\Deleted)").await;
    one.ok("EXPUNGE").await;
    let answer = two.ok("UID FETCH 1:* (RFC822.SIZE)").await;
    assert!(answer.contains("UID 2") && !answer.contains("UID 1 "), "{answer}");
}

#[tokio::test]
async fn who_only_examines_sets_no_flags() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.append("INBOX", b"Subject: x\r\n\r\nx\r\n").await;
    client.ok("EXAMINE INBOX").await;
    assert!(client.ok("FETCH 1 BODY[]").await.contains("Subject: x"));
    let answer = client.ok("FETCH 1 FLAGS").await;
    assert!(!answer.contains("\\Seen"), "{answer}");
    // Any part of some fields is that part.
    let answer = client.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (Subject)]<4.1000>").await;
    assert!(answer.contains("<4> {10}\nect: x\n\n"), "{answer}");
    client.ok("SELECT INBOX").await;
    client.ok("FETCH 1 BODY[]").await;
    assert!(client.ok("FETCH 1 FLAGS").await.contains("\\Seen"));
}

#[tokio::test]
async fn who_only_examines_leaves_recent_to_others() {
    let server = Server::new().await;
    let mut examiner = server.login().await;
    examiner.ok("EXAMINE INBOX").await;
    server.deliver(b"Subject: one\r\n\r\none\r\n").await;
    assert!(examiner.ok("NOOP").await.contains("* 1 RECENT\n"));
    let mut reader = server.login().await;
    assert!(reader.ok("SELECT INBOX").await.contains("* 1 RECENT\n"));
    assert!(examiner.ok("EXAMINE INBOX").await.contains("* 0 RECENT\n"));
}

#[tokio::test]
async fn a_silent_store_tells_what_others_changed() {
    let server = Server::new().await;
    let (mut one, mut two) = (server.select().await, server.select().await);
    one.append("INBOX", b"Subject: x\r\n\r\nx\r\n").await;
    one.ok("NOOP").await;
    two.ok("NOOP").await;
    one.ok("STORE 1 +FLAGS (\\Flagged)").await;
    // Its own change it knows, the other's not.
    let answer = two.ok("STORE 1 +FLAGS.SILENT (\\Seen)").await;
    assert!(answer.contains("* 1 FETCH (FLAGS (\\Flagged \\Seen"), "{answer}");
    let answer = two.ok("STORE 1 +FLAGS.SILENT (\\Draft)").await;
    assert!(!answer.contains("FETCH"), "{answer}");
}

#[tokio::test]
async fn a_copy_is_of_all_messages_or_none_and_a_move_needs_a_mailbox_to_write() {
    let server = Server::new().await;
    let (mut one, mut two) = (server.select().await, server.select().await);
    one.append("INBOX", b"Subject: x\r\n\r\nx\r\n").await;
    one.append("INBOX", b"Subject: y\r\n\r\ny\r\n").await;
    one.ok("CREATE target").await;
    two.ok("NOOP").await;
    one.ok("STORE 1 +FLAGS (\\Deleted)").await;
    one.ok("EXPUNGE").await;
    // The first such command finds out for itself, the second knows from what was not to be told yet.
    let answer = two.ok("FETCH 1:2 FLAGS").await;
    assert!(answer.contains("* 2 FETCH"), "{answer}");
    two.fails("COPY 1:2 target", "NO [EXPUNGEISSUED]").await;
    assert!(two.ok("STATUS target (MESSAGES)").await.contains("MESSAGES 0"));
    two.ok("EXAMINE INBOX").await;
    two.fails("MOVE 1 target", "NO [READ-ONLY]").await;
    assert!(one.ok("STATUS INBOX (MESSAGES)").await.contains("MESSAGES 1"));
}
