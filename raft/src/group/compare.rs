//! The leader's comparison of digests: all replicas have the same state at the same entry, or the odd one closes.

use std::collections::BTreeMap;

use core_types::NodeId;
use futures_util::future::join_all;
use state::digest::Digest;
use transport::Class;

use super::Inner;
use crate::frame::{Answer, Request};
use crate::replica::DigestAt;

impl Inner {
    /// Asks all replicas, if this one leads, and acts on what differs.
    pub(crate) async fn compare_digests(&self) {
        if self.replica.closed().is_some() || !self.is_leader() {
            return;
        }
        let membership = self.membership();
        let others: Vec<NodeId> = membership
            .voters
            .union(&membership.learners)
            .copied()
            .filter(|node| *node != self.node())
            .collect();
        let asked = others.iter().map(|node| {
            self.network
                .call(*node, Class::Store, Request::Digests, self.config.rpc_timeout)
        });
        let answers = join_all(asked).await;
        let mut all: BTreeMap<NodeId, Vec<DigestAt>> = [(self.node(), self.replica.digests())].into();
        for (node, answer) in others.iter().zip(answers) {
            if let Ok(Answer::Digests(digests)) = answer {
                all.insert(*node, digests);
            }
        }
        match judge(&all) {
            Verdict::Agree => *Self::locked(&self.alarm) = None,
            Verdict::Tie(index) => {
                let text = format!("replicas differ at entry {index}, and there is no majority for either state");
                tracing::error!(group = self.replica.group.0, text);
                *Self::locked(&self.alarm) = Some(text);
            }
            Verdict::Odd { majority, nodes } => {
                for node in nodes {
                    if node == self.node() {
                        self.compare_with_majority(majority).await;
                    } else {
                        let request = Request::CompareDigest(majority);
                        // A replica that does not answer is asked again at the next comparison.
                        let _ = self
                            .network
                            .call(node, Class::Store, request, self.config.rpc_timeout)
                            .await;
                    }
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Agree,
    /// They differ at this entry, and no state has a majority.
    Tie(u64),
    Odd {
        majority: DigestAt,
        nodes: Vec<NodeId>,
    },
}

/// Judges by the highest entry at which most replicas have a digest.
fn judge(all: &BTreeMap<NodeId, Vec<DigestAt>>) -> Verdict {
    let mut at: BTreeMap<u64, BTreeMap<Digest, Vec<NodeId>>> = BTreeMap::new();
    for (node, digests) in all {
        for digest in digests {
            at.entry(digest.index)
                .or_default()
                .entry(digest.digest)
                .or_default()
                .push(*node);
        }
    }
    let count = |states: &BTreeMap<Digest, Vec<NodeId>>| states.values().map(Vec::len).sum::<usize>();
    let Some((index, states)) = at.into_iter().max_by_key(|(index, states)| (count(states), *index)) else {
        return Verdict::Agree;
    };
    if states.len() <= 1 {
        return Verdict::Agree;
    }
    let total = count(&states);
    match states.iter().find(|(_, nodes)| nodes.len() * 2 > total) {
        None => Verdict::Tie(index),
        Some((digest, right)) => Verdict::Odd {
            majority: DigestAt { index, digest: *digest },
            nodes: states
                .values()
                .flatten()
                .copied()
                .filter(|node| !right.contains(node))
                .collect(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(list: &[&[(u64, u64)]]) -> BTreeMap<NodeId, Vec<DigestAt>> {
        let digests = |pairs: &[(u64, u64)]| {
            pairs
                .iter()
                .map(|(index, digest)| DigestAt {
                    index: *index,
                    digest: [*digest; 4],
                })
                .collect()
        };
        (1..).map(NodeId).zip(list.iter().map(|pairs| digests(pairs))).collect()
    }

    #[test]
    fn the_odd_one_of_three_is_named_and_a_tie_names_nobody() {
        assert_eq!(judge(&replicas(&[])), Verdict::Agree);
        assert_eq!(
            judge(&replicas(&[&[(64, 1), (128, 2)], &[(64, 1)], &[(128, 2)]])),
            Verdict::Agree
        );
        assert_eq!(
            judge(&replicas(&[
                &[(64, 1), (128, 2)],
                &[(64, 1), (128, 3)],
                &[(64, 1), (128, 2)]
            ])),
            Verdict::Odd {
                majority: DigestAt {
                    index: 128,
                    digest: [2; 4]
                },
                nodes: vec![NodeId(2)]
            }
        );
        assert_eq!(
            judge(&replicas(&[&[(64, 1)], &[(64, 2)], &[(128, 1)]])),
            Verdict::Tie(64)
        );
        assert_eq!(
            judge(&replicas(&[&[(64, 1)], &[(64, 2)], &[(64, 3)]])),
            Verdict::Tie(64)
        );
    }
}
