//! Seeing to it that what is referred to is there, here and on enough other voters.
//!
//! Work goes page by page; memory is one page of ids and one frame. Of several holders the one with the lowest id puts a
//! blob on voters that lack it; each node fetches what it lacks itself.
//!
//! Not here: what is referred to, and when a pass runs (the node knows both).

use async_trait::async_trait;
use core_types::limits::{BLOB_COPIES, BLOB_FETCH_TIMEOUT, BLOB_PAGE_MAX};
use core_types::{BlobId, NodeId};
use std::sync::Arc;
use transport::{Class, Rpc};

use crate::BlobStore;
use crate::error::BlobError;
use crate::fetch::{Fetcher, ask};
use crate::replicator::Replicator;
use crate::wire::{Answer, Request};

/// The blobs that something refers to, in ascending order.
#[async_trait]
pub trait References: Send + Sync {
    /// At most `limit` of them above `after`; none at the end.
    ///
    /// # Errors
    /// When they cannot be listed now.
    async fn page(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, BlobError>;
}

/// What a pass found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Blobs that were looked at.
    pub checked: u64,
    /// Blobs that were missing here and are here now.
    pub fetched: u64,
    /// Blobs that no node which was reached has. When it is not zero, mail is missing: an alarm.
    pub missing: u64,
    /// Blobs that this node is to hold, and still does not.
    pub lacking_here: u64,
    /// Blobs with fewer copies than wanted that are known to be there, after the pass.
    pub under_replicated: u64,
    /// Copies that were put on other voters.
    pub copied: u64,
    /// Voters that did not answer; what they hold is not known.
    pub unanswered: Vec<NodeId>,
}

/// Repairs the blobs of one node.
#[derive(Clone)]
pub struct Repairer {
    store: BlobStore,
    fetcher: Fetcher,
    replicator: Replicator,
    rpc: Arc<dyn Rpc>,
}

impl Repairer {
    /// For this store, over these requests.
    #[must_use]
    pub fn new(store: BlobStore, rpc: Arc<dyn Rpc>, replicator: Replicator) -> Self {
        let fetcher = Fetcher::new(store.clone(), Arc::clone(&rpc));
        Self {
            store,
            fetcher,
            replicator,
            rpc,
        }
    }

    /// Goes through all blobs that one group refers to. With `here` this node is to hold them too, whether it votes or is
    /// about to: a learner must have every blob before it may become a voter.
    ///
    /// # Errors
    /// What `references` gives, and errors of this node's disk. What peers do is in the report.
    pub async fn repair_pass(
        &self,
        references: &dyn References,
        voters: &[NodeId],
        here: bool,
    ) -> Result<RepairReport, BlobError> {
        let mut report = RepairReport::default();
        let mut after = None;
        loop {
            let page = references.page(after, BLOB_PAGE_MAX).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(*last);
            self.repair_page(&page, voters, here, &mut report).await?;
        }
        self.store.health().repaired(report.under_replicated, report.missing);
        Ok(report)
    }

    async fn repair_page(
        &self,
        page: &[BlobId],
        voters: &[NodeId],
        here: bool,
        report: &mut RepairReport,
    ) -> Result<(), BlobError> {
        let this = self.rpc.node();
        let mut holdings: Vec<(NodeId, Vec<bool>)> = Vec::new();
        if here || voters.contains(&this) {
            holdings.push((this, self.store.has_all(page.to_vec()).await?));
        }
        for voter in voters {
            // A voter that did not answer once is not waited for again on every page.
            if *voter == this || report.unanswered.contains(voter) {
                continue;
            }
            let request = Request::Has { ids: page.to_vec() };
            match ask(&self.rpc, *voter, Class::Bulk, &request, BLOB_FETCH_TIMEOUT).await {
                Ok(Answer::Has(has)) if has.len() == page.len() => holdings.push((*voter, has)),
                _ => report.unanswered.push(*voter),
            }
        }
        for (index, id) in page.iter().enumerate() {
            let has = |has: &Vec<bool>| has.get(index).copied().unwrap_or(false);
            let holders = holdings
                .iter()
                .filter(|(_, there)| has(there))
                .map(|(node, _)| *node)
                .collect();
            let lacking = holdings
                .iter()
                .filter(|(_, there)| !has(there))
                .map(|(node, _)| *node)
                .collect();
            self.repair_blob(*id, holders, lacking, voters, here, report).await?;
        }
        Ok(())
    }

    async fn repair_blob(
        &self,
        id: BlobId,
        mut holders: Vec<NodeId>,
        lacking: Vec<NodeId>,
        voters: &[NodeId],
        here: bool,
        report: &mut RepairReport,
    ) -> Result<(), BlobError> {
        report.checked += 1;
        let this = self.rpc.node();
        for node in lacking {
            let copied = if node == this {
                self.fetch(id, &holders, report).await?
            } else if holders.iter().min() == Some(&this) {
                self.copy(id, node, report).await?
            } else {
                false
            };
            if copied {
                holders.push(node);
            }
        }
        if here && !holders.contains(&this) {
            report.lacking_here += 1;
        }
        let copies = holders.iter().filter(|node| voters.contains(node)).count();
        if holders.is_empty() {
            report.missing += 1;
            tracing::error!(blob = %id, "no node that can be reached has a blob that is referred to");
        } else if copies < BLOB_COPIES.min(voters.len()) {
            report.under_replicated += 1;
        }
        Ok(())
    }

    async fn fetch(&self, id: BlobId, holders: &[NodeId], report: &mut RepairReport) -> Result<bool, BlobError> {
        match self.fetcher.fetch(id, holders).await {
            Ok(()) => {
                report.fetched += 1;
                Ok(true)
            }
            Err(BlobError::Unavailable(_) | BlobError::WrongHash(_) | BlobError::Full) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn copy(&self, id: BlobId, to: NodeId, report: &mut RepairReport) -> Result<bool, BlobError> {
        let sent = match self.store.stored(id).await {
            Ok(stored) => self.replicator.send(&stored, to, Class::Bulk).await,
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) => {
                report.copied += 1;
                Ok(true)
            }
            Err(error @ BlobError::SyncFailed(_)) => Err(error),
            Err(error) => {
                tracing::warn!(blob = %id, %to, %error, "a copy was not made");
                Ok(false)
            }
        }
    }
}
