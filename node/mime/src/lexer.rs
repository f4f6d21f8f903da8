//! The words of structured header fields (RFC 5322 3.2), read leniently: every input has a reading, in linear time.
//!
//! Comments nest to `MIME_COMMENT_DEPTH_MAX`; where one goes deeper, the rest of the field is one raw word.

use core_types::limits::MIME_COMMENT_DEPTH_MAX;

/// What stands next in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// An atom with its dots, a domain literal with its brackets, or raw text.
    Word(Vec<u8>),
    /// A quoted string, without the quotes.
    Quoted(Vec<u8>),
    /// The text of a comment, without the outer parentheses.
    Comment(Vec<u8>),
    /// One of `<>@,;:`.
    Special(u8),
}

/// Reads tokens from an unfolded value.
pub(crate) struct Lexer<'a> {
    rest: &'a [u8],
    /// Whether white space stood before the last token.
    pub(crate) spaced: bool,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(value: &'a [u8]) -> Self {
        Self {
            rest: value,
            spaced: false,
        }
    }

    fn bump(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn quoted(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        while let Some(byte) = self.bump() {
            match byte {
                b'"' => break,
                b'\\' => text.extend(self.bump()),
                _ => text.push(byte),
            }
        }
        text
    }

    fn take_while(&mut self, first: u8, more: impl Fn(u8) -> bool) -> Vec<u8> {
        let length = self
            .rest
            .iter()
            .position(|byte| !more(*byte))
            .unwrap_or(self.rest.len());
        let (head, tail) = self.rest.split_at_checked(length).unwrap_or((self.rest, &[]));
        self.rest = tail;
        let mut text = Vec::with_capacity(length.saturating_add(1));
        text.push(first);
        text.extend_from_slice(head);
        text
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let trimmed = trim_start(self.rest);
        self.spaced = trimmed.len() != self.rest.len();
        self.rest = trimmed;
        let whole = self.rest;
        match self.bump()? {
            b'"' => Some(Token::Quoted(self.quoted())),
            b'(' => match comment(self.rest) {
                Some((text, rest)) => {
                    self.rest = rest;
                    Some(Token::Comment(text))
                }
                None => {
                    self.rest = &[];
                    Some(Token::Word(trim(whole).to_vec()))
                }
            },
            special @ (b'<' | b'>' | b'@' | b',' | b';' | b':') => Some(Token::Special(special)),
            b'[' => {
                let mut text = self.take_while(b'[', |byte| !matches!(byte, b']' | b',' | b'>' | b' ' | b'\t'));
                if self.rest.first() == Some(&b']') {
                    text.extend(self.bump());
                }
                Some(Token::Word(text))
            }
            first => Some(Token::Word(self.take_while(first, is_word))),
        }
    }
}

/// Reads a comment whose opening parenthesis is already read: its text and what follows. `None` if it nests too deep.
/// One without an end runs to the end of the field.
pub(crate) fn comment(value: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut depth = 1_usize;
    let mut text = Vec::new();
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'(' => depth = depth.saturating_add(1),
            b')' => depth = depth.saturating_sub(1),
            b'\\' => {
                text.extend(bytes.next());
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth > MIME_COMMENT_DEPTH_MAX {
            return None;
        }
        text.push(*byte);
    }
    Some((text, bytes.as_slice()))
}

/// The value without its comments; quoted strings are kept with their quotes.
pub(crate) fn without_comments(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    let mut quoted = false;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'(' if !quoted => {
                let Some((_, behind)) = comment(tail) else {
                    out.push(b'(');
                    out.extend_from_slice(tail);
                    return out;
                };
                out.push(b' ');
                rest = behind;
            }
            b'\\' if quoted => {
                out.push(b'\\');
                if let Some((escaped, behind)) = tail.split_first() {
                    out.push(*escaped);
                    rest = behind;
                }
            }
            b'"' => {
                quoted = !quoted;
                out.push(b'"');
            }
            _ => out.push(*first),
        }
    }
    out
}

fn is_word(byte: u8) -> bool {
    !matches!(
        byte,
        b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'(' | b'<' | b'>' | b'@' | b',' | b';' | b':'
    )
}

pub(crate) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

pub(crate) fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !is_blank(*byte)).unwrap_or(bytes.len());
    bytes.get(start..).unwrap_or_default()
}

pub(crate) fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| !is_blank(*byte))
        .map_or(0, |last| last.saturating_add(1));
    bytes.get(..end).unwrap_or_default()
}

pub(crate) fn trim(bytes: &[u8]) -> &[u8] {
    trim_end(trim_start(bytes))
}
