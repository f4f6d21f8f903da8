//! One session of a client with the server, as a value: [`Machine`].
//!
//! Invariants: one question ([`Action::Authenticate`], [`Action::CheckSender`], [`Action::CheckRecipient`],
//! [`Action::CheckRoom`], [`Action::EndOfData`]) is open at a time, and octets that arrive meanwhile wait in a bounded buffer; each message's
//! [`Action::MessageBytes`] stand between [`Action::DataBegin`] and one of [`Action::EndOfData`] and
//! [`Action::AbortMessage`]; after [`Action::Close`] comes nothing more. The transaction is a value that the state
//! owns: leaving the state drops it, so every reply to an end of data and every failed BDAT leaves nothing behind.
//! Not here: sockets, time (the server tells when it is up), what a recipient is.

mod commands;
mod message;
mod sasl;
mod strikes;
pub(crate) mod transaction;

use std::{fmt, time::Duration};

use core_types::limits::{SASL_BYTES_MAX, SMTP_LINE_BYTES_MAX, SMTP_PENDING_BYTES_MAX, SMTP_READ_BYTES_MAX};

use self::{
    sasl::Sasl,
    strikes::Strikes,
    transaction::{Beginning, Content, Recipient, Transaction},
};
use crate::{
    command::Command,
    content::Rules,
    line::{LineEvent, LineReader},
    path::ReversePath,
    reply::{Enhanced, Reply},
};

/// Which dialect the listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Mail from other servers (RFC 5321): no AUTH.
    Relay,
    /// Mail from people (RFC 6409): AUTH before MAIL, no repairs of what they send.
    Submission,
    /// Mail from a trusted mail system (RFC 2033): a reply per recipient.
    Lmtp,
}

/// How the connection stands to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// There is no certificate: STARTTLS is not offered.
    None,
    /// In clear, and STARTTLS is offered (RFC 3207).
    Available,
    /// Under TLS.
    Active,
}

/// What the listener is set to.
#[derive(Clone, Debug)]
pub struct Config {
    /// The dialect.
    pub role: Role,
    /// The server's own name, for the greeting.
    pub hostname: String,
    /// TLS at the beginning of the connection.
    pub tls: Tls,
    /// Whether AUTH is offered in clear.
    pub plain_login: bool,
    /// Octets of one message in stored form.
    pub size_max: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// The connection stands (under TLS, when it begins with TLS): the greeting is due.
    Connected,
    /// The client spoke before the greeting.
    EarlyInput,
    /// Octets, at most [`SMTP_READ_BYTES_MAX`] at once, and only while [`Machine::wants_input`].
    Bytes(&'a [u8]),
    /// The TLS handshake is done; what follows comes from inside TLS.
    TlsDone,
    /// The answer to the open question.
    Verdict(Verdict),
    /// The client took too long.
    Timeout,
    /// The server goes down. While [`Action::EndOfData`] is open it is better to wait for its verdict: the client would
    /// send a message again that may be delivered already (RFC 1047).
    Shutdown,
    /// The client is gone, or the connection broke.
    Disconnected,
}

/// The server's answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes; to any question but [`Action::EndOfData`].
    Accepted,
    /// No, with this reply (4xx or 5xx). A recipient that does not exist is 550 5.1.1.
    Refused(Reply),
    /// To [`Action::EndOfData`]: for LMTP one reply per recipient of the transaction, in its order; else one.
    Data(Vec<Reply>),
}

/// What the server shall do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these octets: one or more whole replies.
    Reply(Vec<u8>),
    /// Send what is unsent, do the handshake, then [`Input::TlsDone`]. Nothing that was read before counts.
    StartTls,
    /// Question: do these credentials hold?
    Authenticate {
        /// The account, as the client wrote it. Data, never a template or a query.
        identity: String,
        /// The password, at most [`core_types::limits::PASSWORD_BYTES_MAX`] octets.
        password: Password,
    },
    /// Question: may this sender send here?
    CheckSender {
        /// The sender.
        reverse_path: ReversePath,
        /// Octets that it announced; 0 if it did not.
        size: u64,
    },
    /// Question: does the message go to this recipient?
    CheckRecipient {
        /// The recipient.
        recipient: Recipient,
        /// Octets that the sender announced; 0 if it did not.
        size: u64,
    },
    /// Question: is there room for a message to begin? A full disk is better told before the client sends it.
    CheckRoom {
        /// Octets that are known to come: what the sender announced, or the first chunk if that is larger.
        size: u64,
    },
    /// A message begins: its octets follow.
    DataBegin(Box<Transaction>),
    /// Octets of the message, in stored form.
    MessageBytes(Vec<u8>),
    /// Question: the message is complete; is it delivered?
    EndOfData,
    /// The message will not be delivered: throw away what there is of it.
    AbortMessage,
    /// Wait so long before what follows.
    Delay(Duration),
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

/// What the session is doing, for the server's time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a command: [`core_types::limits::SMTP_COMMAND_TIMEOUT`] from the last reply on.
    Command,
    /// Reading a message: [`core_types::limits::SMTP_DATA_RATE_MIN`] holds.
    Message,
    /// Waiting for a [`Verdict`].
    Question,
    /// Waiting for [`Input::TlsDone`].
    Handshake,
    /// Over.
    Closed,
}

#[derive(Debug)]
enum State {
    Greeting,
    Idle,
    Mail(Box<Transaction>),
    AskSender(Box<Transaction>),
    AskRecipient(Box<Transaction>, Box<Recipient>),
    AskRoom(Box<Transaction>, Beginning),
    Data(Content),
    AskData(Content),
    /// Between two BDAT commands of one message.
    Chunks(Content),
    /// In a BDAT chunk.
    Chunk {
        content: Content,
        size: u64,
        left: u64,
        last: bool,
    },
    /// In a BDAT chunk that nobody keeps; the replies follow when it is over.
    Drain {
        left: u64,
        replies: Vec<Reply>,
    },
    Sasl(Sasl),
    AskAuth(String),
    StartTls,
    Closed,
}

/// What was learnt since the connection, or TLS, began.
#[derive(Debug, Default)]
struct Session {
    hello: Option<String>,
    esmtp: bool,
    identity: Option<String>,
}

/// One session. See the module.
#[derive(Debug)]
pub struct Machine {
    config: Config,
    state: State,
    session: Session,
    strikes: Strikes,
    lines: LineReader,
    pending: Vec<u8>,
    /// How much of `pending` was used already.
    pending_used: usize,
}

const SYNCHRONISATION: Reply = Reply::new(
    554,
    Enhanced(5, 5, 0),
    "Protocol synchronization error: wait for the reply first",
);
const SHUTDOWN: Reply = Reply::new(421, Enhanced(4, 3, 2), "Going down, try again later");
const TIMEOUT: Reply = Reply::new(421, Enhanced(4, 4, 2), "Timed out");
const TOO_LONG: Reply = Reply::new(500, Enhanced(5, 5, 2), "Line too long");
const NOT_SMTP: Reply = Reply::new(500, Enhanced(5, 5, 2), "Not a command");
const OVERRUN: Reply = Reply::new(421, Enhanced(4, 7, 0), "Too much input at once");

impl Machine {
    /// A session that waits for [`Input::Connected`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Greeting,
            session: Session::default(),
            strikes: Strikes::default(),
            lines: LineReader::default(),
            pending: Vec::new(),
            pending_used: 0,
        }
    }

    /// Whether the server shall read from the connection now. While it does not, the client waits.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        match self.phase() {
            Phase::Closed | Phase::Handshake => false,
            Phase::Question => self.pending.len() < SMTP_PENDING_BYTES_MAX,
            Phase::Command | Phase::Message => true,
        }
    }

    /// What the session is doing.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        match self.state {
            State::Greeting | State::Idle | State::Mail(_) | State::Chunks(_) | State::Sasl(_) => Phase::Command,
            State::Data(_) | State::Chunk { .. } | State::Drain { .. } => Phase::Message,
            State::AskSender(_)
            | State::AskRecipient(..)
            | State::AskRoom(..)
            | State::AskData(_)
            | State::AskAuth(_) => Phase::Question,
            State::StartTls => Phase::Handshake,
            State::Closed => Phase::Closed,
        }
    }

    /// Who logged in.
    #[must_use]
    pub fn identity(&self) -> Option<&str> {
        self.session.identity.as_deref()
    }

    /// Octets of input that are held: bounded by [`SMTP_PENDING_BYTES_MAX`], [`SMTP_READ_BYTES_MAX`] and one line.
    #[must_use]
    pub const fn buffered_bytes(&self) -> usize {
        self.pending.len() + self.lines.len()
    }

    /// Takes what happened; appends what is to be done to `out`.
    pub fn handle(&mut self, input: Input<'_>, out: &mut Vec<Action>) {
        match (input, &self.state) {
            (_, State::Closed) => {}
            (Input::Connected, State::Greeting) => self.greet(out),
            (Input::EarlyInput | Input::Bytes(_), State::Greeting) => self.close(&SYNCHRONISATION, out),
            (Input::Bytes(_), State::StartTls) => self.hang_up(out),
            (Input::Bytes(bytes), _) => self.receive(bytes, out),
            (Input::Verdict(verdict), _) => {
                self.take_verdict(verdict, out);
                self.resume(out);
            }
            (Input::TlsDone, State::StartTls) => {
                // RFC 3207 4.2: all knowledge from before TLS is discarded; EHLO comes anew.
                self.config.tls = Tls::Active;
                self.session = Session::default();
                self.state = State::Idle;
            }
            (Input::Timeout, State::StartTls) | (Input::Disconnected, _) => self.hang_up(out),
            (Input::Timeout, _) => self.close(&TIMEOUT, out),
            (Input::Shutdown, _) => self.close(&SHUTDOWN, out),
            (Input::Connected | Input::EarlyInput | Input::TlsDone, _) => {}
        }
    }

    fn greet(&mut self, out: &mut Vec<Action>) {
        let protocol = if self.config.role == Role::Lmtp {
            "LMTP"
        } else {
            "ESMTP"
        };
        push_reply(
            &Reply::bare(220, format!("{} {protocol} Everpost", self.config.hostname).into()),
            out,
        );
        self.state = State::Idle;
    }

    fn receive(&mut self, bytes: &[u8], out: &mut Vec<Action>) {
        if self.phase() == Phase::Question {
            return self.hold(bytes, out);
        }
        let used = self.run(bytes, out);
        if self.phase() == Phase::Question {
            self.hold(bytes.get(used..).unwrap_or_default(), out);
        }
    }

    fn hold(&mut self, bytes: &[u8], out: &mut Vec<Action>) {
        if self.pending.len() + bytes.len() > SMTP_PENDING_BYTES_MAX + SMTP_READ_BYTES_MAX {
            return self.close(&OVERRUN, out);
        }
        self.pending.extend_from_slice(bytes);
    }

    /// Goes on with what has waited.
    fn resume(&mut self, out: &mut Vec<Action>) {
        let pending = std::mem::take(&mut self.pending);
        let start = std::mem::take(&mut self.pending_used);
        let rest = pending.get(start..).unwrap_or_default();
        if rest.is_empty() || self.phase() == Phase::Closed {
            return;
        }
        let used = start + self.run(rest, out);
        if self.phase() == Phase::Question && used < pending.len() {
            // Kept in place with a mark: moving the rest for each of many short commands would be quadratic.
            self.pending = pending;
            self.pending_used = used;
            if used > SMTP_PENDING_BYTES_MAX {
                self.pending.drain(..used);
                self.pending_used = 0;
            }
        }
    }

    /// Reads `input` until it is used up or a question is open; says how much it used.
    fn run(&mut self, input: &[u8], out: &mut Vec<Action>) -> usize {
        let mut rest = input;
        while !rest.is_empty() {
            let used = match self.state {
                State::Idle | State::Mail(_) | State::Chunks(_) | State::Sasl(_) => self.run_line(rest, out),
                State::Data(_) => self.run_data(rest, out),
                State::Chunk { .. } | State::Drain { .. } => self.run_chunk(rest, out),
                State::Greeting
                | State::AskSender(_)
                | State::AskRecipient(..)
                | State::AskRoom(..)
                | State::AskData(_)
                | State::AskAuth(_)
                | State::StartTls
                | State::Closed => break,
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        input.len() - rest.len()
    }

    fn run_line(&mut self, input: &[u8], out: &mut Vec<Action>) -> usize {
        let in_sasl = matches!(self.state, State::Sasl(_));
        // No command begins with this octet, but each TLS record of a handshake does (RFC 8446 5.1).
        if self.lines.is_empty() && !in_sasl && input.first() == Some(&0x16) {
            self.close(&NOT_SMTP, out);
            return input.len();
        }
        let (used, event) = self.lines.read(input, |line| line_limit(line, in_sasl));
        match event {
            LineEvent::Partial => {}
            LineEvent::Line(line) if in_sasl => self.sasl_line(&line, out),
            LineEvent::Line(line) => self.command(&line, used < input.len(), out),
            LineEvent::TooLong(line) => self.line_too_long(in_sasl || is_auth(&line), out),
            LineEvent::Flood => self.hang_up(out),
        }
        used
    }

    fn line_too_long(&mut self, is_credentials: bool, out: &mut Vec<Action>) {
        if matches!(self.state, State::Sasl(_)) {
            self.state = State::Idle;
        }
        if is_credentials {
            self.refuse(&sasl::INVALID, out);
        } else {
            self.refuse(&TOO_LONG, out);
        }
    }

    fn command(&mut self, line: &[u8], more: bool, out: &mut Vec<Action>) {
        match Command::parse(line) {
            Command::Helo(argument) => self.hello(argument, false, Role::Lmtp != self.config.role, out),
            Command::Ehlo(argument) => self.hello(argument, true, Role::Lmtp != self.config.role, out),
            Command::Lhlo(argument) => self.hello(argument, true, Role::Lmtp == self.config.role, out),
            Command::Mail(argument) => self.mail(argument, out),
            Command::Rcpt(argument) => self.rcpt(argument, out),
            Command::Data(argument) => self.data(argument, more, out),
            Command::Bdat(argument) => self.bdat(argument, out),
            Command::Rset(argument) => self.rset(argument, out),
            Command::Noop => self.junk(&commands::NOOP, out),
            Command::Vrfy => self.junk(&commands::VRFY, out),
            Command::Help => self.junk(&commands::HELP, out),
            Command::Quit(argument) => self.quit(argument, out),
            Command::StartTls(argument) => self.start_tls(argument, more, out),
            Command::Auth(argument) => self.auth(argument, out),
            Command::Http => self.close(&commands::HTTP, out),
            Command::Proxy => self.close(&commands::UNKNOWN, out),
            Command::Expn => self.refuse(&commands::NOT_IMPLEMENTED, out),
            Command::LineEnds => self.refuse(&commands::LINE_ENDS, out),
            Command::Unknown => self.refuse(&commands::UNKNOWN, out),
        }
    }

    fn take_verdict(&mut self, verdict: Verdict, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::AskSender(transaction) => self.sender_verdict(transaction, verdict, out),
            State::AskRecipient(transaction, recipient) => {
                self.recipient_verdict(transaction, *recipient, verdict, out);
            }
            State::AskRoom(transaction, beginning) => self.room_verdict(transaction, beginning, verdict, out),
            State::AskAuth(identity) => self.auth_verdict(identity, verdict, out),
            State::AskData(content) => self.data_verdict(&content, verdict, out),
            other => self.state = other,
        }
    }

    const fn rules(&self) -> Rules {
        Rules {
            strict: matches!(self.config.role, Role::Submission),
            size_max: self.config.size_max,
        }
    }

    /// Ends the transaction, if there is one.
    fn drop_transaction(&mut self, out: &mut Vec<Action>) {
        // After EndOfData the message's fate is the server's alone.
        let (State::Data(content) | State::Chunks(content) | State::Chunk { content, .. }) =
            std::mem::replace(&mut self.state, State::Idle)
        else {
            return;
        };
        if !content.aborted {
            out.push(Action::AbortMessage);
        }
    }

    /// Says a last word and closes.
    fn close(&mut self, reply: &Reply, out: &mut Vec<Action>) {
        self.drop_transaction(out);
        push_reply(reply, out);
        self.hang_up(out);
    }

    /// Closes without a word.
    fn hang_up(&mut self, out: &mut Vec<Action>) {
        self.drop_transaction(out);
        out.push(Action::Close);
        self.state = State::Closed;
        self.pending = Vec::new();
        self.pending_used = 0;
        self.lines.clear();
    }
}

/// RFC 4954 4: an exchange, and so AUTH with an initial response, may be longer than other commands.
fn line_limit(line: &[u8], in_sasl: bool) -> usize {
    if in_sasl || is_auth(line) {
        SASL_BYTES_MAX
    } else {
        SMTP_LINE_BYTES_MAX
    }
}

fn is_auth(line: &[u8]) -> bool {
    line.split_at_checked(5)
        .is_some_and(|(head, _)| head.eq_ignore_ascii_case(b"AUTH "))
}

/// Appends a reply; replies in a row become one [`Action::Reply`] (RFC 2920 3.2: one segment).
fn push_reply(reply: &Reply, out: &mut Vec<Action>) {
    if let Some(Action::Reply(bytes)) = out.last_mut() {
        return reply.encode(bytes);
    }
    let mut bytes = Vec::new();
    reply.encode(&mut bytes);
    out.push(Action::Reply(bytes));
}

#[cfg(test)]
mod tests;
