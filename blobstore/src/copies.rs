//! What one node knows of who lacks which blobs of a group.
//!
//! Of each voter, and of this node, it keeps the few blobs that it lacks or may lack: those whose receipts did not name it,
//! and those that a comparison found. What is not among them it has, once everything was compared with it for the first time
//! (`is_known`). So an ordinary delivery costs nothing here, and a voter that was away is asked for what came meanwhile only.
//!
//! Invariant: a blob that a voter is known to lack counts as under-replicated until the voter said that it has it, or until nothing
//! refers to the blob any more. Memory: [`BLOB_LACKING_MAX`] names for each voter; of what is beyond only the number is
//! kept, which is never too small, and the next comparison finds it again. Not here: asking, fetching, time.

use std::collections::{BTreeMap, BTreeSet};

use core_types::limits::{BLOB_COPIES, BLOB_LACKING_MAX};
use core_types::{BlobId, NodeId};

use crate::count::Count;

/// See the module.
#[derive(Debug)]
pub(crate) struct Copies {
    this: NodeId,
    voters: BTreeSet<NodeId>,
    /// Of each voter, and of this node.
    holders: BTreeMap<NodeId, Holder>,
    /// What is known of this node is not to be relied on until a comparison that begins from now on has ended.
    is_here_in_doubt: bool,
    /// Blobs that are referred to.
    total: Count,
    lacking_max: usize,
}

#[derive(Debug)]
struct Holder {
    /// Everything was compared with it once.
    is_known: bool,
    /// Everything is to be compared with it soon.
    is_due: bool,
    lacking: BTreeSet<BlobId>,
    /// Blobs that it lacks and that found no place in `lacking`, at most: whether one of them was released is not known.
    unlisted: u64,
}

impl Holder {
    fn lacks(&mut self, blob: BlobId, lacking_max: usize) {
        if self.lacking.contains(&blob) {
            return;
        }
        if self.lacking.len() < lacking_max {
            self.lacking.insert(blob);
        } else {
            self.unlisted += 1;
            self.is_due = true;
        }
    }
}

impl Copies {
    /// Nothing is known yet.
    pub(crate) fn new(this: NodeId) -> Self {
        Self::with_limit(this, BLOB_LACKING_MAX)
    }

    pub(crate) fn with_limit(this: NodeId, lacking_max: usize) -> Self {
        let mut copies = Self {
            this,
            voters: BTreeSet::new(),
            holders: BTreeMap::new(),
            is_here_in_doubt: true,
            total: Count::unknown(),
            lacking_max,
        };
        copies.set_voters(&BTreeSet::new());
        copies
    }

    /// The group's voters are these now. Nothing is known of one that is new.
    pub(crate) fn set_voters(&mut self, voters: &BTreeSet<NodeId>) {
        self.voters.clone_from(voters);
        let this = self.this;
        self.holders.retain(|node, _| *node == this || voters.contains(node));
        for node in voters.iter().chain([&this]) {
            self.holders.entry(*node).or_insert_with(|| Holder {
                is_known: false,
                is_due: true,
                lacking: BTreeSet::new(),
                unlisted: 0,
            });
        }
    }

    /// Something refers to the blob now, and nothing did before; who is said to have it.
    pub(crate) fn added(&mut self, blob: BlobId, holders: &[NodeId]) {
        self.total.added(blob);
        for (_, holder) in self.holders.iter_mut().filter(|(node, _)| !holders.contains(node)) {
            holder.lacks(blob, self.lacking_max);
        }
    }

    /// Nothing refers to the blob any more.
    pub(crate) fn released(&mut self, blob: BlobId) {
        self.total.released(blob);
        self.forget(blob);
        self.bound_unlisted();
    }

    /// Nobody lacks more than there is.
    fn bound_unlisted(&mut self) {
        for holder in self.holders.values_mut() {
            let rest = self.total.total().saturating_sub(holder.lacking.len() as u64);
            holder.unlisted = holder.unlisted.min(rest);
        }
    }

    pub(crate) fn forget(&mut self, blob: BlobId) {
        for holder in self.holders.values_mut() {
            holder.lacking.remove(&blob);
        }
    }

    /// Changes of the references were missed: also a comparison that is under way does not settle it.
    pub(crate) fn missed(&mut self) {
        for holder in self.holders.values_mut() {
            holder.is_due = true;
        }
    }

    /// What this node has is to be looked at anew before it is relied on. Until then the counts say what was known before.
    pub(crate) fn doubt_here(&mut self) {
        if let Some(holder) = self.holders.get_mut(&self.this) {
            holder.is_due = true;
        }
    }

    /// Whom everything is to be compared with soon.
    pub(crate) fn due(&self) -> BTreeSet<NodeId> {
        let due = self.holders.iter().filter(|(_, holder)| holder.is_due);
        due.map(|(node, _)| *node).collect()
    }

    /// Everybody that is to hold the blobs.
    pub(crate) fn all(&self) -> BTreeSet<NodeId> {
        self.holders.keys().copied().collect()
    }

    pub(crate) fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// A comparison with this node begins.
    pub(crate) fn begin(&mut self, node: NodeId) {
        if let Some(holder) = self.holders.get_mut(&node) {
            holder.is_due = false;
            // It finds them again.
            holder.unlisted = 0;
            // It began because of a doubt, which its end settles unless there is another one by then (`is_due`).
            self.is_here_in_doubt |= node == self.this;
        }
    }

    /// A comparison with this node came to its end.
    pub(crate) fn complete(&mut self, node: NodeId) {
        if let Some(holder) = self.holders.get_mut(&node) {
            holder.is_known = true;
            self.is_here_in_doubt &= node != self.this;
        }
    }

    /// So many blobs are referred to: a count that has come to its end.
    pub(crate) fn counted(&mut self, total: Count) {
        self.total = total;
        self.bound_unlisted();
    }

    /// Everything was heard of that the end of the last count shows.
    pub(crate) fn settle(&mut self) {
        self.total.settle();
    }

    /// A comparison with this node ended early.
    pub(crate) fn cut_short(&mut self, node: NodeId) {
        if let Some(holder) = self.holders.get_mut(&node) {
            holder.is_due = true;
        }
    }

    pub(crate) fn lacks(&mut self, node: NodeId, blob: BlobId) {
        let lacking_max = self.lacking_max;
        if let Some(holder) = self.holders.get_mut(&node) {
            holder.lacks(blob, lacking_max);
        }
    }

    pub(crate) fn has(&mut self, node: NodeId, blob: BlobId) {
        if let Some(holder) = self.holders.get_mut(&node) {
            holder.lacking.remove(&blob);
        }
    }

    /// What this node lacks or may lack, as far as it is listed.
    pub(crate) fn lacking(&self, node: NodeId) -> Vec<BlobId> {
        self.holders
            .get(&node)
            .map_or_else(Vec::new, |holder| holder.lacking.iter().copied().collect())
    }

    pub(crate) fn is_anything_lacking(&self) -> bool {
        self.holders.values().any(|holder| !holder.lacking.is_empty())
    }

    /// Whether this node has everything, for certain.
    pub(crate) fn is_whole_here(&self) -> bool {
        let here = self.holders.get(&self.this).filter(|_| !self.is_here_in_doubt);
        here.is_some_and(|here| !here.is_due && here.lacking.is_empty() && here.unlisted == 0)
    }

    /// Whether a look at everything that this node should have has ended, and nothing came up since that makes another one
    /// necessary: what it lacks is then known.
    pub(crate) fn is_looked_at_here(&self) -> bool {
        let here = self.holders.get(&self.this).filter(|_| !self.is_here_in_doubt);
        here.is_some_and(|here| !here.is_due)
    }

    /// Blobs that this node lacks or may lack.
    pub(crate) fn lacking_here(&self) -> u64 {
        let here = self.holders.get(&self.this);
        here.map_or(0, |here| here.lacking.len() as u64 + here.unlisted)
    }

    /// Blobs that fewer voters than wanted are known to have.
    pub(crate) fn under_replicated(&self) -> u64 {
        let wanted = BLOB_COPIES.min(self.voters.len());
        let known: Vec<&Holder> = self
            .voters
            .iter()
            .filter_map(|voter| self.holders.get(voter))
            .filter(|holder| holder.is_known)
            .collect();
        if known.len() < wanted {
            return self.total.total();
        }
        let lacking: BTreeSet<&BlobId> = known.iter().flat_map(|holder| &holder.lacking).collect();
        let copies = |blob: &BlobId| known.iter().filter(|holder| !holder.lacking.contains(blob)).count();
        let listed = lacking.into_iter().filter(|blob| copies(blob) < wanted).count() as u64;
        let unlisted: u64 = known.iter().map(|holder| holder.unlisted).sum();
        (listed + unlisted).min(self.total.total().max(listed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn blob(number: u8) -> BlobId {
        BlobId([number; 32])
    }

    fn compared(copies: &mut Copies, ids: &[u64], total: u64) {
        for node in nodes(ids) {
            copies.begin(node);
            copies.complete(node);
        }
        let mut count = Count::unknown();
        (0..total).for_each(|number| count.added(BlobId([number as u8; 32])));
        copies.counted(count);
    }

    #[test]
    fn a_voter_of_which_nothing_is_known_has_nothing() {
        let mut copies = Copies::new(NodeId(1));
        copies.set_voters(&nodes(&[1, 2, 3]));
        compared(&mut copies, &[1, 2], 7);
        assert_eq!((copies.under_replicated(), copies.due()), (7, nodes(&[3])));
        compared(&mut copies, &[3], 7);
        assert_eq!(copies.under_replicated(), 0);
        copies.set_voters(&nodes(&[1, 2, 4]));
        assert_eq!((copies.under_replicated(), copies.due()), (7, nodes(&[4])));
        // A node that learns counts its own blobs, and is no copy.
        let mut learner = Copies::new(NodeId(9));
        learner.set_voters(&nodes(&[1, 2, 3]));
        compared(&mut learner, &[1, 2, 3], 0);
        learner.added(blob(1), &[NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!((learner.under_replicated(), learner.lacking_here()), (0, 1));
    }

    #[test]
    fn what_too_few_have_counts_until_they_have_it_or_nobody_wants_it() {
        let mut copies = Copies::new(NodeId(1));
        copies.set_voters(&nodes(&[1, 2, 3, 4, 5]));
        compared(&mut copies, &[1, 2, 3, 4, 5], 0);
        copies.added(blob(1), &[NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(copies.under_replicated(), 0, "three copies are enough");
        copies.added(blob(2), &[NodeId(1), NodeId(2)]);
        copies.added(blob(3), &[NodeId(2)]);
        assert_eq!((copies.under_replicated(), copies.lacking_here()), (2, 1));
        copies.has(NodeId(5), blob(2));
        assert_eq!(copies.under_replicated(), 1);
        copies.released(blob(3));
        assert_eq!((copies.under_replicated(), copies.lacking_here()), (0, 0));
        assert!(copies.is_anything_lacking() && copies.is_whole_here());
    }

    #[test]
    fn what_finds_no_place_is_counted_and_compared_again() {
        let mut copies = Copies::with_limit(NodeId(1), 2);
        copies.set_voters(&nodes(&[1, 2, 3]));
        compared(&mut copies, &[1, 2, 3], 0);
        for (number, due) in [(1, false), (2, false), (3, true), (4, true)] {
            copies.added(blob(number), &[NodeId(1), NodeId(2)]);
            assert_eq!(copies.under_replicated(), u64::from(number));
            assert_eq!(!copies.due().is_empty(), due);
        }
        copies.has(NodeId(3), blob(1));
        copies.has(NodeId(3), blob(2));
        assert_eq!(copies.under_replicated(), 2);
        copies.begin(NodeId(3));
        copies.lacks(NodeId(3), blob(3));
        copies.lacks(NodeId(3), blob(4));
        copies.complete(NodeId(3));
        assert_eq!((copies.under_replicated(), copies.due()), (2, nodes(&[])));
    }

    #[test]
    fn what_found_no_place_and_was_released_is_not_counted_when_other_blobs_come() {
        let mut copies = Copies::with_limit(NodeId(1), 2);
        copies.set_voters(&nodes(&[1, 2, 3]));
        compared(&mut copies, &[1, 2, 3], 0);
        for number in 1..=5 {
            copies.added(blob(number), &[NodeId(1), NodeId(2)]);
        }
        assert_eq!(copies.under_replicated(), 5);
        for number in 1..=5 {
            copies.released(blob(number));
        }
        for number in 11..=14 {
            copies.added(blob(number), &[NodeId(1), NodeId(2), NodeId(3)]);
        }
        assert_eq!(copies.under_replicated(), 0);
        copies.added(blob(15), &[NodeId(2), NodeId(3)]);
        assert_eq!((copies.under_replicated(), copies.lacking_here()), (1, 1));
    }

    #[test]
    fn this_node_is_whole_only_after_a_look_at_everything() {
        let mut copies = Copies::new(NodeId(1));
        copies.set_voters(&nodes(&[1, 2, 3]));
        assert!(!copies.is_whole_here());
        compared(&mut copies, &[1], 0);
        assert!(copies.is_whole_here());
        copies.missed();
        assert!(!copies.is_whole_here());
        compared(&mut copies, &[1], 0);
        copies.lacks(NodeId(1), blob(1));
        assert!(!copies.is_whole_here());
        copies.has(NodeId(1), blob(1));
        assert!(copies.is_whole_here());
        // Neither before nor in the middle of the look, whatever it was that made it due.
        for doubt in [Copies::doubt_here, Copies::missed] {
            doubt(&mut copies);
            assert!(!copies.is_whole_here());
            copies.begin(NodeId(1));
            assert!(!copies.is_whole_here());
            copies.cut_short(NodeId(1));
            assert!(!copies.is_whole_here());
            copies.begin(NodeId(1));
            doubt(&mut copies);
            copies.complete(NodeId(1));
            assert!(!copies.is_whole_here(), "that look began before the doubt");
            copies.begin(NodeId(1));
            copies.complete(NodeId(1));
            assert!(copies.is_whole_here());
        }
    }

    #[test]
    fn a_look_at_everything_ends_although_something_is_lacking() {
        let mut copies = Copies::new(NodeId(1));
        copies.set_voters(&nodes(&[1, 2, 3]));
        assert!(!copies.is_looked_at_here());
        copies.begin(NodeId(1));
        copies.lacks(NodeId(1), blob(1));
        assert!(!copies.is_looked_at_here());
        copies.complete(NodeId(1));
        assert!(copies.is_looked_at_here() && !copies.is_whole_here());
        copies.doubt_here();
        assert!(!copies.is_looked_at_here());
        copies.begin(NodeId(1));
        copies.cut_short(NodeId(1));
        assert!(!copies.is_looked_at_here());
    }

    #[test]
    fn a_doubt_about_this_node_changes_no_count() {
        let mut copies = Copies::new(NodeId(1));
        copies.set_voters(&nodes(&[1, 2, 3]));
        compared(&mut copies, &[1, 2, 3], 7);
        copies.lacks(NodeId(3), blob(1));
        copies.doubt_here();
        assert_eq!((copies.under_replicated(), copies.lacking_here()), (1, 0));
        copies.begin(NodeId(1));
        assert_eq!((copies.under_replicated(), copies.lacking_here()), (1, 0));
        copies.complete(NodeId(1));
        assert_eq!(copies.under_replicated(), 1);
    }
}
