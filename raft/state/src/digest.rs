//! The proof that copies agree: a digest of all rows that is kept up to date with each change.
//!
//! It is the sum of the hashes of all rows, as four counters that wrap: adding a row and taking it away again leaves no
//! trace, and the order of changes does not matter. It guards against defects and damage, not against an adversary who
//! chooses rows (a sum of hashes can be forged with much effort).

use core_types::{AccountId, Batch, KvRead};
use serde::{Deserialize, Serialize};

use crate::keys::{self, Space};
use crate::rows::MailboxRow;
use crate::store::{self, ReadError};

/// A sum of hashes of rows.
pub type Digest = [u64; 4];

/// Adds a row.
pub(crate) fn add(digest: &mut Digest, key: &[u8], value: &[u8]) {
    for (sum, term) in digest.iter_mut().zip(hash(key, value)) {
        *sum = sum.wrapping_add(term);
    }
}

/// Takes a row away that was added.
pub(crate) fn subtract(digest: &mut Digest, key: &[u8], value: &[u8]) {
    for (sum, term) in digest.iter_mut().zip(hash(key, value)) {
        *sum = sum.wrapping_sub(term);
    }
}

/// The digest of a group's state as it is stored.
///
/// # Errors
/// [`ReadError`].
pub fn stored(view: &dyn KvRead) -> Result<Digest, ReadError> {
    Ok(store::load(view, &keys::digest())?.unwrap_or_default())
}

/// The digest of a group's state, made from all its rows anew: what [`stored`] must be.
///
/// `view` shows the group's logical keys only. Costs a read of everything.
///
/// # Errors
/// [`ReadError`].
pub fn recomputed(view: &dyn KvRead) -> Result<Digest, ReadError> {
    let digest_key = keys::digest();
    let mut digest = Digest::default();
    view.scan(&[], &[0xFF], &mut |key, value| {
        if key != digest_key {
            add(&mut digest, key, value);
        }
        true
    })?;
    Ok(digest)
}

/// The digest of one mailbox's rows: itself, its messages, its changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MailboxDigest {
    /// Whose.
    pub account: AccountId,
    /// The mailbox's name.
    pub name: String,
    /// Of its rows.
    pub digest: Digest,
}

/// The digest of each mailbox of a group, made from all rows, in no particular order: tells which of them differ when the
/// group's digests do.
///
/// `view` shows the group's logical keys only. Costs a read of everything.
///
/// # Errors
/// [`ReadError`].
pub fn of_mailboxes(view: &dyn KvRead) -> Result<Vec<MailboxDigest>, ReadError> {
    let mailboxes: Vec<MailboxRow> = store::list(view, &Space::Mailbox.range(&[]), usize::MAX)?;
    let mut digests = Vec::with_capacity(mailboxes.len());
    for mailbox in mailboxes {
        let mut digest = Digest::default();
        for space in [Space::Mailbox, Space::Message, Space::Change] {
            let (from, to) = space.range(&[&mailbox.guid.0]);
            view.scan(&from, &to, &mut |key, value| {
                add(&mut digest, key, value);
                true
            })?;
        }
        digests.push(MailboxDigest {
            account: mailbox.account,
            name: mailbox.name.to_string(),
            digest,
        });
    }
    Ok(digests)
}

/// Makes the digest in `batch` that of the state of which `view` is the old one.
pub(crate) fn update(view: &dyn KvRead, batch: &mut Batch) -> Result<(), ReadError> {
    let mut digest = stored(view)?;
    for (key, value) in batch.iter() {
        let old = view.get(key)?;
        if old.as_deref() == value {
            continue;
        }
        if let Some(old) = old {
            subtract(&mut digest, key, &old);
        }
        if let Some(value) = value {
            add(&mut digest, key, value);
        }
    }
    let bytes = store::encode(&digest).map_err(|error| ReadError::Corrupt(error.to_string()))?;
    batch.put(keys::digest(), bytes);
    Ok(())
}

fn hash(key: &[u8], value: &[u8]) -> impl Iterator<Item = u64> {
    let mut hasher = blake3::Hasher::new();
    // The length keeps (key, value) apart from any other division of the same bytes.
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    let hash = *hasher.finalize().as_bytes();
    let words: Vec<u64> = hash
        .as_chunks::<8>()
        .0
        .iter()
        .map(|word| u64::from_le_bytes(*word))
        .collect();
    words.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_knows_rows_but_not_their_order() {
        let mut one = Digest::default();
        add(&mut one, b"a", b"1");
        add(&mut one, b"b", b"2");
        let mut other = Digest::default();
        add(&mut other, b"b", b"2");
        add(&mut other, b"c", b"3");
        add(&mut other, b"a", b"1");
        assert_ne!(one, other);
        subtract(&mut other, b"c", b"3");
        assert_eq!(one, other);
        let (mut left, mut right) = (Digest::default(), Digest::default());
        add(&mut left, b"ab", b"c");
        add(&mut right, b"a", b"bc");
        assert_ne!(left, right);
    }
}
