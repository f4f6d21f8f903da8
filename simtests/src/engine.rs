//! The index in memory, as a crash leaves it.

use std::sync::{Arc, Mutex};

use core_types::{Batch, Entropy, KvEngine, KvError, KvRead};
use state::MemoryEngine;

/// An index in memory that remembers its batches, so that a crash can leave any earlier state of it.
#[derive(Default)]
pub struct KeptEngine {
    rows: MemoryEngine,
    written: Mutex<Vec<Batch>>,
}

impl KeptEngine {
    /// What is left of it after a power loss: all, nothing, or what it was after some batch.
    ///
    /// # Errors
    /// [`KvError`]
    pub fn after_power_loss(&self, entropy: &dyn Entropy) -> Result<Arc<Self>, KvError> {
        let written = self.written.lock().expect("nobody panics with the index");
        let kept = match entropy.below(4) {
            0 => 0,
            1 => written.len(),
            _ => usize::try_from(entropy.below(written.len() as u64 + 1)).unwrap_or(0),
        };
        let left = Self::default();
        for batch in written.iter().take(kept) {
            left.write(batch)?;
        }
        Ok(Arc::new(left))
    }
}

impl KvRead for KeptEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.rows.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        self.rows.scan(from, to, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        self.rows.scan_back(from, to, visit)
    }
}

impl KvEngine for KeptEngine {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        let mut written = self.written.lock().expect("nobody panics with the index");
        self.rows.write(batch)?;
        written.push(batch.clone());
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, KvError> {
        self.rows.size_bytes()
    }
}
