//! One POP3 session as a value (RFC 1939).
//!
//! The states: AUTHORIZATION until a maildrop is open, TRANSACTION until QUIT, then UPDATE, which is the one question
//! [`Action::Commit`]. Leaving in any other way deletes nothing, because nothing was ever asked to be deleted. While a
//! question is open no command is run, so answers come in the order of the commands.

use std::fmt;

use core_types::MessageGuid;
use core_types::limits::{
    POP3_AUTH_FAILURES_MAX, POP3_ERRORS_MAX, POP3_JUNK_COMMANDS_MAX, POP3_LINE_BYTES_MAX, POP3_LINE_CLOSE_BYTES,
    POP3_OUTPUT_STEP_BYTES, SASL_BYTES_MAX,
};

use self::maildrop::{Listing, Maildrop};
use super::command::{Command, CommandError, parse_command};
use super::encoder::MessageEncoder;
use super::line::{Lines, Next};

mod login;
mod maildrop;
mod transaction;

/// What stays the same for all sessions of one listener.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the host, for the greeting.
    pub host: String,
    /// Whether passwords may be sent without TLS.
    pub plain_login: bool,
}

/// How the connection stands to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// The session runs inside TLS.
    Active,
    /// STLS is offered.
    Available,
    /// There is none.
    Unavailable,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// The connection stands (under TLS, when it begins with TLS): the greeting is due.
    Connected,
    /// Octets, at most [`core_types::limits::POP3_READ_BYTES_MAX`] at once, and only while [`Machine::wants_input`].
    Bytes(&'a [u8]),
    /// The TLS handshake is done; what follows comes from inside TLS.
    TlsDone,
    /// The answer to the open question.
    Verdict(Verdict),
    /// What was to be sent before [`Action::Resume`] is on its way.
    Resume,
    /// The client was silent too long, or the server goes down: the session ends without UPDATE (RFC 1939 3). While
    /// [`Action::Commit`] is open it is better to wait for its verdict.
    Timeout,
    /// The client is gone.
    Disconnected,
}

/// The server's answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes: the credentials hold, the message can be read, the deletes are committed.
    Accepted,
    /// No.
    Refused(Refusal),
    /// To [`Action::OpenMaildrop`]: the messages, in their order, as they are for the whole session.
    Maildrop(Vec<Entry>),
    /// To [`Action::SendMessage`]: it is sent, with the line that ends it.
    Sent,
}

/// Why not; each has its response code (RFC 2449 8, RFC 3206).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The name or the password is wrong, which of them is not told: `[AUTH]`.
    Credentials,
    /// Too many logins failed lately, from wherever the client is: `[LOGIN-DELAY]`, and the session ends.
    TooManyLogins,
    /// The maildrop has too many sessions: `[IN-USE]`.
    InUse,
    /// The message was deleted by another session.
    Gone,
    /// The server cannot do it now; the client may try again: `[SYS/TEMP]`.
    Temporary,
    /// The server will not do it: `[SYS/PERM]`.
    Permanent,
}

impl Refusal {
    fn reply(self) -> &'static str {
        match self {
            Self::Credentials => "-ERR [AUTH] wrong name or password",
            Self::TooManyLogins => "-ERR [LOGIN-DELAY] too many failed logins, try again later",
            Self::InUse => "-ERR [IN-USE] too many sessions have this maildrop open",
            Self::Gone => "-ERR the message was deleted by another session",
            Self::Temporary => "-ERR [SYS/TEMP] not now, try again later",
            Self::Permanent => "-ERR [SYS/PERM] not permitted",
        }
    }
}

/// A message of the maildrop.
///
/// Memory: 32 octets of each message for as long as the session lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Octets of the message as stored.
    pub size: u64,
    /// Its identity, from which UIDL is made; see [`uidl`].
    pub guid: MessageGuid,
}

/// What UIDL shows, 32 visible characters (RFC 1939 7 permits 1 to 70): made of the message's GUID, which no merge and
/// no renumbering of UIDs changes.
#[must_use]
pub fn uidl(guid: MessageGuid) -> String {
    guid.to_string()
}

/// What the server shall do, in this order. After a question no command runs until its verdict is there.
#[derive(Debug)]
pub enum Action {
    /// Send these octets: one or more whole lines.
    Reply(Vec<u8>),
    /// Send what is unsent, do the handshake, then [`Input::TlsDone`]. Nothing that was read before counts.
    StartTls,
    /// Question: do these credentials hold?
    Authenticate {
        /// The account, as the client wrote it.
        identity: String,
        /// The password, at most [`core_types::limits::PASSWORD_BYTES_MAX`] octets.
        password: Password,
    },
    /// Question: what is in the maildrop of the account that [`Action::Authenticate`] named?
    OpenMaildrop,
    /// Question: can this message be read? RETR.
    Retrieve {
        /// The place in the maildrop, from 0.
        index: usize,
    },
    /// Question: can this message be read? TOP; the server need not read beyond the lines.
    Top {
        /// The place in the maildrop, from 0.
        index: usize,
        /// Lines of the body that are wanted.
        lines: u64,
    },
    /// Question, after the last one was accepted: send the message through this encoder, and its end.
    SendMessage {
        /// The place in the maildrop, from 0.
        index: usize,
        /// Encodes what is sent.
        encoder: MessageEncoder,
    },
    /// Question: delete these messages, all or none. QUIT.
    Commit {
        /// The places in the maildrop, from 0, ascending.
        deleted: Vec<usize>,
    },
    /// There is more to do: send what is unsent, then [`Input::Resume`]. This bounds what waits to be sent.
    Resume,
    /// Send what is unsent and close.
    Close,
}

/// A password that does not show in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// The password itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// One session. See the module.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    tls: Tls,
    state: State,
    waits_for: WaitsFor,
    lines: Lines,
    out: Vec<u8>,
    errors: u32,
    auth_failures: u32,
    junk: u32,
}

#[derive(Debug)]
enum State {
    /// Before the greeting.
    Start,
    Authorization {
        user: Option<String>,
    },
    /// AUTH PLAIN waits for its response.
    Sasl,
    Transaction(Maildrop),
    Closed,
}

/// What must come before the next command runs.
#[derive(Debug, PartialEq, Eq)]
enum WaitsFor {
    Nothing,
    Tls,
    Authenticate,
    Maildrop,
    Message {
        index: usize,
        lines: Option<u64>,
    },
    Sent,
    Commit,
    /// [`Input::Resume`]; with the rest of a listing, or only because much is unsent.
    Resume(Option<Listing>),
}

impl Machine {
    /// A session before its greeting.
    #[must_use]
    pub fn new(config: Config, tls: Tls) -> Self {
        Self {
            config,
            tls,
            state: State::Start,
            waits_for: WaitsFor::Nothing,
            lines: Lines::default(),
            out: Vec::new(),
            errors: 0,
            auth_failures: 0,
            junk: 0,
        }
    }

    /// Whether the client may be read from: no question is open, and the session goes on.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.waits_for == WaitsFor::Nothing && !self.is_closed()
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether a maildrop is open, for the server's time-outs.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        matches!(self.state, State::Transaction(_))
    }

    /// The message at this place (from 0) of the open maildrop, also when it is marked as deleted.
    #[must_use]
    pub fn guid(&self, index: usize) -> Option<MessageGuid> {
        match &self.state {
            State::Transaction(maildrop) => maildrop.guid(index),
            _ => None,
        }
    }

    /// Takes what happened and says what to do. Inputs that answer nothing are ignored.
    pub fn handle(&mut self, input: Input<'_>, actions: &mut Vec<Action>) {
        if self.is_closed() {
            return;
        }
        match input {
            Input::Connected => {
                if matches!(self.state, State::Start) {
                    self.state = State::Authorization { user: None };
                    let greeting = format!("+OK {} POP3 ready", self.config.host);
                    self.reply(&greeting);
                }
            }
            Input::Bytes(bytes) => self.lines.push(bytes),
            Input::TlsDone => {
                if self.waits_for == WaitsFor::Tls {
                    self.waits_for = WaitsFor::Nothing;
                    self.tls = Tls::Active;
                    self.lines.clear();
                    // RFC 2595 4: what was said before is forgotten.
                    self.state = State::Authorization { user: None };
                }
            }
            Input::Verdict(verdict) => self.handle_verdict(verdict, actions),
            Input::Resume => {
                if let WaitsFor::Resume(listing) = &mut self.waits_for {
                    let listing = listing.take();
                    self.waits_for = WaitsFor::Nothing;
                    if let Some(listing) = listing {
                        self.list(listing, actions);
                    }
                }
            }
            Input::Timeout => self.close(actions),
            Input::Disconnected => {
                self.state = State::Closed;
                self.lines.clear();
                return;
            }
        }
        self.run(actions);
        self.flush(actions);
    }

    /// Runs commands until there is no whole line, a question is open, or much is unsent.
    fn run(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Start) {
            return;
        }
        while self.waits_for == WaitsFor::Nothing && !self.is_closed() {
            if self.out.len() >= POP3_OUTPUT_STEP_BYTES {
                self.ask(WaitsFor::Resume(None), Action::Resume, actions);
                return;
            }
            // RFC 5034 4: a response may be longer than a command.
            let (limit, close) = match self.state {
                State::Sasl => (SASL_BYTES_MAX, SASL_BYTES_MAX.saturating_mul(2)),
                _ => (POP3_LINE_BYTES_MAX, POP3_LINE_CLOSE_BYTES),
            };
            match self.lines.next(limit, close) {
                Next::Nothing => return,
                Next::Line(line) if matches!(self.state, State::Sasl) => self.handle_sasl_response(&line, actions),
                Next::Line(line) => self.handle_line(&line, actions),
                Next::TooLong => {
                    if matches!(self.state, State::Sasl) {
                        self.state = State::Authorization { user: None };
                    }
                    self.error("-ERR line too long", actions);
                }
                Next::Endless => {
                    self.reply("-ERR line too long");
                    self.close(actions);
                }
            }
        }
    }

    fn handle_line(&mut self, line: &[u8], actions: &mut Vec<Action>) {
        let command = match parse_command(line) {
            Ok(command) => command,
            Err(CommandError::Unknown) => return self.error("-ERR unknown command", actions),
            Err(CommandError::Arguments) => return self.error("-ERR wrong arguments", actions),
        };
        let is_junk = matches!(command, Command::Noop | Command::Capa | Command::Stat | Command::Rset);
        self.junk = if is_junk { self.junk.saturating_add(1) } else { 0 };
        if self.junk >= POP3_JUNK_COMMANDS_MAX {
            self.reply("-ERR [SYS/TEMP] too many commands");
            return self.close(actions);
        }
        match command {
            Command::Capa => self.handle_capa(),
            Command::Quit => self.handle_quit(actions),
            command if self.is_logged_in() => self.handle_transaction(&command, actions),
            command => self.handle_authorization(command, actions),
        }
    }

    fn handle_verdict(&mut self, verdict: Verdict, actions: &mut Vec<Action>) {
        match std::mem::replace(&mut self.waits_for, WaitsFor::Nothing) {
            WaitsFor::Authenticate => self.handle_authenticated(&verdict, actions),
            WaitsFor::Maildrop => self.handle_maildrop(verdict, actions),
            WaitsFor::Message { index, lines } => self.handle_message(index, lines, &verdict, actions),
            // A message that was begun and not ended can only be told from a whole one by the missing end.
            WaitsFor::Sent if verdict != Verdict::Sent => self.close(actions),
            WaitsFor::Sent => {}
            WaitsFor::Commit => {
                let reply = if verdict == Verdict::Accepted {
                    "+OK"
                } else {
                    refusal(&verdict).reply()
                };
                self.reply(reply);
                self.close(actions);
            }
            // No question is open.
            other @ (WaitsFor::Nothing | WaitsFor::Tls | WaitsFor::Resume(_)) => self.waits_for = other,
        }
    }

    fn handle_quit(&mut self, actions: &mut Vec<Action>) {
        let deleted = match &self.state {
            State::Transaction(maildrop) => maildrop.deleted(),
            _ => Vec::new(),
        };
        if deleted.is_empty() {
            self.reply("+OK");
            self.close(actions);
        } else {
            self.ask(WaitsFor::Commit, Action::Commit { deleted }, actions);
        }
    }

    fn ask(&mut self, waits_for: WaitsFor, action: Action, actions: &mut Vec<Action>) {
        self.flush(actions);
        self.waits_for = waits_for;
        actions.push(action);
    }

    fn close(&mut self, actions: &mut Vec<Action>) {
        self.flush(actions);
        self.state = State::Closed;
        self.waits_for = WaitsFor::Nothing;
        self.lines.clear();
        actions.push(Action::Close);
    }

    fn reply(&mut self, line: &str) {
        self.out.extend_from_slice(line.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    fn error(&mut self, line: &str, actions: &mut Vec<Action>) {
        self.reply(line);
        self.errors = self.errors.saturating_add(1);
        if self.errors >= POP3_ERRORS_MAX {
            self.close(actions);
        }
    }

    fn flush(&mut self, actions: &mut Vec<Action>) {
        if !self.out.is_empty() {
            actions.push(Action::Reply(std::mem::take(&mut self.out)));
        }
    }
}

/// Why a question was not accepted. A verdict that does not fit its question is a fault of the server.
fn refusal(verdict: &Verdict) -> Refusal {
    match verdict {
        Verdict::Refused(refusal) => *refusal,
        _ => Refusal::Temporary,
    }
}

#[cfg(test)]
mod tests;
