//! Seeing to it that what a group refers to is there: here, and on the other voters.
//!
//! Each node fetches what it lacks itself. Of the others it knows who lacks what (`copies`), so that the number of copies is
//! told truthfully. Three things keep that knowledge right: the receipts of what is new; a question to a voter for what it
//! was known to lack; and a comparison of everything, which goes through the names in pages and sends one digest for each, so that a
//! voter that has all of a page costs one small exchange.
//!
//! Memory: one page of names, what is lacking, one frame for each of a few fetches. Not here: what is referred to, when to go on
//! (the node knows both).

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use core_types::limits::{BLOB_FETCH_TIMEOUT, BLOB_FETCHES_MAX, BLOB_PAGE_MAX};
use core_types::{BlobId, GroupId, NodeId};
use futures_util::StreamExt;
use transport::{Class, Rpc};

use crate::BlobStore;
use crate::copies::Copies;
use crate::count::Count;
use crate::error::BlobError;
use crate::fetch::{Fetcher, ask};
use crate::wire::{Answer, Request};

/// The blobs that a group refers to, as this node's replica knows it.
#[async_trait]
pub trait References: Send + Sync {
    /// At most `limit` of them above `after`, ascending; none at the end.
    ///
    /// # Errors
    /// When they cannot be listed now.
    async fn page(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, BlobError>;

    /// For each of these blobs whether it is referred to now.
    ///
    /// # Errors
    /// When that cannot be told now.
    async fn are_referenced(&self, ids: &[BlobId]) -> Result<Vec<bool>, BlobError>;
}

/// The references of each group of this node.
pub type ReferencesOf = Arc<dyn Fn(GroupId) -> Arc<dyn References> + Send + Sync>;

/// How a group's blobs are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Blobs that fewer voters than wanted are known to have. A voter of which nothing is known yet does not count.
    pub under_replicated: u64,
    /// Blobs that this node is to hold and does not, as far as it knows.
    pub lacking_here: u64,
    /// Of them, those that no member of the group which could be reached has, voter or learner. When it is not zero, mail is
    /// missing: an alarm.
    pub missing: u64,
}

/// What [`Repair::compare`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// A page of a comparison that somebody waits for: go on.
    Soon,
    /// Another page; there is time for the next.
    Page,
    /// The last page of the comparison in the background.
    End,
}

/// The blobs of one group, on this node.
pub struct Repair {
    store: BlobStore,
    fetcher: Fetcher,
    rpc: Arc<dyn Rpc>,
    group: GroupId,
    copies: Copies,
    /// Who follows the group without a vote. They hold its blobs too, or some of them.
    learners: BTreeSet<NodeId>,
    /// Of those that this node lacks: no member who was reached has them.
    missing: BTreeSet<BlobId>,
    /// With those whom nothing is known of yet, or no longer.
    soon: Option<Walk>,
    /// With all, again and again.
    background: Option<Walk>,
}

/// A comparison under way.
struct Walk {
    with: BTreeSet<NodeId>,
    count: Count,
}

impl Repair {
    /// Nothing is known yet of who has what.
    #[must_use]
    pub fn new(store: BlobStore, rpc: Arc<dyn Rpc>, group: GroupId) -> Self {
        Self {
            fetcher: Fetcher::new(store.clone(), Arc::clone(&rpc)),
            copies: Copies::new(rpc.node()),
            store,
            rpc,
            group,
            learners: BTreeSet::new(),
            missing: BTreeSet::new(),
            soon: None,
            background: None,
        }
    }

    /// Who votes in the group, and who follows it only. This node is to hold the blobs too, whether it votes or not: a learner
    /// must have every blob before it may become a voter. The copies of the other learners are not counted, but used.
    pub fn set_members(&mut self, voters: &BTreeSet<NodeId>, learners: &BTreeSet<NodeId>) {
        self.copies.set_voters(voters);
        self.learners.clone_from(learners);
    }

    /// The group refers to a blob from now on; whom the receipts name.
    pub fn added(&mut self, blob: BlobId, holders: &[NodeId]) {
        self.copies.added(blob, holders);
        self.walks().for_each(|walk| walk.count.added(blob));
    }

    /// The group does not refer to a blob any more.
    pub fn released(&mut self, blob: BlobId) {
        self.copies.released(blob);
        self.walks().for_each(|walk| walk.count.released(blob));
        self.missing.remove(&blob);
    }

    fn walks(&mut self) -> impl Iterator<Item = &mut Walk> {
        self.soon.iter_mut().chain(&mut self.background)
    }

    /// Some of these changes were not told: everything is compared again soon.
    pub fn missed_changes(&mut self) {
        self.copies.missed();
    }

    /// What this node has is looked at anew, before [`Repair::is_whole_here`] says yes. The report says what was known before.
    pub fn doubt_here(&mut self) {
        self.copies.doubt_here();
    }

    /// Whether this node has every blob, for certain.
    #[must_use]
    pub fn is_whole_here(&self) -> bool {
        self.copies.is_whole_here()
    }

    /// Whether this node was looked at since it was doubted last: [`RepairReport::lacking_here`] is of now then.
    #[must_use]
    pub fn is_looked_at_here(&self) -> bool {
        self.copies.is_looked_at_here()
    }

    /// Whether [`Repair::mend`] has anything to do.
    #[must_use]
    pub fn is_anything_lacking(&self) -> bool {
        self.copies.is_anything_lacking()
    }

    /// How the group's blobs are.
    #[must_use]
    pub fn report(&self) -> RepairReport {
        RepairReport {
            under_replicated: self.copies.under_replicated(),
            lacking_here: self.copies.lacking_here(),
            missing: self.missing.len() as u64,
        }
    }

    /// Fetches what is lacking here, and asks voters that can be reached for what they were known to lack.
    ///
    /// # Errors
    /// What `references` gives, and errors of this node's disk. What peers do is no error.
    pub async fn mend(&mut self, references: &dyn References) -> Result<(), BlobError> {
        let this = self.rpc.node();
        for page in self.copies.lacking(this).chunks(BLOB_PAGE_MAX) {
            let page = self.still_referenced(references, page).await?;
            let has = self.store.has_all(page.clone()).await?;
            let (here, lacking): (Vec<_>, Vec<_>) = page.into_iter().zip(has).partition(|(_, has)| *has);
            for (id, _) in here {
                self.has_here(id);
            }
            self.fetch(lacking.into_iter().map(|(id, _)| id).collect()).await?;
        }
        for voter in self.copies.voters().clone() {
            if voter == this || !self.rpc.is_reachable(voter) {
                continue;
            }
            for page in self.copies.lacking(voter).chunks(BLOB_PAGE_MAX) {
                let page = self.still_referenced(references, page).await?;
                let Some(has) = self.ask_has(voter, &page).await else {
                    break;
                };
                for (id, _) in page.iter().zip(has).filter(|(_, has)| *has) {
                    self.copies.has(voter, *id);
                }
            }
        }
        Ok(())
    }

    /// Compares one page of names: with those of whom nothing is known, else with all in the background. Between two pages
    /// the changes that are known by then are told.
    ///
    /// # Errors
    /// As [`Repair::mend`].
    pub async fn compare(&mut self, references: &dyn References) -> Result<Compared, BlobError> {
        self.copies.settle();
        if self.soon.is_none() {
            let due = self.reachable(self.copies.due());
            if !due.is_empty() {
                due.iter().for_each(|node| self.copies.begin(*node));
                self.soon = Some(Walk::new(due));
            }
        }
        if let Some(mut walk) = self.soon.take() {
            let before = walk.with.clone();
            let ended = self.compare_page(references, &mut walk).await;
            if ended.is_err() {
                walk.with.clear();
            }
            for silent in before.difference(&walk.with) {
                self.copies.cut_short(*silent);
            }
            if ended? {
                walk.with.iter().for_each(|node| self.copies.complete(*node));
                self.copies.counted(walk.count);
            } else if !walk.with.is_empty() {
                self.soon = Some(walk);
                return Ok(Compared::Soon);
            }
            return Ok(Compared::Page);
        }
        let mut walk = match self.background.take() {
            Some(walk) => walk,
            None => Walk::new(self.reachable(self.copies.all())),
        };
        if self.compare_page(references, &mut walk).await? {
            self.copies.counted(walk.count);
            return Ok(Compared::End);
        }
        self.background = Some(walk);
        Ok(Compared::Page)
    }

    fn reachable(&self, nodes: BTreeSet<NodeId>) -> BTreeSet<NodeId> {
        let this = self.rpc.node();
        let is_reachable = |node: &NodeId| *node == this || self.rpc.is_reachable(*node);
        nodes.into_iter().filter(is_reachable).collect()
    }

    /// Whether it was the last page. Who does not answer is left out from then on.
    async fn compare_page(&mut self, references: &dyn References, walk: &mut Walk) -> Result<bool, BlobError> {
        let this = self.rpc.node();
        let after = walk.count.after();
        let page = references.page(after, BLOB_PAGE_MAX).await?;
        walk.count.page(&page);
        let Some(last) = page.last().copied() else {
            return Ok(true);
        };
        let digest = digest(page.iter());
        for node in walk.with.clone() {
            let has = if node == this {
                Some(self.store.has_all(page.clone()).await?)
            } else {
                let request = Request::Compare {
                    group: self.group,
                    after,
                    through: last,
                    digest,
                };
                match ask(&self.rpc, node, Class::Bulk, &request, BLOB_FETCH_TIMEOUT).await {
                    Ok(Answer::Same) => continue,
                    Ok(_) => self.ask_has(node, &page).await,
                    Err(_) => None,
                }
            };
            let Some(has) = has else {
                walk.with.remove(&node);
                continue;
            };
            for (id, _) in page.iter().zip(has).filter(|(_, has)| !*has) {
                self.copies.lacks(node, *id);
            }
        }
        Ok(false)
    }

    /// Those to which something refers; the others are forgotten.
    async fn still_referenced(
        &mut self,
        references: &dyn References,
        page: &[BlobId],
    ) -> Result<Vec<BlobId>, BlobError> {
        let referenced = references.are_referenced(page).await?;
        let mut still = Vec::with_capacity(page.len());
        for (id, is_referenced) in page.iter().zip(referenced) {
            if is_referenced {
                still.push(*id);
            } else {
                self.copies.forget(*id);
                self.missing.remove(id);
            }
        }
        Ok(still)
    }

    async fn ask_has(&self, voter: NodeId, ids: &[BlobId]) -> Option<Vec<bool>> {
        let request = Request::Has { ids: ids.to_vec() };
        match ask(&self.rpc, voter, Class::Bulk, &request, BLOB_FETCH_TIMEOUT).await {
            Ok(Answer::Has(has)) if has.len() == ids.len() => Some(has),
            _ => None,
        }
    }

    fn has_here(&mut self, id: BlobId) {
        self.copies.has(self.rpc.node(), id);
        self.missing.remove(&id);
    }

    async fn fetch(&mut self, ids: Vec<BlobId>) -> Result<(), BlobError> {
        let members: Vec<NodeId> = self.copies.voters().iter().chain(&self.learners).copied().collect();
        let fetcher = self.fetcher.clone();
        let fetches = ids.into_iter().map(|id| {
            let (fetcher, members) = (&fetcher, &members);
            async move { (id, fetcher.fetch(id, members).await) }
        });
        let mut fetches = futures_util::stream::iter(fetches).buffer_unordered(BLOB_FETCHES_MAX);
        while let Some((id, fetched)) = fetches.next().await {
            match fetched {
                Ok(()) => self.has_here(id),
                Err(BlobError::Unavailable(_)) => {
                    if self.missing.insert(id) {
                        tracing::error!(blob = %id, group = %self.group, "no member that can be reached has a blob that is referred to");
                    }
                }
                Err(BlobError::WrongHash(_) | BlobError::Full) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Walk {
    fn new(with: BTreeSet<NodeId>) -> Self {
        Self {
            with,
            count: Count::begin(),
        }
    }
}

/// What stands for these blobs, in this order.
pub(crate) fn digest<'a>(ids: impl Iterator<Item = &'a BlobId>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(&id.0);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests;
