//! How far a node is on its way out, and what its removal would cost: a pure function of what all nodes say.
//!
//! Invariant: a node is `drained` only when every group has a leader that says that it votes no more, and when every voter of
//! every group has verified since then that it has all blobs. Whoever does not answer proves nothing.
//!
//! Not here: asking (`report`), planning (`placement`).

use std::collections::{BTreeMap, BTreeSet};

use admin::api;
use core_types::{GroupId, NodeId};
use state::rows::{GroupRow, NodeDuty, NodeRow};

use crate::placement::Known;
use crate::report::{NodeReport, ReplicaReport};

/// What all nodes say, or why one says nothing.
pub(crate) type Reports = BTreeMap<NodeId, Result<NodeReport, String>>;

/// The leader's report of a group: of several that believe that they lead, the one of the latest term.
pub(crate) fn leader_of(reports: &Reports, group: GroupId) -> Option<&ReplicaReport> {
    replicas_of(reports, group)
        .map(|(_, replica)| replica)
        .filter(|replica| replica.leads && replica.closed.is_none())
        .max_by_key(|replica| replica.term)
}

/// All reports of a group's replicas.
pub(crate) fn replicas_of(reports: &Reports, group: GroupId) -> impl Iterator<Item = (NodeId, &ReplicaReport)> {
    reports
        .iter()
        .filter_map(|(node, report)| Some((*node, report.as_ref().ok()?)))
        .flat_map(move |(node, report)| report.replicas.iter().map(move |replica| (node, replica)))
        .filter(move |(_, replica)| replica.group == group)
}

/// Voters of whom the log does not say that they have verified all blobs under the present membership.
fn unverified(leader: &ReplicaReport) -> Vec<NodeId> {
    let caught_up: BTreeMap<NodeId, u64> = leader.caught_up.iter().copied().collect();
    let has_verified = |node: &NodeId| caught_up.get(node).is_some_and(|index| *index >= leader.membership);
    leader
        .voters
        .iter()
        .copied()
        .filter(|node| !has_verified(node))
        .collect()
}

/// Of a node that is gone for good.
pub(crate) fn removed(node: NodeId) -> api::Departure {
    api::Departure {
        node: node.0,
        state: "removed".to_owned(),
        ..api::Departure::default()
    }
}

/// How things stand with one node.
pub(crate) fn departure(known: &Known, reports: &Reports, row: &NodeRow) -> api::Departure {
    let node = row.node;
    let duty = known.duty(node);
    let mut departure = api::Departure {
        node: node.0,
        name: row.name.clone(),
        reachable: reports.get(&node).is_some_and(Result::is_ok),
        refusal: refusal(known, row),
        ..api::Departure::default()
    };
    for group in &known.groups {
        of_group(&mut departure, reports, group, node);
    }
    departure.state = match duty {
        NodeDuty::Active => "active",
        NodeDuty::Leaving { heir, forced } => {
            (departure.heir, departure.forced) = (heir.map(|heir| heir.0), forced);
            if departure.votes_in.is_empty() && departure.waits.is_empty() {
                "drained"
            } else {
                "draining"
            }
        }
    }
    .to_owned();
    departure
}

fn of_group(departure: &mut api::Departure, reports: &Reports, row: &GroupRow, node: NodeId) {
    let group = row.group;
    let reached = |other: &NodeId| reports.get(other).is_some_and(Result::is_ok);
    let leader = leader_of(reports, group);
    // Where no leader says who votes: as it is planned, as long as the node itself may be part of the majority.
    let planned = reached(&node).then(|| row.voters.iter().copied().collect());
    let voters: BTreeSet<NodeId> = leader
        .map(|leader| leader.voters.clone())
        .or(planned)
        .unwrap_or_default();
    let left: Vec<NodeId> = voters
        .iter()
        .copied()
        .filter(|other| *other != node && reached(other))
        .collect();
    if voters.contains(&node) && left.len() * 2 <= voters.len() {
        departure.would_stop.push(group.0);
        departure.would_lose.push(format!(
            "group {group}: of its {} voters only {} could be reached, which is no majority: it would stop for good",
            voters.len(),
            left.len()
        ));
    }
    let Some(leader) = leader else {
        departure.waits.push(format!("group {group}: no leader answers"));
        departure
            .would_lose
            .push(format!("group {group}: nobody can say now what the other nodes have"));
        return;
    };
    if leader.leader == Some(node) {
        departure.leads.push(group.0);
    }
    let late = unverified(leader);
    let votes = leader.voters.contains(&node);
    if votes || row.voters.contains(&node) {
        departure.votes_in.push(group.0);
        if let Some(why) = &leader.waits {
            departure.waits.push(format!("group {group}: {why}"));
        } else if row.voters.contains(&node) {
            departure.waits.push(format!(
                "group {group}: no other node is there yet that can take its place"
            ));
        }
    } else if !late.is_empty() {
        departure.waits.push(format!(
            "group {group}: node {} has not verified all blobs yet",
            names(&late)
        ));
    }
    let sure = leader
        .voters
        .iter()
        .filter(|other| **other != node && !late.contains(other) && reached(other))
        .count();
    if votes && sure < leader.voters.len().min(3) {
        departure.would_lose.push(format!(
            "group {group}: only {sure} other nodes are sure to have everything that its {} accounts keep",
            row.account_count
        ));
    }
    let missing = replicas_of(reports, group)
        .filter_map(|(_, replica)| replica.blobs)
        .map(|blobs| blobs.missing)
        .max()
        .unwrap_or(0);
    if missing > 0 {
        let text = format!("group {group}: the bytes of {missing} messages are on no node that can be reached");
        departure.waits.push(text.clone());
        departure.would_lose.push(text);
    }
}

/// What the directory would say to draining the node.
fn refusal(known: &Known, row: &NodeRow) -> Option<String> {
    let neighbours = || {
        known
            .nodes
            .iter()
            .filter(|other| other.site == row.site && other.node != row.node)
    };
    let is_active = |other: &&NodeRow| known.duty(other.node) == NodeDuty::Active;
    let others = neighbours().filter(is_active).count();
    let mut going: BTreeSet<NodeId> = neighbours()
        .filter(|other| !is_active(other))
        .map(|other| other.node)
        .collect();
    going.insert(row.node);
    let needed = known
        .groups
        .iter()
        .filter(|group| group.voters.iter().any(|node| going.contains(node)))
        .map(|group| group.voters.len())
        .max()?;
    (others < needed).then(|| {
        if going.len() == 1 {
            format!("it votes in groups of {needed}, and only {others} other nodes are there to take its places")
        } else {
            let going: Vec<NodeId> = going.into_iter().collect();
            format!(
                "of the nodes that would leave ({}) one votes in a group of {needed}, and only {others} other nodes are there to take its place",
                names(&going)
            )
        }
    })
}

pub(crate) fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// All nodes that are asked.
pub(crate) fn members(known: &Known) -> Vec<NodeId> {
    let nodes: BTreeSet<NodeId> = known.nodes.iter().map(|row| row.node).collect();
    nodes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::{Incarnation, SiteId};

    const LEAVING: NodeDuty = NodeDuty::Leaving {
        heir: None,
        forced: false,
    };

    fn known(nodes: u64, voters: &[u64]) -> Known {
        let row = |node| NodeRow {
            node: NodeId(node),
            site: SiteId(1),
            name: format!("n{node}"),
            key: [0; 32],
            address: String::new(),
        };
        let group = GroupRow {
            group: GroupId(1),
            incarnation: Incarnation(1),
            site: Some(SiteId(1)),
            voters: voters.iter().copied().map(NodeId).collect(),
            learners: vec![],
            account_count: 7,
        };
        Known {
            nodes: (1..=nodes).map(row).collect(),
            groups: vec![group],
            ..Known::default()
        }
    }

    /// Node 1 leads; these voters have verified everything.
    fn reports(voters: &[u64], verified: &[u64], away: &[u64]) -> Reports {
        let replica = |node: u64| ReplicaReport {
            group: GroupId(1),
            leads: node == 1,
            leader: Some(NodeId(1)),
            membership: 20,
            voters: voters.iter().copied().map(NodeId).collect(),
            caught_up: voters
                .iter()
                .map(|node| (NodeId(*node), if verified.contains(node) { 20 } else { 19 }))
                .collect(),
            ..ReplicaReport::default()
        };
        let report = |node: u64| {
            if away.contains(&node) {
                return Err("away".to_owned());
            }
            Ok(NodeReport {
                node: NodeId(node),
                replicas: vec![replica(node)],
                ..NodeReport::default()
            })
        };
        (1..=5).map(|node| (NodeId(node), report(node))).collect()
    }

    #[test]
    fn a_node_is_drained_when_it_votes_nowhere_and_all_voters_have_verified() {
        let mut known = known(5, &[1, 3, 4]);
        let of = |known: &Known, reports: &Reports| departure(known, reports, &known.nodes[1]);
        assert_eq!(of(&known, &reports(&[1, 3, 4], &[1, 3, 4], &[])).state, "active");
        known.duties.insert(NodeId(2), LEAVING);
        let drained = of(&known, &reports(&[1, 3, 4], &[1, 3, 4], &[]));
        assert_eq!((drained.state.as_str(), drained.waits.len()), ("drained", 0));
        assert_eq!(drained.would_lose, Vec::<String>::new());
        // It still votes, whatever the plan says.
        let votes = of(&known, &reports(&[1, 2, 3], &[1, 2, 3], &[]));
        assert_eq!((votes.state.as_str(), votes.votes_in), ("draining", vec![1]));
        // The new voter may lack something.
        let unsure = of(&known, &reports(&[1, 3, 4], &[1, 3], &[]));
        assert_eq!(unsure.state, "draining");
        assert_eq!(unsure.waits, ["group 1: node 4 has not verified all blobs yet"]);
        // Nobody can tell.
        let nobody = of(&known, &reports(&[1, 3, 4], &[1, 3, 4], &[1]));
        assert_eq!((nobody.state.as_str(), nobody.waits.len()), ("draining", 1));
        // It is planned to vote again.
        let mut back = known.clone();
        back.groups[0].voters = vec![NodeId(1), NodeId(2), NodeId(3)];
        let back = of(&back, &reports(&[1, 3, 4], &[1, 3, 4], &[]));
        assert_eq!((back.state.as_str(), back.waits.len()), ("draining", 1));
    }

    #[test]
    fn bytes_that_nobody_has_keep_a_node_from_going() {
        let mut known = known(5, &[1, 3, 4]);
        known.duties.insert(NodeId(2), LEAVING);
        let mut reports = reports(&[1, 3, 4], &[1, 3, 4], &[2]);
        let report = reports.get_mut(&NodeId(3)).unwrap().as_mut().unwrap();
        report.replicas[0].blobs = Some(crate::report::BlobReport {
            missing: 2,
            ..Default::default()
        });
        let departure = departure(&known, &reports, &known.nodes[1]);
        assert_eq!((departure.state.as_str(), departure.reachable), ("draining", false));
        assert_eq!(
            departure.would_lose,
            ["group 1: the bytes of 2 messages are on no node that can be reached"]
        );
    }

    #[test]
    fn a_voters_removal_says_how_few_others_are_sure() {
        let known = known(3, &[1, 2, 3]);
        let departure = departure(&known, &reports(&[1, 2, 3], &[1, 2], &[]), &known.nodes[1]);
        assert_eq!(
            departure
                .refusal
                .as_deref()
                .map(|text| text.contains("only 2 other nodes")),
            Some(true)
        );
        assert_eq!(
            departure.would_lose,
            ["group 1: only 1 other nodes are sure to have everything that its 7 accounts keep"]
        );
        assert!(departure.would_stop.is_empty());
    }

    #[test]
    fn a_removal_that_would_leave_no_majority_is_told() {
        let known = known(3, &[1, 2, 3]);
        let of = |away: &[u64], node: usize| {
            let reports = reports(&[1, 2, 3], &[1, 2, 3], away);
            departure(&known, &reports, &known.nodes[node - 1])
        };
        assert!(of(&[], 1).would_stop.is_empty());
        assert!(of(&[2], 2).would_stop.is_empty(), "that it is away stops nothing");
        for node in [1, 3] {
            let stops = of(&[2], node);
            assert_eq!(stops.would_stop, [1]);
            let told = "group 1: of its 3 voters only 1 could be reached, which is no majority: it would stop for good";
            assert_eq!(stops.would_lose.first().map(String::as_str), Some(told));
        }
        // Nobody leads just now, and it may be the one that is needed; or it is not there anyway.
        assert_eq!((of(&[1], 2).would_stop, of(&[1], 1).would_stop), (vec![1], vec![]));
    }
}
