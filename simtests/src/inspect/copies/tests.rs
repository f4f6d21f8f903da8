//! Planted bugs: copies that are taken away, spoilt or too many are seen.

use blobstore::BlobStore;
use bytes::Bytes;
use core_types::{GroupId, Incarnation};
use platform::InlinePool;
use raft::log::{GroupKey, LogEntry, LogMark, Record};

use super::*;

const NODES: u64 = 3;

/// A message on this disk: its blob, and its entry in the log.
async fn stored(disk: &FaultyDisk, node: u64, message: &[u8]) -> BlobId {
    let (as_disk, pool): (Arc<dyn Disk>, Arc<dyn BlockingPool>) = (Arc::new(disk.clone()), Arc::new(InlinePool));
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(node));
    let store = BlobStore::open(
        host::scale().blobs,
        Arc::clone(&as_disk),
        Arc::clone(&pool),
        Arc::clone(&entropy),
    )
    .await
    .unwrap();
    let mut writer = store.writer();
    writer.write(message).await.unwrap();
    let sealed = writer.finish().await.unwrap();
    store.put(&sealed).await.unwrap();
    let config = LogConfig {
        segment_bytes: host::scale().log_segment_bytes,
        ..LogConfig::new(NodeId(node))
    };
    let log = SharedLog::open(as_disk, pool, entropy.as_ref(), config).unwrap();
    let key = GroupKey {
        group: GroupId(1),
        incarnation: Incarnation(1),
    };
    let entry = LogEntry {
        mark: LogMark { term: 1, index: 0 },
        body: Bytes::from([b"op ", &sealed.id().0[..], b" more"].concat()),
    };
    log.write(key, vec![Record::Created, Record::Append(entry)])
        .await
        .unwrap();
    sealed.id()
}

async fn cluster(message: &[u8]) -> (Vec<FaultyDisk>, BlobId) {
    let disks: Vec<FaultyDisk> = (0..NODES).map(|_| FaultyDisk::new()).collect();
    let mut id = None;
    for (node, disk) in (1..).zip(&disks) {
        id = Some(stored(disk, node, message).await);
    }
    (disks, id.unwrap())
}

fn look(disks: &[FaultyDisk]) -> Vec<(u64, Durable)> {
    let durable = |(node, disk): (u64, &FaultyDisk)| (node, Durable::of(node, &disk.image()).unwrap());
    (1..).zip(disks).map(durable).collect()
}

fn stock(disks: &[FaultyDisk], wanted: &[BlobId]) -> Whole {
    let stocks: Vec<Stock> = look(disks)
        .into_iter()
        .map(|(host, disk)| Stock {
            node: format!("node-{host}"),
            filed: filed(&disk.copy),
            disk,
            wanted: wanted.iter().copied().collect(),
        })
        .collect();
    whole_of(&stocks)
}

#[tokio::test]
async fn an_acknowledged_message_is_durable_on_all_and_one_that_is_not_is_seen() {
    let (disks, _) = cluster(b"Received: here\r\nX-Token: m1\r\n\r\nbytes\r\n").await;
    let all = BTreeSet::from([1, 2, 3]);
    let ours = b"X-Token: m1\r\n\r\nbytes\r\n";
    let seen = Disks::default().copies_on(&look(&disks), ours);
    assert_eq!((seen.blob, seen.entry), (all.clone(), all));
    assert_eq!(Disks::default().copies_on(&look(&disks), b"another"), Seen::default());
    for disk in disks.iter().take(2) {
        disk.remove_at_rest("blobs");
    }
    disks[2].remove_at_rest("log/");
    let seen = Disks::default().copies_on(&look(&disks), ours);
    assert_eq!((seen.blob, seen.entry), (BTreeSet::from([3]), BTreeSet::from([1, 2])));
}

#[tokio::test]
async fn what_was_not_synced_does_not_count() {
    let (disks, _) = cluster(b"X-Token: m1\r\n\r\nbytes\r\n").await;
    // The last write to the journal was never synced: what a power loss leaves is the journal as it was made.
    let empty = FaultyDisk::new();
    empty.create_dir_all("blobs.journal").unwrap();
    for path in disks[1].paths() {
        let file = disks[1].open(&path, core_types::OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_exact_at(0, &mut bytes).unwrap();
        empty
            .create_dir_all(path.rsplit_once('/').map_or("", |(parent, _)| parent))
            .unwrap();
        let copy = empty.open(&path, core_types::OpenMode::CreateOrOpen).unwrap();
        copy.write_at(0, &bytes).unwrap();
    }
    let disks = [disks[0].clone(), empty];
    let seen = Disks::default().copies_on(&look(&disks), b"bytes\r\n");
    assert_eq!(seen.blob, BTreeSet::from([1]));
}

#[tokio::test]
async fn blobs_that_are_lost_damaged_or_not_referred_to_are_seen() {
    let (disks, id) = cluster(&[7; 20_000]).await;
    assert_eq!(stock(&disks, &[id]).lacking, [""; 0]);
    assert_eq!(stock(&disks, &[id]).orphans, [""; 0]);
    assert_eq!(stock(&disks, &[]).orphans.len(), 3, "nothing refers to it");
    disks[0].remove_at_rest("blobs");
    let whole = stock(&disks, &[id]);
    assert!(
        whole.lacking.iter().any(|text| text.contains("node-1 refers")),
        "{whole:?}"
    );
    assert!(whole.lacking.iter().any(|text| text.contains("only")), "{whole:?}");
}

#[test]
fn damage_to_a_disk_is_known_by_what_fired() {
    let disk = FaultyDisk::new();
    assert_eq!(damage(&disk.fired()), 0);
    disk.freeze();
    assert_eq!(damage(&disk.fired()), 0, "nothing is lost by waiting");
    disk.wipe();
    disk.remove_at_rest("blobs/");
    assert_eq!(damage(&disk.fired()), 2);
}
