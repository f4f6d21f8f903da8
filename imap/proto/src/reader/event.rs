//! What the reader yields.

use crate::command::{Append, Command, Secret, Tag};
use crate::encode::{Code, Status};

/// What the client's octets amount to.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole command.
    Command(Command),
    /// Send a continuation request: the client waits before it sends a literal.
    Continue,
    /// Answer this; the command is over. During an APPEND: drop what was received. During IDLE or AUTHENTICATE: that is
    /// over, too.
    Refused(Refusal),
    /// An APPEND up to its message. Call [`crate::CommandReader::accept_append`] (and send a continuation if
    /// [`Append::sync`]) or [`crate::CommandReader::refuse_append`].
    AppendStart(Append),
    /// The next octets of the message, straight from the input; never empty.
    AppendData(&'a [u8]),
    /// The message is whole: as many octets as were announced, none of them NUL, and the command ended behind them.
    AppendEnd,
    /// The client's next SASL message, after [`crate::CommandReader::begin_authenticate`].
    AuthenticateResponse(Secret),
    /// DONE, after [`crate::CommandReader::begin_idle`].
    IdleDone,
    /// Say this and close the connection. No event follows.
    Fatal(Fatal),
}

/// Why a command is not carried out; [`crate::Encoder::refusal`] writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The command's tag; `None` when it had none that may be echoed.
    pub tag: Option<Tag>,
    /// [`Status::No`] or [`Status::Bad`]
    pub status: Status,
    /// The response code.
    pub code: Option<Code>,
    /// For a person.
    pub text: &'static str,
}

/// Why the connection must be closed; [`crate::Encoder::fatal`] writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fatal {
    /// [`Status::Bye`], or [`Status::Bad`] where the RFC asks for that.
    pub status: Status,
    /// The response code.
    pub code: Option<Code>,
    /// For a person.
    pub text: &'static str,
}
