//! Tests of plans: named cases, and whatever may happen to a site.

use core_types::Incarnation;

use super::*;

fn group(id: u32, voters: &[u64], learners: &[u64]) -> GroupRow {
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
    GroupRow {
        group: GroupId(id),
        incarnation: Incarnation(1),
        site: (id != 0).then_some(SiteId(1)),
        voters: nodes(voters),
        learners: nodes(learners),
        account_count: 0,
    }
}

fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        site: SiteId(1),
        duty: NodeDuty::Active,
        reachable: true,
        lost: false,
        dead: false,
    }
}

/// Everybody votes who is to.
fn settled(groups: Vec<GroupRow>, members: Vec<Member>) -> Picture {
    let voting = groups
        .iter()
        .map(|group| (group.group, group.voters.iter().copied().collect()))
        .collect();
    Picture {
        groups,
        voting,
        pinned: BTreeSet::new(),
        members,
    }
}

fn site(groups: u32, nodes: u64) -> Picture {
    let groups = (0..=groups).map(|id| group(id, &[1], &[])).collect();
    settled(groups, (1..=nodes).map(member).collect())
}

fn take(picture: &mut Picture, placements: &[Placement]) {
    for placement in placements {
        let row = picture
            .groups
            .iter_mut()
            .find(|row| row.group == placement.group)
            .unwrap();
        row.voters.clone_from(&placement.voters);
        row.learners.clone_from(&placement.learners);
    }
}

fn settle(picture: &mut Picture) {
    for row in &picture.groups {
        picture.voting.insert(row.group, row.voters.iter().copied().collect());
    }
}

/// Plans and moves until nothing more is to be done; how often a voter was taken out.
fn rest(picture: &mut Picture) -> usize {
    let mut moves = 0;
    for _ in 0..500 {
        let placements = plan(picture);
        if placements.is_empty() {
            return moves;
        }
        for placement in &placements {
            let before = &picture.voting[&placement.group];
            let after: BTreeSet<NodeId> = placement.voters.iter().copied().collect();
            let out = before.difference(&after).count();
            assert!(out <= 1, "{before:?} to {after:?}");
            moves += out;
        }
        take(picture, &placements);
        settle(picture);
    }
    panic!("no rest: {picture:?}");
}

fn voters(picture: &Picture, id: u32) -> Vec<u64> {
    let row = picture.groups.iter().find(|row| row.group == GroupId(id)).unwrap();
    row.voters.iter().map(|node| node.0).collect()
}

fn change(picture: &mut Picture, node: u64, change: impl FnOnce(&mut Member)) {
    change(
        picture
            .members
            .iter_mut()
            .find(|member| member.node == NodeId(node))
            .unwrap(),
    );
}

const LEAVING: NodeDuty = NodeDuty::Leaving {
    heir: None,
    forced: false,
};

fn places(picture: &Picture) -> Vec<usize> {
    let load = picture.load();
    let usable = picture
        .members
        .iter()
        .filter(|member| member.is_fit() && member.reachable);
    usable.map(|member| load[&member.node]).collect()
}

#[test]
fn a_small_site_holds_everything_everywhere() {
    assert_eq!(plan(&site(1, 1)), []);
    let mut three = site(2, 3);
    assert_eq!(rest(&mut three), 0);
    for id in 0..=2 {
        assert_eq!(voters(&three, id), [1, 2, 3]);
    }
}

#[test]
fn a_larger_site_spreads_its_voters_and_everybody_else_follows() {
    let mut seven = site(4, 3);
    rest(&mut seven);
    seven.members = (1..=7).map(member).collect();
    let moves = rest(&mut seven);
    // Fifteen places on seven nodes.
    assert_eq!(places(&seven).iter().sum::<usize>(), 15);
    assert!(
        places(&seven).iter().all(|places| (2..=3).contains(places)),
        "{seven:?}"
    );
    assert_eq!(moves, 8, "three nodes had five places each, and keep seven of them");
    for row in &seven.groups {
        assert_eq!(row.voters.len() + row.learners.len(), 7);
    }
}

#[test]
fn a_node_that_cannot_be_reached_is_not_chosen_and_is_not_replaced_at_once() {
    let mut picture = site(2, 4);
    change(&mut picture, 2, |member| member.reachable = false);
    rest(&mut picture);
    assert_eq!(voters(&picture, 1), [1, 3, 4]);
    change(&mut picture, 2, |member| member.reachable = true);
    change(&mut picture, 3, |member| member.reachable = false);
    assert_eq!(plan(&picture), []);
    change(&mut picture, 3, |member| member.dead = true);
    assert!(rest(&mut picture) > 0);
    for id in 0..=2 {
        assert_eq!(voters(&picture, id), [1, 2, 4]);
    }
    // It follows, for the case that it comes back.
    assert!(picture.groups.iter().all(|row| row.learners == [NodeId(3)]));
}

#[test]
fn a_dead_voter_is_replaced_only_where_a_majority_is_there() {
    let mut picture = settled(vec![group(1, &[1, 2, 3], &[4])], (1..=4).map(member).collect());
    for node in [2, 3] {
        change(&mut picture, node, |member| {
            (member.reachable, member.dead) = (false, true)
        });
    }
    assert_eq!(plan(&picture), []);
    change(&mut picture, 3, |member| {
        (member.reachable, member.dead) = (true, false)
    });
    assert_eq!(
        plan(&picture),
        [Placement {
            group: GroupId(1),
            voters: [1, 3, 4].map(NodeId).to_vec(),
            learners: vec![NodeId(2)]
        }]
    );
}

#[test]
fn a_drained_nodes_places_go_to_its_heir_and_only_by_force_to_nobody() {
    let mut picture = settled(
        vec![group(1, &[1, 2, 3], &[4, 5, 6]), group(2, &[1, 2, 3], &[4, 5, 6])],
        (1..=6).map(member).collect(),
    );
    picture.pinned = [GroupId(1), GroupId(2)].into();
    let heir = NodeDuty::Leaving {
        heir: Some(NodeId(6)),
        forced: false,
    };
    change(&mut picture, 2, |member| member.duty = heir);
    rest(&mut picture);
    assert_eq!(
        (voters(&picture, 1), voters(&picture, 2)),
        (vec![1, 3, 6], vec![1, 3, 6])
    );
    // It is not taken back before it may be.
    assert!(picture.groups.iter().all(|row| row.learners.contains(&NodeId(2))));

    let mut three = settled(vec![group(1, &[1, 2, 3], &[])], (1..=3).map(member).collect());
    change(&mut three, 2, |member| member.duty = LEAVING);
    assert_eq!(plan(&three), []);
    let forced = NodeDuty::Leaving {
        heir: None,
        forced: true,
    };
    change(&mut three, 2, |member| member.duty = forced);
    rest(&mut three);
    assert_eq!(voters(&three, 1), [1, 3]);
    change(&mut three, 2, |member| member.duty = NodeDuty::Active);
    rest(&mut three);
    assert_eq!(voters(&three, 1), [1, 2, 3]);
}

#[test]
fn a_group_under_way_is_left_alone_unless_what_it_waits_for_is_lost() {
    let mut picture = settled(vec![group(1, &[1, 2, 3], &[4, 5])], (1..=5).map(member).collect());
    change(&mut picture, 3, |member| member.duty = LEAVING);
    let first = plan(&picture);
    take(&mut picture, &first);
    let new = voters(&picture, 1).into_iter().find(|node| *node > 3).unwrap();
    change(&mut picture, 1, |member| member.duty = LEAVING);
    assert_eq!(plan(&picture), [], "one after the other");
    change(&mut picture, new, |member| member.reachable = false);
    assert_eq!(plan(&picture), [], "it may only be restarting");
    change(&mut picture, new, |member| member.lost = true);
    let other = if new == 4 { 5 } else { 4 };
    rest(&mut picture);
    // The one that is lost is not waited for; as nobody else is there, one of those that leave stays for now.
    let last = voters(&picture, 1);
    assert!(
        last.contains(&2) && last.contains(&other) && !last.contains(&new) && last.len() == 3,
        "{last:?}"
    );
}

/// One group under way: who votes, who is to, and everybody else follows.
fn under_way(voting: &[u64], row: &[u64], nodes: u64) -> Picture {
    let learners: Vec<u64> = (1..=nodes).filter(|node| !row.contains(node)).collect();
    let mut picture = settled(vec![group(1, row, &learners)], (1..=nodes).map(member).collect());
    let voting = voting.iter().copied().map(NodeId).collect();
    picture.voting.insert(GroupId(1), voting);
    picture
}

#[test]
fn a_group_under_way_does_not_wait_for_a_voter_that_died() {
    let dead = |member: &mut Member| (member.reachable, member.lost, member.dead) = (false, true, true);
    let planned = |picture: &Picture| -> Vec<Vec<u64>> {
        let ids = |placement: &Placement| placement.voters.iter().map(|node| node.0).collect();
        plan(picture).iter().map(ids).collect()
    };
    // Who was to leave stays until the dead one is replaced.
    let mut draining = under_way(&[1, 2, 3], &[2, 3, 4], 5);
    change(&mut draining, 1, |member| member.duty = LEAVING);
    change(&mut draining, 3, |member| {
        (member.reachable, member.lost) = (false, true)
    });
    assert_eq!(planned(&draining), Vec::<Vec<u64>>::new(), "it may come back");
    let mut given_up = draining.clone();
    change(&mut given_up, 3, |member| member.duty = LEAVING);
    assert_eq!(
        planned(&given_up),
        [[1, 2, 4]],
        "it is to be replaced by an administrator's word"
    );
    change(&mut draining, 3, dead);
    let mut kept = draining.clone();
    change(&mut kept, 1, |member| member.duty = NodeDuty::Active);
    assert_eq!(planned(&kept), [[1, 2, 4]], "also when nobody leaves any more");
    assert_eq!(planned(&draining), [[1, 2, 4]]);
    rest(&mut draining);
    assert_eq!(voters(&draining, 1), [2, 4, 5]);

    // A leader that died in the middle of a change: the voters of before and after it count.
    let mut joint = under_way(&[1, 2, 3, 4], &[1, 2, 4], 4);
    change(&mut joint, 1, dead);
    assert_eq!(planned(&joint), [[2, 3, 4]]);

    // Without a majority nothing is to be had from a change.
    let mut few = under_way(&[1, 2, 3], &[2, 3, 4], 5);
    for node in [2, 3] {
        change(&mut few, node, dead);
    }
    assert_eq!(planned(&few), Vec::<Vec<u64>>::new());
}

#[test]
fn of_those_that_leave_the_one_that_is_away_goes_first() {
    let mut picture = settled(vec![group(1, &[1, 2, 3], &[4, 5])], (1..=5).map(member).collect());
    for node in [1, 3] {
        change(&mut picture, node, |member| member.duty = LEAVING);
    }
    change(&mut picture, 3, |member| {
        (member.reachable, member.lost) = (false, true)
    });
    let first = plan(&picture);
    assert!(
        first.iter().all(|placement| placement.voters.contains(&NodeId(1))),
        "{first:?}"
    );
    assert_eq!(first.len(), 1);
}

#[test]
fn a_group_of_which_nothing_is_known_is_left_alone() {
    let mut picture = site(1, 3);
    picture.voting.clear();
    assert_eq!(plan(&picture), []);
}

#[test]
fn a_pinned_group_is_not_moved_to_even_out_but_away_from_the_dead() {
    let mut picture = settled(
        (1..=3).map(|id| group(id, &[1, 2, 3], &[4, 5, 6])).collect(),
        (1..=6).map(member).collect(),
    );
    picture.pinned = (1..=3).map(GroupId).collect();
    assert_eq!(plan(&picture), []);
    change(&mut picture, 1, |member| {
        (member.reachable, member.dead) = (false, true)
    });
    rest(&mut picture);
    assert!((1..=3).all(|id| !voters(&picture, id).contains(&1)));
}

#[test]
fn the_leader_is_the_voter_at_the_groups_place_that_stays() {
    let three = [1, 2, 3].map(NodeId).into();
    let none = BTreeSet::new();
    assert_eq!(preferred_leader(GroupId(4), &three, &none), Some(NodeId(2)));
    assert_eq!(
        preferred_leader(GroupId(4), &three, &[NodeId(2)].into()),
        Some(NodeId(1))
    );
    assert_eq!(preferred_leader(GroupId(4), &three, &three), None);
}

/// splitmix64
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word ^ (word >> 31)) % bound
    }
}

/// What an administrator and the world may do to a site.
fn disturb(picture: &mut Picture, random: &mut Random) {
    let node = 1 + random.below(9);
    let known = picture.members.iter().any(|member| member.node == NodeId(node));
    match random.below(6) {
        0 if !known => picture.members.push(member(node)),
        1 if known => {
            let others = picture.members.iter().filter(|member| member.is_fit()).count();
            if others > VOTERS {
                change(picture, node, |member| member.duty = LEAVING);
            }
        }
        2 if known => change(picture, node, |member| member.duty = NodeDuty::Active),
        3 if known => {
            let lost = random.below(2) == 0;
            change(picture, node, |member| (member.reachable, member.lost) = (false, lost));
        }
        4 if known => change(picture, node, |member| {
            (member.reachable, member.lost, member.dead) = (true, false, false);
        }),
        5 if known => {
            let node_id = NodeId(node);
            let votes = picture.groups.iter().any(|row| row.voters.contains(&node_id))
                || picture.voting.values().any(|voting| voting.contains(&node_id));
            if !votes {
                // Removed.
                picture.members.retain(|member| member.node != NodeId(node));
                for row in &mut picture.groups {
                    row.learners.retain(|other| *other != NodeId(node));
                }
            } else {
                change(picture, node, |member| {
                    member.dead = !member.reachable;
                    member.lost |= member.dead;
                });
            }
        }
        _ => {}
    }
    picture.members.sort_by_key(|member| member.node);
}

#[test]
fn whatever_happens_plans_converge_one_voter_at_a_time_and_never_below_three() {
    for seed in 0..300 {
        let random = &mut Random(seed);
        let mut picture = site(1 + u32::try_from(random.below(8)).unwrap(), 3 + random.below(5));
        rest(&mut picture);
        for _ in 0..60 {
            disturb(&mut picture, random);
            let placements = plan(&picture);
            for placement in &placements {
                let wanted: BTreeSet<NodeId> = placement.voters.iter().copied().collect();
                let voting = &picture.voting[&placement.group];
                assert!(wanted.len() >= VOTERS, "seed {seed}: {placement:?}");
                assert!(voting.difference(&wanted).count() <= 1, "seed {seed}: {placement:?}");
                for node in wanted.difference(voting) {
                    let new = picture.member(*node).unwrap();
                    let row = picture.groups.iter().find(|row| row.group == placement.group).unwrap();
                    let was_planned = row.voters.contains(node);
                    let may_come = (new.reachable || was_planned) && !new.lost && new.is_fit();
                    assert!(may_come, "seed {seed}: {placement:?}");
                }
                let everybody: BTreeSet<NodeId> = wanted.iter().copied().chain(placement.learners.clone()).collect();
                assert_eq!(everybody.len(), picture.members.len(), "seed {seed}: {placement:?}");
            }
            take(&mut picture, &placements);
            // Groups come to their places when they can, some late.
            if random.below(2) == 0 {
                settle(&mut picture);
            }
        }
        for member in &mut picture.members {
            (member.reachable, member.lost, member.dead) = (true, false, false);
        }
        settle(&mut picture);
        rest(&mut picture);
        let fit = picture.members.iter().filter(|member| member.is_fit()).count();
        for row in &picture.groups {
            let staying = row
                .voters
                .iter()
                .filter(|node| picture.member(**node).unwrap().is_fit());
            assert!(staying.count() >= VOTERS.min(fit), "seed {seed}: {picture:?}");
        }
        if fit >= VOTERS {
            let places = places(&picture);
            let (least, most) = (places.iter().min().unwrap(), places.iter().max().unwrap());
            assert!(most - least <= 1, "seed {seed}: {picture:?}");
        }
        // At rest nothing moves.
        assert_eq!(plan(&picture), [], "seed {seed}");
    }
}
