//! A data directory with blobs, manifests and nothing else, rebuilt and compared octet for octet.

use core_types::{
    Address, BlobId, EmailId, Flags, Keyword, KvEngine, MailboxGuid, MailboxName, MessageGuid, NodeId, OpId, UnixMillis,
};
use state::command::{Delivery, DeliveryTarget, FlagChange, NewMessage, Receipts};
use state::rows::Credential;
use state::{Command, DirectoryOp, Effect, MachineKind, MailboxOp, MemoryEngine, Op};

use super::*;

const ANN: AccountId = AccountId([1; 16]);
const BOB: AccountId = AccountId([2; 16]);
const INBOX: MailboxGuid = MailboxGuid([3; 16]);
const WORK: MailboxGuid = MailboxGuid([4; 16]);
const DATE: UnixMillis = UnixMillis(1_700_000_000_000);

/// A data directory under way.
struct Site {
    directory: tempfile::TempDir,
    blobs: BlobStore,
    manifest: Manifest,
    seq: u64,
}

impl Site {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(directory.path().join("node")).unwrap());
        let pool: Arc<dyn BlockingPool> = Arc::new(TokioPool::new(tokio::runtime::Handle::current()));
        let config = BlobConfig {
            journal_segment_bytes: 1 << 20,
            ..BlobConfig::default()
        };
        let blobs = BlobStore::open(config, Arc::clone(&disk), Arc::clone(&pool), Arc::new(SystemEntropy));
        Self {
            blobs: blobs.await.unwrap(),
            manifest: Manifest::open(disk, pool).await.unwrap(),
            directory,
            seq: 0,
        }
    }

    fn apply(&mut self, engine: &MemoryEngine, kind: MachineKind, op: Op) {
        self.seq += 1;
        let (node, boot, seq) = (NodeId(1), 1, self.seq);
        let command = Command {
            op_id: OpId { node, boot, seq },
            settled_below: seq,
            time: DATE,
            op,
        };
        let applied = state::apply(engine, kind, &command).unwrap();
        engine.write(&applied.batch).unwrap();
        let group = GroupId(u32::from(kind == MachineKind::Mailbox));
        for effect in applied.effects {
            if let Effect::Manifest(entry) = effect {
                self.manifest.append(group, &entry.line).unwrap();
            }
        }
    }

    async fn deliver(&mut self, engine: &MemoryEngine, number: u8, mailbox: MailboxGuid, flags: Flags) -> Vec<u8> {
        let bytes = message(number);
        let mut writer = self.blobs.writer();
        writer.write(&bytes).await.unwrap();
        let sealed = writer.finish().await.unwrap();
        self.blobs.put(&sealed).await.unwrap();
        let op = MailboxOp::Deliver(Delivery {
            message: NewMessage {
                blob: sealed.id(),
                size: bytes.len() as u64,
                email_id: EmailId([number; 16]),
                internal_date: DATE,
                structure: vec![],
            },
            receipts: Receipts::default(),
            targets: vec![DeliveryTarget {
                account: ANN,
                guid: guid(number),
                mailbox: Some(mailbox),
                flags,
            }],
            enforce_quota: false,
        });
        self.apply(engine, MachineKind::Mailbox, Op::Mailbox(op));
        bytes
    }

    /// The node has stopped.
    async fn stop(self) -> tempfile::TempDir {
        self.manifest.sync().await.unwrap();
        self.blobs.flush().await.unwrap();
        self.directory
    }
}

/// Large ones too, of several frames.
fn message(number: u8) -> Vec<u8> {
    let mut bytes = format!("Subject: {number}\r\n\r\n").into_bytes();
    let length = if number.is_multiple_of(2) { 3_000_000 } else { 500 };
    bytes.extend((0..length).map(|place: u32| place.to_le_bytes()[usize::from(number % 3)]));
    bytes
}

fn guid(number: u8) -> MessageGuid {
    MessageGuid([number; 16])
}

fn name(text: &str) -> MailboxName {
    MailboxName::parse(text).unwrap()
}

async fn retry_mail(from: &Path, to: &Path) -> Result<(), Failure> {
    // The store's tasks of before let go of the directory's lock a moment after it was dropped.
    for _ in 0..200 {
        match mail(from, to).await {
            Err(failure) if failure.exit == Exit::TryAgain => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
    panic!("the lock was not let go");
}

/// A history of one account, and a line by hand; the messages' octets by their numbers.
async fn fill(site: &mut Site) -> Vec<Vec<u8>> {
    let directory = MemoryEngine::default();
    let domain = core_types::Domain::parse("example.test").unwrap();
    let found = DirectoryOp::FoundCluster {
        cluster: 1,
        ca_certificate: vec![],
        ca_key: vec![],
        site: core_types::SiteId(1),
        site_name: "s".to_owned(),
        mailbox_groups: 1,
    };
    let add = DirectoryOp::AddAccount {
        account: ANN,
        address: Address::parse("ann@example.test").unwrap(),
        group: Some(GroupId(1)),
        credential: Credential::None,
        quota_bytes: None,
    };
    for op in [found, DirectoryOp::AddDomain { domain }, add] {
        site.apply(&directory, MachineKind::Directory, Op::Directory(op));
    }
    let engine = MemoryEngine::default();
    let mailbox_op = |op| Op::Mailbox(op);
    let create = MailboxOp::CreateAccount {
        account: ANN,
        inbox: INBOX,
        mailboxes: vec![],
        quota_bytes: None,
    };
    site.apply(&engine, MachineKind::Mailbox, mailbox_op(create));
    let create = MailboxOp::CreateMailbox {
        account: ANN,
        name: name("Work/\u{e4}.b"),
        guid: WORK,
        special_use: None,
    };
    site.apply(&engine, MachineKind::Mailbox, mailbox_op(create));
    let mut bytes = Vec::new();
    for number in 0..6 {
        bytes.push(site.deliver(&engine, number, INBOX, Flags::default()).await);
    }
    let mut flags = Flags::system(Flags::SEEN | Flags::FLAGGED);
    flags.keywords.extend(Keyword::parse("$Junk"));
    let ops = [
        MailboxOp::Move {
            account: ANN,
            from: INBOX,
            to: WORK,
            messages: vec![guid(1), guid(2)],
        },
        MailboxOp::StoreFlags {
            account: ANN,
            mailbox: WORK,
            messages: vec![guid(2)],
            change: FlagChange::Replace,
            flags,
            unchanged_since: None,
        },
        MailboxOp::Expunge {
            account: ANN,
            mailbox: INBOX,
            messages: vec![guid(3)],
            only_deleted: false,
        },
    ];
    for op in ops {
        site.apply(&engine, MachineKind::Mailbox, mailbox_op(op));
    }
    // By hand: an account of whom no address is known.
    let hand = format!(
        "add\t{BOB}\t{INBOX}\tINBOX\t{}\t1\t{}\t{}\t\\\\Draft\t{DATE}",
        guid(9),
        BlobId::of(&bytes[5]),
        bytes[5].len()
    );
    site.manifest.append(GroupId(2), &hand).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn mailboxes_come_back_octet_for_octet_without_index_and_log() {
    let mut site = Site::new().await;
    let bytes = fill(&mut site).await;
    let directory = site.stop().await;

    let (from, to) = (directory.path().join("node"), directory.path().join("out"));
    retry_mail(&from, &to).await.unwrap();
    let file = |account: &str, folder: &str, number: u8, size: usize, flags: &str| {
        let name = format!("{}.{}.everpost,S={size}:2,{flags}", DATE.seconds(), guid(number));
        to.join(account).join(folder).join("cur").join(name)
    };
    let work = ".Work.&AOQ-\\2eb";
    let ann = "ann@example.test";
    let bob = BOB.to_string();
    for (path, number) in [
        (file(ann, "", 0, bytes[0].len(), ""), 0),
        (file(ann, work, 1, bytes[1].len(), ""), 1),
        (file(ann, work, 2, bytes[2].len(), "FSa"), 2),
        (file(ann, "", 4, bytes[4].len(), ""), 4),
        (file(ann, "", 5, bytes[5].len(), ""), 5),
        (file(&bob, "", 9, bytes[5].len(), "D"), 5),
    ] {
        let written = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(written == bytes[number], "{}", path.display());
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(
            changed.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
            u128::from(DATE.0)
        );
    }
    assert_eq!(fs::read_dir(to.join(ann).join("cur")).unwrap().count(), 3);
    assert_eq!(
        fs::read_to_string(to.join(ann).join(work).join("dovecot-keywords")).unwrap(),
        "0 $Junk\n"
    );
    assert!(
        fs::read_to_string(to.join("accounts.tsv"))
            .unwrap()
            .contains(&format!("{ann}\t{ANN}\t{ann}\n"))
    );
    assert!(
        fs::read_to_string(to.join("report.txt"))
            .unwrap()
            .starts_with("6 messages of 2 accounts written, 0 not")
    );
    // What is there is not written over.
    assert_eq!(retry_mail(&from, &to).await.unwrap_err().exit, Exit::Exists);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_wrong_is_named_and_the_others_come_back() {
    let mut site = Site::new().await;
    let mut lines = Vec::new();
    for number in [1, 3] {
        let bytes = message(number);
        let mut writer = site.blobs.writer();
        writer.write(&bytes).await.unwrap();
        let sealed = writer.finish().await.unwrap();
        site.blobs.put(&sealed).await.unwrap();
        lines.push((sealed.id(), bytes.len()));
    }
    lines.push((BlobId::of(b"never there"), 11));
    for (number, (blob, size)) in lines.iter().enumerate() {
        let message = guid(number.to_le_bytes()[0]);
        let line = format!(
            "add\t{ANN}\t{INBOX}\tINBOX\t{message}\t{}\t{blob}\t{size}\t-\t1",
            number + 1
        );
        site.manifest.append(GroupId(1), &line).unwrap();
    }
    site.manifest.append(GroupId(1), "a verb of a later version").unwrap();
    site.seq = 0;
    let directory = site.stop().await;
    let (from, to) = (directory.path().join("node"), directory.path().join("out"));
    let hex = lines[0].0.to_string();
    let path = from
        .join("blobs")
        .join(&hex[..2])
        .join(&hex[2..4])
        .join(format!("{hex}.eml.zst"));
    let mut bytes = fs::read(&path).unwrap();
    bytes[10..30].fill(0xFF);
    fs::write(&path, bytes).unwrap();
    // The journal would give the blob back.
    fs::remove_dir_all(from.join("blobs.journal")).unwrap();

    let failure = retry_mail(&from, &to).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Failed);
    assert!(failure.message.contains("2 messages could not be read"), "{failure}");
    let report = fs::read_to_string(to.join("report.txt")).unwrap();
    assert!(
        report.contains(&hex) && report.contains("1 of a kind not known"),
        "{report}"
    );
    let cur = to.join(ANN.to_string()).join("cur");
    let files: Vec<_> = fs::read_dir(cur).unwrap().collect();
    assert_eq!(files.len(), 1);
    assert_eq!(fs::read(files[0].as_ref().unwrap().path()).unwrap(), message(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_source_or_beside_a_running_node_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("node"), directory.path().join("out"));
    assert_eq!(mail(&from, &to).await.unwrap_err().exit, Exit::NoSuchObject);
    fs::create_dir(&from).unwrap();
    assert_eq!(mail(&from, &to).await.unwrap_err().exit, Exit::NoSuchObject);
    fs::create_dir(from.join("manifest")).unwrap();
    let running = RealDisk::open(&from).unwrap();
    let failure = mail(&from, &to).await.unwrap_err();
    assert_eq!(failure.exit, Exit::TryAgain);
    assert!(failure.message.contains("stop the node"), "{failure}");
    drop(running);
    assert_eq!(mail(&from, &to).await.unwrap_err().exit, Exit::NoSuchObject);
    assert!(!to.exists());
}
