//! Several stores, and requests between them in memory: replication, reading from peers, repair.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use core_types::BlobId;
use core_types::limits::{BLOB_SILENT_FOR, FRAME_BYTES_MAX};
use platform::{FaultyDisk, SeededEntropy};
use tokio::time::Instant;
use transport::{CallError, Service, ServiceId};

use super::*;
use crate::files::{compressed_path, lock};
use crate::testing::{get, message, open, put, read_all, seal};
use crate::wire::{decode_answer, decode_request, encode_request};
use crate::{BlobService, Fetcher};

const MIB: usize = 1024 * 1024;
const VOTERS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Unreachable,
    Silent,
    /// Answers each request after half a second.
    Slow,
    /// Silent from the third frame of a large blob on.
    StopsHalfway,
    /// Flips a bit in each request.
    Garbles,
    /// Flips a bit in each frame that it serves.
    Lies,
}

#[derive(Default)]
struct Net {
    services: Mutex<BTreeMap<NodeId, Arc<BlobService>>>,
    faults: Mutex<BTreeMap<NodeId, Fault>>,
    largest: Mutex<usize>,
    asked: Mutex<Vec<NodeId>>,
}

struct NetRpc {
    node: NodeId,
    net: Arc<Net>,
}

#[async_trait]
impl Rpc for NetRpc {
    fn node(&self) -> NodeId {
        self.node
    }

    async fn call(
        &self,
        to: NodeId,
        _: Class,
        service: ServiceId,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        assert_eq!(service, ServiceId::BLOB);
        assert!(request.len() as u64 <= FRAME_BYTES_MAX);
        lock(&self.net.asked).push(to);
        let fault = lock(&self.net.faults).get(&to).copied();
        let mut bytes = request.to_vec();
        match fault {
            Some(Fault::Unreachable) => return Err(CallError::Unreachable(to)),
            Some(Fault::Slow) => tokio::time::sleep(Duration::from_millis(500)).await,
            Some(Fault::Garbles) if bytes.len() > 60 => {
                let place = bytes.len() - 50;
                bytes[place] ^= 1;
            }
            _ => {}
        }
        let halfway = matches!(decode_request(&request), Ok(Request::Frame { index, .. }) if index >= 2);
        if fault == Some(Fault::Silent) || fault == Some(Fault::StopsHalfway) && halfway {
            tokio::time::sleep(timeout).await;
            return Err(CallError::NoAnswer(to));
        }
        let service = lock(&self.net.services)
            .get(&to)
            .cloned()
            .ok_or(CallError::Unreachable(to))?;
        let answer = service
            .serve(self.node, bytes.into())
            .await
            .map_err(|refused| CallError::Refused(refused.0))?;
        let mut largest = lock(&self.net.largest);
        *largest = (*largest).max(answer.len()).max(request.len());
        let mut answer = answer.to_vec();
        if fault == Some(Fault::Lies) && answer.len() > 1000 {
            answer[900] ^= 1;
        }
        Ok(answer.into())
    }

    fn is_reachable(&self, _: NodeId) -> bool {
        true
    }
}

struct Cluster {
    net: Arc<Net>,
    disks: BTreeMap<NodeId, FaultyDisk>,
    stores: BTreeMap<NodeId, BlobStore>,
}

impl Cluster {
    async fn new(nodes: u64) -> Self {
        let mut cluster = Self {
            net: Arc::default(),
            disks: BTreeMap::new(),
            stores: BTreeMap::new(),
        };
        for node in (1..=nodes).map(NodeId) {
            let disk = FaultyDisk::new();
            let store = open(&disk).await;
            lock(&cluster.net.services).insert(node, Arc::new(BlobService::new(store.clone())));
            cluster.disks.insert(node, disk);
            cluster.stores.insert(node, store);
        }
        cluster
    }

    fn rpc(&self, node: u64) -> Arc<dyn Rpc> {
        Arc::new(NetRpc {
            node: NodeId(node),
            net: Arc::clone(&self.net),
        })
    }

    fn store(&self, node: u64) -> &BlobStore {
        &self.stores[&NodeId(node)]
    }

    fn replicator(&self, node: u64) -> Replicator {
        Replicator::new(self.store(node).clone(), self.rpc(node), &SeededEntropy::new(node))
    }

    fn fault(&self, node: u64, fault: Fault) {
        lock(&self.net.faults).insert(NodeId(node), fault);
    }

    async fn replicate(&self, node: u64, raw: &[u8]) -> (BlobId, Receipts) {
        let sealed = seal(self.store(node), raw).await.unwrap();
        let receipts = self
            .replicator(node)
            .store(&sealed, GroupId(1), Incarnation(4), 77, &VOTERS)
            .await
            .unwrap();
        (sealed.id(), receipts)
    }
}

#[tokio::test(start_paused = true)]
async fn all_voters_get_a_copy_whether_the_putter_is_one_or_not() {
    let cluster = Cluster::new(4).await;
    for (node, length) in [(1, 500), (4, 600), (1, 3 * MIB + 5), (4, 3 * MIB)] {
        let raw = message(length, node * 10 + length as u64);
        let (id, receipts) = cluster.replicate(node, &raw).await;
        assert_eq!(
            (receipts.nodes.as_slice(), receipts.skipped.as_slice()),
            (VOTERS.as_slice(), [].as_slice())
        );
        assert_eq!((receipts.incarnation, receipts.membership_index), (Incarnation(4), 77));
        for voter in 1..=3 {
            assert!(get(cluster.store(voter), id).await.unwrap() == raw);
        }
        assert!(!cluster.store(4).has(id).await.unwrap());
    }
    assert!(*lock(&cluster.net.largest) < MIB + 20_000, "one frame at a time");
}

#[tokio::test(start_paused = true)]
async fn a_voter_without_an_answer_is_skipped_after_a_second() {
    for (fault, length, longest) in [
        (Fault::Unreachable, 500, 0),
        (Fault::Silent, 500, 1000),
        (Fault::Unreachable, 3 * MIB, 0),
        (Fault::Silent, 3 * MIB, 1000),
        (Fault::StopsHalfway, 4 * MIB, 1000),
    ] {
        let cluster = Cluster::new(3).await;
        cluster.fault(3, fault);
        let start = Instant::now();
        let (_, receipts) = cluster.replicate(1, &message(length, 1)).await;
        assert_eq!(
            (receipts.nodes, receipts.skipped),
            (vec![NodeId(1), NodeId(2)], vec![NodeId(3)])
        );
        assert!(start.elapsed() <= Duration::from_millis(longest + 1));
    }
}

/// Puts one more message; how long that took, and whom the receipts name.
async fn timed(cluster: &Cluster, replicator: &Replicator, raw: &[u8]) -> (Duration, BlobId, [Vec<u64>; 2]) {
    let sealed = seal(cluster.store(1), raw).await.unwrap();
    let start = Instant::now();
    let receipts = replicator
        .store(&sealed, GroupId(1), Incarnation(4), 77, &VOTERS)
        .await
        .unwrap();
    let names = [&receipts.nodes, &receipts.skipped].map(|nodes| nodes.iter().map(|node| node.0).collect());
    (start.elapsed(), sealed.id(), names)
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_silent_is_not_waited_for_until_it_answers() {
    for length in [500, 3 * MIB] {
        let cluster = Cluster::new(3).await;
        let replicator = cluster.replicator(1);
        cluster.fault(3, Fault::Silent);
        let (took, _, names) = timed(&cluster, &replicator, &message(length, 1)).await;
        assert_eq!((took.as_secs(), names), (1, [vec![1, 2], vec![3]]));
        let mut last = BlobId([0; 32]);
        for seed in 2..16 {
            let (took, id, names) = timed(&cluster, &replicator, &message(length, seed)).await;
            assert!(took < Duration::from_millis(50), "{took:?}");
            assert_eq!(names, [vec![1, 2], vec![3]]);
            // It stays silent, for longer than it is remembered after one silence.
            tokio::time::sleep(Duration::from_millis(500)).await;
            last = id;
        }
        assert!(!cluster.store(3).has(last).await.unwrap());
        lock(&cluster.net.faults).clear();
        tokio::time::sleep(BLOB_PUT_TIMEOUT).await;
        let (_, id, _) = timed(&cluster, &replicator, &message(length, 50)).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(cluster.store(3).has(id).await.unwrap(), "it was tried");
        let (_, _, names) = timed(&cluster, &replicator, &message(length, 51)).await;
        assert_eq!(names, [vec![1, 2, 3], vec![]], "and waited for again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_was_silent_is_waited_for_where_the_others_are_too_few() {
    let cluster = Cluster::new(3).await;
    let replicator = cluster.replicator(1);
    cluster.fault(2, Fault::Silent);
    cluster.fault(3, Fault::Silent);
    for seed in 1..4 {
        let (took, _, names) = timed(&cluster, &replicator, &message(500, seed)).await;
        assert_eq!((took.as_secs(), names), (1, [vec![1], vec![2, 3]]));
    }
    cluster.fault(2, Fault::Slow);
    // Also by one that comes while another tries them.
    let (first, second) = (message(500, 5), message(500, 6));
    let puts = [
        timed(&cluster, &replicator, &first),
        timed(&cluster, &replicator, &second),
    ];
    for (took, _, names) in futures_util::future::join_all(puts).await {
        assert_eq!((took.as_millis(), names), (500, [vec![1, 2], vec![3]]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silence_is_forgotten_after_a_while() {
    let cluster = Cluster::new(3).await;
    let replicator = cluster.replicator(1);
    cluster.fault(3, Fault::Silent);
    for seed in 1..4 {
        let (took, ..) = timed(&cluster, &replicator, &message(500, seed)).await;
        assert_eq!(took.as_secs(), 1);
        tokio::time::sleep(BLOB_SILENT_FOR).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hung_voter_has_one_put_to_bear_at_a_time() {
    let cluster = Cluster::new(3).await;
    let replicator = cluster.replicator(1);
    cluster.fault(3, Fault::Silent);
    timed(&cluster, &replicator, &message(500, 1)).await;
    let asked = || {
        lock(&cluster.net.asked)
            .iter()
            .filter(|node| **node == NodeId(3))
            .count()
    };
    let before = asked();
    for seed in 2..100 {
        timed(&cluster, &replicator, &message(500, seed)).await;
    }
    assert_eq!(asked() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_voter_that_makes_progress_is_waited_for() {
    let cluster = Cluster::new(3).await;
    cluster.fault(3, Fault::Slow);
    let (_, receipts) = cluster.replicate(1, &message(6 * MIB, 1)).await;
    assert_eq!(receipts.nodes, VOTERS);
}

#[tokio::test(start_paused = true)]
async fn with_copies_enough_a_silent_voter_costs_no_time() {
    let cluster = Cluster::new(5).await;
    cluster.fault(5, Fault::Silent);
    let sealed = seal(cluster.store(1), &message(500, 1)).await.unwrap();
    let voters: Vec<NodeId> = (1..=5).map(NodeId).collect();
    let start = Instant::now();
    let receipts = cluster
        .replicator(1)
        .store(&sealed, GroupId(1), Incarnation(0), 0, &voters)
        .await
        .unwrap();
    assert!(receipts.nodes.len() == 3 && receipts.skipped.is_empty() && start.elapsed() < Duration::from_millis(10));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(cluster.store(4).has(sealed.id()).await.unwrap(), "the others go on");
}

#[tokio::test(start_paused = true)]
async fn a_voter_with_a_full_disk_is_skipped() {
    let cluster = Cluster::new(3).await;
    cluster.disks[&NodeId(2)].set_capacity(Some(0));
    let (_, receipts) = cluster.replicate(1, &message(500, 1)).await;
    assert_eq!(
        (receipts.nodes, receipts.skipped),
        (vec![NodeId(1), NodeId(3)], vec![NodeId(2)])
    );
}

#[tokio::test(start_paused = true)]
async fn quic_blob_wrong_hash() {
    let cluster = Cluster::new(3).await;
    cluster.fault(2, Fault::Garbles);
    for length in [500, 2 * MIB] {
        let (id, receipts) = cluster.replicate(1, &message(length, 1)).await;
        assert_eq!(
            (receipts.nodes, receipts.skipped),
            (vec![NodeId(1), NodeId(3)], vec![NodeId(2)])
        );
        assert!(!cluster.store(2).has(id).await.unwrap());
    }
    // Another blob's bytes under this name.
    let service = BlobService::new(cluster.store(3).clone());
    let sealed = seal(cluster.store(1), &message(100, 5)).await.unwrap();
    let Encoded::Memory(file) = sealed.encoded() else {
        unreachable!()
    };
    let request = encode_request(&Request::Put {
        id: BlobId([7; 32]),
        file: file.clone(),
    })
    .unwrap();
    let answer = service.serve(NodeId(1), request).await.unwrap();
    assert_eq!(decode_answer(&answer).unwrap(), Answer::WrongHash);
    // Whoever hears that looks at its own copy.
    let wrong = put(cluster.store(1), &message(100, 6)).await.unwrap();
    cluster.store(1).flush().await.unwrap();
    cluster.disks[&NodeId(1)].flip_bit(&compressed_path(wrong), 30, 1);
    let stored = seal(cluster.store(1), &message(100, 6)).await.unwrap();
    assert!(
        cluster
            .replicator(1)
            .settle(stored.stored(), Answer::WrongHash)
            .is_err()
    );
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(cluster.store(1).status().corrupt, 1);
}

#[tokio::test(start_paused = true)]
async fn quic_blob_missing() {
    let cluster = Cluster::new(3).await;
    let fetcher = Fetcher::new(cluster.store(1).clone(), cluster.rpc(1));
    let id = BlobId([5; 32]);
    assert!(matches!(
        fetcher.open_blob(id, &VOTERS).await,
        Err(BlobError::Unavailable(_))
    ));
    assert!(matches!(
        fetcher.fetch(id, &VOTERS).await,
        Err(BlobError::Unavailable(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn quic_unknown_variant() {
    let cluster = Cluster::new(1).await;
    let service = BlobService::new(cluster.store(1).clone());
    for request in [&[2_u8, 0, 0][..], &[1, 200, 0, 0, 0], &[]] {
        assert!(service.serve(NodeId(9), Bytes::copy_from_slice(request)).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_the_blob_reads_ranges_from_peers_and_from_the_next_when_one_lies() {
    let cluster = Cluster::new(4).await;
    let raw = message(2 * MIB + 300, 1);
    let (id, _) = cluster.replicate(1, &raw).await;
    cluster.fault(1, Fault::Lies);
    cluster.fault(2, Fault::Unreachable);
    let reader = Fetcher::new(cluster.store(4).clone(), cluster.rpc(4))
        .open_blob(id, &VOTERS)
        .await
        .unwrap();
    assert_eq!(reader.len(), raw.len() as u64);
    assert!(reader.read(MIB as u64 - 5..MIB as u64 + 5, 10).await.unwrap() == raw[MIB - 5..MIB + 5]);
    assert!(read_all(&reader).await.unwrap() == raw);
    cluster.fault(3, Fault::Unreachable);
    let read = reader.read(0..10, 10).await;
    assert!(
        matches!(read, Err(BlobError::Unavailable(_))),
        "never empty, never wrong"
    );
}

#[tokio::test(start_paused = true)]
async fn a_wrong_copy_is_fetched_again() {
    let cluster = Cluster::new(3).await;
    for length in [700, 2 * MIB] {
        let raw = message(length, 1);
        let (id, _) = cluster.replicate(1, &raw).await;
        cluster.store(2).flush().await.unwrap();
        cluster.disks[&NodeId(2)].flip_bit(&compressed_path(id), 30, 1);
        let fetcher = Fetcher::new(cluster.store(2).clone(), cluster.rpc(2));
        fetcher.fetch(id, &VOTERS).await.unwrap();
        assert!(get(cluster.store(2), id).await.unwrap() == raw);
    }
    assert_eq!(cluster.store(2).status().corrupt, 2);
}

#[tokio::test(start_paused = true)]
async fn a_frame_or_a_commit_that_comes_twice_changes_nothing() {
    let cluster = Cluster::new(2).await;
    let sealed = seal(cluster.store(1), &message(2 * MIB, 1)).await.unwrap();
    let service = BlobService::new(cluster.store(2).clone());
    let serve = async |request: Request| {
        let answer = service
            .serve(NodeId(1), encode_request(&request).unwrap())
            .await
            .unwrap();
        decode_answer(&answer).unwrap()
    };
    let (id, outline) = (sealed.id(), sealed.stored().table.outline());
    let frame = |index: u32| Request::Frame {
        transfer: 5,
        index,
        encoded: sealed.stored().encoded(index as usize).unwrap(),
    };
    assert_eq!(serve(frame(0)).await, Answer::Missing, "no such transfer");
    let begin = Request::Begin {
        transfer: 5,
        id,
        outline,
    };
    assert_eq!(serve(begin.clone()).await, Answer::Received { frames: 0 });
    assert_eq!(serve(frame(0)).await, Answer::Received { frames: 1 });
    assert_eq!(serve(frame(0)).await, Answer::Received { frames: 1 });
    assert_eq!(serve(begin).await, Answer::Received { frames: 1 });
    assert_eq!(serve(frame(1)).await, Answer::Received { frames: 2 });
    assert_eq!(serve(Request::Commit { transfer: 5, id }).await, Answer::Stored);
    assert_eq!(serve(Request::Commit { transfer: 5, id }).await, Answer::Stored);
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_ids_in_one_request_is_exact() {
    let cluster = Cluster::new(1).await;
    let service = BlobService::new(cluster.store(1).clone());
    let limit = core_types::limits::BLOB_PAGE_MAX;
    for (count, fits) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let request = Request::Has {
            ids: vec![BlobId([1; 32]); count],
        };
        let answer = service
            .serve(NodeId(2), encode_request(&request).unwrap())
            .await
            .unwrap();
        assert_eq!(
            matches!(decode_answer(&answer).unwrap(), Answer::Has(has) if has.len() == count),
            fits
        );
    }
}

/// quic-snapshot-cut, for blobs.
#[tokio::test(start_paused = true)]
async fn a_transfer_that_is_cut_or_has_gaps_leaves_nothing() {
    let cluster = Cluster::new(2).await;
    let sealed = seal(cluster.store(1), &message(3 * MIB, 1)).await.unwrap();
    let service = BlobService::new(cluster.store(2).clone());
    let serve = async |request: Request| {
        let answer = service
            .serve(NodeId(1), encode_request(&request).unwrap())
            .await
            .unwrap();
        decode_answer(&answer).unwrap()
    };
    let (id, outline) = (sealed.id(), sealed.stored().table.outline());
    let frame = |transfer, index: u32| Request::Frame {
        transfer,
        index,
        encoded: sealed.stored().encoded(index as usize).unwrap(),
    };
    let temps = || {
        cluster.disks[&NodeId(2)]
            .paths()
            .iter()
            .filter(|path| path.starts_with("tmp/"))
            .count()
    };
    serve(Request::Begin {
        transfer: 1,
        id,
        outline: outline.clone(),
    })
    .await;
    assert!(matches!(serve(frame(1, 1)).await, Answer::Failed(_)), "a gap");
    assert_eq!(temps(), 0);
    serve(Request::Begin {
        transfer: 2,
        id,
        outline: outline.clone(),
    })
    .await;
    serve(frame(2, 0)).await;
    assert!(
        matches!(serve(Request::Commit { transfer: 2, id }).await, Answer::Failed(_)),
        "not whole"
    );
    serve(Request::Begin {
        transfer: 3,
        id,
        outline: outline.clone(),
    })
    .await;
    assert_eq!(temps(), 1);
    tokio::time::sleep(core_types::limits::BLOB_TRANSFER_IDLE).await;
    serve(Request::Begin {
        transfer: 4,
        id,
        outline,
    })
    .await;
    assert_eq!(temps(), 1, "the one that rested is gone");
    assert!(!cluster.store(2).has(id).await.unwrap());
}
