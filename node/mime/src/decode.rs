//! From stored octets to text that can be searched and shown: transfer encodings, charsets, encoded words (RFC 2045 6,
//! RFC 2047). All of it is derived data; what cannot be decoded becomes U+FFFD or is left out, and nothing fails.
//!
//! Work and memory are linear in the input; callers hand in as much as they want to hold.

use core_types::limits::MIME_ENCODED_WORD_BYTES_MAX;
use encoding_rs::Encoding as Charset;

use crate::structure::Encoding;

/// What [`decode_transfer`] made of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// The decoded octets.
    pub bytes: Vec<u8>,
    /// True if something was no valid encoding and was skipped.
    pub damaged: bool,
}

/// Undoes a transfer encoding. A body in an unknown encoding is opaque (RFC 2045 6.4): no octets, damaged.
#[must_use]
pub fn decode_transfer(bytes: &[u8], encoding: &Encoding) -> Transfer {
    match encoding {
        Encoding::SevenBit | Encoding::EightBit | Encoding::Binary => Transfer {
            bytes: bytes.to_vec(),
            damaged: false,
        },
        Encoding::Base64 => decode_base64(bytes),
        Encoding::QuotedPrintable => decode_quoted_printable(bytes),
        Encoding::Other(_) => Transfer {
            bytes: Vec::new(),
            damaged: !bytes.is_empty(),
        },
    }
}

/// The text of a body, for SEARCH and previews: at most four octets for each octet given.
#[must_use]
pub fn decode_body(bytes: &[u8], encoding: &Encoding, charset: Option<&[u8]>) -> String {
    decode_charset(&decode_transfer(bytes, encoding).bytes, charset)
}

/// Octets of a charset as text. Unknown charsets, and UTF-7 which can hide markup from filters, are read as UTF-8 with
/// U+FFFD for what is not.
#[must_use]
pub fn decode_charset(bytes: &[u8], charset: Option<&[u8]>) -> String {
    let known = charset.and_then(|label| Charset::for_label(crate::lexer::trim(label)));
    match known {
        // Mail marks a great deal of UTF-8 as US-ASCII, which the table of labels takes for windows-1252.
        Some(known) if known != encoding_rs::UTF_8 && !(is_ascii_label(charset) && is_utf8(bytes)) => {
            known.decode_without_bom_handling(bytes).0.into_owned()
        }
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn is_ascii_label(charset: Option<&[u8]>) -> bool {
    charset.is_some_and(|label| {
        let label = crate::lexer::trim(label);
        label.eq_ignore_ascii_case(b"us-ascii") || label.eq_ignore_ascii_case(b"ascii")
    })
}

fn is_utf8(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

/// A header value as text: unfolded, encoded words decoded (RFC 2047), other octets as UTF-8 or U+FFFD.
///
/// Blanks between encoded words are dropped, and neighbours of one charset are decoded as one, because many programs
/// cut a character in two.
#[must_use]
pub fn decode_header_text(value: &[u8]) -> String {
    let value = crate::header::unfold(value);
    let mut out = String::with_capacity(value.len());
    let mut run = Run::default();
    let mut rest: &[u8] = &value;
    while !rest.is_empty() {
        let start = rest.windows(2).position(|pair| pair == b"=?").unwrap_or(rest.len());
        let (plain, tail) = rest.split_at_checked(start).unwrap_or((rest, &[]));
        let Some((word, behind)) = encoded_word(tail) else {
            // No encoded word begins at this `=?`: it is text. The search goes on behind the two octets.
            let (marker, behind) = tail.split_at_checked(2).unwrap_or((tail, &[]));
            run.flush(&mut out);
            push_text(&mut out, plain, marker);
            rest = behind;
            continue;
        };
        if !(run.is_open() && plain.iter().all(|byte| crate::lexer::is_blank(*byte))) {
            run.flush(&mut out);
            push_text(&mut out, plain, &[]);
        }
        run.add(word, &mut out);
        rest = behind;
    }
    run.flush(&mut out);
    out
}

fn push_text(out: &mut String, text: &[u8], more: &[u8]) {
    out.push_str(&String::from_utf8_lossy(text));
    out.push_str(&String::from_utf8_lossy(more));
}

/// Encoded words of one charset that follow each other.
#[derive(Default)]
struct Run<'a> {
    charset: Option<&'a [u8]>,
    bytes: Vec<u8>,
}

impl<'a> Run<'a> {
    fn is_open(&self) -> bool {
        self.charset.is_some()
    }

    fn add(&mut self, word: EncodedWord<'a>, out: &mut String) {
        if self
            .charset
            .is_some_and(|charset| !charset.eq_ignore_ascii_case(word.charset))
        {
            self.flush(out);
        }
        self.charset = Some(word.charset);
        self.bytes.extend_from_slice(&word.bytes);
    }

    fn flush(&mut self, out: &mut String) {
        if let Some(charset) = self.charset.take() {
            out.push_str(&decode_charset(&self.bytes, Some(charset)));
            self.bytes.clear();
        }
    }
}

struct EncodedWord<'a> {
    charset: &'a [u8],
    bytes: Vec<u8>,
}

/// Reads an encoded word at the start of the value; the word and what follows.
fn encoded_word(value: &[u8]) -> Option<(EncodedWord<'_>, &[u8])> {
    let body = value.strip_prefix(b"=?")?;
    let window = body.get(..body.len().min(MIME_ENCODED_WORD_BYTES_MAX))?;
    let (charset, rest) = split_once(window, b'?')?;
    if charset.is_empty() || charset.len() > 64 || !charset.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let (method, rest) = split_once(rest, b'?')?;
    // RFC 2047 2: the text holds no question mark. This also keeps the search for ends linear.
    let end = rest.iter().position(|byte| *byte == b'?')?;
    let text = rest
        .get(..end)
        .filter(|_| rest.get(end..).is_some_and(|tail| tail.starts_with(b"?=")))?;
    let bytes = match method {
        b"B" | b"b" => decode_base64(text).bytes,
        b"Q" | b"q" => decode_q(text),
        _ => return None,
    };
    // RFC 2231 5: a language may follow the charset.
    let charset = charset.split(|byte| *byte == b'*').next()?;
    let length = charset_length(window, rest)?.checked_add(end)?.checked_add(2)?;
    Some((EncodedWord { charset, bytes }, body.get(length..)?))
}

/// Octets of `window` before `rest`, which is its tail.
fn charset_length(window: &[u8], rest: &[u8]) -> Option<usize> {
    window.len().checked_sub(rest.len())
}

fn split_once(bytes: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == separator)?;
    Some((bytes.get(..at)?, bytes.get(at.checked_add(1)?..)?))
}

/// The `Q` encoding of RFC 2047 4.2.
fn decode_q(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'_' { b' ' } else { *byte })
        .collect();
    hex_escapes(&spaced, b'=').bytes
}

/// The percent signs of RFC 2231 4.
pub(crate) fn percent_decode(text: &[u8]) -> Vec<u8> {
    hex_escapes(text, b'%').bytes
}

fn hex_escapes(text: &[u8], mark: u8) -> Transfer {
    let mut out = Transfer::default();
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match hex_pair(tail) {
            Some((byte, behind)) if *first == mark => {
                out.bytes.push(byte);
                rest = behind;
            }
            _ => {
                out.damaged |= *first == mark;
                out.bytes.push(*first);
            }
        }
    }
    out
}

fn hex_pair(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (pair, rest) = bytes.split_at_checked(2)?;
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    match pair {
        [high, low] => Some((digit(*high)?.checked_mul(16)?.checked_add(digit(*low)?)?, rest)),
        _ => None,
    }
}

/// Base64 as RFC 2045 6.8 has it: octets outside the alphabet are skipped; `=` ends a group, also in the middle, because
/// some programs encode in pieces.
fn decode_base64(bytes: &[u8]) -> Transfer {
    let mut out = Transfer {
        bytes: Vec::with_capacity(bytes.len() / 4 * 3),
        damaged: false,
    };
    let mut group = 0_u32;
    let mut count = 0_u32;
    let mut padding = false;
    for byte in bytes {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                out.damaged |= count == 1 || (count == 0 && !padding);
                flush_base64(&mut out.bytes, group, count);
                (group, count, padding) = (0, 0, true);
                continue;
            }
            b' ' | b'\t' | b'\r' | b'\n' => continue,
            _ => {
                out.damaged = true;
                continue;
            }
        };
        out.damaged |= padding;
        padding = false;
        group = (group << 6) | u32::from(value);
        count += 1;
        if count == 4 {
            flush_base64(&mut out.bytes, group, count);
            (group, count) = (0, 0);
        }
    }
    out.damaged |= count != 0;
    flush_base64(&mut out.bytes, group, count);
    out
}

fn flush_base64(out: &mut Vec<u8>, group: u32, count: u32) {
    let missing = 4_u32.saturating_sub(count);
    let octets = (group << (6 * missing.min(3))).to_be_bytes();
    // Two digits hold one octet, three hold two, four hold three; one digit holds none.
    let kept = usize::try_from(count.saturating_sub(1)).unwrap_or(0);
    out.extend(octets.iter().skip(1).take(kept));
}

/// Quoted-printable as RFC 2045 6.7 has it: soft line breaks and trailing blanks go, broken escapes stay as they are.
fn decode_quoted_printable(bytes: &[u8]) -> Transfer {
    let mut out = Transfer {
        bytes: Vec::with_capacity(bytes.len()),
        damaged: false,
    };
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let ending = line.get(text.len()..).unwrap_or_default();
        let text = crate::lexer::trim_end(text);
        let (text, ending) = text.strip_suffix(b"=").map_or((text, ending), |text| (text, &[][..]));
        let decoded = hex_escapes(text, b'=');
        out.damaged |= decoded.damaged;
        out.bytes.extend_from_slice(&decoded.bytes);
        out.bytes.extend_from_slice(ending);
    }
    out
}

#[cfg(test)]
mod tests;
