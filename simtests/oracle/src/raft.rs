//! I23 and I24: Raft's own invariants, and that one log prefix is one state, from what replicas say of themselves.
//!
//! | what | from |
//! | --- | --- |
//! | election safety: one leader per term | [`Replicas::observe`] |
//! | terms and votes never fall, also over a restart; a vote is not changed within its term | [`Replicas::observe`] |
//! | committed and applied never fall while a replica runs, applied stays at most committed | [`Replicas::observe`] |
//! | log matching, state machine safety: an index is committed once, everywhere the same | [`Replicas::committed`] |
//! | one state per index | [`Replicas::digest`] |

use std::collections::BTreeMap;

use crate::Violation;
use crate::time::Time;

/// Which group, and which of its lives.
pub type Group = (u32, u32);

/// What a replica says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    /// Its term.
    pub term: u64,
    /// For whom it voted in that term.
    pub vote: Option<u64>,
    /// Whether it leads, confirmed by a majority.
    pub is_leader: bool,
    /// The index up to which it knows entries as committed.
    pub committed: u64,
    /// The index up to which it applied them.
    pub applied: u64,
}

/// See the module. Nodes by their ids, which are never used again.
#[derive(Clone, Debug, Default)]
pub struct Replicas {
    last: BTreeMap<(Group, u64), Replica>,
    leaders: BTreeMap<(Group, u64), u64>,
    entries: BTreeMap<(Group, u64), (u64, [u8; 32], u64)>,
    digests: BTreeMap<(Group, u64), ([u8; 32], u64)>,
}

impl Replicas {
    /// Nothing was said.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A node stopped: what it knew as committed and had applied may fall once, term and vote may not.
    pub fn restarted(&mut self, node: u64) {
        for ((_, of), replica) in &mut self.last {
            if *of == node {
                replica.committed = 0;
                replica.applied = 0;
            }
        }
    }

    /// A node's disk came back as it once was, or empty under its old id: it may say anything, which the others must not
    /// believe.
    pub fn forget_node(&mut self, node: u64) {
        self.last.retain(|(_, of), _| *of != node);
    }

    /// A replica says where it stands.
    pub fn observe(&mut self, now: Time, group: Group, node: u64, replica: Replica) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut find = |what: String| {
            let what = format!("group {} of node {node}: {what}", group.0);
            violations.push(Violation::at("I23", now, what));
        };
        if replica.is_leader {
            let leader = *self.leaders.entry((group, replica.term)).or_insert(node);
            if leader != node {
                find(format!("leads in term {}, which node {leader} leads", replica.term));
            }
        }
        if replica.applied > replica.committed {
            find(format!(
                "applied {} and committed {}",
                replica.applied, replica.committed
            ));
        }
        if let Some(before) = self.last.insert((group, node), replica) {
            if replica.term < before.term {
                find(format!("the term was {} and is {}", before.term, replica.term));
            }
            if replica.term == before.term && before.vote.is_some() && replica.vote != before.vote {
                let (old, new) = (before.vote, replica.vote);
                find(format!(
                    "voted for {old:?} and then for {new:?} in term {}",
                    replica.term
                ));
            }
            if replica.committed < before.committed {
                find(format!(
                    "committed was {} and is {}",
                    before.committed, replica.committed
                ));
            }
            if replica.applied < before.applied {
                find(format!("applied was {} and is {}", before.applied, replica.applied));
            }
        }
        violations
    }

    /// A replica has an entry that it knows as committed: its term, and a hash of what is in it.
    pub fn committed(
        &mut self,
        now: Time,
        group: Group,
        node: u64,
        index: u64,
        term: u64,
        hash: [u8; 32],
    ) -> Vec<Violation> {
        let (first_term, first_hash, first_node) = *self.entries.entry((group, index)).or_insert((term, hash, node));
        if (first_term, first_hash) == (term, hash) {
            return Vec::new();
        }
        let what = format!(
            "group {}: entry {index} is committed at node {first_node} in term {first_term} and at node {node} in term \
             {term}, and they are not the same",
            group.0
        );
        vec![Violation::at("I23", now, what)]
    }

    /// A replica has applied up to an index, and this is the digest of its state (I24).
    pub fn digest(&mut self, now: Time, group: Group, node: u64, index: u64, digest: [u8; 32]) -> Vec<Violation> {
        let (first, first_node) = *self.digests.entry((group, index)).or_insert((digest, node));
        if first == digest {
            return Vec::new();
        }
        let what = format!(
            "group {}: nodes {first_node} and {node} differ at index {index}",
            group.0
        );
        vec![Violation::at("I24", now, what)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Group = (1, 1);

    fn replica(term: u64, committed: u64, applied: u64) -> Replica {
        Replica {
            term,
            committed,
            applied,
            ..Replica::default()
        }
    }

    #[test]
    fn a_group_that_keeps_the_rules_passes() {
        let mut replicas = Replicas::new();
        let leader = Replica {
            is_leader: true,
            vote: Some(1),
            ..replica(2, 5, 5)
        };
        assert_eq!(replicas.observe(Time(1), GROUP, 1, leader), []);
        assert_eq!(replicas.observe(Time(2), GROUP, 1, leader), []);
        assert_eq!(replicas.observe(Time(2), GROUP, 2, replica(2, 4, 3)), []);
        replicas.restarted(1);
        assert_eq!(
            replicas.observe(
                Time(3),
                GROUP,
                1,
                Replica {
                    vote: Some(1),
                    ..replica(2, 0, 0)
                }
            ),
            []
        );
        let next = Replica {
            is_leader: true,
            ..replica(3, 5, 5)
        };
        assert_eq!(replicas.observe(Time(4), GROUP, 2, next), []);
        assert_eq!(replicas.observe(Time(4), (2, 1), 3, next), [], "another group");
        for node in 1..=3 {
            assert_eq!(replicas.committed(Time(5), GROUP, node, 5, 2, [1; 32]), []);
            assert_eq!(replicas.digest(Time(5), GROUP, node, 5, [2; 32]), []);
        }
        replicas.forget_node(2);
        assert_eq!(replicas.observe(Time(6), GROUP, 2, replica(1, 1, 1)), []);
    }

    #[test]
    fn each_broken_rule_is_seen() {
        let broken = [
            Replica {
                is_leader: true,
                ..replica(5, 9, 9)
            },
            replica(4, 9, 9),
            replica(5, 8, 8),
            replica(5, 9, 8),
            replica(5, 9, 10),
            Replica {
                vote: Some(3),
                ..replica(5, 9, 9)
            },
        ];
        for (place, broken) in broken.into_iter().enumerate() {
            let mut replicas = Replicas::new();
            let first = Replica {
                vote: Some(1),
                ..replica(5, 9, 9)
            };
            let leader = Replica {
                is_leader: true,
                ..first
            };
            replicas.observe(Time(1), GROUP, 1, leader);
            replicas.observe(Time(1), GROUP, 2, first);
            let mut broken = broken;
            broken.vote = broken.vote.or(first.vote);
            let ids: Vec<&str> = replicas
                .observe(Time(2), GROUP, 2, broken)
                .iter()
                .map(|violation| violation.id)
                .collect();
            assert!(ids.contains(&"I23"), "{place}");
        }
        let mut replicas = Replicas::new();
        replicas.committed(Time(1), GROUP, 1, 7, 2, [1; 32]);
        assert_eq!(replicas.committed(Time(1), GROUP, 2, 7, 2, [2; 32])[0].id, "I23");
        assert_eq!(replicas.committed(Time(1), GROUP, 2, 7, 3, [1; 32])[0].id, "I23");
        replicas.digest(Time(1), GROUP, 1, 7, [1; 32]);
        assert_eq!(replicas.digest(Time(1), GROUP, 2, 7, [2; 32])[0].id, "I24");
    }
}
