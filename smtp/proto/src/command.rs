//! The verb of a command line (RFC 5321 4.1.1 and the extensions' commands).
//!
//! Arguments stay octets; each command reads its own. Not here: which command may stand where.

/// One command line. Arguments are without the space before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    Helo(&'a [u8]),
    Ehlo(&'a [u8]),
    Lhlo(&'a [u8]),
    Mail(&'a [u8]),
    Rcpt(&'a [u8]),
    Data(&'a [u8]),
    Bdat(&'a [u8]),
    Rset(&'a [u8]),
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit(&'a [u8]),
    StartTls(&'a [u8]),
    Auth(&'a [u8]),
    /// The first line of an HTTP request (cross-protocol attack on a browser's behalf).
    Http,
    /// PROXY, XCLIENT, XFORWARD: the peer claims another address.
    Proxy,
    /// A bare CR or LF is in the line.
    LineEnds,
    Unknown,
}

impl<'a> Command<'a> {
    pub(crate) fn parse(line: &'a [u8]) -> Self {
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return Self::LineEnds;
        }
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (verb, rest) = line.split_at_checked(end).unwrap_or((line, b""));
        let argument = rest.trim_ascii();
        match verb.to_ascii_uppercase().as_slice() {
            b"HELO" => Self::Helo(argument),
            b"EHLO" => Self::Ehlo(argument),
            b"LHLO" => Self::Lhlo(argument),
            b"MAIL" => Self::Mail(argument),
            b"RCPT" => Self::Rcpt(argument),
            b"DATA" => Self::Data(argument),
            b"BDAT" => Self::Bdat(argument),
            b"RSET" => Self::Rset(argument),
            b"NOOP" => Self::Noop,
            b"VRFY" => Self::Vrfy,
            b"EXPN" => Self::Expn,
            b"HELP" => Self::Help,
            b"QUIT" => Self::Quit(argument),
            b"STARTTLS" => Self::StartTls(argument),
            b"AUTH" => Self::Auth(argument),
            b"GET" | b"POST" | b"PUT" | b"HEAD" | b"DELETE" | b"OPTIONS" | b"PATCH" | b"TRACE" | b"CONNECT"
            | b"PRI" => Self::Http,
            b"PROXY" | b"XCLIENT" | b"XFORWARD" => Self::Proxy,
            _ => Self::Unknown,
        }
    }
}

/// What stands behind `FROM:` or `TO:`, in any case.
pub(crate) fn strip_keyword<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_read_in_any_case() {
        assert_eq!(Command::parse(b"eHlO  x "), Command::Ehlo(b"x"));
        assert_eq!(Command::parse(b"data"), Command::Data(b""));
        assert_eq!(Command::parse(b""), Command::Unknown);
        assert_eq!(Command::parse(b"DATAX"), Command::Unknown);
        assert_eq!(Command::parse(b"NOOP\nRSET"), Command::LineEnds);
    }

    #[test]
    fn the_keyword_is_stripped_in_any_case() {
        assert_eq!(strip_keyword(b"from:<a@b>", b"FROM:"), Some(b"<a@b>".as_slice()));
        assert_eq!(strip_keyword(b"FRO", b"FROM:"), None);
    }
}
