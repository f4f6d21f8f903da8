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

    /// Takes over what the directory says. Returns whether a node or its address changed.
    ///
    /// The directory here may be old, even that of the cluster's first day: whoever is not in it is forgotten only when it was
    /// removed. A new node would otherwise refuse those from whom it gets the rest.
    pub(crate) fn renew(
        &self,
        nodes: &[NodeRow],
        removed: &BTreeSet<NodeId>,
        tokens: &[JoinTokenRow],
        now: UnixMillis,
    ) -> bool {
        if nodes.is_empty() {
            return false;
        }
        let rows = nodes.iter().map(|row| (row.node, (row.address.clone(), row.key)));
        // A spent token stays good for its holder until it expires: its answer may have been lost.
        let tokens = tokens
            .iter()
            .filter(|row| row.expires > now)
            .map(|row| row.token_key)
            .collect();
        let mut snapshot = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut nodes = snapshot.nodes.clone();
        nodes.extend(rows);
        nodes.retain(|node, _| !removed.contains(node));
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

    fn known(members: &Members) -> Vec<(u64, String)> {
        let nodes = members.seed().nodes.into_iter();
        nodes.map(|(node, address, _)| (node.0, address)).collect()
    }

    #[test]
    fn an_old_directory_makes_nobody_a_stranger_and_a_removal_does() {
        let seed = Seed {
            nodes: vec![
                (NodeId(4), "d:1".to_owned(), [4; 32]),
                (NodeId(5), "e:1".to_owned(), [5; 32]),
            ],
        };
        let members = Members::of_seed(&seed);
        let none = BTreeSet::new();
        assert!(!members.renew(&[], &none, &[], UnixMillis(1)));
        // As the cluster was on its first day.
        assert!(members.renew(&[row(1, "a:1")], &none, &[], UnixMillis(1)));
        assert_eq!(
            known(&members),
            [(1, "a:1".into()), (4, "d:1".into()), (5, "e:1".into())]
        );
        assert_eq!(members.member_key(NodeId(4)), Some([4; 32]));
        // As it is today.
        let today = [row(4, "d:2"), row(5, "e:1")];
        assert!(members.renew(&today, &[NodeId(1)].into(), &[], UnixMillis(1)));
        assert_eq!(known(&members), [(4, "d:2".into()), (5, "e:1".into())]);
        assert_eq!(members.member_key(NodeId(1)), None);
        assert!(!members.renew(&today, &[NodeId(1)].into(), &[], UnixMillis(1)));
    }
}
