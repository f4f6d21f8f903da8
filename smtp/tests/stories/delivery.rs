//! Mail from other servers.

use core_types::{Address, Domain};
use smtp::Role;
use state::DirectoryOp;
use wire::Stopper;

use super::support::{Setup, inbox, without_trace};
use mailstore::testing::TestStore;

const MESSAGE: &str = "Subject: hello\r\n\r\nbody";

#[tokio::test(start_paused = true)]
async fn a_message_is_in_the_mailbox_before_250_with_its_trace() {
    let test = TestStore::new(2).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    let reply = client
        .message("a@other.example", &["user1@example.test"], MESSAGE)
        .await;
    assert!(reply.starts_with("250 2.0.0 delivered as "), "{reply}");
    let messages = inbox(&test, &test.accounts[0]).await;
    assert_eq!(messages.len(), 1);
    let expected = "Return-Path: <a@other.example>\r\nReceived: from client.example ([192.0.2.1])\r\n\tby \
                    mx.example.test with ESMTP id ";
    assert!(messages[0].starts_with(expected), "{}", messages[0]);
    assert!(messages[0].contains("\r\n\tfor <user1@example.test>;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n"));
    assert_eq!(without_trace(&messages[0]), format!("{MESSAGE}\r\n"));
    assert!(inbox(&test, &test.accounts[1]).await.is_empty());
    client.script(&[("QUIT", "221 2.0.0")]).await;
    client.expect_closed().await;
}

#[tokio::test(start_paused = true)]
async fn one_session_sends_many_messages_also_in_chunks_and_pipelined() {
    let test = TestStore::new(2).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    for _ in 0..3 {
        client
            .message("", &["user1@example.test", "user2@example.test"], MESSAGE)
            .await;
    }
    client
        .send(
            "MAIL FROM:<a@other.example>\r\nRCPT TO:<nobody@example.test>\r\nRCPT TO:<user1@example.test>\r\n\
             BDAT 12\r\nSubject: x\r\nBDAT 8 LAST\r\n\r\nchunk\n",
        )
        .await;
    for expected in [
        "250 2.1.0",
        "550 5.1.1",
        "250 2.1.5",
        "250 2.0.0 12 ",
        "250 2.0.0 delivered as ",
    ] {
        let reply = client.reply().await;
        assert!(reply.starts_with(expected), "{reply}");
    }
    assert_eq!(inbox(&test, &test.accounts[0]).await.len(), 4);
    assert_eq!(inbox(&test, &test.accounts[1]).await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn recipients_are_answered_by_the_directory() {
    let test = TestStore::new(3).await;
    let set_alias = |alias: &str, targets: &[&str]| DirectoryOp::SetAlias {
        address: Address::parse(alias).unwrap(),
        targets: targets.iter().map(|target| Address::parse(target).unwrap()).collect(),
    };
    test.directory_op(set_alias(
        "team@example.test",
        &["user1@example.test", "user2@example.test"],
    ))
    .await;
    test.directory_op(set_alias("away@example.test", &["me@elsewhere.example"]))
        .await;
    test.add_account("postmaster@example.test", None).await;
    test.add_account("small@example.test", Some(100)).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    client
        .script(&[
            ("MAIL FROM:<a@other.example> SIZE=1000", "250"),
            ("RCPT TO:<team@example.test>", "250 2.1.5"),
            ("RCPT TO:<user3+folder@example.test>", "250 2.1.5"),
            ("RCPT TO:<PostMaster>", "250 2.1.5"),
            ("RCPT TO:<away@example.test>", "451 4.4.0"),
            ("RCPT TO:<nobody@example.test>", "550 5.1.1"),
            ("RCPT TO:<a@other.example>", "550 5.7.1"),
            ("RCPT TO:<small@example.test>", "552 5.2.2"),
            ("DATA", "354"),
        ])
        .await;
    client.send(format!("{MESSAGE}\r\n.\r\n")).await;
    assert!(client.reply().await.starts_with("250 2.0.0"));
    for account in &test.accounts {
        assert_eq!(inbox(&test, account).await.len(), 1, "{}", account.address);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_is_said_at_rcpt() {
    let test = TestStore::new(0).await;
    let small = test.add_account("small@example.test", Some(1000)).await;
    test.deliver(&small, &[b'x'; 900]).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    client
        .script(&[
            ("MAIL FROM:<a@other.example> SIZE=200", "250"),
            ("RCPT TO:<small@example.test>", "452 4.2.2"),
            ("RSET", "250"),
            ("MAIL FROM:<a@other.example> SIZE=50", "250"),
            ("RCPT TO:<small@example.test>", "250"),
            ("DATA", "354"),
        ])
        .await;
    // Accepted is accepted: SMTP does not refuse afterwards.
    client
        .send(format!("Subject: x\r\n\r\n{}\r\n.\r\n", "y".repeat(400)))
        .await;
    assert!(client.reply().await.starts_with("250 2.0.0"));
    assert_eq!(inbox(&test, &small).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_denied_that_the_directory_cannot_confirm() {
    let test = TestStore::new(1).await;
    test.set_available(core_types::GroupId::DIRECTORY, false);
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    client
        .script(&[
            ("MAIL FROM:<a@other.example>", "250"),
            ("RCPT TO:<nobody@example.test>", "450 4.3.0"),
            ("RCPT TO:<user1@example.test>", "250 2.1.5"),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_group_without_majority_is_queued() {
    let test = TestStore::new(2).await;
    test.set_available(test.accounts[0].group, false);
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    let recipients = ["user1@example.test", "user2@example.test"];
    let reply = client.message("a@other.example", &recipients, MESSAGE).await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    assert_eq!(inbox(&test, &test.accounts[1]).await.len(), 1);
    assert!(inbox(&test, &test.accounts[0]).await.is_empty());
    // The one that waits gets it from the queue, once; the other has it already.
    test.set_available(test.accounts[0].group, true);
    let worker = queue::Worker {
        store: test.store.clone(),
        node: core_types::NodeId(1),
        hostname: "mx.example.test".into(),
        leads: std::sync::Arc::new(|_| true),
    };
    let (stopper, shutdown) = Stopper::new();
    let task = tokio::spawn(queue::run(worker, shutdown));
    for _ in 0..120 {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        test.clock.advance(1000);
    }
    for account in &test.accounts {
        assert_eq!(inbox(&test, account).await.len(), 1);
    }
    stopper.stop();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_account_that_goes_in_the_middle_makes_nobody_get_the_message_twice() {
    let test = TestStore::new(2).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    let gone = test.accounts[0].clone();
    client
        .script(&[
            ("MAIL FROM:<a@other.example>", "250"),
            ("RCPT TO:<user1@example.test>", "250"),
            ("RCPT TO:<user2@example.test>", "250"),
        ])
        .await;
    let remove = state::MailboxOp::RemoveAccount { account: gone.id };
    test.store.propose(gone.group, remove).await.unwrap();
    client.script(&[("DATA", "354")]).await;
    client.send(format!("{MESSAGE}\r\n.\r\n")).await;
    let reply = client.reply().await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    assert_eq!(inbox(&test, &test.accounts[1]).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_any_group_the_sender_keeps_the_message() {
    let test = TestStore::new(1).await;
    for group in 1..=4 {
        test.set_available(core_types::GroupId(group), false);
    }
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    let reply = client
        .message("a@other.example", &["user1@example.test"], MESSAGE)
        .await;
    assert!(reply.starts_with("451 4.3.0"), "{reply}");
    client.script(&[("RCPT TO:<user1@example.test>", "503 5.5.1")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_says_so_between_commands_and_within_a_message() {
    let test = TestStore::new(1).await;
    for in_message in [false, true] {
        let (stopper, shutdown) = Stopper::new();
        let mut client = Setup {
            shutdown,
            ..Setup::new(&test, Role::Relay)
        }
        .greeted()
        .await;
        if in_message {
            client
                .script(&[
                    ("MAIL FROM:<>", "250"),
                    ("RCPT TO:<user1@example.test>", "250"),
                    ("DATA", "354"),
                ])
                .await;
            client.send("Subject: half").await;
        }
        stopper.stop();
        assert!(client.reply().await.starts_with("421 4.3.2"));
        client.expect_closed().await;
        client.leave().await;
    }
    assert!(inbox(&test, &test.accounts[0]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn smtp_relay_open() {
    let test = TestStore::new(1).await;
    for role in [Role::Relay, Role::Lmtp] {
        for peer in ["192.0.2.1:1", "10.0.0.1:1", "127.0.0.1:1", "[::1]:1"] {
            for sender in ["user1@example.test", "a@other.example", ""] {
                let mut client = Setup {
                    peer,
                    ..Setup::new(&test, role)
                }
                .greeted()
                .await;
                client
                    .script(&[
                        (&format!("MAIL FROM:<{sender}>"), "250"),
                        ("RCPT TO:<victim@other.example>", "550 5.7.1"),
                        ("RCPT TO:<@example.test:victim@other.example>", "550 5.7.1"),
                        ("RCPT TO:<victim%other.example@example.test>", "550 5.1.1"),
                        ("RCPT TO:<other.example!victim@example.test>", "550 5.1.1"),
                    ])
                    .await;
                client.leave().await;
            }
        }
    }
    let mut client = Setup::new(&test, Role::Submission).greeted().await;
    client
        .script(&[
            ("MAIL FROM:<user1@example.test>", "530 5.7.0"),
            ("RCPT TO:<victim@other.example>", "503 5.5.1"),
        ])
        .await;
    assert!(
        test.store
            .directory()
            .is_local(&Domain::parse("example.test").unwrap())
            .await
            .unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn smtp_backscatter() {
    let test = TestStore::new(1).await;
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    client
        .script(&[
            ("MAIL FROM:<user1@example.test>", "250"),
            ("RCPT TO:<nobody@example.test>", "550 5.1.1"),
            ("DATA", "554 5.5.1"),
            ("QUIT", "221"),
        ])
        .await;
    client.leave().await;
    // Nothing waits to be reported to whoever was named as the sender.
    for group in 1..=4 {
        let queued = test
            .store
            .groups()
            .query(core_types::GroupId(group), |view| {
                state::mailbox::Reader::new(view).queue(None, 10)
            })
            .await
            .unwrap();
        assert!(queued.is_empty());
    }
    assert!(inbox(&test, &test.accounts[0]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn smtp_null_sender_multi_rcpt() {
    let test = TestStore::new(50).await;
    let names: Vec<String> = (1..=50).map(|user| format!("user{user}@example.test")).collect();
    let recipients: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut client = Setup::new(&test, Role::Relay).greeted().await;
    let reply = client.message("", &recipients, MESSAGE).await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    for account in &test.accounts {
        let messages = inbox(&test, account).await;
        assert_eq!(messages.len(), 1);
        assert!(messages[0].starts_with("Return-Path: <>\r\n"));
        assert!(!messages[0].contains("for <"), "other recipients are not told");
    }
}
