//! Mail from people.

use core_types::Address;
use mailstore::testing::TestStore;
use smtp::Role;
use state::DirectoryOp;

use super::support::{Setup, inbox, plain, without_trace};

#[tokio::test(start_paused = true)]
async fn people_send_as_themselves_only() {
    let test = TestStore::new(2).await;
    test.directory_op(DirectoryOp::SetAlias {
        address: Address::parse("sales@example.test").unwrap(),
        targets: vec![Address::parse("user1@example.test").unwrap()],
    })
    .await;
    let mut client = Setup::new(&test, Role::Submission).logged_in().await;
    for (sender, expected) in [
        ("user1@example.test", "250"),
        ("USER1@example.TEST", "250"),
        ("user1+shop@example.test", "250"),
        ("sales@example.test", "250"),
        ("", "250"),
        ("user2@example.test", "553 5.7.1"),
        ("nobody@example.test", "553 5.7.1"),
        ("user1@other.example", "553 5.7.1"),
    ] {
        client
            .script(&[(&format!("MAIL FROM:<{sender}>"), expected), ("RSET", "250")])
            .await;
    }
    client
        .script(&[
            ("MAIL FROM:<user1@example.test>", "250"),
            ("RCPT TO:<friend@other.example>", "451 4.3.2"),
        ])
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_submitted_message_gets_what_it_lacks_and_keeps_no_bcc() {
    let test = TestStore::new(2).await;
    let mut client = Setup::new(&test, Role::Submission).logged_in().await;
    let text = "From: user1@example.test\r\nBcc: secret@example.test,\r\n more@example.test\r\n\r\nhello";
    let reply = client
        .message("user1@example.test", &["user2@example.test"], text)
        .await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    let messages = inbox(&test, &test.accounts[1]).await;
    assert!(messages[0].contains(" with ESMTPA id "), "{}", messages[0]);
    let rest = without_trace(&messages[0]);
    assert!(rest.starts_with("From: user1@example.test\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <"));
    assert!(rest.ends_with("@mx.example.test>\r\n\r\nhello\r\n"), "{rest}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_and_an_unknown_name_are_answered_alike() {
    let test = TestStore::new(1).await;
    let mut client = Setup::new(&test, Role::Submission).greeted().await;
    let mut replies = Vec::new();
    for name in ["user1@example.test", "nobody@example.test", "not an address"] {
        replies.push(client.say(&format!("AUTH PLAIN {}", plain(name, "wrong"))).await);
    }
    assert!(
        replies
            .iter()
            .all(|reply| *reply == "535 5.7.8 Authentication credentials invalid"),
        "{replies:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn logging_in_waits_for_the_directory() {
    let test = TestStore::new(1).await;
    test.set_available(core_types::GroupId::DIRECTORY, false);
    let mut client = Setup::new(&test, Role::Submission).greeted().await;
    let wrong = plain("user1@example.test", "wrong");
    client.script(&[(&format!("AUTH PLAIN {wrong}"), "454 4.7.0")]).await;
    let right = plain("user1@example.test", "secret");
    client.script(&[(&format!("AUTH PLAIN {right}"), "235 2.7.0")]).await;
}

#[tokio::test(start_paused = true)]
async fn smtp_auth_brute() {
    let test = TestStore::new(1).await;
    let wrong = format!("AUTH PLAIN {}", plain("user1@example.test", "wrong"));
    // The owner in the attacker's own network, at an address that is known.
    let at_home = || Setup {
        peer: "198.51.100.99:1",
        ..Setup::new(&test, Role::Submission)
    };
    at_home().logged_in().await;
    let mut failures = 0;
    let began = tokio::time::Instant::now();
    let last = 'attack: loop {
        let peer = format!("198.51.100.{}:1", failures % 250);
        let mut client = Setup {
            peer: &peer,
            ..Setup::new(&test, Role::Submission)
        }
        .greeted()
        .await;
        for _ in 0..5 {
            let reply = client.say(&wrong).await;
            if reply.starts_with("421") {
                client.expect_closed().await;
                break 'attack reply;
            }
            assert!(reply.starts_with("535 5.7.8"), "{reply}");
            failures += 1;
        }
        assert!(failures < 1000, "the attacker is never turned away");
    };
    assert!(last.starts_with("421 4.7.0"), "{last}");
    assert!(failures >= 100);
    assert!(began.elapsed().as_secs() > 60, "the answers come later and later");
    let owner = Setup {
        peer: "203.0.113.9:1",
        ..Setup::new(&test, Role::Submission)
    };
    owner.logged_in().await;
    at_home().logged_in().await;
    // What was sent ahead is not carried out after the last word.
    let other = format!("AUTH PLAIN {}", plain("nobody@example.test", "wrong"));
    for _ in 0..5 {
        let mut client = at_home().greeted().await;
        // The count has halved a little meanwhile.
        let last = client.say(&format!("{other}\r\nNOOP")).await;
        if last.starts_with("421 4.7.0") {
            return client.expect_closed().await;
        }
    }
    panic!("never turned away");
}

#[tokio::test(start_paused = true)]
async fn smtp_auth_timing() {
    let test = TestStore::new(1).await;
    let before = test.store.directory().password_checks();
    let mut replies = std::collections::BTreeSet::new();
    // Ten attempts from each network are below the throttle's limit; its delays cost nothing under a paused clock.
    for session in 0..100 {
        let peer = format!("10.{session}.0.1:1");
        let mut client = Setup {
            peer: &peer,
            ..Setup::new(&test, Role::Submission)
        }
        .greeted()
        .await;
        for name in ["user1@example.test", "nobody@example.test"]
            .into_iter()
            .cycle()
            .take(10)
        {
            let checks = test.store.directory().password_checks();
            replies.insert(client.say(&format!("AUTH PLAIN {}", plain(name, "wrong"))).await);
            assert_eq!(test.store.directory().password_checks(), checks + 1, "{name}");
        }
    }
    assert_eq!(test.store.directory().password_checks(), before + 1000);
    assert_eq!(replies.len(), 1, "{replies:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sender_of_ours_is_told_of_the_delivery_who_asked_for_it() {
    let test = TestStore::new(2).await;
    let mut client = Setup::new(&test, Role::Submission).logged_in().await;
    for notify in ["SUCCESS,FAILURE", "NEVER", "FAILURE"] {
        client
            .script(&[
                ("MAIL FROM:<user1@example.test> ENVID=q+2B1 RET=HDRS", "250"),
                (
                    &format!("RCPT TO:<user2@example.test> NOTIFY={notify} ORCPT=rfc822;u2@example.test"),
                    "250",
                ),
                ("DATA", "354"),
            ])
            .await;
        client.send("From: user1@example.test\r\n\r\nhello\r\n.\r\n").await;
        assert!(client.reply().await.starts_with("250 2.0.0"));
    }
    let reports = inbox(&test, &test.accounts[0]).await;
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("Original-Envelope-Id: q+1\r\n"), "{}", reports[0]);
    assert!(reports[0].contains("Original-Recipient: rfc822;u2@example.test\r\n"));
    assert!(reports[0].contains("Action: delivered\r\nStatus: 2.0.0\r\n"));
    assert!(!reports[0].contains("hello"));
}
