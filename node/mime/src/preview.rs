//! The preview: the first characters of the first text of a message, in one line (RFC 8970 has the idea).
//!
//! Best effort, from a bounded prefix of the stored part. HTML is only stripped, never rendered.

use core_types::limits::MIME_PREVIEW_CHARS_MAX;

use crate::decode::decode_body;
use crate::structure::Part;

/// Makes the preview from the first stored octets of a text part's body.
pub(crate) fn preview(part: &Part, body: &[u8]) -> String {
    let text = decode_body(body, &part.encoding, part.charset());
    let text = if part.content_type.sub == "html" {
        strip_html(&text)
    } else {
        text
    };
    let mut out = String::new();
    let mut chars = 0_usize;
    // A character cut in two at the end of the prefix is U+FFFD there; controls would mislead who reads a listing.
    let words = text.split(|char: char| char.is_whitespace() || char.is_control());
    for word in words.filter(|word| !word.is_empty()) {
        let space = (!out.is_empty()).then_some(' ');
        for char in space.into_iter().chain(word.chars()) {
            if chars == MIME_PREVIEW_CHARS_MAX {
                return out;
            }
            out.push(char);
            chars += 1;
        }
    }
    out
}

/// The text outside of tags, and outside of `style`, `script`, `head` and `title`.
fn strip_html(html: &str) -> String {
    let mut out = String::with_capacity(html.len());
    let mut hidden: Option<&str> = None;
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let (text, tail) = rest.split_at_checked(start).unwrap_or((rest, ""));
        if hidden.is_none() {
            push_entities(&mut out, text);
        }
        let end = if tail.starts_with("<!--") {
            tail.find("-->").map(|end| end + 2)
        } else {
            tail.find('>')
        };
        let Some((tag, behind)) = end.and_then(|end| tail.split_at_checked(end + 1)) else {
            return out;
        };
        rest = behind;
        let name = tag.trim_start_matches(['<', '/']);
        let name = name
            .split(|char: char| !char.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default();
        let closing = tag.starts_with("</");
        match hidden {
            Some(open) if closing && open.eq_ignore_ascii_case(name) => hidden = None,
            Some(_) => {}
            None if !closing => {
                let hide = ["style", "script", "head", "title"];
                hidden = hide.into_iter().find(|tag| tag.eq_ignore_ascii_case(name));
            }
            None => {}
        }
        let inline = ["b", "i", "u", "a", "em", "strong", "span", "font"];
        if !inline.iter().any(|tag| tag.eq_ignore_ascii_case(name)) {
            out.push(' ');
        }
    }
    if hidden.is_none() {
        push_entities(&mut out, rest);
    }
    out
}

fn push_entities(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some((plain, tail)) = rest.split_once('&') {
        out.push_str(plain);
        // The longest entity that is known here is far shorter than this.
        let end = tail.bytes().take(10).position(|byte| byte == b';');
        let name = end.and_then(|end| tail.get(..end)).unwrap_or_default();
        let char = match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            "nbsp" => Some(' '),
            _ => numeric(name),
        };
        match char {
            Some(char) => {
                out.push(char);
                rest = tail.get(name.len() + 1..).unwrap_or_default();
            }
            _ => {
                out.push('&');
                rest = tail;
            }
        }
    }
    out.push_str(rest);
}

fn numeric(name: &str) -> Option<char> {
    let digits = name.strip_prefix('#')?;
    let code = match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use core_types::limits::MIME_PREVIEW_SOURCE_BYTES_MAX;

    use super::*;

    #[test]
    fn html_is_stripped() {
        let html = "<html><head><title>T</title><style>p{}</style></head><body><p>a<b>b</b> &amp; &#x263A;&lt;c</p>\
                    <!-- <p>no</p> --><script>x</script>end &bad; &</body>";
        let words: Vec<_> = strip_html(html).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words.join(" "), "ab & \u{263a}<c end &bad; &");
        assert_eq!(strip_html("a <open"), "a ");
        assert_eq!(strip_html("<style>never closed <p>x</p>").trim(), "");
    }

    #[test]
    fn entities_without_an_end_take_linear_time() {
        let text = "&".repeat(MIME_PREVIEW_SOURCE_BYTES_MAX);
        assert_eq!(strip_html(&text).len(), text.len());
    }
}
