//! The store of one node: put, open, status.
//!
//! Invariant: [`BlobStore::put`] returns only when the blob is durable here, in the journal or as a file with a synced
//! name, and what was there already was verified to the last octet. After a failed sync it takes nothing any more.
//!
//! Not here: other nodes (see `replicator`), which blobs are wanted.

use std::sync::Arc;
use std::time::Duration;

use core_types::limits::{
    BLOB_BATCH_BYTES_MAX, BLOB_GRACE, BLOB_INLINE_BYTES_MAX, BLOB_JOURNAL_SEGMENT_BYTES, BLOB_JOURNAL_SEGMENTS,
    BLOB_RESERVE_BYTES, MESSAGE_MEMORY_BYTES_MAX,
};
use core_types::{BlobId, BlockingPool, Disk, Entropy};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::committer::{Append, Journal};
use crate::error::BlobError;
use crate::files::{Files, Stored};
use crate::filing::file_all;
use crate::health::{BlobStatus, CorruptHook, Health};
use crate::pins::Pins;
use crate::reader::BlobReader;
use crate::run::run;
use crate::writer::{BlobWriter, Encoded, Sealed};

/// What can be chosen; the default is for production.
#[derive(Clone, Debug)]
pub struct BlobConfig {
    /// Whether files are compressed. What is there already is read either way.
    pub compress: bool,
    /// Octets of a segment of the journal: more than the largest record.
    pub journal_segment_bytes: u32,
    /// Segments of the journal.
    pub journal_segments: u32,
    /// Encoded octets up to which a blob goes through the journal.
    pub inline_bytes_max: usize,
    /// Octets of a message that a writer keeps in memory.
    pub memory_bytes_max: usize,
    /// Octets of one batch of the journal.
    pub batch_bytes_max: usize,
    /// Octets of disk that are left free.
    pub reserve_bytes: u64,
    /// How long a put protects a blob, and how long an unreferenced one stays.
    pub grace: Duration,
}

impl Default for BlobConfig {
    fn default() -> Self {
        Self {
            compress: true,
            journal_segment_bytes: BLOB_JOURNAL_SEGMENT_BYTES,
            journal_segments: BLOB_JOURNAL_SEGMENTS,
            inline_bytes_max: BLOB_INLINE_BYTES_MAX,
            memory_bytes_max: MESSAGE_MEMORY_BYTES_MAX,
            batch_bytes_max: BLOB_BATCH_BYTES_MAX,
            reserve_bytes: BLOB_RESERVE_BYTES,
            grace: BLOB_GRACE,
        }
    }
}

/// The blobs of one node. Clones are the same store.
#[derive(Clone)]
pub struct BlobStore(Arc<Inner>);

struct Inner {
    files: Arc<Files>,
    journal: Arc<Journal>,
    appends: mpsc::Sender<Append>,
    pins: Pins,
    health: Arc<Health>,
    config: BlobConfig,
    filing: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The committer ends by itself when its channel closes.
        self.filing.abort();
    }
}

impl BlobStore {
    /// Opens the store, makes it where there is none, and takes over what the journal holds. Needs a tokio runtime, on
    /// which its two tasks run until the last clone is dropped.
    ///
    /// # Errors
    /// Errors of the disk. Damage in the journal is no error: it is counted in [`BlobStore::status`].
    pub async fn open(
        mut config: BlobConfig,
        disk: Arc<dyn Disk>,
        pool: Arc<dyn BlockingPool>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, BlobError> {
        // A record that fits no segment could never be written.
        let segment_bytes = usize::try_from(config.journal_segment_bytes).unwrap_or(usize::MAX);
        config.inline_bytes_max = config
            .inline_bytes_max
            .min(segment_bytes.saturating_sub(RECORD_OVERHEAD_BYTES));
        let (job_pool, job_config) = (Arc::clone(&pool), config.clone());
        let opened = run(&pool, move || {
            let files = Arc::new(Files::open(disk, job_pool, job_config.compress)?);
            let (journal, replay) = Journal::open(Arc::clone(&files), entropy, job_config)?;
            Ok::<_, BlobError>((files, Arc::new(journal), replay))
        });
        let (files, journal, replay) = opened.await??;
        let health = Arc::new(Health::default());
        if replay.blobs > 0 {
            tracing::info!(blobs = replay.blobs, "blobs from the journal get their files now");
        }
        let damage = replay.holes + replay.damaged.len() as u64;
        if damage > 0 {
            tracing::error!(damage, "acknowledged records of the blob journal cannot be read");
            health.journal_damaged(damage);
        }
        for id in replay.damaged {
            health.corrupt(id);
        }
        let (appends, receiver) = mpsc::channel(APPENDS_WAITING_MAX);
        tokio::spawn(Arc::clone(&journal).commit_all(receiver));
        let filing =
            tokio::spawn(file_all(Arc::clone(&files), Arc::clone(&journal), Arc::clone(&health))).abort_handle();
        let pins = Pins::new(config.grace);
        Ok(Self(Arc::new(Inner {
            files,
            journal,
            appends,
            pins,
            health,
            config,
            filing,
        })))
    }

    /// Who is told of blobs that turn out to be wrong, to have them fetched again. It must not block.
    pub fn set_corrupt_hook(&self, hook: CorruptHook) {
        self.0.health.set_hook(hook);
    }

    /// Begins to take a message in.
    #[must_use]
    pub fn writer(&self) -> BlobWriter {
        BlobWriter::new(Arc::clone(&self.0.files), self.0.config.memory_bytes_max)
    }

    /// Makes a blob durable here and pins it.
    ///
    /// # Errors
    /// [`BlobError::Full`], which may pass; [`BlobError::SyncFailed`], after which the node has to stop.
    pub async fn put(&self, sealed: &Sealed) -> Result<(), BlobError> {
        let id = sealed.id();
        self.0.journal.check()?;
        self.0.pins.pin(id).await;
        if self.is_whole(id).await? {
            return Ok(());
        }
        match sealed.encoded() {
            Encoded::Memory(file) if file.len() <= self.0.config.inline_bytes_max => {
                let (done, answer) = oneshot::channel();
                let append = Append {
                    id,
                    file: file.clone(),
                    done,
                };
                self.0.appends.send(append).await.map_err(|_| BlobError::Closed)?;
                answer.await.map_err(|_| BlobError::Closed)??;
            }
            encoded => {
                let (files, stored, encoded) = (Arc::clone(&self.0.files), sealed.stored().clone(), encoded.clone());
                let reserve = self.0.config.reserve_bytes;
                let length = sealed.encoded_len();
                let placed = run(&self.0.files.pool, move || {
                    if files.disk.free_bytes()? < reserve {
                        return Err(BlobError::Full);
                    }
                    let prepared = match &encoded {
                        Encoded::Memory(_) => files.prepare(&stored)?,
                        Encoded::TempFile(temp) => files.prepare_temp(&stored, &temp.0)?,
                    };
                    files.place(&[prepared])
                });
                self.0.journal.note(placed.await?)?;
                self.0.health.added(1, length);
            }
        }
        self.0.pins.pin(id).await;
        Ok(())
    }

    /// Octets that are free on the disk, those that are left free included.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn free_bytes(&self) -> Result<u64, BlobError> {
        let files = Arc::clone(&self.0.files);
        Ok(run(self.pool(), move || files.disk.free_bytes()).await??)
    }

    /// Whether a blob is here, without looking into it.
    ///
    /// # Errors
    /// [`BlobError::Closed`].
    pub async fn has(&self, id: BlobId) -> Result<bool, BlobError> {
        if self.0.journal.place(id).is_some() {
            return Ok(true);
        }
        let files = Arc::clone(&self.0.files);
        run(self.pool(), move || files.exists(id)).await
    }

    /// For each of these blobs whether it is here, without looking into it.
    ///
    /// # Errors
    /// [`BlobError::Closed`].
    pub async fn has_all(&self, ids: Vec<BlobId>) -> Result<Vec<bool>, BlobError> {
        let (files, journal) = (Arc::clone(&self.0.files), Arc::clone(&self.0.journal));
        run(self.pool(), move || {
            ids.iter()
                .map(|id| journal.place(*id).is_some() || files.exists(*id))
                .collect()
        })
        .await
    }

    /// Opens a blob to read it.
    ///
    /// # Errors
    /// [`BlobError::NotFound`]; [`BlobError::Corrupt`], after which the file is set aside.
    pub async fn open_blob(&self, id: BlobId) -> Result<BlobReader, BlobError> {
        let stored = self.stored(id).await?;
        Ok(BlobReader::local(self.clone(), stored, None))
    }

    /// Verifies a blob's file to the last octet; octets of its frames on disk. A wrong one is set aside.
    ///
    /// # Errors
    /// As [`BlobStore::open_blob`].
    pub async fn verify(&self, id: BlobId) -> Result<u64, BlobError> {
        let files = Arc::clone(&self.0.files);
        let verified = run(self.pool(), move || files.verify(id)).await?;
        if matches!(verified, Err(BlobError::Corrupt(_))) {
            self.set_aside(id).await?;
        }
        verified
    }

    /// Counts.
    #[must_use]
    pub fn status(&self) -> BlobStatus {
        let (journal_blobs, journal_bytes) = self.0.journal.backlog();
        BlobStatus {
            journal_blobs,
            journal_bytes,
            filing_error: self.0.journal.filing_error(),
            sync_failed: self.0.journal.check().is_err(),
            ..self.0.health.status()
        }
    }

    /// Waits until every blob of the journal has its file: for an orderly stop, and tests.
    ///
    /// # Errors
    /// Why files cannot be written.
    pub async fn flush(&self) -> Result<(), BlobError> {
        loop {
            let progress = self.0.journal.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            self.0.journal.check()?;
            if self.0.journal.backlog().0 == 0 {
                return Ok(());
            }
            if let Some(error) = self.0.journal.filing_error() {
                return Err(error);
            }
            self.0.journal.filing_wanted.notify_one();
            progress.await;
        }
    }

    /// Waits for a failed sync, and gives its reason: the node has to stop then.
    pub async fn sync_failed(&self) -> String {
        loop {
            let noted = self.0.journal.poison_noted.notified();
            tokio::pin!(noted);
            noted.as_mut().enable();
            if let Err(BlobError::SyncFailed(reason)) = self.0.journal.check() {
                return reason;
            }
            noted.await;
        }
    }

    /// The encoded blob, from the journal or its file.
    pub(crate) async fn stored(&self, id: BlobId) -> Result<Stored, BlobError> {
        if let Some(place) = self.0.journal.place(id) {
            // When the segment was used again meanwhile, the file is there.
            if let Some(file) = run(self.pool(), move || place.read()).await?? {
                return Stored::from_memory(id, file).map_err(|_| BlobError::Corrupt(id));
            }
        }
        let files = Arc::clone(&self.0.files);
        let stored = run(self.pool(), move || files.open_stored(id)).await?;
        if matches!(stored, Err(BlobError::Corrupt(_))) {
            self.set_aside(id).await?;
        }
        stored
    }

    /// Sets a blob's file aside, if it is wrong indeed, and has it fetched again.
    pub(crate) async fn set_aside(&self, id: BlobId) -> Result<(), BlobError> {
        self.quarantine(id, false).await.map(drop)
    }

    /// The same where the disk did not read it in two looks and does not now; whether it was set aside.
    pub(crate) async fn set_unread_aside(&self, id: BlobId) -> Result<bool, BlobError> {
        self.quarantine(id, true).await
    }

    async fn quarantine(&self, id: BlobId, unread_too: bool) -> Result<bool, BlobError> {
        let files = Arc::clone(&self.0.files);
        let was_wrong = run(self.pool(), move || files.quarantine(id, unread_too)).await?;
        let was_wrong = self.0.journal.note(was_wrong)?;
        if was_wrong {
            self.0.health.removed(1, 0);
            self.0.health.corrupt(id);
        }
        Ok(was_wrong)
    }

    /// Whether the blob is durable here already, every octet of it. A wrong copy is set aside.
    async fn is_whole(&self, id: BlobId) -> Result<bool, BlobError> {
        // What the disk does not read is written once more.
        if let Some(place) = self.0.journal.place(id)
            && let Ok(Some(_)) = run(self.pool(), move || place.read()).await?
        {
            return Ok(true);
        }
        match self.verify(id).await {
            Ok(_) => {
                // It may have its name since a moment ago only, from a put that has not synced the directory yet.
                let files = Arc::clone(&self.0.files);
                let synced = run(self.pool(), move || files.sync_directory_of(id)).await?;
                self.0.journal.note(synced).map(|()| true)
            }
            // A file that the disk does not read is replaced by what is put.
            Err(BlobError::NotFound(_) | BlobError::Corrupt(_) | BlobError::Disk(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn is_in_journal(&self, id: BlobId) -> bool {
        self.0.journal.place(id).is_some()
    }

    pub(crate) fn files(&self) -> &Arc<Files> {
        &self.0.files
    }

    pub(crate) fn pool(&self) -> &Arc<dyn BlockingPool> {
        &self.0.files.pool
    }

    pub(crate) fn pins(&self) -> &Pins {
        &self.0.pins
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(crate) fn inline_bytes_max(&self) -> usize {
        self.0.config.inline_bytes_max
    }
}

const APPENDS_WAITING_MAX: usize = 1024;
/// What a segment and a record take besides the payload, rounded up.
const RECORD_OVERHEAD_BYTES: usize = 8192;

#[cfg(test)]
mod tests;
