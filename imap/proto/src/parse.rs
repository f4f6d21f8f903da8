//! From the octets of one whole command, literals in place, to its syntax tree (RFC 3501 9).
//!
//! The input is the command without its last CRLF; a literal stands in it as `{n}` CRLF and its n octets. Every
//! production consumes input or fails, and only the search keys nest (with a stack of their own, see `search`), so the
//! time is linear and the stack constant.
//! Not here: finding the command's end and its limits ([`crate::reader`]).

mod fetch;
mod mailbox;
mod search;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use core_types::limits::{
    IMAP_ID_FIELD_BYTES_MAX, IMAP_ID_PAIRS_MAX, IMAP_ID_VALUE_BYTES_MAX, IMAP_TAG_BYTES_MAX, SASL_BYTES_MAX,
};

use crate::command::{Command, CommandBody, Secret, Tag};
use crate::encode::{Code, Status};
use crate::sequence_set::{Bound, SequenceSet};

pub(crate) use mailbox::parse_append;

/// Why a command is refused, without its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// The answer.
    Refused {
        status: Status,
        code: Option<Code>,
        text: &'static str,
    },
    /// The input ends within a literal. Only the reader sees this, when it looks at an APPEND that has just begun.
    Incomplete,
}

pub(crate) type Parsed<T> = Result<T, ParseError>;

pub(crate) fn bad<T>(text: &'static str) -> Parsed<T> {
    Err(ParseError::Refused {
        status: Status::Bad,
        code: None,
        text,
    })
}

pub(crate) fn no<T>(code: Code, text: &'static str) -> Parsed<T> {
    Err(ParseError::Refused {
        status: Status::No,
        code: Some(code),
        text,
    })
}

/// The tag at the start of a line, if there is a valid one with a space behind it or nothing.
pub(crate) fn tag_of(line: &[u8]) -> Option<Tag> {
    let tag = line.split(|&byte| byte == b' ').next()?;
    Tag::parse(tag)
}

/// The word behind the tag, as it stands.
pub(crate) fn command_word(line: &[u8]) -> &[u8] {
    let word = line.split(|&byte| byte == b' ').nth(1).unwrap_or(&[]);
    word.split(|&byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or(&[])
}

/// RFC 3501 `tag`, with our limit.
pub(crate) fn is_tag(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.len() <= IMAP_TAG_BYTES_MAX
        && bytes.iter().all(|&byte| is_astring_char(byte) && byte != b'+')
}

/// RFC 3501 `command`.
pub(crate) fn parse_command(input: &[u8]) -> Parsed<Command> {
    let mut parser = Parser::new(input);
    let tag = parser.parse_tag()?;
    parser.space()?;
    let word = parser.word();
    let body = parser.parse_command_body(&word)?;
    if !parser.is_at_end() {
        return bad("Unexpected text after the command");
    }
    Ok(Command { tag, body })
}

/// A place in the input.
pub(crate) struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    fn parse_command_body(&mut self, word: &str) -> Parsed<CommandBody> {
        Ok(match word {
            "CAPABILITY" => CommandBody::Capability,
            "NOOP" => CommandBody::Noop,
            "LOGOUT" => CommandBody::Logout,
            "STARTTLS" => CommandBody::StartTls,
            "CHECK" => CommandBody::Check,
            "CLOSE" => CommandBody::Close,
            "UNSELECT" => CommandBody::Unselect,
            "EXPUNGE" => CommandBody::Expunge,
            "IDLE" => CommandBody::Idle,
            "NAMESPACE" => CommandBody::Namespace,
            "AUTHENTICATE" => self.parse_authenticate()?,
            "LOGIN" => {
                self.space()?;
                let username = self.astring()?.into_owned();
                self.space()?;
                CommandBody::Login {
                    username,
                    password: Secret(self.astring()?.into_owned()),
                }
            }
            "SELECT" => CommandBody::Select(self.space_mailbox()?),
            "EXAMINE" => CommandBody::Examine(self.space_mailbox()?),
            "DELETE" => CommandBody::Delete(self.space_mailbox()?),
            "SUBSCRIBE" => CommandBody::Subscribe(self.space_mailbox()?),
            "UNSUBSCRIBE" => CommandBody::Unsubscribe(self.space_mailbox()?),
            "RENAME" => CommandBody::Rename {
                from: self.space_mailbox()?,
                to: self.space_mailbox()?,
            },
            "CREATE" => self.parse_create()?,
            "LIST" => self.parse_list()?,
            "LSUB" => self.parse_lsub()?,
            "STATUS" => self.parse_status()?,
            "ID" => self.parse_id()?,
            // A whole APPEND never gets here: the reader takes it at its message's literal.
            "APPEND" => return bad("APPEND needs a message as a literal"),
            "UID" => return self.parse_uid(),
            _ => return self.parse_message_command(word, false),
        })
    }

    /// RFC 3501 6.4.8, RFC 4315 2.1
    fn parse_uid(&mut self) -> Parsed<CommandBody> {
        self.space()?;
        let word = self.word();
        if word == "EXPUNGE" {
            self.space()?;
            return Ok(CommandBody::UidExpunge(self.parse_sequence_set()?));
        }
        self.parse_message_command(&word, true)
    }

    fn parse_message_command(&mut self, word: &str, uid: bool) -> Parsed<CommandBody> {
        match word {
            "SEARCH" => self.parse_search(uid),
            "FETCH" => self.parse_fetch(uid),
            "STORE" => self.parse_store(uid),
            "COPY" | "MOVE" => {
                self.space()?;
                let set = self.parse_sequence_set()?;
                let mailbox = self.space_mailbox()?;
                Ok(match word {
                    "COPY" => CommandBody::Copy { uid, set, mailbox },
                    _ => CommandBody::Move { uid, set, mailbox },
                })
            }
            _ => bad("Unknown command"),
        }
    }

    /// RFC 3501 6.2.2, RFC 4959
    fn parse_authenticate(&mut self) -> Parsed<CommandBody> {
        self.space()?;
        let mechanism = self.word();
        if mechanism.is_empty() {
            return bad("A mechanism must be named");
        }
        if self.is_at_end() {
            return Ok(CommandBody::Authenticate {
                mechanism,
                initial: None,
            });
        }
        self.space()?;
        let encoded = self.take_while(|byte| byte.is_ascii_graphic());
        let initial = if encoded == b"=" {
            Vec::new()
        } else {
            decode_sasl(encoded)?
        };
        Ok(CommandBody::Authenticate {
            mechanism,
            initial: Some(Secret(initial)),
        })
    }

    /// RFC 2971 3.1, with the limits of 3.3
    fn parse_id(&mut self) -> Parsed<CommandBody> {
        self.space()?;
        let mut pairs = Vec::new();
        if !self.eat(b'(') {
            return if self.word() == "NIL" {
                Ok(CommandBody::Id(pairs))
            } else {
                bad("ID takes a list or NIL")
            };
        }
        while !self.eat(b')') {
            if !pairs.is_empty() {
                self.space()?;
            }
            let field = self.string()?.into_owned();
            self.space()?;
            let value = self.nstring()?.map(Cow::into_owned);
            if pairs.len() >= IMAP_ID_PAIRS_MAX
                || field.len() > IMAP_ID_FIELD_BYTES_MAX
                || value
                    .as_ref()
                    .is_some_and(|value| value.len() > IMAP_ID_VALUE_BYTES_MAX)
            {
                return bad("ID is over the limits of RFC 2971");
            }
            pairs.push((field, value));
        }
        Ok(CommandBody::Id(pairs))
    }

    fn parse_tag(&mut self) -> Parsed<Tag> {
        let tag = self.take_while(|byte| byte != b' ');
        Tag::parse(tag).map_or_else(|| bad("Invalid tag"), Ok)
    }

    /// RFC 3501 `sequence-set`. Numbers are 1 to 2^32 - 1.
    pub(crate) fn parse_sequence_set(&mut self) -> Parsed<SequenceSet> {
        let mut builder = SequenceSet::builder();
        loop {
            let first = self.seq_number()?;
            let last = if self.eat(b':') { self.seq_number()? } else { first };
            builder.add(first, last);
            if !self.eat(b',') {
                return Ok(builder.finish());
            }
        }
    }

    fn seq_number(&mut self) -> Parsed<Bound> {
        if self.eat(b'*') {
            return Ok(Bound::Star);
        }
        match self.number()? {
            0 => bad("0 is not a message number"),
            number => Ok(Bound::Number(number)),
        }
    }

    // Terminals.

    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((&first, tail)) if first == byte => {
                self.rest = tail;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn expect(&mut self, byte: u8, otherwise: &'static str) -> Parsed<()> {
        if self.eat(byte) { Ok(()) } else { bad(otherwise) }
    }

    pub(crate) fn space(&mut self) -> Parsed<()> {
        self.expect(b' ', "Missing argument")
    }

    pub(crate) fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self
            .rest
            .iter()
            .position(|&byte| !wanted(byte))
            .unwrap_or(self.rest.len());
        let (taken, tail) = self.rest.split_at(length);
        self.rest = tail;
        taken
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, tail) = self.rest.split_at_checked(length)?;
        self.rest = tail;
        Some(taken)
    }

    /// A keyword of the grammar in upper case: letters, digits, `.`, `-`, `_`, `+`. May be empty.
    pub(crate) fn word(&mut self) -> String {
        let word = self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+'));
        word.iter().map(|&byte| char::from(byte.to_ascii_uppercase())).collect()
    }

    /// RFC 3501 `number`: 32 bits.
    pub(crate) fn number(&mut self) -> Parsed<u32> {
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        std::str::from_utf8(digits)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .map_or_else(|| bad("Invalid number"), Ok)
    }

    /// RFC 3501 `atom`.
    pub(crate) fn atom(&mut self) -> Parsed<&'a [u8]> {
        let atom = self.take_while(is_atom_char);
        if atom.is_empty() { bad("Missing atom") } else { Ok(atom) }
    }

    /// RFC 3501 `astring`.
    pub(crate) fn astring(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.string_or(is_astring_char)
    }

    /// RFC 3501 `list-mailbox`.
    pub(crate) fn list_mailbox(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.string_or(|byte| is_astring_char(byte) || matches!(byte, b'%' | b'*'))
    }

    fn string_or(&mut self, is_char: impl Fn(u8) -> bool) -> Parsed<Cow<'a, [u8]>> {
        if matches!(self.peek(), Some(b'"' | b'{')) {
            return self.string();
        }
        let atom = self.take_while(is_char);
        if atom.is_empty() {
            bad("Missing or malformed argument")
        } else {
            Ok(Cow::Borrowed(atom))
        }
    }

    /// RFC 3501 `nstring`.
    fn nstring(&mut self) -> Parsed<Option<Cow<'a, [u8]>>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string().map(Some),
            _ if self.word() == "NIL" => Ok(None),
            _ => bad("Expected a string or NIL"),
        }
    }

    /// RFC 3501 `string`.
    pub(crate) fn string(&mut self) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal().map(Cow::Borrowed),
            _ => bad("Expected a string"),
        }
    }

    /// RFC 3501 `quoted`: TEXT-CHAR is 7-bit without NUL, CR and LF; a backslash only before `"` and `\`.
    fn quoted(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.expect(b'"', "Expected a quoted string")?;
        let plain = self.take_while(|byte| !matches!(byte, b'"' | b'\\') && is_text_char(byte));
        if self.eat(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut text = plain.to_vec();
        loop {
            match self.take(1) {
                Some(b"\"") => return Ok(Cow::Owned(text)),
                Some(b"\\") => match self.take(1) {
                    Some(escaped @ (b"\"" | b"\\")) => text.extend_from_slice(escaped),
                    _ => return bad("Invalid escape in a quoted string"),
                },
                Some(&[byte]) if is_text_char(byte) => text.push(byte),
                Some(_) => return bad("Invalid character in a quoted string"),
                None => return bad("Quoted string without its end"),
            }
        }
    }

    /// RFC 3501 `literal`: CHAR8 is anything but NUL.
    fn literal(&mut self) -> Parsed<&'a [u8]> {
        self.expect(b'{', "Expected a literal")?;
        let length = self.number()?;
        self.eat(b'+');
        if self.take(3) != Some(b"}\r\n") {
            return bad("Invalid literal");
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(octets) = self.take(length) else {
            return Err(ParseError::Incomplete);
        };
        if octets.contains(&0) {
            return bad("NUL in a literal");
        }
        Ok(octets)
    }
}

/// One SASL message in base64 (RFC 3501 6.2.2), at most [`SASL_BYTES_MAX`] octets decoded.
pub(crate) fn decode_sasl(encoded: &[u8]) -> Parsed<Vec<u8>> {
    if encoded.len() > SASL_BYTES_MAX.div_ceil(3) * 4 {
        return bad("SASL message over the limit");
    }
    match STANDARD.decode(encoded) {
        Ok(decoded) if decoded.len() <= SASL_BYTES_MAX => Ok(decoded),
        Ok(_) => bad("SASL message over the limit"),
        Err(_) => bad("Invalid base64"),
    }
}

/// RFC 3501 `ATOM-CHAR`.
pub(crate) fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// RFC 3501 `ASTRING-CHAR`.
pub(crate) fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// RFC 3501 `TEXT-CHAR`.
fn is_text_char(byte: u8) -> bool {
    byte.is_ascii() && !matches!(byte, 0 | b'\r' | b'\n')
}
