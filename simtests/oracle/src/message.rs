//! Messages that tell by themselves what they are: a token, and a hash of all that follows.
//!
//! What the server puts in front (Return-Path, Received) is passed over; from the first line of ours on every byte counts.

use crate::history::Token;
use crate::rng::Rng;

/// What our first line begins with.
const FIRST: &str = "X-Token: ";

/// A message of about so many octets: a function of its arguments. Its lines have what mail has gone wrong on: leading dots,
/// `From `, empty lines, blanks at the end, lines of 998 octets. ASCII, CRLF.
#[must_use]
pub fn compose(token: Token, length: usize) -> Vec<u8> {
    let mut rng = Rng::named(token.0, "message");
    let mut rest = format!("From: a@example.org\r\nTo: b@example.test\r\nSubject: message {token}\r\n\r\n");
    while rest.len() < length {
        let line = match rng.below(8) {
            0 => ".".to_owned(),
            1 => "..two".to_owned(),
            2 => String::new(),
            3 => "From here on".to_owned(),
            4 => "blanks behind   ".to_owned(),
            5 => "x".repeat(998),
            _ => format!("{:016x}", rng.word()).repeat(4),
        };
        rest.push_str(&line);
        rest.push_str("\r\n");
    }
    with_token(token, &rest)
}

/// As [`compose`], of lines that do not compress: for messages that are to stay as large as they are.
#[must_use]
pub fn compose_dense(token: Token, length: usize) -> Vec<u8> {
    let mut rng = Rng::named(token.0, "dense message");
    let mut rest = format!("From: a@example.org\r\nTo: b@example.test\r\nSubject: message {token}\r\n\r\n");
    while rest.len() < length {
        rest.push_str(". ");
        for _ in 0..8 {
            let mut word = rng.word();
            for _ in 0..9 {
                rest.push(char::from(b'!' + u8::try_from(word % 94).unwrap_or(0)));
                word /= 94;
            }
        }
        rest.push_str("\r\n");
    }
    with_token(token, &rest)
}

fn with_token(token: Token, rest: &str) -> Vec<u8> {
    format!(
        "{FIRST}{} {}\r\n{rest}",
        token.0,
        blake3::hash(rest.as_bytes()).to_hex()
    )
    .into_bytes()
}

/// BLAKE3 of what was composed: what a delivery is recorded with.
#[must_use]
pub fn digest(message: &[u8]) -> [u8; 32] {
    *blake3::hash(message).as_bytes()
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Its token; `None` when there is none, or when the bytes are not those that were composed with it.
    pub token: Option<Token>,
    /// [`digest`] from our first line on; of all of it when there is no such line.
    pub digest: [u8; 32],
    /// Octets that the server put in front.
    pub added: usize,
}

/// Looks into what a server gave.
#[must_use]
pub fn read(message: &[u8]) -> Body {
    let ours = (0..message.len()).find(|start| {
        let begins_line = *start == 0 || message.get(start - 1) == Some(&b'\n');
        begins_line
            && message
                .get(*start..)
                .is_some_and(|rest| rest.starts_with(FIRST.as_bytes()))
    });
    let added = ours.unwrap_or(0);
    let message = message.get(added..).unwrap_or_default();
    Body {
        token: ours.and_then(|_| token_of(message)),
        digest: digest(message),
        added,
    }
}

fn token_of(message: &[u8]) -> Option<Token> {
    let end = message.windows(2).position(|two| two == b"\r\n")?;
    let first = std::str::from_utf8(message.get(FIRST.len()..end)?).ok()?;
    let (token, hash) = first.split_once(' ')?;
    let rest = message.get(end + 2..)?;
    (blake3::hash(rest).to_hex().as_str() == hash).then_some(Token(token.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_behind_what_a_server_puts_in_front() {
        for token in (0..50).map(Token) {
            let message = compose(token, 3000);
            assert_eq!(message, compose(token, 3000));
            assert!(message.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
            let front = b"Return-Path: <a@b>\r\nReceived: by x; X-Token: 9\r\n";
            let body = read(&[front.as_slice(), &message].concat());
            let expected = Body {
                token: Some(token),
                digest: digest(&message),
                added: front.len(),
            };
            assert_eq!(body, expected);
            for place in [3, 20, message.len() - 3] {
                let mut wrong = message.clone();
                wrong[place] ^= 1;
                assert_ne!(read(&wrong).digest, expected.digest);
                assert_eq!(read(&wrong).token, None, "{place}");
            }
            assert_eq!(read(&message[..message.len() - 2]).token, None);
            let dense = compose_dense(token, 3000);
            assert!((3000..3300).contains(&dense.len()));
            assert_eq!((read(&dense).token, read(&dense).added), (Some(token), 0));
        }
        assert_eq!(read(b"Subject: x\r\n\r\n").token, None);
    }
}
