//! Command lines out of what was read.
//!
//! A line ends with LF; a CR before it belongs to the line end. A line that is too long is read to its end and refused
//! as one; one that does not end is given up. Memory: what was read and not used yet.

/// The lines of what a client sends.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: Vec<u8>,
    /// Octets of `pending` that are used up.
    used: usize,
    /// Octets of a line that is too long and is being skipped.
    skipped: usize,
}

/// What there is next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A line without its line end.
    Line(Vec<u8>),
    /// A line longer than the limit.
    TooLong,
    /// So many octets without a line end that the session is over.
    Endless,
    /// Nothing yet.
    Nothing,
}

impl Lines {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.drain(..self.used.min(self.pending.len()));
        self.used = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// Whether something was read that is not used yet.
    pub(crate) fn has_pending(&self) -> bool {
        self.used < self.pending.len()
    }

    /// Forgets everything that was read.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The next line of at most `limit` octets with its line end; `close` octets without one are the end.
    pub(crate) fn next(&mut self, limit: usize, close: usize) -> Next {
        let rest = self.pending.get(self.used..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            if self.skipped.saturating_add(rest.len()) >= close {
                return Next::Endless;
            }
            // Beyond the limit the line is only counted, so that it is not searched again with each read.
            if rest.len() > limit {
                self.skipped = self.skipped.saturating_add(rest.len());
                self.pending.clear();
                self.used = 0;
            }
            return Next::Nothing;
        };
        let length = end.saturating_add(1);
        let whole = self.skipped.saturating_add(length);
        let line = rest.get(..end).unwrap_or_default();
        let next = match whole {
            _ if whole > close => Next::Endless,
            _ if whole > limit => Next::TooLong,
            _ => Next::Line(line.strip_suffix(b"\r").unwrap_or(line).to_vec()),
        };
        self.used = self.used.saturating_add(length);
        self.skipped = 0;
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_exact() {
        for (length, expected) in [(8, true), (9, true), (10, true), (11, false)] {
            let mut lines = Lines::default();
            lines.push(&vec![b'x'; length - 2]);
            lines.push(b"\r\nnext\n");
            let next = lines.next(10, 100);
            assert_eq!(next == Next::Line(vec![b'x'; length - 2]), expected, "{length}");
            assert_eq!(next == Next::TooLong, !expected, "{length}");
            assert_eq!(lines.next(10, 100), Next::Line(b"next".to_vec()));
            assert_eq!(lines.next(10, 100), Next::Nothing);
        }
        for (length, expected) in [
            (98, Next::Nothing),
            (99, Next::Nothing),
            (100, Next::Endless),
            (101, Next::Endless),
        ] {
            let mut lines = Lines::default();
            let mut found = Next::Nothing;
            for _ in 0..length {
                lines.push(b"x");
                found = lines.next(10, 100);
            }
            assert_eq!(found, expected, "{length}");
        }
    }
}
