//! Protocol clients over simulated TCP, each step with a time limit: turmoil's TCP does not send again, so a cut wedges it.

pub mod admin;
pub mod imap;
pub mod pop3;
pub mod smtp;
mod stream;

use std::fmt;

/// Why an operation did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server said no: nothing happened.
    Refused(String),
    /// The connection broke or was silent before an answer: it may have happened.
    Unknown(String),
    /// What the server said is against the protocol.
    Protocol(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(text) => write!(f, "refused: {text}"),
            Self::Unknown(text) => write!(f, "unknown: {text}"),
            Self::Protocol(text) => write!(f, "against the protocol: {text}"),
        }
    }
}

/// What an operation gives.
pub type Answer<T> = Result<T, Failure>;
