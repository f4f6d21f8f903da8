//! The members of the cluster as the transport asks for them: a snapshot in memory, renewed when the directory changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use core_types::{NodeId, UnixMillis};
use state::rows::{JoinTokenRow, NodeRow};
use transport::Peers;

use crate::files::Seed;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Members(RwLock<Snapshot>);

/// Addresses and public keys.
type Nodes = BTreeMap<NodeId, (String, [u8; 32])>;

#[derive(Debug, Default)]
struct Snapshot {
    nodes: Nodes,
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
        self.replace(by_node(nodes), tokens, now)
    }

    /// Takes over what a directory says that may be an old one, as while its log is read from the beginning: it adds members,
    /// but takes back nothing that is known.
    pub(crate) fn add(&self, nodes: &[NodeRow], tokens: &[JoinTokenRow], now: UnixMillis) -> bool {
        let mut all = by_node(nodes);
        all.extend(self.read().nodes.clone());
        self.replace(all, tokens, now)
    }

    /// Whether the directory lacks a member that is known here, or says something else of one.
    pub(crate) fn differ(&self, nodes: &[NodeRow]) -> bool {
        let said = by_node(nodes);
        let known = self.read();
        known.nodes.iter().any(|(node, known)| said.get(node) != Some(known))
    }

    fn replace(&self, nodes: Nodes, tokens: &[JoinTokenRow], now: UnixMillis) -> bool {
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

    fn read(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
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

fn by_node(nodes: &[NodeRow]) -> Nodes {
    nodes
        .iter()
        .map(|row| (row.node, (row.address.clone(), row.key)))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::SiteId;

    fn row(node: u64, address: &str) -> NodeRow {
        NodeRow {
            node: NodeId(node),
            site: SiteId(1),
            name: String::new(),
            key: [1; 32],
            address: address.to_owned(),
        }
    }

    #[test]
    fn an_old_directory_takes_back_no_member_and_a_present_one_does() {
        let members = Members::default();
        let now = UnixMillis(1);
        assert!(members.renew(&[row(1, "a"), row(2, "b")], &[], now));
        assert!(!members.differ(&[row(1, "a"), row(2, "b"), row(3, "c")]));
        let old = [row(1, "old"), row(4, "d")];
        assert!(members.differ(&old));
        assert!(members.add(&old, &[], now));
        assert_eq!(members.address(NodeId(1)).as_deref(), Some("a"));
        assert_eq!(members.address(NodeId(2)).as_deref(), Some("b"));
        assert_eq!(members.address(NodeId(4)).as_deref(), Some("d"));
        assert!(members.renew(&[row(1, "new")], &[], now));
        assert_eq!(members.address(NodeId(2)), None);
        assert!(!members.renew(&[], &[], now));
    }
}
