//! Tests of the scanner, with the `mime-*` rows of the catalogue of bad inputs that end here.

use super::*;
use crate::structure::{Address, Envelope};
use crate::{fuzzing, unfold};

fn scan(message: impl AsRef<[u8]>) -> Structure {
    let message = message.as_ref();
    let mut scanner = Scanner::new();
    for chunk in message.chunks(4096) {
        scanner.feed(chunk);
    }
    let structure = scanner.finish();
    fuzzing::check(&structure, message.len() as u64);
    structure
}

/// The tree in a line: `text/plain "body"` or `multipart/mixed[child, child]`.
fn show(message: &str) -> String {
    let structure = scan(message);
    show_part(&structure, message, 0)
}

fn show_part(structure: &Structure, message: &str, index: u32) -> String {
    let part = &structure.parts[index as usize];
    let name = format!("{}/{}", part.content_type.main, part.content_type.sub);
    if part.kind == Kind::Leaf {
        let body = &message[part.body_start as usize..part.end as usize];
        return format!("{name} {body:?}");
    }
    let children: Vec<_> = structure
        .children(index)
        .map(|(child, _)| show_part(structure, message, child))
        .collect();
    format!("{name}[{}]", children.join(", "))
}

fn multipart(boundary: &str, body: &str) -> String {
    format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n{body}")
}

#[test]
fn a_multipart_is_found_with_its_ranges() {
    let message = multipart(
        "b",
        "preamble\r\n--b\r\nContent-Type: text/html\r\n\r\none\r\ntwo\r\n--b  \r\n\r\n\r\n\r\n--b--\r\nepilogue\r\n--b\r\n",
    );
    assert_eq!(
        show(&message),
        "multipart/mixed[text/html \"one\\r\\ntwo\", text/plain \"\\r\\n\"]"
    );
    let structure = scan(&message);
    assert_eq!(structure.parts[1].lines, 2);
    assert_eq!(structure.parts[2].lines, 1);
    assert_eq!(structure.parts[0].end, message.len() as u64);
    assert_eq!(structure.preview, "one two");
}

#[test]
fn bare_line_feeds_are_line_ends_for_the_tree() {
    let message = multipart("b", "--b\r\n\r\none\r\n--b--\r\n").replace("\r\n", "\n");
    assert_eq!(show(&message), "multipart/mixed[text/plain \"one\"]");
}

#[test]
fn nested_messages_are_descended_into() {
    let inner = multipart("i", "--i\r\n\r\nx\r\n--i--\r\n");
    let message = multipart(
        "o",
        &format!("--o\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n{inner}\r\n--o--\r\n"),
    );
    assert_eq!(
        show(&message),
        "multipart/mixed[message/rfc822[multipart/mixed[text/plain \"x\"]]]"
    );
    let structure = scan(&message);
    assert_eq!(
        structure.nested_envelope(1).unwrap().subject.as_deref(),
        Some(&b"in"[..])
    );
    assert!(structure.parts[1].envelope.is_none() && structure.parts[3].envelope.is_none());
    assert_eq!(structure.parts[1].lines, 7);
}

#[test]
fn a_digest_holds_messages() {
    let message = "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: one\r\n\r\nx\r\n--b\r\n\
                   Content-Type: text/plain\r\n\r\ny\r\n--b\r\nno header\r\n--b--\r\n";
    assert_eq!(
        show(message),
        "multipart/digest[message/rfc822[text/plain \"x\"], text/plain \"y\", message/rfc822[text/plain \"no header\"]]"
    );
}

#[test]
fn a_delimiter_in_a_header_ends_the_part() {
    let message = multipart(
        "b",
        "--b\r\nContent-Type: text/html\r\n--b\r\nContent-Type: message/rfc822\r\n--b--",
    );
    assert_eq!(
        show(&message),
        "multipart/mixed[text/html \"\", application/octet-stream \"\"]"
    );
}

#[test]
fn an_outer_delimiter_closes_what_is_open_inside() {
    let inner = multipart("i", "--i\r\n\r\nx\r\n--i\r\n");
    let message = multipart("o", &format!("--o\r\n{inner}--o\r\n\r\ny\r\n--o--\r\n"));
    assert_eq!(
        show(&message),
        "multipart/mixed[multipart/mixed[text/plain \"x\", text/plain \"\"], text/plain \"y\"]"
    );
}

#[test]
fn mime_nest_101() {
    for (levels, leaf) in [
        (99, "text/plain \"x\\r\\n\""),
        (100, "text/plain \"x\\r\\n\""),
        (101, "application/octet-stream \"--b100\\r\\n\\r\\nx\\r\\n\""),
    ] {
        let mut message: String = (0..levels)
            .map(|level| multipart(&format!("b{level}"), &format!("--b{level}\r\n")))
            .collect();
        message.push_str("\r\nx\r\n");
        assert!(show(&message).contains(leaf), "{levels}: {}", show(&message));
    }
    let deep: String = "Content-Type: message/rfc822\r\n\r\n".repeat(100_000);
    let structure = scan(&deep);
    assert_eq!(structure.parts.len(), MIME_DEPTH_MAX + 1);
    assert_eq!(
        structure.parts.last().unwrap().content_type,
        ContentType::octet_stream()
    );
}

#[test]
fn mime_parts_1m() {
    for (count, parts) in [(9_998, 9_999), (9_999, 10_000), (10_000, 10_000), (300_000, 10_000)] {
        let structure = scan(multipart("b", &"--b\n".repeat(count)));
        assert_eq!(structure.parts.len(), parts, "{count}");
        assert!(structure.parts.capacity() < 4 * MIME_PARTS_MAX);
    }
    let message = multipart("b", &"--b\n".repeat(1_000_000));
    let structure = scan(&message);
    let last = structure.parts.last().unwrap();
    assert_eq!(
        (last.end, last.content_type.clone()),
        (message.len() as u64, ContentType::octet_stream())
    );
    assert!(
        structure.to_bytes().is_empty(),
        "such a structure is not kept in the index"
    );
}

#[test]
fn mime_boundary_2048() {
    for (length, honoured) in [(70, true), (199, true), (200, true), (201, false), (2049, false)] {
        let boundary = "x".repeat(length);
        let shown = show(&multipart(
            &boundary,
            &format!("--{boundary}\r\n\r\na\r\n--{boundary}--\r\n"),
        ));
        assert_eq!(
            shown == "multipart/mixed[text/plain \"a\"]",
            honoured,
            "{length}: {shown}"
        );
        assert_eq!(
            shown.starts_with("application/octet-stream \"--x"),
            !honoured,
            "{length}: {shown}"
        );
    }
    assert_eq!(
        show(&multipart("a b ", "--a b\r\n\r\nx\r\n--a b --\r\n--a b--")),
        "multipart/mixed[text/plain \"x\\r\\n--a b --\"]"
    );
    assert_eq!(
        show(&multipart("a\0b", "--a\0b\r\n\r\nx")),
        "application/octet-stream \"--a\\0b\\r\\n\\r\\nx\""
    );
    assert_eq!(
        show(&multipart("", "--\r\n\r\nx")),
        "application/octet-stream \"--\\r\\n\\r\\nx\""
    );
}

#[test]
fn mime_boundary_prefix() {
    let inner = multipart("bo", "--bo\r\n\r\nx\r\n--bo--\r\n");
    let message = multipart(
        "bound",
        &format!("--bound\r\n{inner}\r\n--bound\r\n\r\ny\r\n--bound--\r\n"),
    );
    assert_eq!(
        show(&message),
        "multipart/mixed[multipart/mixed[text/plain \"x\"], text/plain \"y\"]"
    );
    // The outer one ends in dashes, so that its opening looks like the closing of the inner one.
    let inner = multipart("a", "--a\r\n\r\nx\r\n--a--\r\n\r\ny\r\n");
    let message = multipart("a--", &format!("--a--\r\n{inner}--a----\r\n"));
    assert_eq!(
        show(&message),
        "multipart/mixed[multipart/mixed[text/plain \"x\"], text/plain \"y\"]"
    );
}

#[test]
fn the_innermost_of_equal_boundaries_wins() {
    let inner = multipart("b", "--b\r\n\r\nx\r\n--b--\r\n");
    let message = multipart("b", &format!("--b\r\n{inner}--b\r\n\r\ny\r\n--b--\r\n"));
    assert_eq!(
        show(&message),
        "multipart/mixed[multipart/mixed[text/plain \"x\"], text/plain \"y\"]"
    );
}

#[test]
fn mime_boundary_missing_close() {
    assert_eq!(
        show(&multipart("b", "--b\r\n\r\nx\r\ny")),
        "multipart/mixed[text/plain \"x\\r\\ny\"]"
    );
    assert_eq!(
        show(&multipart("b", "no delimiter\r\n")),
        "application/octet-stream \"no delimiter\\r\\n\""
    );
}

#[test]
fn mime_ct_twice() {
    assert_eq!(
        show("Content-Type: text/html\r\nContent-Type: text/csv\r\n\r\nx"),
        "text/html \"x\""
    );
}

#[test]
fn mime_cte_unknown() {
    let structure = scan("Content-Transfer-Encoding: X-Foo\r\n\r\nsecret");
    assert_eq!(structure.parts[0].encoding, Encoding::Other("x-foo".to_owned()));
    assert_eq!(structure.preview, "");
    let message = format!(
        "Content-Transfer-Encoding: base64\r\n{}",
        multipart("b", "--b\r\n\r\nx\r\n--b--")
    );
    assert_eq!(show(&message), "multipart/mixed[text/plain \"x\"]");
    assert_eq!(scan(&message).parts[0].encoding, Encoding::SevenBit);
    let message = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nx";
    assert_eq!(show(message), "application/octet-stream \"x\"");
}

fn envelope(header: &str) -> Envelope {
    scan(format!("{header}\r\n\r\nx")).envelope().unwrap().clone()
}

fn mailbox(mailbox: &str, host: &str) -> Address {
    Address::Mailbox {
        name: None,
        mailbox: mailbox.into(),
        host: host.into(),
    }
}

#[test]
fn envelopes_have_the_defaults_of_rfc_3501() {
    let found = envelope(
        "From: a@b\r\nReply-To:\r\nTo: c@d\r\nSubject: one\r\n two\r\nTo: e@f\r\nSubject: no\r\nMessage-ID: <m@x>\r\n\
         Date: 1 Jan 1970 00:00:01 +0000\r\nFrom: z@z\r\nIn-Reply-To:\t<r@x>",
    );
    assert_eq!(found.from, [mailbox("a", "b")]);
    assert_eq!((&found.sender, &found.reply_to), (&found.from, &found.from));
    assert_eq!(found.to, [mailbox("c", "d"), mailbox("e", "f")]);
    assert_eq!(found.subject.as_deref(), Some(&b"one two"[..]));
    assert_eq!(found.message_id.as_deref(), Some(&b"<m@x>"[..]));
    assert_eq!(found.in_reply_to.as_deref(), Some(&b"<r@x>"[..]));
    assert_eq!(found.sent_at, Some(core_types::UnixMillis(1000)));
    assert!(found.cc.is_empty() && found.bcc.is_empty());
}

#[test]
fn mime_from_empty() {
    for header in ["From:", "From: (only a comment)", "Subject: x", "From: <>", "From: ,"] {
        let found = envelope(header);
        assert!(
            found.from.is_empty() && found.sender.is_empty() && found.reply_to.is_empty(),
            "{header}"
        );
    }
}

#[test]
fn mime_comments_deep() {
    let deep = "(".repeat(100_000);
    let found = envelope(&format!("From: {deep}\r\nDate: {deep}"));
    assert_eq!(found.sent_at, None);
    assert_eq!(found.from.len(), 1, "the raw text is all there is");
    for (depth, items) in [(31, 0), (32, 0), (33, 1)] {
        assert_eq!(
            envelope(&format!("From: {}{}", "(".repeat(depth), ")".repeat(depth)))
                .from
                .len(),
            items,
            "{depth}"
        );
    }
}

#[test]
fn mime_date_absurd_leaves_the_raw_date() {
    let found = envelope("Date: 31 Feb 99999 25:61 +9999");
    assert_eq!(
        (found.date.as_deref(), found.sent_at),
        (Some(&b"31 Feb 99999 25:61 +9999"[..]), None)
    );
}

#[test]
fn mime_references_10k() {
    let ids: String = (0..10_000).map(|id| format!("\r\n <id-{id:0>90}@x>")).collect();
    let references = scan(format!("References:{ids}\r\n\r\n")).references;
    assert_eq!(references.len(), MIME_REFERENCES_MAX);
    assert_eq!(references.last().unwrap(), format!("id-{:0>90}@x", 9_999).as_bytes());
    assert_eq!(references.first().unwrap(), format!("id-{:0>90}@x", 9_900).as_bytes());
    for (count, kept) in [(99, 99), (100, 100), (101, 100)] {
        let ids: String = (0..count).map(|id| format!(" <{id}@x>")).collect();
        assert_eq!(scan(format!("References:{ids}\r\n\r\n")).references.len(), kept);
    }
    assert_eq!(
        scan("References: junk <a@x> junk < b> <<c@x> <open\r\n\r\n").references,
        [b"a@x".to_vec(), b"c@x".to_vec()]
    );
}

#[test]
fn mime_header_only() {
    let structure = scan("Subject: x\r\nContent-Type: text/html");
    let root = &structure.parts[0];
    assert_eq!((root.body_start, root.end, root.lines), (35, 35, 0));
    assert_eq!(root.content_type.sub, "html");
    assert_eq!(structure.envelope().unwrap().subject.as_deref(), Some(&b"x"[..]));
    assert_eq!(scan("").parts[0].end, 0);
}

#[test]
fn mime_body_only() {
    for (message, body) in [
        ("\r\nx: y\r\n", 2),
        ("\nx: y\n", 1),
        ("hello\r\nSubject: no\r\n\r\n", 0),
    ] {
        let structure = scan(message);
        assert_eq!(structure.parts[0].body_start, body, "{message:?}");
        assert_eq!(structure.envelope(), Some(&Envelope::default()), "{message:?}");
    }
    assert_eq!(scan("hello\r\nworld").preview, "hello world");
}

#[test]
fn mime_header_fold_1m() {
    let folds = "\r\n x".repeat(100_000);
    let subject = envelope(&format!("Subject: a{folds}")).subject.unwrap();
    assert_eq!(subject.len(), HEADER_FIELD_INDEXED_BYTES_MAX - "Subject: ".len());
    for extra in [0, 1] {
        let text = "a".repeat(HEADER_FIELD_INDEXED_BYTES_MAX - "Subject:".len() + extra - 1);
        let subject = envelope(&format!("Subject:{text}")).subject.unwrap();
        assert_eq!(subject.len(), text.len());
    }
    let text = "a".repeat(HEADER_FIELD_INDEXED_BYTES_MAX);
    assert!(envelope(&format!("Subject:{text}")).subject.unwrap().len() < text.len());
}

#[test]
fn mime_header_8bit_names_are_not_known_headers() {
    let found = envelope("Subject : no\r\nS\u{fc}bject: no\r\n\u{fc}: x\r\nSubject: yes");
    assert_eq!(found.subject.as_deref(), Some(&b"yes"[..]));
}

#[test]
fn mime_utf8_invalid_is_kept_in_the_envelope() {
    let structure = scan(b"Content-Type: text/plain; charset=utf-8\r\nSubject: \xff\xc0\xaf\0\r\n\r\n\xff");
    assert_eq!(
        structure.envelope().unwrap().subject.as_deref(),
        Some(&b"\xff\xc0\xaf?"[..])
    );
    assert_eq!(structure.preview, "\u{fffd}");
}

#[test]
fn mime_zip_bomb() {
    let message = "Content-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\n\r\nUEsDBAoAAAAA\r\n";
    let structure = scan(message);
    assert_eq!((structure.parts.len(), structure.preview.as_str()), (1, ""));
}

#[test]
fn mime_tnef_uuencode() {
    let message = "Content-Type: application/ms-tnef; name=winmail.dat\r\n\r\nbegin 644 x\r\n#0V%T\r\nend\r\n";
    assert_eq!(
        show(message),
        "application/ms-tnef \"begin 644 x\\r\\n#0V%T\\r\\nend\\r\\n\""
    );
    assert_eq!(
        show("\r\nbegin 644 x\r\n#0V%T\r\nend\r\n"),
        "text/plain \"begin 644 x\\r\\n#0V%T\\r\\nend\\r\\n\""
    );
}

#[test]
fn mime_reparse_equal() {
    let message = multipart("b", "--b\r\nContent-ID: <x>\r\n\r\none\r\n--b\r\n\r\ntwo\r\n--b--\r\n");
    let structure = scan(&message);
    assert_eq!(structure, scan(&message));
    let bytes = structure.to_bytes();
    assert_eq!(Structure::from_bytes(&bytes).unwrap(), structure);
    let mut newer = bytes;
    newer[0] = crate::STRUCTURE_VERSION + 1;
    assert!(
        Structure::from_bytes(&newer).is_err(),
        "another version's cache is made anew"
    );
}

#[test]
fn the_number_of_addresses_of_a_message_is_limited() {
    for (count, kept) in [(4_999, 9_998), (5_000, 10_000), (5_001, 10_000)] {
        let lines: String = (0..count).map(|_| "To: a@b\r\nCc: a@b\r\n").collect();
        let found = scan(format!("{lines}\r\n")).envelope().unwrap().clone();
        assert_eq!(found.to.len() + found.cc.len(), kept);
    }
}

#[test]
fn derived_data_is_limited() {
    let field = format!("Content-ID: {}\r\n", "x".repeat(100_000));
    let part = format!("--b\r\n{field}\r\n");
    let structure = scan(multipart("b", &part.repeat(60)));
    let kept: usize = structure
        .parts
        .iter()
        .filter_map(|part| part.content_id.as_ref())
        .map(Vec::len)
        .sum();
    assert!(
        kept <= MIME_DERIVED_BYTES_MAX && kept > MIME_DERIVED_BYTES_MAX - 200_000,
        "{kept}"
    );
    assert!(structure.to_bytes().is_empty());
}

#[test]
fn the_preview_is_the_first_text_that_is_no_attachment() {
    let message = multipart(
        "b",
        "--b\r\nContent-Disposition: attachment\r\n\r\nno\r\n--b\r\nContent-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n\
         --b\r\n\r\nlater\r\n--b--",
    );
    assert_eq!(scan(&message).preview, "hello");
    assert_eq!(scan(format!("\r\n{}", "ab ".repeat(1000))).preview.chars().count(), 256);
    assert_eq!(
        scan(format!("\r\n{}", "\u{e4}".repeat(100_000))).preview,
        "\u{e4}".repeat(256)
    );
}

#[test]
fn sections_are_numbered_as_rfc_3501_says() {
    let nested = multipart("n", "--n\r\n\r\ndeep\r\n--n--");
    let message = multipart(
        "b",
        &format!(
            "--b\r\nX: 1\r\n\r\none\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: s\r\n\r\nplain\r\n--b\r\n\
             Content-Type: message/rfc822\r\n\r\n{nested}\r\n--b--\r\n"
        ),
    );
    let structure = scan(&message);
    let text =
        |range: Option<std::ops::Range<u64>>| range.map(|r| message[r.start as usize..r.end as usize].to_owned());
    let find = |path: &[u32]| structure.find_part(path).unwrap();
    assert_eq!(text(Some(find(&[]).body)).unwrap(), message);
    assert_eq!(find(&[]).mime, None);
    assert_eq!(text(Some(find(&[1]).body)).unwrap(), "one");
    assert_eq!(text(find(&[1]).mime).unwrap(), "X: 1\r\n\r\n");
    assert_eq!(find(&[1]).header, None);
    assert_eq!(text(Some(find(&[2]).body)).unwrap(), "Subject: s\r\n\r\nplain");
    assert_eq!(text(find(&[2]).header).unwrap(), "Subject: s\r\n\r\n");
    assert_eq!(text(find(&[2]).text).unwrap(), "plain");
    assert_eq!(text(Some(find(&[2, 1]).body)).unwrap(), "plain");
    assert_eq!(text(find(&[2, 1]).mime).unwrap(), "Subject: s\r\n\r\n");
    assert_eq!(text(Some(find(&[3, 1]).body)).unwrap(), "deep");
    for path in [&[0][..], &[4], &[1, 1], &[2, 2], &[3, 2], &[3, 1, 1], &[u32::MAX]] {
        assert_eq!(structure.find_part(path), None, "{path:?}");
    }
    let single = scan("A: b\r\n\r\nbody");
    assert_eq!(
        (
            single.find_part(&[1]).unwrap().body,
            single.find_part(&[1]).unwrap().mime
        ),
        (8..12, Some(0..8))
    );
    assert_eq!((single.find_part(&[2]), single.find_part(&[1, 1])), (None, None));
}

#[test]
fn a_field_reads_the_same_from_the_header_and_from_the_scan() {
    let header = "Subject: a\r\n\tb\r\n";
    let field = crate::fields(header.as_bytes()).next().unwrap();
    assert_eq!(envelope(header.trim_end()).subject.unwrap(), unfold(field.value));
}
