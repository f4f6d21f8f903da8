//! Messages as RETR and TOP send them: dot-stuffed, ended by CRLF.CRLF (RFC 1939 3), in pieces of any size.
//!
//! A dot is doubled behind every LF, not only behind CRLF, because most clients read lines by LF and would take a lone dot
//! there for the end. For messages with CRLF lines, which is what delivery stores, both are the same.

/// Encodes one message. Memory: a few octets; the output is at most twice the input and five octets.
#[derive(Clone, Debug)]
pub struct MessageEncoder {
    /// Lines of the body still to send; `None` for all.
    lines: Option<u64>,
    in_header: bool,
    /// Whether the line that is read holds nothing but a CR so far.
    line_is_blank: bool,
    line_start: bool,
    /// The last two octets sent.
    last: [u8; 2],
}

impl MessageEncoder {
    /// For RETR: all of the message.
    #[must_use]
    pub fn whole() -> Self {
        Self {
            lines: None,
            in_header: true,
            line_is_blank: true,
            line_start: true,
            last: *b"\r\n",
        }
    }

    /// For TOP: the header, the blank line, and so many lines of the body (RFC 1939 7).
    #[must_use]
    pub fn top(lines: u64) -> Self {
        Self {
            lines: Some(lines),
            ..Self::whole()
        }
    }

    /// Whether no more of the message is wanted; it is time to [`MessageEncoder::finish`].
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.in_header && self.lines == Some(0)
    }

    /// Encodes the next octets of the stored message. Those behind the last wanted line are dropped.
    pub fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_done() {
                return;
            }
            if self.line_start && line.starts_with(b".") {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            self.last = match *line {
                [.., before, last] => [before, last],
                [last] => [self.last[1], last],
                [] => self.last,
            };
            let ended = line.ends_with(b"\n");
            let content = line.strip_suffix(b"\n").unwrap_or(line);
            self.line_is_blank = self.line_is_blank && (content.is_empty() || (content == b"\r" && self.line_start));
            self.line_start = ended;
            if ended {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if !self.in_header {
            self.lines = self.lines.map(|lines| lines.saturating_sub(1));
        } else if self.line_is_blank {
            self.in_header = false;
        }
        self.line_is_blank = true;
    }

    /// Ends the message: a line end if there is none, and the line with the dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.last != *b"\r\n" {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(mut encoder: MessageEncoder, message: &[u8], step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        message.chunks(step).for_each(|chunk| encoder.encode(chunk, &mut out));
        encoder.finish(&mut out);
        out
    }

    /// What a client makes of it.
    fn unstuff(sent: &[u8]) -> Vec<u8> {
        let body = sent.strip_suffix(b".\r\n").unwrap();
        let lines = body.split_inclusive(|byte| *byte == b'\n');
        lines
            .flat_map(|line| line.strip_prefix(b".").unwrap_or(line))
            .copied()
            .collect()
    }

    #[test]
    fn pop3_dot_lines() {
        for message in [
            "A: b\r\n\r\n.\r\n..\r\n.x\r\nend",
            ".\r\n",
            "",
            ".",
            "a\r",
            "a\n.\nb\n",
            "a\r\n",
            "\r\n.\r\n\r\n.",
        ] {
            for step in 1..5 {
                let sent = encode(MessageEncoder::whole(), message.as_bytes(), step);
                let mut expected = message.as_bytes().to_vec();
                if !message.is_empty() && !message.ends_with("\r\n") {
                    expected.extend_from_slice(b"\r\n");
                }
                assert_eq!(unstuff(&sent), expected, "{message:?}");
                assert!(sent == b".\r\n" || sent.ends_with(b"\r\n.\r\n"), "{message:?}");
                let inner = sent.strip_suffix(b".\r\n").unwrap();
                assert!(
                    !inner
                        .split_inclusive(|byte| *byte == b'\n')
                        .any(|line| line == b".\r\n"),
                    "{message:?}"
                );
            }
        }
    }

    #[test]
    fn top_sends_the_header_and_so_many_lines() {
        let message = b"A: b\r\nC: d\r\n\r\n.one\r\n\r\nthree\r\nfour";
        for step in 1..9 {
            let top = |lines| encode(MessageEncoder::top(lines), message, step);
            assert_eq!(top(0), b"A: b\r\nC: d\r\n\r\n.\r\n");
            assert_eq!(top(1), b"A: b\r\nC: d\r\n\r\n..one\r\n.\r\n");
            assert_eq!(top(2), b"A: b\r\nC: d\r\n\r\n..one\r\n\r\n.\r\n");
            assert_eq!(top(9), encode(MessageEncoder::whole(), message, step));
        }
        assert_eq!(encode(MessageEncoder::top(0), b"A: b", 1), b"A: b\r\n.\r\n");
        assert_eq!(
            encode(MessageEncoder::top(1), b"A: b\n\nx\ny\n", 2),
            b"A: b\n\nx\n\r\n.\r\n"
        );
        assert_eq!(
            encode(MessageEncoder::top(0), b"A: b\r\n\r\r\nx", 1),
            b"A: b\r\n\r\r\nx\r\n.\r\n"
        );
    }
}
