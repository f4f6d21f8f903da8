//! Making, finding and leaving mailboxes.

use crate::client::Server;

#[tokio::test]
async fn select_says_what_a_client_needs() {
    let server = Server::new().await;
    server.deliver(b"Subject: one\r\n\r\none\r\n").await;
    let mut client = server.login().await;
    let answer = client.ok("SELECT inbox").await;
    for part in [
        "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\n",
        "[PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)]",
        "* 1 EXISTS\n",
        "* 1 RECENT\n",
        "[UNSEEN 1]",
        "[UIDVALIDITY ",
        "[UIDNEXT 2]",
        "TAG OK [READ-WRITE]",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let answer = client.ok("EXAMINE INBOX").await;
    assert!(
        answer.contains("[READ-ONLY]") && answer.contains("* 0 RECENT"),
        "{answer}"
    );
    assert!(answer.contains("[PERMANENTFLAGS ()]"), "{answer}");
    client.fails("STORE 1 +FLAGS (\\Seen)", "NO [READ-ONLY]").await;
    client.fails("EXPUNGE", "NO [READ-ONLY]").await;
    client.fails("SELECT nowhere", "NO [NONEXISTENT]").await;
    client.fails("FETCH 1 FLAGS", "BAD").await;
}

#[tokio::test]
async fn mailboxes_are_made_listed_renamed_and_deleted() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.ok("CREATE work/2026").await;
    client.fails("CREATE work/2026", "NO [ALREADYEXISTS]").await;
    client.fails("CREATE INBOX", "NO [ALREADYEXISTS]").await;
    let answer = client.ok("LIST \"\" *").await;
    for part in [
        "* LIST (\\HasNoChildren) \"/\" \"INBOX\"",
        "* LIST (\\HasChildren) \"/\" \"work\"",
        "* LIST (\\HasNoChildren) \"/\" \"work/2026\"",
        "* LIST (\\HasNoChildren \\Sent) \"/\" \"Sent\"",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let answer = client.ok("LIST \"\" %").await;
    assert!(answer.contains("\"work\"") && !answer.contains("work/2026"), "{answer}");
    assert!(
        client
            .ok("LIST \"\" \"\"")
            .await
            .contains("* LIST (\\Noselect) \"/\" \"\"")
    );
    client.ok("RENAME work job").await;
    assert!(client.ok("LIST job/ *").await.contains("\"job/2026\""));
    client.fails("RENAME work other", "NO [NONEXISTENT]").await;
    client.ok("DELETE job").await;
    let answer = client.ok("LIST \"\" job*").await;
    assert!(answer.contains("(\\Noselect \\HasChildren) \"/\" \"job\""), "{answer}");
    client.fails("SELECT job", "NO [NONEXISTENT]").await;
    client.ok("DELETE job/2026").await;
    assert_eq!(client.ok("LIST \"\" job*").await, "TAG OK LIST completed\n");
    client.fails("DELETE INBOX", "NO [CANNOT]").await;
    client.fails("DELETE nowhere", "NO [NONEXISTENT]").await;
}

#[tokio::test]
async fn imap_rename_into_child() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.ok("CREATE a").await;
    client.fails("RENAME a a/b", "NO [CANNOT]").await;
}

#[tokio::test]
async fn two_renames_to_one_name_are_one() {
    let server = Server::new().await;
    let (mut one, mut two) = (server.login().await, server.login().await);
    one.ok("CREATE x").await;
    one.ok("CREATE y").await;
    let (first, second) = tokio::join!(one.command("RENAME x z"), two.command("RENAME y z"));
    let mut answers = [first, second];
    answers.sort_by_key(|answer| answer.starts_with("TAG OK"));
    assert!(answers[0].starts_with("TAG NO [ALREADYEXISTS]"), "{answers:?}");
    assert!(answers[1].starts_with("TAG OK"), "{answers:?}");
}

#[tokio::test]
async fn imap_mailbox_traversal() {
    let server = Server::new().await;
    let mut client = server.login().await;
    for name in ["../../etc/passwd", "a/../../b", "\"a\u{7f}b\"", "/etc", "a//b"] {
        for command in ["SELECT", "CREATE", "DELETE", "SUBSCRIBE"] {
            let answer = client.command(&format!("{command} {name}")).await;
            assert!(
                answer.starts_with("TAG NO [CANNOT]")
                    || answer.starts_with("TAG BAD")
                    || answer.starts_with("TAG NO [NONEXISTENT]"),
                "{command} {name}: {answer}"
            );
        }
    }
    for name in ["a\0b", "a\rb", "a\nb"] {
        let literal = format!("SELECT {{{}+}}\r\n{name}", name.len());
        let answer = client.command(&literal).await;
        assert!(
            answer.starts_with("TAG NO [CANNOT]") || answer.starts_with("TAG BAD"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn special_uses_can_be_given_and_asked_for() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.ok("DELETE Sent").await;
    client.ok("CREATE Gesendet (USE (\\Sent))").await;
    client.fails("CREATE Alles (USE (\\All))", "NO [USEATTR]").await;
    let answer = client.ok("LIST (SPECIAL-USE) \"\" *").await;
    assert!(
        answer.contains("\\Sent) \"/\" \"Gesendet\"") && !answer.contains("INBOX"),
        "{answer}"
    );
}

#[tokio::test]
async fn subscriptions_are_listed_with_their_parents() {
    let server = Server::new().await;
    let mut client = server.login().await;
    client.ok("SUBSCRIBE a/b").await;
    client.ok("SUBSCRIBE INBOX").await;
    let answer = client.ok("LSUB \"\" *").await;
    assert!(
        answer.contains("* LSUB () \"/\" \"a/b\"") && answer.contains("\"INBOX\""),
        "{answer}"
    );
    assert!(!answer.contains("\\Noselect"), "{answer}");
    for pattern in ["a", "%*"] {
        let answer = client.ok(&format!("LSUB \"\" {pattern}")).await;
        assert!(!answer.contains("\\Noselect"), "{pattern}: {answer}");
    }
    let answer = client.ok("LSUB \"\" %").await;
    assert!(answer.contains("* LSUB (\\Noselect) \"/\" \"a\"\n"), "{answer}");
    let answer = client.ok("LIST (SUBSCRIBED) \"\" *").await;
    assert!(
        answer.contains("\\NonExistent") && answer.contains("\\Subscribed"),
        "{answer}"
    );
    client.ok("UNSUBSCRIBE a/b").await;
    assert!(!client.ok("LSUB \"\" *").await.contains("a/b"));
}

#[tokio::test]
async fn status_counts() {
    let server = Server::new().await;
    server.deliver(b"Subject: one\r\n\r\none\r\n").await;
    server.deliver(b"Subject: two\r\n\r\ntwo\r\n").await;
    let mut client = server.login().await;
    let answer = client.ok("STATUS INBOX (MESSAGES RECENT UIDNEXT UNSEEN)").await;
    assert!(
        answer.contains("* STATUS \"INBOX\" (MESSAGES 2 RECENT 2 UIDNEXT 3 UNSEEN 2)"),
        "{answer}"
    );
    client.ok("SELECT INBOX").await;
    client.ok("STORE 1 +FLAGS (\\Seen)").await;
    server.deliver(b"Subject: three\r\n\r\nthree\r\n").await;
    let answer = client.ok("STATUS INBOX (MESSAGES RECENT UNSEEN)").await;
    assert!(answer.contains("(MESSAGES 3 RECENT 1 UNSEEN 2)"), "{answer}");
    client.fails("STATUS nowhere (MESSAGES)", "NO [NONEXISTENT]").await;
    let answer = client.ok("LIST \"\" INBOX RETURN (STATUS (MESSAGES))").await;
    assert!(answer.contains("* STATUS \"INBOX\" (MESSAGES 3)"), "{answer}");
}

#[tokio::test]
async fn close_expunges_silently_and_unselect_does_not() {
    let server = Server::new().await;
    server.deliver(b"Subject: one\r\n\r\none\r\n").await;
    let mut client = server.select().await;
    client.ok("STORE 1 +FLAGS.SILENT (\\Deleted)").await;
    client.ok("UNSELECT").await;
    client.fails("UNSELECT", "BAD").await;
    assert!(client.ok("SELECT INBOX").await.contains("* 1 EXISTS"));
    assert_eq!(client.ok("CLOSE").await, "TAG OK CLOSE completed\n");
    assert!(client.ok("SELECT INBOX").await.contains("* 0 EXISTS"));
}

#[tokio::test]
async fn without_a_majority_select_says_so_and_a_selected_mailbox_can_be_read() {
    let server = Server::new().await;
    server.deliver(b"Subject: one\r\n\r\none\r\n").await;
    let mut client = server.select().await;
    let mut late = server.login().await;
    let group = server.store.accounts[0].group;
    server.store.set_available(group, false);
    late.fails("SELECT INBOX", "NO [UNAVAILABLE]").await;
    client.fails("STORE 1 +FLAGS (\\Seen)", "NO [UNAVAILABLE]").await;
    server.store.set_available(group, true);
    client.ok("STORE 1 +FLAGS (\\Seen)").await;
}
