//! The members of the cluster as the transport asks for them: a snapshot in memory, renewed when the directory changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock};

use core_types::{NodeId, UnixMillis};
use state::rows::{JoinTokenRow, NodeRow};
use transport::Peers;

use crate::files::Seed;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Members(RwLock<Snapshot>);

#[derive(Debug, Default)]
struct Snapshot {
    nodes: BTreeMap<NodeId, (String, [u8; 32])>,
    tokens: BTreeSet<[u8; 32]>,
}

impl Members {
    /// What a node knows before it has the directory.
    pub(crate) fn of_seed(seed: &Seed) -> Self {
        let nodes = seed
            .nodes
            .iter()
            .map(|(node, address, key)| (*node, (address.clone(), *key)))
            .collect();
        Self(RwLock::new(Snapshot {
            nodes,
            tokens: BTreeSet::new(),
        }))
    }

    /// Takes over what the directory says. Returns whether a node or its address changed. An empty directory says
    /// nothing: this node is still to be told.
    pub(crate) fn renew(&self, nodes: &[NodeRow], tokens: &[JoinTokenRow], now: UnixMillis) -> bool {
        if nodes.is_empty() {
            return false;
        }
        let nodes: BTreeMap<_, _> = nodes
            .iter()
            .map(|row| (row.node, (row.address.clone(), row.key)))
            .collect();
        // A spent token stays good for its holder until it expires: its answer may have been lost.
        let tokens = tokens
            .iter()
            .filter(|row| row.expires > now)
            .map(|row| row.token_key)
            .collect();
        let mut snapshot = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changed = snapshot.nodes != nodes;
        *snapshot = Snapshot { nodes, tokens };
        changed
    }

    /// All members.
    pub(crate) fn seed(&self) -> Seed {
        let snapshot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Seed {
            nodes: snapshot
                .nodes
                .iter()
                .map(|(node, (address, key))| (*node, address.clone(), *key))
                .collect(),
        }
    }
}

impl Peers for Members {
    fn address(&self, node: NodeId) -> Option<String> {
        let snapshot = self.0.read().unwrap_or_else(PoisonError::into_inner);
        snapshot.nodes.get(&node).map(|(address, _)| address.clone())
    }

    fn member_key(&self, node: NodeId) -> Option<[u8; 32]> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .nodes
            .get(&node)
            .map(|(_, key)| *key)
    }

    fn is_pending_token(&self, key: &[u8; 32]) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .tokens
            .contains(key)
    }
}
