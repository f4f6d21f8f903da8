//! Modified UTF-7 of RFC 3501 5.1.3, to and from Unicode.
//!
//! Decoding is strict, so that a mailbox has one encoded name: no printable ASCII in base64, no needless shift, no
//! left-over bits, no lone surrogate, no 8-bit octet. Not here: which names are allowed
//! ([`core_types::MailboxName`]).

/// Decodes a name. `None` when it is not modified UTF-7.
#[must_use]
pub fn decode_utf7(encoded: &[u8]) -> Option<String> {
    let mut decoded = String::with_capacity(encoded.len());
    let mut rest = encoded;
    let mut after_shift = false;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'&' {
            if !(0x20..=0x7e).contains(&byte) {
                return None;
            }
            decoded.push(char::from(byte));
            after_shift = false;
            continue;
        }
        let end = rest.iter().position(|&byte| byte == b'-')?;
        let (shifted, tail) = (rest.get(..end)?, rest.get(end + 1..)?);
        rest = tail;
        if shifted.is_empty() {
            decoded.push('&');
            after_shift = false;
            continue;
        }
        // RFC 3501 5.1.3: no superfluous shift, as in "&U,BTFw-&ZeVnLIqe-".
        if after_shift {
            return None;
        }
        decode_shifted(shifted, &mut decoded)?;
        after_shift = true;
    }
    Some(decoded)
}

/// Encodes a name. The result is printable ASCII.
#[must_use]
pub fn encode_utf7(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    let mut shifted: Vec<u16> = Vec::new();
    for character in name.chars() {
        if (' '..='~').contains(&character) {
            encode_shifted(&mut shifted, &mut encoded);
            encoded.push(character);
            if character == '&' {
                encoded.push('-');
            }
        } else {
            shifted.extend_from_slice(character.encode_utf16(&mut [0; 2]));
        }
    }
    encode_shifted(&mut shifted, &mut encoded);
    encoded
}

fn decode_shifted(shifted: &[u8], decoded: &mut String) -> Option<()> {
    let mut units = Vec::with_capacity(shifted.len());
    let (mut bits, mut bit_count) = (0u32, 0u32);
    for byte in shifted {
        let value = ALPHABET.iter().position(|letter| letter == byte)?;
        bits = (bits << 6) | u32::try_from(value).ok()?;
        bit_count += 6;
        if bit_count >= 16 {
            bit_count -= 16;
            units.push(u16::try_from(bits >> bit_count).ok()?);
            bits &= (1 << bit_count) - 1;
        }
    }
    if bits != 0 || bit_count >= 6 {
        return None;
    }
    for character in char::decode_utf16(units) {
        let character = character.ok()?;
        if (' '..='~').contains(&character) {
            return None;
        }
        decoded.push(character);
    }
    Some(())
}

fn encode_shifted(units: &mut Vec<u16>, encoded: &mut String) {
    if units.is_empty() {
        return;
    }
    encoded.push('&');
    let (mut bits, mut bit_count) = (0u32, 0u32);
    let mut push = |value: u32| {
        let letter = usize::try_from(value & 63).ok().and_then(|at| ALPHABET.get(at));
        encoded.push(char::from(letter.copied().unwrap_or(b'A')));
    };
    for unit in units.drain(..) {
        bits = (bits << 16) | u32::from(unit);
        bit_count += 16;
        while bit_count >= 6 {
            bit_count -= 6;
            push(bits >> bit_count);
            bits &= (1 << bit_count) - 1;
        }
    }
    if bit_count > 0 {
        push(bits << (6 - bit_count));
    }
    encoded.push('-');
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_rfc_3501_decode() {
        assert_eq!(
            decode_utf7(b"~peter/mail/&U,BTFw-/&ZeVnLIqe-").unwrap(),
            "~peter/mail/\u{53f0}\u{5317}/\u{65e5}\u{672c}\u{8a9e}"
        );
        assert_eq!(decode_utf7(b"R&-D").unwrap(), "R&D");
        assert_eq!(encode_utf7("Entw\u{fc}rfe"), "Entw&APw-rfe");
        assert_eq!(encode_utf7("\u{1F600}"), "&2D3eAA-");
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        let wrong: [&[u8]; 11] = [
            b"R&D",
            b"&",
            b"&AGE-",
            b"&U,BTFw-&ZeVnLIqe-",
            b"&2D0-",
            b"&APx-",
            b"&A-",
            b"&AP-",
            b"&AP=-",
            b"caf\xc3\xa9",
            b"a\x7f",
        ];
        for name in wrong {
            assert_eq!(decode_utf7(name), None, "{}", name.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_both_ways(name in "\\PC{0,20}") {
            let encoded = encode_utf7(&name);
            prop_assert!(encoded.bytes().all(|byte| (0x20..=0x7e).contains(&byte)));
            prop_assert_eq!(decode_utf7(encoded.as_bytes()), Some(name));
        }

        #[test]
        fn a_mailbox_has_one_encoded_name(encoded in "[&A-Za-c0-9,+/-]{0,12}") {
            if let Some(decoded) = decode_utf7(encoded.as_bytes()) {
                prop_assert_eq!(encode_utf7(&decoded), encoded);
            }
        }
    }
}
