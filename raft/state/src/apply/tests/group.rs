//! Tests of what a group says of itself.

use super::*;

#[test]
fn slots_are_the_lowest_free_ones_and_levels_never_fall() {
    let mut group = Group::new(MachineKind::Directory);
    let run = |group: &mut Group, op| group.applied(Op::Group(op)).outcome;
    for node in 1..=3 {
        assert_eq!(
            run(&mut group, GroupOp::AssignSlot { replica: NodeId(node) }),
            Outcome::Done
        );
    }
    run(&mut group, GroupOp::FreeSlot { replica: NodeId(2) });
    run(&mut group, GroupOp::AssignSlot { replica: NodeId(4) });
    run(&mut group, GroupOp::AssignSlot { replica: NodeId(1) });
    run(
        &mut group,
        GroupOp::ReplicaLost {
            replica: NodeId(1),
            episode: 2,
        },
    );
    run(
        &mut group,
        GroupOp::CaughtUp {
            replica: NodeId(1),
            index: 30,
        },
    );
    run(
        &mut group,
        GroupOp::CaughtUp {
            replica: NodeId(1),
            index: 20,
        },
    );
    run(&mut group, GroupOp::FeatureLevel { level: 1 });
    let reader = crate::group::Reader::new(&group.engine);
    let slots: Vec<_> = reader
        .slots()
        .unwrap()
        .into_iter()
        .map(|(slot, node)| (slot.0, node.0))
        .collect();
    assert_eq!(slots, [(1, 1), (2, 4), (3, 3)]);
    assert_eq!(
        reader.replica(NodeId(1)).unwrap(),
        crate::rows::ReplicaRow {
            lost_episode: 2,
            caught_up: 30
        }
    );
    assert_eq!(reader.feature_level().unwrap(), 1);
    let unknown = group.command(Op::Group(GroupOp::FeatureLevel {
        level: FEATURE_LEVEL + 1,
    }));
    assert!(matches!(
        apply(&group.engine, group.kind, &unknown),
        Err(ApplyError::UnknownOp(_))
    ));
}

#[test]
fn an_op_for_another_kind_of_group_is_refused() {
    let mut mailboxes = Group::with_ann();
    let op = Op::Directory(DirectoryOp::SetSetting {
        name: "a".into(),
        value: None,
    });
    assert!(matches!(
        mailboxes.applied(op).outcome,
        Outcome::Refused(Refusal::Invalid(_))
    ));
    let mut directory = Group::new(MachineKind::Directory);
    let op = Op::Mailbox(MailboxOp::Prune { limit: 1 });
    assert!(matches!(
        directory.applied(op).outcome,
        Outcome::Refused(Refusal::Invalid(_))
    ));
}

#[test]
fn only_the_mailboxes_that_differ_have_other_digests() {
    let with_mail = || {
        let mut group = Group::with_ann();
        group.create("Archive", 2);
        group.deliver(1);
        group.deliver(2);
        group
    };
    let of = |group: &Group| {
        let mut digests = digest::of_mailboxes(&group.engine).unwrap();
        digests.sort();
        digests
    };
    let (one, mut other) = (with_mail(), with_mail());
    assert_eq!(of(&one).len(), 2);
    assert_eq!(of(&one), of(&other));
    other.ask(store_keyword(1, "seen"));
    let different: Vec<_> = of(&other)
        .into_iter()
        .filter(|mailbox| !of(&one).contains(mailbox))
        .collect();
    assert_eq!(different.len(), 1);
    assert_eq!((different[0].account, different[0].name.as_str()), (ANN, "INBOX"));
}
