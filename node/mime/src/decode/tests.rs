//! Tests of the decoders, with the rows of the catalogue of bad inputs that end here.

use super::*;

fn base64(text: &str) -> (Vec<u8>, bool) {
    let Transfer { bytes, damaged } = decode_transfer(text.as_bytes(), &Encoding::Base64);
    (bytes, damaged)
}

#[test]
fn base64_is_decoded() {
    assert_eq!(base64("aGVsbG8="), (b"hello".to_vec(), false));
    assert_eq!(base64("aGVs\r\nbG8h\r\n"), (b"hello!".to_vec(), false));
    assert_eq!(base64("aGVsbA=="), (b"hell".to_vec(), false));
    assert_eq!(base64(""), (Vec::new(), false));
}

#[test]
fn mime_base64_bad() {
    assert_eq!(base64("aGVs*bG8="), (b"hello".to_vec(), true));
    assert_eq!(base64("aGVsbG8"), (b"hello".to_vec(), true));
    assert_eq!(base64("aGVsbA==aGVsbA=="), (b"hellhell".to_vec(), true));
    assert_eq!(base64("a"), (Vec::new(), true));
    assert_eq!(base64("===="), (Vec::new(), true));
    assert_eq!(base64("\u{ff}\0"), (Vec::new(), true));
}

#[test]
fn quoted_printable_is_decoded() {
    let decode = |text: &str| decode_transfer(text.as_bytes(), &Encoding::QuotedPrintable);
    assert_eq!(decode("a=3Db=\r\nc  \r\nd").bytes, b"a=bc\r\nd");
    assert_eq!(decode("a=ZZ").bytes, b"a=ZZ");
    assert!(decode("a=ZZ").damaged);
    assert_eq!(decode("caf=C3=A9=").bytes, "caf\u{e9}".as_bytes());
    assert_eq!(decode("= \r\nx").bytes, b"x");
}

#[test]
fn mime_cte_unknown_is_opaque() {
    assert_eq!(decode_body(b"secret", &Encoding::Other("x-foo".to_owned()), None), "");
}

#[test]
fn mime_charset_unknown() {
    let plain = |bytes: &[u8], charset: &str| decode_body(bytes, &Encoding::EightBit, Some(charset.as_bytes()));
    assert_eq!(plain(b"a\xffb", "x-none"), "a\u{fffd}b");
    assert_eq!(plain(b"+ADw-script+AD4-", "utf-7"), "+ADw-script+AD4-");
    assert_eq!(plain(b"\x1b$B%O%m!<\x1b(B", "iso-2022-jp"), "ハロー");
    assert_eq!(plain(b"\x1b$)Cabcd", "iso-2022-kr"), "\u{fffd}");
    assert_eq!(plain(b"caf\xe9", "ISO-8859-1"), "caf\u{e9}");
    assert_eq!(plain("caf\u{e9}".as_bytes(), "us-ascii"), "caf\u{e9}");
    assert_eq!(plain(b"", ""), "");
}

#[test]
fn mime_utf8_invalid() {
    assert_eq!(decode_header_text(b"a\xc0\xafb \xff"), "a\u{fffd}\u{fffd}b \u{fffd}");
    assert_eq!(decode_header_text(b"=?utf-8?q?=FF=C0=80?="), "\u{fffd}\u{fffd}\u{fffd}");
}

#[test]
fn encoded_words_are_decoded() {
    assert_eq!(decode_header_text(b"=?utf-8?q?J=C3=B6rg_M?= <x>"), "J\u{f6}rg M <x>");
    assert_eq!(decode_header_text(b"=?UTF-8?B?w7Y=?= =?utf-8?b?w7Y=?="), "\u{f6}\u{f6}");
    assert_eq!(decode_header_text(b"=?utf-8?q?=C3?=\r\n =?utf-8?q?=B6?="), "\u{f6}");
    assert_eq!(
        decode_header_text(b"=?iso-8859-1*de?q?=F6?= and =?utf-8?q?=C3=B6?="),
        "\u{f6} and \u{f6}"
    );
    assert_eq!(
        decode_header_text(b"=?iso-8859-1?q?=F6?= =?utf-8?q?=C3=B6?="),
        "\u{f6}\u{f6}"
    );
    for text in [
        "=?",
        "=?x",
        "=?utf-8?q?open",
        "=?utf-8?x?a?=",
        "=??q?a?=",
        "a =?= b",
        "=?=?=?=",
    ] {
        assert_eq!(decode_header_text(text.as_bytes()), text);
    }
}

#[test]
fn encoded_words_without_an_end_take_linear_time() {
    let text = "=?a?q?x".repeat(50_000);
    assert_eq!(decode_header_text(text.as_bytes()).len(), text.len());
}
