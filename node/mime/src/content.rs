//! The content fields of a part: media type, disposition, encoding, languages, and parameters with their continuations
//! (RFC 2045 5, RFC 2183, RFC 2231).
//!
//! Every input has a reading. At most `MIME_PARAMETERS_MAX` parameters of a field are read, in one pass.

use core_types::limits::MIME_PARAMETERS_MAX;

use crate::decode::{decode_charset, percent_decode};
use crate::lexer::{comment, is_blank, trim, trim_end, trim_start, without_comments};
use crate::structure::{ContentType, Disposition, Encoding, Parameter, parameter};

/// Reads Content-Type. RFC 2045 5.2: what cannot be read is text/plain, and what names only a type is opaque.
pub(crate) fn parse_content_type(value: &[u8]) -> ContentType {
    let (head, rest) = split_head(value);
    let mut halves = head.splitn(2, |byte| *byte == b'/');
    let main = word(halves.next().unwrap_or_default());
    let sub = word(halves.next().unwrap_or_default());
    match (main, sub) {
        (Some(main), Some(sub)) => ContentType {
            main,
            sub,
            parameters: parse_parameters(rest),
        },
        (Some(main), None) if main != "text" => ContentType::octet_stream(),
        _ => ContentType::text_plain(),
    }
}

/// Reads Content-Disposition; a field without a word is `attachment` (RFC 2183 2.8: unknown ones are treated so).
pub(crate) fn parse_disposition(value: &[u8]) -> Disposition {
    let (head, rest) = split_head(value);
    let kind = word(&head).unwrap_or_else(|| "attachment".to_owned());
    Disposition {
        kind,
        parameters: parse_parameters(rest),
    }
}

/// Reads Content-Transfer-Encoding.
pub(crate) fn parse_encoding(value: &[u8]) -> Encoding {
    let (head, _) = split_head(value);
    let lower = head.to_ascii_lowercase();
    match lower.as_slice() {
        b"" | b"7bit" | b"7-bit" => Encoding::SevenBit,
        b"8bit" | b"8-bit" => Encoding::EightBit,
        b"binary" => Encoding::Binary,
        b"quoted-printable" => Encoding::QuotedPrintable,
        b"base64" => Encoding::Base64,
        _ => Encoding::Other(word(&lower).unwrap_or_else(|| "x-unknown".to_owned())),
    }
}

/// Reads Content-Language (RFC 3282 2).
pub(crate) fn parse_languages(value: &[u8]) -> Vec<Vec<u8>> {
    let plain = without_comments(value);
    let tags = plain
        .split(|byte| *byte == b',')
        .map(|tag| trim(tag).to_vec())
        .filter(|tag| !tag.is_empty());
    tags.take(MIME_PARAMETERS_MAX).collect()
}

/// The readable value of a parameter: `name*` with charset and percent signs, or `name`.
pub(crate) fn parameter_text(parameters: &[Parameter], name: &str) -> Option<String> {
    if let Some(extended) = parameter(parameters, &format!("{name}*")) {
        let mut pieces = extended.splitn(3, |byte| *byte == b'\'');
        return Some(match (pieces.next(), pieces.next(), pieces.next()) {
            (Some(charset), Some(_), Some(text)) => decode_charset(&percent_decode(text), Some(charset)),
            _ => decode_charset(&percent_decode(extended), None),
        });
    }
    // Many programs put encoded words here, which RFC 2047 5 forbids; readers expect them to be read.
    parameter(parameters, name).map(crate::decode::decode_header_text)
}

/// The field up to the first `;`, without comments and outer blanks, and what follows.
fn split_head(value: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut head = Vec::new();
    let mut rest = value;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b';' => break,
            b'(' => match comment(tail) {
                Some((_, behind)) => rest = behind,
                None => rest = &[],
            },
            byte if is_blank(*byte) => {}
            byte => head.push(*byte),
        }
    }
    (head, rest)
}

/// A token of RFC 2045 5.1 in lower case, of a length that a name has.
fn word(bytes: &[u8]) -> Option<String> {
    let fits = !bytes.is_empty() && bytes.len() <= 127;
    let token = |byte: &u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(byte);
    (fits && bytes.iter().all(token)).then(|| String::from_utf8_lossy(bytes).to_ascii_lowercase())
}

/// A parameter as it stands, before continuations are joined.
struct Piece {
    base: String,
    /// The number of the continuation; `None` for a parameter of one piece.
    number: Option<usize>,
    extended: bool,
    value: Vec<u8>,
}

fn parse_parameters(value: &[u8]) -> Vec<Parameter> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut rest = value;
    let mut seen = 0_usize;
    while !rest.is_empty() && seen < MIME_PARAMETERS_MAX {
        let (name, value, behind) = parse_parameter(rest);
        rest = behind;
        if let Some(piece) = piece(&name, value) {
            seen = seen.saturating_add(1);
            pieces.push(piece);
        }
    }
    join(&pieces)
}

/// One `name=value`: the name, the value and what stands behind the `;`.
fn parse_parameter(input: &[u8]) -> (Vec<u8>, Vec<u8>, &[u8]) {
    let mut name = Vec::new();
    let mut rest = input;
    loop {
        let Some((first, tail)) = rest.split_first() else {
            return (name, Vec::new(), rest);
        };
        rest = tail;
        match first {
            b';' => return (Vec::new(), Vec::new(), rest),
            b'=' => break,
            b'(' => rest = comment(tail).map_or(&[][..], |(_, behind)| behind),
            byte if is_blank(*byte) => {}
            byte => name.push(*byte),
        }
    }
    rest = trim_start(rest);
    while let Some(tail) = rest.strip_prefix(b"(") {
        rest = trim_start(comment(tail).map_or(&[][..], |(_, behind)| behind));
    }
    let mut value = Vec::new();
    if let Some(tail) = rest.strip_prefix(b"\"") {
        rest = tail;
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            match first {
                b'"' => break,
                b'\\' => {
                    if let Some((escaped, behind)) = tail.split_first() {
                        value.push(*escaped);
                        rest = behind;
                    }
                }
                byte => value.push(*byte),
            }
        }
    } else {
        // Unquoted values may hold blanks in the wild (`name=my file.pdf`), so they run to the `;` or a comment.
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b';' | b'('))
            .unwrap_or(rest.len());
        value = trim_end(rest.get(..length).unwrap_or_default()).to_vec();
        rest = rest.get(length..).unwrap_or_default();
    }
    // Nothing but blanks and comments may stand before the next `;`; what does is skipped.
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b';' => break,
            b'(' => rest = comment(tail).map_or(&[][..], |(_, behind)| behind),
            _ => {}
        }
    }
    (name, value, rest)
}

fn piece(name: &[u8], value: Vec<u8>) -> Option<Piece> {
    let extended = name.ends_with(b"*");
    let name = name.strip_suffix(b"*").unwrap_or(name);
    let mut halves = name.splitn(2, |byte| *byte == b'*');
    let base = word(halves.next().unwrap_or_default())?;
    let number = match halves.next() {
        // RFC 2231 3: decimal without leading zeros; what is not is not a continuation.
        Some(digits) if digits.len() <= 4 && digits.iter().all(u8::is_ascii_digit) => {
            Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
        }
        Some(_) => return None,
        None => None,
    };
    Some(Piece {
        base,
        number,
        extended,
        value,
    })
}

/// Joins continuations in the order of their numbers up to the first gap; of duplicates the first one counts.
/// Each name is joined once, so that the work is at most `MIME_PARAMETERS_MAX` squared.
fn join(pieces: &[Piece]) -> Vec<Parameter> {
    let mut out: Vec<Parameter> = Vec::new();
    let mut joined_names: Vec<&str> = Vec::new();
    for piece in pieces {
        if piece.number.is_some() {
            if joined_names.contains(&piece.base.as_str()) {
                continue;
            }
            joined_names.push(&piece.base);
        }
        let parameter = match piece.number {
            None => {
                let name = if piece.extended {
                    format!("{}*", piece.base)
                } else {
                    piece.base.clone()
                };
                Parameter {
                    name,
                    value: piece.value.clone(),
                }
            }
            Some(_) => joined(pieces, &piece.base),
        };
        let known = out.iter().any(|other| other.name == parameter.name);
        if !known && !parameter.value.is_empty() {
            out.push(parameter);
        }
    }
    out
}

fn joined(pieces: &[Piece], base: &str) -> Parameter {
    let find = |number| {
        pieces
            .iter()
            .find(|piece| piece.base == base && piece.number == Some(number))
    };
    let run = || (0..).map_while(find);
    // RFC 2231 4.1: only the first piece names the charset. Without it percent signs are plain text.
    let extended = run().next().is_some_and(|piece| piece.extended);
    let mut value = Vec::new();
    for piece in run() {
        if extended && !piece.extended {
            for byte in &piece.value {
                match byte {
                    b'%' => value.extend_from_slice(b"%25"),
                    _ => value.push(*byte),
                }
            }
        } else {
            value.extend_from_slice(&piece.value);
        }
    }
    Parameter {
        name: if extended { format!("{base}*") } else { base.to_owned() },
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(value: &str) -> String {
        let content_type = parse_content_type(value.as_bytes());
        let mut out = format!("{}/{}", content_type.main, content_type.sub);
        for Parameter { name, value } in &content_type.parameters {
            out.push_str(&format!("; {name}={}", String::from_utf8_lossy(value)));
        }
        out
    }

    #[test]
    fn types_and_parameters_are_read() {
        assert_eq!(show("Text/HTML; Charset=UTF-8"), "text/html; charset=UTF-8");
        assert_eq!(
            show("text/plain; charset=us-ascii (Plain text)"),
            "text/plain; charset=us-ascii"
        );
        assert_eq!(show("a/b; name=\"a;b \\\"c\\\"\"; x=y"), "a/b; name=a;b \"c\"; x=y");
        assert_eq!(show("a/b; name=my file.pdf ;;x=(c) y"), "a/b; name=my file.pdf; x=y");
        assert_eq!(show("a / b (c) ; x = y"), "a/b; x=y");
    }

    #[test]
    fn mime_ct_garbage() {
        for garbage in [
            "",
            ";;;=",
            "text",
            "text/",
            "/plain",
            "text/pl ain\u{e9}",
            "((((",
            "=",
            "/",
            "//",
        ] {
            assert_eq!(show(garbage), "text/plain; charset=us-ascii", "{garbage}");
        }
        assert_eq!(show("application"), "application/octet-stream");
        assert_eq!(show("image/"), "application/octet-stream");
        assert_eq!(show("a/b;;;="), "a/b");
        assert_eq!(show("a/b; x"), "a/b");
        assert_eq!(show("a/b; x=\"open"), "a/b; x=open");
    }

    #[test]
    fn mime_params_10k() {
        let many: String = (0..10_000).map(|number| format!("; name*{number}=x")).collect();
        let content_type = parse_content_type(format!("a/b{many}").as_bytes());
        assert_eq!(content_type.parameter("name").unwrap().len(), MIME_PARAMETERS_MAX);
        let many: String = (0..10_000).map(|number| format!("; name{number}=x")).collect();
        for (limit, text) in [
            (MIME_PARAMETERS_MAX - 1, 63),
            (MIME_PARAMETERS_MAX, 64),
            (MIME_PARAMETERS_MAX + 1, 64),
        ] {
            let few: String = (0..limit).map(|number| format!("; name{number}=x")).collect();
            assert_eq!(
                parse_content_type(format!("a/b{few}").as_bytes()).parameters.len(),
                text
            );
        }
        assert_eq!(
            parse_content_type(format!("a/b{many}").as_bytes()).parameters.len(),
            MIME_PARAMETERS_MAX
        );
    }

    #[test]
    fn mime_params_rfc2231_overlap() {
        assert_eq!(show("a/b; name*0=a; name*2=c; name*1*=%20"), "a/b; name=a%20c");
        assert_eq!(show("a/b; name*2=c; name*1=b; name*0*=x''a%20"), "a/b; name*=x''a%20bc");
        assert_eq!(show("a/b; name*0=a; name*0=z; name*1=b; name*3=d"), "a/b; name=ab");
        assert_eq!(show("a/b; name=first; name=second"), "a/b; name=first");
        assert_eq!(show("a/b; name*1=b"), "a/b");
        assert_eq!(show("a/b; name*x=b; name**=c; *=d; *0*=e"), "a/b");
        let content_type = parse_content_type(b"a/b; name*0*=x''a%E9; name*1=%b");
        assert_eq!(content_type.parameter_text("name").unwrap(), "a\u{fffd}%b");
        let content_type = parse_content_type(b"a/b; name*=iso-8859-1'en'caf%E9; name=cafe");
        assert_eq!(content_type.parameter_text("name").unwrap(), "caf\u{e9}");
        assert_eq!(content_type.parameter("name").unwrap(), b"cafe");
    }

    #[test]
    fn encodings_and_languages_are_read() {
        assert_eq!(parse_encoding(b"Base64"), Encoding::Base64);
        assert_eq!(parse_encoding(b" quoted-printable (c)"), Encoding::QuotedPrintable);
        assert_eq!(parse_encoding(b"X-Foo"), Encoding::Other("x-foo".to_owned()));
        assert_eq!(parse_encoding(b"\xff"), Encoding::Other("x-unknown".to_owned()));
        assert_eq!(parse_languages(b"de, en (English),,"), [b"de".to_vec(), b"en".to_vec()]);
        assert_eq!(parse_disposition(b"Attachment; filename=x").kind, "attachment");
        assert_eq!(
            parse_disposition(b";filename=x").parameter_text("filename").unwrap(),
            "x"
        );
    }
}
