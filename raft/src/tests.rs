//! Groups of several nodes in one process: real logs on a disk in memory, requests that can be cut between any two nodes.
//!
//! Time is tokio's, paused: it runs ahead whenever all nodes wait.

mod cluster;
mod faults;
mod full_disk;
mod repair;
mod restart;
mod rows_of_the_catalogue;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use core_types::{Disk, GroupId, Incarnation, KvEngine, NodeId, OpId, UnixMillis};
use platform::{FaultyDisk, InlinePool, SeededEntropy};
use state::{Command, DirectoryOp, KeptEngine, MachineKind, Op};
use tokio::time::timeout;
use transport::{CallError, Class, Refused, Rpc, Service, ServiceId};

use crate::config::{Config, GroupError, Proposed, Timers};
use crate::group::Group;
use crate::groups::{Dependencies, Groups};
use crate::log::{LogConfig, SharedLog};
use crate::replica::ApplyFn;

pub(super) const GROUP: GroupId = GroupId(0);
pub(super) const LIFE: Incarnation = Incarnation(1);
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Says of a frame whether its answer is lost.
type Loses = fn(&[u8]) -> bool;

/// All nodes and the ways between them.
#[derive(Default)]
pub(super) struct Net {
    services: Mutex<BTreeMap<NodeId, Arc<dyn Service>>>,
    cut: Mutex<BTreeSet<(NodeId, NodeId)>>,
    /// Requests whose frame this says yes to are carried out, but their answers are lost.
    loses_answer: Mutex<Option<Loses>>,
}

impl Net {
    pub(super) fn cut_off(&self, node: u64) {
        let all: Vec<NodeId> = self.services.lock().unwrap().keys().copied().collect();
        for other in all {
            self.cut
                .lock()
                .unwrap()
                .extend([(NodeId(node), other), (other, NodeId(node))]);
        }
    }

    pub(super) fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        from != to && self.cut.lock().unwrap().contains(&(from, to))
    }
}

struct LocalRpc {
    node: NodeId,
    net: Arc<Net>,
}

#[async_trait]
impl Rpc for LocalRpc {
    fn node(&self) -> NodeId {
        self.node
    }

    async fn call(
        &self,
        to: NodeId,
        _: Class,
        _: ServiceId,
        request: Bytes,
        patience: Duration,
    ) -> Result<Bytes, CallError> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let service = self.net.services.lock().unwrap().get(&to).cloned();
        let Some(service) = service.filter(|_| !self.net.is_cut(self.node, to)) else {
            return Err(CallError::Unreachable(to));
        };
        let is_lost = self
            .net
            .loses_answer
            .lock()
            .unwrap()
            .is_some_and(|loses| loses(&request));
        let from = self.node;
        // A request goes on at the other end when its asker has given it up.
        let served = tokio::spawn(async move { service.serve(from, request).await });
        match timeout(patience, served).await {
            Ok(Ok(answer)) if !self.net.is_cut(to, self.node) && !is_lost => {
                answer.map_err(|Refused(reason)| CallError::Refused(reason))
            }
            _ => Err(CallError::NoAnswer(to)),
        }
    }

    fn is_reachable(&self, to: NodeId) -> bool {
        !self.net.is_cut(self.node, to) && self.net.services.lock().unwrap().contains_key(&to)
    }
}

/// What of a node outlives its process.
pub(super) struct Machine {
    pub(super) disk: Arc<FaultyDisk>,
    /// Where sled's index is; without it the index is in memory and gone with the process.
    pub(super) index: Option<PathBuf>,
    /// What is left of an index in memory, which the next boot finds.
    pub(super) left: Option<Arc<KeptEngine>>,
    /// A directory on the real disk, in place of `disk`.
    pub(super) directory: Option<PathBuf>,
    pub(super) apply: ApplyFn,
}

pub(super) struct Cluster {
    pub(super) net: Arc<Net>,
    pub(super) machines: BTreeMap<u64, Machine>,
    pub(super) running: BTreeMap<u64, Groups>,
    logs: BTreeMap<u64, SharedLog>,
    pub(super) config: Config,
    seq: u64,
    /// No two logs have the same salt.
    boots: u64,
}

impl Cluster {
    /// Nodes 1 to `nodes`, of which the first `voters` vote in the group.
    pub(super) async fn start(nodes: u64, voters: u64) -> Self {
        Self::start_with(nodes, voters, |_| {}).await
    }

    pub(super) async fn start_with(nodes: u64, voters: u64, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(NodeId(0));
        config.timers = Timers {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
        };
        config.directory_timers = config.timers;
        configure(&mut config);
        let mut cluster = Self {
            net: Arc::default(),
            machines: BTreeMap::new(),
            running: BTreeMap::new(),
            logs: BTreeMap::new(),
            config,
            seq: 0,
            boots: 0,
        };
        for node in 1..=nodes {
            let machine = Machine {
                disk: Arc::new(FaultyDisk::new()),
                index: None,
                left: None,
                directory: None,
                apply: state::apply,
            };
            cluster.machines.insert(node, machine);
            cluster.boot(node).await;
        }
        cluster
            .group(1)
            .initialize(&(1..=voters).map(NodeId).collect())
            .await
            .unwrap();
        cluster.leader().await;
        cluster
    }

    pub(super) async fn boot(&mut self, node: u64) {
        let groups = self.boot_without_group(node);
        groups.open_group(GROUP, LIFE, MachineKind::Directory).await.unwrap();
    }

    pub(super) fn boot_without_group(&mut self, node: u64) -> Groups {
        self.boots += 1;
        let machine = &self.machines[&node];
        let engine: Arc<dyn KvEngine> = match &machine.index {
            None => machine.left.clone().unwrap_or_default(),
            Some(path) => Arc::new(crate::index::reopen(path, 4 << 20)),
        };
        let disk: Arc<dyn Disk> = match &machine.directory {
            None => machine.disk.clone(),
            Some(path) => Arc::new(platform::RealDisk::open(path).unwrap()),
        };
        let log = SharedLog::open(
            disk.clone(),
            Arc::new(InlinePool),
            &SeededEntropy::new(node + 1000 * self.boots),
            LogConfig {
                segment_bytes: 1 << 20,
                ..LogConfig::new(NodeId(node))
            },
        )
        .unwrap();
        self.logs.insert(node, log.clone());
        let rpc = Arc::new(LocalRpc {
            node: NodeId(node),
            net: self.net.clone(),
        });
        let dependencies = Dependencies {
            disk,
            pool: Arc::new(InlinePool),
            engine,
            rpc,
            log,
        };
        let config = Config {
            node: NodeId(node),
            ..self.config.clone()
        };
        let groups = Groups::with_machine(config, dependencies, machine.apply);
        self.net
            .services
            .lock()
            .unwrap()
            .insert(NodeId(node), Arc::new(groups.clone()));
        self.running.insert(node, groups.clone());
        groups
    }

    /// Power loss.
    pub(super) async fn crash(&mut self, node: u64) {
        self.net.services.lock().unwrap().remove(&NodeId(node));
        self.machines[&node].disk.crash_strictly();
        let groups = self.running.remove(&node).unwrap();
        groups.shutdown().await;
        self.logs.remove(&node);
    }

    /// An orderly stop.
    pub(super) async fn stop(&mut self, node: u64) {
        self.net.services.lock().unwrap().remove(&NodeId(node));
        let groups = self.running.remove(&node).unwrap();
        groups.shutdown().await;
        self.logs.remove(&node);
    }

    pub(super) fn log(&self, node: u64) -> SharedLog {
        self.logs[&node].clone()
    }

    pub(super) fn group(&self, node: u64) -> Group {
        self.running[&node].group(GROUP).unwrap()
    }

    /// The leader that a majority follows.
    pub(super) async fn leader(&self) -> u64 {
        for _ in 0..2000 {
            for node in self.running.keys() {
                let is_alone = self
                    .running
                    .keys()
                    .all(|other| other == node || self.net.is_cut(NodeId(*node), NodeId(*other)));
                let group = self.group(*node);
                if (!is_alone || self.running.len() == 1)
                    && group.is_leader()
                    && group.confirm_leadership(Duration::from_millis(200)).await
                {
                    return *node;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!(
            "no leader: {:?}",
            self.running
                .keys()
                .map(|node| self.group(*node).status())
                .collect::<Vec<_>>()
        );
    }

    pub(super) fn command(&mut self, name: &str, value: &str) -> Command {
        self.seq += 1;
        Command {
            op_id: OpId {
                node: NodeId(99),
                boot: 7,
                seq: self.seq,
            },
            settled_below: self.seq,
            time: UnixMillis(1_700_000_000_000 + self.seq),
            op: Op::Directory(DirectoryOp::SetSetting {
                name: name.to_owned(),
                value: Some(value.to_owned()),
            }),
        }
    }

    pub(super) async fn set(&mut self, node: u64, name: &str, value: &str) -> Result<Proposed, GroupError> {
        let command = self.command(name, value);
        self.group(node).propose(&command, PATIENCE).await
    }

    /// What the replica of a node shows now.
    pub(super) async fn shown(&self, node: u64, name: &str) -> Option<String> {
        let mut value = None;
        self.group(node)
            .read(&mut |view| value = state::directory::Reader::new(view).setting(name).unwrap())
            .await
            .unwrap();
        value
    }

    /// Waits until something holds.
    pub(super) async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        for _ in 0..3000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let all: Vec<_> = self.running.keys().map(|node| self.group(*node).status()).collect();
        panic!("{what} does not come true: {all:#?}");
    }

    /// Waits until all running replicas have applied what the leader has, and compares their states.
    pub(super) async fn settle(&self) {
        let leader = self.leader().await;
        self.group(leader).read_barrier(PATIENCE).await.unwrap();
        let index = self.group(leader).status().applied.unwrap();
        let mut states = Vec::new();
        for node in self.running.keys() {
            self.group(*node).wait_applied(index, PATIENCE).await.unwrap();
            let mut digests = None;
            self.group(*node)
                .read(&mut |view| {
                    digests = Some((
                        state::digest::stored(view).unwrap(),
                        state::digest::recomputed(view).unwrap(),
                    ));
                })
                .await
                .unwrap();
            let (stored, recomputed) = digests.unwrap();
            assert_eq!(stored, recomputed, "node {node}");
            states.push(stored);
        }
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "states differ");
    }
}
