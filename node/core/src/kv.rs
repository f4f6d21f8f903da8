//! The index engine as the state machines see it: one sorted map of bytes, changed by atomic batches.
//!
//! Everything in it can be rebuilt from snapshot and log, so a write need not be durable when it returns;
//! [`KvEngine::checkpoint`] makes it so, and only then may the log be purged. Spaces are byte prefixes of keys, never
//! the engine's own trees, because a batch must be atomic over all of them.

/// A sorted map of byte strings that can be read.
pub trait KvRead: Send + Sync {
    /// The value at a key.
    ///
    /// # Errors
    /// [`KvError`] when the engine fails or finds itself damaged.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Calls `visit(key, value)` for the entries with `from <= key < to` in ascending order, until it returns `false`.
    ///
    /// # Errors
    /// [`KvError`] when the engine fails or finds itself damaged.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError>;

    /// The same in descending order: it begins with the greatest key below `to`.
    ///
    /// # Errors
    /// [`KvError`] when the engine fails or finds itself damaged.
    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError>;
}

/// A sorted map of byte strings on which batches are written.
pub trait KvEngine: KvRead + 'static {
    /// Applies the whole batch, or, after a crash, none of it.
    ///
    /// # Errors
    /// [`KvError`]; the batch may or may not have been applied, and the engine must not be used further.
    fn write(&self, batch: &Batch) -> Result<(), KvError>;

    /// Makes every batch written so far durable.
    ///
    /// # Errors
    /// [`KvError`]; the engine must not be used further.
    fn checkpoint(&self) -> Result<(), KvError>;

    /// A checkpoint after which nothing is written any more: what an orderly stop ends with.
    ///
    /// # Errors
    /// [`KvError`]; what is stored is then as after a crash.
    fn close(&self) -> Result<(), KvError> {
        self.checkpoint()
    }

    /// What was found damaged while the engine was used. The node stops then: the engine is made anew at its next start.
    fn damage(&self) -> Option<String> {
        None
    }

    /// About how many bytes the engine occupies on disk.
    ///
    /// # Errors
    /// [`KvError`] when the engine fails.
    fn size_bytes(&self) -> Result<u64, KvError>;
}

/// Puts and deletions that happen together. A later entry for a key replaces an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    entries: std::collections::BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.entries.insert(key.into(), Some(value.into()));
    }

    /// Removes a key; nothing if it is not there.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.entries.insert(key.into(), None);
    }

    /// What the batch says of a key: `None` nothing, `Some(None)` removed, `Some(Some(value))` set.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.entries.get(key).map(Option::as_deref)
    }

    /// The entries in key order; a value of `None` is a deletion.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], Option<&[u8]>)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// The entries with `from <= key < to`, in key order.
    pub fn range(&self, from: &[u8], to: &[u8]) -> impl DoubleEndedIterator<Item = (&[u8], Option<&[u8]>)> {
        use std::ops::Bound;
        let to = to.max(from);
        self.entries
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// How many keys the batch touches.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the batch changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The end of the keys that begin with `prefix`: the least key above all of them. `None` when there is none (a prefix
/// of 0xFF only).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut end = prefix.get(..=kept)?.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Some(end)
}

/// Why the index engine could not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KvError {
    /// What is stored does not verify: the index is set aside and rebuilt.
    #[error("index damaged: {0}")]
    Damaged(String),
    /// The system refused a read or a write.
    #[error("index input/output: {0}")]
    Io(String),
    /// No space left.
    #[error("index: no space left on the disk")]
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_above_all_its_keys() {
        assert_eq!(prefix_end(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_end(&[1, 0xFF, 0xFF]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xFF]), None);
    }

    #[test]
    fn the_later_entry_of_a_batch_wins() {
        let mut batch = Batch::default();
        batch.put(*b"k", *b"1");
        batch.delete(*b"k");
        assert_eq!(batch.get(b"k"), Some(None));
        assert_eq!(batch.get(b"other"), None);
        assert_eq!(batch.len(), 1);
    }
}
