//! An index engine in memory, for the simulation and for tests: nothing in it survives the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use core_types::{Batch, KvEngine, KvError, KvRead};

/// A sorted map behind a lock. A scan holds the lock: it sees one state, and `visit` must not write.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    entries: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryEngine {
    /// Everything in it, in key order.
    #[must_use]
    pub fn entries(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.read().clone()
    }

    // A map is never left half changed by a panic, since no foreign code runs while it is written.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KvRead for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.read().get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        let entries = self.read();
        let mut range = entries.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to.max(from))));
        while range.next().is_some_and(|(key, value)| visit(key, value)) {}
        Ok(())
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        let entries = self.read();
        let mut range = entries.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to.max(from))));
        while range.next_back().is_some_and(|(key, value)| visit(key, value)) {}
        Ok(())
    }
}

impl KvEngine for MemoryEngine {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch.iter() {
            match value {
                Some(value) => entries.insert(key.to_vec(), value.to_vec()),
                None => entries.remove(key),
            };
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, KvError> {
        Ok(self
            .read()
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_ends_before_it_begins_is_empty() {
        let engine = MemoryEngine::default();
        let mut batch = Batch::default();
        batch.put(*b"b", *b"1");
        engine.write(&batch).unwrap();
        let mut seen = 0;
        engine
            .scan(b"c", b"a", &mut |_, _| {
                seen += 1;
                true
            })
            .unwrap();
        engine
            .scan_back(b"c", b"a", &mut |_, _| {
                seen += 1;
                true
            })
            .unwrap();
        assert_eq!(seen, 0);
        assert_eq!(engine.size_bytes().unwrap(), 2);
    }
}
