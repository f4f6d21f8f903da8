//! How our own types become bytes, on disk and between nodes: a version byte, then bincode (fixed-width, little-endian).
//!
//! Decoding is bounded: it refuses an unknown version, more bytes than the limit, and bytes left over. Client-facing
//! protocols never use this.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why bytes could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The first byte names a version that this program does not know.
    #[error("unknown version {found}, this program knows {known}")]
    UnknownVersion {
        /// The version in the bytes.
        found: u8,
        /// The version that was expected.
        known: u8,
    },
    /// There is not even a version byte.
    #[error("empty")]
    Empty,
    /// The bytes are not an encoding of the type: cut, left over, or out of range.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The value is larger than the limit allows to encode or decode.
    #[error("larger than {0} bytes")]
    TooLarge(u64),
}

/// Encodes a value behind its version byte.
///
/// # Errors
/// [`CodecError::TooLarge`] above `limit` bytes (the version byte not counted).
pub fn encode<T: Serialize + ?Sized>(version: u8, value: &T, limit: u64) -> Result<Vec<u8>, CodecError> {
    let size = options(limit)
        .serialized_size(value)
        .map_err(|error| from_bincode(&error, limit))?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
    bytes.push(version);
    options(limit)
        .serialize_into(&mut bytes, value)
        .map_err(|error| from_bincode(&error, limit))?;
    Ok(bytes)
}

/// Decodes what [`encode`] made of the same version.
///
/// # Errors
/// Any [`CodecError`].
pub fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8], limit: u64) -> Result<T, CodecError> {
    let (found, body) = bytes.split_first().ok_or(CodecError::Empty)?;
    if *found != version {
        return Err(CodecError::UnknownVersion {
            found: *found,
            known: version,
        });
    }
    if body.len() as u64 > limit {
        return Err(CodecError::TooLarge(limit));
    }
    options(limit)
        .deserialize(body)
        .map_err(|error| from_bincode(&error, limit))
}

/// The version byte of an encoded value.
#[must_use]
pub fn version_of(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied()
}

fn options(limit: u64) -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(limit)
}

fn from_bincode(error: &bincode::Error, limit: u64) -> CodecError {
    match **error {
        bincode::ErrorKind::SizeLimit => CodecError::TooLarge(limit),
        _ => CodecError::Malformed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_nothing_else() {
        let bytes = encode(1, &("text", 7_u32), 100).unwrap();
        assert_eq!(decode::<(String, u32)>(1, &bytes, 100), Ok(("text".to_owned(), 7)));
        assert_eq!(decode::<u8>(1, &[], 9), Err(CodecError::Empty));
        assert!(matches!(
            decode::<u8>(2, &bytes, 100),
            Err(CodecError::UnknownVersion { found: 1, known: 2 })
        ));
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(
            decode::<(String, u32)>(1, &longer, 100),
            Err(CodecError::Malformed(_))
        ));
        assert!(matches!(
            decode::<(String, u32)>(1, &bytes[..9], 100),
            Err(CodecError::Malformed(_))
        ));
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(decode::<Vec<u64>>(1, &bytes, 1 << 20).is_err());
    }

    #[test]
    fn the_limit_is_exact() {
        let value = [0_u8; 8];
        assert!(encode(1, &value, 7).is_err());
        assert!(encode(1, &value, 8).is_ok());
        assert!(encode(1, &value, 9).is_ok());
    }
}
