//! Responses of RFC 3501 7 as octets.
//!
//! Whatever is passed in, what comes out is one well-formed response: texts lose what is not printable ASCII, strings
//! become quoted or literal as they need, so no stored octet can start a line of its own.
//! Not here: which response a command gets, and the octets of bodies that are streamed behind an announced literal.

mod code;
mod fetch;
mod structure;
#[cfg(test)]
mod tests;

use core_types::limits::IMAP_QUOTED_BYTES_MAX;
use core_types::{Flags, MailboxName};

pub use code::Code;
pub use fetch::FetchEncoder;
pub use structure::{Address, BodyFields, BodyKind, BodyStructure, Disposition, Envelope};

use crate::command::{SpecialUse, StatusItem, Tag};
use crate::mailbox_name::encode_utf7;
use crate::reader::{Fatal, Refusal};

/// The word of a status response (RFC 3501 7.1). PREAUTH is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// `OK`
    Ok,
    /// `NO`
    No,
    /// `BAD`
    Bad,
    /// `BYE`, untagged only
    Bye,
}

/// What LIST says about a mailbox (RFC 3501 7.2.2, RFC 3348, RFC 5258 4, RFC 6154).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListAttributes {
    /// `\Noselect`
    pub no_select: bool,
    /// `\NonExistent`
    pub non_existent: bool,
    /// `\HasChildren` or `\HasNoChildren`; `None` for neither
    pub has_children: Option<bool>,
    /// `\Subscribed`
    pub subscribed: bool,
    /// The special use.
    pub special_use: Option<SpecialUse>,
    /// `("CHILDINFO" ("SUBSCRIBED"))` behind the name
    pub child_info_subscribed: bool,
}

/// Writes responses to the end of a buffer.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// For this buffer.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// The end of a command: `TAG OK [CODE] text`.
    pub fn tagged(&mut self, tag: &Tag, status: Status, code: Option<&Code>, text: &str) {
        self.out.extend_from_slice(tag.as_bytes());
        self.status_rest(status, code, text);
    }

    /// `* OK [CODE] text`
    pub fn untagged(&mut self, status: Status, code: Option<&Code>, text: &str) {
        self.raw("*");
        self.status_rest(status, code, text);
    }

    /// `+ text`: the client may go on (RFC 3501 7.5).
    pub fn continuation(&mut self, text: &str) {
        self.raw("+ ");
        self.text(text);
        self.line_end();
    }

    /// A refused command. Without a tag that may be echoed it is untagged (RFC 3501 7.1.3).
    pub fn refusal(&mut self, refusal: &Refusal) {
        match &refusal.tag {
            Some(tag) => self.tagged(tag, refusal.status, refusal.code.as_ref(), refusal.text),
            // An untagged NO would be a warning and not an answer.
            None => self.untagged(Status::Bad, refusal.code.as_ref(), refusal.text),
        }
    }

    /// What is said before the connection is closed.
    pub fn fatal(&mut self, fatal: &Fatal) {
        self.untagged(fatal.status, fatal.code.as_ref(), fatal.text);
    }

    /// `* CAPABILITY ...`; `IMAP4rev1` is the caller's to name.
    pub fn capability(&mut self, capabilities: &[&str]) {
        self.raw("* CAPABILITY");
        for capability in capabilities {
            self.raw(" ");
            self.text(capability);
        }
        self.line_end();
    }

    /// `* FLAGS (...)` (RFC 3501 7.2.6)
    pub fn flags(&mut self, flags: &Flags) {
        self.raw("* FLAGS ");
        flag_list(self.out, flags, &[]);
        self.line_end();
    }

    /// `* n EXISTS`
    pub fn exists(&mut self, count: u32) {
        self.raw(&format!("* {count} EXISTS\r\n"));
    }

    /// `* n RECENT`
    pub fn recent(&mut self, count: u32) {
        self.raw(&format!("* {count} RECENT\r\n"));
    }

    /// `* n EXPUNGE`
    pub fn expunge(&mut self, sequence_number: u32) {
        self.raw(&format!("* {sequence_number} EXPUNGE\r\n"));
    }

    /// `* LIST (...) "/" "name"`
    pub fn list(&mut self, name: &MailboxName, attributes: &ListAttributes) {
        self.list_entry("LIST", name, attributes);
    }

    /// `* LSUB (...) "/" "name"`
    pub fn lsub(&mut self, name: &MailboxName, attributes: &ListAttributes) {
        self.list_entry("LSUB", name, attributes);
    }

    /// The answer to a LIST with an empty pattern (RFC 3501 6.3.8): the separator.
    pub fn list_separator(&mut self) {
        self.raw("* LIST (\\Noselect) \"/\" \"\"\r\n");
    }

    /// `* STATUS "name" (ITEM n ...)`
    pub fn status(&mut self, name: &MailboxName, values: &[(StatusItem, u32)]) {
        self.raw("* STATUS ");
        self.mailbox(name);
        self.raw(" (");
        for (index, (item, value)) in values.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            self.raw(&format!("{space}{} {value}", item.as_str()));
        }
        self.raw(")");
        self.line_end();
    }

    /// `* SEARCH n ...`
    pub fn search(&mut self, numbers: impl IntoIterator<Item = u32>) {
        self.search_begin();
        for number in numbers {
            self.search_number(number);
        }
        self.line_end();
    }

    /// Starts a SEARCH response whose numbers come piece by piece; [`Encoder::line_end`] ends it.
    pub fn search_begin(&mut self) {
        self.raw("* SEARCH");
    }

    /// One number more of a SEARCH response.
    pub fn search_number(&mut self, number: u32) {
        self.raw(&format!(" {number}"));
    }

    /// The end of a response that was begun.
    pub fn line_end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }

    /// One personal namespace without prefix, no others (RFC 2342 5).
    pub fn namespace(&mut self) {
        self.raw("* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
    }

    /// `* ID ("field" "value" ...)`; NIL without any (RFC 2971 3.2)
    pub fn id(&mut self, pairs: &[(&str, &str)]) {
        self.raw("* ID ");
        if pairs.is_empty() {
            self.raw("NIL");
        } else {
            for (index, (field, value)) in pairs.iter().enumerate() {
                self.raw(if index == 0 { "(" } else { " " });
                string(self.out, field.as_bytes());
                self.raw(" ");
                string(self.out, value.as_bytes());
            }
            self.raw(")");
        }
        self.line_end();
    }

    /// Starts a FETCH response.
    pub fn fetch(self, sequence_number: u32) -> FetchEncoder<'a> {
        FetchEncoder::begin(self.out, sequence_number)
    }

    fn list_entry(&mut self, response: &str, name: &MailboxName, attributes: &ListAttributes) {
        let mut words: Vec<&str> = Vec::new();
        let flags = [
            (attributes.no_select, "\\Noselect"),
            (attributes.non_existent, "\\NonExistent"),
            (attributes.has_children == Some(true), "\\HasChildren"),
            (attributes.has_children == Some(false), "\\HasNoChildren"),
            (attributes.subscribed, "\\Subscribed"),
        ];
        words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word));
        words.extend(attributes.special_use.map(SpecialUse::as_str));
        self.raw(&format!("* {response} ({}) \"/\" ", words.join(" ")));
        self.mailbox(name);
        if attributes.child_info_subscribed {
            self.raw(" (\"CHILDINFO\" (\"SUBSCRIBED\"))");
        }
        self.line_end();
    }

    fn mailbox(&mut self, name: &MailboxName) {
        string(self.out, encode_utf7(name.as_str()).as_bytes());
    }

    fn status_rest(&mut self, status: Status, code: Option<&Code>, text: &str) {
        self.raw(match status {
            Status::Ok => " OK ",
            Status::No => " NO ",
            Status::Bad => " BAD ",
            Status::Bye => " BYE ",
        });
        if let Some(code) = code {
            self.raw("[");
            code.encode(self.out);
            self.raw("] ");
        }
        // RFC 3501 `text`: at least one character, and a `[` at its start would be taken for a code.
        let text = if text.is_empty() { "Done" } else { text };
        if code.is_none() && text.starts_with('[') {
            self.raw("- ");
        }
        self.text(text);
        self.line_end();
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// RFC 3501 `text`: TEXT-CHAR.
    fn text(&mut self, text: &str) {
        self.out.extend(
            text.chars()
                .map(|c| if (' '..='~').contains(&c) { c as u8 } else { b'?' }),
        );
    }
}

/// `(\Seen keyword)`, with `more` at the end.
pub(crate) fn flag_list(out: &mut Vec<u8>, flags: &Flags, more: &[&str]) {
    const SYSTEM: [(u8, &str); 5] = [
        (Flags::ANSWERED, "\\Answered"),
        (Flags::FLAGGED, "\\Flagged"),
        (Flags::DELETED, "\\Deleted"),
        (Flags::SEEN, "\\Seen"),
        (Flags::DRAFT, "\\Draft"),
    ];
    let system = SYSTEM.iter().filter(|(bit, _)| flags.has(*bit)).map(|(_, name)| *name);
    let keywords = flags.keywords.iter().map(core_types::Keyword::as_str);
    out.push(b'(');
    for (index, name) in system.chain(keywords).chain(more.iter().copied()).enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(name.as_bytes());
    }
    out.push(b')');
}

/// RFC 3501 `string`: quoted where that is possible and short, else a literal. A literal cannot hold NUL; it becomes
/// `?` (such text comes from broken headers only, bodies do not pass here).
pub(crate) fn string(out: &mut Vec<u8>, text: &[u8]) {
    let quotable = |&byte: &u8| byte.is_ascii() && !matches!(byte, 0 | b'\r' | b'\n');
    if text.len() > IMAP_QUOTED_BYTES_MAX || !text.iter().all(quotable) {
        out.extend_from_slice(format!("{{{}}}\r\n", text.len()).as_bytes());
        out.extend(text.iter().map(|&byte| if byte == 0 { b'?' } else { byte }));
        return;
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// RFC 3501 `nstring`.
pub(crate) fn nstring(out: &mut Vec<u8>, text: Option<&[u8]>) {
    match text {
        Some(text) => string(out, text),
        None => out.extend_from_slice(b"NIL"),
    }
}
