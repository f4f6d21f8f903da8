//! Patterns of LIST and LSUB (RFC 3501 6.3.8): `*` for anything, `%` for anything within a level.
//!
//! Matching keeps the set of places in the pattern that are possible so far and never goes back, so it takes time
//! proportional to name times pattern, whatever the pattern (no backtracking to attack).

use core_types::MailboxName;
use core_types::limits::MAILBOX_NAME_BYTES_MAX;

use crate::mailbox_name::decode_utf7;

/// A decoded pattern with the reference in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPattern {
    tokens: Vec<Token>,
    reference_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `%`
    Level,
    /// `*`
    Any,
}

impl ListPattern {
    /// Takes the two arguments of LIST in modified UTF-7. The reference is put in front of the pattern as it stands.
    /// `None` when one of them is not modified UTF-7 or longer than any name plus its wildcards could be.
    #[must_use]
    pub fn parse(reference: &[u8], pattern: &[u8]) -> Option<Self> {
        // No name is longer than the limit, in characters; each can have one wildcard beside it, and encoding makes at
        // most 4 octets of one of Unicode.
        if reference.len() + pattern.len() > 8 * MAILBOX_NAME_BYTES_MAX {
            return None;
        }
        let mut tokens: Vec<Token> = decode_utf7(reference)?.chars().map(Token::Char).collect();
        for character in decode_utf7(pattern)?.chars() {
            let token = match character {
                '*' => Token::Any,
                '%' => Token::Level,
                other => Token::Char(other),
            };
            // Wildcards in a row are as good as the stronger one.
            match (tokens.last(), token) {
                (Some(Token::Any), Token::Any | Token::Level) | (Some(Token::Level), Token::Level) => {}
                (Some(Token::Level), Token::Any) => {
                    tokens.pop();
                    tokens.push(token);
                }
                _ => tokens.push(token),
            }
        }
        Some(Self {
            tokens,
            reference_only: pattern.is_empty(),
        })
    }

    /// Whether the pattern was the empty string: the client asks only for the separator (RFC 3501 6.3.8).
    #[must_use]
    pub fn is_separator_request(&self) -> bool {
        self.reference_only
    }

    /// Whether it ends with `%`: then LSUB shows names that have something subscribed below them (RFC 3501 6.3.9).
    #[must_use]
    pub fn ends_with_level(&self) -> bool {
        self.tokens.last() == Some(&Token::Level)
    }

    /// The whole pattern if it has no wildcard and can be a name: at most that one mailbox matches.
    #[must_use]
    pub fn as_name(&self) -> Option<MailboxName> {
        let name: Option<String> = self
            .tokens
            .iter()
            .map(|token| match token {
                Token::Char(character) => Some(*character),
                Token::Level | Token::Any => None,
            })
            .collect();
        MailboxName::parse(&name?).ok()
    }

    /// Whether it matches. `INBOX` matches in any case (RFC 3501 5.1).
    #[must_use]
    pub fn matches(&self, name: &MailboxName) -> bool {
        let name = name.as_str();
        let inbox_length = if name == "INBOX" || name.starts_with("INBOX/") {
            5
        } else {
            0
        };
        // `places[i]`: tokens 0..i have matched what was read of the name.
        let mut places = vec![false; self.tokens.len() + 1];
        let mut next = places.clone();
        if let Some(first) = places.first_mut() {
            *first = true;
        }
        self.skip_wildcards(&mut places);
        for (at, character) in name.chars().enumerate() {
            next.fill(false);
            for (index, token) in self.tokens.iter().enumerate() {
                if !places.get(index).copied().unwrap_or(false) {
                    continue;
                }
                let stays = match token {
                    Token::Any => true,
                    Token::Level => character != MailboxName::SEPARATOR,
                    Token::Char(_) => false,
                };
                let goes_on = match token {
                    Token::Char(expected) if at < inbox_length => expected.eq_ignore_ascii_case(&character),
                    Token::Char(expected) => *expected == character,
                    Token::Any | Token::Level => false,
                };
                if stays && let Some(place) = next.get_mut(index) {
                    *place = true;
                }
                if goes_on && let Some(place) = next.get_mut(index + 1) {
                    *place = true;
                }
            }
            self.skip_wildcards(&mut next);
            std::mem::swap(&mut places, &mut next);
        }
        places.last().copied().unwrap_or(false)
    }

    /// A wildcard may also match nothing.
    fn skip_wildcards(&self, places: &mut [bool]) {
        for (index, token) in self.tokens.iter().enumerate() {
            let reached = places.get(index).copied().unwrap_or(false);
            if reached
                && matches!(token, Token::Any | Token::Level)
                && let Some(place) = places.get_mut(index + 1)
            {
                *place = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        ListPattern::parse(b"", pattern.as_bytes())
            .unwrap()
            .matches(&MailboxName::parse(name).unwrap())
    }

    #[test]
    fn star_crosses_levels_and_percent_does_not() {
        assert!(matches("*", "a/b/c") && matches("%", "a") && !matches("%", "a/b"));
        assert!(matches("a/%", "a/b") && !matches("a/%", "a/b/c") && matches("a/*", "a/b/c"));
        assert!(matches("*c", "a/b/c") && matches("%/%", "a/b") && !matches("%/%", "a"));
        assert!(matches("a%b*c", "axb/c/c") && !matches("a%b", "a/b"));
    }

    #[test]
    fn inbox_matches_in_any_case_and_nothing_else_does() {
        assert!(matches("inbox", "INBOX") && matches("iNb%", "INBOX") && matches("inbox/Foo", "INBOX/Foo"));
        assert!(!matches("inbox/foo", "INBOX/Foo") && !matches("WORK", "Work"));
    }

    #[test]
    fn the_reference_stands_in_front() {
        let pattern = ListPattern::parse(b"a/", b"%").unwrap();
        assert!(
            pattern.matches(&MailboxName::parse("a/b").unwrap()) && !pattern.matches(&MailboxName::parse("b").unwrap())
        );
        assert!(ListPattern::parse(b"", b"").unwrap().is_separator_request());
        assert_eq!(
            ListPattern::parse(b"a/", b"b").unwrap().as_name(),
            MailboxName::parse("a/b").ok()
        );
        assert_eq!(ListPattern::parse(b"", b"b%").unwrap().as_name(), None);
    }

    #[test]
    fn patterns_are_modified_utf7() {
        assert!(matches("Entw&APw-%", "Entw\u{fc}rfe"));
        assert_eq!(ListPattern::parse(b"", b"R&D*"), None);
    }

    #[test]
    fn an_evil_pattern_costs_no_more_than_its_length() {
        let name = "a".repeat(MAILBOX_NAME_BYTES_MAX);
        assert!(!matches(&format!("{}b", "*a%a".repeat(400)), &name));
    }

    fn naive(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, rest) => rest.is_none(),
            (Some((&wildcard @ ('*' | '%'), after)), _) => {
                naive(after, name)
                    || name
                        .split_first()
                        .is_some_and(|(&c, rest)| (wildcard == '*' || c != '/') && naive(pattern, rest))
            }
            (Some((p, after)), Some((c, rest))) => p == c && naive(after, rest),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(pattern in "[ab/%*]{0,6}", name in "[ab]{1,2}(/[ab]{1,2}){0,2}") {
            let expected = naive(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>());
            prop_assert_eq!(matches(&pattern, &name), expected);
        }
    }
}
