//! Walks over all blobs of this node: scrubbing, and collecting what nothing refers to.
//!
//! Deletion never rests on one look: a blob without a reference is marked, the grace time has to pass, and it is looked at
//! again while puts of it wait. Both walks go directory by directory and hold no more than one directory's names.
//!
//! Not here: when they run, and what refers to blobs (the node knows).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use core_types::BlobId;
use core_types::limits::BLOB_MARKS_MAX;
use futures_util::future::BoxFuture;

use crate::BlobStore;
use crate::error::BlobError;
use crate::run::run;

/// Whether anything of this node refers to a blob: groups, islands, spool, queue, staging, retained messages.
pub type IsReferenced = Arc<dyn Fn(BlobId) -> BoxFuture<'static, Result<bool, BlobError>> + Send + Sync>;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Blobs that were looked at.
    pub checked: u64,
    /// Blobs that are marked now.
    pub marked: u64,
    /// Blobs that were removed.
    pub removed: u64,
    /// Octets that they took.
    pub removed_bytes: u64,
    /// Nothing was done: it was not permitted, or the grace time after the start is not over.
    pub held: bool,
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Blobs that were read and verified.
    pub checked: u64,
    /// Octets that were read.
    pub bytes: u64,
    /// Blobs that were wrong and set aside.
    pub corrupt: u64,
    /// Blobs that could not be read now.
    pub failed: u64,
}

impl BlobStore {
    /// Collects once. `permitted`: every group of the node is open, caught up and digest-clean.
    ///
    /// # Errors
    /// What `is_referenced` gives (then nothing more is removed), and errors of the disk.
    pub async fn collect_pass(&self, is_referenced: IsReferenced, permitted: bool) -> Result<CollectReport, BlobError> {
        let mut report = CollectReport::default();
        self.pins().prune();
        if !permitted || self.pins().all_pinned() {
            report.held = true;
            return Ok(report);
        }
        let mut walk = self.walk();
        while let Some(ids) = walk.next().await? {
            report.checked += ids.len() as u64;
            let (mut referenced, mut unreferenced) = (Vec::new(), Vec::new());
            for id in ids {
                if is_referenced(id).await? {
                    referenced.push(id)
                } else {
                    unreferenced.push(id)
                }
            }
            for id in referenced {
                self.pins().unmark(id);
            }
            for id in unreferenced {
                if self.pins().mark(id, BLOB_MARKS_MAX)
                    && let Some(bytes) = self.remove_unreferenced(id, &is_referenced).await?
                {
                    report.removed += 1;
                    report.removed_bytes += bytes;
                }
            }
        }
        self.health().counted(report.checked - report.removed, None);
        report.marked = self.pins().marked_count();
        Ok(report)
    }

    /// Looks a last time and removes.
    async fn remove_unreferenced(&self, id: BlobId, is_referenced: &IsReferenced) -> Result<Option<u64>, BlobError> {
        let Some(_removal) = self.pins().begin_removal(id) else {
            return Ok(None);
        };
        if self.is_in_journal(id) {
            return Ok(None);
        }
        if is_referenced(id).await? {
            return Ok(None);
        }
        let files = Arc::clone(self.files());
        let removed = run(self.pool(), move || files.remove(id).map(Some)).await??;
        if let Some(bytes) = removed {
            tracing::info!(blob = %id, bytes, "collected");
            self.health().removed(1, bytes);
        }
        Ok(removed)
    }

    /// Reads and verifies every blob, at `bytes_per_second` at most (0: without a limit). One that the disk does not read in
    /// two passes, one after the other, is set aside like a wrong one.
    ///
    /// # Errors
    /// When the directories cannot be read.
    pub async fn scrub_pass(&self, bytes_per_second: u64) -> Result<ScrubReport, BlobError> {
        let mut report = ScrubReport::default();
        let mut unread = BTreeSet::new();
        let mut walk = self.walk();
        while let Some(ids) = walk.next().await? {
            for id in ids {
                let bytes = match self.verify(id).await {
                    Ok(bytes) => bytes,
                    // Collected meanwhile.
                    Err(BlobError::NotFound(_)) => continue,
                    Err(BlobError::Corrupt(_)) => {
                        report.corrupt += 1;
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(blob = %id, %error, "a blob could not be read");
                        report.failed += 1;
                        if matches!(error, BlobError::Disk(_)) && unread.len() < BLOB_MARKS_MAX {
                            unread.insert(id);
                        }
                        continue;
                    }
                };
                self.health().scrubbed();
                report.checked += 1;
                report.bytes += bytes;
                if let Some(millis) = bytes.saturating_mul(1000).checked_div(bytes_per_second) {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                }
            }
        }
        let before = self.health().replace_unread(unread.clone());
        // Of a disk that reads hardly anything nothing is believed: it may be its controller.
        if report.failed < report.checked {
            for id in unread.intersection(&before) {
                if self.set_unread_aside(*id).await? {
                    report.failed -= 1;
                    report.corrupt += 1;
                }
            }
        }
        self.health().counted(report.checked, Some(report.bytes));
        Ok(report)
    }

    /// All blobs that have a file, by directory.
    #[must_use]
    pub fn walk(&self) -> Walk {
        Walk {
            store: self.clone(),
            next_first: 0,
            seconds: Vec::new(),
        }
    }
}

/// Goes through all blobs that have a file. What comes or goes meanwhile may or may not be seen.
pub struct Walk {
    store: BlobStore,
    next_first: u16,
    /// What is left of the current first directory, last one first.
    seconds: Vec<(u8, u8)>,
}

impl Walk {
    /// The blobs of the next directory that has any; `None` at the end.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn next(&mut self) -> Result<Option<Vec<BlobId>>, BlobError> {
        loop {
            if let Some((first, second)) = self.seconds.pop() {
                let files = Arc::clone(self.store.files());
                let ids = run(self.store.pool(), move || files.list(first, second)).await??;
                if !ids.is_empty() {
                    return Ok(Some(ids));
                }
                continue;
            }
            let Ok(first) = u8::try_from(self.next_first) else {
                return Ok(None);
            };
            self.next_first += 1;
            let files = Arc::clone(self.store.files());
            let seconds = run(self.store.pool(), move || files.list_seconds(first)).await??;
            self.seconds = seconds.into_iter().rev().map(|second| (first, second)).collect();
        }
    }
}

#[cfg(test)]
mod tests;
