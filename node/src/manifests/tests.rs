//! The manifest of a group that changes says what the group's state says, before, while and after it is made smaller.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use core_types::{AccountId, BlobId, Disk, MailboxGuid, MessageGuid, OpenMode, Uid};
use directory::Account;
use mailstore::testing::TestStore;
use platform::{
    CallClass, DiskCall, Effect as Fault, FaultRule, FaultyDisk, InlinePool, SystemClock, SystemEntropy, TokioPool,
};
use raft::consensus::{Membership, ProposeError, ReadFn, Unavailable};
use state::manifest::Replay;
use state::{Command, MemoryEngine, Outcome};

use super::*;
use crate::commands::Newborn;
use crate::config::{Config, Listen, Log, PasswordHash, PlainLogin, Role};
use crate::machine::{Machine, Scale, SystemNetwork};
use crate::start::Node;

/// A group whose manifest is written.
struct Written {
    test: TestStore,
    disk: FaultyDisk,
    manifest: Manifest,
    health: Health,
    groups: Arc<dyn Consensus>,
    writer: Writer,
    account: Account,
}

impl Written {
    async fn new() -> Self {
        let mut test = TestStore::new(0).await;
        let groups: Arc<dyn Consensus> = Arc::clone(test.store.groups());
        let group = GroupId(1);
        let writer = Writer {
            group,
            incarnation: Incarnation(1),
            kind: MachineKind::Mailbox,
            effects: groups.effects(group).unwrap(),
            marked: None,
            has_gap: false,
            has_missed: false,
            looked_bytes: 0,
        };
        let mut account = test.add_account("user1@example.test", None).await;
        while account.group != group {
            account = test
                .add_account(&format!("user{}@example.test", test.accounts.len() + 2), None)
                .await;
            test.accounts.push(account.clone());
        }
        let disk = FaultyDisk::new();
        Self {
            manifest: open(&disk).await,
            disk,
            health: Health::default(),
            groups,
            writer,
            account,
            test,
        }
    }

    async fn deliver_and_expunge(&mut self, count: u32, kept: usize) {
        for number in 0..count {
            let text = format!("Subject: {number}\r\n\r\n");
            self.test.deliver(&self.account, text.as_bytes()).await;
            self.with(|writer, book| writer.drain(book));
            let rows = self.messages().await;
            if rows.len() > kept {
                let mail = self.test.store.account(&self.account);
                let first = rows.iter().min_by_key(|(_, uid, ..)| *uid).unwrap();
                mail.expunge(first.0, &[first.2], false).await.unwrap();
                self.with(|writer, book| writer.drain(book));
            }
        }
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Writer, &Book<'_>) -> T) -> T {
        let book = Book {
            manifest: &self.manifest,
            groups: &self.groups,
            health: &self.health,
            applied: &|_| Some(7),
        };
        act(&mut self.writer, &book)
    }

    async fn compact(&mut self, bytes_min: u64) -> Result<bool, String> {
        let book = Book {
            manifest: &self.manifest,
            groups: &self.groups,
            health: &self.health,
            applied: &|_| Some(7),
        };
        self.writer.compact(&book, bytes_min).await
    }

    /// What the state says.
    async fn messages(&self) -> BTreeSet<(MailboxGuid, Uid, MessageGuid, BlobId)> {
        let mail = self.test.store.account(&self.account);
        let mut messages = BTreeSet::new();
        for mailbox in mail.mailboxes().await.unwrap() {
            for row in mail.messages(mailbox.guid, Uid(1), usize::MAX).await.unwrap() {
                messages.insert((mailbox.guid, row.uid, row.guid, row.blob));
            }
        }
        messages
    }
}

async fn open(disk: &FaultyDisk) -> Manifest {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Manifest::open(disk, Arc::new(InlinePool)).await.unwrap()
}

/// What somebody would recover who has the manifest only.
async fn replayed(manifest: &Manifest, account: AccountId) -> BTreeSet<(MailboxGuid, Uid, MessageGuid, BlobId)> {
    let mut replay = Replay::default();
    let mut lines = manifest.lines(GroupId(1)).await.unwrap();
    loop {
        let page = lines.next_page().await.unwrap();
        if page.is_empty() {
            break;
        }
        for line in page {
            let ManifestLine::Good(line) = line else {
                panic!("damaged: {line:?}")
            };
            replay.take(manifest::parse(&line).unwrap());
        }
    }
    let mine = replay.messages().filter(|(owner, ..)| *owner == account);
    mine.map(|(_, guid, kept)| (kept.mailbox, kept.uid, guid, kept.blob))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_is_mostly_dead_is_made_smaller_and_says_the_same() {
    let mut written = Written::new().await;
    written.deliver_and_expunge(120, 5).await;
    written.manifest.sync().await.unwrap();
    let before = written.manifest.size_bytes(GroupId(1)).await.unwrap();
    assert_eq!(written.compact(before + 1).await, Ok(false), "too small to be worth it");
    written.disk.start_trace();
    assert_eq!(written.compact(before).await, Ok(true));
    let trace = written.disk.trace();
    let at = |is_it: &dyn Fn(&DiskCall) -> bool| trace.iter().rposition(is_it).unwrap();
    let wrote = at(&|call| matches!(call, DiskCall::Write(path, ..) if path == "manifest/1.tsv"));
    let synced = at(&|call| *call == DiskCall::Sync("manifest/1.tsv".to_owned()));
    let removed = trace
        .iter()
        .position(|call| matches!(call, DiskCall::Remove(_)))
        .unwrap();
    assert!(wrote < synced && synced < removed, "{trace:?}");
    let after = written.manifest.size_bytes(GroupId(1)).await.unwrap();
    assert!(after * 5 < before, "{before} octets became {after}");
    written.deliver_and_expunge(2, 9).await;
    written.manifest.sync().await.unwrap();
    let expected = written.messages().await;
    assert_eq!(expected.len(), 7);
    // After a power loss the next start finds it whole.
    written.disk.crash_strictly();
    let manifest = open(&written.disk).await;
    assert_eq!(replayed(&manifest, written.account.id).await, expected);
    let marked = last_mark(&manifest, GroupId(1), Incarnation(1)).await.unwrap();
    assert_eq!(marked, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_mostly_lives_stays_and_is_not_looked_at_again_soon() {
    let mut written = Written::new().await;
    written.deliver_and_expunge(40, 30).await;
    written.manifest.sync().await.unwrap();
    let bytes = written.manifest.size_bytes(GroupId(1)).await.unwrap();
    assert_eq!(written.compact(1).await, Ok(false));
    assert_eq!(
        (
            written.writer.looked_bytes,
            written.manifest.size_bytes(GroupId(1)).await.unwrap()
        ),
        (bytes, bytes)
    );
    written.deliver_and_expunge(120, 3).await;
    written.manifest.sync().await.unwrap();
    assert_eq!(written.compact(1).await, Ok(true));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_while_the_manifest_is_made_smaller_costs_nothing() {
    let mut written = Written::new().await;
    written.deliver_and_expunge(120, 5).await;
    written.manifest.sync().await.unwrap();
    let bytes = written.manifest.size_bytes(GroupId(1)).await.unwrap();
    // There seems to be room, but there is none.
    written.disk.set_capacity(Some(bytes + PROPOSE_RESERVE_BYTES));
    assert_eq!(written.compact(1).await, Ok(false), "not without room for both");
    written.writer.looked_bytes = 0;
    written.disk.set_capacity(None);
    written.disk.fail_syncs(1);
    assert!(written.compact(1).await.is_err());
    written.disk.crash_strictly();
    let manifest = open(&written.disk).await;
    assert_eq!(replayed(&manifest, written.account.id).await, written.messages().await);
}

/// Groups of which nothing can be read any more after some pages.
struct Stuck {
    groups: Arc<dyn Consensus>,
    pages: AtomicUsize,
}

#[async_trait]
impl Consensus for Stuck {
    fn groups(&self) -> Vec<GroupId> {
        self.groups.groups()
    }

    async fn propose(&self, group: GroupId, command: Command, timeout: Duration) -> Result<Outcome, ProposeError> {
        self.groups.propose(group, command, timeout).await
    }

    async fn read_barrier(&self, group: GroupId, timeout: Duration) -> Result<(), Unavailable> {
        self.groups.read_barrier(group, timeout).await
    }

    async fn read(&self, group: GroupId, read: &mut ReadFn<'_>) -> Result<(), Unavailable> {
        if self.pages.fetch_sub(1, Ordering::Relaxed) == 0 {
            std::future::pending::<()>().await;
        }
        self.groups.read(group, read).await
    }

    fn effects(&self, group: GroupId) -> Result<Receiver<Arc<[Effect]>>, Unavailable> {
        self.groups.effects(group)
    }

    fn membership(&self, group: GroupId) -> Result<Membership, Unavailable> {
        self.groups.membership(group)
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_in_the_middle_of_a_resync_leaves_no_mark_behind_it() {
    for is_compaction in [false, true] {
        let mut written = Written::new().await;
        written.deliver_and_expunge(120, 5).await;
        written.manifest.sync().await.unwrap();
        written.writer.has_gap = !is_compaction;
        // A compaction reads everything once before it writes.
        let stuck: Arc<dyn Consensus> = Arc::new(Stuck {
            groups: Arc::clone(&written.groups),
            pages: AtomicUsize::new(usize::from(is_compaction)),
        });
        let book = Book {
            manifest: &written.manifest,
            groups: &stuck,
            health: &written.health,
            applied: &|_| Some(7),
        };
        let writer = &mut written.writer;
        let writing = async {
            if is_compaction {
                writer.compact(&book, 1).await.map(drop)
            } else {
                writer.close_gap(&book).await;
                Ok(())
            }
        };
        let stopped = timeout(Duration::from_secs(60), writing).await;
        assert!(stopped.is_err(), "it is in the middle: {stopped:?}");
        // What `finish` does.
        written.with(|writer, book| writer.mark(book));
        written.manifest.sync().await.unwrap();
        let lines = written.manifest.last_lines(GroupId(1)).await.unwrap();
        assert_eq!(lines.last(), Some(&ManifestLine::Good(manifest::resync())));
        let marked = last_mark(&written.manifest, GroupId(1), Incarnation(1)).await;
        assert_eq!(marked.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_writer_whose_replica_is_gone_marks_nothing() {
    let mut written = Written::new().await;
    written.with(|writer, book| writer.mark(book));
    assert_eq!(written.writer.marked, Some(7));
    // Another replica of the group stands at 9; this writer heard nothing of what it applied.
    written.writer.effects = tokio::sync::broadcast::channel(1).1;
    let book = Book {
        manifest: &written.manifest,
        groups: &written.groups,
        health: &written.health,
        applied: &|_| Some(9),
    };
    written.writer.mark(&book);
    assert_eq!(written.writer.marked, Some(7));
}

#[tokio::test(start_paused = true)]
async fn a_mark_behind_a_resync_that_did_not_end_is_not_believed() {
    let (resync, end) = (manifest::resync(), manifest::resync_end());
    let mark = |index| manifest::applied(Incarnation(1), index);
    let older = manifest::applied(Incarnation(0), 99);
    let cases = [
        (vec![], None),
        (vec![mark(5), mark(7)], Some(7)),
        (vec![mark(5), older.clone()], Some(5)),
        (vec![mark(5), resync.clone()], None),
        (vec![mark(5), resync.clone(), mark(7)], None),
        (vec![mark(5), resync.clone(), end.clone()], None),
        (vec![resync.clone(), end.clone(), mark(7)], Some(7)),
        (vec![resync.clone(), resync.clone(), end.clone(), mark(7)], Some(7)),
        (
            vec![resync.clone(), mark(5), resync.clone(), end.clone(), mark(7)],
            Some(7),
        ),
        (vec![resync.clone(), end.clone(), mark(5), resync, mark(7)], None),
        // The beginning stands in another file.
        (vec![end, mark(7)], Some(7)),
    ];
    for (lines, expected) in cases {
        let manifest = open(&FaultyDisk::new()).await;
        for line in &lines {
            manifest.append(GroupId(1), line).unwrap();
        }
        manifest.sync().await.unwrap();
        let marked = last_mark(&manifest, GroupId(1), Incarnation(1)).await.unwrap();
        assert_eq!(marked, expected, "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_leaves_whole_manifests_that_the_next_start_goes_on_with() {
    let disk = FaultyDisk::new();
    let engine = Arc::new(MemoryEngine::default());
    let mut lines_before = Vec::new();
    for life in 0..2 {
        let machine = machine(&disk, &engine);
        let config = alone();
        if life == 0 {
            found(&disk);
        }
        let node = Node::start_on(config, machine).await.unwrap();
        let replicas = node.groups().list();
        assert_eq!(replicas.len(), 2);
        // A start returns before the first entries are applied.
        let has_begun = async {
            while !replicas.iter().all(|replica| replica.status().applied.is_some()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, has_begun).await.unwrap();
        node.stop().await;
        let manifest = open(&disk).await;
        for replica in replicas {
            let (group, applied) = (replica.group(), replica.status().applied);
            assert!(applied.is_some());
            let marked = last_mark(&manifest, group, replica.incarnation()).await.unwrap();
            assert_eq!(marked, applied, "life {life}, group {group}");
            let lines = manifest.last_lines(group).await.unwrap();
            if life == 0 {
                lines_before.push(lines);
            } else {
                let new = lines.strip_prefix(lines_before.remove(0).as_slice()).unwrap();
                assert!(!new.contains(&ManifestLine::Good(manifest::resync())), "{new:?}");
            }
        }
    }
}

/// Not the log's, and not that of mail: whatever cannot be synced stops the node, also while it is still starting.
#[tokio::test(flavor = "multi_thread")]
async fn any_sync_that_fails_stops_the_node() {
    let disk = FaultyDisk::new();
    let engine = Arc::new(MemoryEngine::default());
    found(&disk);
    let node = Node::start_on(alone(), machine(&disk, &engine)).await.unwrap();
    disk.add_rule(
        FaultRule::always(Fault::Eio)
            .under("manifest")
            .on(&[CallClass::Sync])
            .times(1),
    );
    let reason = timeout(PATIENCE, node.failed()).await.unwrap();
    assert!(
        reason.contains("manifest") && reason.contains("sync failed"),
        "{reason}"
    );
    drop(node);
    // A directory that waits to be repaired from nodes that are not there.
    let (disk, engine) = (FaultyDisk::new(), Arc::new(MemoryEngine::default()));
    found(&disk);
    Node::start_on(alone(), machine(&disk, &engine))
        .await
        .unwrap()
        .stop()
        .await;
    disk.create_dir_all("snapshots").unwrap();
    let mark = disk.open("snapshots/0-1.repair", OpenMode::CreateOrOpen).unwrap();
    mark.write_at(0, b"test").unwrap();
    disk.add_rule(
        FaultRule::always(Fault::Eio)
            .under("snapshots/")
            .on(&[CallClass::Sync])
            .times(1),
    );
    let started = timeout(PATIENCE, Node::start_on(alone(), machine(&disk, &engine))).await;
    let error = started.unwrap().err().unwrap().to_string();
    assert!(error.contains("sync failed"), "{error}");
}

const PATIENCE: Duration = Duration::from_secs(20);

fn machine(disk: &FaultyDisk, engine: &Arc<MemoryEngine>) -> Machine {
    Machine {
        disk: Arc::new(disk.clone()),
        pool: Arc::new(TokioPool::new(tokio::runtime::Handle::current())),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        engine: Arc::clone(engine) as Arc<_>,
        network: Arc::new(SystemNetwork),
        scale: Scale::default(),
    }
}

fn found(disk: &FaultyDisk) {
    let newborn = Newborn {
        disk,
        clock: Arc::new(SystemClock),
        entropy: &SystemEntropy,
        address: "127.0.0.1:1".to_owned(),
    };
    newborn.found_cluster("node-1", "site-1", 1).unwrap();
}

/// A node without anybody to talk to.
fn alone() -> Config {
    Config {
        data_dir: "/nowhere".into(),
        hostname: "node-1.example.test".to_owned(),
        roles: vec![Role::Store],
        listen: Listen {
            cluster: Some(([127, 0, 0, 1], 0).into()),
            ..Listen::default()
        },
        tls: None,
        plain_login: PlainLogin::default(),
        log: Log::default(),
        index_cache_mib: 1,
        password: PasswordHash {
            memory_kib: 8,
            passes: 1,
        },
    }
}
