//! Adding, reading, changing, finding and removing messages.

use core_types::limits::MESSAGES_PER_OP_MAX;

use crate::client::{Client, Server};

const MULTIPART: &[u8] = b"From: Ada <ada@example.test>\r\nTo: user1@example.test\r\nSubject: parts\r\n\
    Date: Tue, 14 Nov 2023 23:30:00 -0700\r\nMessage-ID: <1@example.test>\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello w\xC3\xB6rld\r\n\
    --b\r\nContent-Type: application/pdf; name=x.pdf\r\nContent-Transfer-Encoding: base64\r\n\
    Content-Disposition: attachment; filename=x.pdf\r\n\r\nJVBERg==\r\n--b--\r\n";

async fn with_messages(server: &Server, count: usize) -> Client {
    for number in 1..=count {
        let message = format!("From: a{number}@example.test\r\nSubject: number {number}\r\n\r\nbody {number}\r\n");
        server.deliver(message.as_bytes()).await;
    }
    server.select().await
}

#[tokio::test]
async fn every_item_of_fetch_is_answered() {
    let server = Server::new().await;
    server.deliver(MULTIPART).await;
    let mut client = server.select().await;
    let answer = client.ok("FETCH 1 FULL").await;
    for part in [
        "* 1 FETCH (FLAGS (\\Recent) INTERNALDATE \"14-Nov-2023 22:13:20 +0000\" RFC822.SIZE ",
        "ENVELOPE (\"Tue, 14 Nov 2023 23:30:00 -0700\" \"parts\" ((\"Ada\" NIL \"ada\" \"example.test\"))",
        "\"<1@example.test>\")",
        "BODY ((\"text\" \"plain\" (\"charset\" \"utf-8\") NIL NIL \"7bit\" 12 1)(\"application\" \"pdf\"",
    ] {
        assert!(answer.to_lowercase().contains(&part.to_lowercase()), "{part}: {answer}");
    }
    let answer = client.ok("FETCH 1 (UID BODYSTRUCTURE)").await;
    assert!(answer.contains("UID 1 BODYSTRUCTURE ("), "{answer}");
    assert!(
        answer
            .to_lowercase()
            .contains("(\"attachment\" (\"filename\" \"x.pdf\"))"),
        "{answer}"
    );
    let answer = client.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT x-none)]").await;
    let expected = "* 1 FETCH (BODY[HEADER.FIELDS (SUBJECT x-none)] {18}\nSubject: parts\n\n)\n";
    assert!(answer.starts_with(expected), "{answer}");
    let answer = client
        .ok("FETCH 1 (BODY.PEEK[1] BODY.PEEK[2.MIME] BODY.PEEK[3] BODY.PEEK[2]<2.3>)")
        .await;
    assert!(answer.contains("BODY[1] {12}\nhello wörld BODY[2.MIME] {"), "{answer}");
    assert!(answer.contains("BODY[3] NIL BODY[2]<2> {3}\nBER)"), "{answer}");
    assert!(!answer.contains("\\Seen"), "{answer}");
    let answer = client.ok("FETCH 1 RFC822.TEXT").await;
    assert!(
        answer.contains("RFC822.TEXT {") && answer.contains("* 1 FETCH (FLAGS (\\Seen \\Recent))"),
        "{answer}"
    );
    assert!(client.ok("FETCH 1 (RFC822.HEADER)").await.contains("Subject: parts"));
}

#[tokio::test]
async fn bodies_come_as_they_are_stored() {
    let server = Server::new().await;
    server.deliver(MULTIPART).await;
    let mut client = server.select().await;
    let all = client.command_bytes("UID FETCH 1 BODY.PEEK[]").await;
    // A delivery puts trace fields in front.
    let end = all.windows(MULTIPART.len()).any(|window| window == MULTIPART);
    assert!(end, "{}", String::from_utf8_lossy(&all));
    client.append("INBOX", MULTIPART).await;
    let all = client.command_bytes("FETCH 2 (BODY.PEEK[] UID)").await;
    let mut expected = format!("* 2 FETCH (BODY[] {{{}}}\r\n", MULTIPART.len()).into_bytes();
    expected.extend_from_slice(MULTIPART);
    expected.extend_from_slice(b" UID 2)\r\n");
    assert!(all.starts_with(&expected), "{}", String::from_utf8_lossy(&all));
}

#[tokio::test]
async fn a_large_message_is_streamed() {
    let server = Server::new().await;
    let mut client = server.select().await;
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    let mut state = 1_u32;
    while message.len() < 3 * 1024 * 1024 + 17 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        message.extend_from_slice(format!("{state:08x} line\r\n").as_bytes());
    }
    client.append("INBOX", &message).await;
    let all = client.command_bytes("FETCH 1 BODY.PEEK[]").await;
    let prefix = format!("* 1 FETCH (BODY[] {{{}}}\r\n", message.len());
    assert!(all.starts_with(prefix.as_bytes()));
    assert!(all[prefix.len()..].starts_with(&message));
    let offset = 1024 * 1024 - 5;
    let all = client.command_bytes(format!("FETCH 1 BODY.PEEK[]<{offset}.10>")).await;
    let prefix = format!("* 1 FETCH (BODY[]<{offset}> {{10}}\r\n");
    assert!(all.starts_with(prefix.as_bytes()));
    assert!(all[prefix.len()..].starts_with(&message[offset..offset + 10]));
    let answer = client.ok("FETCH 1 BODY.PEEK[]<99999999.10>").await;
    assert!(answer.contains("BODY[]<99999999> {0}\n)"), "{answer}");
}

#[tokio::test]
async fn large_items_of_one_message_come_one_after_the_other() {
    let server = Server::new().await;
    let mut client = server.select().await;
    let mut message = Vec::new();
    while message.len() < 300 * 1024 {
        message.extend_from_slice(b"X-Large: some octets of a header that is large\r\n");
    }
    let length = message.len() + 2;
    message.extend_from_slice(b"\r\nbody\r\n");
    client.append("INBOX", &message).await;
    let names: Vec<String> = (0..20).map(|number| format!("x-large a{number}")).collect();
    let items: Vec<String> = names
        .iter()
        .map(|names| format!("BODY.PEEK[HEADER.FIELDS ({names})]"))
        .collect();
    let all = client.command_bytes(format!("FETCH 1 (UID {})", items.join(" "))).await;
    let mut expected = b"* 1 FETCH (UID 1".to_vec();
    for names in names {
        expected.extend_from_slice(format!(" BODY[HEADER.FIELDS ({names})] {{{length}}}\r\n").as_bytes());
        expected.extend_from_slice(&message[..length]);
    }
    expected.extend_from_slice(b")\r\n");
    assert!(all.starts_with(&expected));
}

#[tokio::test]
async fn flags_are_stored_and_told() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 2).await;
    let answer = client.ok("STORE 1 +FLAGS (\\Flagged $Work)").await;
    assert!(
        answer.contains("* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $Work)"),
        "{answer}"
    );
    assert_eq!(
        answer.matches("* 1 FETCH (FLAGS (\\Flagged $Work \\Recent))").count(),
        1,
        "{answer}"
    );
    assert_eq!(
        client.ok("STORE 1:2 -FLAGS.SILENT (\\Flagged)").await,
        "TAG OK STORE completed\n"
    );
    let answer = client.ok("UID STORE 2 FLAGS (\\Seen)").await;
    assert!(answer.contains("* 2 FETCH (UID 2 FLAGS (\\Seen \\Recent))"), "{answer}");
    let answer = client.ok("FETCH 1:* FLAGS").await;
    assert!(answer.contains("* 1 FETCH (FLAGS ($Work \\Recent))"), "{answer}");
    client.ok("UID STORE 99 +FLAGS (\\Seen)").await;
}

#[tokio::test]
async fn imap_store_keyword_many() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 1).await;
    let keywords: Vec<String> = (0..5000).map(|number| format!("k{number}")).collect();
    client
        .fails(&format!("STORE 1 +FLAGS ({})", keywords.join(" ")), "NO [LIMIT]")
        .await;
    assert!(client.ok("FETCH 1 FLAGS").await.contains("(FLAGS (\\Recent))"));
}

#[tokio::test]
async fn expunge_tells_numbers_from_the_highest() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 4).await;
    client.ok("STORE 2,4 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(
        client.ok("EXPUNGE").await,
        "* 4 EXPUNGE\n* 2 EXPUNGE\nTAG OK EXPUNGE completed\n"
    );
    client.fails("FETCH 3 FLAGS", "BAD").await;
    assert!(client.ok("UID FETCH 3 UID").await.contains("* 2 FETCH (UID 3)"));
}

#[tokio::test]
async fn imap_uidplus_foreign() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 3).await;
    client.ok("STORE 1:2 +FLAGS.SILENT (\\Deleted)").await;
    assert_eq!(client.ok("UID EXPUNGE 3").await, "TAG OK EXPUNGE completed\n");
    assert_eq!(
        client.ok("UID EXPUNGE 2:3").await,
        "* 2 EXPUNGE\nTAG OK EXPUNGE completed\n"
    );
    assert!(client.ok("UID SEARCH ALL").await.contains("* SEARCH 1 3\n"));
}

#[tokio::test]
async fn copies_and_moves_say_their_uids() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 3).await;
    client.fails("COPY 1 nowhere", "NO [TRYCREATE]").await;
    let answer = client.ok("COPY 1:2 Archive").await;
    assert!(answer.contains("[COPYUID ") && answer.contains(" 1:2 1:2]"), "{answer}");
    let answer = client.ok("UID MOVE 3 Archive").await;
    let lines: Vec<&str> = answer.lines().collect();
    assert!(
        lines[0].starts_with("* OK [COPYUID ") && lines[0].contains(" 3 3]"),
        "{answer}"
    );
    assert_eq!(lines[1], "* 3 EXPUNGE");
    assert!(client.ok("SELECT Archive").await.contains("* 3 EXISTS"));
    assert!(client.ok("FETCH 3 BODY.PEEK[TEXT]").await.contains("body 3"));
    client.ok("UID COPY 77 INBOX").await;
    // Into the mailbox itself.
    let answer = client.ok("COPY 1 Archive").await;
    assert!(answer.contains("* 4 EXISTS"), "{answer}");
}

#[tokio::test]
async fn copies_and_moves_of_more_messages_than_an_op_may_name_are_refused_as_a_whole() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 1).await;
    let mut count = 1;
    while count <= MESSAGES_PER_OP_MAX {
        let more = count.min(MESSAGES_PER_OP_MAX + 1 - count);
        client.ok(&format!("COPY 1:{more} INBOX")).await;
        count += more;
    }
    for command in ["COPY", "MOVE"] {
        client
            .fails(&format!("{command} 1:{count} Archive"), "NO [LIMIT]")
            .await;
    }
    assert!(client.ok("STATUS Archive (MESSAGES)").await.contains("(MESSAGES 0)"));
    client.ok(&format!("COPY 2:{count} Archive")).await;
    let status = client.ok("STATUS Archive (MESSAGES)").await;
    assert!(
        status.contains(&format!("(MESSAGES {MESSAGES_PER_OP_MAX})")),
        "{status}"
    );
    // Those are cut into several ops.
    let stored = client.ok("STORE 1:* +FLAGS.SILENT (\\Deleted)").await;
    assert!(stored.starts_with("TAG OK"), "{stored}");
    client.ok("CLOSE").await;
    assert!(client.ok("STATUS INBOX (MESSAGES)").await.contains("(MESSAGES 0)"));
}

#[tokio::test]
async fn appended_messages_keep_flags_and_date() {
    let server = Server::new().await;
    let mut client = server.select().await;
    client
        .send("x APPEND INBOX (\\Seen $Work) \"01-Feb-2020 10:00:00 +0100\" {18}\r\n")
        .await;
    assert!(client.line().await.starts_with("+ "));
    client.send("Subject: x\r\n\r\nabc\n\r\n").await;
    let answer = String::from_utf8(client.until("x ").await).unwrap();
    assert!(
        answer.contains("* 1 EXISTS") && answer.contains("x OK [APPENDUID "),
        "{answer}"
    );
    let answer = client.ok("FETCH 1 (FLAGS INTERNALDATE RFC822.SIZE)").await;
    assert!(answer.contains("FLAGS (\\Seen $Work"), "{answer}");
    assert!(
        answer.contains("INTERNALDATE \" 1-Feb-2020 09:00:00 +0000\" RFC822.SIZE 18)"),
        "{answer}"
    );
    client.fails("APPEND nowhere {5+}\r\nabcde", "NO [TRYCREATE]").await;
    client.fails("APPEND nowhere {5}", "NO [TRYCREATE]").await;
    client.fails("APPEND INBOX {5+}\r\na\0bcd", "NO [UNKNOWN-CTE]").await;
    assert!(client.ok("NOOP").await.starts_with("TAG OK"));
}

#[tokio::test]
async fn imap_append_too_big() {
    let server = Server::new().await;
    let mut client = server.select().await;
    client.fails("APPEND INBOX {60000000}", "NO [TOOBIG]").await;
    client.send("x APPEND INBOX {60000000+}\r\n").await;
    assert!(client.rest().await.starts_with("* BYE"));
}

#[tokio::test]
async fn imap_append_date() {
    let server = Server::new().await;
    let mut client = server.select().await;
    for date in ["99-Feb-2026 00:00:00 +0000", "01-Feb-0000 00:00:00 +0000"] {
        client
            .fails(&format!("APPEND INBOX \"{date}\" {{3+}}\r\nabc"), "BAD")
            .await;
    }
    assert!(client.ok("STATUS INBOX (MESSAGES)").await.contains("MESSAGES 0"));
}

#[tokio::test]
async fn imap_append_garbage() {
    let server = Server::new().await;
    let mut client = server.select().await;
    let mut state = 7_u64;
    let garbage: Vec<u8> = (0..1024 * 1024)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33).to_le_bytes()[0].max(1)
        })
        .collect();
    client.append("INBOX", &garbage).await;
    let all = client.command_bytes("FETCH 1 BODY.PEEK[]").await;
    assert!(all.windows(garbage.len()).any(|window| window == garbage));
    let answer = client.ok("FETCH 1 (ENVELOPE BODYSTRUCTURE)").await.to_lowercase();
    assert!(
        answer.contains("\"text\" \"plain\"") || answer.contains("\"octet-stream\""),
        "{answer}"
    );
}

#[tokio::test]
async fn imap_append_retry() {
    let server = Server::new().await;
    let mut client = server.select().await;
    let first = client.append("INBOX", b"Subject: same\r\n\r\nsame\r\n").await;
    let second = client.append("INBOX", b"Subject: same\r\n\r\nsame\r\n").await;
    assert!(first.contains(" 1] ") && second.contains(" 2] "), "{first} {second}");
}

#[tokio::test]
async fn a_full_account_takes_no_message() {
    let server = Server::new().await;
    server.store.add_account("small@example.test", Some(1000)).await;
    let mut client = server.connect().await;
    client.ok("LOGIN small@example.test secret").await;
    client.fails("APPEND INBOX {1001}", "NO [OVERQUOTA]").await;
    client.append("INBOX", &[b'x'; 900]).await;
    client.ok("SELECT INBOX").await;
    client.fails("COPY 1 Archive", "NO [OVERQUOTA]").await;
}

#[tokio::test]
async fn search_knows_every_key() {
    let server = Server::new().await;
    server.deliver(MULTIPART).await;
    server
        .deliver(
            b"From: bob@example.test\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nX-Mark: Yes\r\n\r\nplain words\r\n",
        )
        .await;
    let mut client = server.select().await;
    client
        .append(
            "INBOX (\\Seen $Work) \"01-Feb-2020 10:00:00 +0100\"",
            b"Subject: old\r\n\r\nx\r\n",
        )
        .await;
    for (key, found) in [
        ("ALL", " 1 2 3"),
        ("2:*", " 2 3"),
        ("UID 1,3", " 1 3"),
        ("SEEN", " 3"),
        ("UNSEEN", " 1 2"),
        ("KEYWORD $work", " 3"),
        ("UNKEYWORD $work", " 1 2"),
        ("NEW", " 1 2"),
        ("BEFORE 01-Jan-2021", " 3"),
        ("ON 1-Feb-2020", " 3"),
        ("SINCE 1-Jan-2021", " 1 2"),
        ("SENTON 14-Nov-2023", " 1 2"),
        ("SENTBEFORE 1-Jan-2021", " 3"),
        ("SENTSINCE 15-Nov-2023", ""),
        ("SMALLER 40", " 3"),
        ("LARGER 40", " 1 2"),
        ("FROM ADA", " 1"),
        ("SUBJECT \"parts\"", " 1"),
        ("CHARSET UTF-8 SUBJECT {6+}\r\nGRÜß", " 2"),
        ("HEADER x-mark yes", " 2"),
        ("BODY WORDS", " 2"),
        ("CHARSET UTF-8 BODY {6+}\r\nWÖRLD", " 1"),
        ("TEXT bob@", " 2"),
        ("NOT TEXT bob@", " 1 3"),
        ("OR FROM ada BODY words", " 1 2"),
        ("(UNSEEN BODY words)", " 2"),
        ("ANSWERED", ""),
    ] {
        let answer = client.ok(&format!("SEARCH {key}")).await;
        assert!(answer.contains(&format!("* SEARCH{found}\n")), "{key}: {answer}");
    }
    assert!(client.ok("UID SEARCH FROM bob").await.contains("* SEARCH 2\n"));
    client.fails("SEARCH 9", "BAD").await;
}

#[tokio::test]
async fn imap_search_charset() {
    let server = Server::new().await;
    let mut client = server.select().await;
    client
        .fails("SEARCH CHARSET X-FOO ALL", "NO [BADCHARSET (UTF-8)]")
        .await;
}

#[tokio::test]
async fn imap_seqset_max() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 2).await;
    let answer = client.ok("UID FETCH 1:4294967295 (FLAGS)").await;
    assert_eq!(answer.matches("FETCH (").count(), 2, "{answer}");
}

#[tokio::test]
async fn imap_seqset_star_empty() {
    let server = Server::new().await;
    let mut client = server.select().await;
    for set in ["*", "1:*"] {
        client.fails(&format!("FETCH {set} FLAGS"), "BAD").await;
        assert_eq!(
            client.ok(&format!("UID FETCH {set} FLAGS")).await,
            "TAG OK FETCH completed\n"
        );
    }
}

#[tokio::test]
async fn imap_seqset_reversed() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 3).await;
    assert_eq!(
        client.ok("UID FETCH 9:2 UID").await,
        client.ok("UID FETCH 2:9 UID").await
    );
}

#[tokio::test]
async fn imap_seqnum_gone() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 6).await;
    client.fails("FETCH 7 FLAGS", "BAD").await;
}

#[tokio::test]
async fn imap_fetch_part_deep() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 1).await;
    let path = vec!["1"; 10_000].join(".");
    let answer = client.command(&format!("FETCH 1 BODY.PEEK[{path}]")).await;
    assert!(
        answer.contains(" NIL)") || answer.starts_with("TAG BAD"),
        "{}",
        answer.len()
    );
}

#[tokio::test]
async fn bytes_that_cannot_be_had_are_not_shown_as_empty() {
    let server = Server::new().await;
    let mut client = with_messages(&server, 2).await;
    let mut large = b"Subject: large\r\n\r\n".to_vec();
    let mut state = 1_u64;
    while large.len() < 3 * 1024 * 1024 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        large.extend_from_slice(format!("{state:016x}\r\n").as_bytes());
    }
    client.append("INBOX", &large).await;
    for path in server.store.disk.paths() {
        server.store.disk.make_unreadable(&path);
    }
    // Small messages may still be in memory; what is not there is refused.
    let answer = client.command("FETCH 1:3 BODY[]").await;
    assert!(answer.contains("TAG NO [UNAVAILABLE]"), "{}", answer.len());
    assert!(!answer.contains("NIL") && !answer.contains("{0}") && !answer.contains("* 3 FETCH (BODY"));
    assert!(
        client
            .ok("FETCH 1:3 (FLAGS UID RFC822.SIZE ENVELOPE)")
            .await
            .contains("* 3 FETCH")
    );
    client.fails("SEARCH 3 BODY x", "NO [UNAVAILABLE]").await;
}

#[tokio::test]
async fn mime_date_absurd() {
    let server = Server::new().await;
    server
        .deliver(b"From: a@example.test\r\nDate: 31 Feb 99999 25:61 +9999\r\n\r\nx\r\n")
        .await;
    server.deliver(b"From: a@example.test\r\n\r\nno date\r\n").await;
    let mut client = server.select().await;
    // The day of arrival.
    assert!(client.ok("SEARCH SENTON 14-Nov-2023").await.contains("* SEARCH 1 2\n"));
    assert!(client.ok("SEARCH SENTBEFORE 14-Nov-2023").await.contains("* SEARCH\n"));
    assert!(client.ok("SEARCH SENTSINCE 15-Nov-2023").await.contains("* SEARCH\n"));
}

#[tokio::test]
async fn an_empty_mailbox_has_no_match() {
    let server = Server::new().await;
    let mut client = server.select().await;
    for command in ["SEARCH 1:*", "UID SEARCH 1:*", "SEARCH *", "UID SEARCH NOT 1:*"] {
        assert_eq!(
            client.ok(command).await,
            "* SEARCH\nTAG OK SEARCH completed\n",
            "{command}"
        );
    }
    client.fails("FETCH 1:* FLAGS", "BAD").await;
    client.fails("STORE * FLAGS (\\Seen)", "BAD").await;
}

#[tokio::test]
async fn a_search_for_too_many_strings_is_refused() {
    let server = Server::new().await;
    let mut client = server.select().await;
    client
        .fails(&format!("SEARCH{}", " BODY x".repeat(65)), "NO [LIMIT]")
        .await;
    client.ok(&format!("SEARCH{}", " BODY x".repeat(64))).await;
}
