//! What a session did wrong so far, and what it costs: slower answers, then the end.
//!
//! There is no clock: the counters start again with each delivered message, and what only a rate could tell (slow
//! clients, many connections) is the server's.

use std::time::Duration;

use core_types::limits::{
    SMTP_CHUNK_TINY_BYTES, SMTP_CHUNKS_TINY_MAX, SMTP_ERRORS_MAX, SMTP_ERRORS_SLOW, SMTP_JUNK_COMMANDS_MAX,
    SMTP_UNKNOWN_RECIPIENTS_MAX,
};

use super::{Action, Machine, push_reply};
use crate::reply::{Enhanced, Reply};

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    errors: u32,
    junk: u32,
    unknown_recipients: u32,
    tiny_chunks: u32,
}

const TOO_MANY_ERRORS: Reply = Reply::new(421, Enhanced(4, 7, 0), "Too many errors");
const TOO_MANY_UNKNOWN: Reply = Reply::new(421, Enhanced(4, 7, 0), "Too many unknown recipients");
const TOO_MANY_CHUNKS: Reply = Reply::new(421, Enhanced(4, 7, 0), "Too many tiny chunks");

/// By how much each further error delays its answer.
const ERROR_DELAY: Duration = Duration::from_secs(1);
/// By how much each further unknown recipient delays its answer. The first costs nothing: people mistype.
const UNKNOWN_RECIPIENT_DELAY: Duration = Duration::from_millis(250);

impl Machine {
    /// Replies that something was wrong, and counts it.
    pub(super) fn refuse(&mut self, reply: &Reply, out: &mut Vec<Action>) {
        self.refuse_all(std::slice::from_ref(reply), out);
    }

    /// As [`Machine::refuse`], where one error has several replies (LMTP).
    pub(super) fn refuse_all(&mut self, replies: &[Reply], out: &mut Vec<Action>) {
        if self.strike(out) {
            for reply in replies {
                push_reply(reply, out);
            }
        }
    }

    /// Counts an error; false when it was the last one and the session is closed.
    fn strike(&mut self, out: &mut Vec<Action>) -> bool {
        self.strikes.errors += 1;
        if self.strikes.errors >= SMTP_ERRORS_MAX {
            self.close(&TOO_MANY_ERRORS, out);
            return false;
        }
        if self.strikes.errors >= SMTP_ERRORS_SLOW {
            out.push(Action::Delay(
                ERROR_DELAY * (self.strikes.errors - SMTP_ERRORS_SLOW + 1),
            ));
        }
        true
    }

    /// Replies to a command that leads nowhere; too many of them are errors.
    pub(super) fn junk(&mut self, reply: &Reply, out: &mut Vec<Action>) {
        self.strikes.junk = self.strikes.junk.saturating_add(1);
        if self.strikes.junk > SMTP_JUNK_COMMANDS_MAX {
            self.refuse(reply, out);
        } else {
            push_reply(reply, out);
        }
    }

    /// Replies that a recipient does not exist; too many of them are a harvest.
    pub(super) fn unknown_recipient(&mut self, reply: &Reply, out: &mut Vec<Action>) {
        if self.strikes.unknown_recipients >= SMTP_UNKNOWN_RECIPIENTS_MAX {
            return self.close(&TOO_MANY_UNKNOWN, out);
        }
        if self.strikes.unknown_recipients > 0 {
            out.push(Action::Delay(UNKNOWN_RECIPIENT_DELAY * self.strikes.unknown_recipients));
        }
        self.strikes.unknown_recipients += 1;
        push_reply(reply, out);
    }

    /// Counts a chunk; false when the session is closed for it (Postfix 20260805: a million chunks of one octet).
    pub(super) fn count_chunk(&mut self, size: u64, last: bool, out: &mut Vec<Action>) -> bool {
        if last || size >= SMTP_CHUNK_TINY_BYTES {
            return true;
        }
        self.strikes.tiny_chunks += 1;
        if self.strikes.tiny_chunks > SMTP_CHUNKS_TINY_MAX {
            self.close(&TOO_MANY_CHUNKS, out);
            return false;
        }
        true
    }

    /// A message was delivered: the slate is clean, but a harvest stays one.
    pub(super) fn forgive(&mut self) {
        self.strikes = Strikes {
            unknown_recipients: self.strikes.unknown_recipients,
            ..Strikes::default()
        };
    }
}
