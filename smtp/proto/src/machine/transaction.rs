//! A transaction, from MAIL to the end of data (RFC 5321 3.3).
//!
//! It is owned by the machine's state, and moves to the server with [`Action::DataBegin`](crate::Action::DataBegin):
//! after that the machine holds no sender and no recipient that it could forget to drop.

use crate::{
    content::ContentReader,
    parameters::{BodyType, Notify, OriginalRecipient, Ret},
    path::{ForwardPath, ReversePath},
};

/// Sender, recipients and what was said about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// What the client called itself: printable ASCII without spaces, unchecked. For the trace field.
    pub hello: String,
    /// The protocol keyword for the trace field (RFC 3848, RFC 6531 4.3).
    pub with: &'static str,
    /// Who logged in, if anybody.
    pub identity: Option<String>,
    /// Where it comes from.
    pub reverse_path: ReversePath,
    /// The size that the client announced, in octets (RFC 1870).
    pub size: Option<u64>,
    /// The kind of octets that it announced.
    pub body: BodyType,
    /// Whether SMTPUTF8 was asked for (RFC 6531).
    pub smtputf8: bool,
    /// How much of the message a report shall hold (RFC 3461).
    pub ret: Option<Ret>,
    /// The sender's name for the transaction (RFC 3461), decoded.
    pub envid: Option<String>,
    /// The accepted recipients, each once, in the order in which they were first accepted.
    pub recipients: Vec<Recipient>,
    /// For each RCPT that was accepted: which recipient it named.
    pub(crate) accepted: Vec<usize>,
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The mailbox, parsed.
    pub forward_path: ForwardPath,
    /// The mailbox as the client wrote it, for the trace.
    pub as_sent: String,
    /// When the sender wants a report (RFC 3461); `None`: nothing was said.
    pub notify: Option<Notify>,
    /// The recipient's first name, from before any forwarding (RFC 3461).
    pub original_recipient: Option<OriginalRecipient>,
}

/// How a message begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beginning {
    Data,
    /// With a first chunk.
    Bdat {
        size: u64,
        last: bool,
    },
}

/// A message of which octets have begun to arrive.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) reader: ContentReader,
    /// Of [`Transaction::accepted`].
    pub(crate) accepted: Vec<usize>,
    /// The server was told to throw away what it has.
    pub(crate) aborted: bool,
}
