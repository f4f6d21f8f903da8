//! Making a blob durable on the voters of a group, all at once, and saying who has it.
//!
//! A voter that refuses, or makes no progress for [`BLOB_PUT_TIMEOUT`], is skipped. The answer comes when all voters are
//! settled, or when the wanted copies exist and only some are still at it; those go on in the background. A voter that was
//! silent shortly before is not waited for and counts as skipped, where the others give as many copies as a message needs.
//! Large blobs go frame by frame, read from the temporary file: memory is one frame for each voter.
//!
//! Not here: who the voters are, and whether the copies are enough (the group's leader decides).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use core_types::limits::{BLOB_COPIES, BLOB_LOCAL_TIMEOUT, BLOB_PUT_TIMEOUT};
use core_types::mutants::{self, Mutant};
use core_types::{Entropy, GroupId, Incarnation, NodeId};
use state::command::Receipts;
use tokio::sync::mpsc;
use tokio::time::Instant;
use transport::{Class, Rpc};

use crate::BlobStore;
use crate::error::BlobError;
use crate::fetch::ask;
use crate::files::Stored;
use crate::run::run;
use crate::silent::SilentVoters;
use crate::wire::{Answer, Request};
use crate::writer::{Encoded, Sealed};

/// Puts blobs on voters. Clones share their numbers, and what they know of the voters.
#[derive(Clone)]
pub struct Replicator {
    store: BlobStore,
    rpc: Arc<dyn Rpc>,
    next_transfer: Arc<AtomicU64>,
    silent: Arc<SilentVoters>,
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
            silent: Arc::default(),
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
        let silent = self.silent.among(voters);
        // Some other put tries these already.
        let mut left_out: Vec<NodeId> = Vec::new();
        let mut under_way: BTreeSet<NodeId> = voters.iter().copied().collect();
        let (sender, mut results) = mpsc::channel(voters.len().max(1));
        for voter in voters {
            if silent.contains(voter) && !self.silent.begin_to_try(*voter) {
                left_out.push(*voter);
                under_way.remove(voter);
            } else {
                self.put_aside(*voter, sealed, &sender);
            }
        }
        let (mut nodes, mut skipped) = (BTreeSet::new(), silent.clone());
        let least = Receipts::copies_least(voters.len());
        loop {
            let is_settled = under_way.is_subset(&silent);
            if nodes.len() >= BLOB_COPIES || (is_settled && nodes.len() >= least) {
                break;
            }
            if is_settled {
                // Without them it is refused: they have to be waited for, as if they had never been silent.
                for voter in left_out.drain(..) {
                    under_way.insert(voter);
                    self.put_aside(voter, sealed, &sender);
                }
            }
            if under_way.is_empty() {
                break;
            }
            let Some((voter, result)) = results.recv().await else {
                break;
            };
            under_way.remove(&voter);
            match result {
                Ok(()) => {
                    nodes.insert(voter);
                    skipped.remove(&voter);
                }
                Err(error @ BlobError::SyncFailed(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(blob = %sealed.id(), %group, %voter, %error, "a voter is skipped");
                    skipped.insert(voter);
                }
            }
        }
        Ok(Receipts {
            incarnation,
            membership_index,
            nodes: nodes.into_iter().collect(),
            skipped: skipped.into_iter().collect(),
        })
    }

    /// In a task of its own: it goes on when there are copies enough, and when the asker is gone.
    fn put_aside(&self, voter: NodeId, sealed: &Sealed, results: &mpsc::Sender<(NodeId, Result<(), BlobError>)>) {
        let (this, sealed, results) = (self.clone(), sealed.clone(), results.clone());
        tokio::spawn(async move {
            if mutants::is_planted(Mutant::ReceiptsNotChecked) && voter != this.rpc.node() {
                let _ = results.send((voter, Ok(()))).await;
            }
            let result = this.put_on(voter, &sealed).await;
            let _ = results.send((voter, result)).await;
        });
    }

    /// Makes a blob durable on one node.
    async fn put_on(&self, voter: NodeId, sealed: &Sealed) -> Result<(), BlobError> {
        if voter == self.rpc.node() {
            return self.put_here(sealed).await;
        }
        match sealed.encoded() {
            Encoded::Memory(file) if file.len() <= self.store.inline_bytes_max() => {
                let request = Request::Put {
                    id: sealed.id(),
                    file: file.clone(),
                };
                let answer = self.ask(voter, &request).await?;
                self.settle(sealed.stored(), answer)
            }
            _ => self.send(sealed.stored(), voter).await,
        }
    }

    async fn put_here(&self, sealed: &Sealed) -> Result<(), BlobError> {
        let put = tokio::time::timeout(BLOB_LOCAL_TIMEOUT, self.store.put(sealed)).await;
        match put {
            Ok(_) => self.silent.answered(self.rpc.node()),
            Err(_) => self.silent.left_unanswered(self.rpc.node()),
        }
        put.map_err(|_| BlobError::Peer("this node's disk does not answer".to_owned()))?
    }

    /// Sends a blob that is stored here to a node that lacks it.
    async fn send(&self, stored: &Stored, voter: NodeId) -> Result<(), BlobError> {
        let transfer = self.next_transfer.fetch_add(1, Ordering::Relaxed);
        let sent = self.send_frames(stored, voter, transfer).await;
        if sent.is_err() {
            let rpc = Arc::clone(&self.rpc);
            // Nobody waits for that: the receiver drops it by itself after a while.
            tokio::spawn(async move {
                let _ = ask(&rpc, voter, Class::Blob, &Request::Abort { transfer }, BLOB_PUT_TIMEOUT).await;
            });
        }
        sent
    }

    async fn send_frames(&self, stored: &Stored, voter: NodeId, transfer: u64) -> Result<(), BlobError> {
        let (id, outline) = (stored.id, stored.table.outline());
        let answer = self.ask(voter, &Request::Begin { transfer, id, outline }).await?;
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
            let answer = self.ask(voter, &frame).await?;
            if !matches!(answer, Answer::Received { .. }) {
                return self.settle(stored, answer);
            }
        }
        let answer = self.ask(voter, &Request::Commit { transfer, id }).await?;
        self.settle(stored, answer)
    }

    /// Asks a voter, and remembers whether it answered.
    async fn ask(&self, voter: NodeId, request: &Request) -> Result<Answer, BlobError> {
        let begun = Instant::now();
        let answer = ask(&self.rpc, voter, Class::Blob, request, BLOB_PUT_TIMEOUT).await;
        match &answer {
            Ok(_) => self.silent.answered(voter),
            // Whatever was the matter with it, it has cost all that time.
            Err(_) if begun.elapsed() >= BLOB_PUT_TIMEOUT => self.silent.left_unanswered(voter),
            Err(_) => self.silent.not_asked(voter),
        }
        answer
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
