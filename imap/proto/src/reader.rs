//! From a stream of octets to events: framing of commands and literals (RFC 3501 4.3, RFC 7888), with all limits.
//!
//! What is held is bounded by the limits of [`core_types::limits`]: one command's text and its literals. The message of
//! an APPEND passes through and is never held. A client that breaks a limit in a way that it can still follow gets a
//! refusal, and the reader finds the next command; one that pushes more octets than we are willing to skip gets
//! [`Event::Fatal`], after which nothing is read.
//! Not here: what the events mean, and whether a command is allowed now.
//!
//! A literal is announced by `{n}` at the very end of a line, outside of a quoted string. Client and server thus agree
//! on where a command ends even if its middle makes no sense.

mod event;
mod literal;
#[cfg(test)]
mod tests;

use core_types::limits::{
    IMAP_LINE_BYTES_MAX, IMAP_LITERAL_BYTES_MAX, IMAP_LITERAL_MINUS_BYTES_MAX, IMAP_LITERALS_BYTES_MAX,
    IMAP_LITERALS_MAX, IMAP_PREAUTH_BYTES_MAX, IMAP_TAG_BYTES_MAX, MESSAGE_BYTES_MAX, SASL_BYTES_MAX,
};

use crate::command::{Append, Secret, Tag};
use crate::encode::{Code, Status};
use crate::parse::{ParseError, command_word, decode_sasl, parse_append, parse_command, tag_of};
pub use event::{Event, Fatal, Refusal};
use literal::{Header, QuoteScan, is_http};

/// Reads one connection's commands. After STARTTLS a new one is needed, so that nothing from before is kept.
#[derive(Debug)]
pub struct CommandReader {
    literal_minus: bool,
    logged_in: bool,
    first_line: bool,
    mode: Mode,
    state: State,
    /// The command so far, with the literals in place.
    command: Vec<u8>,
    /// Where the text behind its last literal begins.
    segment_start: usize,
    /// Octets of it that are not in literals.
    text_count: usize,
    /// Octets and number of its literals.
    literal_bytes: u64,
    literal_count: usize,
    quotes: QuoteScan,
    /// Octets of this command that may still be skipped.
    skip_left: u64,
}

/// What the next line is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    Command,
    Authenticate(Tag),
    Idle(Tag),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Line,
    Literal {
        left: u64,
    },
    AppendData {
        append: Tag,
        accepted: bool,
        sync: bool,
        left: u64,
        nul: bool,
    },
    AppendTail {
        append: Tag,
        cr: bool,
        nul: bool,
    },
    /// The command is refused, its rest is read past. `tail`: the last octets of the line.
    SkipLine {
        refusal: Refusal,
        tail: Vec<u8>,
    },
    SkipLiteral {
        refusal: Refusal,
        left: u64,
    },
    Refuse(Refusal),
    Closed,
}

impl Default for CommandReader {
    fn default() -> Self {
        Self::new(false)
    }
}

impl CommandReader {
    /// For a new connection. `literal_minus`: only LITERAL- is offered (RFC 7888 5) and not LITERAL+.
    #[must_use]
    pub fn new(literal_minus: bool) -> Self {
        Self {
            literal_minus,
            logged_in: false,
            first_line: true,
            mode: Mode::Command,
            state: State::Line,
            command: Vec::new(),
            segment_start: 0,
            text_count: 0,
            literal_bytes: 0,
            literal_count: 0,
            quotes: QuoteScan::default(),
            skip_left: 0,
        }
    }

    /// The client has logged in: the limits before login no longer hold, and APPEND is streamed.
    pub fn set_logged_in(&mut self) {
        self.logged_in = true;
    }

    /// After a continuation request of this AUTHENTICATE was sent: the next line is a SASL message.
    pub fn begin_authenticate(&mut self, tag: Tag) {
        self.mode = Mode::Authenticate(tag);
    }

    /// After the continuation request of this IDLE was sent: the next line should be DONE.
    pub fn begin_idle(&mut self, tag: Tag) {
        self.mode = Mode::Idle(tag);
    }

    /// After [`Event::AppendStart`]: the message is wanted.
    pub fn accept_append(&mut self) {
        if let State::AppendData { accepted, .. } = &mut self.state {
            *accepted = true;
        }
    }

    /// After [`Event::AppendStart`], or any time before the end: the message is not wanted. The client's octets are
    /// skipped if it sends them in any case, then [`Event::Refused`] comes with this refusal.
    pub fn refuse_append(&mut self, refusal: Refusal) {
        match self.state {
            State::AppendData {
                accepted: false,
                sync: true,
                ..
            } => self.state = State::Refuse(refusal),
            State::AppendData { left, .. } => {
                self.skip_left = self.skip_bytes_max();
                self.state = State::SkipLiteral { refusal, left };
            }
            State::AppendTail { .. } => {
                self.skip_left = self.skip_bytes_max();
                self.state = State::SkipLine {
                    refusal,
                    tail: Vec::new(),
                };
            }
            _ => {}
        }
    }

    /// Whether no part of a command has been read yet.
    #[must_use]
    pub fn is_between_commands(&self) -> bool {
        self.state == State::Line && self.command.is_empty()
    }

    /// Octets of memory that are held for the command under way.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.command.capacity()
    }

    /// Takes octets off `input` up to the next event. `None`: all of them were taken, more are needed. It must be
    /// called until it says `None`, and each event handled before the next call, since it may change what follows.
    pub fn poll<'a>(&mut self, input: &mut &'a [u8]) -> Option<Event<'a>> {
        loop {
            let event = match &mut self.state {
                State::Closed => {
                    *input = &[];
                    return None;
                }
                State::Refuse(refusal) => {
                    let refusal = refusal.clone();
                    Some(self.refuse(refusal))
                }
                State::AppendData {
                    left: 0, append, nul, ..
                } => {
                    self.state = State::AppendTail {
                        append: append.clone(),
                        cr: false,
                        nul: *nul,
                    };
                    None
                }
                State::Literal { left: 0 } => {
                    self.segment_start = self.command.len();
                    self.state = State::Line;
                    None
                }
                State::SkipLiteral { left: 0, refusal } => {
                    self.state = State::SkipLine {
                        refusal: refusal.clone(),
                        tail: Vec::new(),
                    };
                    None
                }
                _ if input.is_empty() => return None,
                State::Line => self.read_line(input),
                State::Literal { left } => {
                    let chunk = take(input, left);
                    self.command.extend_from_slice(chunk);
                    None
                }
                State::AppendData {
                    left, nul, accepted, ..
                } => {
                    let chunk = take(input, left);
                    *accepted = true;
                    *nul |= chunk.contains(&0);
                    Some(Event::AppendData(chunk))
                }
                State::AppendTail { .. } => self.read_append_tail(input),
                State::SkipLine { .. } => self.skip_line(input),
                State::SkipLiteral { left, .. } => {
                    take(input, left);
                    None
                }
            };
            if event.is_some() {
                return event;
            }
        }
    }

    /// Text up to the end of a line.
    fn read_line<'a>(&mut self, input: &mut &[u8]) -> Option<Event<'a>> {
        // RFC 8446 5.1, a handshake record: somebody speaks TLS where it is not expected.
        if self.first_line && self.command.is_empty() && input.first() == Some(&0x16) {
            return Some(self.fatal(Status::Bye, None, "TLS on a port without it"));
        }
        let (chunk, complete) = take_line(input);
        // One octet more than the limit, for CR.
        let over = self.text_count + chunk.len() > self.line_bytes_max() + 1
            || (!self.logged_in && self.command.len() + chunk.len() > IMAP_PREAUTH_BYTES_MAX + 1);
        if over {
            let mut refusal = self.refusal(Status::Bad, Some(Code::TooBig), "Command line over the limit");
            if self.mode == Mode::Command {
                refusal.tag = tag_of(&[head(&self.command), head(chunk)].concat());
            }
            let mut tail = self.segment().to_vec();
            keep_tail(&mut tail);
            self.skip_left = self.skip_bytes_max();
            self.command = Vec::new();
            self.state = State::SkipLine { refusal, tail };
            return self.skipped_text(chunk, complete);
        }
        self.command.extend_from_slice(chunk);
        self.text_count += chunk.len();
        self.quotes.feed(chunk);
        if complete { self.handle_line() } else { None }
    }

    /// `command` now ends where a line ended.
    fn handle_line<'a>(&mut self) -> Option<Event<'a>> {
        let first_line = std::mem::replace(&mut self.first_line, false);
        if first_line && is_http(&self.command) {
            return Some(self.fatal(Status::Bye, None, "This is an IMAP server"));
        }
        if self.command.pop_if(|last| *last == b'\r').is_none() {
            let tag = match &self.mode {
                Mode::Command => tag_of(&self.command),
                Mode::Authenticate(tag) | Mode::Idle(tag) => Some(tag.clone()),
            };
            let refusal = Refusal {
                tag,
                ..self.refusal(Status::Bad, None, "Lines end with CRLF")
            };
            return Some(self.refuse(refusal));
        }
        self.text_count = self.text_count.saturating_sub(1);
        match &self.mode {
            Mode::Command => {}
            Mode::Authenticate(_) => return Some(self.handle_authenticate_line()),
            Mode::Idle(tag) => {
                let refusal = Refusal {
                    tag: Some(tag.clone()),
                    status: Status::Bad,
                    code: None,
                    text: "Expected DONE",
                };
                if !self.command.eq_ignore_ascii_case(b"DONE") {
                    return Some(self.refuse(refusal));
                }
                self.reset();
                return Some(Event::IdleDone);
            }
        }
        if let Some(header) = Header::at_end_of(self.segment()).filter(|_| !self.quotes.is_open()) {
            return self.handle_literal(header);
        }
        if self.text_count > IMAP_LINE_BYTES_MAX {
            let refusal = self.refusal(Status::Bad, Some(Code::TooBig), "Command line over the limit");
            return Some(self.refuse(refusal));
        }
        let event = match parse_command(&self.command) {
            Ok(command) => Event::Command(command),
            Err(error) => Event::Refused(self.refusal_of(error)),
        };
        self.reset();
        Some(event)
    }

    fn handle_authenticate_line<'a>(&mut self) -> Event<'a> {
        // RFC 3501 6.2.2: a line of one "*" cancels the exchange, the answer is BAD.
        let decoded = if self.command == b"*" {
            crate::parse::bad("AUTHENTICATE cancelled")
        } else {
            decode_sasl(&self.command)
        };
        match decoded {
            Ok(message) => {
                self.reset();
                Event::AuthenticateResponse(Secret(message))
            }
            Err(error) => {
                let refusal = self.refusal_of(error);
                self.refuse(refusal)
            }
        }
    }

    /// The line ended with a literal's header.
    fn handle_literal<'a>(&mut self, header: Header) -> Option<Event<'a>> {
        // RFC 7888 5: a larger one breaks the protocol, and where its octets end is not for us to guess.
        if !header.sync && self.literal_minus && header.length > IMAP_LITERAL_MINUS_BYTES_MAX {
            return Some(self.fatal(
                Status::Bad,
                Some(Code::TooBig),
                "Non-synchronizing literal over 4096 octets",
            ));
        }
        self.command.extend_from_slice(b"\r\n");
        if command_word(&self.command).eq_ignore_ascii_case(b"APPEND") {
            if !self.logged_in {
                let refusal = self.refusal(Status::Bad, None, "Log in first");
                return self.refuse_literal(header, refusal);
            }
            match parse_append(&self.command) {
                Ok(append) => return self.handle_append(header, append),
                Err(ParseError::Incomplete) => {}
                Err(error) => {
                    let refusal = self.refusal_of(error);
                    return self.refuse_literal(header, refusal);
                }
            }
        }
        self.literal_count += 1;
        self.literal_bytes = self.literal_bytes.saturating_add(header.length);
        let held = u64::try_from(self.command.len())
            .unwrap_or(u64::MAX)
            .saturating_add(header.length);
        let preauth_bytes_max = u64::try_from(IMAP_PREAUTH_BYTES_MAX).unwrap_or(u64::MAX);
        if header.length > IMAP_LITERAL_BYTES_MAX
            || self.literal_bytes > IMAP_LITERALS_BYTES_MAX
            || self.literal_count > IMAP_LITERALS_MAX
            || (!self.logged_in && held > preauth_bytes_max)
        {
            let refusal = self.refusal(Status::Bad, Some(Code::TooBig), "Literals over the limit");
            return self.refuse_literal(header, refusal);
        }
        self.quotes = QuoteScan::default();
        self.state = State::Literal { left: header.length };
        header.sync.then_some(Event::Continue)
    }

    fn handle_append<'a>(&mut self, header: Header, mut append: Append) -> Option<Event<'a>> {
        if header.length > MESSAGE_BYTES_MAX {
            let text = "Message over the limit";
            if !header.sync {
                return Some(self.fatal(Status::Bye, Some(Code::TooBig), text));
            }
            let refusal = self.refusal(Status::No, Some(Code::TooBig), text);
            return Some(self.refuse(refusal));
        }
        append.size = header.length;
        append.sync = header.sync;
        self.reset();
        self.state = State::AppendData {
            append: append.tag.clone(),
            accepted: false,
            sync: header.sync,
            left: header.length,
            nul: false,
        };
        Some(Event::AppendStart(append))
    }

    /// CRLF behind an APPEND's message. Anything else would be a second message (RFC 3502), which is not offered.
    fn read_append_tail<'a>(&mut self, input: &mut &[u8]) -> Option<Event<'a>> {
        let State::AppendTail { append, cr, nul } = &mut self.state else {
            return None;
        };
        let (next, rest) = input.split_first()?;
        match (*cr, next) {
            (false, b'\r') => {
                *input = rest;
                *cr = true;
                None
            }
            (true, b'\n') => {
                *input = rest;
                let refusal = Refusal {
                    tag: Some(append.clone()),
                    status: Status::No,
                    code: Some(Code::UnknownCte),
                    text: "NUL in a message without BINARY",
                };
                // RFC 3501 9 `literal`: CHAR8 is anything but NUL.
                Some(if *nul {
                    self.refuse(refusal)
                } else {
                    self.reset();
                    Event::AppendEnd
                })
            }
            _ => {
                let refusal = Refusal {
                    tag: Some(append.clone()),
                    status: Status::Bad,
                    code: None,
                    text: "Unexpected text after the message",
                };
                self.skip_left = self.skip_bytes_max();
                self.state = State::SkipLine {
                    refusal,
                    tail: Vec::new(),
                };
                None
            }
        }
    }

    fn skip_line<'a>(&mut self, input: &mut &[u8]) -> Option<Event<'a>> {
        let (chunk, complete) = take_line(input);
        self.skipped_text(chunk, complete)
    }

    /// Text of a refused command.
    fn skipped_text<'a>(&mut self, chunk: &[u8], complete: bool) -> Option<Event<'a>> {
        self.quotes.feed(chunk);
        let chunk_length = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let Some(skip_left) = self.skip_left.checked_sub(chunk_length) else {
            return Some(self.fatal(Status::Bye, Some(Code::TooBig), "Command line over the limit"));
        };
        self.skip_left = skip_left;
        let State::SkipLine { refusal, tail } = &mut self.state else {
            return None;
        };
        let kept = chunk.len().saturating_sub(TAIL_BYTES);
        tail.extend_from_slice(chunk.get(kept..).unwrap_or(&[]));
        keep_tail(tail);
        if !complete {
            return None;
        }
        let refusal = refusal.clone();
        let header = tail.strip_suffix(b"\r").and_then(Header::at_end_of);
        match header.filter(|_| self.mode == Mode::Command && !self.quotes.is_open()) {
            Some(header) => self.refuse_literal(header, refusal),
            None => Some(self.refuse(refusal)),
        }
    }

    /// A refused command has this literal next. One that waits for us is never sent; another is skipped if it is small
    /// enough, an APPEND's message being as large as it may.
    fn refuse_literal<'a>(&mut self, header: Header, refusal: Refusal) -> Option<Event<'a>> {
        if header.sync {
            return Some(self.refuse(refusal));
        }
        if self.state == State::Line {
            let is_append = self.logged_in && command_word(&self.command).eq_ignore_ascii_case(b"APPEND");
            self.skip_left = self.skip_bytes_max() + if is_append { MESSAGE_BYTES_MAX } else { 0 };
        }
        let Some(skip_left) = self.skip_left.checked_sub(header.length) else {
            return Some(self.fatal(Status::Bye, Some(Code::Alert), "Literal over the limit"));
        };
        self.skip_left = skip_left;
        self.command = Vec::new();
        self.quotes = QuoteScan::default();
        self.state = State::SkipLiteral {
            refusal,
            left: header.length,
        };
        None
    }

    fn refuse<'a>(&mut self, refusal: Refusal) -> Event<'a> {
        self.reset();
        Event::Refused(refusal)
    }

    fn fatal<'a>(&mut self, status: Status, code: Option<Code>, text: &'static str) -> Event<'a> {
        self.reset();
        self.state = State::Closed;
        Event::Fatal(Fatal { status, code, text })
    }

    /// Ready for the next command.
    fn reset(&mut self) {
        self.state = State::Line;
        self.mode = Mode::Command;
        self.command.clear();
        // An idle connection should cost nothing.
        if self.command.capacity() > COMMAND_BYTES_KEPT {
            self.command = Vec::new();
        }
        self.segment_start = 0;
        self.text_count = 0;
        self.literal_bytes = 0;
        self.literal_count = 0;
        self.quotes = QuoteScan::default();
    }

    /// The text behind the last literal, whose octets must not be taken for a header's.
    fn segment(&self) -> &[u8] {
        self.command.get(self.segment_start..).unwrap_or(&[])
    }

    fn refusal(&self, status: Status, code: Option<Code>, text: &'static str) -> Refusal {
        let tag = match &self.mode {
            Mode::Command => tag_of(&self.command),
            Mode::Authenticate(tag) | Mode::Idle(tag) => Some(tag.clone()),
        };
        Refusal {
            tag,
            status,
            code,
            text,
        }
    }

    fn refusal_of(&self, error: ParseError) -> Refusal {
        match error {
            ParseError::Refused { status, code, text } => self.refusal(status, code, text),
            ParseError::Incomplete => self.refusal(Status::Bad, None, "Invalid literal"),
        }
    }

    fn line_bytes_max(&self) -> usize {
        match self.mode {
            Mode::Command | Mode::Idle(_) => IMAP_LINE_BYTES_MAX,
            Mode::Authenticate(_) => SASL_BYTES_MAX.div_ceil(3) * 4,
        }
    }

    fn skip_bytes_max(&self) -> u64 {
        if self.logged_in {
            IMAP_LITERALS_BYTES_MAX
        } else {
            u64::try_from(IMAP_PREAUTH_BYTES_MAX).unwrap_or(u64::MAX)
        }
    }
}

/// The line's next octets without LF, and whether it ended.
fn take_line<'a>(input: &mut &'a [u8]) -> (&'a [u8], bool) {
    match input.iter().position(|&byte| byte == b'\n') {
        Some(at) => {
            let (line, rest) = input.split_at(at);
            *input = rest.get(1..).unwrap_or(&[]);
            (line, true)
        }
        None => (std::mem::take(input), false),
    }
}

/// At most `left` octets, which becomes smaller by them.
fn take<'a>(input: &mut &'a [u8], left: &mut u64) -> &'a [u8] {
    let length = usize::try_from(*left).map_or(input.len(), |left| left.min(input.len()));
    let (chunk, rest) = input.split_at(length);
    *input = rest;
    *left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
    chunk
}

/// As much of a line's start as may hold a tag and what ends it.
fn head(line: &[u8]) -> &[u8] {
    line.get(..=IMAP_TAG_BYTES_MAX).unwrap_or(line)
}

fn keep_tail(tail: &mut Vec<u8>) {
    let over = tail.len().saturating_sub(TAIL_BYTES);
    tail.drain(..over);
}

/// Octets of a skipped line's end, in which a literal's header would stand.
const TAIL_BYTES: usize = 64;
/// Octets of buffer that a connection keeps between commands.
const COMMAND_BYTES_KEPT: usize = 1024;
