//! Starting a node, in order, and stopping it in the other.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blobstore::{BlobService, BlobStore, Fetcher, Manifest, Replicator};
use core_types::{BlockingPool, Clock, Disk, DiskError, Entropy, GroupId, Incarnation, KvEngine, NodeId, WatchedDisk};
use directory::{Directory, OpIds, PasswordCost};
use mailstore::MailStore;
use platform::LockError;
use raft::consensus::Consensus;
use raft::log::{LogConfig, SharedLog};
use raft::{Ailing, Group, Groups, OpenError};
use state::{DirectoryOp, MachineKind, Outcome, Refusal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use transport::{NodeIdentity, Rpc, ServiceId, Transport};
use wire::{Shutdown, Stopper};

use crate::config::{Config, Role};
use crate::fence::{Fence, GatedRpc, GatedService};
use crate::files::{self, FOUNDING, Founding, IDENTITY, SEED, Seed};
use crate::machine::{Machine, Network, Rhythm};
use crate::manifests::Manifests;
use crate::members::Members;
use crate::{care, face, fence, follow, listen, manifests, metrics, placement, repair, report, tls};

/// A running node.
pub struct Node {
    parts: Arc<Parts>,
    ending: Ending,
    listeners: JoinSet<()>,
    tasks: JoinSet<()>,
}

/// How a node ends. One that is dropped without [`Node::stop`], also while it starts, is as one whose process was killed:
/// nothing is flushed or said, and its sockets and memory are free.
struct Ending {
    stopper: Stopper,
    transport: Arc<Transport>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        // Services hold the transport, and it holds them.
        self.transport.abandon();
    }
}

/// What the node's tasks share.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) identity: NodeIdentity,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) engine: Arc<dyn KvEngine>,
    pub(crate) log: SharedLog,
    pub(crate) members: Arc<Members>,
    pub(crate) transport: Arc<Transport>,
    pub(crate) groups: Groups,
    pub(crate) store: MailStore,
    pub(crate) fetcher: Fetcher,
    /// Counts what makes a look at blobs worth while.
    pub(crate) moves: watch::Sender<u64>,
    pub(crate) repair_turns: Semaphore,
    pub(crate) manifest: Manifest,
    pub(crate) manifests: Manifests,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) rhythm: Rhythm,
    pub(crate) health: care::Health,
    pub(crate) ailments: repair::Ailments,
    pub(crate) fence: Arc<Fence>,
    /// The first sync of the data directory that failed.
    pub(crate) sync_failure: watch::Sender<Option<String>>,
    pub(crate) shutdown: Shutdown,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory is held by another process, or cannot be opened.
    #[error(transparent)]
    DataDirectory(#[from] LockError),
    /// The node belongs to no cluster yet.
    #[error("the data directory {0} belongs to no cluster: run `everpost cluster init` or `everpost node join` first")]
    NoIdentity(String),
    /// A file in the data directory cannot be used.
    #[error("{0}")]
    File(String),
    /// The log, the index or the blobs cannot be opened.
    #[error("{0}: {1}")]
    Storage(&'static str, String),
    /// The cluster port cannot be opened.
    #[error("cluster port: {0}")]
    Cluster(String),
    /// A socket cannot be bound, or the certificate not be used.
    #[error(transparent)]
    Listen(#[from] listen::ListenError),
    /// The node was removed from its cluster.
    #[error("{0}")]
    Removed(String),
    /// The configuration lacks something.
    #[error("configuration: {0}")]
    Configuration(String),
}

impl Node {
    /// Starts a node on this computer, with its admin socket and metrics, and returns when it takes connections. Needs a
    /// multi-threaded tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        tracing::info!(data_dir = %config.data_dir.display(), "starting");
        let machine = Machine::of_this_computer(&config).await?;
        let (parts, ending) = Parts::open(config, machine).await?;
        let mut early = JoinSet::new();
        let running = Arc::clone(&parts).run(ending);
        tokio::pin!(running);
        let mut node = loop {
            tokio::select! {
                biased;
                reason = care::watch_syncs(&parts) => return Err(StartError::Storage("disk", reason)),
                node = &mut running => break node?,
                // A directory that has to be repaired first keeps the node from serving: `status` tells of it meanwhile.
                () = parts.ailments.has(GroupId::DIRECTORY), if early.is_empty() => {
                    face::bind_socket(&parts, &mut early).await?;
                }
            }
        };
        metrics::bind(&node.parts, &mut node.listeners).await?;
        if early.is_empty() {
            face::bind_socket(&node.parts, &mut node.listeners).await?;
        } else {
            node.listeners
                .spawn(async move { while early.join_next().await.is_some() {} });
        }
        tracing::info!(node = %node.parts.identity.node(), "serving");
        Ok(node)
    }

    /// Starts a node on any machine, and returns when it takes connections of mail programs and other nodes. There is no
    /// admin socket: see [`Self::serve_admin`].
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub async fn start_on(config: Config, machine: Machine) -> Result<Self, StartError> {
        let (parts, ending) = Parts::open(config, machine).await?;
        // A start may wait for the other nodes for as long as it takes; a node whose disk failed waits for nothing.
        tokio::select! {
            biased;
            reason = care::watch_syncs(&parts) => Err(StartError::Storage("disk", reason)),
            node = Arc::clone(&parts).run(ending) => node,
        }
    }

    /// Answers the admin API on an address of the machine's network. Whoever can connect is the administrator.
    ///
    /// # Errors
    /// [`StartError::Listen`].
    pub async fn serve_admin(&mut self, address: SocketAddr) -> Result<(), StartError> {
        let bound = self.parts.network.listen(address).await;
        let listener = bound.map_err(|error| listen::ListenError::Bind {
            service: "admin",
            address,
            error,
        })?;
        let listener = face::AdminListener { listener, address };
        face::serve_admin(&self.parts, listener, &mut self.listeners);
        Ok(())
    }

    /// The mail store of this node.
    #[must_use]
    pub fn store(&self) -> MailStore {
        self.parts.store.clone()
    }

    /// The replicas of this node.
    #[must_use]
    pub fn groups(&self) -> Groups {
        self.parts.groups.clone()
    }

    /// Stops the node: no new connections, those under way end, leaders hand over, everything is synced.
    pub async fn stop(mut self) {
        tracing::info!("stopping");
        self.ending.stopper.stop();
        while self.listeners.join_next().await.is_some() {}
        self.parts.hand_over().await;
        self.tasks.shutdown().await;
        if let Err(error) = self.parts.groups.checkpoint().await {
            tracing::warn!(%error, "the index was not synced; it will be brought up from the log");
        }
        let replicas = self.parts.groups.list();
        self.parts.groups.shutdown().await;
        let _ = tokio::time::timeout(STOP_PATIENCE, self.parts.store.blobs().flush()).await;
        manifests::finish(&self.parts, &replicas).await;
        self.parts.transport.shutdown().await;
        tracing::info!("stopped");
    }

    /// Returns, with the reason, when the node is no member of its cluster any more.
    pub async fn removed(&self) -> String {
        self.parts.health.removal.told().await
    }

    /// Returns, with the reason, when the node cannot go on: a sync failed.
    pub async fn failed(&self) -> String {
        care::watch_syncs(&self.parts).await
    }
}

impl Parts {
    /// Opens what the data directory holds. No group takes part in anything yet.
    async fn open(config: Config, machine: Machine) -> Result<(Arc<Self>, Ending), StartError> {
        let Machine {
            disk,
            pool,
            clock,
            entropy,
            engine,
            network,
            scale,
        } = machine;
        let (disk, sync_failure) = watched(disk);
        let identity = load_identity(disk.as_ref(), &config.data_dir)?;
        let node = identity.node();
        let log = open_log(node, scale.log_segment_bytes, &disk, &pool, entropy.as_ref())?;
        let members = Arc::new(Members::of_seed(&load_seed(disk.as_ref())?));
        let transport = Arc::new(start_transport(
            &config,
            &identity,
            &members,
            &clock,
            &entropy,
            network.as_ref(),
        )?);
        let rpc: Arc<dyn Rpc> = Arc::clone(&transport) as Arc<dyn Rpc>;
        let (stopper, shutdown) = Stopper::new();
        let ending = Ending {
            stopper,
            transport: Arc::clone(&transport),
        };

        let fence = Fence::open(disk.as_ref());
        let raft = raft::Dependencies {
            disk: Arc::clone(&disk),
            pool: Arc::clone(&pool),
            engine: Arc::clone(&engine),
            rpc: Arc::clone(&rpc),
            log: log.clone(),
        };
        let groups = open_groups((scale.raft)(node), raft, &transport, &fence);
        let blobs = BlobStore::open(scale.blobs, Arc::clone(&disk), Arc::clone(&pool), Arc::clone(&entropy))
            .await
            .map_err(|error| StartError::Storage("blobs", error.to_string()))?;
        let manifest = Manifest::open(Arc::clone(&disk), Arc::clone(&pool))
            .await
            .map_err(|error| StartError::Storage("manifest", error.to_string()))?;

        let consensus: Arc<dyn Consensus> = Arc::new(groups.clone());
        let answers = BlobService::new(blobs.clone()).with_references(mailstore::references_of(&consensus));
        transport.register(ServiceId::BLOB, Arc::new(answers));
        let op_ids = OpIds::new(node, entropy.as_ref());
        let directory = Directory::new(directory::Dependencies {
            groups: Arc::clone(&consensus),
            pool: Arc::clone(&pool),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            op_ids: Arc::clone(&op_ids),
            cost: PasswordCost {
                memory_kib: config.password.memory_kib,
                passes: config.password.passes,
            },
        });
        let replicator = Replicator::new(blobs.clone(), Arc::clone(&rpc), entropy.as_ref());
        let fetcher = Fetcher::new(blobs.clone(), Arc::clone(&rpc));
        let store = MailStore::new(mailstore::Dependencies {
            groups: consensus,
            directory,
            blobs: blobs.clone(),
            replicator: replicator.clone(),
            fetcher: fetcher.clone(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            op_ids,
        });
        let parts = Arc::new(Self {
            moves: watch::Sender::new(0),
            repair_turns: Semaphore::new(care::copies::TURNS),
            config,
            identity,
            disk,
            engine,
            log,
            members,
            transport,
            groups,
            store,
            fetcher,
            manifest,
            manifests: Manifests::default(),
            clock,
            entropy,
            network,
            rhythm: scale.care,
            health: care::Health::default(),
            sync_failure,
            ailments: repair::Ailments::default(),
            fence,
            shutdown,
        });
        Ok((parts, ending))
    }

    async fn run(self: Arc<Self>, ending: Ending) -> Result<Node, StartError> {
        let mut tasks = JoinSet::new();
        let mut listeners = JoinSet::new();
        // No group votes here before this node has heard whether it was further than its disk says.
        fence::first_round(&self).await;
        tasks.spawn(fence::run(Arc::clone(&self)));
        self.open_directory(&mut tasks).await?;
        self.found(&mut tasks).await?;
        follow::renew_members(&self).await;
        if let Some(reason) = self.health.removal.reason() {
            return Err(StartError::Removed(reason));
        }
        self.transport.register_join(Arc::new(face::Joining(Arc::clone(&self))));
        let placed = follow::placed_here(&self).await;
        for (group, incarnation) in placed {
            if self.groups.group(group).is_some() {
                continue;
            }
            // One group that cannot be opened here does not keep the others, nor the front ends, from working.
            if let Err(error) = self
                .open_group(group, incarnation, MachineKind::Mailbox, &mut tasks)
                .await
            {
                self.not_opened(group, &error);
            }
        }
        tasks.spawn(repair::run(Arc::clone(&self)));
        tasks.spawn(follow::follow_directory(Arc::clone(&self)));
        tasks.spawn(follow::watch_membership(Arc::clone(&self)));
        self.transport
            .register(ServiceId::REPORT, Arc::new(report::Reporting(Arc::clone(&self))));
        tasks.spawn(placement::run(Arc::clone(&self)));
        care::spawn_all(&self, &mut tasks);
        if self.config.has_role(Role::Front) {
            let tls = tls::server_tls(&self.config, self.disk.as_ref()).map_err(listen::ListenError::from)?;
            listen::bind_all(&self, &tls, &mut listeners).await?;
        }
        Ok(Node {
            parts: self,
            ending,
            listeners,
            tasks,
        })
    }

    /// Opens the replica of a group and everything that goes with it.
    pub(crate) async fn open_group(
        self: &Arc<Self>,
        group: GroupId,
        incarnation: Incarnation,
        kind: MachineKind,
        tasks: &mut JoinSet<()>,
    ) -> Result<Group, StartError> {
        match self.groups.open_group(group, incarnation, kind).await {
            Ok(opened) => {
                self.health.opened(group);
                self.attend(&opened, kind, tasks);
                Ok(opened)
            }
            Err(error) => {
                if let OpenError::NeedsRepair { reason, .. } = &error {
                    let ailing = Ailing {
                        group,
                        incarnation,
                        kind,
                        reason: reason.clone(),
                    };
                    self.ailments.found(ailing, false);
                }
                Err(StartError::Storage("group", error.to_string()))
            }
        }
    }

    /// Starts what goes with a replica for as long as it is here.
    pub(crate) fn attend(self: &Arc<Self>, opened: &Group, kind: MachineKind, tasks: &mut JoinSet<()>) {
        let (group, incarnation, store) = (opened.group(), opened.incarnation(), self.store.clone());
        tasks.spawn(async move { store.follow(group).await });
        tasks.spawn(manifests::write(Arc::clone(self), group, incarnation, kind));
        tasks.spawn(care::copies::run(Arc::clone(self), group));
    }

    /// One group that is not open here does not keep the others from working.
    pub(crate) fn not_opened(&self, group: GroupId, error: &StartError) {
        // One that is repaired was told of.
        if !self.ailments.contains(group) && self.health.not_opened(group, error.to_string()) {
            tracing::error!(%group, %error, "the group was not opened; it is tried again");
        }
    }

    /// Opens the directory, without which there is nothing to do, and has it repaired first where it needs that.
    async fn open_directory(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<(), StartError> {
        let (group, life, kind) = (GroupId::DIRECTORY, Incarnation(1), MachineKind::Directory);
        match self.open_group(group, life, kind, tasks).await {
            Ok(_) => Ok(()),
            Err(_) if self.ailments.contains(group) => {
                if let Some(opened) = repair::until_open(self, group).await {
                    self.attend(&opened, kind, tasks);
                    // It reads its log from the beginning: what it says before it has all of it was true once.
                    while opened.read_barrier(CURRENT_LOOK).await.is_err() {
                        tokio::time::sleep(CURRENT_LOOK).await;
                    }
                }
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What the first node does at its first start. Every step can be repeated.
    async fn found(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<(), StartError> {
        let founding: Option<Founding> =
            files::read_value(self.disk.as_ref(), FOUNDING).map_err(|error| StartError::File(error.to_string()))?;
        let Some(founding) = founding else { return Ok(()) };
        let failed = |error: String| StartError::Storage("founding the cluster", error);
        let node = self.identity.node();
        let alone = BTreeSet::from([node]);
        let directory = self
            .groups
            .group(GroupId::DIRECTORY)
            .ok_or_else(|| failed("no directory".to_owned()))?;
        directory
            .initialize(&alone)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let ops = [
            DirectoryOp::FoundCluster {
                cluster: founding.cluster,
                ca_certificate: founding.ca_certificate,
                ca_key: founding.ca_key,
                site: founding.site,
                site_name: founding.site_name,
                mailbox_groups: founding.mailbox_groups,
            },
            DirectoryOp::AddFirstNode {
                site: founding.site,
                name: founding.node_name,
                node_key: founding.node_key,
                address: founding.address,
            },
        ];
        for op in ops {
            self.founding_op(op).await?;
        }
        for group in 0..=founding.mailbox_groups {
            let group = GroupId(group);
            if group != GroupId::DIRECTORY {
                let opened = match self.groups.group(group) {
                    Some(opened) => opened,
                    None => {
                        self.open_group(group, Incarnation(1), MachineKind::Mailbox, tasks)
                            .await?
                    }
                };
                opened
                    .initialize(&alone)
                    .await
                    .map_err(|error| failed(error.to_string()))?;
            }
            self.founding_op(DirectoryOp::SetPlacement {
                group,
                voters: vec![node],
                learners: Vec::new(),
            })
            .await?;
        }
        files::remove(self.disk.as_ref(), FOUNDING).map_err(|error| failed(error.to_string()))?;
        tracing::info!("cluster founded");
        Ok(())
    }

    async fn founding_op(&self, op: DirectoryOp) -> Result<(), StartError> {
        match self.store.directory().propose(op).await {
            Ok(Outcome::Refused(Refusal::AlreadyExists)) => Ok(()),
            Ok(Outcome::Refused(refusal)) => Err(StartError::Storage("founding the cluster", refusal.to_string())),
            Ok(_) => Ok(()),
            Err(error) => Err(StartError::Storage("founding the cluster", error.to_string())),
        }
    }

    /// Hands every group that this node leads to another live voter, so that nobody has to wait for an election.
    async fn hand_over(&self) {
        let handing = self
            .groups
            .list()
            .into_iter()
            .filter(Group::is_leader)
            .map(|group| async move {
                let voters = group.membership().voters;
                let to = voters
                    .into_iter()
                    .find(|node| *node != self.identity.node() && self.transport.is_reachable(*node));
                if let Some(to) = to {
                    let _ = tokio::time::timeout(HAND_OVER_PATIENCE, group.transfer_leader(to)).await;
                }
            });
        futures_util::future::join_all(handing).await;
    }
}

fn load_identity(disk: &dyn Disk, data_dir: &Path) -> Result<NodeIdentity, StartError> {
    let unusable = |error: String| {
        StartError::File(format!(
            "{error}: this node does not know who it is. Put the file `{IDENTITY}` back from a copy, or replace the node by a new one \
             with an empty data directory"
        ))
    };
    match files::read_sealed(disk, IDENTITY) {
        Ok(Some(bytes)) => NodeIdentity::from_bytes(&bytes).map_err(|error| unusable(format!("{IDENTITY}: {error}"))),
        Ok(None) if files::has_data(disk) => Err(unusable(format!("{IDENTITY}: missing, beside the data of a node"))),
        Ok(None) => Err(StartError::NoIdentity(data_dir.display().to_string())),
        Err(files::FileError::Disk(error)) => Err(StartError::File(error.to_string())),
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// The nodes that this one was told of. A damaged list is as good as none: the directory's replica has them too, and the list
/// is written again from it.
fn load_seed(disk: &dyn Disk) -> Result<Seed, StartError> {
    let none = Seed { nodes: Vec::new() };
    match files::read_value(disk, SEED) {
        Ok(seed) => Ok(seed.unwrap_or(none)),
        Err(files::FileError::Disk(error)) => Err(StartError::File(error.to_string())),
        Err(error) => {
            tracing::error!(%error, "the list of the other nodes is damaged; they are taken from the directory");
            Ok(none)
        }
    }
}

fn start_transport(
    config: &Config,
    identity: &NodeIdentity,
    members: &Arc<Members>,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
    network: &dyn Network,
) -> Result<Transport, StartError> {
    let address = config
        .listen
        .cluster
        .ok_or_else(|| StartError::Configuration("listen.cluster names no address".to_owned()))?;
    let socket = network
        .cluster_socket(address)
        .map_err(|error| StartError::Cluster(format!("{address}: {error}")))?;
    let transport = transport::Config {
        identity: identity.clone(),
        socket,
        clock: Arc::clone(clock),
        entropy: Arc::clone(entropy),
        resolver: network.resolver(),
        tuning: network.tuning(),
    };
    Transport::start(transport, Arc::clone(members) as Arc<dyn transport::Peers>)
        .map_err(|error| StartError::Cluster(error.to_string()))
}

/// The address at which other nodes reach this one.
pub(crate) fn advertised(config: &Config) -> Option<String> {
    let listen = &config.listen;
    listen
        .cluster_advertised
        .clone()
        .or_else(|| listen.cluster.map(|address| address.to_string()))
}

fn open_log(
    node: NodeId,
    segment_bytes: u64,
    disk: &Arc<dyn Disk>,
    pool: &Arc<dyn BlockingPool>,
    entropy: &dyn Entropy,
) -> Result<SharedLog, StartError> {
    let config = LogConfig {
        segment_bytes,
        ..LogConfig::new(node)
    };
    SharedLog::open(Arc::clone(disk), Arc::clone(pool), entropy, config)
        .map_err(|error| StartError::Storage("log", error.to_string()))
}

/// The disk, of which no failed sync goes unheard, whoever made the call.
fn watched(disk: Arc<dyn Disk>) -> (Arc<dyn Disk>, watch::Sender<Option<String>>) {
    let sync_failure = watch::Sender::new(None);
    let sender = sync_failure.clone();
    let tell = move |error: &DiskError| drop(sender.send_replace(Some(error.to_string())));
    (Arc::new(WatchedDisk::new(disk, Box::new(tell))), sync_failure)
}

/// The groups, none of them open yet. Nothing of theirs passes to or from a node that was not heard.
fn open_groups(
    config: raft::Config,
    dependencies: raft::Dependencies,
    transport: &Transport,
    fence: &Arc<Fence>,
) -> Groups {
    let rpc: Arc<dyn Rpc> = Arc::new(GatedRpc {
        rpc: Arc::clone(&dependencies.rpc),
        fence: Arc::clone(fence),
    });
    let groups = Groups::open(config, raft::Dependencies { rpc, ..dependencies });
    transport.register(ServiceId::FENCE, Arc::clone(fence) as Arc<dyn transport::Service>);
    let gated = GatedService {
        service: groups.clone(),
        fence: Arc::clone(fence),
    };
    transport.register(ServiceId::RAFT, Arc::new(gated));
    groups
}

/// The groups that this node leads.
pub(crate) fn leads(groups: &Groups, group: GroupId) -> bool {
    groups.group(group).is_some_and(|group| group.is_leader())
}

/// How long the blob journal may take to become files when the node stops. What is left is taken up at the next start.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How long a leader may take to hand over.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether a repaired directory is the present one.
const CURRENT_LOOK: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::OpenMode;
    use platform::FaultyDisk;

    #[test]
    fn a_missing_identity_beside_the_data_of_a_node_is_no_new_node() {
        let disk = FaultyDisk::new();
        let refused = |disk: &dyn Disk| load_identity(disk, Path::new("/d")).unwrap_err();
        assert!(matches!(refused(&disk), StartError::NoIdentity(_)));
        disk.create_dir_all("log").unwrap();
        disk.open("log/0000000000000001.seg", OpenMode::CreateNew).unwrap();
        let told = refused(&disk).to_string();
        assert!(
            told.starts_with("identity: missing") && told.contains("replace the node"),
            "{told}"
        );
    }

    #[test]
    fn a_damaged_list_of_nodes_is_as_good_as_none() {
        let disk = FaultyDisk::new();
        files::write(&disk, SEED, b"").unwrap();
        assert!(load_seed(&disk).unwrap().nodes.is_empty());
        let seed = Seed {
            nodes: vec![(NodeId(1), "h:1".to_owned(), [1; 32])],
        };
        files::write_value(&disk, SEED, &seed).unwrap();
        assert_eq!(load_seed(&disk).unwrap(), seed);
        disk.flip_bit(SEED, 20, 3);
        assert!(load_seed(&disk).unwrap().nodes.is_empty());
    }
}
