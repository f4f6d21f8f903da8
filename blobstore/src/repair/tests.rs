//! Repair over several stores: what it costs, what it counts, and that it ends with every blob everywhere.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use core_types::Entropy;
use platform::{FaultyDisk, SeededEntropy};
use transport::{CallError, Service, ServiceId};

use super::*;
use crate::BlobService;
use crate::files::lock;
use crate::testing::{message, open, put};
use crate::wire::decode_request;

const GROUP: GroupId = GroupId(1);

/// What a group refers to. All replicas here have the same state at once; what they hear of it comes when the test says so.
#[derive(Clone, Default)]
struct Listed(Arc<Mutex<BTreeSet<BlobId>>>);

#[async_trait]
impl References for Listed {
    async fn page(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, BlobError> {
        let ids = lock(&self.0);
        // Small pages, so that paging is seen; whoever compares gets what he asks for.
        let limit = if limit > BLOB_PAGE_MAX { limit } else { 3 };
        Ok(ids.iter().copied().filter(|id| Some(*id) > after).take(limit).collect())
    }

    async fn are_referenced(&self, ids: &[BlobId]) -> Result<Vec<bool>, BlobError> {
        let referenced = lock(&self.0);
        Ok(ids.iter().map(|id| referenced.contains(id)).collect())
    }
}

#[derive(Default)]
struct Net {
    services: Mutex<BTreeMap<NodeId, Arc<BlobService>>>,
    away: Mutex<BTreeSet<NodeId>>,
    asked: Mutex<Vec<Request>>,
}

struct NetRpc(NodeId, Arc<Net>);

#[async_trait]
impl Rpc for NetRpc {
    fn node(&self) -> NodeId {
        self.0
    }

    async fn call(&self, to: NodeId, _: Class, _: ServiceId, bytes: Bytes, _: Duration) -> Result<Bytes, CallError> {
        if !self.is_reachable(to) {
            return Err(CallError::Unreachable(to));
        }
        lock(&self.1.asked).push(decode_request(&bytes).unwrap());
        let service = lock(&self.1.services).get(&to).cloned().unwrap();
        let answer = service.serve(self.0, bytes).await;
        answer.map_err(|refused| CallError::Refused(refused.0))
    }

    fn is_reachable(&self, to: NodeId) -> bool {
        let away = lock(&self.1.away);
        !away.contains(&to) && !away.contains(&self.0)
    }
}

enum Change {
    Added(BlobId, Vec<NodeId>),
    Released(BlobId),
    Missed,
}

struct Node {
    store: BlobStore,
    repair: Repair,
    /// What it has not heard of yet.
    unheard: Vec<Change>,
}

struct Cluster {
    net: Arc<Net>,
    nodes: BTreeMap<NodeId, Node>,
    referenced: Listed,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    messages: u64,
}

impl Cluster {
    async fn new(count: u64) -> Self {
        let (net, referenced) = (Arc::<Net>::default(), Listed::default());
        let voters: BTreeSet<NodeId> = (1..=count).map(NodeId).collect();
        let mut nodes = BTreeMap::new();
        for node in &voters {
            let store = open(&FaultyDisk::new()).await;
            let listed: Arc<dyn References> = Arc::new(referenced.clone());
            let service = BlobService::new(store.clone()).with_references(Arc::new(move |_| Arc::clone(&listed)));
            lock(&net.services).insert(*node, Arc::new(service));
            let repair = Repair::new(store.clone(), Arc::new(NetRpc(*node, Arc::clone(&net))), GROUP);
            let unheard = Vec::new();
            nodes.insert(*node, Node { store, repair, unheard });
        }
        let mut cluster = Self {
            net,
            nodes,
            referenced,
            voters,
            learners: BTreeSet::new(),
            messages: 0,
        };
        for node in cluster.voters.clone() {
            cluster.restart(node);
        }
        cluster
    }

    fn restart(&mut self, node: NodeId) {
        let there = self.nodes.get_mut(&node).unwrap();
        there.unheard.clear();
        there.repair = Repair::new(
            there.store.clone(),
            Arc::new(NetRpc(node, Arc::clone(&self.net))),
            GROUP,
        );
        there.repair.set_members(&self.voters, &self.learners);
    }

    fn set_away(&self, node: u64, away: bool) {
        let mut all = lock(&self.net.away);
        if away {
            all.insert(NodeId(node));
        } else {
            all.remove(&NodeId(node));
        }
    }

    /// A message whose receipts name these.
    async fn deliver(&mut self, holders: &[u64]) -> BlobId {
        self.messages += 1;
        let raw = message(300, self.messages);
        let holders: Vec<NodeId> = holders.iter().copied().map(NodeId).collect();
        let mut id = BlobId::of(&raw);
        for node in &holders {
            id = put(&self.nodes[node].store, &raw).await.unwrap();
            self.nodes[node].store.flush().await.unwrap();
        }
        lock(&self.referenced.0).insert(id);
        for node in self.nodes.values_mut() {
            node.unheard.push(Change::Added(id, holders.clone()));
        }
        id
    }

    fn release(&mut self, id: BlobId) {
        lock(&self.referenced.0).remove(&id);
        for node in self.nodes.values_mut() {
            node.unheard.push(Change::Released(id));
        }
    }

    fn hear(&mut self, node: NodeId) {
        let there = self.nodes.get_mut(&node).unwrap();
        for change in std::mem::take(&mut there.unheard) {
            match change {
                Change::Added(id, holders) => there.repair.added(id, &holders),
                Change::Released(id) => there.repair.released(id),
                Change::Missed => there.repair.missed_changes(),
            }
        }
    }

    async fn mend(&mut self, node: NodeId) {
        self.hear(node);
        let referenced = self.referenced.clone();
        self.nodes
            .get_mut(&node)
            .unwrap()
            .repair
            .mend(&referenced)
            .await
            .unwrap();
    }

    async fn compare(&mut self, node: NodeId) -> Compared {
        self.hear(node);
        let referenced = self.referenced.clone();
        let repair = &mut self.nodes.get_mut(&node).unwrap().repair;
        repair.compare(&referenced).await.unwrap()
    }

    /// Goes through everything once, in the background too.
    async fn round(&mut self, node: NodeId) {
        while self.compare(node).await != Compared::End {}
        self.mend(node).await;
    }

    fn report(&self, node: u64) -> RepairReport {
        self.nodes[&NodeId(node)].repair.report()
    }

    async fn holders(&self, id: BlobId) -> usize {
        let mut count = 0;
        for node in self.nodes.values() {
            count += usize::from(node.store.has(id).await.unwrap());
        }
        count
    }

    /// Of what is referred to: how many have fewer than three copies, and how many none.
    async fn naive(&self) -> (u64, u64) {
        let (mut few, mut none) = (0, 0);
        let referenced = lock(&self.referenced.0).clone();
        for id in referenced {
            let copies = self.holders(id).await;
            few += u64::from(copies < 3);
            none += u64::from(copies == 0);
        }
        (few, none)
    }

    fn has_asked(&self) -> Vec<Request> {
        std::mem::take(&mut *lock(&self.net.asked))
    }
}

#[tokio::test(start_paused = true)]
async fn equal_pages_cost_one_small_exchange_with_each_voter() {
    let mut cluster = Cluster::new(3).await;
    for _ in 0..9 {
        cluster.deliver(&[1, 2, 3]).await;
    }
    cluster.round(NodeId(1)).await;
    let asked = cluster.has_asked();
    assert_eq!(
        asked.len(),
        2 * 2 * 3,
        "two others, soon and in the background, three pages"
    );
    assert!(asked.iter().all(|request| matches!(request, Request::Compare { .. })));
    cluster.deliver(&[1, 2, 3]).await;
    cluster.mend(NodeId(1)).await;
    assert!(cluster.has_asked().is_empty(), "a message that all have costs nothing");
    assert_eq!(cluster.report(1), RepairReport::default());
}

#[tokio::test(start_paused = true)]
async fn what_came_while_a_voter_was_away_is_counted_and_asked_for_and_nothing_else_is() {
    let mut cluster = Cluster::new(3).await;
    for _ in 0..6 {
        cluster.deliver(&[1, 2, 3]).await;
    }
    for node in cluster.voters.clone() {
        cluster.round(node).await;
    }
    cluster.set_away(3, true);
    let mut new = Vec::new();
    for _ in 0..4 {
        new.push(cluster.deliver(&[1, 2]).await);
    }
    for node in [1, 2] {
        cluster.mend(NodeId(node)).await;
        assert_eq!(cluster.report(node).under_replicated, 4);
    }
    cluster.release(new[0]);
    cluster.mend(NodeId(1)).await;
    assert_eq!(cluster.report(1).under_replicated, 3);
    cluster.set_away(3, false);
    cluster.has_asked();
    cluster.mend(NodeId(1)).await;
    assert_eq!(cluster.report(1).under_replicated, 3, "it does not have them yet");
    assert!(matches!(cluster.has_asked().as_slice(), [Request::Has { ids }] if ids.len() == 3));
    cluster.mend(NodeId(3)).await;
    assert_eq!(cluster.report(3), RepairReport::default());
    let asked = cluster.has_asked();
    let fetched = |request: &Request| matches!(request, Request::Describe { .. } | Request::ReadFrame { .. });
    assert!(asked.len() == 6 && asked.iter().all(fetched), "{asked:?}");
    cluster.mend(NodeId(1)).await;
    assert_eq!(cluster.report(1), RepairReport::default());
    for id in &new[1..] {
        assert_eq!(cluster.holders(*id).await, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_does_not_take_a_voters_copies_on_trust() {
    let mut cluster = Cluster::new(3).await;
    for _ in 0..5 {
        cluster.deliver(&[1, 2, 3]).await;
    }
    cluster.deliver(&[1, 2]).await;
    cluster.set_away(3, true);
    cluster.restart(NodeId(1));
    assert!(!cluster.nodes[&NodeId(1)].repair.is_whole_here());
    cluster.round(NodeId(1)).await;
    assert!(cluster.nodes[&NodeId(1)].repair.is_whole_here());
    assert_eq!(cluster.report(1).under_replicated, 6, "nobody knows what the third has");
    cluster.set_away(3, false);
    // It goes away again in the middle.
    assert_eq!(cluster.compare(NodeId(1)).await, Compared::Soon);
    cluster.set_away(3, true);
    cluster.round(NodeId(1)).await;
    assert_eq!(cluster.report(1).under_replicated, 6);
    cluster.set_away(3, false);
    cluster.round(NodeId(1)).await;
    assert_eq!(cluster.report(1).under_replicated, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_missed_while_everything_is_compared_is_found_by_the_next_comparison() {
    let mut cluster = Cluster::new(3).await;
    for _ in 0..8 {
        cluster.deliver(&[1, 2, 3]).await;
    }
    cluster.compare(NodeId(1)).await;
    cluster.compare(NodeId(1)).await;
    for _ in 0..8 {
        cluster.deliver(&[2, 3]).await;
    }
    let node = cluster.nodes.get_mut(&NodeId(1)).unwrap();
    node.unheard.clear();
    node.unheard.push(Change::Missed);
    while cluster.compare(NodeId(1)).await == Compared::Soon {}
    assert!(!cluster.nodes[&NodeId(1)].repair.is_whole_here());
    cluster.round(NodeId(1)).await;
    assert!(cluster.nodes[&NodeId(1)].repair.is_whole_here());
    let first = *lock(&cluster.referenced.0).first().unwrap();
    assert_eq!(cluster.holders(first).await, 3);
    assert_eq!(cluster.naive().await, (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lost_copy_is_found_in_the_background_and_what_nobody_has_is_missing() {
    let mut cluster = Cluster::new(3).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(cluster.deliver(&[1, 2, 3]).await);
    }
    for node in cluster.voters.clone() {
        cluster.round(node).await;
    }
    cluster.nodes[&NodeId(2)].store.files().remove(ids[4]).unwrap();
    for node in 1..=3 {
        cluster.nodes[&NodeId(node)].store.files().remove(ids[5]).unwrap();
    }
    cluster.round(NodeId(1)).await;
    assert_eq!(cluster.report(1).under_replicated, 2);
    assert_eq!((cluster.report(1).missing, cluster.report(1).lacking_here), (1, 1));
    cluster.round(NodeId(2)).await;
    assert_eq!((cluster.report(2).missing, cluster.report(2).lacking_here), (1, 1));
    assert_eq!((cluster.holders(ids[4]).await, cluster.holders(ids[5]).await), (3, 0));
    cluster.release(ids[5]);
    cluster.mend(NodeId(1)).await;
    assert_eq!(cluster.report(1), RepairReport::default());
}

#[tokio::test(start_paused = true)]
async fn what_comes_and_goes_while_everything_is_counted_is_counted_once() {
    let mut cluster = Cluster::new(3).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(cluster.deliver(&[1, 2]).await);
    }
    // Of the third nothing is known: of each blob one copy is in doubt.
    cluster.set_away(3, true);
    let referenced = cluster.referenced.clone();
    for round in 0..2 {
        // Each page shows what is heard of only after it.
        loop {
            ids.push(cluster.deliver(&[1, 2]).await);
            let gone = ids.remove(round);
            cluster.release(gone);
            let repair = &mut cluster.nodes.get_mut(&NodeId(1)).unwrap().repair;
            let compared = repair.compare(&referenced).await.unwrap();
            cluster.hear(NodeId(1));
            if compared == Compared::End {
                break;
            }
        }
        cluster.mend(NodeId(1)).await;
        assert_eq!(cluster.report(1).under_replicated, cluster.naive().await.0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_only_a_learner_has_is_fetched_from_it() {
    let mut cluster = Cluster::new(4).await;
    cluster.voters.remove(&NodeId(4));
    cluster.learners.insert(NodeId(4));
    for node in (1..=4).map(NodeId) {
        cluster.restart(node);
    }
    let id = cluster.deliver(&[1, 2, 3, 4]).await;
    for node in 1..=3 {
        cluster.nodes[&NodeId(node)].store.files().remove(id).unwrap();
    }
    cluster.round(NodeId(1)).await;
    assert_eq!(cluster.report(1).missing, 0);
    cluster.has_asked();
    cluster.round(NodeId(2)).await;
    let asked = cluster.has_asked();
    let frames = |request: &&Request| matches!(request, Request::ReadFrame { .. });
    assert_eq!(
        asked.iter().filter(frames).count(),
        1,
        "voters are asked first, and one has it now"
    );
    assert_eq!(cluster.holders(id).await, 3);
    // A learner's copy is no copy that counts.
    assert_eq!(cluster.report(1).under_replicated, 1);
}

/// One thing that happens.
async fn happen(cluster: &mut Cluster, entropy: &dyn Entropy) {
    let any = NodeId(1 + entropy.below(cluster.voters.len() as u64));
    let away = lock(&cluster.net.away).clone();
    let referenced: Vec<BlobId> = lock(&cluster.referenced.0).iter().copied().collect();
    let pick = |ids: &[BlobId]| ids.get(entropy.below(ids.len().max(1) as u64) as usize).copied();
    match entropy.below(12) {
        0..=2 => {
            let mut holders: Vec<u64> = cluster
                .voters
                .iter()
                .filter(|node| !away.contains(node))
                .map(|node| node.0)
                .collect();
            holders.retain(|_| entropy.below(4) > 0);
            if holders.is_empty() {
                holders.push(any.0);
            }
            cluster.deliver(&holders).await;
        }
        3 => {
            if let Some(id) = pick(&referenced) {
                cluster.release(id);
            }
        }
        4 => {
            if let Some(id) = pick(&referenced) {
                cluster.nodes[&any].store.files().remove(id).unwrap();
            }
        }
        5 => cluster.set_away(any.0, away.is_empty()),
        6 => {
            let there = cluster.nodes.get_mut(&any).unwrap();
            there.unheard.clear();
            there.unheard.push(Change::Missed);
        }
        7 => cluster.restart(any),
        8..=9 => cluster.mend(any).await,
        _ => {
            cluster.compare(any).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_happened_all_is_everywhere_in_the_end_and_the_counts_are_true() {
    for seed in 0..60 {
        let entropy: &dyn Entropy = &SeededEntropy::new(seed);
        let mut cluster = Cluster::new(3 + seed % 2).await;
        for _ in 0..entropy.below(60) {
            happen(&mut cluster, entropy).await;
        }
        lock(&cluster.net.away).clear();
        for _ in 0..2 {
            for node in cluster.voters.clone() {
                cluster.round(node).await;
            }
        }
        for node in cluster.voters.clone() {
            cluster.mend(node).await;
        }
        let (few, none) = cluster.naive().await;
        assert_eq!(few, none, "seed {seed}: whatever anybody had, all have");
        for node in cluster.voters.clone() {
            let report = cluster.report(node.0);
            let expected = RepairReport {
                under_replicated: few,
                lacking_here: none,
                missing: none,
            };
            assert_eq!(report, expected, "seed {seed}: {node}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_count_is_true_at_any_time_when_nothing_is_lost_behind_our_backs() {
    for seed in 0..40 {
        let entropy: &dyn Entropy = &SeededEntropy::new(seed);
        let mut cluster = Cluster::new(3).await;
        for node in cluster.voters.clone() {
            cluster.round(node).await;
        }
        for _ in 0..40 {
            // No lost file, no missed change, no restart.
            let away = lock(&cluster.net.away).clone();
            let any = NodeId(1 + entropy.below(3));
            match entropy.below(6) {
                0..=1 => {
                    let up: Vec<u64> = (1..=3).filter(|node| !away.contains(&NodeId(*node))).collect();
                    cluster.deliver(&up).await;
                }
                2 => {
                    let first = lock(&cluster.referenced.0).first().copied();
                    if let Some(id) = first {
                        cluster.release(id);
                    }
                }
                3 => cluster.set_away(any.0, away.is_empty()),
                4 => cluster.mend(any).await,
                _ => {
                    cluster.compare(any).await;
                }
            }
            let away = lock(&cluster.net.away).clone();
            let (few, _) = cluster.naive().await;
            for node in cluster.voters.clone().difference(&away) {
                cluster.mend(*node).await;
                let report = cluster.report(node.0);
                // Who mends may fetch, and makes the count smaller.
                let (fewer, _) = cluster.naive().await;
                assert!(
                    (fewer..=few).contains(&report.under_replicated),
                    "seed {seed}: {node}: {report:?} but {fewer} to {few}"
                );
            }
        }
    }
}
