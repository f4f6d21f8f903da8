//! Where replicas are to be, and how groups get there.
//!
//! The leader of the directory group *plans* ([`plan`]): it writes for each group which nodes vote and which only follow. The
//! leader of each group *reconciles* ([`steps`]): it adds learners, waits until they have caught up and verified their blobs
//! (`CaughtUp` in the log), and exchanges voters one at a time. Who was removed from the cluster leaves its groups.
//!
//! Invariant: whoever acts has first made sure that it knows the newest plan.

pub(crate) mod plan;
pub(crate) mod reach;
pub(crate) mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use core_types::{GroupId, NodeId};
use mailstore::StoreError;
use raft::{Group, MembershipStatus};
use state::rows::{GroupRow, NodeDuty, NodeRow, ReplicaRow};
use state::{DirectoryOp, GroupOp, Outcome};
use transport::Rpc;

use self::plan::{Member, Picture, preferred_leader};
use self::steps::{Scene, Step};
use crate::start::{Parts, leads};

/// Entries that a learner may be behind and still be made a voter.
const LAG_MAX: u64 = 64;

/// The setting that says after how many seconds a voter that is not reached is replaced; `never` for not at all.
pub(crate) const REPLACE_AFTER_SETTING: &str = "replace_after";
/// Where nothing is set: a machine may be repaired over night.
pub(crate) const REPLACE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// The least that may be set: a restart is no death.
pub(crate) const REPLACE_AFTER_MIN: Duration = Duration::from_secs(10);

/// What the directory says of nodes and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) duties: BTreeMap<NodeId, NodeDuty>,
    pub(crate) groups: Vec<GroupRow>,
    pub(crate) pinned: BTreeSet<GroupId>,
    pub(crate) removed: BTreeSet<NodeId>,
    /// `None` for never.
    pub(crate) replace_after: Option<Duration>,
}

impl Known {
    /// As this node's replica of the directory has it.
    pub(crate) async fn read(parts: &Parts) -> Result<Self, String> {
        let read = parts.store.directory().query(|reader| {
            let nodes = reader.nodes()?;
            let mut duties = BTreeMap::new();
            for row in &nodes {
                duties.insert(row.node, reader.duty(row.node)?);
            }
            Ok(Self {
                nodes,
                duties,
                groups: reader.groups()?,
                pinned: reader.pinned_groups()?.into_iter().collect(),
                removed: reader.removed_nodes()?.into_iter().map(|row| row.node).collect(),
                replace_after: replace_after(reader.setting(REPLACE_AFTER_SETTING)?.as_deref()),
            })
        });
        read.await.map_err(|error| error.to_string())
    }

    /// The newest that the directory's majority has.
    pub(crate) async fn read_newest(parts: &Parts) -> Result<Self, String> {
        let confirmed = parts.store.directory().confirm().await;
        confirmed.map_err(|error| error.to_string())?;
        Self::read(parts).await
    }

    pub(crate) fn duty(&self, node: NodeId) -> NodeDuty {
        self.duties.get(&node).copied().unwrap_or_default()
    }

    pub(crate) fn leaving(&self) -> BTreeSet<NodeId> {
        let leaving = self.duties.iter().filter(|(_, duty)| **duty != NodeDuty::Active);
        leaving.map(|(node, _)| *node).collect()
    }

    fn forced(&self) -> BTreeSet<NodeId> {
        let is_forced = |duty: &NodeDuty| matches!(duty, NodeDuty::Leaving { forced: true, .. });
        let forced = self.duties.iter().filter(|(_, duty)| is_forced(duty));
        // Nothing is to be had from those that were removed.
        forced
            .map(|(node, _)| *node)
            .chain(self.removed.iter().copied())
            .collect()
    }

    fn group(&self, group: GroupId) -> Option<&GroupRow> {
        self.groups.iter().find(|row| row.group == group)
    }
}

/// `None` for never.
fn replace_after(setting: Option<&str>) -> Option<Duration> {
    match setting {
        None => Some(REPLACE_AFTER),
        Some("never") => None,
        Some(text) => Some(
            text.parse()
                .map_or(REPLACE_AFTER, Duration::from_secs)
                .max(REPLACE_AFTER_MIN),
        ),
    }
}

/// Up to where in the log of a group a node that is to vote has to have everything, as its leader has asked for it.
#[derive(Debug, Default)]
struct Asked(BTreeMap<(GroupId, NodeId), u64>);

impl Asked {
    /// The index that was asked for first; `now` when nothing was.
    fn index(&mut self, group: GroupId, node: NodeId, now: u64) -> u64 {
        *self.0.entry((group, node)).or_insert(now)
    }

    /// Forgets what is not asked any more.
    fn keep(&mut self, group: GroupId, coming: &BTreeSet<NodeId>) {
        self.0.retain(|(of, node), _| *of != group || coming.contains(node));
    }
}

/// Plans and reconciles for ever.
pub(crate) async fn run(parts: Arc<Parts>) {
    let mut rounds: u32 = 0;
    let asked = tokio::sync::Mutex::new(Asked::default());
    loop {
        rounds = rounds.wrapping_add(1);
        if let Err(error) = round(&parts, &asked, rounds).await {
            tracing::debug!(error, "the directory could not be read now");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn round(parts: &Parts, asked: &tokio::sync::Mutex<Asked>, rounds: u32) -> Result<(), String> {
    let known = Known::read(parts).await?;
    for row in &known.nodes {
        parts
            .health
            .reach
            .note(row.node, parts.transport.is_reachable(row.node));
    }
    if leads(&parts.groups, GroupId::DIRECTORY)
        && let Err(error) = write_plan(parts, &known).await
    {
        tracing::debug!(error, "the placement could not be planned now");
    }
    let led: Vec<Group> = parts.groups.list().into_iter().filter(Group::is_leader).collect();
    let steps = led.iter().map(|group| {
        let known = &known;
        async move {
            if let Err(error) = reconcile(parts, group, known, asked).await {
                tracing::debug!(group = %group.group(), error, "the membership could not be changed now");
            }
        }
    });
    futures_util::future::join_all(steps).await;
    // Seldom: a node that has just come back first gets its log. A node that leaves goes sooner.
    let leaving = known.leaving();
    let is_leaving = leaving.contains(&parts.identity.node());
    if rounds.is_multiple_of(if is_leaving { LEAVE_ROUNDS } else { SPREAD_ROUNDS }) {
        for group in parts.groups.list().iter().filter(|group| group.is_leader()) {
            spread(parts, group, &leaving).await;
        }
    }
    Ok(())
}

/// Hands a group over to the voter that should lead it, when that one is up and has everything.
async fn spread(parts: &Parts, group: &Group, leaving: &BTreeSet<NodeId>) {
    let status = group.status();
    let Some(preferred) = preferred_leader(group.group(), &status.membership.voters, leaving) else {
        return;
    };
    // An idle group's dead voter has no lag either.
    let is_reached = parts
        .transport
        .peers_status()
        .iter()
        .any(|peer| peer.node == preferred && peer.connected);
    if preferred == parts.identity.node() || status.lag.get(&preferred) != Some(&0) || !is_reached {
        return;
    }
    if let Err(error) = group.transfer_leader(preferred).await {
        tracing::debug!(group = %group.group(), %preferred, %error, "the group was not handed over");
    }
}

fn picture(parts: &Parts, known: &Known) -> Picture {
    let voting = known.groups.iter().filter_map(|row| {
        let group = parts.groups.group(row.group)?;
        Some((row.group, group.membership().voters))
    });
    let member = |row: &NodeRow| {
        let reach = &parts.health.reach;
        let missed = reach.missed(row.node);
        Member {
            node: row.node,
            site: row.site,
            duty: known.duty(row.node),
            reachable: missed.is_none() && reach.away(row.node).is_none_or(|away| away < LOST_AFTER),
            lost: missed.is_some_and(|missed| missed >= LOST_AFTER),
            dead: missed.is_some_and(|missed| known.replace_after.is_some_and(|limit| missed >= limit)),
        }
    };
    Picture {
        groups: known.groups.clone(),
        voting: voting.collect(),
        pinned: known.pinned.clone(),
        members: known.nodes.iter().map(member).collect(),
    }
}

async fn write_plan(parts: &Parts, known: &Known) -> Result<(), String> {
    if plan::plan(&picture(parts, known)).is_empty() {
        return Ok(());
    }
    let known = Known::read_newest(parts).await?;
    for placement in plan::plan(&picture(parts, &known)) {
        let Some(row) = known.group(placement.group) else {
            continue;
        };
        let (voters, learners) = (placement.voters, placement.learners);
        tracing::info!(group = %row.group, ?voters, ?learners, "placement planned");
        let op = DirectoryOp::ChangePlacement {
            group: row.group,
            expected: row.voters.clone(),
            voters,
            learners,
        };
        let outcome = parts.store.directory().propose(op).await;
        if let Outcome::Refused(refusal) = outcome.map_err(|error| error.to_string())? {
            tracing::info!(group = %row.group, %refusal, "the plan was not taken");
        }
    }
    Ok(())
}

/// One step of a group towards its placement.
async fn reconcile(
    parts: &Parts,
    group: &Group,
    known: &Known,
    asked: &tokio::sync::Mutex<Asked>,
) -> Result<(), String> {
    let id = group.group();
    let Some(row) = known.group(id) else { return Ok(()) };
    let membership = group.membership();
    let members: BTreeSet<NodeId> = membership.voters.union(&membership.learners).copied().collect();
    let wanted: BTreeSet<NodeId> = row.voters.iter().chain(&row.learners).copied().collect();
    let new: Vec<NodeId> = wanted.difference(&members).copied().collect();
    let replicas = Replicas::read(parts, id, &wanted.union(&members).copied().collect()).await?;
    let step = next_step(parts, group, known, row, &membership, &replicas, asked).await;
    if let Step::Wait(why) = &step {
        parts.health.waits(id, Some(why.clone()));
    } else {
        parts.health.waits(id, None);
    }
    let gone: BTreeSet<NodeId> = membership.learners.intersection(&known.removed).copied().collect();
    let is_quiet = matches!(step, Step::Rest | Step::Wait(_)) && new.is_empty() && gone.is_empty();
    if !is_quiet && Known::read_newest(parts).await?.group(id) != Some(row) {
        // The plan is another one by now.
        return Ok(());
    }
    let text = |error: raft::GroupError| error.to_string();
    for node in new {
        tracing::info!(group = %id, %node, "replica added");
        group.add_learner(node).await.map_err(text)?;
    }
    if !gone.is_empty() {
        tracing::info!(group = %id, nodes = ?gone, "replicas of removed nodes leave");
        group.remove_learners(&gone).await.map_err(text)?;
    }
    // Survivors do not accept mail yet: no island can be under way that would need the slot.
    for node in replicas.slots.intersection(&known.removed) {
        if !members.contains(node) {
            propose(parts, id, GroupOp::FreeSlot { replica: *node }).await?;
        }
    }
    for node in wanted.iter().filter(|node| !replicas.slots.contains(node)) {
        let assigned = parts
            .store
            .propose_group_op(id, GroupOp::AssignSlot { replica: *node })
            .await;
        match assigned {
            Ok(_) => {}
            // Without a slot, a replica does all but accept mail on its own: nothing waits for it.
            Err(StoreError::Refused(refusal)) => tracing::debug!(group = %id, %node, %refusal, "no slot is free"),
            Err(error) => return Err(error.to_string()),
        }
    }
    match step {
        Step::Rest if group.is_in_joint_change() => group
            .change_voters_keeping(&membership.voters, membership.index)
            .await
            .map_err(text),
        Step::Rest | Step::Wait(_) => Ok(()),
        Step::HandOver(to) => group.transfer_leader(to).await.map_err(text),
        Step::Voters(voters) => {
            tracing::info!(group = %id, ?voters, "voters changed");
            group
                .change_voters_keeping(&voters, membership.index)
                .await
                .map_err(text)
        }
    }
}

/// What the log of a group says of its replicas.
#[derive(Debug, Default)]
pub(crate) struct Replicas {
    pub(crate) slots: BTreeSet<NodeId>,
    rows: BTreeMap<NodeId, ReplicaRow>,
}

impl Replicas {
    pub(crate) async fn read(parts: &Parts, group: GroupId, nodes: &BTreeSet<NodeId>) -> Result<Self, String> {
        let read = parts.store.groups().query(group, |view| {
            let reader = state::group::Reader::new(view);
            let mut rows = BTreeMap::new();
            for node in nodes {
                rows.insert(*node, reader.replica(*node)?);
            }
            let slots = reader.slots()?.into_iter().map(|(_, node)| node).collect();
            Ok(Self { slots, rows })
        });
        read.await.map_err(|error| error.to_string())
    }

    /// Up to which entry a replica has everything and has verified every blob; 0 for never.
    pub(crate) fn caught_up(&self, node: NodeId) -> u64 {
        self.rows.get(&node).map_or(0, |row| row.caught_up)
    }
}

async fn next_step(
    parts: &Parts,
    group: &Group,
    known: &Known,
    row: &GroupRow,
    membership: &MembershipStatus,
    replicas: &Replicas,
    asked: &tokio::sync::Mutex<Asked>,
) -> Step {
    let status = group.status();
    let wanted: BTreeSet<NodeId> = row.voters.iter().copied().collect();
    let coming: BTreeSet<NodeId> = wanted.difference(&membership.voters).copied().collect();
    let mut asked = asked.lock().await;
    asked.keep(row.group, &coming);
    let now = status.applied.unwrap_or(0);
    let mut is_ready = |node: &NodeId| {
        let caught_up = replicas.caught_up(*node);
        let enough = asked.index(row.group, *node, now);
        may_vote(caught_up, enough.max(membership.index), status.lag.get(node).copied())
    };
    let ready = coming.iter().copied().filter(|node| is_ready(node)).collect();
    let verified = membership
        .voters
        .iter()
        .copied()
        .filter(|node| replicas.caught_up(*node) >= membership.index)
        .collect();
    let everybody = wanted.union(&membership.voters).copied();
    steps::next(&Scene {
        me: parts.identity.node(),
        voting: membership.voters.clone(),
        ready,
        verified,
        reachable: everybody.filter(|node| parts.transport.is_reachable(*node)).collect(),
        forced: known.forced(),
        wanted,
    })
}

async fn propose(parts: &Parts, group: GroupId, op: GroupOp) -> Result<(), String> {
    let proposed = parts.store.propose_group_op(group, op).await;
    proposed.map(|_| ()).map_err(|error| error.to_string())
}

/// Whether a learner may vote: it has caught up since it became a member and was asked to, and still has. What it had when it
/// was a member the last time says nothing, since it may have begun anew.
fn may_vote(caught_up: u64, needed: u64, lag: Option<u64>) -> bool {
    caught_up > 0 && caught_up >= needed && lag.is_some_and(|lag| lag <= LAG_MAX)
}

/// A node that is to vote and restarts meanwhile is waited for this long.
const LOST_AFTER: Duration = Duration::from_secs(10);
/// Looks between two attempts to spread the leaders: some ten seconds.
const SPREAD_ROUNDS: u32 = 33;
/// The same of a node that is to leave.
const LEAVE_ROUNDS: u32 = 4;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_a_voter_is_replaced_is_a_day_unless_it_is_set() {
        assert_eq!(replace_after(None), Some(Duration::from_secs(86_400)));
        assert_eq!(replace_after(Some("never")), None);
        assert_eq!(replace_after(Some("60")), Some(Duration::from_secs(60)));
        assert_eq!(replace_after(Some("1")), Some(REPLACE_AFTER_MIN));
        assert_eq!(replace_after(Some("what")), Some(REPLACE_AFTER));
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
    fn what_was_asked_for_first_counts_until_it_is_not_asked_any_more() {
        let mut asked = Asked::default();
        assert_eq!(asked.index(GroupId(1), NodeId(4), 10), 10);
        assert_eq!(asked.index(GroupId(1), NodeId(4), 20), 10);
        assert_eq!(asked.index(GroupId(2), NodeId(4), 30), 30);
        asked.keep(GroupId(1), &BTreeSet::new());
        assert_eq!(asked.index(GroupId(1), NodeId(4), 20), 20);
        assert_eq!(asked.index(GroupId(2), NodeId(4), 40), 30);
    }
}
