//! ENVELOPE and BODYSTRUCTURE (RFC 3501 7.4.2), as the server hands them over and as octets.
//!
//! The structs borrow; they hold octets of headers as they are, in whatever charset. Not here: parsing messages.

use core_types::limits::MIME_DEPTH_MAX;

use super::{nstring, string};

/// RFC 3501 `envelope`. An absent field is `None` or an empty list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// The Date field as written.
    pub date: Option<&'a [u8]>,
    /// The Subject field, unfolded.
    pub subject: Option<&'a [u8]>,
    /// From
    pub from: Vec<Address<'a>>,
    /// Sender; empty means as From.
    pub sender: Vec<Address<'a>>,
    /// Reply-To; empty means as From.
    pub reply_to: Vec<Address<'a>>,
    /// To
    pub to: Vec<Address<'a>>,
    /// Cc
    pub cc: Vec<Address<'a>>,
    /// Bcc
    pub bcc: Vec<Address<'a>>,
    /// In-Reply-To
    pub in_reply_to: Option<&'a [u8]>,
    /// Message-ID
    pub message_id: Option<&'a [u8]>,
}

/// RFC 3501 `address`. The start of a group has its name in `mailbox` and no `host`, the end has neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address<'a> {
    /// The display name, undecoded.
    pub name: Option<&'a [u8]>,
    /// The source route.
    pub route: Option<&'a [u8]>,
    /// The local part, or a group's name.
    pub mailbox: Option<&'a [u8]>,
    /// The domain.
    pub host: Option<&'a [u8]>,
}

/// RFC 3501 `body`: one part with what lies in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyStructure<'a> {
    /// Which kind of part.
    pub kind: BodyKind<'a>,
    /// Parameters of Content-Type: name and value.
    pub parameters: Vec<(&'a [u8], &'a [u8])>,
    /// Content-Disposition
    pub disposition: Option<Disposition<'a>>,
    /// Content-Language
    pub languages: Vec<&'a [u8]>,
    /// Content-Location
    pub location: Option<&'a [u8]>,
}

/// The three kinds of single parts, and multipart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyKind<'a> {
    /// `multipart/...`
    Multipart {
        /// The subtype.
        subtype: &'a [u8],
        /// The parts; without any, an empty text is shown, since the grammar wants one.
        parts: Vec<BodyStructure<'a>>,
    },
    /// `text/...`
    Text {
        /// The subtype.
        subtype: &'a [u8],
        /// What every single part has.
        fields: BodyFields<'a>,
        /// Lines of the part as it is stored.
        line_count: u64,
    },
    /// `message/rfc822`
    Message {
        /// What every single part has.
        fields: BodyFields<'a>,
        /// The inner message's envelope.
        envelope: Box<Envelope<'a>>,
        /// The inner message's structure.
        body: Box<BodyStructure<'a>>,
        /// Lines of the part as it is stored.
        line_count: u64,
    },
    /// Everything else, also a message or multipart that was not looked into.
    Basic {
        /// The type.
        media_type: &'a [u8],
        /// The subtype.
        subtype: &'a [u8],
        /// What every single part has.
        fields: BodyFields<'a>,
    },
}

/// RFC 3501 `body-fields`, the parameters apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyFields<'a> {
    /// Content-ID
    pub id: Option<&'a [u8]>,
    /// Content-Description
    pub description: Option<&'a [u8]>,
    /// Content-Transfer-Encoding; empty means 7BIT.
    pub encoding: &'a [u8],
    /// Octets of the part as it is stored.
    pub size: u64,
    /// Content-MD5
    pub md5: Option<&'a [u8]>,
}

/// RFC 3501 `body-fld-dsp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disposition<'a> {
    /// `attachment`, `inline`, ...
    pub name: &'a [u8],
    /// Parameters: name and value.
    pub parameters: Vec<(&'a [u8], &'a [u8])>,
}

impl Envelope<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        // RFC 3501 7.4.2: the server puts From where Sender or Reply-To is absent or empty.
        let or_from = |list| {
            if <[Address<'_>]>::is_empty(list) {
                self.from.as_slice()
            } else {
                list
            }
        };
        out.push(b'(');
        nstring(out, self.date);
        out.push(b' ');
        nstring(out, self.subject);
        for list in [
            &self.from,
            or_from(&self.sender),
            or_from(&self.reply_to),
            &self.to,
            &self.cc,
            &self.bcc,
        ] {
            out.push(b' ');
            encode_addresses(out, list);
        }
        for text in [self.in_reply_to, self.message_id] {
            out.push(b' ');
            nstring(out, text);
        }
        out.push(b')');
    }
}

impl BodyStructure<'_> {
    /// With `extended` as BODYSTRUCTURE, without as BODY.
    pub(super) fn encode(&self, out: &mut Vec<u8>, extended: bool) {
        self.encode_level(out, extended, 0);
    }

    /// The recursion is bounded: the parser of messages makes no deeper tree, and if one came, it would be cut here.
    fn encode_level(&self, out: &mut Vec<u8>, extended: bool, level: usize) {
        if level > 2 * MIME_DEPTH_MAX {
            out.extend_from_slice(CUT_PART);
            return;
        }
        out.push(b'(');
        match &self.kind {
            BodyKind::Multipart { subtype, parts } => {
                parts
                    .iter()
                    .for_each(|part| part.encode_level(out, extended, level + 1));
                if parts.is_empty() {
                    out.extend_from_slice(EMPTY_PART);
                }
                out.push(b' ');
                string(out, subtype);
                if extended {
                    out.push(b' ');
                    encode_parameters(out, &self.parameters);
                    self.encode_extension(out);
                }
            }
            BodyKind::Text {
                subtype,
                fields,
                line_count,
            } => {
                self.encode_fields(out, b"TEXT", subtype, fields);
                out.extend_from_slice(format!(" {line_count}").as_bytes());
                self.encode_single_extension(out, extended, fields);
            }
            BodyKind::Message {
                fields,
                envelope,
                body,
                line_count,
            } => {
                self.encode_fields(out, b"MESSAGE", b"RFC822", fields);
                out.push(b' ');
                envelope.encode(out);
                out.push(b' ');
                body.encode_level(out, extended, level + 1);
                out.extend_from_slice(format!(" {line_count}").as_bytes());
                self.encode_single_extension(out, extended, fields);
            }
            BodyKind::Basic {
                media_type,
                subtype,
                fields,
            } => {
                self.encode_fields(out, media_type, subtype, fields);
                self.encode_single_extension(out, extended, fields);
            }
        }
        out.push(b')');
    }

    fn encode_fields(&self, out: &mut Vec<u8>, media_type: &[u8], subtype: &[u8], fields: &BodyFields<'_>) {
        string(out, media_type);
        out.push(b' ');
        string(out, subtype);
        out.push(b' ');
        encode_parameters(out, &self.parameters);
        out.push(b' ');
        nstring(out, fields.id);
        out.push(b' ');
        nstring(out, fields.description);
        out.push(b' ');
        string(
            out,
            if fields.encoding.is_empty() {
                b"7BIT"
            } else {
                fields.encoding
            },
        );
        out.extend_from_slice(format!(" {}", fields.size).as_bytes());
    }

    fn encode_single_extension(&self, out: &mut Vec<u8>, extended: bool, fields: &BodyFields<'_>) {
        if extended {
            out.push(b' ');
            nstring(out, fields.md5);
            self.encode_extension(out);
        }
    }

    fn encode_extension(&self, out: &mut Vec<u8>) {
        out.push(b' ');
        match &self.disposition {
            None => out.extend_from_slice(b"NIL"),
            Some(disposition) => {
                out.push(b'(');
                string(out, disposition.name);
                out.push(b' ');
                encode_parameters(out, &disposition.parameters);
                out.push(b')');
            }
        }
        out.push(b' ');
        match self.languages.as_slice() {
            [] => out.extend_from_slice(b"NIL"),
            languages => {
                for (index, language) in languages.iter().enumerate() {
                    out.push(if index == 0 { b'(' } else { b' ' });
                    string(out, language);
                }
                out.push(b')');
            }
        }
        out.push(b' ');
        nstring(out, self.location);
    }
}

fn encode_addresses(out: &mut Vec<u8>, addresses: &[Address<'_>]) {
    if addresses.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for address in addresses {
        for (index, text) in [address.name, address.route, address.mailbox, address.host]
            .into_iter()
            .enumerate()
        {
            out.push(if index == 0 { b'(' } else { b' ' });
            nstring(out, text);
        }
        out.push(b')');
    }
    out.push(b')');
}

fn encode_parameters(out: &mut Vec<u8>, parameters: &[(&[u8], &[u8])]) {
    if parameters.is_empty() {
        out.extend_from_slice(b"NIL");
        return;
    }
    for (index, (name, value)) in parameters.iter().enumerate() {
        out.push(if index == 0 { b'(' } else { b' ' });
        string(out, name);
        out.push(b' ');
        string(out, value);
    }
    out.push(b')');
}

const EMPTY_PART: &[u8] = b"(\"TEXT\" \"PLAIN\" NIL NIL NIL \"7BIT\" 0 0)";
const CUT_PART: &[u8] = b"(\"APPLICATION\" \"OCTET-STREAM\" NIL NIL NIL \"BINARY\" 0)";
