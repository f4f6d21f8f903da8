//! Responses as they stand on the wire.

use core_types::limits::IMAP_QUOTED_BYTES_MAX;
use core_types::{Keyword, Uid, UidValidity};

use super::*;
use crate::command::{FetchItem, Partial, Section, SectionText};

fn written(write: impl FnOnce(Encoder<'_>)) -> String {
    let mut out = Vec::new();
    write(Encoder::new(&mut out));
    String::from_utf8(out).unwrap()
}

fn fetched(write: impl FnOnce(FetchEncoder<'_>) -> FetchEncoder<'_>) -> String {
    let mut out = Vec::new();
    write(FetchEncoder::begin(&mut out, 7)).finish();
    String::from_utf8(out).unwrap()
}

fn name(text: &str) -> MailboxName {
    MailboxName::parse(text).unwrap()
}

fn code(code: &Code) -> String {
    let line = written(|mut out| out.untagged(Status::Ok, Some(code), "x"));
    line.strip_prefix("* OK [")
        .unwrap()
        .strip_suffix("] x\r\n")
        .unwrap()
        .to_owned()
}

#[test]
fn status_responses() {
    let tag = Tag::parse(b"A1").unwrap();
    assert_eq!(
        written(|mut out| out.tagged(&tag, Status::Ok, None, "NOOP completed")),
        "A1 OK NOOP completed\r\n"
    );
    assert_eq!(
        written(|mut out| out.tagged(&tag, Status::No, Some(&Code::TryCreate), "no")),
        "A1 NO [TRYCREATE] no\r\n"
    );
    assert_eq!(
        written(|mut out| out.untagged(Status::Bye, None, "bye")),
        "* BYE bye\r\n"
    );
    assert_eq!(written(|mut out| out.continuation("idling")), "+ idling\r\n");
    assert_eq!(written(|mut out| out.continuation("")), "+ \r\n");
}

#[test]
fn a_text_cannot_start_a_line_or_a_code() {
    assert_eq!(
        written(|mut out| out.untagged(Status::Ok, None, "a\r\n* BYE \u{e4}\0")),
        "* OK a??* BYE ??\r\n"
    );
    assert_eq!(
        written(|mut out| out.untagged(Status::Ok, None, "[ALERT] x")),
        "* OK - [ALERT] x\r\n"
    );
    assert_eq!(written(|mut out| out.untagged(Status::Ok, None, "")), "* OK Done\r\n");
}

#[test]
fn refusals_echo_only_a_valid_tag() {
    let refusal = |tag| Refusal {
        tag,
        status: Status::No,
        code: Some(Code::Cannot),
        text: "x",
    };
    assert_eq!(
        written(|mut out| out.refusal(&refusal(Tag::parse(b"a")))),
        "a NO [CANNOT] x\r\n"
    );
    assert_eq!(written(|mut out| out.refusal(&refusal(None))), "* BAD [CANNOT] x\r\n");
    assert_eq!(
        (Tag::parse(b"a b"), Tag::parse(b"a\r\n"), Tag::parse(b"")),
        (None, None, None)
    );
}

#[test]
fn codes() {
    assert_eq!(code(&Code::BadCharset), "BADCHARSET (UTF-8)");
    assert_eq!(code(&Code::ReadWrite), "READ-WRITE");
    assert_eq!(
        code(&Code::Capability(vec!["IMAP4rev1", "IDLE"])),
        "CAPABILITY IMAP4rev1 IDLE"
    );
    assert_eq!(code(&Code::AppendUid(UidValidity(3), Uid(9))), "APPENDUID 3 9");
    assert_eq!(code(&Code::UidNext(Uid(10))), "UIDNEXT 10");
    assert_eq!(code(&Code::UidValidity(UidValidity(10))), "UIDVALIDITY 10");
    assert_eq!(code(&Code::Unseen(4)), "UNSEEN 4");
    let uids = |uids: &[u32]| uids.iter().map(|&uid| Uid(uid)).collect::<Vec<_>>();
    assert_eq!(
        code(&Code::CopyUid(
            UidValidity(1),
            uids(&[1, 2, 3, 7]),
            uids(&[9, 8, 10, 11])
        )),
        "COPYUID 1 1:3,7 9,8,10:11"
    );
    let mut flags = Flags::system(Flags::SEEN | Flags::DELETED);
    flags.keywords.extend(Keyword::parse("$Junk"));
    assert_eq!(
        code(&Code::PermanentFlags(flags, true)),
        "PERMANENTFLAGS (\\Deleted \\Seen $Junk \\*)"
    );
    assert_eq!(
        code(&Code::PermanentFlags(Flags::default(), false)),
        "PERMANENTFLAGS ()"
    );
}

#[test]
fn mailbox_responses() {
    assert_eq!(
        written(|mut out| out.capability(&["IMAP4rev1", "IDLE"])),
        "* CAPABILITY IMAP4rev1 IDLE\r\n"
    );
    assert_eq!(
        written(|mut out| out.flags(&Flags::system(Flags::SEEN))),
        "* FLAGS (\\Seen)\r\n"
    );
    assert_eq!(written(|mut out| out.exists(3)), "* 3 EXISTS\r\n");
    assert_eq!(written(|mut out| out.recent(0)), "* 0 RECENT\r\n");
    assert_eq!(written(|mut out| out.expunge(2)), "* 2 EXPUNGE\r\n");
    let attributes = ListAttributes {
        has_children: Some(false),
        special_use: Some(SpecialUse::Sent),
        ..ListAttributes::default()
    };
    assert_eq!(
        written(|mut out| out.list(&name("Entw\u{fc}rfe"), &attributes)),
        "* LIST (\\HasNoChildren \\Sent) \"/\" \"Entw&APw-rfe\"\r\n"
    );
    let attributes = ListAttributes {
        no_select: true,
        child_info_subscribed: true,
        ..ListAttributes::default()
    };
    assert_eq!(
        written(|mut out| out.list(&name("a\"\\b"), &attributes)),
        "* LIST (\\Noselect) \"/\" \"a\\\"\\\\b\" (\"CHILDINFO\" (\"SUBSCRIBED\"))\r\n"
    );
    assert_eq!(
        written(|mut out| out.lsub(&name("a"), &ListAttributes::default())),
        "* LSUB () \"/\" \"a\"\r\n"
    );
    assert_eq!(
        written(|mut out| out.list_separator()),
        "* LIST (\\Noselect) \"/\" \"\"\r\n"
    );
    let status = [(StatusItem::Messages, 3), (StatusItem::UidNext, 9)];
    assert_eq!(
        written(|mut out| out.status(&name("a b"), &status)),
        "* STATUS \"a b\" (MESSAGES 3 UIDNEXT 9)\r\n"
    );
    assert_eq!(written(|mut out| out.search([1, 5])), "* SEARCH 1 5\r\n");
    assert_eq!(written(|mut out| out.search([])), "* SEARCH\r\n");
    assert_eq!(
        written(|mut out| out.namespace()),
        "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n"
    );
    assert_eq!(
        written(|mut out| out.id(&[("name", "Everpost")])),
        "* ID (\"name\" \"Everpost\")\r\n"
    );
    assert_eq!(written(|mut out| out.id(&[])), "* ID NIL\r\n");
}

#[test]
fn strings_are_quoted_or_literal_as_they_need() {
    let encoded = |text: &[u8]| {
        let mut out = Vec::new();
        string(&mut out, text);
        out
    };
    assert_eq!(encoded(b""), b"\"\"");
    assert_eq!(encoded(b"a\"\\"), b"\"a\\\"\\\\\"");
    assert_eq!(encoded(b"a\r\nb"), b"{4}\r\na\r\nb");
    assert_eq!(encoded("\u{e4}".as_bytes()), "{2}\r\n\u{e4}".as_bytes());
    assert_eq!(encoded(b"a\0"), b"{2}\r\na?");
    for (length, first) in [
        (IMAP_QUOTED_BYTES_MAX - 1, b'"'),
        (IMAP_QUOTED_BYTES_MAX, b'"'),
        (IMAP_QUOTED_BYTES_MAX + 1, b'{'),
    ] {
        assert_eq!(encoded(&vec![b'x'; length])[0], first);
    }
}

#[test]
fn fetch_items() {
    let text = fetched(|out| {
        out.flags(&Flags::system(Flags::SEEN), true)
            .uid(Uid(4))
            .internal_date(0)
            .rfc822_size(9)
    });
    assert_eq!(
        text,
        "* 7 FETCH (FLAGS (\\Seen \\Recent) UID 4 INTERNALDATE \" 1-Jan-1970 00:00:00 +0000\" RFC822.SIZE 9)\r\n"
    );
    let section = |part: &[u32], text| FetchItem::BodySection {
        peek: true,
        section: Section {
            part: part.to_vec(),
            text,
        },
        partial: None,
    };
    let fields = SectionText::HeaderFields {
        not: true,
        names: vec!["From".to_owned(), "a b".to_owned()],
    };
    assert_eq!(
        fetched(|out| out.body_bytes(&section(&[], SectionText::All), b"x\r\n")),
        "* 7 FETCH (BODY[] {3}\r\nx\r\n)\r\n"
    );
    assert_eq!(
        fetched(|out| out.body_nil(&section(&[1, 2], SectionText::Mime))),
        "* 7 FETCH (BODY[1.2.MIME] NIL)\r\n"
    );
    assert_eq!(
        fetched(|out| out.body_nil(&section(&[3], SectionText::All))),
        "* 7 FETCH (BODY[3] NIL)\r\n"
    );
    assert_eq!(
        fetched(|out| out.body_nil(&section(&[], fields))),
        "* 7 FETCH (BODY[HEADER.FIELDS.NOT (From \"a b\")] NIL)\r\n"
    );
    assert_eq!(
        fetched(|out| out.body_bytes(&FetchItem::Rfc822Text, b"")),
        "* 7 FETCH (RFC822.TEXT {0}\r\n)\r\n"
    );
}

#[test]
fn a_body_is_streamed_behind_its_length() {
    let partial = Some(Partial { offset: 10, count: 3 });
    let item = FetchItem::BodySection {
        peek: false,
        section: Section::default(),
        partial,
    };
    let mut out = Vec::new();
    Encoder::new(&mut out).fetch(2).uid(Uid(5)).body_literal(&item, 3);
    out.extend_from_slice(b"abc");
    FetchEncoder::resume(&mut out).rfc822_size(13).finish();
    assert_eq!(out, b"* 2 FETCH (UID 5 BODY[]<10> {3}\r\nabc RFC822.SIZE 13)\r\n");
}

fn address<'a>(name: Option<&'a str>, mailbox: Option<&'a str>, host: Option<&'a str>) -> Address<'a> {
    Address {
        name: name.map(str::as_bytes),
        route: None,
        mailbox: mailbox.map(str::as_bytes),
        host: host.map(str::as_bytes),
    }
}

#[test]
fn the_envelope_of_rfc_3501_section_8() {
    let gray = address(Some("Terry Gray"), Some("gray"), Some("cac.washington.edu"));
    let envelope = Envelope {
        date: Some(b"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)"),
        subject: Some(b"IMAP4rev1 WG mtg summary and minutes"),
        from: vec![gray],
        sender: vec![gray],
        to: vec![address(None, Some("imap"), Some("cac.washington.edu"))],
        cc: vec![
            address(None, Some("minutes"), Some("CNRI.Reston.VA.US")),
            address(Some("John Klensin"), Some("KLENSIN"), Some("MIT.EDU")),
        ],
        message_id: Some(b"<B27397-0100000@cac.washington.edu>"),
        ..Envelope::default()
    };
    let gray = "((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\"))";
    assert_eq!(
        fetched(|out| out.envelope(&envelope)),
        format!(
            "* 7 FETCH (ENVELOPE (\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \"IMAP4rev1 WG mtg summary and minutes\" {gray} {gray} {gray} \
             ((NIL NIL \"imap\" \"cac.washington.edu\")) ((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")\
             (\"John Klensin\" NIL \"KLENSIN\" \"MIT.EDU\")) NIL NIL \"<B27397-0100000@cac.washington.edu>\"))\r\n"
        )
    );
    let group = Envelope {
        to: vec![address(None, Some("g"), None), address(None, None, None)],
        ..Envelope::default()
    };
    assert_eq!(
        fetched(|out| out.envelope(&group)),
        "* 7 FETCH (ENVELOPE (NIL NIL NIL NIL NIL ((NIL NIL \"g\" NIL)(NIL NIL NIL NIL)) NIL NIL NIL NIL))\r\n"
    );
}

fn part(kind: BodyKind<'_>) -> BodyStructure<'_> {
    BodyStructure {
        kind,
        parameters: vec![],
        disposition: None,
        languages: vec![],
        location: None,
    }
}

fn text_part<'a>(size: u64, line_count: u64) -> BodyStructure<'a> {
    let fields = BodyFields {
        encoding: b"7BIT",
        size,
        ..BodyFields::default()
    };
    let mut text = part(BodyKind::Text {
        subtype: b"PLAIN",
        fields,
        line_count,
    });
    text.parameters.push((b"CHARSET", b"US-ASCII"));
    text
}

#[test]
fn body_structures() {
    const TEXT: &str = "\"TEXT\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") NIL NIL \"7BIT\" 3028 92";
    // RFC 3501 8
    assert_eq!(
        fetched(|out| out.body(&text_part(3028, 92))),
        format!("* 7 FETCH (BODY ({TEXT}))\r\n")
    );
    assert_eq!(
        fetched(|out| out.body_structure(&text_part(3028, 92))),
        format!("* 7 FETCH (BODYSTRUCTURE ({TEXT} NIL NIL NIL NIL))\r\n")
    );
    let fields = BodyFields {
        id: Some(b"<i>"),
        description: Some(b"d"),
        encoding: b"base64",
        size: 9,
        md5: Some(b"m"),
    };
    let mut basic = part(BodyKind::Basic {
        media_type: b"image",
        subtype: b"png",
        fields,
    });
    basic.disposition = Some(Disposition {
        name: b"attachment",
        parameters: vec![(b"filename", b"a.png")],
    });
    basic.languages = vec![b"de", b"en"];
    basic.location = Some(b"http://x");
    let inner = part(BodyKind::Message {
        fields: BodyFields {
            size: 5,
            ..BodyFields::default()
        },
        envelope: Box::default(),
        body: Box::new(text_part(3028, 92)),
        line_count: 2,
    });
    let mut multipart = part(BodyKind::Multipart {
        subtype: b"mixed",
        parts: vec![basic, inner],
    });
    multipart.parameters = vec![(b"boundary", b"b"), (b"x", b"y")];
    assert_eq!(
        fetched(|out| out.body_structure(&multipart)),
        format!(
            "* 7 FETCH (BODYSTRUCTURE ((\"image\" \"png\" NIL \"<i>\" \"d\" \"base64\" 9 \"m\" (\"attachment\" (\"filename\" \"a.png\")) \
             (\"de\" \"en\") \"http://x\")(\"MESSAGE\" \"RFC822\" NIL NIL NIL \"7BIT\" 5 (NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL) \
             ({TEXT} NIL NIL NIL NIL) 2 NIL NIL NIL NIL) \"mixed\" (\"boundary\" \"b\" \"x\" \"y\") NIL NIL NIL))\r\n"
        )
    );
    let empty = part(BodyKind::Multipart {
        subtype: b"mixed",
        parts: vec![],
    });
    assert_eq!(
        fetched(|out| out.body(&empty)),
        "* 7 FETCH (BODY ((\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 0 0) \"mixed\"))\r\n"
    );
}

#[test]
fn a_structure_that_is_too_deep_is_cut() {
    let mut deep = text_part(1, 1);
    for _ in 0..1000 {
        deep = part(BodyKind::Multipart {
            subtype: b"mixed",
            parts: vec![deep],
        });
    }
    let text = fetched(|out| out.body(&deep));
    assert!(text.contains("OCTET-STREAM") && text.matches('(').count() == text.matches(')').count());
}
