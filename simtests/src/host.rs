//! A simulated computer with one node: what stays when the node dies, and how it comes up again.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use blobstore::BlobConfig;
use core_types::{Clock, Disk, Entropy, GroupId, KvEngine, NodeId, OpenMode, UnixMillis};
use mailstore::MailStore;
use node::Node;
use node::commands::Newborn;
use node::config::{Config, Listen, PasswordHash, PlainLogin};
use node::machine::{Machine, Network, Rhythm, Scale};
use oracle::schedule::Stored;
use platform::{CallClass, CallEvent, DiskImage, FaultyDisk, SeededEntropy};
use raft::Groups;
use state::KeptEngine;
use tokio::sync::mpsc;

use crate::inspect::leaks::Remains;
use crate::net::{SimNetwork, Weather};
use crate::os::EPOCH_SECONDS;
use crate::pool::SimPool;
use crate::trace::Trace;

/// Ports of every node.
pub mod port {
    /// SMTP.
    pub const SMTP: u16 = 25;
    /// Submission.
    pub const SUBMISSION: u16 = 587;
    /// LMTP.
    pub const LMTP: u16 = 24;
    /// IMAP.
    pub const IMAP: u16 = 143;
    /// POP3.
    pub const POP3: u16 = 110;
    /// The admin API.
    pub const ADMIN: u16 = 80;
    /// The other nodes.
    pub const CLUSTER: u16 = 433;
    /// From where a node joins.
    pub const JOINING: u16 = 434;
}

/// Octets up to which a blob goes through the journal: few, so that both ways are gone.
pub const INLINE_BYTES: usize = 8 * 1024;

/// A computer.
#[derive(Clone)]
pub struct Host(Arc<Inner>);

struct Inner {
    number: u64,
    seed: u64,
    address: IpAddr,
    groups: u32,
    trace: Trace,
    disk: FaultyDisk,
    weather: Weather,
    clock: Arc<Skew>,
    lives: AtomicU64,
    token: Mutex<Option<String>>,
    watch: Arc<Watch>,
    state: Mutex<State>,
}

struct State {
    engine: Arc<KeptEngine>,
    running: Option<Running>,
    control: Option<mpsc::UnboundedSender<Control>>,
    /// Why the node stopped by itself, each time.
    ended: Vec<String>,
    /// The node's id, once it has one.
    node_id: Option<u64>,
    /// The cluster has removed the node.
    removed: bool,
    /// The first life on this disk does not found the cluster.
    wiped: bool,
    /// The disk and the index as they were, now and then.
    images: Vec<Image>,
    /// What may be left of lives that are over, and the parts of the present one.
    remains: Vec<Remains>,
}

/// What somebody outside waits for at the disk.
#[derive(Debug, Default)]
struct Watch {
    /// A call of such a class below such a prefix.
    trap: Mutex<Option<(String, Vec<CallClass>)>>,
    trapped: AtomicBool,
    /// How often the blob journal was made durable.
    receipts: AtomicU64,
}

impl Watch {
    fn see(&self, call: &CallEvent<'_>) {
        let is_durable = call.failed.is_none() && call.class == CallClass::Sync;
        if is_durable && call.path.starts_with(Stored::BlobJournal.path_prefix()) {
            self.receipts.fetch_add(1, Ordering::Relaxed);
        }
        let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((prefix, classes)) = trap.as_ref()
            && call.path.starts_with(prefix.as_str())
            && classes.contains(&call.class)
        {
            *trap = None;
            self.trapped.store(true, Ordering::Relaxed);
        }
    }
}

struct Image {
    at: Duration,
    disk: DiskImage,
    batches: usize,
}

/// What a node is asked to do from outside.
#[derive(Clone, Copy, Debug)]
pub enum Control {
    /// To stop in order.
    Stop,
    /// To hand a group over.
    Transfer(GroupId, NodeId),
    /// To make snapshots of all groups.
    Snapshot,
}

/// How a machine's wall clock is off.
#[derive(Debug, Default)]
struct Skew {
    millis: AtomicI64,
    drift_ppm: AtomicI64,
    drift_since_millis: AtomicI64,
}

/// The parts of a node that runs, for looks from outside.
#[derive(Clone)]
pub struct Running {
    /// Its mail store.
    pub store: MailStore,
    /// Its replicas.
    pub groups: Groups,
    /// Where its tasks are.
    pub runtime: tokio::runtime::Handle,
}

impl Host {
    /// A computer with an empty disk. `groups` mailbox groups are founded on number 1; the others need a token.
    #[must_use]
    pub fn new(number: u64, seed: u64, address: IpAddr, groups: u32, weather: Weather, trace: Trace) -> Self {
        weather.place(number, address);
        let disk = FaultyDisk::new();
        disk.reseed(seed.wrapping_mul(7919).wrapping_add(number));
        let (noted, name) = (trace.clone(), format!("node-{number}"));
        let watch = Arc::new(Watch::default());
        let watching = Arc::clone(&watch);
        disk.set_hook(Some(Arc::new(move |call: &CallEvent<'_>| {
            watching.see(call);
            noted.note(&name, "disk", &call.line(), &[]);
        })));
        Self(Arc::new(Inner {
            number,
            seed,
            address,
            groups,
            trace,
            disk,
            weather,
            clock: Arc::default(),
            lives: AtomicU64::new(0),
            token: Mutex::new(None),
            watch,
            state: Mutex::new(State {
                engine: Arc::default(),
                running: None,
                control: None,
                ended: Vec::new(),
                node_id: None,
                removed: false,
                wiped: false,
                images: Vec::new(),
                remains: Vec::new(),
            }),
        }))
    }

    /// `node-1`, ...
    #[must_use]
    pub fn name(&self) -> String {
        format!("node-{}", self.0.number)
    }

    /// Its number, which is its node id where nodes join in order.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    /// How many mailbox groups there are.
    #[must_use]
    pub fn groups(&self) -> u32 {
        self.0.groups
    }

    /// Its index.
    #[must_use]
    pub fn index(&self) -> Arc<KeptEngine> {
        Arc::clone(&self.lock().engine)
    }

    /// What may be left of its lives.
    pub fn remains<T>(&self, look: impl FnOnce(&mut Vec<Remains>) -> T) -> T {
        look(&mut self.lock().remains)
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> &FaultyDisk {
        &self.0.disk
    }

    /// Sets its wall clock apart from the others.
    pub fn set_skew(&self, millis: i64) {
        self.0.clock.millis.store(millis, Ordering::Relaxed);
    }

    /// Lets its wall clock go wrong from now on, by parts in a million.
    pub fn set_drift(&self, ppm: i64, now: Duration) {
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        self.0.clock.drift_since_millis.store(now, Ordering::Relaxed);
        self.0.clock.drift_ppm.store(ppm, Ordering::Relaxed);
    }

    /// Keeps an image of disk and index.
    pub fn take_image(&self, now: Duration) {
        let mut state = self.lock();
        let image = Image {
            at: now,
            disk: self.0.disk.image(),
            batches: state.engine.written(),
        };
        state.images.push(image);
        if state.images.len() > IMAGES_KEPT {
            state.images.remove(0);
        }
    }

    /// Puts disk and index back to what they were some time ago. The node is down.
    pub fn restore(&self, now: Duration, age: Duration) {
        let mut state = self.lock();
        let wanted = now.saturating_sub(age);
        let image = state
            .images
            .iter()
            .rev()
            .find(|image| image.at <= wanted)
            .or(state.images.first());
        let Some((disk, batches)) = image.map(|image| (image.disk.clone(), image.batches)) else {
            return;
        };
        self.0.disk.restore(&disk);
        state.engine = state.engine.after(batches).expect("an index in memory does not fail");
        state.images.clear();
    }

    /// Its index comes back broken, which the engine finds out: then it is an empty one; or as it once was. The node is down.
    pub fn lose_index(&self, broken: bool, entropy: &dyn Entropy) {
        let mut state = self.lock();
        state.engine = if broken {
            Arc::default()
        } else {
            state
                .engine
                .after_power_loss(entropy)
                .expect("an index in memory does not fail")
        };
        state.images.clear();
    }

    /// Asks the node, if it runs.
    pub fn control(&self, control: Control) {
        if let Some(sender) = &self.lock().control {
            let _ = sender.send(control);
        }
    }

    /// The id that its node has in the cluster, once it has one.
    #[must_use]
    pub fn node_id(&self) -> Option<u64> {
        self.lock().node_id
    }

    /// Whether its node heard that the cluster has removed it: it does not start again.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.lock().removed
    }

    /// A new, empty machine in its place: the next node here joins, when it is given a token. The node is down.
    pub fn wipe(&self) {
        *self.0.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut state = self.lock();
        self.0.disk.wipe();
        state.engine = Arc::default();
        state.images.clear();
        state.node_id = None;
        state.removed = false;
        state.wiped = true;
    }

    /// From the next call of such a class on such data on, [`Self::is_trapped`].
    pub fn set_trap(&self, prefix: &str, classes: &[CallClass]) {
        let mut trap = self.0.watch.trap.lock().unwrap_or_else(PoisonError::into_inner);
        *trap = Some((prefix.to_owned(), classes.to_vec()));
    }

    /// No trap any more.
    pub fn remove_trap(&self) {
        *self.0.watch.trap.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.0.watch.trapped.store(false, Ordering::Relaxed);
    }

    /// Whether the disk was called as [`Self::set_trap`] said.
    #[must_use]
    pub fn is_trapped(&self) -> bool {
        self.0.watch.trapped.load(Ordering::Relaxed)
    }

    /// How often it has made bytes of messages durable in its journal.
    #[must_use]
    pub fn receipts(&self) -> u64 {
        self.0.watch.receipts.load(Ordering::Relaxed)
    }

    /// Gives it what it joins with.
    pub fn set_token(&self, token: String) {
        *self.0.token.lock().expect("no panic") = Some(token);
    }

    /// The node, while it runs.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.lock().running.clone()
    }

    /// Why it stopped by itself, each time it did.
    #[must_use]
    pub fn ended(&self) -> Vec<String> {
        self.lock().ended.clone()
    }

    /// How often it was started.
    #[must_use]
    pub fn lives(&self) -> u64 {
        self.0.lives.load(Ordering::Relaxed)
    }

    /// The rows of a group as its index has them, by logical key, and what the adapter keeps beside them.
    #[must_use]
    pub fn rows(&self, group: u32) -> std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
        use core_types::KvRead;
        let engine = Arc::clone(&self.lock().engine);
        let mut prefix = vec![1];
        prefix.extend(group.to_be_bytes());
        prefix.extend(1_u32.to_be_bytes());
        let base = engine.get(&[&prefix[..], &[0, 0]].concat()).ok().flatten();
        let base = base.and_then(|value| value.last().copied()).unwrap_or(0);
        let mut rows = std::collections::BTreeMap::new();
        let from = [&prefix[..], &[0x10 | base]].concat();
        let to = [&prefix[..], &[(0x10 | base) + 1]].concat();
        let _ = engine.scan(&from, &to, &mut |key, value| {
            rows.insert(key.get(from.len()..).unwrap_or_default().to_vec(), value.to_vec());
            true
        });
        rows
    }

    /// Its process is gone: call before its tasks are dropped. With `power_loss` its disk loses what was not synced.
    pub fn died(&self, power_loss: bool, entropy: &dyn Entropy) {
        let mut state = self.lock();
        state.running = None;
        state.control = None;
        if power_loss {
            self.0.disk.crash(entropy.below(u64::MAX));
            state.engine = state
                .engine
                .after_power_loss(entropy)
                .expect("an index in memory does not fail");
        } else {
            self.0.disk.kill();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The computer's software.
    ///
    /// # Errors
    /// Never: how a node ended is kept.
    pub async fn run(self) -> turmoil::Result {
        let life = self.0.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let engine = Arc::clone(&self.lock().engine);
        self.0.trace.note(&self.name(), "boot", &life.to_string(), &[]);
        let machine = self.machine(life, engine);
        self.lock().remains.push(parts_of(life, &machine));
        let result = self.live(machine).await;
        let mut state = self.lock();
        state.running = None;
        state.control = None;
        if let Err(reason) = result
            && !self.0.disk.is_powered_off()
        {
            self.0.trace.note(&self.name(), "ended", &reason, &[]);
            tracing::error!(node = self.0.number, reason, "the node ended");
            state.ended.push(reason);
        }
        Ok(())
    }

    async fn live(&self, machine: Machine) -> Result<(), String> {
        let config = self.config();
        let text = |error: &dyn std::fmt::Display| error.to_string();
        if machine.disk.open("identity", OpenMode::Read).is_err() {
            let newborn = Newborn {
                disk: machine.disk.as_ref(),
                clock: Arc::clone(&machine.clock),
                entropy: machine.entropy.as_ref(),
                address: SocketAddr::new(self.0.address, port::CLUSTER).to_string(),
            };
            if self.0.number == 1 && !self.lock().wiped {
                self.lock().node_id = Some(1);
                newborn
                    .found_cluster(&self.name(), "site-1", self.0.groups)
                    .map_err(|error| text(&error))?;
            } else {
                let mut port = port::JOINING;
                loop {
                    let token = self.0.token.lock().expect("no panic").clone();
                    let Some(token) = token else {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    let socket = machine
                        .network
                        .cluster_socket(SocketAddr::from(([0, 0, 0, 0], port)))
                        .map_err(|error| text(&error))?;
                    match newborn.join_cluster(&token, socket, machine.network.as_ref()).await {
                        Ok(node) => {
                            self.lock().node_id = Some(node.0);
                            break;
                        }
                        Err(error) => tracing::info!(%error, "not joined yet"),
                    }
                    port += 1;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
        let mut node = Node::start_on(config, machine).await.map_err(|error| text(&error))?;
        node.serve_admin(SocketAddr::from(([0, 0, 0, 0], port::ADMIN)))
            .await
            .map_err(|error| text(&error))?;
        let running = Running {
            store: node.store(),
            groups: node.groups(),
            runtime: tokio::runtime::Handle::current(),
        };
        let (sender, mut controls) = mpsc::unbounded_channel();
        {
            let mut state = self.lock();
            state.running = Some(running);
            state.control = Some(sender);
        }
        loop {
            let control = tokio::select! {
                biased;
                reason = node.failed() => return Err(reason),
                reason = node.removed() => {
                    self.0.trace.note(&self.name(), "removed", &reason, &[]);
                    self.lock().removed = true;
                    node.stop().await;
                    return Ok(());
                }
                control = controls.recv() => control,
            };
            match control {
                Some(Control::Stop) | None => {
                    node.stop().await;
                    return Ok(());
                }
                Some(Control::Transfer(group, to)) => {
                    if let Some(group) = node.groups().group(group) {
                        tokio::spawn(async move { group.transfer_leader(to).await });
                    }
                }
                Some(Control::Snapshot) => {
                    for group in node.groups().list() {
                        tokio::spawn(async move { group.trigger_snapshot().await });
                    }
                }
            }
        }
    }

    fn machine(&self, life: u64, engine: Arc<KeptEngine>) -> Machine {
        let inner = &self.0;
        let seed = inner
            .seed
            .wrapping_mul(1_000_003)
            .wrapping_add(inner.number * 1009 + life);
        Machine {
            disk: Arc::new(inner.disk.clone()) as Arc<dyn Disk>,
            pool: Arc::new(SimPool {
                disk: inner.disk.clone(),
                entropy: SeededEntropy::new(seed ^ 0x706f_6f6c),
            }),
            clock: Arc::new(HostClock(Arc::clone(&inner.clock))),
            entropy: Arc::new(SeededEntropy::new(seed)),
            engine: engine as Arc<dyn KvEngine>,
            network: Arc::new(SimNetwork {
                name: self.name(),
                machine: inner.number,
                weather: inner.weather.clone(),
                trace: inner.trace.clone(),
                seed: seed ^ 0x6e65_7477,
            }) as Arc<dyn Network>,
            scale: scale(),
        }
    }

    fn config(&self) -> Config {
        let on = |port| Some(SocketAddr::from(([0, 0, 0, 0], port)));
        Config {
            data_dir: format!("/{}", self.name()).into(),
            hostname: format!("{}.example.test", self.name()),
            roles: vec![node::config::Role::Store, node::config::Role::Front],
            listen: Listen {
                cluster: on(port::CLUSTER),
                cluster_advertised: Some(SocketAddr::new(self.0.address, port::CLUSTER).to_string()),
                smtp: on(port::SMTP),
                submission: on(port::SUBMISSION),
                lmtp: on(port::LMTP),
                imap: on(port::IMAP),
                pop3: on(port::POP3),
                ..Listen::default()
            },
            tls: None,
            plain_login: PlainLogin::Always,
            log: node::config::Log::default(),
            index_cache_mib: 1,
            password: PasswordHash {
                memory_kib: 8,
                passes: 1,
            },
        }
    }
}

/// Who holds the parts of a machine that one life of a node was given.
fn parts_of(life: u64, machine: &Machine) -> Remains {
    let (disk, pool) = (Arc::downgrade(&machine.disk), Arc::downgrade(&machine.pool));
    let (clock, entropy) = (Arc::downgrade(&machine.clock), Arc::downgrade(&machine.entropy));
    let network = Arc::downgrade(&machine.network);
    Remains {
        life,
        parts: vec![
            ("disk", Box::new(move || disk.strong_count())),
            ("pool", Box::new(move || pool.strong_count())),
            ("clock", Box::new(move || clock.strong_count())),
            ("entropy", Box::new(move || entropy.strong_count())),
            ("network", Box::new(move || network.strong_count())),
        ],
    }
}

/// How long a blob stays to which nothing refers: longer than an operation can be in doubt, and short enough for a run.
pub(crate) const GRACE: Duration = Duration::from_secs(15);
/// Between two collections.
pub(crate) const COLLECT: Duration = Duration::from_secs(20);

/// Small and frequent, so that segments change, snapshots are made and logs purged within a minute.
#[must_use]
pub fn scale() -> Scale {
    Scale {
        log_segment_bytes: 128 * 1024,
        blobs: BlobConfig {
            journal_segment_bytes: 64 * 1024,
            inline_bytes_max: INLINE_BYTES,
            memory_bytes_max: 16 * 1024,
            grace: GRACE,
            ..BlobConfig::default()
        },
        raft: raft_config,
        care: Rhythm {
            scrub: Duration::from_secs(60),
            collect: COLLECT,
            prune: Duration::from_secs(15),
        },
    }
}

fn raft_config(node: NodeId) -> raft::Config {
    raft::Config {
        snapshot_entries: 60,
        log_entries_kept: 10,
        digest_interval: Duration::from_secs(2),
        ..raft::Config::new(node)
    }
}

/// The wall clock of one computer: simulated time, and what it is off.
struct HostClock(Arc<Skew>);

impl Clock for HostClock {
    fn now(&self) -> UnixMillis {
        let since = turmoil::sim_elapsed().map_or(0, |at| i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
        let skew = &self.0;
        let drifting = since - skew.drift_since_millis.load(Ordering::Relaxed);
        let drifted = drifting * skew.drift_ppm.load(Ordering::Relaxed) / 1_000_000;
        let now = EPOCH_SECONDS * 1000 + since + skew.millis.load(Ordering::Relaxed) + drifted;
        UnixMillis(u64::try_from(now).unwrap_or(0))
    }
}

/// Images of disks that are kept.
const IMAGES_KEPT: usize = 30;
