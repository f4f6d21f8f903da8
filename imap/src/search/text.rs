//! Looking for strings in a message's texts, window by window.
//!
//! A window ends at the end of a line where there is one, and the end of its text is looked at again together with the
//! next one, so a string is found wherever it lies. (In a part of more than one window a character that is cut in two by a
//! soft line break right at a window's end is missed.)

use mailstore::MessageBytes;
use mime::{Encoding, Part, Structure};

use crate::client::Client;
use crate::errors::Failure;

/// For each needle (in lower case) whether a text of the message has it.
pub(super) async fn find_in_texts(
    client: &mut Client,
    bytes: &MessageBytes,
    structure: &Structure,
    needles: &[String],
) -> Result<Vec<bool>, Failure> {
    let mut finder = Finder::new(needles);
    for part in structure.parts.iter().filter(|part| part.is_text()) {
        finder.begin_part();
        let mut start = part.body_start;
        while start < part.end && !finder.is_done() {
            let piece = bytes.read(start..part.end).await?;
            if piece.is_empty() {
                break;
            }
            start += piece.len() as u64;
            finder.feed(&piece, part, start >= part.end).await;
            client.pause().await?;
        }
        if finder.is_done() {
            break;
        }
    }
    Ok(finder.found)
}

struct Finder<'a> {
    needles: &'a [String],
    found: Vec<bool>,
    /// Octets of the longest needle.
    needle_bytes_max: usize,
    /// Stored octets that wait for the end of their line.
    rest: Vec<u8>,
    /// The end of the text so far, in which a needle may begin.
    tail: String,
}

impl<'a> Finder<'a> {
    fn new(needles: &'a [String]) -> Self {
        Self {
            needles,
            found: needles.iter().map(String::is_empty).collect(),
            needle_bytes_max: needles.iter().map(String::len).max().unwrap_or(0),
            rest: Vec::new(),
            tail: String::new(),
        }
    }

    fn is_done(&self) -> bool {
        self.found.iter().all(|&found| found)
    }

    fn begin_part(&mut self) {
        self.rest.clear();
        self.tail.clear();
    }

    async fn feed(&mut self, piece: &[u8], part: &Part, last: bool) {
        self.rest.extend_from_slice(piece);
        if part.encoding == Encoding::Base64 {
            // Groups of four are decoded by themselves, wherever lines end.
            self.rest
                .retain(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/' | b'='));
        }
        let whole = self.rest.len();
        let cut = match &part.encoding {
            _ if last => whole,
            Encoding::Base64 => whole - whole % 4,
            _ => self
                .rest
                .iter()
                .rposition(|&octet| octet == b'\n')
                .map_or(whole, |at| at + 1),
        };
        let rest = self.rest.split_off(cut);
        let window = std::mem::replace(&mut self.rest, rest);
        let decoded = mime::decode_body(&window, &part.encoding, part.charset());
        let mut text = std::mem::take(&mut self.tail);
        text.push_str(&decoded.to_lowercase());
        for (at, (needle, found)) in self.needles.iter().zip(&mut self.found).enumerate() {
            if *found {
                continue;
            }
            *found = text.contains(needle.as_str());
            if at % NEEDLES_AT_ONCE == NEEDLES_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        let mut keep = text.len().saturating_sub(self.needle_bytes_max);
        while !text.is_char_boundary(keep) {
            keep += 1;
        }
        self.tail = text.split_off(keep);
    }
}

/// Needles that are looked for in a window before others run.
const NEEDLES_AT_ONCE: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    async fn find(message: &[u8], step: usize, needles: &[&str]) -> Vec<bool> {
        let mut scanner = mime::Scanner::new();
        scanner.feed(message);
        let structure = scanner.finish();
        let needles: Vec<String> = needles.iter().map(|&needle| needle.to_owned()).collect();
        let mut finder = Finder::new(&needles);
        for part in structure.parts.iter().filter(|part| part.is_text()) {
            finder.begin_part();
            let body = &message[usize::try_from(part.body_start).unwrap()..usize::try_from(part.end).unwrap()];
            let count = body.chunks(step).count();
            for (at, piece) in body.chunks(step).enumerate() {
                finder.feed(piece, part, at + 1 == count).await;
            }
        }
        finder.found
    }

    #[tokio::test]
    async fn a_string_is_found_wherever_the_windows_end() {
        let plain = b"Subject: x\r\n\r\nline one\r\nline TWO needle here\r\nend\r\n";
        let base64 = b"Content-Transfer-Encoding: base64\r\n\r\nbGluZSBvbmUNCmxpbmUg\r\nVFdPIG5lZWRsZSBoZXJl\r\n";
        for step in [1, 2, 3, 5, 7, 1000] {
            for message in [plain.as_slice(), base64.as_slice()] {
                assert_eq!(
                    find(message, step, &["two needle", "missing", "line one"]).await,
                    [true, false, true],
                    "{step}"
                );
            }
        }
    }
}
