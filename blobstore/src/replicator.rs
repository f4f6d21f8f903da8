//! Making a blob durable on the voters of a group, all at once, and saying who has it.
//!
//! A voter that refuses, or makes no progress for [`BLOB_PUT_TIMEOUT`], is skipped. The answer comes when all voters are
//! settled, or when more than the wanted copies exist and only some are still at it; those go on in the background.
//! Large blobs go frame by frame, read from the temporary file: memory is one frame for each voter.
//!
//! Not here: who the voters are, and whether the copies are enough (the group's leader decides).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use core_types::limits::{BLOB_COPIES, BLOB_LOCAL_TIMEOUT, BLOB_PUT_TIMEOUT};
use core_types::mutants::{self, Mutant};
use core_types::{Entropy, GroupId, Incarnation, NodeId};
use state::command::Receipts;
use tokio::sync::mpsc;
use transport::{Class, Rpc};

use crate::BlobStore;
use crate::error::BlobError;
use crate::fetch::ask;
use crate::files::Stored;
use crate::run::run;
use crate::wire::{Answer, Request};
use crate::writer::{Encoded, Sealed};

/// Puts blobs on voters. Clones share their numbers.
#[derive(Clone)]
pub struct Replicator {
    store: BlobStore,
    rpc: Arc<dyn Rpc>,
    next_transfer: Arc<AtomicU64>,
}

impl Replicator {
    /// For this store, over these requests.
    #[must_use]
    pub fn new(store: BlobStore, rpc: Arc<dyn Rpc>, entropy: &dyn Entropy) -> Self {
        // Begins anywhere, so that no number of an earlier life is taken for one of this.
        let mut first = [0; 8];
        entropy.fill(&mut first);
        Self {
            store,
            rpc,
            next_transfer: Arc::new(AtomicU64::new(u64::from_le_bytes(first))),
        }
    }

    /// Makes a blob durable on these voters, this node included when it is one.
    ///
    /// # Errors
    /// [`BlobError::SyncFailed`] of this node's own disk. Too few copies are no error: the receipts say how many.
    pub async fn store(
        &self,
        sealed: &Sealed,
        group: GroupId,
        incarnation: Incarnation,
        membership_index: u64,
        voters: &[NodeId],
    ) -> Result<Receipts, BlobError> {
        let mut receipts = Receipts {
            incarnation,
            membership_index,
            ..Receipts::default()
        };
        let (sender, mut results) = mpsc::channel(voters.len().max(1));
        for voter in voters {
            let (this, sealed, sender, voter) = (self.clone(), sealed.clone(), sender.clone(), *voter);
            // A task of its own: it goes on when there are copies enough, and when the asker is gone.
            tokio::spawn(async move {
                if mutants::is_planted(Mutant::ReceiptsNotChecked) && voter != this.rpc.node() {
                    let _ = sender.send((voter, Ok(()))).await;
                }
                let result = this.put_on(voter, &sealed, Class::Blob).await;
                let _ = sender.send((voter, result)).await;
            });
        }
        drop(sender);
        while let Some((voter, result)) = results.recv().await {
            match result {
                Ok(()) => receipts.nodes.push(voter),
                Err(error @ BlobError::SyncFailed(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(blob = %sealed.id(), %group, %voter, %error, "a voter is skipped");
                    receipts.skipped.push(voter);
                }
            }
            if receipts.nodes.len() >= BLOB_COPIES {
                break;
            }
        }
        receipts.nodes.sort_unstable();
        receipts.skipped.sort_unstable();
        Ok(receipts)
    }

    /// Makes a blob durable on one node.
    async fn put_on(&self, voter: NodeId, sealed: &Sealed, class: Class) -> Result<(), BlobError> {
        if voter == self.rpc.node() {
            let put = tokio::time::timeout(BLOB_LOCAL_TIMEOUT, self.store.put(sealed));
            return put
                .await
                .map_err(|_| BlobError::Peer("this node's disk does not answer".to_owned()))?;
        }
        match sealed.encoded() {
            Encoded::Memory(file) if file.len() <= self.store.inline_bytes_max() => {
                let request = Request::Put {
                    id: sealed.id(),
                    file: file.clone(),
                };
                let answer = ask(&self.rpc, voter, class, &request, BLOB_PUT_TIMEOUT).await?;
                self.settle(sealed.stored(), answer)
            }
            _ => self.send(sealed.stored(), voter, class).await,
        }
    }

    /// Sends a blob that is stored here to a node that lacks it.
    pub(crate) async fn send(&self, stored: &Stored, voter: NodeId, class: Class) -> Result<(), BlobError> {
        let transfer = self.next_transfer.fetch_add(1, Ordering::Relaxed);
        let sent = self.send_frames(stored, voter, class, transfer).await;
        if sent.is_err() {
            let abort = Request::Abort { transfer };
            // The receiver drops it by itself after a while.
            let _ = ask(&self.rpc, voter, class, &abort, BLOB_PUT_TIMEOUT).await;
        }
        sent
    }

    async fn send_frames(&self, stored: &Stored, voter: NodeId, class: Class, transfer: u64) -> Result<(), BlobError> {
        let (id, outline) = (stored.id, stored.table.outline());
        let begin = Request::Begin { transfer, id, outline };
        let answer = ask(&self.rpc, voter, class, &begin, BLOB_PUT_TIMEOUT).await?;
        if !matches!(answer, Answer::Received { .. }) {
            return self.settle(stored, answer);
        }
        for index in 0..stored.table.frames.len() {
            let job = stored.clone();
            let encoded = run(self.store.pool(), move || job.verified_encoded(index)).await??;
            let index = u32::try_from(index).map_err(|_| BlobError::OutOfRange)?;
            let frame = Request::Frame {
                transfer,
                index,
                encoded,
            };
            let answer = ask(&self.rpc, voter, class, &frame, BLOB_PUT_TIMEOUT).await?;
            if !matches!(answer, Answer::Received { .. }) {
                return self.settle(stored, answer);
            }
        }
        let answer = ask(
            &self.rpc,
            voter,
            class,
            &Request::Commit { transfer, id },
            BLOB_PUT_TIMEOUT,
        )
        .await?;
        self.settle(stored, answer)
    }

    fn settle(&self, stored: &Stored, answer: Answer) -> Result<(), BlobError> {
        match answer {
            Answer::Stored => Ok(()),
            Answer::WrongHash => {
                // The other side saw other bytes than we meant to send: is our own copy good?
                let (store, id) = (self.store.clone(), stored.id);
                tokio::spawn(async move {
                    if let Err(error) = store.verify(id).await {
                        tracing::warn!(blob = %id, %error, "a peer refused our copy");
                    }
                });
                Err(BlobError::WrongHash(stored.id))
            }
            Answer::Full => Err(BlobError::Peer("no space left there".to_owned())),
            Answer::Failed(reason) => Err(BlobError::Peer(reason)),
            other => Err(BlobError::Peer(format!("an answer that does not fit: {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests;
