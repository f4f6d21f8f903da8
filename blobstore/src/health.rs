//! What the store counts, and who is told when a blob is found to be wrong.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use core_types::BlobId;
use core_types::limits::BLOB_PAGE_MAX;

use crate::error::BlobError;
use crate::files::lock;

/// Told of each blob that has to be fetched from a replica. Must not block.
pub type CorruptHook = Arc<dyn Fn(BlobId) + Send + Sync>;

/// Counts, and the hook.
#[derive(Default)]
pub(crate) struct Health {
    blobs: AtomicU64,
    bytes: AtomicU64,
    corrupt: AtomicU64,
    journal_damage: AtomicU64,
    scrubbed: AtomicU64,
    hook: Mutex<Option<CorruptHook>>,
    /// Blobs that the disk did not read in the last scrub.
    unread: Mutex<BTreeSet<BlobId>>,
    /// Found before there was a hook.
    untold: Mutex<Vec<BlobId>>,
}

/// The store at a glance.
#[derive(Clone, Debug, Default)]
pub struct BlobStatus {
    /// Blobs with a file: those that the last walk over all files saw, and what came and went since.
    pub blobs: u64,
    /// Octets of their files, in the same way.
    pub bytes: u64,
    /// Blobs that were found to be wrong since the start.
    pub corrupt: u64,
    /// Acknowledged records of the journal that could not be read at the start.
    pub journal_damage: u64,
    /// Blobs that were read and verified by scrubbing since the start.
    pub scrubbed: u64,
    /// Blobs that are durable in the journal and have no file yet.
    pub journal_blobs: u64,
    /// Octets of them.
    pub journal_bytes: u64,
    /// Why files cannot be written at the moment.
    pub filing_error: Option<BlobError>,
    /// A sync failed: the node has to stop.
    pub sync_failed: bool,
}

impl Health {
    pub(crate) fn set_hook(&self, hook: CorruptHook) {
        *lock(&self.hook) = Some(Arc::clone(&hook));
        for id in std::mem::take(&mut *lock(&self.untold)) {
            hook(id);
        }
    }

    pub(crate) fn added(&self, blobs: u64, bytes: u64) {
        self.blobs.fetch_add(blobs, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn removed(&self, blobs: u64, bytes: u64) {
        let less = |by: u64| move |now: u64| Some(now.saturating_sub(by));
        let _ = self
            .blobs
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less(blobs));
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less(bytes));
    }

    /// What a walk over all files saw.
    pub(crate) fn counted(&self, blobs: u64, bytes: Option<u64>) {
        self.blobs.store(blobs, Ordering::Relaxed);
        if let Some(bytes) = bytes {
            self.bytes.store(bytes, Ordering::Relaxed);
        }
    }

    pub(crate) fn scrubbed(&self) {
        self.scrubbed.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes what the disk did not read in this scrub; gives what it did not read in the one before.
    pub(crate) fn replace_unread(&self, unread: BTreeSet<BlobId>) -> BTreeSet<BlobId> {
        std::mem::replace(&mut *lock(&self.unread), unread)
    }

    pub(crate) fn journal_damaged(&self, count: u64) {
        self.journal_damage.fetch_add(count, Ordering::Relaxed);
    }

    /// A blob was wrong, and is not here any more.
    pub(crate) fn corrupt(&self, id: BlobId) {
        self.corrupt.fetch_add(1, Ordering::Relaxed);
        tracing::error!(blob = %id, "a blob is corrupt here; it was set aside");
        let hook = lock(&self.hook).clone();
        match hook {
            Some(hook) => hook(id),
            None => {
                let mut untold = lock(&self.untold);
                // Whoever is left out is found by the next comparison.
                if untold.len() < BLOB_PAGE_MAX {
                    untold.push(id);
                }
            }
        }
    }

    pub(crate) fn status(&self) -> BlobStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BlobStatus {
            blobs: count(&self.blobs),
            bytes: count(&self.bytes),
            corrupt: count(&self.corrupt),
            journal_damage: count(&self.journal_damage),
            scrubbed: count(&self.scrubbed),
            ..BlobStatus::default()
        }
    }
}
