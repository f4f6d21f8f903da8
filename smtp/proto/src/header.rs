//! Counts what must be known of a message's header block while it streams by: its octets, its Received fields (RFC 5321
//! 6.3), and whether it begins with a field at all (RFC 5322 2.2).
//!
//! Eats the stored form (CRLF only). Memory: a few counters. Not here: the meaning of any field.

/// Where the scan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    Name,
    /// White space between name and colon (RFC 5322 4.5.3, obsolete).
    NameSpace,
    Rest,
    /// Behind the header block.
    Body,
}

/// The counters.
#[derive(Debug)]
pub(crate) struct HeaderScan {
    at: At,
    first_line: bool,
    name_bytes: usize,
    name_is_received: bool,
    /// Octets of the header block so far.
    pub(crate) bytes: usize,
    /// Received fields so far.
    pub(crate) received_count: usize,
    /// The message does not begin with a header field.
    pub(crate) missing: bool,
}

const RECEIVED: &[u8] = b"received";

impl HeaderScan {
    pub(crate) const fn new() -> Self {
        Self {
            at: At::LineStart,
            first_line: true,
            name_bytes: 0,
            name_is_received: true,
            bytes: 0,
            received_count: 0,
            missing: false,
        }
    }

    /// Scans the next octets of the message.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.at == At::Body {
                return;
            }
            self.bytes += 1;
            self.push_byte(byte);
        }
    }

    /// The message is over.
    pub(crate) fn finish(&mut self) {
        if self.first_line && self.at != At::Rest && self.at != At::Body {
            self.no_field();
        }
    }

    fn push_byte(&mut self, byte: u8) {
        match (self.at, byte) {
            (At::LineStart, b'\r') => {
                self.missing |= self.first_line;
                self.at = At::Body;
            }
            (At::LineStart, b' ' | b'\t') => self.no_field(),
            (At::LineStart, _) => {
                self.at = At::Name;
                self.name_bytes = 0;
                self.name_is_received = true;
                self.push_name(byte);
            }
            (At::Name, _) => self.push_name(byte),
            (At::NameSpace, b' ' | b'\t') => {}
            (At::NameSpace, b':') => self.end_name(),
            (At::NameSpace, _) => self.no_field(),
            (At::Rest, b'\n') => {
                self.at = At::LineStart;
                self.first_line = false;
            }
            (At::Rest | At::Body, _) => {}
        }
    }

    fn push_name(&mut self, byte: u8) {
        match byte {
            b':' if self.name_bytes > 0 => self.end_name(),
            b' ' | b'\t' if self.name_bytes > 0 => self.at = At::NameSpace,
            b'!'..=b'9' | b';'..=b'~' => {
                self.name_is_received &= RECEIVED.get(self.name_bytes) == Some(&byte.to_ascii_lowercase());
                self.name_bytes += 1;
            }
            _ => self.no_field(),
        }
    }

    fn end_name(&mut self) {
        if self.name_is_received && self.name_bytes == RECEIVED.len() {
            self.received_count += 1;
        }
        self.at = At::Rest;
    }

    /// This line is no field: as the first line it means that there is no header block; later it is passed over.
    fn no_field(&mut self) {
        self.missing |= self.first_line;
        self.at = if self.first_line { At::Body } else { At::Rest };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> (usize, usize, bool) {
        let mut header = HeaderScan::new();
        for byte in text.bytes() {
            header.push(&[byte]);
        }
        header.finish();
        (header.bytes, header.received_count, header.missing)
    }

    #[test]
    fn received_fields_are_counted_in_the_header_only() {
        assert_eq!(
            scan("Received: a\r\n received: b\r\nRECEIVED : c\r\nReceived-X: d\r\n\r\nReceived: e\r\n").1,
            2
        );
        assert_eq!(scan("A: b\r\nnothing\r\nReceived:\r\n\r\n").1, 1);
    }

    #[test]
    fn the_block_ends_at_the_empty_line() {
        assert_eq!(scan("A: b\r\n\r\nbody").0, 7);
    }

    #[test]
    fn a_first_line_that_is_no_field_means_no_header() {
        for text in [
            "",
            "\r\n",
            "hello\r\n\r\n",
            " A: b\r\n",
            ": b\r\n",
            "A\0: b\r\n",
            "From x y: z",
            "hello",
            "ü: x\r\n",
        ] {
            assert!(scan(text).2, "{text:?}");
        }
        for text in ["A: b\r\n", "A:", "A :b", "X-Y:\r\nhello\r\n"] {
            assert!(!scan(text).2, "{text:?}");
        }
    }
}
