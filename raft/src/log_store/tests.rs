//! openraft's own tests of a log, and what ours promises beyond them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::io::Cursor;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use core_types::{BlockingPool, Disk, GroupId, Incarnation, NodeId};
use futures_util::{StreamExt, TryStreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, RaftSnapshotBuilder, StorageError};
use platform::{FaultyDisk, InlinePool, RealDisk, SeededEntropy, TokioPool};

use super::*;
use crate::log::LogConfig;
use crate::types::{Applied, EncodedCommand, SnapshotMeta, StoredMembership};

/// A state machine that only remembers how far it is.
#[derive(Clone, Default)]
struct Machine(Arc<Mutex<(Option<LogId>, StoredMembership)>>);

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    type SnapshotData = Cursor<Vec<u8>>;

    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::type_config::alias::SnapshotOf<TypeConfig, Self::SnapshotData>, io::Error> {
        let (last_log_id, last_membership) = self.0.lock().unwrap().clone();
        Ok(openraft::Snapshot {
            meta: SnapshotMeta {
                last_log_id,
                last_membership,
            },
            snapshot: Cursor::default(),
        })
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Cursor<Vec<u8>>;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.0.lock().unwrap().clone())
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            {
                let mut state = self.0.lock().unwrap();
                state.0 = Some(entry.log_id);
                if let EntryPayload::Membership(membership) = &entry.payload {
                    state.1 = StoredMembership::new(Some(entry.log_id), membership.clone());
                }
            }
            if let Some(responder) = responder {
                responder.send(Applied(None));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _: Self::SnapshotData) -> Result<(), io::Error> {
        *self.0.lock().unwrap() = (meta.last_log_id, meta.last_membership.clone());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::type_config::alias::SnapshotOf<TypeConfig, Self::SnapshotData>>, io::Error> {
        let snapshot = self.build_snapshot().await?;
        Ok(snapshot.meta.last_log_id.is_some().then_some(snapshot))
    }
}

fn key(group: u32) -> GroupKey {
    GroupKey {
        group: GroupId(group),
        incarnation: Incarnation(1),
    }
}

fn open(disk: Arc<dyn Disk>, pool: Arc<dyn BlockingPool>) -> SharedLog {
    let config = LogConfig {
        segment_bytes: 64 * 1024,
        cache_bytes: 1000,
        ..LogConfig::new(NodeId(1))
    };
    SharedLog::open(disk, pool, &SeededEntropy::new(1), config).unwrap()
}

/// Gives each test of the suite a group of its own in the one log.
struct Groups {
    log: SharedLog,
    next: AtomicU64,
}

impl StoreBuilder<TypeConfig, LogStore, Machine, ()> for Groups {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
        let group = u32::try_from(self.next.fetch_add(1, Ordering::Relaxed)).unwrap();
        let store = LogStore::open(self.log.clone(), key(group), Arc::default())
            .await
            .unwrap();
        Ok(((), store, Machine::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes_on_a_real_disk() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(RealDisk::open(directory.path()).unwrap());
    let pool = Arc::new(TokioPool::new(tokio::runtime::Handle::current()));
    let log = open(disk, pool);
    let next = AtomicU64::new(1);
    Suite::test_all(Groups { log, next }).await.unwrap();
}

#[tokio::test]
async fn openrafts_suite_passes_on_a_simulated_disk() {
    let log = open(Arc::new(FaultyDisk::new()), Arc::new(InlinePool));
    let next = AtomicU64::new(1);
    Suite::test_all(Groups { log, next }).await.unwrap();
}

fn entry(term: u64, index: u64, body: usize) -> Entry {
    let data = EncodedCommand(Bytes::from(vec![7; body]));
    Entry::new(LogId::new_term_index(term, index), EntryPayload::Normal(data))
}

#[tokio::test]
async fn what_was_flushed_is_there_after_a_crash_and_a_mark_without_its_entry_says_nothing() {
    let disk = FaultyDisk::new();
    let pool = Arc::new(InlinePool);
    {
        let mut store = LogStore::open(open(Arc::new(disk.clone()), pool.clone()), key(1), Arc::default())
            .await
            .unwrap();
        store.save_vote(&Vote::new(3, 1)).await.unwrap();
        store
            .blocking_append((0..5).map(|index| entry(3, index, 10)))
            .await
            .unwrap();
        store.save_committed(Some(LogId::new_term_index(3, 9))).await.unwrap();
        // Takes the mark along.
        store.save_vote(&Vote::new(4, 1)).await.unwrap();
    }
    disk.crash_strictly();
    let mut store = LogStore::open(open(Arc::new(disk), pool), key(1), Arc::default())
        .await
        .unwrap();
    assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(4, 1)));
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, Some(LogId::new_term_index(3, 4)));
    assert_eq!(store.read_committed().await.unwrap(), None);
}

#[tokio::test]
async fn a_leader_that_starts_again_is_a_candidate_and_anothers_vote_is_as_it_was() {
    let log = open(Arc::new(FaultyDisk::new()), Arc::new(InlinePool));
    let this = log.node().0;
    let mut store = LogStore::open(log, key(1), Arc::default()).await.unwrap();
    store.save_vote(&Vote::new_committed(3, this)).await.unwrap();
    assert_eq!(store.read_vote().await.unwrap(), Some(Vote::new(3, this)));
    let another = Vote::new_committed(4, this + 1);
    store.save_vote(&another).await.unwrap();
    assert_eq!(store.read_vote().await.unwrap(), Some(another));
}

#[tokio::test]
async fn a_long_log_is_streamed_in_pieces_and_in_order() {
    let log = open(Arc::new(FaultyDisk::new()), Arc::new(InlinePool));
    let mut store = LogStore::open(log, key(1), Arc::default()).await.unwrap();
    for first in (0..40).step_by(4) {
        let entries = (first..first + 4).map(|index| entry(1, index, 300 * 1024));
        store.blocking_append(entries).await.unwrap();
    }
    let limited = store.limited_get_log_entries(0, 40).await.unwrap();
    assert_eq!(limited.len(), limits::LOG_READ_BYTES_MAX / (300 * 1024));
    let streamed: Vec<Entry> = store.entries_stream(3..40).await.try_collect().await.unwrap();
    let indexes: Vec<u64> = streamed.iter().map(|entry| entry.log_id.index).collect();
    assert_eq!(indexes, (3..40).collect::<Vec<u64>>());
}

#[tokio::test]
async fn the_largest_entry_fits_and_a_larger_one_is_refused() {
    let log = open(Arc::new(FaultyDisk::new()), Arc::new(InlinePool));
    let mut store = LogStore::open(log, key(1), Arc::default()).await.unwrap();
    let largest = usize::try_from(limits::ENTRY_BYTES_MAX).unwrap() + 1;
    store.blocking_append([entry(1, 0, largest)]).await.unwrap();
    let error = store.blocking_append([entry(1, 1, limits::LOG_RECORD_BYTES_MAX)]).await;
    assert!(error.is_err());
    store.blocking_append([entry(1, 1, 1)]).await.unwrap();
}

#[tokio::test]
async fn a_removed_group_is_empty_when_it_comes_again() {
    let log = open(Arc::new(FaultyDisk::new()), Arc::new(InlinePool));
    let mut store = LogStore::open(log.clone(), key(1), Arc::default()).await.unwrap();
    store.blocking_append([entry(1, 0, 1)]).await.unwrap();
    log.write(key(1), vec![Record::Removed]).await.unwrap();
    assert!(
        store.blocking_append([entry(1, 1, 1)]).await.is_err(),
        "an old handle writes nothing"
    );
    log.write(key(1), vec![Record::Created]).await.unwrap();
    let mut store = LogStore::open(log, key(1), Arc::default()).await.unwrap();
    assert_eq!(store.get_log_state().await.unwrap().last_log_id, None);
}

#[tokio::test]
async fn an_entry_that_found_no_room_is_no_end_of_the_entries() {
    let disk = FaultyDisk::new();
    let log = open(Arc::new(disk.clone()), Arc::new(InlinePool));
    let mut store = LogStore::open(log, key(1), Arc::default()).await.unwrap();
    store
        .blocking_append((0..5).map(|index| entry(1, index, 10)))
        .await
        .unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let large = (5..7).map(|index| entry(1, index, 1 << 20));
    assert!(store.blocking_append(large).await.is_err());
    for (range, there) in [(0..5, 5), (2..4, 2), (3..7, 2), (5..6, 0)] {
        let entries: Vec<_> = store.entries_stream(range.clone()).await.collect().await;
        let found = entries.iter().filter(|entry| entry.is_ok()).count() as u64;
        let is_whole = entries.iter().all(Result::is_ok);
        assert_eq!(
            (found, is_whole),
            (there, there == range.end - range.start),
            "{range:?}"
        );
    }
}
