//! Where replicas are to be, and how groups get there.
//!
//! The leader of the directory group *plans*: it writes for each group which nodes vote and which only follow. The leader of
//! each group *reconciles*: it adds learners, waits until they have caught up and verified their blobs (`CaughtUp` in the
//! log), and then makes them voters. A replica that leaves lets go only afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use core_types::{GroupId, NodeId};
use raft::{Group, Groups};
use state::rows::{GroupRow, NodeRow};
use state::{DirectoryOp, GroupOp};

use mailstore::MailStore;

/// Votes of one group. Five are for sites that ask for them.
const VOTERS: usize = 3;
/// Entries that a learner may be behind and still be made a voter.
const LAG_MAX: u64 = 64;

/// The placement that a group should have, or `None` when it has it. Nodes that vote already go on voting.
pub(crate) fn plan(group: &GroupRow, nodes: &[NodeRow]) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
    let present: BTreeSet<NodeId> = nodes.iter().map(|row| row.node).collect();
    let mut voters: BTreeSet<NodeId> = group
        .voters
        .iter()
        .copied()
        .filter(|node| present.contains(node))
        .collect();
    // Spread: group g begins its search at node g.
    let order: Vec<NodeId> = present.iter().copied().collect();
    let start = usize::try_from(group.group.0).unwrap_or(0) % order.len().max(1);
    for node in order.iter().cycle().skip(start).take(order.len()) {
        if voters.len() >= VOTERS {
            break;
        }
        voters.insert(*node);
    }
    let learners: Vec<NodeId> = present.difference(&voters).copied().collect();
    let voters: Vec<NodeId> = voters.into_iter().collect();
    let same =
        |one: &[NodeId], other: &[NodeId]| one.iter().collect::<BTreeSet<_>>() == other.iter().collect::<BTreeSet<_>>();
    (!same(&voters, &group.voters) || !same(&learners, &group.learners)).then_some((voters, learners))
}

/// The voter that should lead a group, so that leaders are spread: the one at the group's place among its voters.
pub(crate) fn preferred_leader(group: GroupId, voters: &BTreeSet<NodeId>) -> Option<NodeId> {
    let place = usize::try_from(group.0).unwrap_or(0) % voters.len().max(1);
    voters.iter().nth(place).copied()
}

/// Hands a group over to the voter that should lead it, when that one is up and has everything.
async fn spread(group: &Group, node: NodeId, reaches: &(dyn Fn(NodeId) -> bool + Send + Sync)) {
    let status = group.status();
    let Some(preferred) = preferred_leader(group.group(), &status.membership.voters) else {
        return;
    };
    // An idle group's dead voter has no lag either.
    if preferred == node || status.lag.get(&preferred) != Some(&0) || !reaches(preferred) {
        return;
    }
    if let Err(error) = group.transfer_leader(preferred).await {
        tracing::debug!(group = %group.group(), %preferred, %error, "the group was not handed over");
    }
}

/// Whether a node is reached directly just now.
pub(crate) type Reaches = Arc<dyn Fn(NodeId) -> bool + Send + Sync>;

/// Plans and reconciles for ever.
pub(crate) async fn run(store: MailStore, groups: Groups, node: NodeId, reaches: Reaches) {
    let mut rounds: u32 = 0;
    loop {
        rounds = rounds.wrapping_add(1);
        if groups.group(GroupId::DIRECTORY).is_some_and(|group| group.is_leader())
            && let Err(error) = write_plan(&store).await
        {
            tracing::debug!(%error, "the placement could not be planned now");
        }
        let rows = store
            .directory()
            .query(|reader| reader.groups())
            .await
            .unwrap_or_default();
        let led: Vec<_> = groups.list().into_iter().filter(Group::is_leader).collect();
        let steps = led.iter().map(|group| {
            let row = rows.iter().find(|row| row.group == group.group());
            let store = &store;
            async move {
                let Some(row) = row else { return };
                if let Err(error) = reconcile(store, group, row).await {
                    tracing::debug!(group = %group.group(), error, "the membership could not be changed now");
                }
            }
        });
        futures_util::future::join_all(steps).await;
        // Seldom: a node that has just come back first gets its log.
        if rounds.is_multiple_of(SPREAD_ROUNDS) {
            for group in groups.list().iter().filter(|group| group.is_leader()) {
                spread(group, node, reaches.as_ref()).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn write_plan(store: &MailStore) -> Result<(), String> {
    let directory = store.directory();
    let text = |error: directory::LookupError| error.to_string();
    let nodes = directory.query(|reader| reader.nodes()).await.map_err(text)?;
    let rows = directory.query(|reader| reader.groups()).await.map_err(text)?;
    // A group without any placement is still being founded.
    for row in rows.iter().filter(|row| !row.voters.is_empty()) {
        if let Some((voters, learners)) = plan(row, &nodes) {
            tracing::info!(group = %row.group, ?voters, ?learners, "placement planned");
            let op = DirectoryOp::SetPlacement {
                group: row.group,
                voters,
                learners,
            };
            directory.propose(op).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// One step of a group towards its placement.
async fn reconcile(store: &MailStore, group: &Group, row: &GroupRow) -> Result<(), String> {
    let membership = group.membership();
    let wanted: BTreeSet<NodeId> = row.voters.iter().chain(&row.learners).copied().collect();
    for node in &wanted {
        if !membership.voters.contains(node) && !membership.learners.contains(node) {
            tracing::info!(group = %group.group(), %node, "replica added");
            group.add_learner(*node).await.map_err(|error| error.to_string())?;
        }
    }
    let reading = |node: NodeId| {
        move |view: &dyn core_types::KvRead| {
            let reader = state::group::Reader::new(view);
            Ok((reader.slot_of(node)?, reader.replica(node)?.caught_up))
        }
    };
    let voters: BTreeSet<NodeId> = row.voters.iter().copied().collect();
    let lag = group.status().lag;
    let mut ready = true;
    for node in wanted {
        let (slot, caught_up) = store
            .groups()
            .query(group.group(), reading(node))
            .await
            .map_err(|error| error.to_string())?;
        if slot.is_none() {
            let op = GroupOp::AssignSlot { replica: node };
            store
                .propose_group_op(group.group(), op)
                .await
                .map_err(|error| error.to_string())?;
        }
        if voters.contains(&node) && !membership.voters.contains(&node) {
            ready &= may_vote(caught_up, membership.index, lag.get(&node).copied());
        }
    }
    if ready && !voters.is_empty() && membership.voters != voters {
        tracing::info!(group = %group.group(), ?voters, "voters changed");
        group.change_voters(&voters).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Whether a learner may vote: it has caught up since it became a member, and still has. What it had when it was a member
/// the last time says nothing, since it may have begun anew.
fn may_vote(caught_up: u64, membership_index: u64, lag: Option<u64>) -> bool {
    caught_up > 0 && caught_up >= membership_index && lag.is_some_and(|lag| lag <= LAG_MAX)
}

/// Looks between two attempts to spread the leaders: some ten seconds.
const SPREAD_ROUNDS: u32 = 33;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::{Incarnation, SiteId};

    fn group(id: u32, voters: &[u64], learners: &[u64]) -> GroupRow {
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        GroupRow {
            group: GroupId(id),
            incarnation: Incarnation(1),
            site: Some(SiteId(1)),
            voters: nodes(voters),
            learners: nodes(learners),
            account_count: 0,
        }
    }

    fn nodes(count: u64) -> Vec<NodeRow> {
        let row = |node| NodeRow {
            node: NodeId(node),
            site: SiteId(1),
            name: String::new(),
            key: [0; 32],
            address: String::new(),
        };
        (1..=count).map(row).collect()
    }

    #[test]
    fn a_learner_votes_once_it_has_caught_up_since_it_was_added() {
        assert!(may_vote(20, 15, Some(3)));
        assert!(!may_vote(14, 15, Some(0)), "what it had before it was taken out");
        assert!(!may_vote(0, 0, Some(0)));
        assert!(!may_vote(20, 15, Some(LAG_MAX + 1)));
        assert!(!may_vote(20, 15, None));
    }

    #[test]
    fn a_small_site_holds_everything_everywhere() {
        assert_eq!(plan(&group(1, &[1], &[]), &nodes(1)), None);
        let all = (vec![NodeId(1), NodeId(2), NodeId(3)], vec![]);
        assert_eq!(plan(&group(1, &[1], &[]), &nodes(3)), Some(all));
        assert_eq!(plan(&group(1, &[1, 2, 3], &[]), &nodes(3)), None);
    }

    #[test]
    fn a_larger_site_spreads_its_voters_and_moves_none_without_need() {
        assert_eq!(
            plan(&group(1, &[1, 2, 3], &[]), &nodes(5)),
            Some((vec![NodeId(1), NodeId(2), NodeId(3)], vec![NodeId(4), NodeId(5)]))
        );
        let (voters, _) = plan(&group(4, &[], &[]), &nodes(6)).unwrap();
        assert_eq!(voters, [NodeId(1), NodeId(5), NodeId(6)]);
        assert_eq!(plan(&group(1, &[1, 2, 3], &[4, 5]), &nodes(5)), None);
    }
}
