//! Repairs of submitted messages while their header block streams by (RFC 6409 8): a Message-ID and a Date where there is
//! none, and no Bcc, which is for the sender's program alone (RFC 5322 3.6.3).
//!
//! Memory: the name of one field, cut. Nothing else of the message is touched. Eats the stored form (CRLF only). Not here:
//! messages from other servers, which are never changed.

/// The values of fields that may have to be added.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    pub(crate) date: String,
    pub(crate) message_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the start of a line, and in a field's name: what there is of it is in `name`.
    Name,
    /// In a field that is passed on.
    Keep,
    /// In a field that is left out.
    Drop,
    /// At the start of a line; a space here goes on with the field before, which was passed on or not.
    After {
        kept: bool,
    },
    Body,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct HeaderRepair {
    at: At,
    name: Vec<u8>,
    missing: Missing,
    has_date: bool,
    has_message_id: bool,
}

/// No name that matters here is longer.
const NAME_BYTES_MAX: usize = 32;

impl HeaderRepair {
    pub(crate) fn new(missing: Missing) -> Self {
        Self {
            at: At::Name,
            name: Vec::new(),
            missing,
            has_date: false,
            has_message_id: false,
        }
    }

    /// Takes the next octets, and appends what the message shall have instead.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            match self.at {
                At::Body => {
                    out.extend_from_slice(rest);
                    return;
                }
                At::After { kept } if matches!(byte, b' ' | b'\t') => {
                    self.at = if kept { At::Keep } else { At::Drop };
                    continue;
                }
                At::After { .. } => {
                    self.at = At::Name;
                    continue;
                }
                At::Name => self.name_byte(byte, out),
                At::Keep => {
                    out.push(byte);
                    if byte == b'\n' {
                        self.at = At::After { kept: true };
                    }
                }
                At::Drop if byte == b'\n' => self.at = At::After { kept: false },
                At::Drop => {}
            }
            rest = after;
        }
    }

    /// The message is over.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.at == At::Body {
            return;
        }
        if !self.name.is_empty() {
            out.append(&mut self.name);
        }
        if self.at == At::Keep || self.at == At::Name && out.last().is_some_and(|byte| *byte != b'\n') {
            out.extend_from_slice(b"\r\n");
        }
        self.add_missing(out);
        self.at = At::Body;
    }

    fn name_byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if byte != b':' && byte != b'\n' && self.name.len() < NAME_BYTES_MAX {
            self.name.push(byte);
            return;
        }
        if byte == b'\n' && self.name == b"\r" {
            // The empty line: what is missing stands before it.
            self.name.clear();
            self.add_missing(out);
            out.extend_from_slice(b"\r\n");
            self.at = At::Body;
            return;
        }
        let name = std::mem::take(&mut self.name);
        let kept = byte != b':' || self.notice(&name);
        if kept {
            out.extend_from_slice(&name);
            out.push(byte);
        }
        self.at = match byte {
            b'\n' => At::After { kept },
            _ if kept => At::Keep,
            _ => At::Drop,
        };
    }

    /// Whether a field is passed on.
    fn notice(&mut self, name: &[u8]) -> bool {
        match name.trim_ascii_end().to_ascii_lowercase().as_slice() {
            b"date" => self.has_date = true,
            b"message-id" => self.has_message_id = true,
            b"bcc" | b"resent-bcc" => return false,
            _ => {}
        }
        true
    }

    fn add_missing(&self, out: &mut Vec<u8>) {
        if !self.has_date {
            out.extend_from_slice(format!("Date: {}\r\n", self.missing.date).as_bytes());
        }
        if !self.has_message_id {
            out.extend_from_slice(format!("Message-ID: {}\r\n", self.missing.message_id).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(text: &str, step: usize) -> String {
        let mut repair = HeaderRepair::new(Missing {
            date: "D".to_owned(),
            message_id: "<M>".to_owned(),
        });
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(step) {
            repair.push(piece, &mut out);
        }
        repair.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_missing_is_added_and_bcc_left_out() {
        let table = [
            (
                "From: a\r\n\r\nbody\r\n",
                "From: a\r\nDate: D\r\nMessage-ID: <M>\r\n\r\nbody\r\n",
            ),
            (
                "date: x\r\nMESSAGE-ID : y\r\n\r\nb",
                "date: x\r\nMESSAGE-ID : y\r\n\r\nb",
            ),
            (
                "Date: x\r\nBCC: one,\r\n two\r\n\tthree\r\nTo: a\r\n b\r\nMessage-ID: y\r\n\r\nBcc: stays\r\n",
                "Date: x\r\nTo: a\r\n b\r\nMessage-ID: y\r\n\r\nBcc: stays\r\n",
            ),
            ("Date: x\r\nBcc:\r\n\r\n", "Date: x\r\nMessage-ID: <M>\r\n\r\n"),
            ("From: a\r\n", "From: a\r\nDate: D\r\nMessage-ID: <M>\r\n"),
            ("From: a", "From: a\r\nDate: D\r\nMessage-ID: <M>\r\n"),
            (
                "A-very-long-field-name-that-is-longer-than-any-that-matters: x\r\nDate: a\r\nMessage-ID: b\r\n\r\n",
                "A-very-long-field-name-that-is-longer-than-any-that-matters: x\r\nDate: a\r\nMessage-ID: b\r\n\r\n",
            ),
            (
                "no colon\r\nDate: a\r\nMessage-ID: b\r\n\r\n",
                "no colon\r\nDate: a\r\nMessage-ID: b\r\n\r\n",
            ),
        ];
        for (text, expected) in table {
            for step in [1, 2, 7, 1000] {
                assert_eq!(repaired(text, step), expected, "{text:?} in steps of {step}");
            }
        }
    }
}
