//! Dot-stuffing for the side that sends DATA (RFC 5321 4.5.2).
//!
//! The input is a message in stored form: CRLF line ends only. Not here: undoing it, which is part of reading DATA.

/// Puts one dot before each line that begins with one, over any number of pieces, and writes the end of data.
#[derive(Debug)]
pub struct Stuffer {
    last: [u8; 2],
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Stuffer {
    /// At the beginning of a message, which is the beginning of a line.
    #[must_use]
    pub const fn new() -> Self {
        Self { last: *b"\r\n" }
    }

    /// Appends the next piece of the message to `out`, stuffed.
    pub fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        out.reserve(piece.len());
        for &byte in piece {
            if byte == b'.' && self.last == *b"\r\n" {
                out.push(b'.');
            }
            out.push(byte);
            self.last = [self.last[1], byte];
        }
    }

    /// Appends the end of data: `.` on a line of its own, after a CRLF when the message did not end in one.
    pub fn finish(self, out: &mut Vec<u8>) {
        if self.last != *b"\r\n" {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }
}

/// A whole message as DATA carries it, with the end of data.
#[must_use]
pub fn stuff(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    let mut stuffer = Stuffer::new();
    stuffer.push(message, &mut out);
    stuffer.finish(&mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_is_added_at_line_starts_only() {
        assert_eq!(stuff(b".a\r\nb.\r\n..\r\n"), b"..a\r\nb.\r\n...\r\n.\r\n");
        assert_eq!(stuff(b""), b".\r\n");
        assert_eq!(stuff(b"a"), b"a\r\n.\r\n");
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let message = b".a\r\n.\r\n..b\r\n";
        for cut in 0..=message.len() {
            let (mut stuffer, mut out) = (Stuffer::new(), Vec::new());
            stuffer.push(&message[..cut], &mut out);
            stuffer.push(&message[cut..], &mut out);
            stuffer.finish(&mut out);
            assert_eq!(out, stuff(message));
        }
    }
}
