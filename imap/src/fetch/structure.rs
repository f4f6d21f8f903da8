//! From the part tree that the index keeps to what ENVELOPE and BODYSTRUCTURE show (RFC 3501 7.4.2).

use imap_proto::encode::{Address, BodyFields, BodyKind, BodyStructure, Disposition, Envelope};
use mime::{Kind, Parameter, Part, Structure};

/// A message's envelope.
pub(super) fn envelope(envelope: &mime::Envelope) -> Envelope<'_> {
    Envelope {
        date: envelope.date.as_deref(),
        subject: envelope.subject.as_deref(),
        from: addresses(&envelope.from),
        sender: addresses(&envelope.sender),
        reply_to: addresses(&envelope.reply_to),
        to: addresses(&envelope.to),
        cc: addresses(&envelope.cc),
        bcc: addresses(&envelope.bcc),
        in_reply_to: envelope.in_reply_to.as_deref(),
        message_id: envelope.message_id.as_deref(),
    }
}

/// A message's parts.
pub(super) fn body_structure(structure: &Structure) -> BodyStructure<'_> {
    let children = structure.child_lists();
    part_of(structure, &children, 0).unwrap_or_else(empty_text)
}

/// The depth of a part tree is bounded by the scanner, so recursion is.
fn part_of<'a>(structure: &'a Structure, children: &[Vec<u32>], index: u32) -> Option<BodyStructure<'a>> {
    let at = usize::try_from(index).ok()?;
    let part = structure.parts.get(at)?;
    let below = children.get(at).map_or(&[] as &[u32], Vec::as_slice);
    let subtype = part.content_type.sub.as_bytes();
    let kind = match part.kind {
        Kind::Multipart => BodyKind::Multipart {
            subtype,
            parts: below
                .iter()
                .filter_map(|&child| part_of(structure, children, child))
                .collect(),
        },
        Kind::Message => {
            let body = below.first().and_then(|&child| part_of(structure, children, child));
            BodyKind::Message {
                fields: fields(part),
                envelope: Box::new(structure.nested_envelope(index).map(envelope).unwrap_or_default()),
                body: Box::new(body.unwrap_or_else(empty_text)),
                line_count: part.lines,
            }
        }
        Kind::Leaf if part.is_text() => BodyKind::Text {
            subtype,
            fields: fields(part),
            line_count: part.lines,
        },
        Kind::Leaf => BodyKind::Basic {
            media_type: part.content_type.main.as_bytes(),
            subtype,
            fields: fields(part),
        },
    };
    Some(BodyStructure {
        kind,
        parameters: parameters(&part.content_type.parameters),
        disposition: part.disposition.as_ref().map(|disposition| Disposition {
            name: disposition.kind.as_bytes(),
            parameters: parameters(&disposition.parameters),
        }),
        languages: part.language.iter().map(Vec::as_slice).collect(),
        location: part.location.as_deref(),
    })
}

fn fields(part: &Part) -> BodyFields<'_> {
    BodyFields {
        id: part.content_id.as_deref(),
        description: part.description.as_deref(),
        encoding: part.encoding.name().as_bytes(),
        size: part.body_bytes(),
        md5: part.md5.as_deref(),
    }
}

fn parameters(parameters: &[Parameter]) -> Vec<(&[u8], &[u8])> {
    parameters
        .iter()
        .map(|parameter| (parameter.name.as_bytes(), parameter.value.as_slice()))
        .collect()
}

fn addresses(addresses: &[mime::Address]) -> Vec<Address<'_>> {
    addresses.iter().map(address).collect()
}

fn address(address: &mime::Address) -> Address<'_> {
    match address {
        mime::Address::Mailbox { name, mailbox, host } => Address {
            name: name.as_deref(),
            route: None,
            mailbox: Some(mailbox),
            // Without a host it would be the start of a group.
            host: Some(host),
        },
        mime::Address::GroupStart(name) => Address {
            mailbox: Some(name),
            ..Address::default()
        },
        mime::Address::GroupEnd => Address::default(),
    }
}

/// What stands for a part that is not there: a scan always finds one.
fn empty_text<'a>() -> BodyStructure<'a> {
    BodyStructure {
        kind: BodyKind::Text {
            subtype: b"plain",
            fields: BodyFields::default(),
            line_count: 0,
        },
        parameters: Vec::new(),
        disposition: None,
        languages: Vec::new(),
        location: None,
    }
}
