//! Command lines out of a stream of octets.
//!
//! Only CRLF ends a line (RFC 5321 2.3.8); a bare CR or LF stays in it, and the parser refuses such a line. Memory: one
//! line up to the limit; the rest of a longer one is discarded octet by octet.

use core_types::limits::SMTP_LINE_CLOSE_BYTES;

/// The line that is being received.
#[derive(Debug, Default)]
pub(crate) struct LineReader {
    line: Vec<u8>,
    /// Octets since the last line end.
    total: usize,
    after_cr: bool,
    discarding: bool,
}

/// What reading came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LineEvent {
    /// The input is used up.
    Partial,
    /// A line, without its CRLF.
    Line(Vec<u8>),
    /// The line passed its limit: what there was of it. Said once; the rest of the line is discarded.
    TooLong(Vec<u8>),
    /// So much without a line end that the connection is to be closed.
    Flood,
}

impl LineReader {
    /// Whether nothing of a line has arrived yet.
    pub(crate) const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Octets held.
    pub(crate) const fn len(&self) -> usize {
        self.line.len()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Reads up to the next event; says how many octets of `input` it used. `limit` gives the limit for a line that
    /// begins as it does.
    pub(crate) fn read(&mut self, input: &[u8], limit: impl Fn(&[u8]) -> usize) -> (usize, LineEvent) {
        for (index, &byte) in input.iter().enumerate() {
            let used = index + 1;
            self.total += 1;
            if byte == b'\n' && self.after_cr {
                let discarded = self.discarding;
                let mut line = std::mem::take(&mut self.line);
                self.clear();
                if discarded {
                    continue;
                }
                line.pop();
                return (used, LineEvent::Line(line));
            }
            if self.total > SMTP_LINE_CLOSE_BYTES {
                return (used, LineEvent::Flood);
            }
            self.after_cr = byte == b'\r';
            if !self.discarding {
                self.line.push(byte);
                if self.line.len() > limit(&self.line) + usize::from(self.after_cr) {
                    self.discarding = true;
                    return (used, LineEvent::TooLong(std::mem::take(&mut self.line)));
                }
            }
        }
        (input.len(), LineEvent::Partial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crlf_ends_a_line() {
        let mut reader = LineReader::default();
        assert_eq!(reader.read(b"a\nb\rc\r", |_| 100), (6, LineEvent::Partial));
        assert_eq!(
            reader.read(b"\nrest", |_| 100),
            (1, LineEvent::Line(b"a\nb\rc".to_vec()))
        );
    }

    #[test]
    fn the_limit_counts_octets_without_crlf() {
        for (length, fits) in [(9, true), (10, true), (11, false)] {
            let mut line = vec![b'x'; length];
            line.extend_from_slice(b"\r\n");
            let (_, event) = LineReader::default().read(&line, |_| 10);
            assert_eq!(matches!(event, LineEvent::Line(_)), fits, "{length}");
        }
    }

    #[test]
    fn the_rest_of_a_long_line_is_discarded_in_constant_memory() {
        let mut reader = LineReader::default();
        assert_eq!(
            reader.read(b"0123456789", |_| 4),
            (5, LineEvent::TooLong(b"01234".to_vec()))
        );
        assert_eq!(
            reader.read(b"56789\n\r\nNOOP\r\n", |_| 4),
            (14, LineEvent::Line(b"NOOP".to_vec()))
        );
        assert!(matches!(reader.read(b"012345", |_| 4).1, LineEvent::TooLong(_)));
        assert_eq!(reader.read(&[b'x'; SMTP_LINE_CLOSE_BYTES], |_| 4).1, LineEvent::Flood);
        assert_eq!(reader.len(), 0);
    }
}
