//! A mail store on one node, in memory: the real state machines and the real blob store, without replication.
//!
//! For the tests of what stands above the mail store. Every failure to set it up is a panic: it is the test's.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "only tests use it"
)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use blobstore::{BlobConfig, BlobService, BlobStore, Fetcher, Replicator};
use bytes::Bytes;
use core_types::{AccountId, Address, Clock, Disk, Domain, Entropy, GroupId, NodeId, SiteId, UnixMillis};
use directory::{Account, Directory, OpIds, PasswordCost};
use platform::{FaultyDisk, InlinePool, ManualClock, SeededEntropy};
use raft::consensus::Consensus;
use raft::local::LocalGroups;
use state::rows::Credential;
use state::{DirectoryOp, Outcome};
use transport::{CallError, Class, Rpc, Service, ServiceId};

use crate::{DeliverTo, Dependencies, EnvelopeFrom, Ingested, MailStore};

/// The password of every account.
pub const PASSWORD: &str = "secret";
/// The domain of every account.
pub const DOMAIN: &str = "example.test";

/// A mail store with what a test may want to reach behind it.
pub struct TestStore {
    /// The mail store.
    pub store: MailStore,
    /// Its groups, which can be made unavailable: the directory and mailbox groups 1 to 4.
    pub groups: Arc<LocalGroups>,
    /// The disk under its blobs.
    pub disk: FaultyDisk,
    /// The disk under the blobs of the other node, if there is one.
    pub peer_disk: FaultyDisk,
    /// Its wall clock, which stands until it is moved.
    pub clock: Arc<ManualClock>,
    /// The accounts: `user1@example.test`, `user2@example.test`, ...
    pub accounts: Vec<Account>,
}

/// The other node, if there is one, answers for its blobs and nothing else.
struct Peer {
    node: NodeId,
    blobs: Option<BlobService>,
}

#[async_trait]
impl Rpc for Peer {
    fn node(&self) -> NodeId {
        self.node
    }

    async fn call(
        &self,
        to: NodeId,
        _: Class,
        service: ServiceId,
        request: Bytes,
        _: Duration,
    ) -> Result<Bytes, CallError> {
        match &self.blobs {
            Some(blobs) if to == PEER && service == ServiceId::BLOB => blobs
                .serve(self.node, request)
                .await
                .map_err(|refused| CallError::Refused(refused.0)),
            _ => Err(CallError::Unreachable(to)),
        }
    }

    fn is_reachable(&self, to: NodeId) -> bool {
        to == self.node || (to == PEER && self.blobs.is_some())
    }
}

impl TestStore {
    /// A mail store with this many accounts. Needs a tokio runtime.
    pub async fn new(users: u32) -> Self {
        Self::on(users, LocalGroups::new(NODE, 4), false).await
    }

    /// The same with a second node that holds a copy of every blob.
    pub async fn with_peer(users: u32) -> Self {
        let groups = LocalGroups::new(NODE, 4).with_voters(vec![NODE, PEER]);
        Self::on(users, groups, true).await
    }

    async fn on(users: u32, groups: LocalGroups, has_peer: bool) -> Self {
        let node = NODE;
        let disk = FaultyDisk::new();
        let clock = Arc::new(ManualClock::new(UnixMillis(1_700_000_000_000)));
        let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(7));
        let groups = Arc::new(groups);
        let consensus: Arc<dyn Consensus> = Arc::clone(&groups) as Arc<dyn Consensus>;
        let op_ids = OpIds::new(node, entropy.as_ref());
        let directory = Directory::new(directory::Dependencies {
            groups: Arc::clone(&consensus),
            pool: Arc::new(InlinePool),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy: Arc::clone(&entropy),
            op_ids: Arc::clone(&op_ids),
            cost: PasswordCost::cheap(),
        });
        let blobs = open_blobs(&disk, &entropy).await;
        let peer_disk = FaultyDisk::new();
        let peer_blobs = match has_peer {
            true => Some(BlobService::new(open_blobs(&peer_disk, &entropy).await)),
            false => None,
        };
        let rpc: Arc<dyn Rpc> = Arc::new(Peer {
            node,
            blobs: peer_blobs,
        });
        let store = MailStore::new(Dependencies {
            groups: consensus,
            directory,
            replicator: Replicator::new(blobs.clone(), Arc::clone(&rpc), entropy.as_ref()),
            fetcher: Fetcher::new(blobs.clone(), rpc),
            blobs,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy,
            op_ids,
        });
        for group in groups.groups() {
            let store = store.clone();
            tokio::spawn(async move { store.follow(group).await });
        }
        let mut this = Self {
            store,
            groups,
            disk,
            peer_disk,
            clock,
            accounts: Vec::new(),
        };
        this.found().await;
        for user in 1..=users {
            let account = this.add_account(&format!("user{user}@{DOMAIN}"), None).await;
            this.accounts.push(account);
        }
        this
    }

    async fn found(&self) {
        self.directory_op(DirectoryOp::FoundCluster {
            cluster: 1,
            ca_certificate: Vec::new(),
            ca_key: Vec::new(),
            site: SiteId(1),
            site_name: "site-1".to_owned(),
            mailbox_groups: 4,
        })
        .await;
        self.directory_op(DirectoryOp::AddDomain {
            domain: Domain::parse(DOMAIN).unwrap(),
        })
        .await;
    }

    /// Has the directory carry out an op, which must succeed.
    pub async fn directory_op(&self, op: DirectoryOp) -> Outcome {
        let outcome = self
            .store
            .directory()
            .propose(op)
            .await
            .expect("the directory is available");
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        outcome
    }

    /// Adds an account with [`PASSWORD`].
    pub async fn add_account(&self, address: &str, quota_bytes: Option<u64>) -> Account {
        let address = Address::parse(address).unwrap();
        let id = AccountId(self.store.entropy().bytes());
        let phc = self.store.directory().hash_password(PASSWORD.as_bytes()).await.unwrap();
        let credential = Credential::Password(phc);
        let add = DirectoryOp::AddAccount {
            account: id,
            address: address.clone(),
            group: None,
            credential,
            quota_bytes,
        };
        let Outcome::AccountAdded { group } = self.directory_op(add).await else {
            panic!("an account is added")
        };
        let account = Account { id, address, group };
        self.store.create_account_mail(&account, quota_bytes).await.unwrap();
        self.directory_op(DirectoryOp::ActivateAccount { account: id }).await;
        account
    }

    /// Takes a message in.
    pub async fn ingest(&self, bytes: &[u8]) -> Ingested {
        let mut ingest = self.store.ingest();
        ingest.write(bytes).await.unwrap();
        self.store.finish_ingest(ingest).await.unwrap()
    }

    /// Delivers a message into an account's INBOX.
    pub async fn deliver(&self, account: &Account, bytes: &[u8]) {
        let message = self.ingest(bytes).await;
        let to = DeliverTo {
            address: account.address.clone(),
            accounts: vec![account.clone()],
            notify: 0,
            original: None,
        };
        let results = self
            .store
            .deliver(&message, &EnvelopeFrom::default(), &[to], false)
            .await;
        assert!(
            matches!(results.as_slice(), [Ok(crate::Delivered::Placed(_))]),
            "{results:?}"
        );
    }

    /// Leaves room for so many octets on this node's disk above what is kept free; `None`: for as many as one likes.
    pub fn set_room(&self, octets: Option<u64>) {
        const LARGE: u64 = 1 << 40;
        self.disk.set_capacity(Some(LARGE));
        let used = LARGE - self.disk.free_bytes().unwrap();
        self.disk
            .set_capacity(octets.map(|octets| used + octets + core_types::limits::PROPOSE_RESERVE_BYTES));
    }

    /// Cuts a group from its majority, or ends that.
    pub fn set_available(&self, group: GroupId, available: bool) {
        self.groups.set_available(group, available);
    }
}

async fn open_blobs(disk: &FaultyDisk, entropy: &Arc<dyn Entropy>) -> BlobStore {
    let disk = Arc::new(disk.clone());
    BlobStore::open(BlobConfig::default(), disk, Arc::new(InlinePool), Arc::clone(entropy))
        .await
        .expect("the blob store opens")
}

const NODE: NodeId = NodeId(1);
const PEER: NodeId = NodeId(2);
