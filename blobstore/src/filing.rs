//! The task that turns the journal's records into one file for each message, in the background.
//!
//! A blob leaves the journal's index only when its file is synced, has its name, and the directory is synced. Errors that
//! may pass (no space) are tried again; puts go on as long as the journal has room. A record that the disk does not read is
//! tried some times, while the others go on; then it is a damaged one, and the blob is to be fetched from a replica.

use std::collections::BTreeMap;
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
    let mut attempts = Attempts::new();
    loop {
        let batch = journal.next_to_file(BATCH_BLOBS);
        if batch.is_empty() {
            journal.filing_wanted.notified().await;
            continue;
        }
        match journal.note(file_batch(&files, &journal, &health, batch, &mut attempts).await) {
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

/// Blobs with their records.
type Records = Vec<(BlobId, Place)>;
/// How often the disk refused to read a record, by segment and offset.
type Attempts = BTreeMap<(u64, u64), u32>;

/// What became of some records.
#[derive(Default)]
struct Readied {
    prepared: Vec<Prepared>,
    /// They have other bytes than they had when they were synced.
    damaged: Records,
    /// The disk did not read them.
    unread: Records,
    error: Option<BlobError>,
}

async fn file_batch(
    files: &Arc<Files>,
    journal: &Arc<Journal>,
    health: &Arc<Health>,
    batch: Records,
    attempts: &mut Attempts,
) -> Result<(), BlobError> {
    // Several at a time: most of the time is spent in each file's sync.
    let share = batch.len().div_ceil(PARALLEL_JOBS);
    let jobs = batch.chunks(share).map(|share| {
        let (files, share) = (Arc::clone(files), share.to_vec());
        async move { run(&Arc::clone(&files.pool), move || ready(&files, &share)).await }
    });
    let mut all = Readied::default();
    for result in futures_util::future::join_all(jobs).await {
        let some = result??;
        all.prepared.extend(some.prepared);
        all.damaged.extend(some.damaged);
        all.unread.extend(some.unread);
        all.error = all.error.or(some.error);
    }
    let Readied {
        prepared,
        mut damaged,
        unread,
        error,
    } = all;
    let before = std::mem::take(attempts);
    let mut waits = false;
    for (id, place) in unread {
        let key = (place.seq, place.offset);
        let count = before.get(&key).map_or(1, |count| count + 1);
        if count < READ_ATTEMPTS {
            attempts.insert(key, count);
            waits = true;
        } else {
            tracing::error!(blob = %id, "the disk does not read a record of the blob journal any more");
            damaged.push((id, place));
        }
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
    match error {
        Some(error) if waits => Err(error),
        _ => Ok(()),
    }
}

/// Temporary files of these blobs, as far as their records can be read and are right.
fn ready(files: &Files, share: &[(BlobId, Place)]) -> Result<Readied, BlobError> {
    let mut readied = Readied::default();
    for (id, place) in share {
        let file = match place.read() {
            Ok(file) => file,
            Err(error @ BlobError::Disk(_)) => {
                readied.unread.push((*id, place.clone()));
                readied.error = Some(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        match file.and_then(|file| Stored::from_memory(*id, file).ok()) {
            Some(stored) => readied.prepared.push(files.prepare(&stored)?),
            None => readied.damaged.push((*id, place.clone())),
        }
    }
    Ok(readied)
}

const BATCH_BLOBS: usize = 64;
const PARALLEL_JOBS: usize = 4;
const RETRY: Duration = Duration::from_secs(1);
/// After so many attempts a record that the disk does not read counts as damaged.
const READ_ATTEMPTS: u32 = 5;
