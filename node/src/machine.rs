//! Everything that a node takes from the world: disk, network, time, randomness, threads, and the engine of its index.
//!
//! [`Machine::of_this_computer`] is the real one; a simulation builds its own of the same parts. Not here: what the node
//! makes of them.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use blobstore::BlobConfig;
use core_types::{BlockingPool, Clock, Disk, Entropy, KvEngine, NodeId, limits};
use platform::{LockError, RealDisk, SystemClock, SystemEntropy, TokioPool};
use raft::index::SledEngine;
use transport::{Resolver, Socket, SystemResolver, Tuning};

use crate::config::Config;
use crate::start::StartError;

/// A listener of any network.
pub type AnyListener = Box<dyn wire::Listener>;

/// Sockets for the other nodes and for mail programs.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// The socket on which the node talks to the other nodes.
    ///
    /// # Errors
    /// As the system reports them.
    fn cluster_socket(&self, address: SocketAddr) -> io::Result<Socket>;

    /// A socket for mail programs.
    ///
    /// # Errors
    /// As the system reports them.
    async fn listen(&self, address: SocketAddr) -> io::Result<AnyListener>;

    /// Turns the names of nodes into addresses.
    fn resolver(&self) -> Arc<dyn Resolver>;

    /// QUIC's settings on this network.
    fn tuning(&self) -> Tuning {
        Tuning::default()
    }
}

/// The sockets of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNetwork;

#[async_trait]
impl Network for SystemNetwork {
    fn cluster_socket(&self, address: SocketAddr) -> io::Result<Socket> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Socket::Std(socket))
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<AnyListener> {
        Ok(Box::new(tokio::net::TcpListener::bind(address).await?))
    }

    fn resolver(&self) -> Arc<dyn Resolver> {
        Arc::new(SystemResolver)
    }
}

/// How much of everything, and how often. The defaults are production's; a simulation takes less and does it more often,
/// so that what is rare there happens in minutes.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Octets of a segment of the log.
    pub log_segment_bytes: u64,
    /// The blob store's sizes.
    pub blobs: BlobConfig,
    /// Raft's timers and sizes, for a node of this number.
    pub raft: fn(NodeId) -> raft::Config,
    /// The rhythm of what a node does by itself.
    pub care: Rhythm,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            log_segment_bytes: limits::LOG_SEGMENT_BYTES,
            blobs: BlobConfig::default(),
            raft: raft::Config::new,
            care: Rhythm::default(),
        }
    }
}

/// How often a node looks after itself.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// Between two scrubs of all blobs.
    pub scrub: Duration,
    /// Between two collections of what nothing refers to.
    pub collect: Duration,
    /// Between two prunings of what is past its time.
    pub prune: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            scrub: Duration::from_secs(24 * 3600),
            collect: Duration::from_secs(3600),
            prune: Duration::from_secs(600),
        }
    }
}

/// What a node runs on.
#[derive(Clone)]
pub struct Machine {
    /// The data directory.
    pub disk: Arc<dyn Disk>,
    /// Where blocking work runs.
    pub pool: Arc<dyn BlockingPool>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The index.
    pub engine: Arc<dyn KvEngine>,
    /// Sockets.
    pub network: Arc<dyn Network>,
    /// Sizes and times.
    pub scale: Scale,
}

impl Machine {
    /// The real one. Needs a multi-threaded tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] when the data directory is held by another process, or the index cannot be opened.
    pub async fn of_this_computer(config: &Config) -> Result<Self, StartError> {
        let disk = open_data_dir(&config.data_dir).await?;
        let engine = open_index(config, disk.root())?;
        let machine = Self {
            disk: Arc::new(disk),
            pool: Arc::new(TokioPool::new(tokio::runtime::Handle::current())),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            engine,
            network: Arc::new(SystemNetwork),
            scale: Scale::default(),
        };
        #[cfg(feature = "failpoints")]
        let machine = crate::failpoints::arm(machine, &config.data_dir)?;
        Ok(machine)
    }
}

/// Opens the data directory. After a kill -9 the last thread of the dead process may hold the lock a moment longer than
/// the process is seen: so the lock is tried for a while.
async fn open_data_dir(data_dir: &Path) -> Result<RealDisk, LockError> {
    let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match RealDisk::open(data_dir) {
            Err(LockError::InUse(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(LOCK_LOOK).await;
            }
            opened => return opened,
        }
    }
}

fn open_index(config: &Config, data_dir: &Path) -> Result<Arc<dyn KvEngine>, StartError> {
    let cache_bytes = config.index_cache_mib.saturating_mul(1024 * 1024);
    let (engine, aside) = SledEngine::open_or_set_aside(&data_dir.join("index"), cache_bytes)
        .map_err(|error| StartError::Storage("index", error.to_string()))?;
    if let Some(aside) = aside {
        tracing::error!(path = %aside.directory.display(), reason = aside.reason, "the index was damaged and is rebuilt");
    }
    Ok(Arc::new(engine))
}

/// How long the lock of the data directory is waited for.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts at the lock.
const LOCK_LOOK: Duration = Duration::from_millis(50);
