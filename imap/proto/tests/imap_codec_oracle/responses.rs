//! Responses at random, written by our encoder and read by imap-codec.

use std::num::NonZeroU32;

use core_types::{Flags, Keyword, MailboxName, Uid, UidValidity};
use imap_codec::ResponseCodec;
use imap_codec::decode::Decoder;
use imap_codec::imap_types::body::{BodyStructure as TheirStructure, SpecificFields};
use imap_codec::imap_types::core::{IString, NString};
use imap_codec::imap_types::envelope::{Address as TheirAddress, Envelope as TheirEnvelope};
use imap_codec::imap_types::fetch::{MessageDataItem, Section as TheirSection};
use imap_codec::imap_types::mailbox::Mailbox;
use imap_codec::imap_types::response::{Data, Response, Status as TheirStatus};
use imap_proto::command::{FetchItem, Partial, Section, SectionText, SpecialUse, StatusItem, Tag};
use imap_proto::encode::{Address, BodyFields, BodyKind, BodyStructure, Disposition, Envelope, ListAttributes};
use imap_proto::mailbox_name::decode_utf7;
use imap_proto::{Code, Encoder, Status};

use crate::generator::Generator;

/// Writes one response and reads it back.
pub(crate) fn check(random: &mut Generator) {
    match random.below(6) {
        0 => status(random),
        1 => data(random),
        2 => list(random),
        _ => fetch(random),
    }
}

fn read<T>(bytes: &[u8], look: impl FnOnce(Response<'_>) -> T) -> T {
    match ResponseCodec::new().decode(bytes) {
        Ok((&[], response)) => look(response),
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(bytes)),
    }
}

fn read_data<T>(bytes: &[u8], look: impl FnOnce(Data<'_>) -> T) -> T {
    read(bytes, |response| match response {
        Response::Data(data) => look(data),
        other => panic!("{other:?}"),
    })
}

fn flags(random: &mut Generator) -> Flags {
    let mut flags = Flags::system(u8::try_from(random.below(32)).unwrap());
    for _ in 0..random.below(3) {
        flags
            .keywords
            .extend(Keyword::parse(random.one(&["$Junk", "Work", "a.b", "x]", "NonJunk"])));
    }
    flags
}

fn name(random: &mut Generator) -> MailboxName {
    let name = random.one(&[
        "INBOX",
        "Sent",
        "a/b c",
        "Entw\u{fc}rfe",
        "\u{65e5}\u{672c}\u{8a9e}",
        "R&D",
        "a\"b",
        "a\\b",
        "[Gmail]/All",
        "NIL",
        "{1}",
        "\u{1f4e7}",
    ]);
    MailboxName::parse(name).unwrap()
}

fn code(random: &mut Generator) -> Option<Code> {
    let uids = |random: &mut Generator| (0..=random.below(4)).map(|_| Uid(random.number())).collect::<Vec<_>>();
    let codes = [
        Code::Alert,
        Code::AlreadyExists,
        Code::AppendUid(UidValidity(random.number()), Uid(random.number())),
        Code::AuthenticationFailed,
        Code::AuthorizationFailed,
        Code::BadCharset,
        Code::Cannot,
        Code::Capability(vec!["IMAP4rev1", "AUTH=PLAIN", "LITERAL+", "X-Y"]),
        Code::ClientBug,
        Code::ContactAdmin,
        Code::ExpungeIssued,
        Code::InUse,
        Code::Limit,
        Code::NonExistent,
        Code::NoPerm,
        Code::OverQuota,
        Code::Parse,
        Code::PermanentFlags(flags(random), random.below(2) == 0),
        Code::PrivacyRequired,
        Code::ReadOnly,
        Code::ReadWrite,
        Code::ServerBug,
        Code::TooBig,
        Code::TryCreate,
        Code::UidNotSticky,
        Code::UidNext(Uid(random.number())),
        Code::UidValidity(UidValidity(random.number())),
        Code::Unavailable,
        Code::UnknownCte,
        Code::Unseen(random.number()),
        Code::UseAttr,
    ];
    if random.below(8) == 0 {
        let from = uids(random);
        let to = from.iter().map(|_| Uid(random.number())).collect();
        return Some(Code::CopyUid(UidValidity(random.number()), from, to));
    }
    let at = random.below(codes.len() + 8);
    codes.get(at).cloned()
}

fn status(random: &mut Generator) {
    let code = code(random);
    let text = random.one(&["Done", "[x] y", "", "caf\u{e9}\r\n* BYE", "a b", "]"]);
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes);
    match random.below(4) {
        0 => {
            encoder.continuation(text);
            // An empty text is a quirk that imap-codec takes only when told to; base64 of nothing is sent in that way.
            if !text.is_empty() {
                read(&bytes, |response| {
                    assert!(
                        matches!(response, Response::CommandContinuationRequest(_)),
                        "{response:?}"
                    )
                });
            }
        }
        1 => {
            encoder.untagged(Status::Bye, code.as_ref(), text);
            read(&bytes, |response| match response {
                Response::Status(TheirStatus::Bye(bye)) => assert_eq!(bye.code.is_some(), code.is_some()),
                other => panic!("{other:?}"),
            });
        }
        2 => {
            encoder.untagged(
                [Status::Ok, Status::No, Status::Bad][random.below(3)],
                code.as_ref(),
                text,
            );
            read(&bytes, |response| match response {
                Response::Status(TheirStatus::Untagged(body)) => {
                    assert_eq!(body.code.is_some(), code.is_some(), "{body:?}")
                }
                other => panic!("{other:?}"),
            });
        }
        _ => {
            let tag = Tag::parse(random.one(&["a1", "[]", "x.y"]).as_bytes()).unwrap();
            encoder.tagged(
                &tag,
                [Status::Ok, Status::No, Status::Bad][random.below(3)],
                code.as_ref(),
                text,
            );
            read(&bytes, |response| match response {
                Response::Status(TheirStatus::Tagged(tagged)) => {
                    assert_eq!(tagged.tag.as_ref().as_bytes(), tag.as_bytes());
                    assert_eq!(tagged.body.code.is_some(), code.is_some(), "{tagged:?}");
                }
                other => panic!("{other:?}"),
            });
        }
    }
}

fn data(random: &mut Generator) {
    let mut bytes = Vec::new();
    let number = random.number();
    let mut encoder = Encoder::new(&mut bytes);
    match random.below(9) {
        0 => {
            encoder.capability(&["IMAP4rev1", "STARTTLS", "LITERAL+", "SPECIAL-USE", "AUTH=PLAIN"]);
            read_data(&bytes, |data| {
                assert!(matches!(data, Data::Capability(all) if all.as_ref().len() == 5))
            });
        }
        1 => {
            let flags = flags(random);
            encoder.flags(&flags);
            let count = flags.system.count_ones() as usize + flags.keywords.len();
            read_data(&bytes, |data| {
                assert!(matches!(data, Data::Flags(all) if all.len() == count))
            });
        }
        2 => {
            encoder.exists(number);
            read_data(&bytes, |data| assert_eq!(data, Data::Exists(number)));
        }
        3 => {
            encoder.recent(number);
            read_data(&bytes, |data| assert_eq!(data, Data::Recent(number)));
        }
        4 => {
            encoder.expunge(number);
            read_data(&bytes, |data| {
                assert_eq!(data, Data::Expunge(NonZeroU32::new(number).unwrap()))
            });
        }
        5 => {
            let name = name(random);
            encoder.status(&name, &StatusItem::ALL.map(|item| (item, number)));
            read_data(&bytes, |data| match data {
                Data::Status { mailbox, items } => {
                    assert_eq!(items.len(), StatusItem::ALL.len());
                    assert_name(&mailbox, &name);
                }
                other => panic!("{other:?}"),
            });
        }
        6 => {
            let numbers: Vec<u32> = (0..random.below(5)).map(|_| random.number()).collect();
            encoder.search(numbers.iter().copied());
            read_data(&bytes, |data| match data {
                Data::Search(found) => assert_eq!(found.iter().map(|one| one.get()).collect::<Vec<_>>(), numbers),
                other => panic!("{other:?}"),
            });
        }
        7 => {
            encoder.namespace();
            read_data(&bytes, |data| {
                assert!(matches!(data, Data::Namespace { personal, .. } if personal.len() == 1))
            });
        }
        _ => {
            let value = random.text();
            encoder.id(&[("name", "Everpost"), ("version", &value)]);
            read_data(&bytes, |data| match data {
                Data::Id { parameters } => {
                    assert_eq!(octets(&parameters.unwrap()[1].1).as_deref(), Some(value.as_bytes()));
                }
                other => panic!("{other:?}"),
            });
        }
    }
}

fn assert_name(theirs: &Mailbox<'_>, ours: &MailboxName) {
    match theirs {
        Mailbox::Inbox => assert!(ours.is_inbox()),
        Mailbox::Other(other) => assert_eq!(decode_utf7(other.as_ref()).as_deref(), Some(ours.as_str())),
    }
}

fn list(random: &mut Generator) {
    let name = name(random);
    let mut flip = || random.below(2) == 0;
    let attributes = ListAttributes {
        no_select: flip(),
        non_existent: flip(),
        has_children: flip().then(&mut flip),
        subscribed: flip(),
        special_use: flip().then_some(SpecialUse::Junk),
        // imap-codec does not know the extended data of RFC 5258.
        child_info_subscribed: false,
    };
    let count = usize::from(attributes.no_select)
        + usize::from(attributes.non_existent)
        + usize::from(attributes.has_children.is_some())
        + usize::from(attributes.subscribed)
        + usize::from(attributes.special_use.is_some());
    let is_lsub = flip();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes);
    if is_lsub {
        encoder.lsub(&name, &attributes)
    } else {
        encoder.list(&name, &attributes)
    }
    read_data(&bytes, |data| match data {
        Data::List { items, mailbox, .. } | Data::Lsub { items, mailbox, .. } => {
            assert_eq!(items.len(), count);
            assert_name(&mailbox, &name);
        }
        other => panic!("{other:?}"),
    });
    bytes.clear();
    Encoder::new(&mut bytes).list_separator();
    read_data(&bytes, |data| assert!(matches!(data, Data::List { .. })));
}

/// Octets as they stand in headers: quotes, 8 bits, line ends, long ones.
const OCTETS: [&[u8]; 10] = [
    b"",
    b"text",
    b"two words",
    b"a\"b\\c",
    b"caf\xc3\xa9",
    b"\xff\xfe",
    b"a\r\nb",
    b"{5}",
    b"=?utf-8?q?x?=",
    &[b'x'; 3000],
];

fn some<'a>(random: &mut Generator) -> &'a [u8] {
    OCTETS[random.below(OCTETS.len())]
}

fn maybe<'a>(random: &mut Generator) -> Option<&'a [u8]> {
    (random.below(3) > 0).then(|| some(random))
}

fn addresses<'a>(random: &mut Generator) -> Vec<Address<'a>> {
    let one = |random: &mut Generator| Address {
        name: maybe(random),
        route: maybe(random),
        mailbox: maybe(random),
        host: maybe(random),
    };
    (0..random.below(3)).map(|_| one(random)).collect()
}

fn envelope<'a>(random: &mut Generator) -> Envelope<'a> {
    Envelope {
        date: maybe(random),
        subject: maybe(random),
        from: addresses(random),
        sender: addresses(random),
        reply_to: addresses(random),
        to: addresses(random),
        cc: addresses(random),
        bcc: addresses(random),
        in_reply_to: maybe(random),
        message_id: maybe(random),
    }
}

fn parameters<'a>(random: &mut Generator) -> Vec<(&'a [u8], &'a [u8])> {
    (0..random.below(3))
        .map(|_| (b"charset".as_slice(), some(random)))
        .collect()
}

fn structure<'a>(random: &mut Generator, depth: usize) -> BodyStructure<'a> {
    let fields = BodyFields {
        id: maybe(random),
        description: maybe(random),
        encoding: [b"".as_slice(), b"7BIT", b"base64", b"x\"y"][random.below(4)],
        size: u64::from(random.number()),
        md5: maybe(random),
    };
    let line_count = u64::from(random.number());
    let kind = match random.below(if depth == 0 { 2 } else { 4 }) {
        0 => BodyKind::Text {
            subtype: b"plain",
            fields,
            line_count,
        },
        1 => BodyKind::Basic {
            media_type: b"image",
            subtype: b"png",
            fields,
        },
        2 => BodyKind::Message {
            fields,
            envelope: Box::new(envelope(random)),
            body: Box::new(structure(random, depth - 1)),
            line_count,
        },
        _ => BodyKind::Multipart {
            subtype: b"mixed",
            parts: (0..random.below(4)).map(|_| structure(random, depth - 1)).collect(),
        },
    };
    let disposition = (random.below(2) == 0).then(|| Disposition {
        name: b"attachment",
        parameters: parameters(random),
    });
    let languages = (0..random.below(3)).map(|_| b"en".as_slice()).collect();
    BodyStructure {
        kind,
        parameters: parameters(random),
        disposition,
        languages,
        location: maybe(random),
    }
}

fn fetch(random: &mut Generator) {
    let (uid, size, date) = (random.number(), random.number(), i64::from(random.number()));
    let (flags, envelope, structure, body) = (flags(random), envelope(random), structure(random, 3), some(random));
    let section = Section {
        part: vec![1, 2],
        text: SectionText::HeaderFields {
            not: random.below(2) == 0,
            names: vec!["From".to_owned(), "two words".to_owned()],
        },
    };
    let item = FetchItem::BodySection {
        peek: true,
        section,
        partial: Some(Partial { offset: 7, count: 9 }),
    };
    let recent = random.below(2) == 0;
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes)
        .fetch(5)
        .flags(&flags, recent)
        .uid(Uid(uid))
        .internal_date(date)
        .rfc822_size(u64::from(size))
        .envelope(&envelope)
        .body(&structure)
        .body_structure(&structure)
        .body_bytes(&item, body)
        .body_bytes(&FetchItem::Rfc822, body)
        .body_nil(&FetchItem::Rfc822Text)
        .finish();
    read_data(&bytes, |data| {
        let Data::Fetch { seq, items } = data else {
            panic!("{data:?}")
        };
        assert_eq!((seq.get(), items.as_ref().len()), (5, 10));
        for item in items {
            match item {
                MessageDataItem::Flags(all) => {
                    let count = flags.system.count_ones() as usize + flags.keywords.len() + usize::from(recent);
                    assert_eq!(all.len(), count);
                }
                MessageDataItem::Uid(read) => assert_eq!(read.get(), uid),
                MessageDataItem::InternalDate(read) => assert_eq!(read.as_ref().timestamp(), date),
                MessageDataItem::Rfc822Size(read) => assert_eq!(read, size),
                MessageDataItem::Envelope(read) => assert_envelope(&read, &envelope),
                MessageDataItem::Body(read) => assert_structure(&read, &structure, false),
                MessageDataItem::BodyStructure(read) => assert_structure(&read, &structure, true),
                MessageDataItem::BodyExt { section, origin, data } => {
                    let fields = matches!(
                        section,
                        Some(TheirSection::HeaderFields(Some(_), _) | TheirSection::HeaderFieldsNot(Some(_), _))
                    );
                    assert!(fields && origin == Some(7));
                    assert_eq!(octets(&data).as_deref(), Some(body));
                }
                MessageDataItem::Rfc822(data) => assert_eq!(octets(&data).as_deref(), Some(body)),
                MessageDataItem::Rfc822Text(data) => assert_eq!(octets(&data), None),
                other => panic!("{other:?}"),
            }
        }
    });
}

fn octets(string: &NString<'_>) -> Option<Vec<u8>> {
    string.0.as_ref().map(|string| string.as_ref().to_vec())
}

fn assert_envelope(theirs: &TheirEnvelope<'_>, ours: &Envelope<'_>) {
    let plain = |ours: Option<&[u8]>| ours.map(<[u8]>::to_vec);
    let list = |theirs: &[TheirAddress<'_>], ours: &[Address<'_>]| {
        assert_eq!(theirs.len(), ours.len());
        for (theirs, ours) in theirs.iter().zip(ours) {
            assert_eq!(octets(&theirs.name), plain(ours.name));
            assert_eq!(octets(&theirs.adl), plain(ours.route));
            assert_eq!(octets(&theirs.mailbox), plain(ours.mailbox));
            assert_eq!(octets(&theirs.host), plain(ours.host));
        }
    };
    // RFC 3501 7.4.2: an absent Sender or Reply-To is given as From.
    assert_eq!(octets(&theirs.date), plain(ours.date));
    assert_eq!(octets(&theirs.subject), plain(ours.subject));
    list(&theirs.from, &ours.from);
    list(
        &theirs.sender,
        if ours.sender.is_empty() {
            &ours.from
        } else {
            &ours.sender
        },
    );
    list(
        &theirs.reply_to,
        if ours.reply_to.is_empty() {
            &ours.from
        } else {
            &ours.reply_to
        },
    );
    list(&theirs.to, &ours.to);
    list(&theirs.cc, &ours.cc);
    list(&theirs.bcc, &ours.bcc);
    assert_eq!(octets(&theirs.in_reply_to), plain(ours.in_reply_to));
    assert_eq!(octets(&theirs.message_id), plain(ours.message_id));
}

fn assert_structure(theirs: &TheirStructure<'_>, ours: &BodyStructure<'_>, extended: bool) {
    let same = |theirs: &IString<'_>, ours: &[u8]| assert!(theirs.as_ref().eq_ignore_ascii_case(ours), "{theirs:?}");
    match (theirs, &ours.kind) {
        (
            TheirStructure::Multi {
                bodies,
                subtype,
                extension_data,
            },
            BodyKind::Multipart { subtype: ours, parts },
        ) => {
            same(subtype, ours);
            assert_eq!(extension_data.is_some(), extended);
            assert_eq!(bodies.as_ref().len(), parts.len().max(1));
            for (theirs, ours) in bodies.as_ref().iter().zip(parts) {
                assert_structure(theirs, ours, extended);
            }
        }
        (TheirStructure::Single { body, extension_data }, kind) => {
            let (fields, lines) = match (&body.specific, kind) {
                (
                    SpecificFields::Text {
                        subtype,
                        number_of_lines,
                    },
                    BodyKind::Text {
                        subtype: ours,
                        fields,
                        line_count,
                    },
                ) => {
                    same(subtype, ours);
                    (fields, Some((*number_of_lines, *line_count)))
                }
                (
                    SpecificFields::Basic { r#type, subtype },
                    BodyKind::Basic {
                        media_type,
                        subtype: ours,
                        fields,
                    },
                ) => {
                    same(r#type, media_type);
                    same(subtype, ours);
                    (fields, None)
                }
                (
                    SpecificFields::Message {
                        envelope,
                        body_structure,
                        number_of_lines,
                    },
                    BodyKind::Message {
                        fields,
                        envelope: ours,
                        body,
                        line_count,
                    },
                ) => {
                    assert_envelope(envelope, ours);
                    assert_structure(body_structure, body, extended);
                    (fields, Some((*number_of_lines, *line_count)))
                }
                other => panic!("{other:?}"),
            };
            assert!(lines.is_none_or(|(theirs, ours)| u64::from(theirs) == ours));
            assert_eq!(u64::from(body.basic.size), fields.size);
            assert_eq!(octets(&body.basic.id).as_deref(), fields.id);
            assert_eq!(octets(&body.basic.description).as_deref(), fields.description);
            assert_eq!(body.basic.parameter_list.len(), ours.parameters.len());
            assert_eq!(extension_data.is_some(), extended);
            if let Some(extension) = extension_data {
                assert_eq!(octets(&extension.md5).as_deref(), fields.md5);
                let disposition = extension.tail.as_ref().unwrap().disposition.as_ref();
                let name = disposition.map(|(name, _)| name.as_ref().to_vec());
                assert_eq!(name.as_deref(), ours.disposition.as_ref().map(|own| own.name));
            }
        }
        other => panic!("{other:?}"),
    }
}
