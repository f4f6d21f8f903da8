//! Rows to and from the bytes of a view.
//!
//! Every row is `core_types::codec` version [`VERSION`]. A row that does not decode is damage, never ignored.

use core_types::codec::{self, CodecError};
use core_types::limits::ENTRY_BYTES_MAX;
use core_types::{KvError, KvRead};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a state could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine failed.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A row does not decode, or rows contradict each other. The replica must be closed and repaired.
    #[error("state damaged: {0}")]
    Corrupt(String),
}

/// The version of all rows.
pub(crate) const VERSION: u8 = 1;

/// Octets of one row. An outcome names at most every message of its op twice, and so stays near the size of an entry.
const ROW_BYTES_MAX: u64 = 4 * ENTRY_BYTES_MAX;

pub(crate) fn encode<T: Serialize + ?Sized>(row: &T) -> Result<Vec<u8>, CodecError> {
    codec::encode(VERSION, row, ROW_BYTES_MAX)
}

pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, ReadError> {
    codec::decode(VERSION, bytes, ROW_BYTES_MAX).map_err(|error| corrupt(key, &error.to_string()))
}

/// The row at a key.
pub(crate) fn load<T: DeserializeOwned>(view: &dyn KvRead, key: &[u8]) -> Result<Option<T>, ReadError> {
    view.get(key)?.map(|bytes| decode(key, &bytes)).transpose()
}

/// Gets a key and its row; whether it wants more.
pub(crate) type Visit<'v, T> = dyn FnMut(&[u8], T) -> Result<bool, ReadError> + 'v;

/// Visits the rows of a range until `visit` returns `false`.
pub(crate) fn scan<T: DeserializeOwned>(
    view: &dyn KvRead,
    (from, to): &(Vec<u8>, Vec<u8>),
    visit: &mut Visit<'_, T>,
) -> Result<(), ReadError> {
    let mut result = Ok(());
    view.scan(from, to, &mut |key, bytes| {
        decode(key, bytes)
            .and_then(|row| visit(key, row))
            .unwrap_or_else(|error| {
                result = Err(error);
                false
            })
    })?;
    result
}

/// At most `limit` rows of a range.
pub(crate) fn list<T: DeserializeOwned>(
    view: &dyn KvRead,
    range: &(Vec<u8>, Vec<u8>),
    limit: usize,
) -> Result<Vec<T>, ReadError> {
    let mut rows = Vec::new();
    if limit > 0 {
        scan(view, range, &mut |_, row| {
            rows.push(row);
            Ok(rows.len() < limit)
        })?;
    }
    Ok(rows)
}

/// At most `limit` keys of a range.
pub(crate) fn keys(
    view: &dyn KvRead,
    (from, to): &(Vec<u8>, Vec<u8>),
    limit: usize,
) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut keys = Vec::new();
    if limit > 0 {
        view.scan(from, to, &mut |key, _| {
            keys.push(key.to_vec());
            keys.len() < limit
        })?;
    }
    Ok(keys)
}

/// The fixed part of a key that begins at `at`.
pub(crate) fn part<const LENGTH: usize>(key: &[u8], at: usize) -> Result<[u8; LENGTH], ReadError> {
    key.get(at..at + LENGTH)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| corrupt(key, "short key"))
}

/// What follows the fixed parts of a key, as text.
pub(crate) fn text(key: &[u8], at: usize) -> Result<&str, ReadError> {
    key.get(at..)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or_else(|| corrupt(key, "a name that is not UTF-8"))
}

pub(crate) fn corrupt(key: &[u8], what: &str) -> ReadError {
    use std::fmt::Write;
    let mut text = String::with_capacity(key.len() * 2 + what.len() + 6);
    for byte in key {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    ReadError::Corrupt(format!("row {text}: {what}"))
}
