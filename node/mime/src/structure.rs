//! What a scan finds: the arena of parts, and the envelope of each message in it.
//!
//! A part's parent always stands before it in the arena; the part 0 is the message itself. All offsets are octets from
//! the start of the whole message. Values of header fields are the stored octets, unfolded, with NUL made a `?` because
//! no IMAP string can hold it; encoded words are not decoded here.

use core_types::UnixMillis;
use core_types::codec::{self, CodecError};
use core_types::limits::STRUCTURE_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// The version of the format of [`Structure::to_bytes`], and of the rules that the scanner goes by.
pub const STRUCTURE_VERSION: u8 = 1;

/// All that is derived from one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Structure {
    /// The parts; parents before children, siblings in the order of the message. Never empty after a scan.
    pub parts: Vec<Part>,
    /// Up to 256 characters of the first text, in one line; empty when there is none.
    pub preview: String,
    /// The last ids of the message's References, without angle brackets, oldest first.
    pub references: Vec<Vec<u8>>,
}

impl Structure {
    /// The encoded form for the index; empty if it would be larger than `STRUCTURE_BYTES_MAX`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(STRUCTURE_VERSION, self, STRUCTURE_BYTES_MAX.saturating_sub(1) as u64).unwrap_or_default()
    }

    /// Decodes what [`Structure::to_bytes`] made.
    ///
    /// # Errors
    /// [`CodecError`] for other versions, empty and damaged bytes: the structure must then be made from the blob.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(STRUCTURE_VERSION, bytes, STRUCTURE_BYTES_MAX as u64)
    }

    /// The message as a part.
    #[must_use]
    pub fn root(&self) -> Option<&Part> {
        self.parts.first()
    }

    /// The envelope of the message.
    #[must_use]
    pub fn envelope(&self) -> Option<&Envelope> {
        self.root()?.envelope.as_deref()
    }

    /// The envelope of the message inside the message/rfc822 part `index`.
    #[must_use]
    pub fn nested_envelope(&self, index: u32) -> Option<&Envelope> {
        self.children(index)
            .next()
            .and_then(|(_, part)| part.envelope.as_deref())
    }

    /// The children of one part with their indices, in order. Linear in the parts behind `index`.
    pub fn children(&self, index: u32) -> impl Iterator<Item = (u32, &Part)> {
        let start = usize::try_from(index).unwrap_or(usize::MAX).saturating_add(1);
        (0_u32..)
            .zip(&self.parts)
            .skip(start)
            .filter(move |(_, part)| part.parent == Some(index))
    }

    /// The children of every part at once; linear. For those who walk the whole tree.
    #[must_use]
    pub fn child_lists(&self) -> Vec<Vec<u32>> {
        let mut lists = vec![Vec::new(); self.parts.len()];
        for (index, part) in (0_u32..).zip(&self.parts) {
            let parent = part
                .parent
                .and_then(|parent| lists.get_mut(usize::try_from(parent).ok()?));
            if let Some(list) = parent {
                list.push(index);
            }
        }
        lists
    }
}

/// One part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The part that this one lies in; `None` for the message itself.
    pub parent: Option<u32>,
    /// What lies in it.
    pub kind: Kind,
    /// Where the header begins, in octets of the whole message.
    pub header_start: u64,
    /// Where the body begins: behind the header's blank line.
    pub body_start: u64,
    /// Where the body ends. The line end before a delimiter belongs to the delimiter (RFC 2046 5.1.1).
    pub end: u64,
    /// Lines of the body; a last line without a line end counts.
    pub lines: u64,
    /// The content type, or the default of RFC 2045 5.2.
    pub content_type: ContentType,
    /// How the body is encoded. Always [`Encoding::SevenBit`] for a multipart whose field says anything else that no
    /// multipart may say (RFC 2045 6.4).
    pub encoding: Encoding,
    /// Content-ID, as it stands.
    pub content_id: Option<Vec<u8>>,
    /// Content-Description, as it stands.
    pub description: Option<Vec<u8>>,
    /// Content-Disposition.
    pub disposition: Option<Disposition>,
    /// Content-Language, one tag each.
    pub language: Vec<Vec<u8>>,
    /// Content-Location, as it stands.
    pub location: Option<Vec<u8>>,
    /// Content-MD5, as it stands.
    pub md5: Option<Vec<u8>>,
    /// The envelope; there for the message itself and for the child of each [`Kind::Message`].
    pub envelope: Option<Box<Envelope>>,
}

impl Part {
    /// Octets of the body as stored (encoded).
    #[must_use]
    pub fn body_bytes(&self) -> u64 {
        self.end.saturating_sub(self.body_start)
    }

    /// True for text/* leaves.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.kind == Kind::Leaf && self.content_type.main == "text"
    }

    /// The charset parameter, if there is one.
    #[must_use]
    pub fn charset(&self) -> Option<&[u8]> {
        self.content_type.parameter("charset")
    }
}

/// What lies in a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Content.
    Leaf,
    /// One part or more. A multipart that has none is a leaf of application/octet-stream.
    Multipart,
    /// A message, which is the only child.
    Message,
}

/// A media type (RFC 2045 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentType {
    /// The type, in lower case.
    pub main: String,
    /// The subtype, in lower case.
    pub sub: String,
    /// The parameters in order, continuations joined.
    pub parameters: Vec<Parameter>,
}

impl ContentType {
    /// The default of RFC 2045 5.2: text/plain in US-ASCII.
    #[must_use]
    pub fn text_plain() -> Self {
        let charset = Parameter {
            name: "charset".to_owned(),
            value: b"us-ascii".to_vec(),
        };
        Self {
            main: "text".to_owned(),
            sub: "plain".to_owned(),
            parameters: vec![charset],
        }
    }

    /// What an opaque leaf is.
    #[must_use]
    pub fn octet_stream() -> Self {
        Self::bare("application", "octet-stream")
    }

    /// A type without parameters.
    #[must_use]
    pub fn bare(main: &str, sub: &str) -> Self {
        Self {
            main: main.to_owned(),
            sub: sub.to_owned(),
            parameters: Vec::new(),
        }
    }

    /// Whether this is `main/sub`, both given in lower case.
    #[must_use]
    pub fn is(&self, main: &str, sub: &str) -> bool {
        self.main == main && self.sub == sub
    }

    /// The stored value of a parameter, the name given in lower case. `name*` gives the extended form of RFC 2231.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&[u8]> {
        parameter(&self.parameters, name)
    }

    /// The readable value of a parameter: the extended form of RFC 2231 decoded if there is one, else the plain form.
    #[must_use]
    pub fn parameter_text(&self, name: &str) -> Option<String> {
        crate::content::parameter_text(&self.parameters, name)
    }
}

pub(crate) fn parameter<'a>(parameters: &'a [Parameter], name: &str) -> Option<&'a [u8]> {
    parameters
        .iter()
        .find(|parameter| parameter.name == name)
        .map(|parameter| parameter.value.as_slice())
}

/// A parameter of a structured field. Continuations (RFC 2231 3) are joined; a value with charset and percent signs
/// keeps them, and its name then ends with `*` (RFC 2231 4), so that BODYSTRUCTURE can show both as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// The name in lower case.
    pub name: String,
    /// The value without quotes.
    pub value: Vec<u8>,
}

/// Content-Disposition (RFC 2183).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disposition {
    /// `inline`, `attachment` or another word, in lower case.
    pub kind: String,
    /// The parameters.
    pub parameters: Vec<Parameter>,
}

impl Disposition {
    /// The readable value of a parameter, as [`ContentType::parameter_text`].
    #[must_use]
    pub fn parameter_text(&self, name: &str) -> Option<String> {
        crate::content::parameter_text(&self.parameters, name)
    }
}

/// Content-Transfer-Encoding (RFC 2045 6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// `7bit`, also when there is no field.
    #[default]
    SevenBit,
    /// `8bit`.
    EightBit,
    /// `binary`.
    Binary,
    /// `quoted-printable`.
    QuotedPrintable,
    /// `base64`.
    Base64,
    /// Anything else, in lower case: the body is opaque (RFC 2045 6.4).
    Other(String),
}

impl Encoding {
    /// The word of the field, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::SevenBit => "7bit",
            Self::EightBit => "8bit",
            Self::Binary => "binary",
            Self::QuotedPrintable => "quoted-printable",
            Self::Base64 => "base64",
            Self::Other(name) => name,
        }
    }

    /// True if the stored octets are the content.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        matches!(self, Self::SevenBit | Self::EightBit | Self::Binary)
    }
}

/// The fields of a message header that ENVELOPE shows (RFC 3501 7.4.2) and SEARCH looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Date, as it stands.
    pub date: Option<Vec<u8>>,
    /// What Date says, if that is a time since 1970.
    pub sent_at: Option<UnixMillis>,
    /// Subject, as it stands.
    pub subject: Option<Vec<u8>>,
    /// From.
    pub from: Vec<Address>,
    /// Sender; From if there is none.
    pub sender: Vec<Address>,
    /// Reply-To; From if there is none.
    pub reply_to: Vec<Address>,
    /// To.
    pub to: Vec<Address>,
    /// Cc.
    pub cc: Vec<Address>,
    /// Bcc.
    pub bcc: Vec<Address>,
    /// In-Reply-To, as it stands.
    pub in_reply_to: Option<Vec<u8>>,
    /// Message-ID, as it stands.
    pub message_id: Option<Vec<u8>>,
}

/// One item of an address list (RFC 5322 3.4), in the flat form of IMAP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Address {
    /// A mailbox.
    Mailbox {
        /// The display name without quotes, or the comment behind the address.
        name: Option<Vec<u8>>,
        /// The local part without quotes.
        mailbox: Vec<u8>,
        /// The domain; empty if the header has none.
        host: Vec<u8>,
    },
    /// A group of this name begins; IMAP shows `(NIL NIL name NIL)`.
    GroupStart(Vec<u8>),
    /// The group ends; IMAP shows `(NIL NIL NIL NIL)`.
    GroupEnd,
}
