//! I23 and I24: replicas keep Raft's rules, and one prefix of the log is one state.
//!
//! Of each replica of each running node: term and vote as they stand in its log, whether it leads, how far it is committed and
//! applied, and each entry that it knows as committed, once. Of each index, also that of a node that is down: the digest at
//! the entry that was applied last. When all is quiet: every row.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use core_types::{GroupId, Incarnation, KvEngine, NodeId};
use oracle::Violation;
use oracle::raft::{Replica, Replicas};
use oracle::time::Time;
use raft::log::GroupKey;
use raft::{Group, Groups, outside};
use state::digest;

use crate::host::Host;

/// Groups are founded in this life, and have no other here.
const LIFE: Incarnation = Incarnation(1);
/// Rows that differ and are told of.
const ROWS_TOLD: usize = 8;

/// What was seen of replicas so far.
#[derive(Default)]
pub struct Watch {
    replicas: Replicas,
    openings: BTreeMap<(u64, GroupId), outside::Opening>,
    nodes: BTreeMap<u64, NodeId>,
    /// Up to where entries were seen, by node and group.
    seen: BTreeMap<(NodeId, GroupId), u64>,
    /// By node and group: the term in which the node voted by itself, and for whom.
    votes: BTreeMap<(NodeId, GroupId), (u64, u64)>,
    digests: BTreeMap<(u64, GroupId), u64>,
}

impl Watch {
    /// The disk of a host is not what it was: its node may say anything once.
    pub fn forget(&mut self, host: u64) {
        let Some(node) = self.nodes.get(&host).copied() else {
            return;
        };
        self.replicas.forget_node(node.0);
        self.seen.retain(|(of, _), _| *of != node);
        self.votes.retain(|(of, _), _| *of != node);
    }

    /// Looks at all replicas.
    pub fn look(&mut self, now: Time, hosts: &[Host]) -> Vec<Violation> {
        let mut found = Vec::new();
        for host in hosts {
            if let Some(running) = host.running() {
                let node = running.groups.log().node();
                self.nodes.insert(host.number(), node);
                for group in running.groups.list() {
                    // A node also opens a replica again that closed on an error that has passed.
                    let opening = group.opening();
                    let place = (host.number(), group.group());
                    if self.openings.get(&place) != Some(&opening) {
                        self.openings.insert(place, opening);
                        self.replicas.restarted(node.0);
                    }
                    found.extend(self.replica(now, node, &running.groups, &group));
                }
            }
            let index: Arc<dyn KvEngine> = host.index();
            for group in (0..=host.groups()).map(GroupId) {
                let Some(kept) = outside::kept(Arc::clone(&index), group, LIFE) else {
                    continue;
                };
                let Some(applied) = kept.applied else { continue };
                if self.digests.insert((host.number(), group), applied) != Some(applied) {
                    found.extend(self.state(now, host.number(), group, applied, kept.digest));
                }
            }
        }
        found
    }

    fn state(&mut self, now: Time, host: u64, group: GroupId, applied: u64, digest: digest::Digest) -> Vec<Violation> {
        let mut bytes = [0; 32];
        for (place, word) in bytes.chunks_exact_mut(8).zip(digest) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.replicas.digest(now, (group.0, LIFE.0), host, applied, bytes)
    }

    fn replica(&mut self, now: Time, node: NodeId, groups: &Groups, group: &Group) -> Vec<Violation> {
        let status = group.status();
        // A vote that is not durable yet was told to nobody, and may be lost with the power.
        if status.closed.is_some() || !groups.log().is_settled() {
            return Vec::new();
        }
        let (id, life) = (status.group, (status.group.0, status.incarnation.0));
        let key = GroupKey {
            group: id,
            incarnation: status.incarnation,
        };
        let Some(log) = groups.log().state(key) else {
            return Vec::new();
        };
        let vote = log.vote.as_deref().and_then(outside::vote);
        let term = vote.map_or(0, |vote| vote.term);
        let own = vote.and_then(|vote| {
            // Whoever follows a leader has not changed its vote.
            let own = self
                .votes
                .get(&(node, id))
                .filter(|(of, _)| *of == vote.term)
                .map(|(_, whom)| *whom);
            let whom = if vote.is_elected { own } else { Some(vote.node.0) };
            if let Some(whom) = whom {
                self.votes.insert((node, id), (vote.term, whom));
            }
            whom
        });
        let replica = Replica {
            term,
            vote: own,
            is_leader: group.is_leader() && status.term == term,
            committed: status.committed.map_or(0, |index| index + 1),
            applied: status.applied.map_or(0, |index| index + 1),
        };
        let mut found = self.replicas.observe(now, life, node.0, replica);
        let Some(committed) = status.committed else {
            return found;
        };
        let purged = log.purged.map_or(0, |mark| mark.index + 1);
        let next = self.seen.entry((node, id)).or_insert(0);
        let range = (*next).max(purged)..committed + 1;
        // A look must not be seen: what would be read from the disk is left to another look.
        if range.is_empty() || !matches!(groups.log().is_cached(key, range.clone(), usize::MAX), Ok(true)) {
            return found;
        }
        for entry in groups.log().read(key, range, usize::MAX).unwrap_or_default() {
            let hash = *blake3::hash(&entry.body).as_bytes();
            let (index, term) = (entry.mark.index, entry.mark.term);
            found.extend(self.replicas.committed(now, life, node.0, index, term, hash));
            *next = index + 1;
        }
        found
    }

    /// The voters of the mailbox groups: the fewest that a replica knows of.
    #[must_use]
    pub fn voters(&self, hosts: &[Host]) -> usize {
        let of = |host: &Host| {
            let groups = host.running()?.groups.list();
            let mailboxes = groups.iter().filter(|group| group.group() != GroupId::DIRECTORY);
            mailboxes
                .map(|group| group.membership().voters.len())
                .filter(|voters| *voters > 0)
                .min()
        };
        hosts.iter().filter_map(of).min().unwrap_or(0)
    }
}

/// A replica's rows, and how far they go.
pub struct Rows {
    /// Whose.
    pub node: String,
    /// The last entry that was applied.
    pub applied: Option<u64>,
    /// What the replica keeps as the digest of them.
    pub digest: digest::Digest,
    /// All rows.
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Where the replicas of a quiet cluster differ.
#[must_use]
pub fn differences(hosts: &[Host]) -> Vec<String> {
    let groups = hosts.first().map_or(0, Host::groups);
    let mut found = Vec::new();
    for group in (0..=groups).map(GroupId) {
        let rows: Vec<Rows> = hosts
            .iter()
            .filter(|host| {
                host.running()
                    .is_some_and(|running| running.groups.group(group).is_some())
            })
            .filter_map(|host| {
                let kept = outside::kept(host.index(), group, LIFE)?;
                Some(Rows {
                    node: host.name(),
                    applied: kept.applied,
                    digest: kept.digest,
                    rows: host.rows(group.0),
                })
            })
            .collect();
        found.extend(differences_of(group, &rows));
    }
    found
}

/// Where the replicas of a group differ.
#[must_use]
pub fn differences_of(group: GroupId, replicas: &[Rows]) -> Vec<String> {
    let mut found = Vec::new();
    let Some(first) = replicas.first() else { return found };
    for other in replicas {
        if other.applied != first.applied {
            found.push(format!(
                "{group}: {} has applied {:?} and {} has applied {:?}",
                first.node, first.applied, other.node, other.applied
            ));
        } else if other.rows != first.rows {
            let keys: BTreeSet<&Vec<u8>> = first.rows.keys().chain(other.rows.keys()).collect();
            let differ = keys
                .into_iter()
                .filter(|key| first.rows.get(*key) != other.rows.get(*key));
            let keys: Vec<String> = differ.map(|key| hex(key)).collect();
            found.push(format!(
                "{group}: {} and {} differ at entry {:?} in {} rows: {}",
                first.node,
                other.node,
                first.applied,
                keys.len(),
                keys.get(..ROWS_TOLD).unwrap_or(&keys).join(" ")
            ));
        }
        if digest_of(&other.rows) != other.digest {
            found.push(format!(
                "{group}: the rows of {} are not those of its digest",
                other.node
            ));
        }
    }
    found
}

fn digest_of(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> digest::Digest {
    let index = state::KeptEngine::default();
    let mut batch = core_types::Batch::default();
    for (key, value) in rows {
        batch.put(key.clone(), value.clone());
    }
    let _ = index.write(&batch);
    digest::recomputed(&index).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(node: &str, applied: u64, value: &[u8]) -> Rows {
        let rows = BTreeMap::from([(vec![0x14, 1], value.to_vec()), (vec![0x19, 2], vec![1])]);
        Rows {
            node: node.to_owned(),
            applied: Some(applied),
            digest: digest_of(&rows),
            rows,
        }
    }

    #[test]
    fn equal_replicas_pass_and_a_changed_row_is_seen() {
        let group = GroupId(1);
        let same = [
            rows("node-1", 7, b"a"),
            rows("node-2", 7, b"a"),
            rows("node-3", 7, b"a"),
        ];
        assert_eq!(differences_of(group, &same), [""; 0]);
        let one_behind = [rows("node-1", 7, b"a"), rows("node-2", 6, b"a")];
        assert_eq!(differences_of(group, &one_behind).len(), 1);
        let mut changed = [rows("node-1", 7, b"a"), rows("node-2", 7, b"b")];
        assert!(differences_of(group, &changed)[0].contains("differ at entry Some(7) in 1 rows: 1401"));
        changed[1].digest = changed[0].digest;
        assert_eq!(
            differences_of(group, &changed).len(),
            2,
            "the digest was not kept with the row"
        );
    }

    #[test]
    fn one_entry_with_two_states_is_seen() {
        let mut watch = Watch::default();
        assert_eq!(watch.state(Time(1), 1, GroupId(1), 7, [1, 2, 3, 4]), []);
        assert_eq!(watch.state(Time(2), 2, GroupId(1), 7, [1, 2, 3, 4]), []);
        let found = watch.state(Time(3), 3, GroupId(1), 7, [1, 2, 3, 5]);
        assert_eq!(found[0].id, "I24");
    }
}
