//! The proof that copies agree: a pure function of what all nodes say of their replicas.
//!
//! Copies are compared after the same entry of their group's log, the last one after which most of them know their digest. What
//! could not be seen (a node that is away, a replica that is behind, blobs that were not looked at since the question) never
//! counts as agreement: the result is incomplete then.
//!
//! Not here: asking (`report`).

use std::collections::{BTreeMap, BTreeSet};

use admin::api::{Agreement, GroupAgreement, ReplicaAgreement};
use core_types::{GroupId, NodeId};
use state::digest::Digest;
use state::rows::GroupRow;

use crate::departure::{Reports, leader_of, replicas_of};
use crate::placement::Known;
use crate::report::ReplicaReport;

/// What is known when the judgement is made.
pub(crate) struct Evidence<'a> {
    pub(crate) known: &'a Known,
    pub(crate) reports: &'a Reports,
    /// The look at all blobs that has to have ended on each node.
    pub(crate) looks: &'a BTreeMap<NodeId, u64>,
}

/// The judgement, and which nodes differ from the majority in a group whose mailboxes should be compared.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Agreement {
    let mut agreement = Agreement {
        agree: true,
        complete: true,
        ..Agreement::default()
    };
    for (node, report) in evidence.reports {
        if let Err(why) = report {
            agreement.complete = false;
            agreement.problems.push(format!("node {node} does not answer: {why}"));
        }
    }
    for row in &evidence.known.groups {
        let group = of_group(evidence, row, &mut agreement);
        agreement.groups.push(group);
    }
    agreement
}

/// Whether the replicas of a group agree: `agree`, `differ`, or `unknown`.
pub(crate) fn digests(reports: &Reports, row: &GroupRow) -> &'static str {
    let members: BTreeSet<NodeId> = row.voters.iter().chain(&row.learners).copied().collect();
    let open: BTreeMap<NodeId, &ReplicaReport> = open_replicas(reports, row.group);
    let compared = compare(&open);
    if compared.states.values().any(|state| *state == "differs") {
        "differ"
    } else if members.iter().all(|node| compared.states.get(node) == Some(&"agrees")) {
        "agree"
    } else {
        "unknown"
    }
}

fn open_replicas(reports: &Reports, group: GroupId) -> BTreeMap<NodeId, &ReplicaReport> {
    replicas_of(reports, group)
        .filter(|(_, replica)| replica.closed.is_none())
        .collect()
}

#[derive(Debug, Default)]
struct Compared {
    at: Option<u64>,
    /// `agrees`, `differs`, `behind`.
    states: BTreeMap<NodeId, &'static str>,
}

/// Compares after the entry after which most replicas know their digest; of several such entries, the last one.
fn compare(open: &BTreeMap<NodeId, &ReplicaReport>) -> Compared {
    let mut at: BTreeMap<u64, BTreeMap<NodeId, Digest>> = BTreeMap::new();
    for (node, replica) in open {
        for (index, digest) in &replica.digests {
            at.entry(*index).or_default().insert(*node, *digest);
        }
    }
    let Some((index, digests)) = at.into_iter().max_by_key(|(index, digests)| (digests.len(), *index)) else {
        return Compared::default();
    };
    let mut holders: BTreeMap<Digest, usize> = BTreeMap::new();
    for digest in digests.values() {
        *holders.entry(*digest).or_default() += 1;
    }
    let right = holders.iter().find(|(_, count)| **count * 2 > digests.len());
    let state = |node: &NodeId| match (digests.get(node), right) {
        (None, _) => "behind",
        (Some(digest), Some((right, _))) if digest == right => "agrees",
        (Some(_), _) => "differs",
    };
    Compared {
        at: Some(index),
        states: open.keys().map(|node| (*node, state(node))).collect(),
    }
}

fn of_group(evidence: &Evidence<'_>, row: &GroupRow, agreement: &mut Agreement) -> GroupAgreement {
    let group = row.group;
    let leader = leader_of(evidence.reports, group);
    let voters: BTreeSet<NodeId> =
        leader.map_or_else(|| row.voters.iter().copied().collect(), |leader| leader.voters.clone());
    let learners = leader.map_or_else(
        || row.learners.iter().copied().collect(),
        |leader| leader.learners.clone(),
    );
    let members: BTreeSet<NodeId> = voters.union(&learners).copied().collect();
    let open = open_replicas(evidence.reports, group);
    let compared = compare(&open);
    let mut result = GroupAgreement {
        group: group.0,
        compared_at: compared.at,
        accounts: row.account_count,
        ..GroupAgreement::default()
    };
    if leader.is_none() {
        agreement.complete = false;
        agreement
            .problems
            .push(format!("group {group} has no leader that answers"));
    }
    let mut good = 0;
    for node in &members {
        let replica = replicas_of(evidence.reports, group)
            .find(|(of, _)| of == node)
            .map(|(_, replica)| replica);
        let answers = evidence.reports.get(node).is_some_and(Result::is_ok);
        let state = match replica {
            _ if !answers => "unreachable",
            None => "absent",
            Some(replica) if replica.closed.is_some() => "closed",
            Some(_) => compared.states.get(node).copied().unwrap_or("behind"),
        };
        let votes = voters.contains(node);
        let lacking = lacking(evidence, group, *node, replica);
        let is_whole = group == GroupId::DIRECTORY || lacking == Some(0);
        good += u64::from(votes && state == "agrees" && is_whole);
        tell(agreement, group, *node, state, votes, lacking, replica);
        if let Some(blobs) = replica.and_then(|replica| replica.blobs) {
            result.messages = result.messages.max(blobs.messages);
        }
        result.replicas.push(ReplicaAgreement {
            node: node.0,
            votes,
            state: state.to_owned(),
            applied: replica.map_or(0, |replica| replica.applied),
            lacking_blobs: lacking,
        });
    }
    let missing = open
        .values()
        .filter_map(|replica| replica.blobs)
        .map(|blobs| blobs.missing)
        .max();
    if let Some(count) = missing.filter(|count| *count > 0) {
        agreement.agree = false;
        agreement.problems.push(format!(
            "group {group}: the bytes of {count} messages are on no node that can be reached"
        ));
    }
    let majority = voters.len() as u64 / 2 + 1;
    result.bears_losses = good.checked_sub(majority);
    if result.bears_losses.is_none() {
        agreement.complete = false;
        agreement.problems.push(format!(
            "group {group}: {good} of {} voters are known to be whole; {majority} are needed",
            voters.len()
        ));
    }
    result
}

/// Blobs that a replica should have and does not, if that was looked at since the question.
fn lacking(evidence: &Evidence<'_>, group: GroupId, node: NodeId, replica: Option<&ReplicaReport>) -> Option<u64> {
    let report = evidence.reports.get(&node)?.as_ref().ok()?;
    let is_fresh = evidence.looks.get(&node).is_some_and(|look| report.last_look >= *look);
    let blobs = replica?.blobs.filter(|_| is_fresh && group != GroupId::DIRECTORY)?;
    Some(blobs.lacking_here)
}

/// Notes what is wrong with one replica.
fn tell(
    agreement: &mut Agreement,
    group: GroupId,
    node: NodeId,
    state: &str,
    votes: bool,
    lacking: Option<u64>,
    replica: Option<&ReplicaReport>,
) {
    let problem = match state {
        "differs" => Some((false, "differs from the others".to_owned())),
        "closed" => {
            let why = replica.and_then(|replica| replica.closed.clone()).unwrap_or_default();
            Some((false, format!("is closed: {why}")))
        }
        "absent" => Some((false, "is not there".to_owned())),
        "behind" => Some((
            true,
            "could not be compared with the others after the same entry".to_owned(),
        )),
        // Said once for the node.
        "unreachable" => {
            agreement.complete = false;
            return;
        }
        _ => None,
    };
    let blobs = match lacking {
        // Whoever only follows may still be fetching: nothing depends on it.
        Some(count) if count > 0 && votes => Some((false, format!("lacks the bytes of {count} messages"))),
        None if votes && group != GroupId::DIRECTORY => Some((true, "has not looked at all its blobs yet".to_owned())),
        _ => None,
    };
    for (is_doubt, text) in problem.into_iter().chain(blobs) {
        agreement
            .problems
            .push(format!("group {group}: the replica on node {node} {text}"));
        if is_doubt {
            agreement.complete = false;
        } else {
            agreement.agree = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{BlobReport, NodeReport};
    use core_types::{Incarnation, SiteId};

    struct Bench {
        known: Known,
        reports: Reports,
        looks: BTreeMap<NodeId, u64>,
    }

    impl Bench {
        /// One group on three voters and a learner, all whole and the same.
        fn new() -> Self {
            let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
            let row = GroupRow {
                group: GroupId(1),
                incarnation: Incarnation(1),
                site: Some(SiteId(1)),
                voters: nodes(&[1, 2, 3]),
                learners: nodes(&[4]),
                account_count: 2,
            };
            let report = |node: u64| NodeReport {
                node: NodeId(node),
                replicas: vec![ReplicaReport {
                    group: GroupId(1),
                    leads: node == 2,
                    applied: 130,
                    voters: row.voters.iter().copied().collect(),
                    learners: row.learners.iter().copied().collect(),
                    digests: vec![(64, [1; 4]), (128, [2; 4]), (130, [3; 4])],
                    blobs: Some(BlobReport {
                        messages: 9,
                        ..BlobReport::default()
                    }),
                    ..ReplicaReport::default()
                }],
                last_look: 5,
                ..NodeReport::default()
            };
            Self {
                known: Known {
                    groups: vec![row.clone()],
                    ..Known::default()
                },
                reports: (1..=4).map(|node| (NodeId(node), Ok(report(node)))).collect(),
                looks: (1..=4).map(|node| (NodeId(node), 5)).collect(),
            }
        }

        fn replica(&mut self, node: u64) -> &mut ReplicaReport {
            &mut self.reports.get_mut(&NodeId(node)).unwrap().as_mut().unwrap().replicas[0]
        }

        fn judge(&self) -> Agreement {
            judge(&Evidence {
                known: &self.known,
                reports: &self.reports,
                looks: &self.looks,
            })
        }
    }

    fn state(agreement: &Agreement, node: u64) -> &str {
        let replicas = &agreement.groups[0].replicas;
        &replicas.iter().find(|replica| replica.node == node).unwrap().state
    }

    #[test]
    fn copies_that_are_the_same_and_whole_agree() {
        let bench = Bench::new();
        let agreement = bench.judge();
        assert!(agreement.agree && agreement.complete, "{agreement:?}");
        assert_eq!(agreement.problems, Vec::<String>::new());
        let group = &agreement.groups[0];
        assert_eq!(
            (group.compared_at, group.messages, group.bears_losses),
            (Some(130), 9, Some(1))
        );
        assert_eq!(digests(&bench.reports, &bench.known.groups[0]), "agree");
    }

    #[test]
    fn replicas_are_compared_after_the_same_entry_only() {
        let mut bench = Bench::new();
        // Further on: the last entry that all know is 128.
        bench.replica(3).digests = vec![(64, [1; 4]), (128, [2; 4]), (192, [9; 4])];
        let agreement = bench.judge();
        assert!(agreement.agree && agreement.complete);
        assert_eq!(agreement.groups[0].compared_at, Some(128));
        bench.replica(3).digests = vec![(192, [9; 4])];
        let agreement = bench.judge();
        assert!(agreement.agree && !agreement.complete);
        assert_eq!(state(&agreement, 3), "behind");
        assert_eq!(digests(&bench.reports, &bench.known.groups[0]), "unknown");
    }

    #[test]
    fn the_odd_one_is_named_and_a_tie_names_all() {
        let mut bench = Bench::new();
        bench.replica(2).digests = vec![(130, [7; 4])];
        let agreement = bench.judge();
        assert!(!agreement.agree);
        assert_eq!((state(&agreement, 1), state(&agreement, 2)), ("agrees", "differs"));
        assert_eq!(agreement.groups[0].bears_losses, Some(0));
        assert_eq!(digests(&bench.reports, &bench.known.groups[0]), "differ");
        bench.replica(1).digests = vec![(130, [7; 4])];
        let agreement = bench.judge();
        assert!((1..=4).all(|node| state(&agreement, node) == "differs"));
        assert_eq!(agreement.groups[0].bears_losses, None);
    }

    #[test]
    fn what_was_not_seen_is_no_agreement() {
        let mut bench = Bench::new();
        bench.reports.insert(NodeId(3), Err("away".to_owned()));
        let agreement = bench.judge();
        assert!(agreement.agree && !agreement.complete);
        assert_eq!(state(&agreement, 3), "unreachable");
        assert_eq!(agreement.groups[0].bears_losses, Some(0));

        let mut bench = Bench::new();
        bench.looks.insert(NodeId(1), 6);
        let agreement = bench.judge();
        assert!(agreement.agree && !agreement.complete);
        assert_eq!(agreement.problems.len(), 1);

        let mut bench = Bench::new();
        bench.replica(2).leads = false;
        assert!(!bench.judge().complete);
    }

    #[test]
    fn a_voter_that_lacks_bytes_or_is_closed_or_gone_does_not_agree() {
        let mut bench = Bench::new();
        bench.replica(1).blobs = Some(BlobReport {
            messages: 9,
            lacking_here: 2,
            ..BlobReport::default()
        });
        let agreement = bench.judge();
        assert!(!agreement.agree);
        assert_eq!(
            agreement.problems,
            ["group 1: the replica on node 1 lacks the bytes of 2 messages"]
        );
        assert_eq!(agreement.groups[0].bears_losses, Some(0));

        let mut bench = Bench::new();
        bench.replica(3).closed = Some("damage".to_owned());
        let agreement = bench.judge();
        assert!(!agreement.agree && state(&agreement, 3) == "closed");

        let mut bench = Bench::new();
        bench
            .reports
            .get_mut(&NodeId(1))
            .unwrap()
            .as_mut()
            .unwrap()
            .replicas
            .clear();
        let agreement = bench.judge();
        assert!(!agreement.agree && state(&agreement, 1) == "absent");

        // Nobody has them: that is so before every node has looked again, and whoever says it.
        for node in [1, 4] {
            let mut bench = Bench::new();
            bench.looks.insert(NodeId(node), 6);
            bench.replica(node).blobs = Some(BlobReport {
                messages: 9,
                lacking_here: 2,
                missing: 2,
                ..BlobReport::default()
            });
            let agreement = bench.judge();
            assert!(!agreement.agree);
            let told = "group 1: the bytes of 2 messages are on no node that can be reached".to_owned();
            assert!(agreement.problems.contains(&told), "{agreement:?}");
        }

        // One that only follows may still be fetching.
        let mut bench = Bench::new();
        bench.replica(4).blobs = Some(BlobReport {
            lacking_here: 2,
            ..BlobReport::default()
        });
        assert!(bench.judge().agree);
    }
}
