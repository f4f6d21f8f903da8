//! The words of RFC 9051 and RFC 7162 that every part shares: UIDs, MODSEQs, flags, mailbox names.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{KEYWORD_BYTES_MAX, MAILBOX_DEPTH_MAX, MAILBOX_NAME_BYTES_MAX};

/// A message's number within (mailbox, UIDVALIDITY); ascending, never given twice (RFC 9051 2.3.1.1). 1 and above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uid(pub u32);

/// A mailbox's UID space (RFC 9051 2.3.1.1). 1 and above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UidValidity(pub u32);

/// A change's number within a mailbox (RFC 7162); 63 bits are used. 1 and above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModSeq(pub u64);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for UidValidity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for ModSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A message's flags: the system flags of RFC 9051 2.3.2 as bits, and keywords. `\Recent` is a session's matter and not
/// here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// [`Flags::SEEN`] and its siblings, or-ed.
    pub system: u8,
    /// Keywords, each once whatever its case.
    pub keywords: BTreeSet<Keyword>,
}

impl Flags {
    /// `\Seen`
    pub const SEEN: u8 = 1;
    /// `\Answered`
    pub const ANSWERED: u8 = 2;
    /// `\Flagged`
    pub const FLAGGED: u8 = 4;
    /// `\Deleted`
    pub const DELETED: u8 = 8;
    /// `\Draft`
    pub const DRAFT: u8 = 16;

    /// Only these system flags.
    #[must_use]
    pub fn system(bits: u8) -> Self {
        Self {
            system: bits & 0b1_1111,
            keywords: BTreeSet::new(),
        }
    }

    /// Whether all of these system flags are set.
    #[must_use]
    pub fn has(&self, bits: u8) -> bool {
        self.system & bits == bits
    }

    /// Adds the other's flags.
    pub fn add(&mut self, other: &Self) {
        self.system |= other.system;
        self.keywords.extend(other.keywords.iter().cloned());
    }

    /// Removes the other's flags.
    pub fn remove(&mut self, other: &Self) {
        self.system &= !other.system;
        self.keywords.retain(|keyword| !other.keywords.contains(keyword));
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.system == 0 && self.keywords.is_empty()
    }
}

/// A flag of a user's or client's own (RFC 9051 `flag-keyword`): an atom, compared without regard to ASCII case, kept
/// as it was first written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Keyword(String);

/// What was decoded is checked as what was parsed: another node's defect must not become a row of ours.
impl TryFrom<String> for Keyword {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not a keyword")
    }
}

impl Keyword {
    /// Takes an atom of RFC 9051 that does not begin with a backslash. `None` for anything else or over the limit.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let atom_char = |byte: u8| {
            byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
        };
        (!text.is_empty() && text.len() <= KEYWORD_BYTES_MAX && text.bytes().all(atom_char))
            .then(|| Self(text.to_owned()))
    }

    /// As it was first written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Keyword {}

impl PartialOrd for Keyword {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyword {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.folded().cmp(other.folded())
    }
}

/// A mailbox's full name in Unicode, levels separated by `/`. `INBOX` is folded to upper case, also as the first level.
///
/// Never a path of a file system: names only ever are keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct MailboxName(String);

/// What was decoded is checked as what was parsed: another node's defect must not become a row of ours.
impl TryFrom<String> for MailboxName {
    type Error = MailboxNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let name = Self::parse(&text)?;
        // INBOX is kept in upper case only.
        if name.0 == text {
            Ok(name)
        } else {
            Err(MailboxNameError::BadCharacter)
        }
    }
}

/// Why a mailbox name is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxNameError {
    /// No character at all.
    #[error("a mailbox name must not be empty")]
    Empty,
    /// More octets than the limit.
    #[error("a mailbox name has at most {MAILBOX_NAME_BYTES_MAX} octets")]
    TooLong,
    /// More levels than the limit.
    #[error("a mailbox name has at most {MAILBOX_DEPTH_MAX} levels")]
    TooDeep,
    /// An empty level: a separator at the start or the end, or two in a row.
    #[error("a level of a mailbox name must not be empty")]
    EmptyLevel,
    /// A level of `.` or `..`, which some clients would take for a path.
    #[error("a level of a mailbox name must not be \".\" or \"..\"")]
    DotLevel,
    /// A control character, or `*` or `%`, which no pattern could name.
    #[error("a mailbox name must not hold control characters, \"*\" or \"%\"")]
    BadCharacter,
}

impl MailboxName {
    /// What separates the levels.
    pub const SEPARATOR: char = '/';

    /// Checks and normalises a name.
    ///
    /// # Errors
    /// [`MailboxNameError`], which names the rule that was broken.
    pub fn parse(text: &str) -> Result<Self, MailboxNameError> {
        if text.is_empty() {
            return Err(MailboxNameError::Empty);
        }
        if text.len() > MAILBOX_NAME_BYTES_MAX {
            return Err(MailboxNameError::TooLong);
        }
        if text
            .chars()
            .any(|c| c.is_control() || matches!(c, '*' | '%' | '\u{2028}' | '\u{2029}' | '\u{FEFF}'))
        {
            return Err(MailboxNameError::BadCharacter);
        }
        if text.split(Self::SEPARATOR).count() > MAILBOX_DEPTH_MAX {
            return Err(MailboxNameError::TooDeep);
        }
        for level in text.split(Self::SEPARATOR) {
            match level {
                "" => return Err(MailboxNameError::EmptyLevel),
                "." | ".." => return Err(MailboxNameError::DotLevel),
                _ => {}
            }
        }
        Ok(Self(fold_inbox(text)))
    }

    /// The INBOX, which every account has.
    #[must_use]
    pub fn inbox() -> Self {
        Self(INBOX.to_owned())
    }

    /// Whether this is the INBOX itself.
    #[must_use]
    pub fn is_inbox(&self) -> bool {
        self.0 == INBOX
    }

    /// The name in Unicode.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name one level up; `None` at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0
            .rsplit_once(Self::SEPARATOR)
            .map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Whether this name lies below `other` (`a/b` below `a`).
    #[must_use]
    pub fn is_below(&self, other: &Self) -> bool {
        self.0
            .strip_prefix(&other.0)
            .is_some_and(|rest| rest.starts_with(Self::SEPARATOR))
    }

    /// This name with the leading `from` replaced by `to`; `None` when it is neither `from` nor below it.
    ///
    /// # Errors
    /// The inner result: the new name may be too long or too deep.
    #[must_use]
    pub fn moved(&self, from: &Self, to: &Self) -> Option<Result<Self, MailboxNameError>> {
        if self == from {
            return Some(Ok(to.clone()));
        }
        let rest = self.0.strip_prefix(&from.0)?;
        rest.starts_with(Self::SEPARATOR)
            .then(|| Self::parse(&format!("{}{rest}", to.0)))
    }
}

impl fmt::Display for MailboxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const INBOX: &str = "INBOX";

fn fold_inbox(text: &str) -> String {
    let (first, rest) = text.split_at(text.find(MailboxName::SEPARATOR).unwrap_or(text.len()));
    if first.eq_ignore_ascii_case(INBOX) {
        format!("{INBOX}{rest}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inbox_has_one_name_in_every_case_and_as_a_parent() {
        assert!(MailboxName::parse("inBox").unwrap().is_inbox());
        assert_eq!(MailboxName::parse("inbox/a").unwrap().as_str(), "INBOX/a");
        assert_eq!(MailboxName::parse("inboxes").unwrap().as_str(), "inboxes");
    }

    #[test]
    fn names_that_look_like_paths_or_patterns_are_refused() {
        for name in [
            "", "/", "a//b", "/a", "a/", "..", "a/../b", "./a", "a\0b", "a\r\nb", "a*", "%", "\u{7f}",
        ] {
            assert!(MailboxName::parse(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_or_keyword_that_could_not_be_parsed_cannot_be_decoded() {
        for text in [
            "a", "INBOX", "INBOX/a", "\u{fc}/b", "", "a//b", "a/", "inbox", "Inbox/a", "a%", "a\r\nb", "..",
        ] {
            let bytes = crate::codec::encode(1, text, 100).unwrap();
            let decoded = crate::codec::decode::<MailboxName>(1, &bytes, 100).ok();
            assert_eq!(
                decoded,
                MailboxName::parse(text).ok().filter(|name| name.as_str() == text),
                "{text:?}"
            );
        }
        for text in ["Work", "$Junk", "", "a b", "a\r", "\\Seen", "a)"] {
            let bytes = crate::codec::encode(1, text, 100).unwrap();
            let decoded = crate::codec::decode::<Keyword>(1, &bytes, 100).ok();
            assert_eq!(decoded, Keyword::parse(text), "{text:?}");
        }
    }

    #[test]
    fn name_limits_are_exact() {
        assert!(MailboxName::parse(&"a".repeat(MAILBOX_NAME_BYTES_MAX - 1)).is_ok());
        assert!(MailboxName::parse(&"a".repeat(MAILBOX_NAME_BYTES_MAX)).is_ok());
        assert_eq!(
            MailboxName::parse(&"a".repeat(MAILBOX_NAME_BYTES_MAX + 1)),
            Err(MailboxNameError::TooLong)
        );
        let deep = |levels: usize| MailboxName::parse(&vec!["a"; levels].join("/"));
        assert!(deep(MAILBOX_DEPTH_MAX - 1).is_ok() && deep(MAILBOX_DEPTH_MAX).is_ok());
        assert_eq!(deep(MAILBOX_DEPTH_MAX + 1), Err(MailboxNameError::TooDeep));
    }

    #[test]
    fn rename_moves_what_lies_below_and_nothing_beside_it() {
        let name = |text| MailboxName::parse(text).unwrap();
        assert_eq!(name("a/b/c").moved(&name("a/b"), &name("x")), Some(Ok(name("x/c"))));
        assert_eq!(name("a/bc").moved(&name("a/b"), &name("x")), None);
        assert!(name("a/b").is_below(&name("a")) && !name("ab").is_below(&name("a")));
    }

    #[test]
    fn keywords_are_atoms_and_fold_case() {
        assert_eq!(Keyword::parse("$Junk"), Keyword::parse("$junk"));
        for wrong in ["", "\\Seen", "a b", "a]", "é", "a{"] {
            assert_eq!(Keyword::parse(wrong), None, "{wrong}");
        }
        assert!(Keyword::parse(&"k".repeat(KEYWORD_BYTES_MAX)).is_some());
        assert!(Keyword::parse(&"k".repeat(KEYWORD_BYTES_MAX + 1)).is_none());
    }

    #[test]
    fn flags_add_and_remove() {
        let mut flags = Flags::system(Flags::SEEN);
        flags.keywords.extend(Keyword::parse("a"));
        let mut other = Flags::system(Flags::SEEN | Flags::DELETED);
        other.keywords.extend(Keyword::parse("A"));
        flags.add(&other);
        assert!(flags.has(Flags::SEEN | Flags::DELETED) && flags.keywords.len() == 1);
        flags.remove(&other);
        assert!(flags.is_empty());
    }
}
