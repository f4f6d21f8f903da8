//! A state with changes on top of it that are not written yet, so that several commands can be applied one after the
//! other and then written as one batch.
//!
//! Not here: writing. Whoever made the overlay hands [`Overlay::into_batch`] to the engine.

use core_types::{Batch, KvError, KvRead};

/// A view of `base` as it will be once the batch is written.
pub struct Overlay<'a> {
    base: &'a dyn KvRead,
    batch: Batch,
}

impl<'a> Overlay<'a> {
    /// Nothing is changed yet.
    #[must_use]
    pub fn new(base: &'a dyn KvRead) -> Self {
        Self {
            base,
            batch: Batch::default(),
        }
    }

    /// Adds the changes of a batch, above those that are there.
    pub fn add(&mut self, batch: &Batch) {
        for (key, value) in batch.iter() {
            match value {
                Some(value) => self.batch.put(key, value),
                None => self.batch.delete(key),
            }
        }
    }

    /// Sets a key.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.batch.put(key, value);
    }

    /// Removes a key.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.batch.delete(key);
    }

    /// All changes so far.
    #[must_use]
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// All changes.
    #[must_use]
    pub fn into_batch(self) -> Batch {
        self.batch
    }
}

impl KvRead for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.batch.get(key) {
            Some(value) => Ok(value.map(<[u8]>::to_vec)),
            None => self.base.get(key),
        }
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        merge(
            self.batch.range(from, to),
            |a, b| a < b,
            |each| self.base.scan(from, to, each),
            visit,
        )
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        merge(
            self.batch.range(from, to).rev(),
            |a, b| a > b,
            |each| self.base.scan_back(from, to, each),
            visit,
        )
    }
}

/// Visits what `scan_base` visits, with the changes put between and instead; both come in the order of `precedes`.
fn merge<'b>(
    changes: impl Iterator<Item = (&'b [u8], Option<&'b [u8]>)>,
    precedes: impl Fn(&[u8], &[u8]) -> bool,
    scan_base: impl FnOnce(&mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError>,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), KvError> {
    let mut changes = changes.peekable();
    let mut wants_more = true;
    scan_base(&mut |key, value| {
        while let Some((changed, new)) = changes.next_if(|(changed, _)| precedes(changed, key)) {
            if let Some(new) = new {
                wants_more = visit(changed, new);
                if !wants_more {
                    return false;
                }
            }
        }
        wants_more = match changes.next_if(|(changed, _)| *changed == key) {
            Some((_, Some(new))) => visit(key, new),
            Some((_, None)) => true,
            None => visit(key, value),
        };
        wants_more
    })?;
    if wants_more {
        for (key, value) in changes {
            if let Some(value) = value
                && !visit(key, value)
            {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use core_types::KvEngine;
    use proptest::prelude::*;

    use super::*;
    use crate::memory_engine::MemoryEngine;

    fn listed(view: &dyn KvRead, from: u8, to: u8, limit: usize, back: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            entries.push((key.to_vec(), value.to_vec()));
            entries.len() < limit
        };
        let done = if back {
            view.scan_back(&[from], &[to], &mut visit)
        } else {
            view.scan(&[from], &[to], &mut visit)
        };
        assert!(done.is_ok());
        entries
    }

    proptest! {
        #[test]
        fn an_overlay_reads_like_the_engine_after_the_write(
            base in prop::collection::vec((0_u8..12, any::<u8>()), 0..12),
            changes in prop::collection::vec((0_u8..12, prop::option::of(any::<u8>())), 0..12),
            from in 0_u8..12, to in 0_u8..13, limit in 1_usize..14, back: bool,
        ) {
            let engine = MemoryEngine::default();
            let mut batch = Batch::default();
            base.iter().for_each(|(key, value)| batch.put([*key], [*value]));
            engine.write(&batch).unwrap();
            let mut batch = Batch::default();
            for (key, value) in &changes {
                match value {
                    Some(value) => batch.put([*key], [*value]),
                    None => batch.delete([*key]),
                }
            }
            let mut overlay = Overlay::new(&engine);
            overlay.add(&batch);
            let seen = listed(&overlay, from, to, limit, back);
            let gets: Vec<_> = (0..12).map(|key| overlay.get(&[key]).unwrap()).collect();
            let batch = overlay.into_batch();
            engine.write(&batch).unwrap();
            prop_assert_eq!(seen, listed(&engine, from, to, limit, back));
            prop_assert_eq!(gets, (0..12).map(|key| engine.get(&[key]).unwrap()).collect::<Vec<_>>());
        }
    }
}
