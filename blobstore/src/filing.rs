//! The task that turns the journal's records into one file for each message, in the background.
//!
//! A blob leaves the journal's index only when its file is synced, has its name, and the directory is synced. Errors that
//! may pass (no space) are tried again; puts go on as long as the journal has room.

use std::sync::Arc;
use std::time::Duration;

use core_types::BlobId;

use crate::committer::{Journal, Place};
use crate::error::BlobError;
use crate::files::{Files, Prepared, Stored};
use crate::health::Health;
use crate::run::run;

/// Writes files until the store is dropped or a sync fails.
pub(crate) async fn file_all(files: Arc<Files>, journal: Arc<Journal>, health: Arc<Health>) {
    loop {
        let batch = journal.next_to_file(BATCH_BLOBS);
        if batch.is_empty() {
            journal.filing_wanted.notified().await;
            continue;
        }
        match journal.note(file_batch(&files, &journal, &health, batch).await) {
            Ok(()) => {}
            Err(BlobError::SyncFailed(_) | BlobError::Closed) => return,
            Err(error) => {
                tracing::warn!(%error, "blobs wait in the journal: their files cannot be written");
                journal.filing_failed(error);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn file_batch(
    files: &Arc<Files>,
    journal: &Arc<Journal>,
    health: &Arc<Health>,
    batch: Records,
) -> Result<(), BlobError> {
    // Several at a time: most of the time is spent in each file's sync.
    let share = batch.len().div_ceil(PARALLEL_JOBS);
    let jobs = batch.chunks(share).map(|share| {
        let (files, share) = (Arc::clone(files), share.to_vec());
        async move { run(&Arc::clone(&files.pool), move || prepare(&files, &share)).await }
    });
    let mut prepared = Vec::with_capacity(batch.len());
    let mut damaged = Vec::new();
    for result in futures_util::future::join_all(jobs).await {
        let (good, bad) = result??;
        prepared.extend(good);
        damaged.extend(bad);
    }
    let (place_files, shared) = (Arc::clone(files), Arc::clone(journal));
    let bytes = batch.iter().map(|(_, place)| place.length as u64).sum();
    let count = prepared.len() as u64;
    let lost = run(&files.pool, move || {
        place_files.place(&prepared)?;
        let ids: Vec<BlobId> = prepared.iter().map(|blob| blob.id).collect();
        Ok::<_, BlobError>(shared.filed(&ids, &damaged))
    })
    .await??;
    health.added(count, bytes);
    for id in lost {
        health.corrupt(id);
    }
    Ok(())
}

/// Blobs with their records.
type Records = Vec<(BlobId, Place)>;

/// Temporary files of these blobs, and those whose record has other bytes than it had when it was synced.
fn prepare(files: &Files, share: &[(BlobId, Place)]) -> Result<(Vec<Prepared>, Records), BlobError> {
    let mut prepared = Vec::with_capacity(share.len());
    let mut damaged = Vec::new();
    for (id, place) in share {
        let stored = match place.read()? {
            Some(file) => Stored::from_memory(*id, file).ok(),
            None => None,
        };
        match stored.map(|stored| files.prepare(&stored)) {
            Some(result) => prepared.push(result?),
            None => damaged.push((*id, place.clone())),
        }
    }
    Ok((prepared, damaged))
}

const BATCH_BLOBS: usize = 64;
const PARALLEL_JOBS: usize = 4;
const RETRY: Duration = Duration::from_secs(1);
