//! FETCH and STORE (RFC 3501 6.4.5, 6.4.6).

use core_types::Flags;
use core_types::limits::{IMAP_FETCH_ITEMS_MAX, MIME_DEPTH_MAX};

use super::{Parsed, Parser, bad};
use crate::command::{CommandBody, FetchItem, Partial, Section, SectionText, StoreOp};

impl Parser<'_> {
    pub(super) fn parse_fetch(&mut self, uid: bool) -> Parsed<CommandBody> {
        self.space()?;
        let set = self.parse_sequence_set()?;
        self.space()?;
        let mut items = Vec::new();
        if self.eat(b'(') {
            loop {
                let word = self.word();
                let item = self.parse_fetch_att(&word)?;
                // Asking twice for the same is answered once.
                if !items.contains(&item) {
                    items.push(item);
                }
                if items.len() > IMAP_FETCH_ITEMS_MAX {
                    return bad("Too many items");
                }
                if self.eat(b')') {
                    break;
                }
                self.expect(b' ', "Item list without its end")?;
            }
        } else {
            let word = self.word();
            match fetch_macro(&word) {
                Some(all) => items.extend_from_slice(all),
                None => items.push(self.parse_fetch_att(&word)?),
            }
        }
        // RFC 3501 6.4.8: a UID FETCH answers with the UID always.
        if uid && !items.contains(&FetchItem::Uid) {
            items.insert(0, FetchItem::Uid);
        }
        Ok(CommandBody::Fetch { uid, set, items })
    }

    fn parse_fetch_att(&mut self, word: &str) -> Parsed<FetchItem> {
        Ok(match word {
            "FLAGS" => FetchItem::Flags,
            "UID" => FetchItem::Uid,
            "INTERNALDATE" => FetchItem::InternalDate,
            "ENVELOPE" => FetchItem::Envelope,
            "BODYSTRUCTURE" => FetchItem::BodyStructure,
            "RFC822" => FetchItem::Rfc822,
            "RFC822.HEADER" => FetchItem::Rfc822Header,
            "RFC822.SIZE" => FetchItem::Rfc822Size,
            "RFC822.TEXT" => FetchItem::Rfc822Text,
            "BODY" if self.peek() != Some(b'[') => FetchItem::Body,
            "BODY" => self.parse_body_section(false)?,
            "BODY.PEEK" => self.parse_body_section(true)?,
            _ => return bad("Unknown FETCH item"),
        })
    }

    fn parse_body_section(&mut self, peek: bool) -> Parsed<FetchItem> {
        self.expect(b'[', "Expected a section")?;
        let section = self.parse_section_spec()?;
        self.expect(b']', "Section without its end")?;
        let mut partial = None;
        if self.eat(b'<') {
            let offset = self.number()?;
            self.expect(b'.', "Invalid partial")?;
            let count = self.number()?;
            if count == 0 {
                return bad("A partial must not be empty");
            }
            self.expect(b'>', "Partial without its end")?;
            partial = Some(Partial { offset, count });
        }
        Ok(FetchItem::BodySection { peek, section, partial })
    }

    /// RFC 3501 `section-spec`. No message has more levels than [`MIME_DEPTH_MAX`], so no longer path has data.
    fn parse_section_spec(&mut self) -> Parsed<Section> {
        let mut section = Section::default();
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            match self.number()? {
                0 => return bad("0 is not a part number"),
                number if section.part.len() <= MIME_DEPTH_MAX => section.part.push(number),
                _ => return bad("Section with too many levels"),
            }
            if !self.eat(b'.') {
                return Ok(section);
            }
            if self.peek() == Some(b']') {
                return bad("Invalid section");
            }
        }
        section.text = match self.word().as_str() {
            "" if section.part.is_empty() => SectionText::All,
            "HEADER" => SectionText::Header,
            "TEXT" => SectionText::Text,
            "MIME" if !section.part.is_empty() => SectionText::Mime,
            "HEADER.FIELDS" => SectionText::HeaderFields {
                not: false,
                names: self.parse_header_list()?,
            },
            "HEADER.FIELDS.NOT" => SectionText::HeaderFields {
                not: true,
                names: self.parse_header_list()?,
            },
            _ => return bad("Invalid section"),
        };
        Ok(section)
    }

    fn parse_header_list(&mut self) -> Parsed<Vec<String>> {
        self.space()?;
        self.expect(b'(', "Expected a list of field names")?;
        let mut names = Vec::new();
        loop {
            let name = self.astring()?;
            // The name is echoed, and RFC 5322 2.2 allows no other octets in one.
            let name = std::str::from_utf8(&name)
                .ok()
                .filter(|name| name.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                return bad("Invalid field name");
            };
            names.push(name.to_owned());
            if self.eat(b')') {
                return Ok(names);
            }
            self.space()?;
        }
    }

    pub(super) fn parse_store(&mut self, uid: bool) -> Parsed<CommandBody> {
        self.space()?;
        let set = self.parse_sequence_set()?;
        self.space()?;
        let op = match self.peek() {
            Some(b'+') => StoreOp::Add,
            Some(b'-') => StoreOp::Remove,
            _ => StoreOp::Replace,
        };
        let word = self.word();
        let silent = match word.strip_prefix(['+', '-']).unwrap_or(&word) {
            "FLAGS" => false,
            "FLAGS.SILENT" => true,
            _ => return bad("Unknown STORE item"),
        };
        self.space()?;
        let flags = if self.peek() == Some(b'(') {
            self.parse_flag_list()?
        } else {
            let mut flags = Flags::default();
            self.parse_flag(&mut flags)?;
            while self.eat(b' ') {
                self.parse_flag(&mut flags)?;
            }
            flags
        };
        Ok(CommandBody::Store {
            uid,
            set,
            op,
            silent,
            flags,
        })
    }
}

/// RFC 3501 6.4.5: a macro must be used by itself.
fn fetch_macro(word: &str) -> Option<&'static [FetchItem]> {
    const FULL: [FetchItem; 5] = [
        FetchItem::Flags,
        FetchItem::InternalDate,
        FetchItem::Rfc822Size,
        FetchItem::Envelope,
        FetchItem::Body,
    ];
    match word {
        "FAST" => FULL.get(..3),
        "ALL" => FULL.get(..4),
        "FULL" => Some(&FULL),
        _ => None,
    }
}
