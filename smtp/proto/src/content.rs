//! Reading the octets of a message: DATA (RFC 5321 4.5.2) and BDAT (RFC 3030).
//!
//! Only CRLF.CRLF ends DATA. Anything near it that is not exactly that is read on to the true end and then refused, so
//! that client and server never disagree about where a message ends (CVE-2023-51764). What is let through has CRLF line
//! ends only: on the relay and LMTP listeners a bare LF that is not beside a lone dot becomes CRLF; a bare CR is refused
//! everywhere. The size that counts is that of the stored form.
//! Not here: replies, storing. Memory: a few counters, no line buffer.

use core_types::limits::{HEADER_BLOCK_BYTES_MAX, RECEIVED_COUNT_MAX, SMTP_DRAIN_FACTOR};

use crate::{
    header::HeaderScan,
    reply::{Enhanced, Reply},
};

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    LineEnds,
    Size,
    HeaderBlock,
    RoutingLoop,
    NoHeader,
}

impl Refusal {
    pub(crate) const fn reply(self) -> Reply {
        match self {
            Self::LineEnds => Reply::new(550, Enhanced(5, 5, 2), "Message has line ends other than CRLF"),
            Self::Size => Reply::new(552, Enhanced(5, 3, 4), "Message is larger than the limit"),
            Self::HeaderBlock => Reply::new(552, Enhanced(5, 3, 4), "Header block is larger than the limit"),
            Self::RoutingLoop => Reply::new(554, Enhanced(5, 4, 6), "Too many Received fields: routing loop"),
            Self::NoHeader => Reply::new(554, Enhanced(5, 6, 0), "Message does not begin with a header field"),
        }
    }
}

/// Where in the stream of octets the reader is. `after_lf`: the line before ended in a bare LF.
#[derive(Clone, Copy, Debug)]
enum At {
    LineStart { after_lf: bool },
    Dot { after_lf: bool },
    DotCr { after_lf: bool },
    Text,
    Cr,
}

/// The rules of the listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Any bare LF is refused, and so is a message without a header (submission).
    pub(crate) strict: bool,
    /// Octets of the stored form.
    pub(crate) size_max: u64,
}

/// Reads one message.
#[derive(Debug)]
pub(crate) struct ContentReader {
    rules: Rules,
    at: At,
    header: HeaderScan,
    stored_bytes: u64,
    read_bytes: u64,
    refusal: Option<Refusal>,
}

impl ContentReader {
    pub(crate) const fn new(rules: Rules) -> Self {
        Self {
            rules,
            at: At::LineStart { after_lf: false },
            header: HeaderScan::new(),
            stored_bytes: 0,
            read_bytes: 0,
            refusal: None,
        }
    }

    /// Why the message will be refused, as far as it is known.
    pub(crate) const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether so much was read beyond the limit that the true end is not waited for.
    pub(crate) const fn is_past_drain(&self) -> bool {
        self.read_bytes > self.rules.size_max.saturating_mul(SMTP_DRAIN_FACTOR)
    }

    /// Whether so many octets more would pass the limit.
    pub(crate) const fn would_pass(&self, more: u64) -> bool {
        self.stored_bytes.saturating_add(more) > self.rules.size_max
    }

    /// Reads DATA: appends the stored form to `out`; says how many octets of `input` it used and whether the end of
    /// data was among them.
    pub(crate) fn read_data(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, bool) {
        let (rest, ended) = self.read(input, true, out);
        let used = input.len() - rest.len();
        self.read_bytes += used as u64;
        (used, ended)
    }

    /// Reads octets of a BDAT chunk, in which dots mean nothing.
    pub(crate) fn read_chunk(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.read(input, false, out);
        self.read_bytes += input.len() as u64;
    }

    /// The message is over.
    pub(crate) fn finish(&mut self) {
        // Only a chunk can end so: DATA ends behind a line end.
        if matches!(self.at, At::Cr) {
            self.refuse(Refusal::LineEnds);
        }
        self.header.finish();
        self.check_header();
    }

    fn read<'a>(&mut self, mut input: &'a [u8], dots: bool, out: &mut Vec<u8>) -> (&'a [u8], bool) {
        while let Some((&byte, rest)) = input.split_first() {
            match (self.at, byte) {
                (At::LineStart { after_lf }, b'.') if dots => self.at = At::Dot { after_lf },
                (At::LineStart { .. } | At::Text, b'\r') => self.at = At::Cr,
                (At::LineStart { .. } | At::Text, b'\n') => self.bare_lf(b"\r\n", out),
                (At::LineStart { .. } | At::Text, _) => {
                    let end = input
                        .iter()
                        .position(|byte| matches!(byte, b'\r' | b'\n'))
                        .unwrap_or(input.len());
                    let (text, rest) = input.split_at(end);
                    self.emit(text, out);
                    self.at = At::Text;
                    input = rest;
                    continue;
                }
                (At::Dot { after_lf }, b'\r') => self.at = At::DotCr { after_lf },
                (At::Dot { .. }, b'\n') => {
                    self.refuse(Refusal::LineEnds);
                    self.bare_lf(b".\r\n", out);
                }
                (At::Dot { after_lf }, _) => {
                    // RFC 5321 4.5.2: the first dot goes. Behind a bare LF this is no line start for the sender's
                    // stuffing, so nothing is taken away there.
                    if after_lf {
                        self.emit(b".", out);
                    }
                    self.at = At::Text;
                    continue;
                }
                (At::DotCr { after_lf: false }, b'\n') => return (rest, true),
                (At::DotCr { after_lf: true }, b'\n') => {
                    self.refuse(Refusal::LineEnds);
                    self.at = At::LineStart { after_lf: false };
                }
                (At::Cr, b'\n') => {
                    self.emit(b"\r\n", out);
                    self.at = At::LineStart { after_lf: false };
                }
                (At::DotCr { .. } | At::Cr, _) => {
                    self.refuse(Refusal::LineEnds);
                    self.at = At::Text;
                    continue;
                }
            }
            input = rest;
        }
        (input, false)
    }

    fn bare_lf(&mut self, stored: &[u8], out: &mut Vec<u8>) {
        if self.rules.strict {
            self.refuse(Refusal::LineEnds);
        }
        self.emit(stored, out);
        self.at = At::LineStart { after_lf: true };
    }

    fn emit(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.refusal.is_some() {
            return;
        }
        if self.would_pass(bytes.len() as u64) {
            return self.refuse(Refusal::Size);
        }
        self.stored_bytes += bytes.len() as u64;
        self.header.push(bytes);
        self.check_header();
        out.extend_from_slice(bytes);
    }

    fn check_header(&mut self) {
        if self.header.bytes > HEADER_BLOCK_BYTES_MAX {
            self.refuse(Refusal::HeaderBlock);
        } else if self.header.received_count > RECEIVED_COUNT_MAX {
            self.refuse(Refusal::RoutingLoop);
        } else if self.rules.strict && self.header.missing {
            self.refuse(Refusal::NoHeader);
        }
    }

    /// The first reason stands.
    const fn refuse(&mut self, refusal: Refusal) {
        if self.refusal.is_none() {
            self.refusal = Some(refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_block_may_have_its_limit_and_no_more() {
        for (bytes, refusal) in [(-1, None), (0, None), (1, Some(Refusal::HeaderBlock))] {
            let length = HEADER_BLOCK_BYTES_MAX.checked_add_signed(bytes - 6).unwrap();
            let message = [b"A: ".to_vec(), vec![b'x'; length], b"\r\n\r\nbody".to_vec()].concat();
            let mut reader = ContentReader::new(Rules {
                strict: true,
                size_max: u64::MAX,
            });
            reader.read_chunk(&message, &mut Vec::new());
            // The CR of the empty line is the last octet that counts.
            reader.finish();
            assert_eq!(reader.refusal(), refusal, "{bytes}");
        }
    }

    #[test]
    fn what_follows_the_end_of_data_is_left() {
        let mut reader = ContentReader::new(Rules {
            strict: false,
            size_max: 10,
        });
        let mut out = Vec::new();
        assert_eq!(reader.read_data(b"x\r\n.\r\nQUIT", &mut out), (6, true));
        assert_eq!(out, b"x\r\n");
    }
}
