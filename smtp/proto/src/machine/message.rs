//! DATA (RFC 5321 4.1.1.4), BDAT (RFC 3030 2) and the replies to the end of data.
//!
//! Whatever is wrong with a message, its octets are read to their true end before the reply, so that none of them is
//! taken for a command; only when that would take too long is the connection closed instead.

use core_types::limits::SMTP_DRAIN_FACTOR;

use super::{
    Action, Machine, Role, SYNCHRONISATION, State, Verdict, commands, push_reply,
    transaction::{Beginning, Content, Transaction},
};
use crate::{
    content::{ContentReader, Refusal},
    reply::{Enhanced, Reply},
};

const GO_AHEAD: Reply = Reply::bare(354, std::borrow::Cow::Borrowed("End data with <CR><LF>.<CR><LF>"));
const NO_RECIPIENTS: Reply = Reply::new(554, Enhanced(5, 5, 1), "No valid recipients");
const NO_RECIPIENTS_LMTP: Reply = Reply::new(503, Enhanced(5, 5, 1), "No valid recipients");

impl Machine {
    pub(super) fn data(&mut self, argument: &[u8], more: bool, out: &mut Vec<Action>) {
        // RFC 2920 3.1: DATA is the last of its group. What stands behind it is the text of a message from a client
        // that did not wait; run as commands it would be an injection.
        if more {
            return self.close(&SYNCHRONISATION, out);
        }
        if !argument.is_empty() {
            return self.refuse(&commands::ARGUMENT, out);
        }
        match self.take_transaction() {
            Ok(transaction) => self.ask_room(transaction, Beginning::Data, out),
            // RFC 3030 3: DATA and BDAT do not mix.
            Err(_) if matches!(self.state, State::Chunks(_)) => self.refuse(&commands::IN_CHUNKS, out),
            Err(reply) => self.refuse(&reply, out),
        }
    }

    /// Takes the transaction out of the state, if it can go on to its data; otherwise the state stays.
    fn take_transaction(&mut self) -> Result<Box<Transaction>, Reply> {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Mail(transaction) if transaction.recipients.is_empty() => {
                self.state = State::Mail(transaction);
                // RFC 2033 4.2 wants 503 here, RFC 2920 3.1 554.
                Err(if self.config.role == Role::Lmtp {
                    NO_RECIPIENTS_LMTP
                } else {
                    NO_RECIPIENTS
                })
            }
            State::Mail(transaction) => Ok(transaction),
            other => {
                self.state = other;
                Err(commands::MAIL_FIRST)
            }
        }
    }

    fn ask_room(&mut self, transaction: Box<Transaction>, beginning: Beginning, out: &mut Vec<Action>) {
        let chunk = match beginning {
            Beginning::Data => 0,
            Beginning::Bdat { size, .. } => size,
        };
        let size = transaction.size.unwrap_or(0).max(chunk);
        out.push(Action::CheckRoom { size });
        self.state = State::AskRoom(transaction, beginning);
    }

    pub(super) fn room_verdict(
        &mut self,
        transaction: Box<Transaction>,
        beginning: Beginning,
        verdict: Verdict,
        out: &mut Vec<Action>,
    ) {
        match (beginning, commands::negative(verdict)) {
            // Text that was not waited for would be run as commands after a refusal, as in `data`.
            (Beginning::Data, _) if self.pending.len() > self.pending_used => self.close(&SYNCHRONISATION, out),
            (Beginning::Data, None) => {
                let content = self.begin(transaction, out);
                push_reply(&GO_AHEAD, out);
                self.state = State::Data(content);
            }
            (Beginning::Data, Some(reply)) => self.refused_by_verdict(&reply, out),
            (Beginning::Bdat { size, last }, None) => {
                let content = self.begin(transaction, out);
                self.chunk(content, size, last, out);
            }
            (Beginning::Bdat { size, last }, Some(reply)) => {
                let count = if last {
                    self.reply_count(&transaction.accepted)
                } else {
                    1
                };
                self.state = State::Drain {
                    left: size,
                    replies: vec![reply; count],
                };
                self.end_chunk_if_over(out);
            }
        }
    }

    fn begin(&self, mut transaction: Box<Transaction>, out: &mut Vec<Action>) -> Content {
        let accepted = std::mem::take(&mut transaction.accepted);
        out.push(Action::DataBegin(transaction));
        Content {
            reader: ContentReader::new(self.rules()),
            accepted,
            aborted: false,
        }
    }

    pub(super) fn run_data(&mut self, input: &[u8], out: &mut Vec<Action>) -> usize {
        let State::Data(content) = &mut self.state else {
            return input.len();
        };
        let mut bytes = Vec::with_capacity(input.len());
        let (used, ended) = content.reader.read_data(input, &mut bytes);
        if ended {
            content.reader.finish();
        }
        pass_on(content, bytes, out);
        if ended {
            self.end(out);
        } else if content.reader.is_past_drain() {
            self.close(&Refusal::Size.reply(), out);
        }
        used
    }

    /// The message is complete: asks about it, or refuses it.
    fn end(&mut self, out: &mut Vec<Action>) {
        let content = match std::mem::replace(&mut self.state, State::Idle) {
            State::Data(content) | State::Chunk { content, .. } => content,
            other => {
                self.state = other;
                return;
            }
        };
        match content.reader.refusal() {
            Some(refusal) => self.refuse_all(&self.replies(&content, refusal.reply()), out),
            None => {
                out.push(Action::EndOfData);
                self.state = State::AskData(content);
            }
        }
    }

    /// RFC 2033 4.2: over LMTP one reply for each accepted RCPT.
    fn replies(&self, content: &Content, reply: Reply) -> Vec<Reply> {
        vec![reply; self.reply_count(&content.accepted)]
    }

    fn reply_count(&self, accepted: &[usize]) -> usize {
        if self.config.role == Role::Lmtp {
            accepted.len()
        } else {
            1
        }
    }

    pub(super) fn data_verdict(&mut self, content: &Content, verdict: Verdict, out: &mut Vec<Action>) {
        let verdicts = match verdict {
            Verdict::Data(verdicts) => verdicts,
            // Only a reply of the server's own says that a message was delivered.
            other => {
                let reply = commands::negative(other).unwrap_or(commands::CONFUSED);
                vec![reply; content.accepted.len().max(1)]
            }
        };
        let reply_of = |index: usize| match verdicts.get(index) {
            Some(reply) if reply.is_positive() || (400..600).contains(&reply.code) => reply.clone(),
            _ => commands::CONFUSED,
        };
        let replies: Vec<Reply> = match self.config.role {
            Role::Lmtp => content.accepted.iter().map(|index| reply_of(*index)).collect(),
            Role::Relay | Role::Submission => vec![reply_of(0)],
        };
        if replies.iter().any(Reply::is_positive) {
            self.forgive();
        }
        match replies.as_slice() {
            [reply] => self.refused_by_verdict_or_ok(reply, out),
            replies => replies.iter().for_each(|reply| push_reply(reply, out)),
        }
    }

    fn refused_by_verdict_or_ok(&mut self, reply: &Reply, out: &mut Vec<Action>) {
        if reply.is_positive() {
            push_reply(reply, out);
        } else {
            self.refused_by_verdict(reply, out);
        }
    }

    pub(super) fn bdat(&mut self, argument: &[u8], out: &mut Vec<Action>) {
        let (size, last) = match self.parse_bdat(argument) {
            Ok(parsed) => parsed,
            // RFC 3030 2: after a failed BDAT there is no transaction. How many octets follow is not known; they are
            // not consumed.
            Err(None) => {
                self.drop_transaction(out);
                return self.refuse(&commands::ARGUMENT, out);
            }
            Err(Some(reply)) => return self.close(&reply, out),
        };
        if !self.count_chunk(size, last, out) {
            return;
        }
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Chunks(content) => self.chunk(content, size, last, out),
            other => {
                self.state = other;
                match self.take_transaction() {
                    Ok(transaction) => self.ask_room(transaction, Beginning::Bdat { size, last }, out),
                    Err(reply) => {
                        self.state = State::Drain {
                            left: size,
                            replies: vec![reply],
                        };
                        self.end_chunk_if_over(out);
                    }
                }
            }
        }
    }

    /// A chunk of a message begins.
    fn chunk(&mut self, content: Content, size: u64, last: bool, out: &mut Vec<Action>) {
        if content.reader.would_pass(size) {
            let reply = commands::TOO_LARGE;
            let replies = if last {
                self.replies(&content, reply)
            } else {
                vec![reply]
            };
            out.push(Action::AbortMessage);
            self.state = State::Drain { left: size, replies };
        } else {
            self.state = State::Chunk {
                content,
                size,
                left: size,
                last,
            };
        }
        self.end_chunk_if_over(out);
    }

    /// `chunk-size [SP "LAST"]`. `Err(None)`: malformed; `Err(Some(_))`: so many octets that they cannot be drained.
    fn parse_bdat(&self, argument: &[u8]) -> Result<(u64, bool), Option<Reply>> {
        let text = std::str::from_utf8(argument).map_err(|_| None)?;
        let (digits, last) = match text.split_once(' ') {
            Some((digits, word)) if word.eq_ignore_ascii_case("LAST") => (digits, true),
            Some(_) => return Err(None),
            None => (text, false),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(None);
        }
        let drainable = self.config.size_max.saturating_mul(SMTP_DRAIN_FACTOR);
        match digits.parse() {
            Ok(size) if size <= drainable => Ok((size, last)),
            _ => Err(Some(commands::TOO_LARGE)),
        }
    }

    pub(super) fn run_chunk(&mut self, input: &[u8], out: &mut Vec<Action>) -> usize {
        let used = match &mut self.state {
            State::Chunk { content, left, .. } => {
                let chunk = take(input, left);
                let mut bytes = Vec::with_capacity(chunk.len());
                content.reader.read_chunk(chunk, &mut bytes);
                pass_on(content, bytes, out);
                chunk.len()
            }
            State::Drain { left, .. } => take(input, left).len(),
            _ => return input.len(),
        };
        self.end_chunk_if_over(out);
        used
    }

    fn end_chunk_if_over(&mut self, out: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Drain { left: 0, replies } => self.refuse_all(&replies, out),
            State::Chunk {
                mut content,
                size,
                left: 0,
                last,
            } => {
                if last {
                    content.reader.finish();
                    pass_on(&mut content, Vec::new(), out);
                }
                match content.reader.refusal() {
                    _ if last => {
                        self.state = State::Chunk {
                            content,
                            size,
                            left: 0,
                            last,
                        };
                        self.end(out);
                    }
                    Some(refusal) => self.refuse(&refusal.reply(), out),
                    None => {
                        let text = format!("{size} octets received");
                        push_reply(&Reply::with_text(250, Enhanced(2, 0, 0), text), out);
                        self.state = State::Chunks(content);
                    }
                }
            }
            other => self.state = other,
        }
    }
}

/// Hands octets of the message to the server, or tells it that there is nothing to wait for.
fn pass_on(content: &mut Content, bytes: Vec<u8>, out: &mut Vec<Action>) {
    if content.aborted {
        return;
    }
    if content.reader.refusal().is_some() {
        content.aborted = true;
        out.push(Action::AbortMessage);
    } else if !bytes.is_empty() {
        out.push(Action::MessageBytes(bytes));
    }
}

/// The part of `input` that belongs to the chunk.
fn take<'a>(input: &'a [u8], left: &mut u64) -> &'a [u8] {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    input.get(..length).unwrap_or(input)
}
