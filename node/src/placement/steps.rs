//! One step of a group from where it is to where it is to be: a pure function of what its leader knows.
//!
//! Invariants: one voter leaves at a time, and none while there are fewer than three (or than are wanted) and another one
//! could come; nobody votes before it has every entry and every blob; no voter leaves while another one has not verified,
//! under the present membership, that it has all blobs: what the one that left before it held is then on those that stay.
//! Who leaves the voters goes on following.
//!
//! Not here: where groups are to be (`plan`).

use std::collections::BTreeSet;

use core_types::NodeId;

use super::plan::VOTERS;

/// What the group's leader knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    /// The leader.
    pub(crate) me: NodeId,
    /// Those that vote.
    pub(crate) voting: BTreeSet<NodeId>,
    /// Those that are to vote.
    pub(crate) wanted: BTreeSet<NodeId>,
    /// Those that have every entry and every blob, or nearly.
    pub(crate) ready: BTreeSet<NodeId>,
    /// Voters that have verified all blobs since the present membership began.
    pub(crate) verified: BTreeSet<NodeId>,
    pub(crate) reachable: BTreeSet<NodeId>,
    /// Those that leave although not everybody has verified.
    pub(crate) forced: BTreeSet<NodeId>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The group is where it is to be.
    Rest,
    /// Not yet; why, for people.
    Wait(String),
    /// The leader is the last to leave: another one leads first.
    HandOver(NodeId),
    /// These vote from now on.
    Voters(BTreeSet<NodeId>),
}

/// The next step. Voters of whom no majority can be reached are never asked for: the change would not come to its end, and
/// the group could do nothing else, not even take it back.
pub(crate) fn next(scene: &Scene) -> Step {
    match wished(scene) {
        Step::Voters(voters) if !has_majority(scene, &voters) => {
            Step::Wait("a majority of those that would vote cannot be reached".to_owned())
        }
        step => step,
    }
}

fn has_majority(scene: &Scene, voters: &BTreeSet<NodeId>) -> bool {
    let there = voters
        .iter()
        .filter(|node| **node == scene.me || scene.reachable.contains(node));
    there.count() * 2 > voters.len()
}

fn wished(scene: &Scene) -> Step {
    let coming: BTreeSet<NodeId> = scene.wanted.difference(&scene.voting).copied().collect();
    let leaving: BTreeSet<NodeId> = scene.voting.difference(&scene.wanted).copied().collect();
    if scene.wanted.is_empty() || (coming.is_empty() && leaving.is_empty()) {
        return Step::Rest;
    }
    // An idle group's dead learner has everything, too.
    let ready: BTreeSet<NodeId> = coming
        .intersection(&scene.ready)
        .copied()
        .filter(|node| scene.reachable.contains(node))
        .collect();
    let Some(out) = next_to_leave(scene, &leaving) else {
        return grow(scene, &coming, &ready);
    };
    let few = scene.wanted.len().min(VOTERS);
    if scene.voting.len() < few && !ready.is_empty() {
        // A voter was taken out to be repaired: nobody leaves until there are enough again.
        let new = ready.iter().copied().take(few - scene.voting.len());
        return Step::Voters(scene.voting.iter().copied().chain(new).collect());
    }
    let new = ready.first().copied();
    if new.is_none() && !coming.is_empty() {
        return wait_for(&coming, "caught up with all entries and blobs");
    }
    let unverified: BTreeSet<NodeId> = scene
        .voting
        .difference(&scene.verified)
        .copied()
        .filter(|node| *node != out)
        .collect();
    if !unverified.is_empty() && !scene.forced.contains(&out) {
        return wait_for(&unverified, "verified all blobs");
    }
    let mut voters = scene.voting.clone();
    voters.extend(new);
    if out != scene.me {
        voters.remove(&out);
        return Step::Voters(voters);
    }
    let staying: Vec<NodeId> = scene
        .voting
        .intersection(&scene.wanted)
        .copied()
        .filter(|node| scene.reachable.contains(node))
        .collect();
    // One that has verified its blobs works: another one may be closed, and could not lead.
    let staying = staying
        .iter()
        .find(|node| scene.verified.contains(node))
        .or_else(|| staying.first());
    match staying {
        Some(to) => Step::HandOver(*to),
        // The only voter: it leads until the new one can.
        None if new.is_some() => Step::Voters(voters),
        None => Step::Wait("nobody else can lead".to_owned()),
    }
}

/// Those that are away first, the leader last.
fn next_to_leave(scene: &Scene, leaving: &BTreeSet<NodeId>) -> Option<NodeId> {
    let rank = |node: &NodeId| (*node == scene.me, scene.reachable.contains(node), *node);
    leaving.iter().copied().min_by_key(rank)
}

/// All that can be reached at once: an even number of voters bears no more than one fewer.
fn grow(scene: &Scene, coming: &BTreeSet<NodeId>, ready: &BTreeSet<NodeId>) -> Step {
    let late: BTreeSet<NodeId> = coming
        .difference(ready)
        .copied()
        .filter(|node| scene.reachable.contains(node))
        .collect();
    if !late.is_empty() || ready.is_empty() {
        let waited_for = if late.is_empty() { coming } else { &late };
        return wait_for(waited_for, "caught up with all entries and blobs");
    }
    Step::Voters(scene.voting.union(ready).copied().collect())
}

fn wait_for(nodes: &BTreeSet<NodeId>, what: &str) -> Step {
    let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    Step::Wait(format!("node {} has not {what} yet", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    fn scene(me: u64, voting: &[u64], wanted: &[u64], ready: &[u64]) -> Scene {
        Scene {
            me: NodeId(me),
            voting: nodes(voting),
            wanted: nodes(wanted),
            ready: nodes(ready),
            verified: nodes(voting),
            reachable: nodes(&[1, 2, 3, 4, 5, 6, 7]),
            forced: BTreeSet::new(),
        }
    }

    fn to(ids: &[u64]) -> Step {
        Step::Voters(nodes(ids))
    }

    fn waits(step: &Step) -> bool {
        matches!(step, Step::Wait(_))
    }

    #[test]
    fn nobody_leaves_when_the_rest_could_not_go_on() {
        // Node 2 is away for a moment, and node 3 is forced out: 1 and 2 would have to agree.
        let mut scene = scene(1, &[1, 2, 3], &[1, 2], &[]);
        scene.forced = nodes(&[3]);
        scene.reachable = nodes(&[1, 3]);
        assert!(matches!(next(&scene), Step::Wait(_)), "{:?}", next(&scene));
        scene.reachable = nodes(&[1, 2]);
        assert_eq!(next(&scene), to(&[1, 2]));
    }

    #[test]
    fn a_group_grows_at_once_and_waits_for_those_that_are_there() {
        assert_eq!(next(&scene(1, &[1], &[1], &[])), Step::Rest);
        assert_eq!(next(&scene(1, &[1], &[1, 2, 3], &[2, 3])), to(&[1, 2, 3]));
        let mut one_late = scene(1, &[1], &[1, 2, 3], &[2]);
        assert!(waits(&next(&one_late)));
        one_late.reachable = nodes(&[1, 2]);
        assert_eq!(next(&one_late), to(&[1, 2]));
    }

    #[test]
    fn a_voter_leaves_when_the_new_one_is_ready_and_the_others_have_verified() {
        assert!(waits(&next(&scene(1, &[1, 2, 3], &[1, 2, 4], &[]))));
        assert_eq!(next(&scene(1, &[1, 2, 3], &[1, 2, 4], &[4])), to(&[1, 2, 4]));
        let mut unverified = scene(1, &[1, 2, 3], &[1, 2, 4], &[4]);
        unverified.verified = nodes(&[1, 3]);
        assert!(waits(&next(&unverified)));
        // What the one that leaves has does not matter: it may be dead.
        unverified.verified = nodes(&[1, 2]);
        assert_eq!(next(&unverified), to(&[1, 2, 4]));
        unverified.verified = nodes(&[1]);
        unverified.forced = nodes(&[3]);
        assert_eq!(next(&unverified), to(&[1, 2, 4]));
    }

    #[test]
    fn nobody_votes_who_is_not_reached() {
        // An idle group's dead learner has everything, too.
        let mut away = scene(2, &[1, 2, 3], &[2, 3, 4], &[4]);
        away.reachable.remove(&NodeId(4));
        assert!(waits(&next(&away)), "{:?}", next(&away));
        let mut growing = scene(1, &[1], &[1, 2, 3], &[2, 3]);
        growing.reachable.remove(&NodeId(3));
        assert_eq!(next(&growing), to(&[1, 2]));
    }

    #[test]
    fn fewer_than_three_first_grow() {
        // A voter was taken out to be repaired while another one was to leave.
        assert_eq!(next(&scene(2, &[1, 2], &[2, 3, 4], &[4])), to(&[1, 2, 4]));
        assert_eq!(next(&scene(2, &[1, 2], &[2, 3, 4], &[3, 4])), to(&[1, 2, 3]));
        assert_eq!(next(&scene(2, &[1, 2, 3], &[2, 3, 4], &[4])), to(&[2, 3, 4]));
        assert_eq!(next(&scene(1, &[1], &[2, 3, 4], &[2, 3, 4])), to(&[1, 2, 3]));
        assert!(waits(&next(&scene(2, &[1, 2], &[2, 3, 4], &[]))));
    }

    #[test]
    fn voters_leave_one_at_a_time_the_dead_first_and_the_leader_last() {
        let mut all = scene(1, &[1, 2, 3], &[4, 5, 6], &[4, 5, 6]);
        assert_eq!(next(&all), to(&[1, 3, 4]));
        all.reachable.remove(&NodeId(3));
        assert_eq!(next(&all), to(&[1, 2, 4]));
        assert_eq!(next(&scene(1, &[1, 4, 5], &[4, 5, 6], &[6])), Step::HandOver(NodeId(4)));
        assert_eq!(next(&scene(4, &[1, 4, 5], &[4, 5, 6], &[6])), to(&[4, 5, 6]));
        let mut doubtful = scene(1, &[1, 4, 5], &[4, 5, 6], &[6]);
        (doubtful.verified, doubtful.forced) = (nodes(&[5]), nodes(&[1]));
        assert_eq!(next(&doubtful), Step::HandOver(NodeId(5)));
    }

    #[test]
    fn a_forced_departure_leaves_fewer_voters() {
        assert_eq!(next(&scene(1, &[1, 2, 3], &[1, 3], &[])), to(&[1, 3]));
        assert_eq!(next(&scene(2, &[1, 2, 3], &[1, 3], &[])), Step::HandOver(NodeId(1)));
    }

    #[test]
    fn a_lone_voter_is_joined_before_it_leaves() {
        assert_eq!(next(&scene(1, &[1], &[2], &[2])), to(&[1, 2]));
        assert_eq!(next(&scene(1, &[1, 2], &[2], &[])), Step::HandOver(NodeId(2)));
        assert_eq!(next(&scene(2, &[1, 2], &[2], &[])), to(&[2]));
        assert!(waits(&next(&scene(1, &[1], &[2], &[]))));
    }

    #[test]
    fn whatever_was_planned_is_reached_with_never_fewer_than_three() {
        for number in 0..1000_u64 {
            let pick = |salt: u64| -> BTreeSet<NodeId> {
                (0..3)
                    .map(|at| NodeId(1 + (number / (1 + salt * 3 + at) + at * (salt + 2)) % 7))
                    .collect()
            };
            let (voting, wanted) = (pick(0), pick(1));
            if voting.len() < 3 || wanted.len() < 3 {
                continue;
            }
            let mut scene = scene(1, &[], &[], &[1, 2, 3, 4, 5, 6, 7]);
            scene.me = *voting.first().unwrap();
            (scene.voting, scene.wanted, scene.verified) = (voting.clone(), wanted.clone(), voting);
            for _ in 0..10 {
                match next(&scene) {
                    Step::Rest => break,
                    Step::Wait(why) => panic!("{why}: {scene:?}"),
                    Step::HandOver(to) => scene.me = to,
                    Step::Voters(voters) => {
                        assert!(voters.len() >= 3 && voters.contains(&scene.me));
                        assert!(scene.voting.difference(&voters).count() <= 1);
                        scene.verified = voters.clone();
                        scene.voting = voters;
                    }
                }
            }
            assert_eq!(scene.voting, wanted);
        }
    }
}
