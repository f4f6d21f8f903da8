//! Answers for which all nodes are asked: groups, nodes that leave, the proof that copies agree.

use std::collections::BTreeMap;
use std::time::Duration;

use admin::{AdminError, Kind, api};
use core_types::{Address, GroupId, NodeId};
use state::digest::MailboxDigest;
use state::directory::POSTMASTER_SETTING;
use tokio::time::Instant;

use crate::agreement::{self, Evidence};
use crate::departure::{self, leader_of};
use crate::placement::{Known, REPLACE_AFTER_MIN, REPLACE_AFTER_SETTING};
use crate::report;
use crate::start::Parts;

/// The newest that the directory's majority has; what this node has, where there is no majority: that is when people ask.
async fn known(parts: &Parts) -> Result<Known, AdminError> {
    let unreachable = |error: String| AdminError::new(Kind::Unreachable, error);
    let known = match Known::read_newest(parts).await {
        Ok(known) => known,
        Err(_) => Known::read(parts).await.map_err(unreachable)?,
    };
    if known.nodes.is_empty() {
        return Err(unreachable("this node does not have the directory yet".to_owned()));
    }
    Ok(known)
}

pub(super) async fn groups(parts: &Parts) -> Result<Vec<api::Group>, AdminError> {
    let known = known(parts).await?;
    let reports = report::of_all(parts, &departure::members(&known), false).await;
    let numbers = |nodes: &mut dyn Iterator<Item = &NodeId>| nodes.map(|node| node.0).collect::<Vec<_>>();
    let group = |row: &state::rows::GroupRow| {
        let leader = leader_of(&reports, row.group);
        let mut group = api::Group {
            group: row.group.0,
            incarnation: row.incarnation.0,
            wanted: numbers(&mut row.voters.iter()),
            digests: agreement::digests(&reports, row).to_owned(),
            accounts: row.account_count,
            pinned: known.pinned.contains(&row.group),
            ..api::Group::default()
        };
        if let Some(leader) = leader {
            group.leader = leader.leader.map(|node| node.0);
            group.term = leader.term;
            group.applied = leader.applied;
            group.voters = numbers(&mut leader.voters.iter());
            group.learners = numbers(&mut leader.learners.iter());
            group.lag = leader.lag.iter().map(|(node, lag)| (node.0, *lag)).collect();
            group.under_replicated = leader.blobs.map_or(0, |blobs| blobs.under_replicated);
            group.waits.clone_from(&leader.waits);
        }
        group
    };
    Ok(known.groups.iter().map(group).collect())
}

pub(super) async fn departure(parts: &Parts, node: u64) -> Result<api::Departure, AdminError> {
    let known = known(parts).await?;
    let row = known.nodes.iter().find(|row| row.node.0 == node);
    let Some(row) = row else {
        if known.removed.contains(&NodeId(node)) {
            return Ok(departure::removed(NodeId(node)));
        }
        return Err(AdminError::new(Kind::NoSuchObject, format!("there is no node {node}")));
    };
    let reports = report::of_all(parts, &departure::members(&known), false).await;
    Ok(departure::departure(&known, &reports, row))
}

/// Has every node look at its blobs, and asks until all is seen or the time is up.
pub(super) async fn agreement(parts: &Parts) -> Result<api::Agreement, AdminError> {
    let begun = Instant::now();
    let known = known(parts).await?;
    let members = departure::members(&known);
    let mut reports = report::of_all(parts, &members, true).await;
    let looks: BTreeMap<NodeId, u64> = reports
        .iter()
        .filter_map(|(node, report)| Some((*node, report.as_ref().ok()?.wanted_look)))
        .collect();
    loop {
        let evidence = Evidence {
            known: &known,
            reports: &reports,
            looks: &looks,
        };
        let mut agreement = agreement::judge(&evidence);
        let is_certain = agreement.groups.iter().any(|group| differs(group).is_some());
        let patience = if reports.values().all(Result::is_ok) {
            PATIENCE
        } else {
            PATIENCE_WITH_NODES_AWAY
        };
        if (agreement.agree && agreement.complete) || is_certain || begun.elapsed() >= patience {
            for group in &mut agreement.groups {
                if let Some((one, others)) = differs(group) {
                    group.mailboxes = different_mailboxes(parts, GroupId(group.group), one, &others).await;
                }
            }
            return Ok(agreement);
        }
        tokio::time::sleep(PAUSE).await;
        reports = report::of_all(parts, &members, false).await;
    }
}

/// A node whose copy is to be compared with those of others, mailbox by mailbox.
fn differs(group: &api::GroupAgreement) -> Option<(NodeId, Vec<NodeId>)> {
    let in_state = |state: &str| {
        let found = group.replicas.iter().filter(|replica| replica.state == state);
        found.map(|replica| NodeId(replica.node)).collect::<Vec<_>>()
    };
    let (right, wrong) = (in_state("agrees"), in_state("differs"));
    match right.first().or_else(|| wrong.first()) {
        Some(one) if !wrong.is_empty() => Some((*one, wrong.iter().copied().filter(|node| node != one).collect())),
        _ => None,
    }
}

async fn different_mailboxes(parts: &Parts, group: GroupId, one: NodeId, others: &[NodeId]) -> Vec<String> {
    let Ok((index, mine)) = report::mailboxes(parts, one, group).await else {
        return Vec::new();
    };
    let mut different: Vec<MailboxDigest> = Vec::new();
    for other in others {
        match report::mailboxes(parts, *other, group).await {
            // Otherwise they are of different times, and it says nothing that they differ.
            Ok((theirs_index, theirs)) if index.is_some() && theirs_index == index => {
                different.extend(mine.iter().filter(|mailbox| !theirs.contains(mailbox)).cloned());
                different.extend(theirs.into_iter().filter(|mailbox| !mine.contains(mailbox)));
            }
            _ => {}
        }
    }
    let mut names = Vec::new();
    for mailbox in different {
        let account = mailbox.account;
        let row = parts.store.directory().query(|reader| reader.account(account)).await;
        let address = row
            .ok()
            .flatten()
            .map_or_else(|| account.to_string(), |row| row.address.to_string());
        names.push(format!("{address}: {}", mailbox.name));
    }
    names.sort();
    names.dedup();
    names.truncate(MAILBOXES_NAMED_MAX);
    names
}

pub(super) fn check_setting(name: &str, value: Option<&str>) -> Result<(), AdminError> {
    let usage = |text: String| Err(AdminError::new(Kind::Usage, text));
    match (name, value) {
        (REPLACE_AFTER_SETTING | POSTMASTER_SETTING, None) | (REPLACE_AFTER_SETTING, Some("never")) => Ok(()),
        (REPLACE_AFTER_SETTING, Some(value)) => match value.parse::<u64>() {
            Ok(seconds) if seconds >= REPLACE_AFTER_MIN.as_secs() => Ok(()),
            _ => usage(format!(
                "{name} is a number of seconds, {} at least, or `never`",
                REPLACE_AFTER_MIN.as_secs()
            )),
        },
        (POSTMASTER_SETTING, Some(value)) => match Address::parse(value) {
            Ok(_) => Ok(()),
            Err(error) => usage(format!("{name}: {error}")),
        },
        _ => Err(AdminError::new(
            Kind::NoSuchObject,
            format!("there is no setting {name}: {REPLACE_AFTER_SETTING}, {POSTMASTER_SETTING}"),
        )),
    }
}

/// How long the copies are looked at: less than the command line waits.
const PATIENCE: Duration = Duration::from_secs(40);
/// The same while a node does not answer: the result will not be complete.
const PATIENCE_WITH_NODES_AWAY: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(400);
/// Mailboxes that are named for one group.
const MAILBOXES_NAMED_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_known_and_make_sense() {
        assert_eq!(check_setting("replace_after", Some("3600")), Ok(()));
        assert_eq!(check_setting("replace_after", Some("never")), Ok(()));
        assert_eq!(check_setting("replace_after", None), Ok(()));
        for wrong in ["9", "-1", "1h", ""] {
            assert_eq!(
                check_setting("replace_after", Some(wrong)).unwrap_err().kind,
                Kind::Usage
            );
        }
        assert_eq!(check_setting("postmaster", Some("a@b.example")), Ok(()));
        assert_eq!(check_setting("postmaster", Some("a")).unwrap_err().kind, Kind::Usage);
        assert_eq!(check_setting("other", None).unwrap_err().kind, Kind::NoSuchObject);
    }
}
