//! What of blobs a disk holds, seen as the store would see it if it opened now: for a look at what would survive a power loss.
//!
//! It takes over the journal as the store does, and so writes to the disk that it is given: that has to be a copy. Blocks, and
//! needs no runtime. Not here: which blobs there should be.

use std::sync::Arc;

use bytes::Bytes;
use core_types::{BlobId, BlockingPool, Disk, Entropy};

use crate::committer::Journal;
use crate::error::BlobError;
use crate::files::{Files, Stored};
use crate::store::BlobConfig;

/// See the module.
pub struct Audit {
    files: Arc<Files>,
    journal: Journal,
}

/// A pool for jobs that nobody needs: what is temporary on a copy may stay.
struct Nobody;

impl BlockingPool for Nobody {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }
}

impl Audit {
    /// Takes a look at a copy of a node's disk.
    ///
    /// # Errors
    /// Errors of the disk.
    pub fn of(copy: Arc<dyn Disk>, entropy: Arc<dyn Entropy>, config: BlobConfig) -> Result<Self, BlobError> {
        let files = Arc::new(Files::open(copy, Arc::new(Nobody), config.compress)?);
        let (journal, _) = Journal::open(Arc::clone(&files), entropy, config)?;
        Ok(Self { files, journal })
    }

    /// The blobs that are in the journal only.
    #[must_use]
    pub fn in_journal(&self) -> Vec<BlobId> {
        self.journal.ids()
    }

    /// A blob's bytes, each of them verified.
    ///
    /// # Errors
    /// [`BlobError::NotFound`], [`BlobError::Corrupt`], errors of the disk.
    pub fn read(&self, id: BlobId) -> Result<Bytes, BlobError> {
        let stored = match self.journal.place(id).map(|place| place.read()).transpose()?.flatten() {
            Some(file) => Stored::from_memory(id, file)?,
            None => self.files.open_stored(id)?,
        };
        let mut bytes = Vec::new();
        for frame in 0..stored.table.frames.len() {
            bytes.extend_from_slice(&stored.frame(frame)?);
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use platform::{FaultyDisk, SeededEntropy};

    use super::*;
    use crate::testing::{config, message, open, put};

    fn audit(disk: &FaultyDisk) -> Audit {
        let copy = FaultyDisk::new();
        copy.restore(&disk.image());
        Audit::of(Arc::new(copy), Arc::new(SeededEntropy::new(1)), config()).unwrap()
    }

    #[tokio::test]
    async fn an_audit_reads_what_is_durable_and_tells_what_is_missing_or_wrong() {
        let disk = FaultyDisk::new();
        let store = open(&disk).await;
        let (small, large) = (message(3000, 1), message(100_000, 2));
        let ids = [put(&store, &small).await.unwrap(), put(&store, &large).await.unwrap()];
        assert_eq!(audit(&disk).read(ids[0]).unwrap(), small, "from the journal");
        assert_eq!(audit(&disk).in_journal(), [ids[0]]);
        assert_eq!(audit(&disk).read(ids[1]).unwrap(), large, "from its file");
        store.flush().await.unwrap();
        drop(store);
        disk.remove_at_rest("journal");
        disk.remove_at_rest("blobs.journal");
        assert_eq!(audit(&disk).read(ids[0]).unwrap(), small, "from its file");
        let file = disk.paths().into_iter().find(|path| path.contains(&ids[1].to_string()));
        disk.flip_bit(&file.unwrap(), 1000, 3);
        assert!(matches!(audit(&disk).read(ids[1]), Err(BlobError::Corrupt(id)) if id == ids[1]));
        disk.remove_at_rest("blobs/");
        assert!(matches!(audit(&disk).read(ids[0]), Err(BlobError::NotFound(id)) if id == ids[0]));
    }
}
