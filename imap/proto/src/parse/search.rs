//! SEARCH (RFC 3501 6.4.4).
//!
//! Keys nest, so they are parsed with a stack of our own, at most [`IMAP_SEARCH_DEPTH_MAX`] high; the tree can then be
//! walked and dropped by recursion.

use core_types::limits::IMAP_SEARCH_DEPTH_MAX;
use core_types::{Flags, Keyword};

use super::{Parsed, Parser, bad, no};
use crate::command::{CommandBody, EnvelopeField, SearchKey};
use crate::date::Date;
use crate::encode::Code;

/// A key that is not complete yet.
enum Open {
    List(Vec<SearchKey>),
    Not,
    Or(Option<SearchKey>),
}

/// What came next: a whole key, or the start of one.
enum Next {
    Key(SearchKey),
    Open(Open),
}

impl Parser<'_> {
    pub(super) fn parse_search(&mut self, uid: bool) -> Parsed<CommandBody> {
        self.space()?;
        let mut ascii_only = false;
        if self.peek().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'C')) {
            let before = self.rest;
            if self.word() == "CHARSET" {
                self.space()?;
                let charset = self.astring()?;
                ascii_only = charset.eq_ignore_ascii_case(b"US-ASCII");
                if !ascii_only && !charset.eq_ignore_ascii_case(b"UTF-8") {
                    return no(Code::BadCharset, "Charset is not supported");
                }
                self.space()?;
            } else {
                self.rest = before;
            }
        }
        Ok(CommandBody::Search {
            uid,
            key: self.parse_search_keys(ascii_only)?,
        })
    }

    /// `search-key *(SP search-key)` up to the input's end.
    fn parse_search_keys(&mut self, ascii_only: bool) -> Parsed<SearchKey> {
        let mut stack = vec![Open::List(Vec::new())];
        loop {
            match self.parse_search_key(ascii_only)? {
                // The outermost list is not a level.
                Next::Open(_) if stack.len() > IMAP_SEARCH_DEPTH_MAX => return bad("Search keys nest too deep"),
                Next::Open(open) => {
                    if matches!(open, Open::Not | Open::Or(_)) {
                        self.space()?;
                    }
                    stack.push(open);
                    continue;
                }
                Next::Key(key) => close(&mut stack, key),
            }
            // What may follow a whole key: another one, or ends of lists.
            while matches!(stack.last(), Some(Open::List(_))) && self.eat(b')') {
                match stack.pop() {
                    Some(Open::List(keys)) if !stack.is_empty() => close(&mut stack, conjunction(keys)),
                    _ => return bad("Parenthesis without its start"),
                }
            }
            if self.is_at_end() {
                break;
            }
            self.space()?;
        }
        match (stack.pop(), stack.is_empty()) {
            (Some(Open::List(keys)), true) => Ok(conjunction(keys)),
            _ => bad("Search key without its end"),
        }
    }

    fn parse_search_key(&mut self, ascii_only: bool) -> Parsed<Next> {
        match self.peek() {
            Some(b'(') => {
                self.eat(b'(');
                return Ok(Next::Open(Open::List(Vec::new())));
            }
            Some(b'0'..=b'9' | b'*') => return Ok(Next::Key(SearchKey::Sequence(self.parse_sequence_set()?))),
            _ => {}
        }
        let word = self.word();
        Ok(Next::Key(match word.as_str() {
            "NOT" => return Ok(Next::Open(Open::Not)),
            "OR" => return Ok(Next::Open(Open::Or(None))),
            "ALL" => SearchKey::All,
            "ANSWERED" => SearchKey::Flag(Flags::ANSWERED),
            "DELETED" => SearchKey::Flag(Flags::DELETED),
            "DRAFT" => SearchKey::Flag(Flags::DRAFT),
            "FLAGGED" => SearchKey::Flag(Flags::FLAGGED),
            "SEEN" => SearchKey::Flag(Flags::SEEN),
            "UNANSWERED" => SearchKey::NotFlag(Flags::ANSWERED),
            "UNDELETED" => SearchKey::NotFlag(Flags::DELETED),
            "UNDRAFT" => SearchKey::NotFlag(Flags::DRAFT),
            "UNFLAGGED" => SearchKey::NotFlag(Flags::FLAGGED),
            "UNSEEN" => SearchKey::NotFlag(Flags::SEEN),
            "RECENT" => SearchKey::Recent,
            "OLD" => SearchKey::Old,
            "NEW" => SearchKey::New,
            "KEYWORD" => SearchKey::Keyword(self.space_keyword()?),
            "UNKEYWORD" => SearchKey::NotKeyword(self.space_keyword()?),
            "BEFORE" => SearchKey::Before(self.space_date()?),
            "ON" => SearchKey::On(self.space_date()?),
            "SINCE" => SearchKey::Since(self.space_date()?),
            "SENTBEFORE" => SearchKey::SentBefore(self.space_date()?),
            "SENTON" => SearchKey::SentOn(self.space_date()?),
            "SENTSINCE" => SearchKey::SentSince(self.space_date()?),
            "LARGER" => SearchKey::Larger(self.space_number()?),
            "SMALLER" => SearchKey::Smaller(self.space_number()?),
            "BCC" => SearchKey::Envelope(EnvelopeField::Bcc, self.space_text(ascii_only)?),
            "CC" => SearchKey::Envelope(EnvelopeField::Cc, self.space_text(ascii_only)?),
            "FROM" => SearchKey::Envelope(EnvelopeField::From, self.space_text(ascii_only)?),
            "SUBJECT" => SearchKey::Envelope(EnvelopeField::Subject, self.space_text(ascii_only)?),
            "TO" => SearchKey::Envelope(EnvelopeField::To, self.space_text(ascii_only)?),
            "BODY" => SearchKey::Body(self.space_text(ascii_only)?),
            "TEXT" => SearchKey::Text(self.space_text(ascii_only)?),
            "HEADER" => SearchKey::Header(self.space_text(ascii_only)?, self.space_text(ascii_only)?),
            "UID" => {
                self.space()?;
                SearchKey::Uid(self.parse_sequence_set()?)
            }
            _ => return bad("Unknown search key"),
        }))
    }

    fn space_number(&mut self) -> Parsed<u32> {
        self.space()?;
        self.number()
    }

    fn space_keyword(&mut self) -> Parsed<Option<Keyword>> {
        self.space()?;
        Ok(std::str::from_utf8(self.atom()?).ok().and_then(Keyword::parse))
    }

    /// RFC 3501 `date`, with or without quotes.
    fn space_date(&mut self) -> Parsed<Date> {
        self.space()?;
        let quoted = self.eat(b'"');
        let date = self.parse_date_text()?;
        if quoted {
            self.expect(b'"', "Date without its end")?;
        }
        Ok(date)
    }

    /// A string to look for. Without CHARSET it may be UTF-8 as well as its subset US-ASCII.
    fn space_text(&mut self, ascii_only: bool) -> Parsed<String> {
        self.space()?;
        let text = self.astring()?;
        if ascii_only && !text.is_ascii() {
            return bad("Text is not in the charset that was named");
        }
        String::from_utf8(text.into_owned()).or_else(|_| bad("Text is not in the charset that was named"))
    }
}

/// Puts a whole key where it belongs, and what that completes, too.
fn close(stack: &mut Vec<Open>, mut key: SearchKey) {
    loop {
        match stack.pop() {
            Some(Open::List(mut keys)) => {
                keys.push(key);
                stack.push(Open::List(keys));
                return;
            }
            Some(Open::Not) => key = SearchKey::Not(Box::new(key)),
            Some(Open::Or(None)) => {
                stack.push(Open::Or(Some(key)));
                return;
            }
            Some(Open::Or(Some(first))) => key = SearchKey::Or(Box::new(first), Box::new(key)),
            None => return,
        }
    }
}

fn conjunction(mut keys: Vec<SearchKey>) -> SearchKey {
    match keys.pop() {
        Some(only) if keys.is_empty() => only,
        Some(last) => {
            keys.push(last);
            SearchKey::And(keys)
        }
        // The grammar has no empty list; this is not reached.
        None => SearchKey::All,
    }
}
