//! Parameters of MAIL and RCPT: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531), RET, ENVID, NOTIFY and ORCPT (RFC
//! 3461), AUTH (RFC 4954 5).
//!
//! A parameter may stand once. Not here: what the server does with them.

use crate::reply::{Enhanced, Reply};

/// What kind of octets the client announces (RFC 6152).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyType {
    /// `7BIT`, or nothing said.
    #[default]
    SevenBit,
    /// `8BITMIME`.
    EightBitMime,
}

/// How much of the message a report about it holds (RFC 3461 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Hdrs,
}

/// When the sender wants a report about a recipient (RFC 3461 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Never.
    Never,
    /// On these occasions; at least one of them.
    On {
        /// When it was delivered.
        success: bool,
        /// When it could not be.
        failure: bool,
        /// When it takes longer than usual.
        delay: bool,
    },
}

/// The recipient that the sender's own program named (RFC 3461 4.2), decoded from xtext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient {
    /// `rfc822`, `utf-8` or another address type, in lower case.
    pub address_type: String,
    /// The address, as given: not checked, not to be trusted.
    pub address: String,
}

/// Parameters of MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MailParameters {
    pub(crate) size: Option<u64>,
    pub(crate) body: Option<BodyType>,
    pub(crate) smtputf8: bool,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: Option<String>,
    auth: bool,
}

/// Parameters of RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RcptParameters {
    pub(crate) notify: Option<Notify>,
    pub(crate) original_recipient: Option<OriginalRecipient>,
}

/// Octets of ENVID before decoding (RFC 3461 4.4).
const ENVID_BYTES_MAX: usize = 100;
/// Octets of ORCPT before decoding (RFC 3461 4.2).
const ORCPT_BYTES_MAX: usize = 500;

const MALFORMED: Reply = Reply::new(501, Enhanced(5, 5, 4), "Malformed parameter");
const UNKNOWN: Reply = Reply::new(555, Enhanced(5, 5, 4), "Unknown parameter");

impl MailParameters {
    pub(crate) fn parse(text: &str) -> Result<Self, Reply> {
        let mut all = Self::default();
        for (keyword, value) in split(text)? {
            match (keyword.as_str(), value) {
                ("SIZE", Some(value)) => once(&mut all.size, parse_size(value))?,
                ("BODY", Some(value)) => once(&mut all.body, parse_body(value))?,
                ("RET", Some(value)) => once(&mut all.ret, parse_ret(value))?,
                ("ENVID", Some(value)) if value.len() <= ENVID_BYTES_MAX => once(&mut all.envid, decode_xtext(value))?,
                ("SMTPUTF8", None) if !all.smtputf8 => all.smtputf8 = true,
                // RFC 4954 5: read and, since no relay is trusted to say so, taken as <>.
                ("AUTH", Some(value)) if !all.auth && decode_xtext(value).is_some() => all.auth = true,
                ("SIZE" | "BODY" | "RET" | "ENVID" | "SMTPUTF8" | "AUTH", _) => return Err(MALFORMED),
                _ => return Err(UNKNOWN),
            }
        }
        Ok(all)
    }
}

impl RcptParameters {
    pub(crate) fn parse(text: &str) -> Result<Self, Reply> {
        let mut all = Self::default();
        for (keyword, value) in split(text)? {
            match (keyword.as_str(), value) {
                ("NOTIFY", Some(value)) => once(&mut all.notify, parse_notify(value))?,
                ("ORCPT", Some(value)) => once(&mut all.original_recipient, parse_orcpt(value))?,
                ("NOTIFY" | "ORCPT", None) => return Err(MALFORMED),
                _ => return Err(UNKNOWN),
            }
        }
        Ok(all)
    }
}

fn once<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), Reply> {
    if slot.is_some() || value.is_none() {
        return Err(MALFORMED);
    }
    *slot = value;
    Ok(())
}

/// `esmtp-keyword ["=" esmtp-value]` (RFC 5321 4.1.2), keywords in upper case.
fn split(text: &str) -> Result<Vec<(String, Option<&str>)>, Reply> {
    let words = text.split(' ').filter(|word| !word.is_empty());
    words
        .map(|word| {
            let (keyword, value) = match word.split_once('=') {
                Some((keyword, value)) => (keyword, Some(value)),
                None => (word, None),
            };
            let keyword_fits = !keyword.is_empty() && keyword.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            let value_fits = value.is_none_or(|value| !value.is_empty() && !value.chars().any(char::is_control));
            if keyword_fits && value_fits {
                Ok((keyword.to_ascii_uppercase(), value))
            } else {
                Err(MALFORMED)
            }
        })
        .collect()
}

/// RFC 1870 4: up to 20 digits. What does not fit 64 bits is malformed, never wrapped.
fn parse_size(value: &str) -> Option<u64> {
    let digits = value.len() <= 20 && value.bytes().all(|byte| byte.is_ascii_digit());
    if digits { value.parse().ok() } else { None }
}

fn parse_body(value: &str) -> Option<BodyType> {
    match value.to_ascii_uppercase().as_str() {
        "7BIT" => Some(BodyType::SevenBit),
        "8BITMIME" => Some(BodyType::EightBitMime),
        _ => None,
    }
}

fn parse_ret(value: &str) -> Option<Ret> {
    match value.to_ascii_uppercase().as_str() {
        "FULL" => Some(Ret::Full),
        "HDRS" => Some(Ret::Hdrs),
        _ => None,
    }
}

/// RFC 3461 4.1: NEVER stands alone.
fn parse_notify(value: &str) -> Option<Notify> {
    if value.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in value.split(',') {
        let flag = match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => &mut success,
            "FAILURE" => &mut failure,
            "DELAY" => &mut delay,
            _ => return None,
        };
        *flag = true;
    }
    Some(Notify::On {
        success,
        failure,
        delay,
    })
}

fn parse_orcpt(value: &str) -> Option<OriginalRecipient> {
    if value.len() > ORCPT_BYTES_MAX {
        return None;
    }
    let (address_type, address) = value.split_once(';')?;
    let type_fits = !address_type.is_empty() && address_type.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let address = decode_xtext(address)?;
    (type_fits && !address.is_empty()).then(|| OriginalRecipient {
        address_type: address_type.to_ascii_lowercase(),
        address,
    })
}

/// `xtext` (RFC 3461 4): printable octets, with `+HH` for others. What decodes to control characters or to other than
/// UTF-8 is refused, since it would end up in a header. RFC 6533 lets UTF-8 stand as it is.
fn decode_xtext(value: &str) -> Option<String> {
    let mut bytes = value.bytes();
    let mut decoded = Vec::with_capacity(value.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let (high, low) = (upper_hex(bytes.next()?)?, upper_hex(bytes.next()?)?);
                decoded.push(high << 4 | low);
            }
            b'=' => return None,
            byte => decoded.push(byte),
        }
    }
    String::from_utf8(decoded)
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
}

fn upper_hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parameters_of_mail_are_read_in_any_case() {
        let all = MailParameters::parse("size=5 Body=8BITMIME SMTPUTF8 RET=hdrs ENVID=a+2Bb AUTH=<>").unwrap();
        assert_eq!(all.size, Some(5));
        assert_eq!(all.body, Some(BodyType::EightBitMime));
        assert!(all.smtputf8);
        assert_eq!(all.ret, Some(Ret::Hdrs));
        assert_eq!(all.envid.as_deref(), Some("a+b"));
    }

    #[test]
    fn all_parameters_of_rcpt_are_read() {
        let all = RcptParameters::parse("NOTIFY=SUCCESS,delay  ORCPT=rfc822;a@x").unwrap();
        assert_eq!(
            all.notify,
            Some(Notify::On {
                success: true,
                failure: false,
                delay: true
            })
        );
        let original = OriginalRecipient {
            address_type: "rfc822".into(),
            address: "a@x".into(),
        };
        assert_eq!(all.original_recipient, Some(original));
        assert_eq!(
            RcptParameters::parse("NOTIFY=NEVER").unwrap().notify,
            Some(Notify::Never)
        );
    }

    #[test]
    fn malformed_and_doubled_parameters_are_refused() {
        for text in [
            "SIZE",
            "SIZE=",
            "SIZE=-1",
            "SIZE=1 SIZE=1",
            "BODY=BINARYMIME",
            "SMTPUTF8=1",
            "SMTPUTF8 SMTPUTF8",
            "RET=ALL",
            "ENVID=a+0Ab",
            "ENVID=+",
            "=1",
            "SIZE=+5",
            "AUTH=<> AUTH=<>",
        ] {
            assert_eq!(MailParameters::parse(text), Err(MALFORMED), "{text}");
        }
        for text in [
            "NOTIFY=",
            "NOTIFY=SUCCESS,",
            "NOTIFY=NEVER,DELAY",
            "ORCPT=a@x",
            "ORCPT=;a",
            "ORCPT=rfc822;+0D",
        ] {
            assert_eq!(RcptParameters::parse(text), Err(MALFORMED), "{text}");
        }
        assert_eq!(MailParameters::parse("FOO=1"), Err(UNKNOWN));
        assert_eq!(RcptParameters::parse("SIZE=1"), Err(UNKNOWN));
    }

    #[test]
    fn lengths_of_envid_and_orcpt_have_limits() {
        for (length, fits) in [(99, true), (100, true), (101, false)] {
            assert_eq!(
                MailParameters::parse(&format!("ENVID={}", "x".repeat(length))).is_ok(),
                fits
            );
        }
        for (length, fits) in [(499, true), (500, true), (501, false)] {
            let orcpt = format!("ORCPT=rfc822;{}", "x".repeat(length - 7));
            assert_eq!(RcptParameters::parse(&orcpt).is_ok(), fits);
        }
    }
}
