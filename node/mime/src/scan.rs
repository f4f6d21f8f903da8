//! The scanner: lines in, parts out.
//!
//! It holds one line's beginning, one header field, the boundaries of the open multiparts, and what it has found; never a
//! body. Each octet is looked at a constant number of times, and a line is compared with all open boundaries at once.
//! How the message is cut into pieces changes nothing.
//!
//! Rules that every reader of mail here shares, because they all ask this scanner: a delimiter is a whole line (RFC 2046
//! 5.1.1), the longest boundary wins, then the innermost; of repeated fields the first counts, but To, Cc, Bcc and
//! References add up; a header that does not begin with a field is no header. Whatever passes a limit is one
//! application/octet-stream leaf.

use std::collections::BTreeMap;

use core_types::limits::{
    HEADER_FIELD_INDEXED_BYTES_MAX, MIME_ADDRESSES_MAX, MIME_BOUNDARY_BYTES_MAX, MIME_DEPTH_MAX,
    MIME_DERIVED_BYTES_MAX, MIME_PARTS_MAX, MIME_PREVIEW_SOURCE_BYTES_MAX, MIME_REFERENCES_MAX,
};

use self::fields::PartHeader;
use self::line::Line;
use crate::preview::preview;
use crate::structure::{ContentType, Encoding, Kind, Part, Structure};

mod fields;
mod line;

/// Scans one message. See the module.
#[derive(Debug)]
pub struct Scanner {
    line: Line,
    /// Line ends before the line that is read now.
    line_ends: u64,
    /// The line before: octets of its line end (0 before the first line), and whether it was otherwise empty.
    previous: (u64, bool),
    parts: Vec<Part>,
    /// The parts that are not closed, outermost first. Each lies in the one before.
    open: Vec<Open>,
    /// Boundaries that are looked for, with the places in `open` that they belong to.
    boundaries: BTreeMap<Vec<u8>, Vec<usize>>,
    state: State,
    /// The header field that is being read, unfolded.
    field: Vec<u8>,
    header: PartHeader,
    budget: Budget,
    references: Vec<Vec<u8>>,
    preview: Preview,
}

/// What derived data may still take.
#[derive(Debug)]
struct Budget {
    bytes: usize,
    addresses: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the header of the innermost open part.
    Header {
        /// No line of it was read yet.
        first: bool,
    },
    /// In its body: content, or the preamble or epilogue of a multipart.
    Body,
}

#[derive(Debug)]
struct Open {
    part: usize,
    boundary: Option<Vec<u8>>,
    /// Containers around this part.
    depth: usize,
    /// Line ends before its body.
    lines_before: u64,
    /// Whether it is a message: the whole one, or the one in a message/rfc822 part.
    is_message: bool,
}

#[derive(Debug, Default)]
struct Preview {
    part: Option<usize>,
    collecting: bool,
    source: Vec<u8>,
    /// Length of `source` before the line that is read now, in case it is a delimiter.
    line_start: usize,
}

impl Preview {
    fn extend(&mut self, bytes: &[u8]) {
        if self.collecting {
            let room = MIME_PREVIEW_SOURCE_BYTES_MAX.saturating_sub(self.source.len());
            self.source.extend(bytes.iter().take(room));
        }
    }
}

impl Default for Scanner {
    fn default() -> Self {
        Self::new()
    }
}

impl Scanner {
    /// A scanner at the start of a message.
    #[must_use]
    pub fn new() -> Self {
        let mut scanner = Self {
            line: Line::default(),
            line_ends: 0,
            previous: (0, false),
            parts: Vec::new(),
            open: Vec::new(),
            boundaries: BTreeMap::new(),
            state: State::Body,
            field: Vec::new(),
            header: PartHeader::default(),
            budget: Budget {
                bytes: MIME_DERIVED_BYTES_MAX,
                addresses: MIME_ADDRESSES_MAX,
            },
            references: Vec::new(),
            preview: Preview::default(),
        };
        scanner.open_part(0, 0, true);
        scanner
    }

    /// Reads the next octets of the message.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(content) => {
                    self.extend_line(content);
                    let line_end = self.line.end_with_lf();
                    self.end_line(line_end);
                }
                None => self.extend_line(piece),
            }
        }
    }

    /// The message is over: what was found.
    #[must_use]
    pub fn finish(mut self) -> Structure {
        let mut ends_with_line_end = true;
        if !self.line.is_empty() {
            ends_with_line_end = false;
            self.end_line(0);
        }
        self.end_field();
        let end = self.line.start;
        let line_ends = self.line_ends;
        self.close(0, end, line_ends, ends_with_line_end);
        let text = self.preview.part.and_then(|part| self.parts.get(part));
        let preview = text.map(|part| preview(part, &self.preview.source)).unwrap_or_default();
        let surplus = self.references.len().saturating_sub(MIME_REFERENCES_MAX);
        self.references.drain(..surplus);
        Structure {
            parts: self.parts,
            preview,
            references: self.references,
        }
    }

    fn extend_line(&mut self, content: &[u8]) {
        if self.line.is_empty()
            && let State::Header { .. } = self.state
            && !matches!(content.first(), None | Some(b' ' | b'\t'))
        {
            self.end_field();
        }
        self.line.extend(content);
        match self.state {
            State::Header { .. } => self.extend_field(content),
            State::Body => self.preview.extend(content),
        }
    }

    /// The line is complete; its line end has `line_end` octets.
    fn end_line(&mut self, line_end: u64) {
        if let Some((level, closing)) = self.delimiter() {
            self.field.clear();
            let kept = self.preview.line_start;
            self.preview.source.truncate(kept);
            self.handle_delimiter(level, closing);
        } else {
            match self.state {
                State::Header { first } => self.end_header_line(first),
                State::Body => self.preview.extend(b"\n"),
            }
        }
        self.line_ends = self.line_ends.saturating_add(u64::from(line_end > 0));
        self.previous = (line_end, self.line.end() == self.line.start.saturating_add(line_end));
        self.preview.line_start = self.preview.source.len();
        self.line.next();
    }

    /// If the line is a delimiter: the place in `open` of its multipart, and whether it closes it.
    fn delimiter(&self) -> Option<(usize, bool)> {
        let text = self.line.delimiter_text()?;
        let find = |text: &[u8]| self.boundaries.get(text).and_then(|levels| levels.last().copied());
        // The longest boundary first: `a--` opens a part of `a--` before it closes `a`.
        find(text)
            .map(|level| (level, false))
            .or_else(|| find(text.strip_suffix(b"--")?).map(|level| (level, true)))
    }

    fn handle_delimiter(&mut self, level: usize, closing: bool) {
        let (line_end, was_empty) = self.previous;
        let end = self.line.start.saturating_sub(line_end);
        // The line end before the delimiter is not part of the body, so neither is it counted.
        let line_ends = self.line_ends.saturating_sub(u64::from(line_end > 0));
        self.close(level.saturating_add(1), end, line_ends, was_empty);
        if closing {
            self.forget_boundary(level);
            self.state = State::Body;
        } else {
            let parent = self.open.get(level).map_or(0, |open| open.part);
            let start = self.line.end();
            self.open_part(parent, start, false);
        }
    }

    fn end_header_line(&mut self, first: bool) {
        let after = self.line.end();
        if self.line.is_blank() {
            // A lone CR is the line itself; anything else is the field before, which ends here.
            if self.field != b"\r" {
                self.end_field();
            }
            self.field.clear();
            let line_ends = self.line_ends.saturating_add(1);
            self.end_header(after, line_ends);
        } else if first && !self.line.has_colon {
            // A header that begins with no field is none: the line is the first one of the body already. A message in a
            // message/rfc822 part begins with the same line, so this may be true once more.
            let line = std::mem::take(&mut self.field);
            while let State::Header { .. } = self.state {
                let (start, line_ends) = (self.line.start, self.line_ends);
                self.end_header(start, line_ends);
            }
            self.preview.extend(&line);
            self.preview.extend(b"\n");
        } else {
            if self.field.last() == Some(&b'\r') {
                self.field.pop();
            }
            self.state = State::Header { first: false };
        }
    }

    /// The header of the innermost part ends, its body begins: decides what the part is.
    fn end_header(&mut self, body_start: u64, line_ends: u64) {
        self.state = State::Body;
        let header = std::mem::take(&mut self.header);
        let Some(open) = self.open.last_mut() else { return };
        let Some(part) = self.parts.get_mut(open.part) else {
            return;
        };
        open.lines_before = line_ends;
        part.body_start = body_start;
        header.move_to(part, open.is_message);
        let index = open.part;
        let depth = open.depth;
        if part.content_type.main == "multipart" {
            // RFC 2045 6.4: a multipart is never encoded, whatever it says.
            if !part.encoding.is_identity() {
                part.encoding = Encoding::SevenBit;
            }
            let boundary = part.content_type.parameter("boundary").and_then(honoured_boundary);
            if let Some(boundary) = boundary.filter(|_| depth < MIME_DEPTH_MAX) {
                part.kind = Kind::Multipart;
                open.boundary = Some(boundary.clone());
                let level = self.open.len().saturating_sub(1);
                self.boundaries.entry(boundary).or_default().push(level);
            } else {
                part.content_type = ContentType::octet_stream();
            }
        } else if part.content_type.is("message", "rfc822") {
            // The child must not be the last part there may be, which is opaque and so no message.
            let room = self.parts.len().saturating_add(1) < MIME_PARTS_MAX;
            let Some(part) = self.parts.get_mut(index) else { return };
            if room && depth < MIME_DEPTH_MAX && part.encoding.is_identity() {
                part.kind = Kind::Message;
                self.open_part(index, body_start, true);
            } else {
                part.content_type = ContentType::octet_stream();
            }
        } else {
            let attached = part
                .disposition
                .as_ref()
                .is_some_and(|disposition| disposition.kind != "inline");
            let readable = part.is_text() && !attached && !matches!(part.encoding, Encoding::Other(_));
            if readable && self.preview.part.is_none() && !self.open.iter().skip(1).any(|open| open.is_message) {
                self.preview.part = Some(index);
                self.preview.collecting = true;
            }
        }
    }

    /// Opens a part whose header begins at `start`. The last part there may be takes the rest of the message as it is.
    fn open_part(&mut self, parent: usize, start: u64, is_message: bool) {
        let index = self.parts.len();
        let last = index.saturating_add(1) >= MIME_PARTS_MAX;
        let around = self.open.last();
        let depth = around.map_or(0, |around| around.depth.saturating_add(1));
        let digest = self
            .parts
            .get(parent)
            .is_some_and(|parent| parent.content_type.is("multipart", "digest"));
        let content_type = match (last, is_message, digest) {
            (true, ..) => ContentType::octet_stream(),
            // RFC 2046 5.1.5: what a digest holds is a message unless it says otherwise.
            (_, false, true) => ContentType::bare("message", "rfc822"),
            _ => ContentType::text_plain(),
        };
        self.parts.push(Part {
            parent: around.and_then(|_| u32::try_from(parent).ok()),
            kind: Kind::Leaf,
            header_start: start,
            body_start: start,
            end: start,
            lines: 0,
            content_type,
            encoding: Encoding::default(),
            content_id: None,
            description: None,
            disposition: None,
            language: Vec::new(),
            location: None,
            md5: None,
            envelope: None,
        });
        // For the last part: the line ends up to `start`, whose line is complete but not counted yet.
        let lines_before = self.line_ends.saturating_add(1);
        self.open.push(Open {
            part: index,
            boundary: None,
            depth,
            lines_before,
            is_message,
        });
        self.field.clear();
        self.header = PartHeader::default();
        if last {
            self.boundaries.clear();
            self.state = State::Body;
        } else {
            self.state = State::Header { first: true };
        }
    }

    /// Closes the parts from `level` on: they end at `end`, before which `line_ends` lines end.
    fn close(&mut self, level: usize, end: u64, line_ends: u64, ends_with_line_end: bool) {
        if level < self.open.len() {
            self.preview.collecting = false;
        }
        let mut floor = end;
        while self.open.len() > level {
            let in_header = matches!(self.state, State::Header { .. });
            if in_header {
                let header = std::mem::take(&mut self.header);
                if let Some(open) = self.open.last()
                    && let Some(part) = self.parts.get_mut(open.part)
                {
                    header.move_to(part, open.is_message);
                    part.body_start = end.max(part.header_start);
                    if matches!(part.content_type.main.as_str(), "multipart")
                        || part.content_type.is("message", "rfc822")
                    {
                        part.content_type = ContentType::octet_stream();
                    }
                }
                self.state = State::Body;
            }
            self.forget_boundary(self.open.len().saturating_sub(1));
            let Some(open) = self.open.pop() else { return };
            let childless = open.part.saturating_add(1) == self.parts.len();
            let Some(part) = self.parts.get_mut(open.part) else {
                return;
            };
            part.end = floor.max(part.body_start);
            floor = part.end;
            if part.kind == Kind::Multipart && childless {
                // No delimiter was found: IMAP has no multipart without parts.
                part.kind = Kind::Leaf;
                part.content_type = ContentType::octet_stream();
            }
            if part.end > part.body_start && !in_header {
                let whole = line_ends.saturating_sub(open.lines_before);
                part.lines = whole.saturating_add(u64::from(!ends_with_line_end));
            }
        }
    }

    fn forget_boundary(&mut self, level: usize) {
        let Some(boundary) = self.open.get_mut(level).and_then(|open| open.boundary.take()) else {
            return;
        };
        if let Some(levels) = self.boundaries.get_mut(&boundary) {
            levels.retain(|other| *other != level);
            if levels.is_empty() {
                self.boundaries.remove(&boundary);
            }
        }
    }

    fn extend_field(&mut self, content: &[u8]) {
        let mut rest = content;
        while !rest.is_empty() {
            let room = HEADER_FIELD_INDEXED_BYTES_MAX.saturating_sub(self.field.len());
            if room == 0 {
                // Threads use the last ids, so of this one field the end is kept instead of the beginning.
                const NAME: &[u8] = b"references:";
                if !self
                    .field
                    .get(..NAME.len())
                    .is_some_and(|name| name.eq_ignore_ascii_case(NAME))
                {
                    return;
                }
                self.field.drain(NAME.len()..HEADER_FIELD_INDEXED_BYTES_MAX / 2);
                continue;
            }
            let (now, later) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.field.extend_from_slice(now);
            rest = later;
        }
    }

    /// A field is complete: takes what is wanted of it.
    fn end_field(&mut self) {
        if self.field.is_empty() {
            return;
        }
        let is_message = self.open.last().is_some_and(|open| open.is_message);
        self.header.take_field(&self.field, is_message, &mut self.budget);
        if self.open.len() == 1 {
            fields::take_references(&self.field, &mut self.references);
        }
        self.field.clear();
    }
}

/// The boundary that is looked for, if it can be: RFC 2046 5.1.1 forbids blanks at the end; NUL and more than
/// `MIME_BOUNDARY_BYTES_MAX` octets are not honoured.
fn honoured_boundary(boundary: &[u8]) -> Option<Vec<u8>> {
    let boundary = crate::lexer::trim_end(boundary);
    let fits = !boundary.is_empty() && boundary.len() <= MIME_BOUNDARY_BYTES_MAX;
    (fits && !boundary.contains(&0)).then(|| boundary.to_vec())
}

#[cfg(test)]
mod tests;
