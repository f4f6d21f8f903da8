//! The line that is being read: where it lies, and as much of its beginning as a delimiter can have.

use core_types::limits::MIME_BOUNDARY_BYTES_MAX;

/// `--`, the longest boundary, `--`.
const PREFIX_BYTES: usize = MIME_BOUNDARY_BYTES_MAX + 4;

/// See the module. Memory: `PREFIX_BYTES`.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Octets of the message before the line.
    pub(crate) start: u64,
    /// Whether a colon stands in it.
    pub(crate) has_colon: bool,
    length: u64,
    prefix: Vec<u8>,
    /// Something other than blanks stands behind the prefix.
    goes_on: bool,
    last: Option<u8>,
}

impl Line {
    /// More octets of the line; none of them a LF.
    pub(crate) fn extend(&mut self, content: &[u8]) {
        let Some(last) = content.last() else { return };
        self.last = Some(*last);
        self.length = self.length.saturating_add(content.len() as u64);
        self.has_colon = self.has_colon || content.contains(&b':');
        // Only lines that begin with two dashes can be delimiters; of the others two octets are enough.
        let wanted = if self.prefix.is_empty() || self.prefix.starts_with(b"-") {
            PREFIX_BYTES
        } else {
            2
        };
        let room = wanted.saturating_sub(self.prefix.len());
        let (head, tail) = content.split_at_checked(room).unwrap_or((content, &[]));
        self.prefix.extend_from_slice(head);
        self.goes_on = self.goes_on || !tail.iter().all(|byte| crate::lexer::is_blank(*byte));
    }

    /// The line ends with a LF: octets of its line end.
    pub(crate) fn end_with_lf(&mut self) -> u64 {
        self.length = self.length.saturating_add(1);
        if self.last == Some(b'\r') { 2 } else { 1 }
    }

    /// Where the next line begins.
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }

    /// Whether nothing of it was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether the complete line is CRLF or LF.
    pub(crate) fn is_blank(&self) -> bool {
        matches!((self.length, self.prefix.as_slice()), (1, b"") | (2, b"\r"))
    }

    /// What stands behind the two dashes, without blanks at the end, if the line can be a delimiter.
    pub(crate) fn delimiter_text(&self) -> Option<&[u8]> {
        let text = self.prefix.strip_prefix(b"--").filter(|_| !self.goes_on)?;
        Some(crate::lexer::trim_end(text))
    }

    /// Goes on to the next line.
    pub(crate) fn next(&mut self) {
        let start = self.end();
        self.prefix.clear();
        *self = Self {
            start,
            prefix: std::mem::take(&mut self.prefix),
            ..Self::default()
        };
    }
}
