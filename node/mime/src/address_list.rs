//! Address lists (RFC 5322 3.4 and the obsolete forms of 4.4), read leniently.
//!
//! Every input has a reading; what names no mailbox is left out. One pass over the tokens, no recursion.

use crate::lexer::{Lexer, Token};
use crate::structure::Address;

/// Reads an address list from an unfolded value: at most `limit` items.
pub(crate) fn parse_address_list(value: &[u8], limit: usize) -> Vec<Address> {
    let mut list = List {
        limit,
        ..List::default()
    };
    let mut lexer = Lexer::new(value);
    while let Some(token) = lexer.next() {
        if list.items.len() >= limit {
            break;
        }
        list.take(token, lexer.spaced);
    }
    list.end_address();
    if list.in_group {
        list.push(Address::GroupEnd);
    }
    list.items
}

#[derive(Default)]
struct List {
    items: Vec<Address>,
    limit: usize,
    in_group: bool,
    /// The words so far as a display name.
    phrase: Vec<u8>,
    /// The words so far as an address.
    address: Vec<u8>,
    /// Where the last `@` stands in `address`.
    at: Option<usize>,
    comment: Option<Vec<u8>>,
    angle: Angle,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Angle {
    #[default]
    None,
    Inside,
    Behind,
}

impl List {
    fn take(&mut self, token: Token, spaced: bool) {
        match token {
            Token::Comment(text) => {
                self.comment.get_or_insert(text);
            }
            // What stands behind the angle brackets belongs to nothing.
            Token::Word(_) | Token::Quoted(_) if self.angle == Angle::Behind => {}
            Token::Word(text) | Token::Quoted(text) => {
                if self.angle == Angle::None {
                    if spaced && !self.phrase.is_empty() {
                        self.phrase.push(b' ');
                    }
                    self.phrase.extend_from_slice(&text);
                }
                self.address.extend_from_slice(&text);
            }
            Token::Special(b'<') if self.angle == Angle::None => {
                self.address.clear();
                self.at = None;
                self.angle = Angle::Inside;
            }
            Token::Special(b'>') if self.angle == Angle::Inside => self.angle = Angle::Behind,
            Token::Special(b'@') if self.angle != Angle::Behind => {
                self.at = Some(self.address.len());
                self.address.push(b'@');
                if self.angle == Angle::None {
                    self.phrase.push(b'@');
                }
            }
            // RFC 5322 4.4: a route before the address is skipped.
            Token::Special(b':') if self.angle == Angle::Inside => {
                self.address.clear();
                self.at = None;
            }
            Token::Special(b',') if self.angle == Angle::Inside => {
                // A comma inside angle brackets separates the hops of a route, which begins with '@'; anything else
                // lacks its closing bracket.
                if self.address.first() != Some(&b'@') {
                    self.end_address();
                }
            }
            Token::Special(b':') if self.angle == Angle::None && !self.in_group && self.at.is_none() => {
                let name = std::mem::take(&mut self.phrase);
                self.reset();
                self.push(Address::GroupStart(name));
                self.in_group = true;
            }
            Token::Special(b';') => {
                self.end_address();
                if self.in_group {
                    self.push(Address::GroupEnd);
                    self.in_group = false;
                }
            }
            Token::Special(b',') => self.end_address(),
            Token::Special(_) => {}
        }
    }

    fn end_address(&mut self) {
        let (mailbox, host) = match self.at.and_then(|at| self.address.split_at_checked(at)) {
            Some((mailbox, host)) => (mailbox.to_vec(), host.get(1..).unwrap_or_default().to_vec()),
            None if self.angle == Angle::None => (self.phrase.clone(), Vec::new()),
            None => (self.address.clone(), Vec::new()),
        };
        let name = if self.angle == Angle::None {
            Vec::new()
        } else {
            std::mem::take(&mut self.phrase)
        };
        let name = if name.is_empty() {
            self.comment.take()
        } else {
            Some(name)
        };
        self.reset();
        if !mailbox.is_empty() || !host.is_empty() {
            self.push(Address::Mailbox {
                name: name.filter(|name| !name.is_empty()),
                mailbox,
                host,
            });
        }
    }

    fn push(&mut self, item: Address) {
        if self.items.len() < self.limit {
            self.items.push(item);
        }
    }

    fn reset(&mut self) {
        self.phrase.clear();
        self.address.clear();
        self.at = None;
        self.comment = None;
        self.angle = Angle::None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(value: &str) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let items = parse_address_list(value.as_bytes(), 100)
            .into_iter()
            .map(|item| match item {
                Address::Mailbox { name, mailbox, host } => {
                    format!(
                        "{}<{}|{}>",
                        name.map_or_else(String::new, |name| text(&name)),
                        text(&mailbox),
                        text(&host)
                    )
                }
                Address::GroupStart(name) => format!("{}:", text(&name)),
                Address::GroupEnd => ";".to_owned(),
            });
        items.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_forms_of_rfc_5322_are_read() {
        assert_eq!(show("a@b.example"), "<a|b.example>");
        assert_eq!(show("John Q. Public <jq@x>, b@c"), "John Q. Public<jq|x> <b|c>");
        assert_eq!(show("\"Doe, \\\"J\\\"\" <j@x>"), "Doe, \"J\"<j|x>");
        assert_eq!(show("j@x (John (the) Doe)"), "John (the) Doe<j|x>");
        assert_eq!(show("A Group:Ed <e@x>,j@x;, k@x"), "A Group: Ed<e|x> <j|x> ; <k|x>");
        assert_eq!(show("Undisclosed recipients:;"), "Undisclosed recipients: ;");
        assert_eq!(show("<@a,@b:j@x>"), "<j|x>");
        assert_eq!(show("\"john doe\"@x"), "<john doe|x>");
        assert_eq!(show("j@[IPv6:::1]"), "<j|[IPv6:::1]>");
        assert_eq!(show("a . b @ c . d"), "<a.b|c.d>");
        assert_eq!(show("=?utf-8?q?J=C3=B6rg?= <j@x>"), "=?utf-8?q?J=C3=B6rg?=<j|x>");
    }

    #[test]
    fn broken_lists_have_a_reading() {
        assert_eq!(show(""), "");
        assert_eq!(show("(only a comment)"), "");
        assert_eq!(show(",,, ,"), "");
        assert_eq!(show("<>"), "");
        assert_eq!(show("john"), "<john|>");
        assert_eq!(show("John Doe"), "<John Doe|>");
        assert_eq!(show("<j@x, k@y"), "<j|x> <k|y>");
        assert_eq!(show("\"open"), "<open|>");
        assert_eq!(show("g: a@b"), "g: <a|b> ;");
        assert_eq!(show("a@b <c@d> junk, e@f"), "a@b<c|d> <e|f>");
    }

    #[test]
    fn the_number_of_items_is_limited() {
        assert_eq!(parse_address_list(b"a@b,c@d,e@f", 2).len(), 2);
        assert_eq!(parse_address_list(b"a@b,c@d,e@f", 3).len(), 3);
        assert!(parse_address_list(b"g:a@b;", 0).is_empty());
    }
}
