//! Reverse and forward paths (RFC 5321 4.1.2, RFC 6531 3.3).
//!
//! Source routes are read and ignored (RFC 5321 appendix C). Not here: which of the mailboxes exist.

use std::fmt;

use core_types::Address;

/// Where a message came from, and where reports about it go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`: a report; never answered with another one.
    Null,
    /// A mailbox.
    Mailbox(Address),
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardPath {
    /// `<postmaster>` without a domain (RFC 5321 4.5.1), in any case.
    Postmaster,
    /// A mailbox.
    Mailbox(Address),
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => Ok(()),
            Self::Mailbox(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postmaster => f.write_str("postmaster"),
            Self::Mailbox(address) => address.fmt(f),
        }
    }
}

/// Why there is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathError {
    /// The brackets are not where they belong.
    Brackets,
    /// The mailbox breaks the grammar.
    Mailbox,
}

/// Splits `<path> parameters` into what stands between the brackets, without a source route, and what follows.
/// `strict` insists on the brackets; otherwise `a@b` will do, if no bracket is anywhere near.
pub(crate) fn split_path(text: &str, strict: bool) -> Result<(&str, &str), PathError> {
    // No space belongs behind the colon (RFC 5321 3.3), but many programs send one.
    let text = text.trim_start_matches(' ');
    let Some(inner) = text.strip_prefix('<') else {
        let (path, rest) = text.split_once(' ').unwrap_or((text, ""));
        if strict || path.is_empty() || path.contains(['<', '>', '"']) {
            return Err(PathError::Brackets);
        }
        return Ok((path, rest));
    };
    let end = closing_bracket(inner).ok_or(PathError::Brackets)?;
    let (path, rest) = inner.split_at_checked(end).ok_or(PathError::Brackets)?;
    let rest = rest.strip_prefix('>').ok_or(PathError::Brackets)?;
    let rest = if rest.is_empty() {
        rest
    } else {
        rest.strip_prefix(' ').ok_or(PathError::Brackets)?
    };
    if !path.starts_with('@') {
        return Ok((path, rest));
    }
    let (_, mailbox) = path.split_once(':').ok_or(PathError::Mailbox)?;
    Ok((mailbox, rest))
}

/// The first `>` outside a quoted string.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(index),
            _ => {}
        }
    }
    None
}

/// What stands between the brackets of MAIL.
pub(crate) fn parse_reverse_path(path: &str) -> Result<ReversePath, PathError> {
    if path.is_empty() {
        return Ok(ReversePath::Null);
    }
    Address::parse(path)
        .map(ReversePath::Mailbox)
        .map_err(|_| PathError::Mailbox)
}

/// What stands between the brackets of RCPT.
pub(crate) fn parse_forward_path(path: &str) -> Result<ForwardPath, PathError> {
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(ForwardPath::Postmaster);
    }
    Address::parse(path)
        .map(ForwardPath::Mailbox)
        .map_err(|_| PathError::Mailbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bracket_in_quotes_does_not_end_the_path() {
        assert_eq!(
            split_path("<\"a>\\\"b\"@x> SIZE=1", true),
            Ok(("\"a>\\\"b\"@x", "SIZE=1"))
        );
        assert_eq!(split_path("<\"a>@x>", true), Err(PathError::Brackets));
    }

    #[test]
    fn a_source_route_is_ignored() {
        assert_eq!(split_path("<@a,@b:c@d>", true), Ok(("c@d", "")));
        assert_eq!(split_path("<@a>", true), Err(PathError::Mailbox));
    }

    #[test]
    fn brackets_may_lack_only_where_nothing_is_ambiguous() {
        assert_eq!(split_path(" a@b SIZE=1", false), Ok(("a@b", "SIZE=1")));
        for text in ["a@b>", "<a@b", "", " ", "a<b@c>", "\"a b\"@c", "<a@b>SIZE=1"] {
            assert_eq!(split_path(text, false), Err(PathError::Brackets), "{text:?}");
        }
        assert_eq!(split_path("a@b", true), Err(PathError::Brackets));
    }
}
