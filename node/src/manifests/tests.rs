//! The manifest of a group that changes says what the group's state says, before, while and after it is made smaller.

use std::collections::BTreeSet;

use core_types::{AccountId, BlobId, Disk, MailboxGuid, MessageGuid, Uid};
use directory::Account;
use mailstore::testing::TestStore;
use platform::{DiskCall, FaultyDisk, InlinePool};
use state::manifest::Replay;

use super::*;

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
