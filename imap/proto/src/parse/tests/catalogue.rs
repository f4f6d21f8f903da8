//! The rows of the bad-input catalogue that the parser decides.

use super::*;

#[test]
fn imap_mailbox_traversal() {
    for path in [
        "../../etc/passwd",
        "a/../../b",
        "/etc",
        "a//b",
        "\"\"",
        "a&AAA-b",
        "&AH8-",
        "{1}\r\n*",
    ] {
        assert_eq!(
            refused(&format!("SELECT {path}")),
            (Status::No, Some(Code::Cannot)),
            "{path}"
        );
    }
    for octets in [
        "{3}\r\na\0b",
        "{3}\r\na\rb",
        "{3}\r\na\nb",
        "{1}\r\n\u{7f}",
        "\"a\u{7f}\"",
    ] {
        assert_bad(&format!("SELECT {octets}"));
    }
}

#[test]
fn imap_fetch_part_deep() {
    let path = |levels: usize| format!("FETCH 1 BODY[{}]", vec!["1"; levels].join("."));
    assert!(matches!(body(&path(MIME_DEPTH_MAX)), CommandBody::Fetch { .. }));
    assert!(matches!(body(&path(MIME_DEPTH_MAX + 1)), CommandBody::Fetch { .. }));
    assert_bad(&path(MIME_DEPTH_MAX + 2));
    assert_bad(&path(10_000));
}

#[test]
fn imap_fetch_fields_10k() {
    let names: Vec<String> = (0..10_000).map(|number| format!("F{number}")).collect();
    let list = items(&format!("BODY[HEADER.FIELDS ({})]", names.join(" ")));
    assert!(matches!(&list[0], FetchItem::BodySection { section, .. }
        if matches!(&section.text, SectionText::HeaderFields { names, .. } if names.len() == 10_000)));
}

#[test]
fn imap_parens_unbalanced() {
    for wrong in [
        "FETCH 1 (FLAGS",
        "FETCH 1 FLAGS)",
        "FETCH 1 ((FLAGS))",
        "STORE 1 FLAGS (\\Seen",
        "SEARCH (ALL",
        "SEARCH ALL)",
        "SEARCH ((ALL)",
    ] {
        assert_bad(wrong);
    }
}

#[test]
fn imap_seqset_reversed() {
    assert_eq!(body("UID EXPUNGE 9:2"), body("UID EXPUNGE 2:9"));
}

#[test]
fn imap_seqset_100k() {
    let uids: Vec<String> = (0..100_000u32)
        .map(|index| (1 + index * 7919 % 100_003 * 2).to_string())
        .collect();
    let CommandBody::UidExpunge(set) = body(&format!("UID EXPUNGE {}", uids.join(","))) else {
        panic!()
    };
    let ranges = set.resolve(None);
    assert!(ranges.len() == 100_000 && ranges.windows(2).all(|pair| pair[0].end() < pair[1].start()));
}

#[test]
fn imap_search_depth() {
    let nots = |count: usize| format!("SEARCH {}ALL", "NOT ".repeat(count));
    let ors = |count: usize| format!("SEARCH {}ALL{}", "OR ".repeat(count), " ALL".repeat(count));
    let lists = |count: usize| format!("SEARCH {}ALL{}", "(".repeat(count), ")".repeat(count));
    for nested in [nots, ors, lists] as [fn(usize) -> String; 3] {
        body(&nested(IMAP_SEARCH_DEPTH_MAX - 1));
        body(&nested(IMAP_SEARCH_DEPTH_MAX));
        assert_bad(&nested(IMAP_SEARCH_DEPTH_MAX + 1));
        assert_bad(&nested(50_000));
    }
    // An OR chain on the right-hand side nests as well.
    assert_bad(&format!("SEARCH {}ALL", "OR ALL ".repeat(50_000)));
}

#[test]
fn imap_search_charset() {
    assert_eq!(
        refused("SEARCH CHARSET X-FOO ALL"),
        (Status::No, Some(Code::BadCharset))
    );
    assert_eq!(
        key("CHARSET UTF-8 BODY {2}\r\n\u{e4}"),
        SearchKey::Body("\u{e4}".to_owned())
    );
    assert_eq!(key("CHARSET \"us-ascii\" BODY a"), SearchKey::Body("a".to_owned()));
    assert_bad("SEARCH CHARSET US-ASCII BODY {2}\r\n\u{e4}");
    assert_bad("SEARCH CHARSET UTF-8");
    assert!(parse_command(b"a SEARCH CHARSET UTF-8 BODY {1}\r\n\xff").is_err());
    assert_eq!(key("CC a"), SearchKey::Envelope(EnvelopeField::Cc, "a".to_owned()));
}

#[test]
fn imap_id_junk() {
    let pairs = |count: usize| format!("ID ({})", vec!["\"a\" \"b\""; count].join(" "));
    assert!(matches!(body(&pairs(30)), CommandBody::Id(pairs) if pairs.len() == 30));
    assert_bad(&pairs(31));
    let value = |length: usize| format!("ID (\"a\" {{{length}}}\r\n{})", "v".repeat(length));
    body(&value(1023));
    body(&value(1024));
    assert_bad(&value(1025));
    assert_bad(&value(2048));
    let field = |length: usize| format!("ID (\"{}\" NIL)", "f".repeat(length));
    body(&field(29));
    body(&field(30));
    assert_bad(&field(31));
    assert_eq!(body("ID NIL"), CommandBody::Id(vec![]));
    assert_eq!(body("ID (\"a\" NIL)"), CommandBody::Id(vec![(b"a".to_vec(), None)]));
    for wrong in [
        "ID",
        "ID (NIL \"a\")",
        "ID (\"a\")",
        "ID (a b)",
        "ID \"a\"",
        "ID (\"a\" \"b\"",
    ] {
        assert_bad(wrong);
    }
}

#[test]
fn imap_quoted_nul() {
    assert_bad("LOGIN \"a\0b\" x");
}

#[test]
fn imap_quoted_8bit() {
    assert_bad("LOGIN \"\u{e4}\" x");
}

#[test]
fn imap_quoted_bad_escape() {
    assert_bad("LOGIN \"a\\n\" x");
    assert_bad("LOGIN \"a\\\" x");
}

#[test]
fn imap_literal_neg() {
    for length in ["-1", "1e3", "", "0x10", "99999999999999999999", "+", "1-", " 1"] {
        assert_bad(&format!("LOGIN {{{length}}}\r\na b"));
    }
}

#[test]
fn imap_literal_nul() {
    assert_bad("LOGIN {1}\r\n\0 x");
}

#[test]
fn imap_append_date() {
    let append = |date: &str| parse_append(format!("a APPEND INBOX \"{date}\" {{5}}\r\n").as_bytes());
    for date in [
        "17-Jul-1996 02:44:25 -0700",
        " 7-Jul-1996 02:44:25 +0000",
        "07-jul-1996 23:59:60 +1400",
    ] {
        assert!(append(date).unwrap().date.is_some(), "{date}");
    }
    for date in [
        "99-Feb-2026 00:00:00 +0000",
        "01-Jan-0000 00:00:00 +0000",
        "29-Feb-2026 00:00:00 +0000",
        "01-Jan-2026 24:00:00 +0000",
        "01-Jan-2026 00:00:00 0000",
        "01-Jan-2026 00:00:00 +0060",
        "01-Jan-2026 00:00:00 +9900",
        "01-Jan-2026 00:00:00 +-000",
        "01-Jan-2026",
        "1-1-2026 00:00:00 +0000",
        "",
    ] {
        assert!(
            matches!(
                append(date),
                Err(ParseError::Refused {
                    status: Status::Bad,
                    ..
                })
            ),
            "{date}"
        );
    }
}

#[test]
fn imap_tag_star() {
    for line in [
        "* NOOP",
        "+ NOOP",
        "( NOOP",
        " NOOP",
        "",
        "a+b NOOP",
        "a* NOOP",
        "a\0 NOOP",
        "\u{e4} NOOP",
    ] {
        assert!(
            parse_command(line.as_bytes()).is_err() && tag_of(line.as_bytes()).is_none(),
            "{line:?}"
        );
    }
    assert_eq!(tag_of(b"A.1-]x NOOP").unwrap().as_bytes(), b"A.1-]x");
}

#[test]
fn imap_tag_10k() {
    let line = |length: usize| format!("{} NOOP", "t".repeat(length));
    assert!(parse_command(line(IMAP_TAG_BYTES_MAX - 1).as_bytes()).is_ok());
    assert!(parse_command(line(IMAP_TAG_BYTES_MAX).as_bytes()).is_ok());
    for length in [IMAP_TAG_BYTES_MAX + 1, 10_000] {
        assert!(parse_command(line(length).as_bytes()).is_err() && tag_of(line(length).as_bytes()).is_none());
    }
}
