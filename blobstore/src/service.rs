//! Answers other nodes about blobs.
//!
//! Whatever the bytes: no panic, bounded memory. A blob is made durable only after every frame of it was verified against
//! its name; a frame is sent only after it was verified. A large blob that does not come to its end is dropped after
//! [`BLOB_TRANSFER_IDLE`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use core_types::limits::{BLOB_PAGE_MAX, BLOB_TRANSFER_IDLE, BLOB_TRANSFERS_MAX, BLOB_VERIFIES_MAX};
use core_types::{BlobId, GroupId, NodeId};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use transport::{Refused, Service};

use crate::BlobStore;
use crate::error::BlobError;
use crate::files::{Stored, lock};
use crate::format::Outline;
use crate::receiving::Receiving;
use crate::repair::{self, ReferencesOf};
use crate::run::run;
use crate::wire::{Answer, Request, decode_request, encode_answer};
use crate::writer::Sealed;

/// The service of [`transport::ServiceId::BLOB`].
pub struct BlobService {
    store: BlobStore,
    transfers: Mutex<BTreeMap<(NodeId, u64), Transfer>>,
    verifies: Semaphore,
    references: Option<ReferencesOf>,
}

struct Transfer {
    touched: Instant,
    /// `None` while one of its frames is worked on.
    receiving: Option<Receiving>,
}

impl BlobService {
    /// Answers for this store.
    #[must_use]
    pub fn new(store: BlobStore) -> Self {
        Self {
            store,
            transfers: Mutex::default(),
            verifies: Semaphore::new(BLOB_VERIFIES_MAX),
            references: None,
        }
    }

    /// Lets others compare what this node is to have by its groups with what it has.
    #[must_use]
    pub fn with_references(self, references: ReferencesOf) -> Self {
        Self {
            references: Some(references),
            ..self
        }
    }

    async fn answer(&self, from: NodeId, request: Request) -> Result<Answer, BlobError> {
        match request {
            Request::Put { id, file } => self.put(id, file).await,
            Request::Begin { transfer, id, outline } => self.begin((from, transfer), id, outline).await,
            Request::Frame {
                transfer,
                index,
                encoded,
            } => self.frame((from, transfer), index, encoded).await,
            Request::Commit { transfer, id } => self.commit((from, transfer), id).await,
            Request::Abort { transfer } => {
                lock(&self.transfers).remove(&(from, transfer));
                Ok(Answer::Received { frames: 0 })
            }
            Request::Describe { id } => Ok(Answer::Outline(self.store.stored(id).await?.table.outline())),
            Request::ReadFrame { id, index } => self.read_frame(id, index).await,
            Request::Has { ids } => self.has(ids).await,
            Request::Compare {
                group,
                after,
                through,
                digest,
            } => self.compare(group, after, through, digest).await,
        }
    }

    async fn put(&self, id: BlobId, file: Bytes) -> Result<Answer, BlobError> {
        let _permit = self.verifies.acquire().await.map_err(|_| BlobError::Closed)?;
        let sealed = run(self.store.pool(), move || {
            let wrong = |_| BlobError::WrongHash(id);
            let stored = Stored::from_memory(id, file.clone()).map_err(wrong)?;
            for index in 0..stored.table.frames.len() {
                stored.frame(index).map_err(wrong)?;
            }
            let table = Arc::unwrap_or_clone(stored.table);
            Ok::<_, BlobError>(Sealed::memory(id, table, file))
        });
        self.store.put(&sealed.await??).await?;
        Ok(Answer::Stored)
    }

    async fn begin(&self, key: (NodeId, u64), id: BlobId, outline: Outline) -> Result<Answer, BlobError> {
        {
            let mut transfers = lock(&self.transfers);
            transfers.retain(|_, transfer| transfer.touched.elapsed() < BLOB_TRANSFER_IDLE);
            let same = transfers.get(&key).and_then(|transfer| transfer.receiving.as_ref());
            if let Some(receiving) = same.filter(|receiving| receiving.id() == id) {
                return Ok(Answer::Received {
                    frames: u32::try_from(receiving.count()).unwrap_or(u32::MAX),
                });
            }
            if transfers.keys().filter(|(node, _)| *node == key.0).count() >= BLOB_TRANSFERS_MAX {
                return Ok(Answer::Failed(
                    "too many large blobs are under way from this node".to_owned(),
                ));
            }
        }
        let files = Arc::clone(self.store.files());
        let receiving = run(self.store.pool(), move || Receiving::new(&files, id, outline)).await??;
        let transfer = Transfer {
            touched: Instant::now(),
            receiving: Some(receiving),
        };
        lock(&self.transfers).insert(key, transfer);
        Ok(Answer::Received { frames: 0 })
    }

    async fn frame(&self, key: (NodeId, u64), index: u32, encoded: Bytes) -> Result<Answer, BlobError> {
        let Some(mut receiving) = self.take(key) else {
            return Ok(Answer::Missing);
        };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let job = run(self.store.pool(), move || {
            receiving.add(index, &encoded).map(|()| receiving)
        })
        .await;
        match job {
            Ok(Ok(receiving)) => {
                let frames = u32::try_from(receiving.count()).unwrap_or(u32::MAX);
                let transfer = Transfer {
                    touched: Instant::now(),
                    receiving: Some(receiving),
                };
                lock(&self.transfers).insert(key, transfer);
                Ok(Answer::Received { frames })
            }
            Ok(Err(error)) | Err(error) => {
                lock(&self.transfers).remove(&key);
                Err(error)
            }
        }
    }

    async fn commit(&self, key: (NodeId, u64), id: BlobId) -> Result<Answer, BlobError> {
        let Some(receiving) = self.take(key) else {
            // A repeat of a commit whose answer was lost.
            let stored = self.store.has(id).await? && self.store.verify(id).await.is_ok();
            return Ok(if stored { Answer::Stored } else { Answer::Missing });
        };
        lock(&self.transfers).remove(&key);
        if receiving.id() != id {
            return Ok(Answer::Missing);
        }
        let sealed = run(self.store.pool(), move || receiving.finish()).await??;
        self.store.put(&sealed).await?;
        Ok(Answer::Stored)
    }

    /// Takes a transfer out to work on it; its place stays.
    fn take(&self, key: (NodeId, u64)) -> Option<Receiving> {
        lock(&self.transfers)
            .get_mut(&key)
            .and_then(|transfer| transfer.receiving.take())
    }

    async fn read_frame(&self, id: BlobId, index: u32) -> Result<Answer, BlobError> {
        let _permit = self.verifies.acquire().await.map_err(|_| BlobError::Closed)?;
        let stored = self.store.stored(id).await?;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let frame = run(self.store.pool(), move || stored.verified_encoded(index)).await?;
        if matches!(frame, Err(BlobError::Corrupt(_))) {
            self.store.set_aside(id).await?;
        }
        Ok(Answer::Frame(frame?))
    }

    async fn has(&self, ids: Vec<BlobId>) -> Result<Answer, BlobError> {
        if ids.len() > BLOB_PAGE_MAX {
            return Ok(Answer::Failed(format!("more than {BLOB_PAGE_MAX} ids")));
        }
        Ok(Answer::Has(self.store.has_all(ids).await?))
    }

    async fn compare(
        &self,
        group: GroupId,
        after: Option<BlobId>,
        through: BlobId,
        digest: [u8; 32],
    ) -> Result<Answer, BlobError> {
        let Some(references) = &self.references else {
            return Ok(Answer::Differs);
        };
        // Whoever asks has at most a page of them. One more than that cannot be the same.
        let mut ids = references(group).page(after, BLOB_PAGE_MAX + 1).await?;
        ids.retain(|id| *id <= through);
        let has = self.store.has_all(ids.clone()).await?;
        let there = ids.iter().zip(has).filter(|(_, has)| *has).map(|(id, _)| id);
        Ok(if repair::digest(there) == digest {
            Answer::Same
        } else {
            Answer::Differs
        })
    }
}

#[async_trait]
impl Service for BlobService {
    async fn serve(&self, from: NodeId, request: Bytes) -> Result<Bytes, Refused> {
        let request = decode_request(&request).map_err(|error| Refused(error.to_string()))?;
        let answer = match self.answer(from, request).await {
            Ok(answer) => answer,
            Err(BlobError::WrongHash(id)) => {
                tracing::warn!(blob = %id, %from, "a peer sent bytes that are not the blob that it named");
                Answer::WrongHash
            }
            Err(BlobError::Full) => Answer::Full,
            Err(BlobError::NotFound(_) | BlobError::Corrupt(_)) => Answer::Missing,
            Err(error) => Answer::Failed(error.to_string()),
        };
        encode_answer(&answer).map_err(|error| Refused(error.to_string()))
    }
}
