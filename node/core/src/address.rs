//! Mail addresses (RFC 5321 4.1.2, RFC 6531), parsed once: after [`Address::parse`] no CR, LF, NUL or empty domain can
//! exist, so that whoever is handed an [`Address`] need not look again.

use std::fmt;

use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use crate::limits::{DOMAIN_BYTES_MAX, LOCAL_PART_BYTES_MAX};

/// `local-part@domain`. Source routes and display names are not part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// What stands before the `@`.
    pub local_part: LocalPart,
    /// What stands behind it.
    pub domain: Domain,
}

/// The part before the `@`, in NFC, without the quotes that may stand around it on the wire. Its case is kept; look-ups
/// use [`LocalPart::folded`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct LocalPart(String);

/// What was decoded holds nothing that could end a line, whoever sent it. Its normal form is not made anew: other tables of
/// Unicode must not make an old row unreadable.
impl TryFrom<String> for LocalPart {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.chars().any(char::is_control) {
            return Err(AddressError::LocalPart);
        }
        Ok(Self(text))
    }
}

/// A domain name in lower case, as A-labels (RFC 5890), without a dot at the end; or an address literal in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Domain(String);

/// What was decoded is checked as what was parsed: another node's defect must not become a row of ours.
impl TryFrom<String> for Domain {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let domain = Self::parse(&text)?;
        if domain.0 == text {
            Ok(domain)
        } else {
            Err(AddressError::Domain)
        }
    }
}

/// Why text is not an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@` with something on both sides.
    #[error("an address is written local-part@domain")]
    NoDomain,
    /// The local part breaks RFC 5321's grammar.
    #[error("the part before the @ is malformed")]
    LocalPart,
    /// The local part has more than 64 octets (RFC 5321 4.5.3.1.1).
    #[error("the part before the @ has more than {LOCAL_PART_BYTES_MAX} octets")]
    LocalPartTooLong,
    /// The domain breaks the grammar of RFC 5321 or IDNA, or has more than 255 octets.
    #[error("the domain is malformed")]
    Domain,
}

impl Address {
    /// Parses `Local-part@Domain` as RFC 5321 and RFC 6531 write it (no angle brackets, no route, no display name).
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (local_part, domain) = text.rsplit_once('@').ok_or(AddressError::NoDomain)?;
        if local_part.is_empty() || domain.is_empty() {
            return Err(AddressError::NoDomain);
        }
        Ok(Self {
            local_part: LocalPart::parse(local_part)?,
            domain: Domain::parse(domain)?,
        })
    }

    /// The form under which accounts and aliases are kept: local part folded.
    #[must_use]
    pub fn folded(&self) -> Self {
        Self {
            local_part: LocalPart(self.local_part.folded()),
            domain: self.domain.clone(),
        }
    }

    /// Whether the local part needs SMTPUTF8 on the wire. (The domain never does: it is kept as A-labels.)
    #[must_use]
    pub fn is_ascii(&self) -> bool {
        self.local_part.0.is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.local_part, self.domain)
    }
}

impl LocalPart {
    /// Parses a dot-string or a quoted string.
    ///
    /// # Errors
    /// [`AddressError::LocalPart`], [`AddressError::LocalPartTooLong`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > LOCAL_PART_BYTES_MAX {
            return Err(AddressError::LocalPartTooLong);
        }
        let inner = if let Some(rest) = text.strip_prefix('"') {
            unquote(rest.strip_suffix('"').ok_or(AddressError::LocalPart)?)?
        } else {
            if !text
                .split('.')
                .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
            {
                return Err(AddressError::LocalPart);
            }
            text.to_owned()
        };
        Ok(Self(inner.nfc().collect()))
    }

    /// Without quotes, in NFC, as the sender wrote its case. May be empty (`""@example.org` is grammatical).
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For look-ups: NFC, lower case. Two spellings of one mailbox have one folded form.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_lowercase().nfc().collect()
    }
}

impl fmt::Display for LocalPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty()
            && self
                .0
                .split('.')
                .all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
        {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

impl Domain {
    /// Parses a domain name (U-labels become A-labels) or an address literal `[...]`.
    ///
    /// # Errors
    /// [`AddressError::Domain`].
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.len() > DOMAIN_BYTES_MAX {
            return Err(AddressError::Domain);
        }
        if let Some(literal) = text.strip_prefix('[') {
            let literal = literal.strip_suffix(']').ok_or(AddressError::Domain)?;
            let valid = match literal.get(..5) {
                Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => literal
                    .get(5..)
                    .is_some_and(|rest| rest.parse::<std::net::Ipv6Addr>().is_ok()),
                _ => literal.parse::<std::net::Ipv4Addr>().is_ok(),
            };
            return if valid {
                Ok(Self(text.to_ascii_lowercase()))
            } else {
                Err(AddressError::Domain)
            };
        }
        let text = text.strip_suffix('.').unwrap_or(text);
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(text).map_err(|_| AddressError::Domain)?
        };
        let label_fits = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if ascii.len() <= DOMAIN_BYTES_MAX && ascii.split('.').all(label_fits) {
            Ok(Self(ascii))
        } else {
            Err(AddressError::Domain)
        }
    }

    /// In lower case, as A-labels.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an address literal.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RFC 5322 `atext`, with the UTF-8 of RFC 6532.
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || (!c.is_ascii() && !c.is_control())
}

fn unquote(inner: &str) -> Result<String, AddressError> {
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        let c = match c {
            '"' => return Err(AddressError::LocalPart),
            '\\' => chars.next().ok_or(AddressError::LocalPart)?,
            c => c,
        };
        if c.is_control() {
            return Err(AddressError::LocalPart);
        }
        text.push(c);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_could_end_a_line_cannot_be_decoded() {
        for (text, fits) in [
            ("x.example", true),
            ("[192.0.2.1]", true),
            ("X.example", false),
            ("", false),
            ("x.example\r\n", false),
            ("x example", false),
        ] {
            let bytes = crate::codec::encode(1, text, 100).unwrap();
            assert_eq!(crate::codec::decode::<Domain>(1, &bytes, 100).is_ok(), fits, "{text:?}");
        }
        for (text, fits) in [
            ("ann", true),
            ("J\u{f6}rg", true),
            ("a b", true),
            ("", true),
            ("a\r\nb", false),
            ("a\0", false),
        ] {
            let bytes = crate::codec::encode(1, text, 100).unwrap();
            assert_eq!(
                crate::codec::decode::<LocalPart>(1, &bytes, 100).is_ok(),
                fits,
                "{text:?}"
            );
        }
    }

    #[test]
    fn addresses_round_trip() {
        for text in [
            "a@example.org",
            "\"a b\"@example.org",
            "\"\"@x.example",
            "a@[127.0.0.1]",
            "a@[ipv6:::1]",
            "ü@x.example",
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(Address::parse(&address.to_string()), Ok(address));
        }
    }

    #[test]
    fn malformed_addresses_are_refused() {
        let long = format!("{}@x.example", "a".repeat(65));
        for text in [
            "",
            "a",
            "@x",
            "a@",
            "a..b@x",
            ".a@x",
            "a\0@x",
            "a\r\n@x",
            "a b@x",
            "\"a@x",
            "\"a\"b\"@x",
            "a@-x",
            "a@x..y",
            "a@[1.2.3]",
            "a@x y",
            "\"a\r\nb\"@x",
            "a@\u{202e}",
            &long,
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
        assert!(Address::parse(&long[1..]).is_ok());
    }

    #[test]
    fn case_and_normal_form_do_not_make_two_accounts() {
        let one = Address::parse("PostMaster@OUR.example").unwrap();
        assert_eq!(one.domain.as_str(), "our.example");
        assert_eq!(one.folded(), Address::parse("postmaster@our.example").unwrap());
        assert_eq!(Address::parse("e\u{301}@x.example"), Address::parse("\u{e9}@x.example"));
    }

    #[test]
    fn a_domain_in_unicode_is_its_a_label() {
        assert_eq!(
            Domain::parse("Bücher.example").unwrap().as_str(),
            "xn--bcher-kva.example"
        );
    }
}
