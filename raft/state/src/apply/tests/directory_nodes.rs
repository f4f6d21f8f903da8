//! Tests of nodes that leave, and of who votes in their place.

use core_types::{GroupId, NodeId, SiteId};

use super::*;
use crate::directory::Reader;
use crate::rows::NodeDuty;

const SITE: SiteId = SiteId(1);
const LEAVING: NodeDuty = NodeDuty::Leaving {
    heir: None,
    forced: false,
};

fn ask(group: &mut Group, op: DirectoryOp) -> Outcome {
    group.applied(Op::Directory(op)).outcome
}

fn ids(list: &[u64]) -> Vec<NodeId> {
    list.iter().copied().map(NodeId).collect()
}

/// A directory with these many nodes; group 1 has voters 1 to 3 and all others as learners.
fn with_nodes(nodes: u8) -> Group {
    let mut group = Group::new(MachineKind::Directory);
    let found = DirectoryOp::FoundCluster {
        cluster: 5,
        ca_certificate: vec![1],
        ca_key: vec![2],
        site: SITE,
        site_name: "home".into(),
        mailbox_groups: 2,
    };
    assert_eq!(ask(&mut group, found), Outcome::Done);
    for node in 1..=nodes {
        let token = DirectoryOp::AddJoinToken {
            token_key: [node; 32],
            site: SITE,
            name: format!("n{node}"),
            expires: START.saturating_add(1000),
        };
        assert_eq!(ask(&mut group, token), Outcome::Done);
        assert_eq!(
            ask(&mut group, join(node)),
            Outcome::NodeAdded {
                node: NodeId(node.into())
            }
        );
    }
    let all: Vec<u64> = (1..=nodes.into()).collect();
    let (voters, learners) = all.split_at(all.len().min(3));
    let place = DirectoryOp::SetPlacement {
        group: GroupId(1),
        voters: ids(voters),
        learners: ids(learners),
    };
    assert_eq!(ask(&mut group, place), Outcome::Done);
    group
}

fn join(node: u8) -> DirectoryOp {
    DirectoryOp::JoinNode {
        token_key: [node; 32],
        node_key: [node; 32],
        address: "a:1".into(),
    }
}

fn duty(node: u64, duty: NodeDuty) -> DirectoryOp {
    DirectoryOp::SetNodeDuty {
        node: NodeId(node),
        duty,
    }
}

fn remove(node: u64, forced: bool) -> DirectoryOp {
    DirectoryOp::RemoveNode {
        node: NodeId(node),
        forced,
    }
}

fn is_in_use(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::InUse(_)))
}

#[test]
fn a_node_leaves_only_where_enough_others_take_its_places() {
    let mut three = with_nodes(3);
    assert!(is_in_use(&ask(&mut three, duty(2, LEAVING))));
    let forced = NodeDuty::Leaving {
        heir: None,
        forced: true,
    };
    assert_eq!(ask(&mut three, duty(2, forced)), Outcome::Done);
    assert_eq!(Reader::new(&three.engine).duty(NodeId(2)).unwrap(), forced);
    assert_eq!(ask(&mut three, duty(3, forced)), Outcome::Done);
    // The last one stays, whatever is said.
    assert!(is_in_use(&ask(&mut three, duty(1, forced))));
    assert_eq!(ask(&mut three, duty(2, NodeDuty::Active)), Outcome::Done);
    assert_eq!(Reader::new(&three.engine).duty(NodeId(2)).unwrap(), NodeDuty::Active);

    let mut five = with_nodes(5);
    assert_eq!(ask(&mut five, duty(1, LEAVING)), Outcome::Done);
    assert_eq!(ask(&mut five, duty(2, LEAVING)), Outcome::Done);
    assert!(is_in_use(&ask(&mut five, duty(3, LEAVING))));
    // Node 4 votes nowhere, but those that leave need it.
    assert!(is_in_use(&ask(&mut five, duty(4, LEAVING))));
    assert_eq!(ask(&mut five, duty(1, NodeDuty::Active)), Outcome::Done);
    assert_eq!(ask(&mut five, duty(4, LEAVING)), Outcome::Done);
    assert!(is_in_use(&ask(&mut five, duty(5, LEAVING))));
    assert!(matches!(
        ask(&mut five, duty(9, LEAVING)),
        Outcome::Refused(Refusal::NoSuchObject(_))
    ));
}

#[test]
fn a_site_takes_as_many_nodes_as_a_group_has_slots() {
    let mut group = with_nodes(31);
    let token = DirectoryOp::AddJoinToken {
        token_key: [32; 32],
        site: SITE,
        name: "n32".into(),
        expires: START.saturating_add(1000),
    };
    assert_eq!(ask(&mut group, token), Outcome::Done);
    let refused = ask(&mut group, join(32));
    assert!(
        matches!(&refused, Outcome::Refused(Refusal::Limit(what)) if what.contains("31 nodes")),
        "{refused:?}"
    );
    // The token is good still once there is room.
    assert_eq!(ask(&mut group, remove(31, true)), Outcome::Done);
    assert_eq!(ask(&mut group, join(32)), Outcome::NodeAdded { node: NodeId(32) });
}

#[test]
fn an_heir_is_another_node_that_stays() {
    let mut group = with_nodes(5);
    let to = |heir| NodeDuty::Leaving {
        heir: Some(NodeId(heir)),
        forced: false,
    };
    assert!(matches!(
        ask(&mut group, duty(1, to(1))),
        Outcome::Refused(Refusal::Invalid(_))
    ));
    assert!(matches!(
        ask(&mut group, duty(1, to(8))),
        Outcome::Refused(Refusal::NoSuchObject(_))
    ));
    assert_eq!(ask(&mut group, duty(5, LEAVING)), Outcome::Done);
    assert!(is_in_use(&ask(&mut group, duty(1, to(5)))));
    assert_eq!(ask(&mut group, duty(1, to(4))), Outcome::Done);
}

#[test]
fn a_removed_node_leaves_a_tombstone_and_neither_its_id_nor_its_key_comes_back() {
    let mut group = with_nodes(4);
    // It votes and is not drained.
    assert!(is_in_use(&ask(&mut group, remove(2, false))));
    assert_eq!(ask(&mut group, duty(2, LEAVING)), Outcome::Done);
    // It still votes.
    assert!(is_in_use(&ask(&mut group, remove(2, false))));
    let change = |expected: &[u64]| DirectoryOp::ChangePlacement {
        group: GroupId(1),
        expected: ids(expected),
        voters: ids(&[1, 3, 4]),
        learners: ids(&[2]),
    };
    assert!(is_in_use(&ask(&mut group, change(&[1, 2, 4]))));
    assert_eq!(ask(&mut group, change(&[1, 2, 3])), Outcome::Done);
    assert_eq!(ask(&mut group, remove(2, false)), Outcome::Done);
    let reader = Reader::new(&group.engine);
    assert_eq!(reader.node(NodeId(2)).unwrap(), None);
    assert_eq!(reader.duty(NodeId(2)).unwrap(), NodeDuty::Active);
    let row = reader.group(GroupId(1)).unwrap().unwrap();
    assert_eq!((row.voters, row.learners), (ids(&[1, 3, 4]), vec![]));
    let gone = reader.removed_node(NodeId(2)).unwrap().unwrap();
    assert_eq!(
        (gone.name.as_str(), gone.key[0], gone.may_hand_in_islands),
        ("n2", 2, true)
    );

    assert!(matches!(
        ask(&mut group, remove(2, false)),
        Outcome::Refused(Refusal::NoSuchObject(_))
    ));
    // The token that it spent gives nothing any more, and its key gets no other id.
    assert_eq!(ask(&mut group, join(2)), Outcome::Refused(Refusal::BadToken));
    let token = DirectoryOp::AddJoinToken {
        token_key: [9; 32],
        site: SITE,
        name: "n2".into(),
        expires: START.saturating_add(1000),
    };
    assert_eq!(ask(&mut group, token), Outcome::Done);
    let again = |key: u8| DirectoryOp::JoinNode {
        token_key: [9; 32],
        node_key: [key; 32],
        address: "a:1".into(),
    };
    assert_eq!(ask(&mut group, again(2)), Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(ask(&mut group, again(6)), Outcome::NodeAdded { node: NodeId(5) });
}

#[test]
fn a_forced_removal_takes_a_voter_out_but_never_the_last_one() {
    let mut group = with_nodes(3);
    assert_eq!(ask(&mut group, remove(3, true)), Outcome::Done);
    assert_eq!(ask(&mut group, remove(2, true)), Outcome::Done);
    assert_eq!(
        Reader::new(&group.engine).group(GroupId(1)).unwrap().unwrap().voters,
        ids(&[1])
    );
    assert!(is_in_use(&ask(&mut group, remove(1, true))));
}

#[test]
fn a_voter_moves_by_hand_and_pins_its_group() {
    let mut group = with_nodes(5);
    let moved = |from, to| DirectoryOp::MoveVoter {
        group: GroupId(1),
        from: NodeId(from),
        to: NodeId(to),
    };
    assert!(matches!(
        ask(&mut group, moved(4, 5)),
        Outcome::Refused(Refusal::NoSuchObject(_))
    ));
    assert_eq!(ask(&mut group, moved(1, 2)), Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(ask(&mut group, duty(5, LEAVING)), Outcome::Done);
    assert!(is_in_use(&ask(&mut group, moved(1, 5))));
    assert_eq!(Reader::new(&group.engine).pinned_groups().unwrap(), []);
    assert_eq!(ask(&mut group, moved(1, 4)), Outcome::Done);
    let row = Reader::new(&group.engine).group(GroupId(1)).unwrap().unwrap();
    assert_eq!((row.voters, row.learners), (ids(&[2, 3, 4]), ids(&[5, 1])));
    assert_eq!(Reader::new(&group.engine).pinned_groups().unwrap(), [GroupId(1)]);
    let unpin = DirectoryOp::PinGroup {
        group: GroupId(1),
        pinned: false,
    };
    assert_eq!(ask(&mut group, unpin), Outcome::Done);
    assert_eq!(Reader::new(&group.engine).pinned_groups().unwrap(), []);
}
