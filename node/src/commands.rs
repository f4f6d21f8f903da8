//! Commands that work on this machine: making a node, joining a cluster, running.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use core_types::{Clock, Disk, Entropy, NodeId, SiteId, codec};
use ctl::{Exit, Failure};
use platform::{RealDisk, SystemClock, SystemEntropy};
use transport::{Authority, JoinError, JoinToken, Joiner, NodeIdentity, NodeKey, Socket};

use crate::config::{Config, ConfigError};
use crate::face::{JOIN_MESSAGE_BYTES_MAX, JOIN_VERSION, JoinAnswer, JoinRequest, validity};
use crate::files::{self, FOUNDING, Founding, IDENTITY, SEED, Seed};
use crate::machine::{Network, SystemNetwork};
use crate::start::{Node, StartError, advertised};

/// Reads a configuration with the process's environment over it.
///
/// # Errors
/// [`Exit::Configuration`].
pub fn load_config(path: &Path) -> Result<Config, Failure> {
    // EVERPOST_DIR is the command line's own.
    let environment = std::env::vars().filter(|(name, _)| name != "EVERPOST_DIR");
    Config::load(path, environment).map_err(|error: ConfigError| Failure::new(Exit::Configuration, error.to_string()))
}

/// Makes the first node of a new cluster. Its first start founds the cluster.
///
/// # Errors
/// [`Exit::Exists`] when the data directory belongs to a cluster already.
pub fn cluster_init(config: &Config, name: &str, site_name: &str, mailbox_groups: u32) -> Result<(), Failure> {
    let disk = open_empty(config)?;
    let newborn = Newborn {
        disk: &disk,
        clock: Arc::new(SystemClock),
        entropy: &SystemEntropy,
        address: address_of(config)?,
    };
    newborn.found_cluster(name, site_name, mailbox_groups)
}

/// Makes this machine a node of a cluster. Can be repeated with the same token until it succeeds.
///
/// # Errors
/// [`Failure`].
pub async fn node_join(config: &Config, token: &str) -> Result<NodeId, Failure> {
    let disk = open_empty(config)?;
    let newborn = Newborn {
        disk: &disk,
        clock: Arc::new(SystemClock),
        entropy: &SystemEntropy,
        address: address_of(config)?,
    };
    let unspecified = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let socket = SystemNetwork
        .cluster_socket(unspecified)
        .or_else(|_| SystemNetwork.cluster_socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))))
        .map_err(failed)?;
    newborn.join_cluster(token, socket, &SystemNetwork).await
}

/// A machine that is about to become a node.
pub struct Newborn<'a> {
    /// The empty data directory.
    pub disk: &'a dyn Disk,
    /// For the times of certificates.
    pub clock: Arc<dyn Clock>,
    /// For keys.
    pub entropy: &'a dyn Entropy,
    /// Where the other nodes will reach it, `host:port`.
    pub address: String,
}

impl Newborn<'_> {
    /// Writes down what the first node of a new cluster needs. Its first start founds the cluster.
    ///
    /// # Errors
    /// [`Failure`]; the directory is as empty as before, or can be used for another attempt.
    pub fn found_cluster(&self, name: &str, site_name: &str, mailbox_groups: u32) -> Result<(), Failure> {
        let entropy = self.entropy;
        let now = self.clock.now();
        let cluster = u128::from_le_bytes(entropy.bytes());
        let (node, site) = (NodeId(1), SiteId(1));
        let authority = Authority::create(cluster, validity(now), entropy).map_err(failed)?;
        let key = NodeKey::generate(entropy).map_err(failed)?;
        let certificate = authority
            .issue_node_certificate(&key.public(), site, node, validity(now), entropy)
            .map_err(failed)?;
        let founding = Founding {
            cluster,
            ca_certificate: authority.certificate().to_vec(),
            ca_key: authority.key().to_vec(),
            site,
            site_name: site_name.to_owned(),
            node_name: name.to_owned(),
            node_key: key.public(),
            address: self.address.clone(),
            mailbox_groups,
        };
        let seed = Seed {
            nodes: vec![(node, self.address.clone(), key.public())],
        };
        let identity = NodeIdentity::new(key, &certificate, authority.certificate()).map_err(failed)?;
        files::write_value(self.disk, FOUNDING, &founding).map_err(failed)?;
        files::write_value(self.disk, SEED, &seed).map_err(failed)?;
        // Last: a directory with an identity is one that can be run.
        let bytes = identity.to_bytes().map_err(failed)?;
        files::write_sealed(self.disk, IDENTITY, &bytes).map_err(failed)
    }

    /// Joins the cluster that gave the token. Can be repeated with the same token until it succeeds.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn join_cluster(&self, token: &str, socket: Socket, network: &dyn Network) -> Result<NodeId, Failure> {
        let token = JoinToken::parse(token).map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        // The key is kept before it is shown: a repeated attempt must come with the same one.
        let key = match files::read(self.disk, JOIN_KEY).map_err(failed)? {
            Some(pkcs8) => NodeKey::from_pkcs8(&pkcs8).map_err(failed)?,
            None => {
                let key = NodeKey::generate(self.entropy).map_err(failed)?;
                files::write(self.disk, JOIN_KEY, key.pkcs8()).map_err(failed)?;
                key
            }
        };
        let request = JoinRequest {
            node_key: key.public(),
            address: self.address.clone(),
        };
        let request = codec::encode(JOIN_VERSION, &request, JOIN_MESSAGE_BYTES_MAX).map_err(failed)?;
        let joiner = Joiner {
            token,
            socket,
            clock: Arc::clone(&self.clock),
            resolver: network.resolver(),
            tuning: network.tuning(),
        };
        let answer = transport::join(joiner, request.into(), JOIN_PATIENCE)
            .await
            .map_err(|error| {
                let exit = match &error {
                    JoinError::Unreachable(_) => Exit::Unreachable,
                    JoinError::TokenRefused | JoinError::Refused(_) | JoinError::WrongCluster { .. } => {
                        Exit::NotAllowed
                    }
                    JoinError::NoAnswer(_) => Exit::TryAgain,
                    _ => Exit::Failed,
                };
                Failure::new(exit, error.to_string())
            })?;
        let answer: JoinAnswer = codec::decode(JOIN_VERSION, &answer, JOIN_MESSAGE_BYTES_MAX).map_err(failed)?;
        let identity = NodeIdentity::new(key, &answer.certificate, &answer.authority).map_err(failed)?;
        files::write_value(self.disk, SEED, &Seed { nodes: answer.nodes }).map_err(failed)?;
        let bytes = identity.to_bytes().map_err(failed)?;
        files::write_sealed(self.disk, IDENTITY, &bytes).map_err(failed)?;
        files::remove(self.disk, JOIN_KEY).map_err(failed)?;
        Ok(answer.node)
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// [`Exit::Configuration`] when it cannot start for a reason that the administrator can mend; [`Exit::NotAllowed`] when it
/// was removed from its cluster; [`Exit::Failed`] when it had to stop.
pub async fn run(config: Config) -> Result<(), Failure> {
    let node = Node::start(config).await.map_err(|error| {
        let exit = match &error {
            StartError::Storage(..) | StartError::File(_) => Exit::Failed,
            StartError::Removed(_) => Exit::NotAllowed,
            _ => Exit::Configuration,
        };
        Failure::new(exit, error.to_string())
    })?;
    let signal =
        |kind| tokio::signal::unix::signal(kind).map_err(|error| Failure::new(Exit::Failed, error.to_string()));
    let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut removed = None;
    let failure = tokio::select! {
        biased;
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        reason = node.failed() => Some(reason),
        reason = node.removed() => {
            removed = Some(reason);
            None
        }
    };
    if let Some(reason) = failure {
        // What was written since the last good sync is in an unknown state: nothing more may be acknowledged, and
        // nothing is flushed. The process ends here.
        tracing::error!(reason, "the disk failed; the node stops at once");
        return Err(Failure::new(Exit::Failed, format!("the disk failed: {reason}")));
    }
    node.stop().await;
    match removed {
        Some(reason) => Err(Failure::new(Exit::NotAllowed, reason)),
        None => Ok(()),
    }
}

fn open_empty(config: &Config) -> Result<RealDisk, Failure> {
    let disk =
        RealDisk::open(&config.data_dir).map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    match disk.open(IDENTITY, core_types::OpenMode::Read) {
        Ok(_) => Err(Failure::new(
            Exit::Exists,
            format!(
                "the data directory {} belongs to a node already",
                config.data_dir.display()
            ),
        )),
        // One that has lost its identity: a new node would take over what another one wrote.
        Err(_) if files::has_data(&disk) => Err(Failure::new(
            Exit::Exists,
            format!(
                "the data directory {} holds the data of a node; a new node begins with an empty one",
                config.data_dir.display()
            ),
        )),
        Err(_) => Ok(disk),
    }
}

fn address_of(config: &Config) -> Result<String, Failure> {
    let lacking = "listen.cluster names no address: other nodes could not reach this one";
    advertised(config).ok_or_else(|| Failure::new(Exit::Configuration, lacking))
}

/// The key of an attempt to join that is not finished.
const JOIN_KEY: &str = "joining.key";
/// How long one of the cluster's nodes may take to answer.
const JOIN_PATIENCE: Duration = Duration::from_secs(15);
