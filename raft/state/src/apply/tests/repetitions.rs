//! What is remembered of ops: for how long, in which order, and of those that were refused.

use super::*;

/// An op of a boot that is not the group's own.
fn by(boot: u128, seq: u64, settled_below: u64, now: UnixMillis, op: MailboxOp) -> Command {
    Command {
        op_id: OpId {
            node: NodeId(9),
            boot,
            seq,
        },
        settled_below,
        time: now,
        op: Op::Mailbox(op),
    }
}

const SETTLED: Outcome = Outcome::Refused(Refusal::AlreadySettled);

fn create(name: &str, number: u8) -> MailboxOp {
    MailboxOp::CreateMailbox {
        account: ANN,
        name: name_of(name),
        guid: mailbox(number),
        special_use: None,
    }
}

#[test]
fn ops_may_come_in_any_order_until_they_are_settled() {
    let mut group = Group::with_ann();
    // 7 says that those below 5 are settled; 5 and 6 are still on their way.
    assert!(matches!(
        group.run(&by(1, 7, 5, START, create("seven", 7))).outcome,
        Outcome::MailboxCreated { .. }
    ));
    assert!(matches!(
        group.run(&by(1, 5, 3, START, create("five", 5))).outcome,
        Outcome::MailboxCreated { .. }
    ));
    assert_eq!(group.run(&by(1, 4, 3, START, create("four", 4))).outcome, SETTLED);
    assert!(matches!(
        group.run(&by(1, 6, 5, START, create("six", 6))).outcome,
        Outcome::MailboxCreated { .. }
    ));
    assert_eq!(group.names(), ["INBOX", "five", "seven", "six"]);
    // Another boot counts for itself.
    assert!(matches!(
        group.run(&by(2, 4, 4, START, create("four", 4))).outcome,
        Outcome::MailboxCreated { .. }
    ));
}

#[test]
fn an_op_settles_neither_itself_nor_what_comes_after_it() {
    let mut group = Group::with_ann();
    let first = by(1, 3, 100, START, create("a", 2));
    let outcome = group.run(&first).outcome;
    assert!(matches!(outcome, Outcome::MailboxCreated { .. }));
    assert!(matches!(
        group.run(&by(1, 4, 3, START, create("b", 3))).outcome,
        Outcome::MailboxCreated { .. }
    ));
    assert_eq!(group.run(&first).outcome, outcome);
}

#[test]
fn a_refusal_is_remembered_as_any_outcome_is() {
    let mut group = Group::with_ann();
    group.create("a", 2);
    let again = by(1, 1, 1, START, create("a", 3));
    assert_eq!(group.run(&again).outcome, Outcome::Refused(Refusal::AlreadyExists));
    group.done(MailboxOp::DeleteMailbox {
        account: ANN,
        mailbox: mailbox(2),
    });
    // Now it would succeed, but its maker may have been told already that it did not.
    let repeated = group.run(&again);
    assert_eq!(repeated.outcome, Outcome::Refused(Refusal::AlreadyExists));
    assert!(repeated.batch.is_empty() && repeated.effects.is_empty());
    assert_eq!(group.names(), ["INBOX"]);
}

#[test]
fn outcomes_are_remembered_as_long_as_deliveries_and_their_ids_for_ever() {
    let mut group = Group::with_ann();
    let commands: Vec<Command> = [1, 3, 2]
        .into_iter()
        .map(|seq| by(1, seq, 0, START, create(&format!("n{seq}"), 10 + seq as u8)))
        .collect();
    let outcomes: Vec<Outcome> = commands.iter().map(|command| group.run(command).outcome).collect();
    let prune = |group: &mut Group| group.ask(MailboxOp::Prune { limit: 100 });
    let check = |group: &mut Group, what: &str| {
        for (command, outcome) in commands.iter().zip(&outcomes) {
            assert_eq!(group.run(command).outcome, *outcome, "{what}");
        }
    };
    prune(&mut group);
    check(&mut group, "at once");
    group.wait_and_tick(DELIVERY_MEMORY - Duration::from_millis(1));
    prune(&mut group);
    check(&mut group, "a moment before");
    group.wait(Duration::from_millis(1));
    assert_eq!(prune(&mut group), Outcome::Pruned { rows: 3, more: false });
    for command in &commands {
        assert_eq!(group.run(command).outcome, SETTLED);
    }
    // The boot may go on, above what it did.
    let next = by(1, 4, 0, group.now, create("n4", 14));
    assert!(matches!(group.run(&next).outcome, Outcome::MailboxCreated { .. }));
    let reused = by(1, 2, 0, group.now, create("n5", 15));
    assert_eq!(group.run(&reused).outcome, SETTLED);
    assert_eq!(
        digest::stored(&group.engine).unwrap(),
        digest::recomputed(&group.engine).unwrap()
    );
}

#[test]
fn outcomes_are_forgotten_a_few_at_a_time_and_the_lowest_first() {
    let mut group = Group::with_ann();
    let command = |seq: u8| by(1, u64::from(seq), 0, START, create(&format!("n{seq}"), 10 + seq));
    for seq in 1..=5 {
        group.run(&command(seq));
    }
    group.wait_and_tick(DELIVERY_MEMORY);
    assert_eq!(
        group.ask(MailboxOp::Prune { limit: 2 }),
        Outcome::Pruned { rows: 2, more: true }
    );
    assert_eq!(group.run(&command(1)).outcome, SETTLED);
    assert_eq!(group.run(&command(2)).outcome, SETTLED);
    assert!(matches!(group.run(&command(3)).outcome, Outcome::MailboxCreated { .. }));
    while let Outcome::Pruned { more: true, .. } = group.ask(MailboxOp::Prune { limit: 2 }) {}
    for seq in 1..=5 {
        assert_eq!(group.run(&command(seq)).outcome, SETTLED);
    }
}

#[test]
fn the_manifest_tells_of_an_account_that_is_removed() {
    let mut group = Group::with_ann();
    let applied = group.applied(Op::Mailbox(MailboxOp::RemoveAccount { account: ANN }));
    let line = crate::manifest::account_gone(ANN);
    let told = |effect: &Effect| matches!(effect, Effect::Manifest(entry) if entry.line == line);
    assert_eq!(
        applied.effects.iter().filter(|effect| told(effect)).count(),
        1,
        "{:?}",
        applied.effects
    );
}
