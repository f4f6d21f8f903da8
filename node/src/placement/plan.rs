//! Where replicas are to be: a pure function of what is known.
//!
//! Invariants: a group gets another plan only when it has come to the last one, unless what the last one wants cannot be had
//! or a voter that was to stay has died; one voter is exchanged at a time; the number of voters falls only where an
//! administrator has forced it; nothing moves without need: to take the place of a node that is dead or leaves, or, one group
//! at a time, to spread the voters evenly.
//!
//! Not here: how a group gets there (`steps`); who is reached, and for how long not (`reach`).

use std::collections::{BTreeMap, BTreeSet};

use core_types::limits::SLOTS_MAX;
use core_types::{GroupId, NodeId, SiteId};
use state::rows::{GroupRow, NodeDuty};

/// Voters of one group. Five are for sites that ask for them.
pub(crate) const VOTERS: usize = 3;

/// A node, as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) site: SiteId,
    pub(crate) duty: NodeDuty,
    /// It is reached, directly or through another node, and has been for some time if it was away for long.
    pub(crate) reachable: bool,
    /// It has not been reached for so long that no group waits for it to vote.
    pub(crate) lost: bool,
    /// It has not been reached for so long that it is to be replaced.
    pub(crate) dead: bool,
}

impl Member {
    fn is_fit(&self) -> bool {
        self.duty == NodeDuty::Active && !self.dead
    }

    /// Whether nothing more is to be waited for from it: it is dead, or away and to leave.
    fn is_given_up(&self) -> bool {
        self.dead || (self.lost && !self.is_fit())
    }
}

/// What the planner knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    /// All groups, as they are to be.
    pub(crate) groups: Vec<GroupRow>,
    /// Who votes in them now.
    pub(crate) voting: BTreeMap<GroupId, BTreeSet<NodeId>>,
    /// Those that stay where an administrator has put them.
    pub(crate) pinned: BTreeSet<GroupId>,
    pub(crate) members: Vec<Member>,
}

/// Where one group is to be from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) group: GroupId,
    pub(crate) voters: Vec<NodeId>,
    pub(crate) learners: Vec<NodeId>,
}

/// The groups that are to be placed otherwise than they are.
pub(crate) fn plan(picture: &Picture) -> Vec<Placement> {
    let mut load = picture.load();
    let mut placements = Vec::new();
    for group in picture.groups.iter().filter(|group| picture.is_known(group)) {
        let wanted = picture.voters_of(group, &load);
        count(&mut load, &group.voters, &wanted);
        placements.extend(picture.placement(group, &wanted));
    }
    let at_rest = placements.is_empty() && picture.groups.iter().all(|group| picture.is_settled(group));
    if at_rest && let Some((group, wanted)) = picture.evened(&load) {
        placements.extend(picture.placement(group, &wanted));
    }
    placements
}

/// Places of voters that each node has.
type Load = BTreeMap<NodeId, usize>;

fn count(load: &mut Load, before: &[NodeId], after: &BTreeSet<NodeId>) {
    for node in before {
        if let Some(places) = load.get_mut(node) {
            *places = places.saturating_sub(1);
        }
    }
    for node in after {
        *load.entry(*node).or_default() += 1;
    }
}

impl Picture {
    fn load(&self) -> Load {
        let mut load: Load = self.members.iter().map(|member| (member.node, 0)).collect();
        for group in &self.groups {
            count(&mut load, &[], &group.voters.iter().copied().collect());
        }
        load
    }

    fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// The nodes that may hold a replica of a group.
    fn scope(&self, group: &GroupRow) -> impl Iterator<Item = &Member> {
        let site = group.site;
        self.members
            .iter()
            .filter(move |member| site.is_none_or(|site| member.site == site))
    }

    fn voting(&self, group: &GroupRow) -> BTreeSet<NodeId> {
        self.voting.get(&group.group).cloned().unwrap_or_default()
    }

    /// Whether enough is known of a group to plan for it. One without any placement is still being founded.
    fn is_known(&self, group: &GroupRow) -> bool {
        !group.voters.is_empty() && !self.voting(group).is_empty()
    }

    /// Whether those vote that are to.
    fn is_settled(&self, group: &GroupRow) -> bool {
        self.voting(group) == group.voters.iter().copied().collect()
    }

    /// Those that are to vote. The same as now, one exchanged, or more where there are too few.
    fn voters_of(&self, group: &GroupRow, load: &Load) -> BTreeSet<NodeId> {
        let voting = self.voting(group);
        // Whoever does not vote yet and is lost or to leave is not waited for: another one is taken.
        let may_be_had = |member: &Member| voting.contains(&member.node) || (!member.lost && member.is_fit());
        let known = |node: &NodeId| self.member(*node).is_some_and(may_be_had);
        let mut voters: BTreeSet<NodeId> = group.voters.iter().copied().filter(known).collect();
        // Who votes now goes on where what should have come instead does not come.
        let returning = voting
            .iter()
            .filter(|node| self.member(**node).is_some())
            .filter(|node| !group.voters.contains(node));
        for node in returning {
            if voters.len() < group.voters.len().max(1) {
                voters.insert(*node);
            }
        }
        while voters.len() < VOTERS {
            let Some(node) = self.candidate(group, &voters, load, None) else {
                break;
            };
            voters.insert(node);
        }
        let is_as_planned = voters == group.voters.iter().copied().collect();
        if is_as_planned && self.is_settled(group) {
            self.exchange_one(group, &mut voters, load);
        } else if is_as_planned {
            self.put_back_one(&voting, &mut voters);
        }
        voters
    }

    /// While a group is under way, a voter that stays and died holds up everything: nobody leaves before it has verified its
    /// blobs. One that was to leave stays in its place, and the dead one is what is exchanged.
    fn put_back_one(&self, voting: &BTreeSet<NodeId>, voters: &mut BTreeSet<NodeId>) {
        if !self.is_majority_reached(voting) {
            return;
        }
        let is_given_up = |node: &&NodeId| self.member(**node).is_none_or(Member::is_given_up);
        let dead = voting.intersection(voters).find(is_given_up).copied();
        // Whoever is forced out waits for nobody.
        let may_stay =
            |member: &Member| !member.is_given_up() && !matches!(member.duty, NodeDuty::Leaving { forced: true, .. });
        let back = voting
            .difference(voters)
            .find(|node| self.member(**node).is_some_and(may_stay))
            .copied();
        if let (Some(dead), Some(back)) = (dead, back) {
            voters.remove(&dead);
            voters.insert(back);
        }
    }

    /// Without a majority nothing can be changed, and what was acknowledged may be with those that are away.
    fn is_majority_reached(&self, voters: &BTreeSet<NodeId>) -> bool {
        let is_reached = |node: &&NodeId| self.member(**node).is_some_and(|member| member.reachable);
        voters.iter().filter(is_reached).count() * 2 > voters.len()
    }

    /// Takes one unfit voter out: the dead ones first, then those that are away.
    fn exchange_one(&self, group: &GroupRow, voters: &mut BTreeSet<NodeId>, load: &Load) {
        if !self.is_majority_reached(voters) {
            return;
        }
        let unfit = voters.iter().filter_map(|node| self.member(*node));
        let mut unfit: Vec<Member> = unfit.filter(|member| !member.is_fit()).copied().collect();
        unfit.sort_by_key(|member| (!member.dead, !member.lost, member.node));
        for member in unfit {
            let (heir, forced) = match member.duty {
                NodeDuty::Active => (None, false),
                NodeDuty::Leaving { heir, forced } => (heir, forced),
            };
            if let Some(node) = self.candidate(group, voters, load, heir) {
                voters.remove(&member.node);
                voters.insert(node);
                return;
            }
            let others_stay = voters
                .iter()
                .any(|node| self.member(*node).is_some_and(|other| other.is_fit()));
            if forced && others_stay {
                voters.remove(&member.node);
                return;
            }
        }
    }

    /// The node that is to vote next: the heir where it can, otherwise the one with the fewest places; of several, the next
    /// one from the group's own place on.
    fn candidate(
        &self,
        group: &GroupRow,
        voters: &BTreeSet<NodeId>,
        load: &Load,
        heir: Option<NodeId>,
    ) -> Option<NodeId> {
        let scope: Vec<&Member> = self.scope(group).collect();
        let start = usize::try_from(group.group.0).unwrap_or(0) % scope.len().max(1);
        let may = |member: &Member| member.is_fit() && member.reachable && !voters.contains(&member.node);
        let in_turn = scope.iter().cycle().skip(start).take(scope.len());
        let places = |node: NodeId| load.get(&node).copied().unwrap_or(0);
        in_turn
            .filter(|member| may(member))
            .map(|member| member.node)
            .min_by_key(|node| (Some(*node) != heir, places(*node)))
    }

    /// One group with one voter exchanged so that the places are spread more evenly, if they are not even.
    fn evened(&self, load: &Load) -> Option<(&GroupRow, BTreeSet<NodeId>)> {
        let places = |member: &Member| load.get(&member.node).copied().unwrap_or(0);
        let usable: Vec<&Member> = self
            .members
            .iter()
            .filter(|member| member.is_fit() && member.reachable)
            .collect();
        let mut pairs: Vec<(usize, NodeId, NodeId)> = Vec::new();
        for full in &usable {
            for empty in &usable {
                let difference = places(full).saturating_sub(places(empty));
                if difference >= 2 {
                    pairs.push((difference, full.node, empty.node));
                }
            }
        }
        pairs.sort_by_key(|(difference, full, empty)| (std::cmp::Reverse(*difference), *full, *empty));
        for (_, full, empty) in pairs {
            // The directory last: all others depend on it.
            for group in self.groups.iter().rev() {
                let voters: BTreeSet<NodeId> = group.voters.iter().copied().collect();
                let all_well = voters
                    .iter()
                    .all(|node| usable.iter().any(|member| member.node == *node));
                let in_scope = self.scope(group).any(|member| member.node == empty);
                let fits = voters.contains(&full) && !voters.contains(&empty) && in_scope;
                if fits && all_well && voters.len() >= VOTERS && !self.pinned.contains(&group.group) {
                    let mut wanted = voters;
                    wanted.remove(&full);
                    wanted.insert(empty);
                    return Some((group, wanted));
                }
            }
        }
        None
    }

    /// The group with these voters; everybody else follows. `None` when that is how it is to be already.
    fn placement(&self, group: &GroupRow, voters: &BTreeSet<NodeId>) -> Option<Placement> {
        let old: BTreeSet<NodeId> = group.learners.iter().copied().collect();
        let mut others: Vec<NodeId> = self
            .scope(group)
            .map(|member| member.node)
            .filter(|node| !voters.contains(node))
            .collect();
        // Where there are more nodes than slots, those that follow go on doing so; those that vote now need theirs, too.
        let voting = self.voting(group);
        others.sort_by_key(|node| (!voting.contains(node), !old.contains(node), *node));
        others.truncate(usize::from(SLOTS_MAX).saturating_sub(voters.len()));
        others.sort();
        let same = old == others.iter().copied().collect() && *voters == group.voters.iter().copied().collect();
        (!same).then(|| Placement {
            group: group.group,
            voters: voters.iter().copied().collect(),
            learners: others,
        })
    }
}

/// The voter that should lead a group, so that leaders are spread: the one at the group's place among its voters that stay.
pub(crate) fn preferred_leader(
    group: GroupId,
    voters: &BTreeSet<NodeId>,
    leaving: &BTreeSet<NodeId>,
) -> Option<NodeId> {
    let staying: Vec<NodeId> = voters.difference(leaving).copied().collect();
    let place = usize::try_from(group.0).unwrap_or(0) % staying.len().max(1);
    staying.get(place).copied()
}

#[cfg(test)]
mod tests;
