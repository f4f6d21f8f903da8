//! An index engine in memory that can be as a crash leaves one: for the simulation and for tests.
//!
//! Not here: torn batches. An engine applies a batch as a whole or not at all; what sled makes of torn pages is tested with sled.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_types::{Batch, Entropy, KvEngine, KvError, KvRead};

use crate::MemoryEngine;

/// An index in memory that remembers its batches, so that a crash can leave any state of it since its last checkpoint.
#[derive(Default)]
pub struct KeptEngine {
    rows: MemoryEngine,
    written: Mutex<Vec<Batch>>,
    /// How many batches were written when the last checkpoint began.
    durable: AtomicUsize,
}

impl KeptEngine {
    fn lock(&self) -> MutexGuard<'_, Vec<Batch>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many batches were written.
    #[must_use]
    pub fn written(&self) -> usize {
        self.lock().len()
    }

    /// What it was after so many batches.
    ///
    /// # Errors
    /// [`KvError`]
    pub fn after(&self, batches: usize) -> Result<Arc<Self>, KvError> {
        let written = self.lock();
        let left = Self::default();
        for batch in written.iter().take(batches) {
            left.write(batch)?;
        }
        left.checkpoint()?;
        Ok(Arc::new(left))
    }

    /// What is left of it after a power loss: all, what it was after some batch since the last checkpoint, or nothing, as
    /// when it is found to be damaged.
    ///
    /// # Errors
    /// [`KvError`]
    pub fn after_power_loss(&self, entropy: &dyn Entropy) -> Result<Arc<Self>, KvError> {
        let (written, durable) = (self.written(), self.durable.load(Ordering::Relaxed));
        let since = written.saturating_sub(durable) as u64;
        self.after(match entropy.below(4) {
            0 => 0,
            1 => written,
            _ => durable.saturating_add(usize::try_from(entropy.below(since + 1)).unwrap_or(0)),
        })
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
        let mut written = self.lock();
        self.rows.write(batch)?;
        written.push(batch.clone());
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), KvError> {
        self.durable.store(self.written(), Ordering::Relaxed);
        Ok(())
    }

    fn size_bytes(&self) -> Result<u64, KvError> {
        self.rows.size_bytes()
    }
}
