//! Replies (RFC 5321 4.2) with enhanced status codes (RFC 2034, RFC 3463).
//!
//! Invariant: what [`Reply::encode`] writes is well formed whatever the fields hold: three digits from 200 to 599,
//! printable ASCII, lines of at most 512 octets (RFC 5321 4.5.3.1.5), CRLF after each.

use std::borrow::Cow;

/// An enhanced status code `class.subject.detail` (RFC 3463).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enhanced(pub u8, pub u16, pub u16);

/// One reply of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The three digits.
    pub code: u16,
    /// The enhanced code; `None` only where RFC 2034 4 wants none (greeting, HELO, EHLO, 334, 354).
    pub enhanced: Option<Enhanced>,
    /// For people. More than one line is separated by LF.
    pub text: Cow<'static, str>,
}

/// What a line may hold beside its end (RFC 5321 4.5.3.1.5: 512 octets with the CRLF).
const LINE_BYTES_MAX: usize = 510;

impl Reply {
    /// A reply with a fixed text.
    #[must_use]
    pub const fn new(code: u16, enhanced: Enhanced, text: &'static str) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: Cow::Borrowed(text),
        }
    }

    /// A reply with a text made for the occasion. It may quote the peer: [`Reply::encode`] defuses it.
    #[must_use]
    pub const fn with_text(code: u16, enhanced: Enhanced, text: String) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: Cow::Owned(text),
        }
    }

    /// A reply without an enhanced code.
    pub(crate) const fn bare(code: u16, text: Cow<'static, str>) -> Self {
        Self {
            code,
            enhanced: None,
            text,
        }
    }

    /// Whether it says yes (2xx).
    #[must_use]
    pub const fn is_positive(&self) -> bool {
        self.code >= 200 && self.code < 300
    }

    /// Whether it says no for good (5xx).
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        self.code >= 500 && self.code < 600
    }

    /// Appends the reply as it goes over the wire.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // A code outside the grammar can only come from a mistake on our side: the client shall try again.
        let (code, enhanced) = if (200..600).contains(&self.code) {
            (self.code, self.enhanced)
        } else {
            (451, Some(Enhanced(4, 3, 0)))
        };
        let mut lines = self.text.split('\n').peekable();
        while let Some(text) = lines.next() {
            let separator = if lines.peek().is_some() { '-' } else { ' ' };
            let mut line = match enhanced {
                Some(Enhanced(class, subject, detail)) => format!("{code}{separator}{class}.{subject}.{detail} "),
                None => format!("{code}{separator}"),
            };
            let room = LINE_BYTES_MAX.saturating_sub(line.len());
            line.extend(
                text.chars()
                    .take(room)
                    .map(|c| if matches!(c, ' '..='~') { c } else { '?' }),
            );
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_line_carries_the_codes() {
        assert_eq!(
            wire(&Reply::new(250, Enhanced(2, 0, 0), "a\nb")),
            "250-2.0.0 a\r\n250 2.0.0 b\r\n"
        );
        assert_eq!(wire(&Reply::bare(354, "go".into())), "354 go\r\n");
    }

    #[test]
    fn text_cannot_break_the_line_or_its_length() {
        let reply = Reply::with_text(550, Enhanced(5, 1, 1), format!("\r250 ok\0ü{}", "x".repeat(600)));
        let wire = wire(&reply);
        assert!(wire.starts_with("550 5.1.1 ?250 ok??xxx"), "{wire}");
        assert_eq!(wire.len(), 512);
        assert_eq!(wire.matches('\r').count(), 1);
    }

    #[test]
    fn a_code_outside_the_grammar_becomes_451() {
        assert_eq!(wire(&Reply::new(7, Enhanced(2, 0, 0), "x")), "451 4.3.0 x\r\n");
    }
}
