//! A second opinion: messages through our scanner and through mail-parser. Where they differ, the difference is listed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use mail_parser::{MessageParser, MimeHeaders, PartType};
use mime::{Address, Kind, Scanner, Structure, decode_header_text};

/// An aspect in which the two differ, and our reason.
type Difference = (&'static str, &'static str);

/// A name, the message, and the aspects in which the two differ, with our reason.
const CORPUS: &[(&str, &str, &[Difference])] = &[
    ("plain", "From: a@b\r\nSubject: hello\r\n\r\nbody\r\n", &[]),
    ("bare_lf", "From: a@b\nSubject: hello\n\nbody\n", &[]),
    ("folded_subject", "Subject: one\r\n two\r\n\r\nx", &[]),
    (
        "encoded_subject",
        "Subject: =?utf-8?q?J=C3=B6rg?= =?utf-8?b?w7Y=?=\r\n\r\nx",
        &[],
    ),
    (
        "latin1_subject",
        "Subject: =?iso-8859-1?q?caf=E9?= au lait\r\n\r\nx",
        &[],
    ),
    ("raw_utf8_subject", "Subject: caf\u{e9}\r\n\r\nx", &[]),
    ("named_from", "From: \"Doe, John\" <jd@x.example>\r\n\r\nx", &[]),
    ("comment_from", "From: jd@x.example (John Doe)\r\n\r\nx", &[]),
    ("two_from", "From: A <a@b>, B <c@d>\r\n\r\nx", &[]),
    ("group", "To: g: a@b, c@d;\r\n\r\nx", &[]),
    ("empty_group", "To: undisclosed-recipients:;\r\n\r\nx", &[]),
    ("date", "Date: Fri, 21 Nov 1997 09:55:06 -0600\r\n\r\nx", &[]),
    (
        "old_date",
        "Date: 21 Nov 97 09:55 GMT\r\n\r\nx",
        &[("date", "a time without seconds is obsolete but valid (RFC 5322 4.3)")],
    ),
    ("html", "Content-Type: text/html; charset=utf-8\r\n\r\n<p>x</p>", &[]),
    (
        "base64",
        "Content-Type: application/pdf; name=x\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n",
        &[],
    ),
    (
        "mixed",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\ntwo\r\n--b--\r\n",
        &[],
    ),
    (
        "preamble",
        "Content-Type: multipart/mixed; boundary=\"b b\"\r\n\r\npre\r\n--b b\r\n\r\none\r\n--b b--\r\nepilogue\r\n",
        &[],
    ),
    (
        "alternative_in_mixed",
        "Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\nContent-Type: multipart/alternative; boundary=i\r\n\r\n--i\r\n\r\na\r\n--i\r\nContent-Type: text/html\r\n\r\nb\r\n--i--\r\n--o\r\nContent-Type: image/png\r\n\r\nc\r\n--o--\r\n",
        &[],
    ),
    (
        "attached_message",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\nx\r\n--b--\r\n",
        &[],
    ),
    (
        "no_close",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n",
        &[],
    ),
    (
        "message_id",
        "Message-ID: <a@b>\r\nReferences: <c@d> <e@f>\r\n\r\nx",
        &[],
    ),
    (
        "filename_continued",
        "Content-Type: image/png; name*0=\"a\"; name*1=\"b.png\"\r\n\r\nx",
        &[],
    ),
    ("empty_from", "From:\r\n\r\nx", &[]),
    ("no_body", "Subject: x\r\n\r\n", &[]),
    ("header_only", "Subject: x\r\n", &[]),
    ("upper_case", "CONTENT-TYPE: TEXT/HTML\r\nSUBJECT: x\r\n\r\nx", &[]),
    (
        "missing_type",
        "Content-Type: text/\r\n\r\nx",
        &[("tree", "a type that cannot be read is text/plain (RFC 2045 5.2)")],
    ),
    (
        "digest",
        "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: one\r\n\r\nx\r\n--b--\r\n",
        &[],
    ),
    (
        "absurd_date",
        "Date: 31 Feb 2020 25:61:00 +0000\r\n\r\nx",
        &[("date", "what is no date is none, not one in March")],
    ),
    (
        "no_boundary",
        "Content-Type: multipart/mixed\r\n\r\nx",
        &[("tree", "IMAP has no multipart without parts, so it is one opaque leaf")],
    ),
    (
        "two_types",
        "Content-Type: text/html\r\nContent-Type: text/csv\r\n\r\nx",
        &[("tree", "the first of repeated fields counts, for every reader alike")],
    ),
    (
        "spaced_name",
        "Subject : x\r\nFrom: a@b\r\n\r\nx",
        &[("subject", "RFC 5322 2.2 has no blank before the colon")],
    ),
];

fn ours(message: &str) -> Vec<(&'static str, String)> {
    let mut scanner = Scanner::new();
    scanner.feed(message.as_bytes());
    let structure = scanner.finish();
    let envelope = structure.envelope().unwrap();
    let subject = envelope.subject.as_deref().map(decode_header_text).unwrap_or_default();
    let date = envelope
        .sent_at
        .map(|time| (time.0 / 1000).to_string())
        .unwrap_or_default();
    let id = envelope
        .message_id
        .as_deref()
        .map(decode_header_text)
        .unwrap_or_default();
    let references: Vec<_> = structure
        .references
        .iter()
        .map(|id| String::from_utf8_lossy(id).into_owned())
        .collect();
    vec![
        ("subject", subject),
        ("from", addresses(&envelope.from)),
        ("to", addresses(&envelope.to)),
        ("date", date),
        ("id", id.trim_matches(['<', '>']).to_owned()),
        ("references", references.join(" ")),
        ("tree", tree(&structure, message, 0)),
    ]
}

fn addresses(list: &[Address]) -> String {
    let text = |bytes: &[u8]| decode_header_text(bytes);
    let items = list.iter().filter_map(|item| match item {
        Address::Mailbox { name, mailbox, host } => Some(format!(
            "{}<{}@{}>",
            name.as_deref().map(text).unwrap_or_default(),
            text(mailbox),
            text(host)
        )),
        _ => None,
    });
    items.collect::<Vec<_>>().join(" ")
}

fn tree(structure: &Structure, message: &str, index: u32) -> String {
    let part = &structure.parts[index as usize];
    let name = format!("{}/{}", part.content_type.main, part.content_type.sub);
    let children: Vec<_> = structure
        .children(index)
        .map(|(child, _)| tree(structure, message, child))
        .collect();
    match part.kind {
        Kind::Leaf => format!(
            "{name}({})",
            message[part.body_start as usize..part.end as usize].trim_end()
        ),
        _ => format!("{name}[{}]", children.join(",")),
    }
}

fn theirs(message: &str) -> Vec<(&'static str, String)> {
    let parsed = MessageParser::default().parse(message.as_bytes()).unwrap_or_default();
    let list = |list: Option<&mail_parser::Address<'_>>| {
        let items = list.into_iter().flat_map(|list| list.iter());
        let items = items.filter(|item| item.address.is_some());
        items
            .map(|item| {
                format!(
                    "{}<{}>",
                    item.name().unwrap_or_default(),
                    item.address().unwrap_or_default()
                )
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    let references = parsed.references().as_text_list().unwrap_or_default().join(" ");
    vec![
        ("subject", parsed.subject().unwrap_or_default().to_owned()),
        ("from", list(parsed.from())),
        ("to", list(parsed.to())),
        (
            "date",
            parsed
                .date()
                .map(|date| date.to_timestamp().to_string())
                .unwrap_or_default(),
        ),
        ("id", parsed.message_id().unwrap_or_default().to_owned()),
        ("references", references),
        ("tree", their_tree(&parsed, message, 0)),
    ]
}

fn their_tree(parsed: &mail_parser::Message<'_>, message: &str, index: u32) -> String {
    let Some(part) = parsed.part(index) else {
        return String::new();
    };
    let default = if matches!(part.body, PartType::Message(_)) {
        "message/rfc822"
    } else {
        "text/plain"
    };
    let name = part.content_type().map_or_else(
        || default.to_owned(),
        |kind| format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or_default()).to_ascii_lowercase(),
    );
    match &part.body {
        PartType::Multipart(children) => {
            let children: Vec<_> = children
                .iter()
                .map(|child| their_tree(parsed, message, *child))
                .collect();
            format!("{name}[{}]", children.join(","))
        }
        PartType::Message(inner) => {
            let text = String::from_utf8_lossy(&inner.raw_message).into_owned();
            format!("{name}[{}]", their_tree(inner, &text, 0))
        }
        _ => {
            let range = part.offset_body as usize..part.offset_end as usize;
            format!("{name}({})", message.get(range).unwrap_or_default().trim_end())
        }
    }
}

#[test]
fn mime_parser_oracle() {
    let mut surprises = Vec::new();
    for (name, message, listed) in CORPUS {
        let found: Vec<_> = ours(message)
            .into_iter()
            .zip(theirs(message))
            .filter(|(ours, theirs)| ours != theirs)
            .collect();
        for (ours, theirs) in &found {
            if !listed.iter().any(|(aspect, _)| *aspect == ours.0) {
                surprises.push(format!("{name}: {}: ours {:?}, theirs {:?}", ours.0, ours.1, theirs.1));
            }
        }
        for (aspect, reason) in *listed {
            assert!(
                found.iter().any(|(ours, _)| ours.0 == *aspect),
                "{name}: no longer different: {aspect} ({reason})"
            );
        }
    }
    assert!(
        surprises.is_empty(),
        "differences that are not listed:\n{}",
        surprises.join("\n")
    );
}
