//! What the node shows to its administrator and to nodes that want to join.

mod survey;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use admin::api::{self, BlobStatus, DiskStatus, GroupStatus, Health, NodeStatus, Status};
use admin::{AdminError, Kind};
use async_trait::async_trait;
use bytes::Bytes;
use core_types::codec;
use core_types::{GroupId, NodeId, SiteId, UnixMillis};
use raft::Role;
use serde::{Deserialize, Serialize};
use state::rows::{NodeDuty, NodeRow};
use state::{DirectoryOp, Outcome};
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use transport::{Authority, JoinService, JoinToken, Refused, Validity};
use wire::{BoxStream, Listener as _};

use crate::checks;
use crate::listen::ListenError;
use crate::machine::AnyListener;
use crate::start::{Parts, advertised};

/// What a node that joins says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    /// Its public key.
    pub(crate) node_key: [u8; 32],
    /// Where its cluster port is reached, `host:port`.
    pub(crate) address: String,
}

/// What it is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct JoinAnswer {
    pub(crate) node: NodeId,
    pub(crate) site: SiteId,
    /// DER.
    pub(crate) certificate: Vec<u8>,
    /// DER.
    pub(crate) authority: Vec<u8>,
    pub(crate) nodes: Vec<(NodeId, String, [u8; 32])>,
}

pub(crate) const JOIN_VERSION: u8 = 1;
/// Octets of a request or answer.
pub(crate) const JOIN_MESSAGE_BYTES_MAX: u64 = 60 * 1024;

/// Lets nodes join.
pub(crate) struct Joining(pub(crate) Arc<Parts>);

#[async_trait]
impl JoinService for Joining {
    async fn join(&self, token_key: [u8; 32], request: Bytes) -> Result<Bytes, Refused> {
        let parts = &self.0;
        let refused = |error: &dyn std::fmt::Display| Refused(error.to_string());
        let request: JoinRequest =
            codec::decode(JOIN_VERSION, &request, JOIN_MESSAGE_BYTES_MAX).map_err(|error| refused(&error))?;
        let directory = parts.store.directory();
        let op = DirectoryOp::JoinNode {
            token_key,
            node_key: request.node_key,
            address: request.address,
        };
        let node = match directory.propose(op).await.map_err(|error| refused(&error))? {
            Outcome::NodeAdded { node } => node,
            Outcome::Refused(refusal) => return Err(refused(&refusal)),
            outcome => return Err(Refused(format!("unexpected outcome {outcome:?}"))),
        };
        let read = directory.query(|reader| Ok((reader.cluster()?, reader.node(node)?, reader.nodes()?)));
        let (cluster, row, nodes) = read.await.map_err(|error| refused(&error))?;
        let (Some(cluster), Some(row)) = (cluster, row) else {
            return Err(Refused("the directory here is not up to date, try again".to_owned()));
        };
        let authority = Authority::load(&cluster.ca_certificate, &cluster.ca_key).map_err(|error| refused(&error))?;
        let certificate = authority
            .issue_node_certificate(
                &row.key,
                row.site,
                node,
                Validity::usual(parts.clock.now()),
                parts.entropy.as_ref(),
            )
            .map_err(|error| refused(&error))?;
        tracing::info!(%node, name = row.name, address = row.address, "a node joined");
        let answer = JoinAnswer {
            node,
            site: row.site,
            certificate,
            authority: cluster.ca_certificate,
            nodes: nodes.into_iter().map(|row| (row.node, row.address, row.key)).collect(),
        };
        let bytes = codec::encode(JOIN_VERSION, &answer, JOIN_MESSAGE_BYTES_MAX).map_err(|error| refused(&error))?;
        Ok(bytes.into())
    }
}

/// Opens the admin socket in the data directory.
pub(crate) async fn bind_socket(parts: &Arc<Parts>, listeners: &mut JoinSet<()>) -> Result<(), ListenError> {
    let path = parts.config.data_dir.join(ctl::client::SOCKET);
    // The data directory's lock is held: whoever left this socket is gone.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(ListenError::AdminSocket(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(ListenError::AdminSocket)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(ListenError::AdminSocket)?;
    serve_admin(parts, listener, listeners);
    Ok(())
}

/// Answers the admin API on a listener.
pub(crate) fn serve_admin<L>(parts: &Arc<Parts>, listener: L, listeners: &mut JoinSet<()>)
where
    L: axum::serve::Listener<Addr: std::fmt::Debug>,
{
    let node: Arc<dyn admin::Node> = Arc::new(Face(Arc::clone(parts)));
    let (store, shutdown) = (parts.store.clone(), parts.shutdown.clone());
    listeners.spawn(async move {
        let until = async move { shutdown.stopped().await };
        if let Err(error) = admin::serve(listener, store, node, until).await {
            tracing::error!(%error, "the admin socket failed");
        }
    });
}

/// A listener of [`Network`](crate::machine::Network) as the admin API's server wants it.
pub(crate) struct AdminListener {
    pub(crate) listener: AnyListener,
    pub(crate) address: SocketAddr,
}

impl axum::serve::Listener for AdminListener {
    type Io = BoxStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (BoxStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The node as the admin API sees it.
pub(crate) struct Face(pub(crate) Arc<Parts>);

#[async_trait]
impl admin::Node for Face {
    async fn status(&self) -> Result<Status, AdminError> {
        let parts = &self.0;
        let read = parts.store.directory().query(|reader| {
            let rows = reader.nodes()?;
            let mut leaving = std::collections::BTreeSet::new();
            for row in &rows {
                if reader.duty(row.node)? != NodeDuty::Active {
                    leaving.insert(row.node);
                }
            }
            Ok((reader.cluster()?, rows, reader.sites()?, leaving))
        });
        let (cluster, rows, sites, leaving) = match read.await {
            Ok(read) => read,
            // The rest is worth saying while the directory here is repaired.
            Err(_) if parts.ailments.contains(GroupId::DIRECTORY) => Default::default(),
            Err(error) => return Err(error.into()),
        };
        let site_name = |site: SiteId| {
            sites
                .iter()
                .find(|row| row.site == site)
                .map_or_else(|| site.to_string(), |row| row.name.clone())
        };
        let nodes: Vec<NodeStatus> = rows
            .iter()
            .map(|row| self.node_status(row, site_name(row.site), leaving.contains(&row.node)))
            .collect();
        let mut groups: Vec<GroupStatus> = Vec::new();
        for group in parts.groups.list() {
            groups.push(group_status(&group).await);
        }
        for (group, text) in parts.ailments.all() {
            match groups.iter_mut().find(|known| known.group == group.0) {
                Some(known) => known.closed = Some(text),
                None => groups.push(closed_status(group, text)),
            }
        }
        let blobs = self.blob_status();
        let disk = DiskStatus {
            free_bytes: parts.disk.free_bytes().unwrap_or(0),
            index_bytes: parts.engine.size_bytes().unwrap_or(0),
        };
        let mut queue = 0;
        for group in parts
            .groups
            .list()
            .iter()
            .map(raft::Group::group)
            .filter(|id| *id != GroupId::DIRECTORY)
        {
            let counts = parts
                .store
                .groups()
                .query(group, |view| state::mailbox::Reader::new(view).counts())
                .await;
            queue += counts.map_or(0, |counts| counts.queue_entries);
        }
        let checks = checks::all(parts, &nodes, &groups, &blobs, &disk);
        Ok(Status {
            health: checks.iter().map(|check| check.severity).max().unwrap_or(Health::Ok),
            node: parts.identity.node().0,
            cluster: cluster.map_or_else(String::new, |row| format!("{:032x}", row.cluster)),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nodes,
            groups,
            blobs,
            disk,
            queue,
            checks,
        })
    }

    async fn groups(&self) -> Result<Vec<api::Group>, AdminError> {
        survey::groups(&self.0).await
    }

    async fn departure(&self, node: u64) -> Result<api::Departure, AdminError> {
        survey::departure(&self.0, node).await
    }

    async fn agreement(&self) -> Result<api::Agreement, AdminError> {
        survey::agreement(&self.0).await
    }

    fn check_setting(&self, name: &str, value: Option<&str>) -> Result<(), AdminError> {
        survey::check_setting(name, value)
    }

    async fn new_join_token(&self) -> Result<([u8; 32], String), AdminError> {
        let parts = &self.0;
        let failed = |error: &dyn std::fmt::Display| AdminError::new(Kind::Failed, error.to_string());
        let read = parts
            .store
            .directory()
            .query(|reader| Ok((reader.cluster()?, reader.nodes()?)));
        let (cluster, nodes) = read.await?;
        let cluster = cluster.ok_or_else(|| AdminError::new(Kind::Failed, "the cluster is not founded yet"))?;
        let authority = Authority::load(&cluster.ca_certificate, &cluster.ca_key).map_err(|error| failed(&error))?;
        // This node first: it is alive.
        let mut addresses: Vec<String> = advertised(&parts.config).into_iter().collect();
        addresses.extend(nodes.into_iter().map(|row| row.address));
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        addresses.truncate(core_types::limits::JOIN_TOKEN_ADDRESSES_MAX);
        let token = JoinToken::generate(
            cluster.cluster,
            authority.fingerprint(),
            addresses,
            parts.entropy.as_ref(),
        )
        .map_err(|error| failed(&error))?;
        let key = token.key().map_err(|error| failed(&error))?.public();
        Ok((key, token.text().map_err(|error| failed(&error))?))
    }
}

impl Face {
    fn node_status(&self, row: &NodeRow, site: String, leaving: bool) -> NodeStatus {
        let peers = self.0.transport.peers_status();
        let peer = peers.iter().find(|peer| peer.node == row.node);
        let state = match peer {
            _ if row.node == self.0.identity.node() => "self",
            Some(peer) if peer.connected => "connected",
            Some(peer) if peer.via_relay.is_some() => "relayed",
            _ => "unreachable",
        };
        let rtt = peer
            .and_then(|peer| peer.rtt)
            .and_then(|rtt| u64::try_from(rtt.as_micros()).ok());
        NodeStatus {
            node: row.node.0,
            name: row.name.clone(),
            site,
            address: row.address.clone(),
            state: state.to_owned(),
            rtt_micros: rtt,
            duty: if leaving { "leaving" } else { "active" }.to_owned(),
        }
    }

    fn blob_status(&self) -> BlobStatus {
        let status = self.0.store.blobs().status();
        let (under_replicated, _) = self.0.health.repairs();
        BlobStatus {
            count: status.blobs,
            bytes: status.bytes,
            under_replicated,
            corrupt: status.corrupt + status.journal_damage,
            journal_backlog: status.journal_blobs,
        }
    }
}

/// A replica that is not open.
fn closed_status(group: GroupId, reason: String) -> GroupStatus {
    GroupStatus {
        group: group.0,
        role: "closed".to_owned(),
        closed: Some(reason),
        ..GroupStatus::default()
    }
}

async fn group_status(group: &raft::Group) -> GroupStatus {
    let status = group.status();
    let mut digest = None;
    // A closed replica's rows are not to be trusted.
    let _ = group.read(&mut |view| digest = state::digest::stored(view).ok()).await;
    let role = match status.role {
        _ if status.closed.is_some() => "closed",
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Learner => "learner",
        Role::Candidate => "candidate",
        _ => "closed",
    };
    let digest = digest.map_or_else(String::new, |digest| {
        digest.iter().map(|word| format!("{word:016x}")).collect()
    });
    GroupStatus {
        group: status.group.0,
        role: role.to_owned(),
        leader: status.leader.map(|leader| leader.0),
        term: status.term,
        last_log: status.last_log.unwrap_or(0),
        applied: status.applied.unwrap_or(0),
        voters: status.membership.voters.iter().map(|node| node.0).collect(),
        learners: status.membership.learners.iter().map(|node| node.0).collect(),
        lag: status.lag.iter().map(|(node, lag)| (node.0, *lag)).collect(),
        digest,
        closed: status.closed.or(status.alarm),
    }
}

/// When the join certificate's validity begins, for those who make one outside a running node.
pub(crate) fn validity(now: UnixMillis) -> Validity {
    Validity::usual(now)
}
