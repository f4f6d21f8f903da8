//! One FETCH response (RFC 3501 7.4.2), item by item.
//!
//! A body may be streamed: [`FetchEncoder::body_literal`] announces its length, the caller writes that many octets
//! behind the buffer's content itself, and goes on with [`FetchEncoder::resume`].

use core_types::{Flags, Uid};

use super::structure::{BodyStructure, Envelope};
use super::{flag_list, string};
use crate::command::{FetchItem, Section, SectionText};
use crate::date::format_internal_date;

/// Writes the items of one FETCH response to the end of a buffer.
#[derive(Debug)]
#[must_use = "a FETCH response needs its end: call finish, or go on with resume"]
pub struct FetchEncoder<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> FetchEncoder<'a> {
    /// Starts the response.
    pub fn begin(out: &'a mut Vec<u8>, sequence_number: u32) -> Self {
        out.extend_from_slice(format!("* {sequence_number} FETCH (").as_bytes());
        Self { out, first: true }
    }

    /// Goes on behind the octets of a literal that was announced.
    pub fn resume(out: &'a mut Vec<u8>) -> Self {
        Self { out, first: false }
    }

    /// Goes on with a response that was begun and holds no item yet.
    pub fn resume_empty(out: &'a mut Vec<u8>) -> Self {
        Self { out, first: true }
    }

    /// Leaves the response for a while; [`FetchEncoder::resume`] goes on with it.
    pub fn suspend(self) {}

    /// `FLAGS`, with `\Recent` if it is for this session.
    pub fn flags(mut self, flags: &Flags, recent: bool) -> Self {
        self.name("FLAGS ");
        flag_list(self.out, flags, if recent { &["\\Recent"] } else { &[] });
        self
    }

    /// `UID`
    pub fn uid(mut self, uid: Uid) -> Self {
        self.name(&format!("UID {uid}"));
        self
    }

    /// `INTERNALDATE`, in UTC
    pub fn internal_date(mut self, unix_seconds: i64) -> Self {
        self.name(&format!("INTERNALDATE \"{}\"", format_internal_date(unix_seconds)));
        self
    }

    /// `RFC822.SIZE`, in octets
    pub fn rfc822_size(mut self, size: u64) -> Self {
        self.name(&format!("RFC822.SIZE {size}"));
        self
    }

    /// `ENVELOPE`
    pub fn envelope(mut self, envelope: &Envelope<'_>) -> Self {
        self.name("ENVELOPE ");
        envelope.encode(self.out);
        self
    }

    /// `BODY`: the structure without extension data
    pub fn body(mut self, structure: &BodyStructure<'_>) -> Self {
        self.name("BODY ");
        structure.encode(self.out, false);
        self
    }

    /// `BODYSTRUCTURE`
    pub fn body_structure(mut self, structure: &BodyStructure<'_>) -> Self {
        self.name("BODYSTRUCTURE ");
        structure.encode(self.out, true);
        self
    }

    /// Octets that are at hand, for `BODY[...]` and the `RFC822` items. Always a literal: some clients look for one.
    pub fn body_bytes(mut self, item: &FetchItem, octets: &[u8]) -> Self {
        self.announce(item, u64::try_from(octets.len()).unwrap_or(u64::MAX));
        self.out.extend_from_slice(octets);
        self
    }

    /// Announces `length` octets for `BODY[...]` and the `RFC822` items. The caller writes exactly so many behind the
    /// buffer's content, then calls [`FetchEncoder::resume`].
    pub fn body_literal(mut self, item: &FetchItem, length: u64) {
        self.announce(item, length);
    }

    /// There is no such part.
    pub fn body_nil(mut self, item: &FetchItem) -> Self {
        self.item_name(item);
        self.out.extend_from_slice(b"NIL");
        self
    }

    /// Ends the response.
    pub fn finish(self) {
        self.out.extend_from_slice(b")\r\n");
    }

    fn announce(&mut self, item: &FetchItem, length: u64) {
        self.item_name(item);
        self.out.extend_from_slice(format!("{{{length}}}\r\n").as_bytes());
    }

    fn name(&mut self, text: &str) {
        if !self.first {
            self.out.push(b' ');
        }
        self.first = false;
        self.out.extend_from_slice(text.as_bytes());
    }

    /// The item's name as a response writes it, and a space.
    fn item_name(&mut self, item: &FetchItem) {
        let plain = match item {
            FetchItem::BodySection { section, partial, .. } => {
                self.name("BODY[");
                encode_section(self.out, section);
                // RFC 3501 7.4.2: only the origin octet is told.
                let origin = partial.map_or_else(|| "] ".to_owned(), |partial| format!("]<{}> ", partial.offset));
                self.out.extend_from_slice(origin.as_bytes());
                return;
            }
            FetchItem::Rfc822Header => "RFC822.HEADER ",
            FetchItem::Rfc822Text => "RFC822.TEXT ",
            FetchItem::Rfc822 => "RFC822 ",
            FetchItem::Flags => "FLAGS ",
            FetchItem::Uid => "UID ",
            FetchItem::InternalDate => "INTERNALDATE ",
            FetchItem::Envelope => "ENVELOPE ",
            FetchItem::Body => "BODY ",
            FetchItem::BodyStructure => "BODYSTRUCTURE ",
            FetchItem::Rfc822Size => "RFC822.SIZE ",
        };
        self.name(plain);
    }
}

fn encode_section(out: &mut Vec<u8>, section: &Section) {
    let part = section.part.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
    out.extend_from_slice(part.as_bytes());
    if !part.is_empty() && section.text != SectionText::All {
        out.push(b'.');
    }
    match &section.text {
        SectionText::All => {}
        SectionText::Header => out.extend_from_slice(b"HEADER"),
        SectionText::Text => out.extend_from_slice(b"TEXT"),
        SectionText::Mime => out.extend_from_slice(b"MIME"),
        SectionText::HeaderFields { not, names } => {
            out.extend_from_slice(if *not {
                b"HEADER.FIELDS.NOT ("
            } else {
                b"HEADER.FIELDS ("
            });
            for (index, name) in names.iter().enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                if name.bytes().all(crate::parse::is_astring_char) {
                    out.extend_from_slice(name.as_bytes());
                } else {
                    string(out, name.as_bytes());
                }
            }
            out.push(b')');
        }
    }
}
