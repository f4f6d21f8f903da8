//! Command lines (RFC 1939 3, RFC 2449 4, RFC 5034 4) as values.
//!
//! A keyword and its arguments are separated by blanks; numbers are digits only. What is not exactly a command is refused.

/// A command of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Capa,
    Stls,
    User(String),
    Pass(String),
    /// The mechanism in upper case, and the initial response.
    Auth(String, Option<Vec<u8>>),
    Stat,
    List(Option<u32>),
    Uidl(Option<u32>),
    Retr(u32),
    Top(u32, u64),
    Dele(u32),
    Noop,
    Rset,
    Quit,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// No such command here; APOP is one of them.
    Unknown,
    /// The arguments are not those of the command.
    Arguments,
}

/// Reads a line without its line end.
pub(crate) fn parse_command(line: &[u8]) -> Result<Command, CommandError> {
    let length = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (keyword, rest) = line.split_at_checked(length).ok_or(CommandError::Unknown)?;
    let argument = rest.strip_prefix(b" ");
    let mut words = rest.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let command = match keyword.to_ascii_uppercase().as_slice() {
        // A name or password is the rest of the line, blanks and all (RFC 1939 7).
        b"USER" => return Ok(Command::User(text(argument)?)),
        b"PASS" => return Ok(Command::Pass(text(argument)?)),
        b"CAPA" => Command::Capa,
        b"STLS" => Command::Stls,
        b"STAT" => Command::Stat,
        b"NOOP" => Command::Noop,
        b"RSET" => Command::Rset,
        b"QUIT" => Command::Quit,
        b"AUTH" => {
            let mechanism = text(words.next())?.to_ascii_uppercase();
            Command::Auth(mechanism, words.next().map(<[u8]>::to_vec))
        }
        b"LIST" => Command::List(words.next().map(number).transpose()?),
        b"UIDL" => Command::Uidl(words.next().map(number).transpose()?),
        b"RETR" => Command::Retr(required(words.next())?),
        b"DELE" => Command::Dele(required(words.next())?),
        b"TOP" => {
            let message = required(words.next())?;
            Command::Top(message, u64::from(required(words.next())?))
        }
        _ => return Err(CommandError::Unknown),
    };
    if words.next().is_some() {
        Err(CommandError::Arguments)
    } else {
        Ok(command)
    }
}

fn text(argument: Option<&[u8]>) -> Result<String, CommandError> {
    let text = argument
        .and_then(|argument| std::str::from_utf8(argument).ok())
        .ok_or(CommandError::Arguments)?;
    let valid = !text.is_empty() && !text.contains(char::is_control);
    if valid {
        Ok(text.to_owned())
    } else {
        Err(CommandError::Arguments)
    }
}

fn required(word: Option<&[u8]>) -> Result<u32, CommandError> {
    number(word.ok_or(CommandError::Arguments)?)
}

fn number(word: &[u8]) -> Result<u32, CommandError> {
    let digits = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(word)
        .ok()
        .filter(|_| digits)
        .ok_or(CommandError::Arguments)?;
    text.parse().map_err(|_| CommandError::Arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!(parse_command(b"quit"), Ok(Command::Quit));
        assert_eq!(parse_command(b"USER a b"), Ok(Command::User("a b".to_owned())));
        assert_eq!(parse_command(b"PASS  x "), Ok(Command::Pass(" x ".to_owned())));
        assert_eq!(parse_command(b"LIST"), Ok(Command::List(None)));
        assert_eq!(parse_command(b"list 7"), Ok(Command::List(Some(7))));
        assert_eq!(parse_command(b"TOP 1  0 "), Ok(Command::Top(1, 0)));
        assert_eq!(
            parse_command(b"auth plain AA=="),
            Ok(Command::Auth("PLAIN".to_owned(), Some(b"AA==".to_vec())))
        );
    }

    #[test]
    fn other_lines_are_no_commands() {
        for line in ["", " ", "APOP a b", "QUITX", "LAST", "XTND", "\0", "\u{e9}"] {
            assert_eq!(parse_command(line.as_bytes()), Err(CommandError::Unknown), "{line:?}");
        }
        for line in [
            "RETR",
            "RETR x",
            "RETR -1",
            "RETR +1",
            "RETR 4294967296",
            "RETR 1 2",
            "TOP 1",
            "TOP 1 x",
            "TOP 1 2 3",
            "QUIT now",
            "STLS x",
            "USER",
            "USER ",
            "PASS",
            "USER a\0b",
            "AUTH",
            "LIST 1 2",
        ] {
            assert_eq!(parse_command(line.as_bytes()), Err(CommandError::Arguments), "{line:?}");
        }
        assert_eq!(parse_command(b"USER \xff"), Err(CommandError::Arguments));
    }
}
