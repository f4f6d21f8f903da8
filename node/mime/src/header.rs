//! Header blocks as they are stored: their fields, and the choice of fields that IMAP's HEADER.FIELDS makes.
//!
//! A name is known only if it is exactly a field name of RFC 5322 2.2 directly before the colon; other lines are kept in
//! the octets and match nothing.

use std::collections::BTreeSet;

/// One field of a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The whole field with its line ends.
    pub raw: &'a [u8],
    /// The name as it stands; empty for a line that is no field.
    pub name: &'a [u8],
    /// What stands behind the colon, folded as it is.
    pub value: &'a [u8],
}

/// The fields of a header block, in order; ends at the blank line or the end of the bytes.
#[must_use]
pub fn fields(header: &[u8]) -> Fields<'_> {
    Fields { rest: header }
}

/// See [`fields`].
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let mut length = 0_usize;
        for line in self.rest.split_inclusive(|byte| *byte == b'\n') {
            if is_blank_line(line) || (length > 0 && !matches!(line.first(), Some(b' ' | b'\t'))) {
                break;
            }
            length = length.saturating_add(line.len());
        }
        let (raw, rest) = self.rest.split_at_checked(length).filter(|(raw, _)| !raw.is_empty())?;
        self.rest = rest;
        let (name, value) = split_field(raw);
        Some(Field { raw, name, value })
    }
}

/// The fields of a header block that `names` holds, or with `not` those that it does not hold, each with its line ends,
/// and the blank line if the block has one (RFC 3501 6.4.5, HEADER.FIELDS). Linear in the header and the names.
#[must_use]
pub fn header_fields(header: &[u8], names: &[impl AsRef<[u8]>], not: bool) -> Vec<u8> {
    let names: BTreeSet<Vec<u8>> = names.iter().map(|name| name.as_ref().to_ascii_lowercase()).collect();
    let mut out = Vec::new();
    let mut iterator = fields(header);
    for field in iterator.by_ref() {
        if names.contains(&field.name.to_ascii_lowercase()) != not {
            out.extend_from_slice(field.raw);
            if !field.raw.ends_with(b"\n") {
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    if !iterator.rest.is_empty() {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// The value without line ends and outer white space. NUL becomes `?`: no IMAP string can hold it.
#[must_use]
pub fn unfold(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for line in value.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        out.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
    }
    let mut out = crate::lexer::trim(&out).to_vec();
    out.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'?');
    out
}

/// The name and the value of a field; an empty name if it is none.
pub(crate) fn split_field(raw: &[u8]) -> (&[u8], &[u8]) {
    let colon = raw.iter().position(|byte| *byte == b':' || *byte == b'\n');
    match colon.and_then(|colon| raw.split_at_checked(colon)) {
        // RFC 5322 2.2: printable US-ASCII without colon and space.
        Some((name, value)) if !name.is_empty() && name.iter().all(u8::is_ascii_graphic) && value.starts_with(b":") => {
            (name, value.get(1..).unwrap_or_default())
        }
        _ => (&[], raw),
    }
}

pub(crate) fn is_blank_line(line: &[u8]) -> bool {
    matches!(line, b"\n" | b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"Subject: a\r\n b\r\nFrom : x\r\nTO: y\r\njunk\r\nT\xc3: z\r\n\r\nbody: no\r\n";

    #[test]
    fn fields_are_chosen_by_name() {
        assert_eq!(
            header_fields(HEADER, &["to", "SUBJECT"], false),
            b"Subject: a\r\n b\r\nTO: y\r\n\r\n"
        );
        assert_eq!(
            header_fields(HEADER, &["subject"], true),
            b"From : x\r\nTO: y\r\njunk\r\nT\xc3: z\r\n\r\n"
        );
        assert_eq!(header_fields(HEADER, &["body"], false), b"\r\n");
        assert_eq!(header_fields(b"A: b", &["a"], false), b"A: b\r\n");
        assert_eq!(header_fields(b"", &["a"], true), b"");
    }

    #[test]
    fn mime_header_8bit_names() {
        let names: Vec<&[u8]> = fields(HEADER).map(|field| field.name).collect();
        assert_eq!(names, [&b"Subject"[..], b"", b"TO", b"", b""]);
        assert_eq!(header_fields(HEADER, &["from"], false), b"\r\n");
        let raw: Vec<u8> = fields(HEADER).flat_map(|field| field.raw.to_vec()).collect();
        assert!(HEADER.starts_with(&raw));
    }

    #[test]
    fn unfolding_keeps_the_white_space_of_the_fold() {
        assert_eq!(unfold(b" a\r\n b\n\tc\r\n"), b"a b\tc");
        assert_eq!(unfold(b"\0\xff\r\n"), b"?\xff");
    }
}
