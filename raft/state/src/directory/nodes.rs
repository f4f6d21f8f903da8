//! Nodes that leave, and who votes in their place.
//!
//! Invariants: a node id and a node key are never used again; whoever is to vote is a member; a node is removed only when it
//! is to vote nowhere.
//!
//! Not here: how a node is added (`apply`); whether a group has come to where it is to be (its leader knows).

use std::collections::BTreeSet;

use core_types::{GroupId, NodeId};

use crate::apply::tx::{Halt, Tx, refuse};
use crate::directory::apply::{no_such, reader, set_placement};
use crate::keys;
use crate::outcome::{Outcome, Refusal};
use crate::rows::{GroupRow, NodeDuty, NodeRow, RemovedNodeRow};

pub(crate) fn set_duty(tx: &mut Tx<'_>, node: NodeId, duty: NodeDuty) -> Result<Outcome, Halt> {
    let row = member(tx, node)?;
    match duty {
        NodeDuty::Active => tx.delete(keys::node_duty(node)),
        NodeDuty::Leaving { heir, forced } => {
            if let Some(heir) = heir {
                check_heir(tx, &row, heir)?;
            }
            check_others(tx, &row, forced)?;
            tx.put(keys::node_duty(node), &duty)?;
        }
    }
    Ok(Outcome::Done)
}

fn check_heir(tx: &Tx<'_>, leaving: &NodeRow, heir: NodeId) -> Result<(), Halt> {
    let row = member(tx, heir)?;
    if heir == leaving.node || row.site != leaving.site {
        return refuse(Refusal::Invalid(format!(
            "node {heir} cannot take the places of node {}: it has to be another node of the same site",
            leaving.node
        )));
    }
    if reader(tx).duty(heir)? != NodeDuty::Active {
        return refuse(Refusal::InUse(format!("node {heir} is to leave itself")));
    }
    Ok(())
}

/// Refuses when the nodes that stay are too few for the groups in which this one votes, or another one that leaves too: that
/// one may still need this one to take its place.
fn check_others(tx: &Tx<'_>, leaving: &NodeRow, forced: bool) -> Result<(), Halt> {
    let reader = reader(tx);
    let mut others = 0;
    let mut going = BTreeSet::from([leaving.node]);
    for row in reader.nodes()? {
        if row.node == leaving.node || row.site != leaving.site {
            continue;
        }
        if reader.duty(row.node)? == NodeDuty::Active {
            others += 1;
        } else {
            going.insert(row.node);
        }
    }
    let groups = reader.groups()?;
    let votes = |group: &&GroupRow| group.voters.iter().any(|node| going.contains(node));
    let needed = groups
        .iter()
        .filter(votes)
        .map(|group| group.voters.len())
        .max()
        .unwrap_or(0);
    if others == 0 && needed > 0 {
        return refuse(Refusal::InUse("no other node would be left".to_owned()));
    }
    if others < needed && !forced {
        let who = going.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return refuse(Refusal::InUse(format!(
            "of the nodes that would leave ({who}) one votes in a group of {needed}, and only {others} other nodes are there to take its place"
        )));
    }
    Ok(())
}

pub(crate) fn remove(tx: &mut Tx<'_>, node: NodeId, forced: bool) -> Result<Outcome, Halt> {
    let row = member(tx, node)?;
    if !forced && reader(tx).duty(node)? == NodeDuty::Active {
        return refuse(Refusal::InUse(format!("node {node} is not drained")));
    }
    let groups = reader(tx).groups()?;
    for group in &groups {
        let votes = group.voters.contains(&node);
        if votes && (!forced || group.voters.len() == 1) {
            return refuse(Refusal::InUse(format!("node {node} votes in group {}", group.group)));
        }
    }
    let without = |nodes: &[NodeId]| nodes.iter().copied().filter(|other| *other != node).collect();
    for group in groups {
        if group.voters.contains(&node) || group.learners.contains(&node) {
            let (voters, learners) = (without(&group.voters), without(&group.learners));
            tx.put(
                keys::group(group.group),
                &GroupRow {
                    voters,
                    learners,
                    ..group
                },
            )?;
        }
    }
    tx.delete(keys::node(node));
    tx.delete(keys::node_duty(node));
    let removed = tx.time;
    tx.put(
        keys::removed_node(node),
        &RemovedNodeRow {
            node,
            site: row.site,
            name: row.name,
            key: row.key,
            removed,
            may_hand_in_islands: true,
        },
    )?;
    Ok(Outcome::Done)
}

pub(crate) fn change_placement(
    tx: &mut Tx<'_>,
    group: GroupId,
    expected: &[NodeId],
    voters: &[NodeId],
    learners: &[NodeId],
) -> Result<Outcome, Halt> {
    if placed(tx, group)?.voters != expected {
        return refuse(Refusal::InUse(format!("group {group} was placed otherwise meanwhile")));
    }
    set_placement(tx, group, voters, learners)
}

pub(crate) fn move_voter(tx: &mut Tx<'_>, group: GroupId, from: NodeId, to: NodeId) -> Result<Outcome, Halt> {
    let row = placed(tx, group)?;
    let target = member(tx, to)?;
    if !row.voters.contains(&from) {
        return refuse(Refusal::NoSuchObject(format!("voter {from} of group {group}")));
    }
    if row.voters.contains(&to) {
        return refuse(Refusal::AlreadyExists);
    }
    if row.site.is_some_and(|site| site != target.site) {
        return refuse(Refusal::Invalid(format!(
            "node {to} stands at another site than group {group}"
        )));
    }
    if reader(tx).duty(to)? != NodeDuty::Active {
        return refuse(Refusal::InUse(format!("node {to} is to leave")));
    }
    let exchange = |nodes: &[NodeId], old: NodeId, new: NodeId| -> Vec<NodeId> {
        let kept = nodes.iter().copied().filter(|node| *node != old && *node != new);
        kept.chain([new]).collect()
    };
    let (voters, learners) = (exchange(&row.voters, from, to), exchange(&row.learners, to, from));
    set_placement(tx, group, &voters, &learners)?;
    tx.put(keys::pinned(group), &group)?;
    Ok(Outcome::Done)
}

pub(crate) fn pin(tx: &mut Tx<'_>, group: GroupId, pinned: bool) -> Result<Outcome, Halt> {
    placed(tx, group)?;
    if pinned {
        tx.put(keys::pinned(group), &group)?;
    } else {
        tx.delete(keys::pinned(group));
    }
    Ok(Outcome::Done)
}

fn member(tx: &Tx<'_>, node: NodeId) -> Result<NodeRow, Halt> {
    Ok(reader(tx).node(node)?.ok_or_else(|| no_such("node", &node))?)
}

fn placed(tx: &Tx<'_>, group: GroupId) -> Result<GroupRow, Halt> {
    Ok(reader(tx).group(group)?.ok_or_else(|| no_such("group", &group))?)
}
