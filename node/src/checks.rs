//! The coded health checks: what is not as it should be, and one sentence that says what to do.
//!
//! The codes are documented in `docs/operations.md` and never change their meaning.

use std::collections::BTreeSet;

use admin::api::{BlobStatus, Check, DiskStatus, GroupStatus, Health, NodeStatus};
use core_types::NodeId;

use crate::start::Parts;

/// Every check that does not pass, nodes and groups first.
pub(crate) fn all(
    parts: &Parts,
    nodes: &[NodeStatus],
    groups: &[GroupStatus],
    blobs: &BlobStatus,
    disk: &DiskStatus,
) -> Vec<Check> {
    let mut checks = Vec::new();
    of_nodes(nodes, &mut checks);
    of_groups(parts, groups, &mut checks);
    of_blobs(parts, blobs, &mut checks);
    of_disk(parts, disk, &mut checks);
    checks
}

fn check(code: &str, severity: Health, message: String, advice: &str) -> Check {
    Check {
        code: code.to_owned(),
        severity,
        message,
        advice: advice.to_owned(),
    }
}

fn of_nodes(nodes: &[NodeStatus], checks: &mut Vec<Check>) {
    for node in nodes.iter().filter(|node| node.state == "unreachable") {
        checks.push(check(
            "NODE_UNREACHABLE",
            Health::Warning,
            format!("node {} ({}) cannot be reached from here.", node.node, node.name),
            "Start it, or look at the network between the nodes.",
        ));
    }
}

fn of_groups(parts: &Parts, groups: &[GroupStatus], checks: &mut Vec<Check>) {
    let ailments = parts.ailments.all();
    for group in groups {
        if let Some((_, text)) = ailments.iter().find(|(id, _)| id.0 == group.group) {
            checks.push(check(
                "REPLICA_REPAIRING",
                Health::Error,
                format!("group {}: {text}.", group.group),
                "The other nodes serve the group; it is repaired by itself once a majority of its voters other than this node is up.",
            ));
        } else if let Some(reason) = &group.closed {
            checks.push(check(
                "REPLICA_CLOSED",
                Health::Error,
                format!("the replica of group {} on this node is closed: {reason}.", group.group),
                "Restart the node; if it stays closed, replace the node.",
            ));
        } else if group.leader.is_none() {
            checks.push(check(
                "GROUP_NO_LEADER",
                Health::Error,
                format!("group {} has no leader that this node knows.", group.group),
                "Bring a majority of its voters back.",
            ));
        }
    }
    for (group, reason) in parts.health.all_not_opened() {
        checks.push(check(
            "REPLICA_NOT_OPENED",
            Health::Error,
            format!("the replica of group {group} on this node could not be opened: {reason}."),
            "The other nodes serve the group. It is tried again every ten seconds: make room on the disk if it is full; replace this node if it stays.",
        ));
    }
}

fn of_blobs(parts: &Parts, blobs: &BlobStatus, checks: &mut Vec<Check>) {
    if blobs.under_replicated > 0 {
        checks.push(check(
            "BLOBS_UNDER_REPLICATED",
            Health::Warning,
            format!("{} messages have fewer copies than wanted.", blobs.under_replicated),
            "They are copied by themselves as soon as enough nodes are up.",
        ));
        // Only the leaders know; and who lacks nothing any more is of no interest.
        let groups = parts.groups.list();
        let deaf: BTreeSet<NodeId> = groups
            .iter()
            .flat_map(|group| group.status().not_taking_blobs)
            .collect();
        for node in deaf {
            checks.push(check(
                "VOTER_TAKES_NO_BLOBS",
                Health::Warning,
                format!("node {node} did not take the bytes of new messages lately."),
                "Look at its disk and at the network to it; messages get their third copy when it takes them again.",
            ));
        }
    }
    let (_, missing) = parts.health.repairs();
    if missing > 0 {
        checks.push(check(
            "BLOBS_MISSING",
            Health::Error,
            format!("the bytes of {missing} messages are on no node that can be reached."),
            "Bring all nodes back; do not remove any.",
        ));
    }
    if blobs.corrupt > 0 {
        checks.push(check(
            "BLOBS_DAMAGED",
            Health::Warning,
            format!("{} damaged copies were found since the start.", blobs.corrupt),
            "They were set aside and fetched from other nodes; look at this node's disk.",
        ));
    }
    let gaps = parts.health.manifest_gaps();
    if !gaps.is_empty() {
        checks.push(check(
            "MANIFEST_GAP",
            Health::Warning,
            format!("the manifests of {} groups on this node missed changes.", gaps.len()),
            "They are written anew by themselves; only a recovery from blobs of this node would notice until then.",
        ));
    }
}

fn of_disk(parts: &Parts, disk: &DiskStatus, checks: &mut Vec<Check>) {
    if disk.free_bytes < DISK_LOW_BYTES {
        checks.push(check(
            "DISK_LOW",
            Health::Error,
            format!("{} MiB are free on this node's disk.", disk.free_bytes >> 20),
            "Make room: mail is refused for now when the disk is full.",
        ));
    }
    for damage in parts.log.damages() {
        checks.push(check(
            "LOG_DAMAGED",
            Health::Error,
            format!("the log is damaged: {damage}."),
            "The groups concerned are repaired from the other nodes by themselves; look at this node's disk.",
        ));
    }
}

/// Below this much free space the status says so.
const DISK_LOW_BYTES: u64 = 512 * 1024 * 1024;
