//! Three nodes in one process, of the real parts: log, groups, blob store, directory, mail store.
//!
//! What is not real: the disk, the network between them, which can be cut, and the clock, which is tokio's, paused. The index
//! is in memory; a power loss leaves all of it, nothing, or an earlier state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use blobstore::{BlobConfig, BlobService, BlobStore, Fetcher, Replicator};
use bytes::Bytes;
use core_types::{
    AccountId, Address, BlockingPool, Clock, Disk, Domain, Entropy, GroupId, Incarnation, KvEngine, NodeId, SiteId,
    UnixMillis,
};
use directory::{Account, Directory, OpIds, PasswordCost};
use mailstore::MailStore;
use platform::{FaultyDisk, InlinePool, SeededEntropy, TokioPool};
use raft::consensus::Consensus;
use raft::log::{LogConfig, SharedLog};
use raft::{Groups, Timers};
use state::rows::Credential;
use state::{DirectoryOp, KeptEngine, MachineKind, Outcome};
use tokio::time::{Instant, timeout};
use transport::{CallError, Class, Refused, Rpc, Service, ServiceId};

use super::disk::{Power, PoweredDisk, Trace};

pub(crate) const NODES: u64 = 3;
pub(crate) const MAILBOX_GROUPS: u32 = 2;
const LIFE: Incarnation = Incarnation(1);
/// Small, so that segments are changed, snapshots made and logs purged within a test.
const LOG_SEGMENT_BYTES: u64 = 128 * 1024;
pub(crate) const INLINE_BYTES_MAX: usize = 8 * 1024;

/// The ways between the nodes.
#[derive(Default)]
pub(crate) struct Net {
    services: Mutex<BTreeMap<(NodeId, u16), Arc<dyn Service>>>,
    cut_off: Mutex<BTreeSet<NodeId>>,
}

impl Net {
    pub(crate) fn cut_off(&self, node: u64) {
        self.cut_off.lock().unwrap().insert(NodeId(node));
    }

    pub(crate) fn heal(&self) {
        self.cut_off.lock().unwrap().clear();
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        let cut_off = self.cut_off.lock().unwrap();
        from != to && (cut_off.contains(&from) || cut_off.contains(&to))
    }

    fn service(&self, node: NodeId, service: ServiceId) -> Option<Arc<dyn Service>> {
        self.services.lock().unwrap().get(&(node, service.0)).cloned()
    }
}

/// One life's way to the others. Nothing leaves a node without power.
struct LifeRpc {
    node: NodeId,
    net: Arc<Net>,
    powers: [Arc<Power>; 2],
}

impl LifeRpc {
    fn is_on(&self) -> bool {
        self.powers.iter().all(|power| power.is_on())
    }
}

/// A service that says nothing once its node is without power, whatever it was about to say.
struct Powered {
    service: Arc<dyn Service>,
    powers: [Arc<Power>; 2],
}

#[async_trait]
impl Service for Powered {
    async fn serve(&self, from: NodeId, request: Bytes) -> Result<Bytes, Refused> {
        let answer = self.service.serve(from, request).await;
        if self.powers.iter().all(|power| power.is_on()) {
            answer
        } else {
            std::future::pending().await
        }
    }
}

#[async_trait]
impl Rpc for LifeRpc {
    fn node(&self) -> NodeId {
        self.node
    }

    async fn call(
        &self,
        to: NodeId,
        _: Class,
        service: ServiceId,
        request: Bytes,
        patience: Duration,
    ) -> Result<Bytes, CallError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let Some(service) = self
            .net
            .service(to, service)
            .filter(|_| self.is_on() && !self.net.is_cut(self.node, to))
        else {
            return Err(CallError::Unreachable(to));
        };
        let from = self.node;
        // A request goes on at the other end when its asker has given it up.
        let mut served = tokio::spawn(async move { service.serve(from, request).await });
        let answer = timeout(patience, &mut served).await;
        if answer.is_err() {
            // It may wait for ever at a node without power; a live one ends it by itself.
            tokio::spawn(async move { timeout(Duration::from_secs(60), served).await });
        }
        match answer {
            Ok(Ok(answer)) if self.is_on() && !self.net.is_cut(to, self.node) => {
                answer.map_err(|Refused(reason)| CallError::Refused(reason))
            }
            _ => Err(CallError::NoAnswer(to)),
        }
    }

    fn is_reachable(&self, to: NodeId) -> bool {
        !self.net.is_cut(self.node, to) && self.net.service(to, ServiceId::RAFT).is_some()
    }
}

struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_700_000_000_000 + u64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
}

/// A node that runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) node: NodeId,
    pub(crate) powers: [Arc<Power>; 2],
    pub(crate) groups: Groups,
    pub(crate) blobs: BlobStore,
    pub(crate) rpc: Arc<dyn Rpc>,
    pub(crate) store: MailStore,
}

impl Running {
    pub(crate) fn is_on(&self) -> bool {
        self.powers.iter().all(|power| power.is_on())
    }
}

struct Machine {
    disk: FaultyDisk,
    index: Arc<KeptEngine>,
    lives: u64,
}

pub(crate) struct Site {
    pub(crate) seed: u64,
    pub(crate) net: Arc<Net>,
    pub(crate) power: Arc<Power>,
    pub(crate) running: BTreeMap<u64, Running>,
    pub(crate) accounts: Vec<Account>,
    machines: BTreeMap<u64, Machine>,
    begin: Instant,
    sync_time: Duration,
    trace: Option<Trace>,
    pace: Pace,
}

/// How often nodes hear of each other and look after themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each test that shares this has its own pace")]
pub(crate) enum Pace {
    Usual,
    /// So seldom that weeks pass in a moment; and nothing takes any time at the disk.
    Weeks,
}

impl Site {
    pub(crate) async fn start(seed: u64, sync_time: Duration, trace: Option<Trace>) -> Self {
        Self::start_at(Pace::Usual, seed, sync_time, trace).await
    }

    pub(crate) async fn start_at(pace: Pace, seed: u64, sync_time: Duration, trace: Option<Trace>) -> Self {
        let machine = || Machine {
            disk: FaultyDisk::new(),
            index: Arc::default(),
            lives: 0,
        };
        let mut site = Self {
            seed,
            net: Arc::default(),
            power: Power::new(),
            running: BTreeMap::new(),
            accounts: Vec::new(),
            machines: (1..=NODES).map(|node| (node, machine())).collect(),
            begin: Instant::now(),
            sync_time,
            trace,
            pace,
        };
        for node in 1..=NODES {
            site.boot(node).await;
        }
        let voters: BTreeSet<NodeId> = (1..=NODES).map(NodeId).collect();
        for group in site.running[&1].groups.list() {
            group.initialize(&voters).await.unwrap();
        }
        site.found().await;
        site
    }

    pub(crate) async fn boot(&mut self, node: u64) {
        let machine = self.machines.get_mut(&node).unwrap();
        machine.lives += 1;
        let id = NodeId(node);
        let entropy: Arc<dyn Entropy> =
            Arc::new(SeededEntropy::new(self.seed * 1_000_003 + node * 1009 + machine.lives));
        let powers = [Power::new(), Arc::clone(&self.power)];
        let disk: Arc<dyn Disk> = Arc::new(PoweredDisk {
            disk: machine.disk.clone(),
            node: id,
            own: Arc::clone(&powers[0]),
            site: Arc::clone(&powers[1]),
            sync_time: self.sync_time,
            trace: self.trace.clone(),
        });
        let pool: Arc<dyn BlockingPool> = match self.pace {
            Pace::Usual => Arc::new(TokioPool::new(tokio::runtime::Handle::current())),
            Pace::Weeks => Arc::new(InlinePool),
        };
        let clock: Arc<dyn Clock> = Arc::new(TestClock(self.begin));
        let log = SharedLog::open(
            Arc::clone(&disk),
            Arc::clone(&pool),
            entropy.as_ref(),
            LogConfig {
                segment_bytes: LOG_SEGMENT_BYTES,
                ..LogConfig::new(id)
            },
        )
        .unwrap();
        assert!(log.damages().is_empty(), "seed {}: {:?}", self.seed, log.damages());
        let rpc: Arc<dyn Rpc> = Arc::new(LifeRpc {
            node: id,
            net: Arc::clone(&self.net),
            powers: powers.clone(),
        });
        let groups = Groups::open(
            raft_config(id, self.pace),
            raft::Dependencies {
                disk: Arc::clone(&disk),
                pool: Arc::clone(&pool),
                engine: Arc::clone(&machine.index) as Arc<dyn KvEngine>,
                rpc: Arc::clone(&rpc),
                log,
            },
        );
        let config = BlobConfig {
            journal_segment_bytes: 64 * 1024,
            inline_bytes_max: INLINE_BYTES_MAX,
            memory_bytes_max: 16 * 1024,
            ..BlobConfig::default()
        };
        let blobs = BlobStore::open(config, disk, Arc::clone(&pool), Arc::clone(&entropy))
            .await
            .unwrap();
        let status = blobs.status();
        assert_eq!(
            (status.journal_damage, status.corrupt),
            (0, 0),
            "seed {}: node {node}: {status:?}",
            self.seed
        );
        let consensus: Arc<dyn Consensus> = Arc::new(groups.clone());
        let answers = BlobService::new(blobs.clone()).with_references(mailstore::references_of(&consensus));
        let services: [(ServiceId, Arc<dyn Service>); 2] = [
            (ServiceId::RAFT, Arc::new(groups.clone())),
            (ServiceId::BLOB, Arc::new(answers)),
        ];
        for (number, service) in services {
            let powered = Powered {
                service,
                powers: powers.clone(),
            };
            self.net
                .services
                .lock()
                .unwrap()
                .insert((id, number.0), Arc::new(powered));
        }
        for group in 0..=MAILBOX_GROUPS {
            let kind = if group == 0 {
                MachineKind::Directory
            } else {
                MachineKind::Mailbox
            };
            groups.open_group(GroupId(group), LIFE, kind).await.unwrap();
        }
        let op_ids = OpIds::new(id, entropy.as_ref());
        let directory = Directory::new(directory::Dependencies {
            groups: Arc::clone(&consensus),
            pool,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            op_ids: Arc::clone(&op_ids),
            cost: PasswordCost::cheap(),
        });
        let replicator = Replicator::new(blobs.clone(), Arc::clone(&rpc), entropy.as_ref());
        let store = MailStore::new(mailstore::Dependencies {
            groups: consensus,
            directory,
            blobs: blobs.clone(),
            replicator: replicator.clone(),
            fetcher: Fetcher::new(blobs.clone(), Arc::clone(&rpc)),
            clock,
            entropy,
            op_ids,
        });
        let running = Running {
            node: id,
            powers,
            groups,
            rpc,
            blobs,
            store,
        };
        self.running.insert(node, running);
    }

    /// Power loss of these nodes: their tasks end, their disks keep what was synced, and by chance some of the rest.
    pub(crate) async fn lose_power(&mut self, nodes: &[u64], entropy: &dyn Entropy) {
        let mut lost = Vec::new();
        for node in nodes {
            let Some(running) = self.running.remove(node) else {
                continue;
            };
            running.powers[0].cut();
            let id = NodeId(*node);
            self.net.services.lock().unwrap().retain(|(other, _), _| *other != id);
            lost.push((*node, running));
        }
        for (node, running) in lost {
            // Nothing that it still does reaches its disk or another node.
            let _ = timeout(Duration::from_secs(30), running.groups.shutdown()).await;
            drop(running);
            let machine = self.machines.get_mut(&node).unwrap();
            machine.disk.crash(entropy.below(u64::MAX));
            machine.index = machine.index.after_power_loss(entropy).unwrap();
        }
    }

    async fn found(&mut self) {
        let directory = self.running[&1].store.directory().clone();
        let domain = "example.test";
        propose(
            &directory,
            DirectoryOp::FoundCluster {
                cluster: 1,
                ca_certificate: Vec::new(),
                ca_key: Vec::new(),
                site: SiteId(1),
                site_name: "site-1".to_owned(),
                mailbox_groups: MAILBOX_GROUPS,
            },
        )
        .await;
        propose(
            &directory,
            DirectoryOp::AddDomain {
                domain: Domain::parse(domain).unwrap(),
            },
        )
        .await;
        for user in 1..=4_u8 {
            let address = Address::parse(&format!("user{user}@{domain}")).unwrap();
            let id = AccountId([user; 16]);
            let group = Some(GroupId(1 + u32::from(user) % MAILBOX_GROUPS));
            let outcome = propose(
                &directory,
                DirectoryOp::AddAccount {
                    account: id,
                    address: address.clone(),
                    group,
                    credential: Credential::Password(String::new()),
                    quota_bytes: None,
                },
            )
            .await;
            let Outcome::AccountAdded { group } = outcome else {
                panic!("{outcome:?}")
            };
            let account = Account { id, address, group };
            self.running[&1]
                .store
                .create_account_mail(&account, None)
                .await
                .unwrap();
            propose(&directory, DirectoryOp::ActivateAccount { account: id }).await;
            self.accounts.push(account);
        }
    }
}

async fn propose(directory: &Directory, op: DirectoryOp) -> Outcome {
    for _ in 0..10 {
        match directory.propose(op.clone()).await {
            Ok(outcome) => return outcome,
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
    panic!("the directory does not take {op:?}");
}

fn raft_config(node: NodeId, pace: Pace) -> raft::Config {
    let timers = match pace {
        Pace::Usual => Timers {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
        },
        Pace::Weeks => Timers {
            heartbeat: Duration::from_secs(6 * 3600),
            election_min: Duration::from_secs(18 * 3600),
            election_max: Duration::from_secs(30 * 3600),
        },
    };
    let config = raft::Config {
        timers,
        directory_timers: timers,
        snapshot_entries: 60,
        log_entries_kept: 10,
        digest_interval: Duration::from_secs(2),
        ..raft::Config::new(node)
    };
    match pace {
        Pace::Usual => config,
        Pace::Weeks => raft::Config {
            maintenance_interval: Duration::from_secs(12 * 3600),
            checkpoint_interval: Duration::from_secs(24 * 3600),
            digest_interval: Duration::from_secs(12 * 3600),
            ..config
        },
    }
}
