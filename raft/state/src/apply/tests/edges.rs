//! Limits to the one, times by the group's clock, and collisions that random histories seldom come upon.

use core_types::limits::{MAILBOXES_PER_ACCOUNT_MAX, MESSAGES_PER_OP_MAX, SMTP_RECIPIENTS_MAX, STRUCTURE_BYTES_MAX};

use super::*;
use crate::rows::{AccountRow, MailboxRow};

fn is_limit(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(Refusal::Limit(_)))
}

impl Group {
    /// Makes Ann's row another one, as if much had happened before.
    fn edit_account(&mut self, edit: impl FnOnce(&mut AccountRow)) {
        let mut row = self.reader().account(ANN).unwrap().unwrap();
        edit(&mut row);
        let mut batch = Batch::default();
        batch.put(keys::account(ANN), store::encode(&row).unwrap());
        self.engine.write(&batch).unwrap();
    }

    fn edit_inbox(&mut self, edit: impl FnOnce(&mut MailboxRow)) {
        let mut row = self.reader().mailbox(INBOX).unwrap().unwrap();
        edit(&mut row);
        let mut batch = Batch::default();
        batch.put(keys::mailbox(INBOX), store::encode(&row).unwrap());
        self.engine.write(&batch).unwrap();
    }

    fn rename(&mut self, from: &str, to: &str) -> Outcome {
        let row = self.reader().mailbox_by_name(ANN, &name_of(from)).unwrap().unwrap();
        self.ask(MailboxOp::RenameMailbox {
            account: ANN,
            mailbox: row.guid,
            to: name_of(to),
            new_guid: mailbox(77),
        })
    }

    fn copy_one(&mut self, number: u8, seed: u8) -> Outcome {
        self.ask(MailboxOp::Copy {
            account: ANN,
            from: INBOX,
            to: INBOX,
            messages: vec![message(number)],
            seed: [seed; 16],
        })
    }
}

fn new_delivery(number: u8) -> Delivery {
    match delivery(number, INBOX) {
        MailboxOp::Deliver(delivery) => delivery,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_op_may_name_so_many_messages_and_no_more() {
    let mut group = Group::with_ann();
    group.deliver(1);
    for (count, fits) in [
        (MESSAGES_PER_OP_MAX - 1, true),
        (MESSAGES_PER_OP_MAX, true),
        (MESSAGES_PER_OP_MAX + 1, false),
    ] {
        let messages: Vec<MessageGuid> = (0..count as u128)
            .map(|number| MessageGuid(number.to_be_bytes()))
            .collect();
        let (account, mailbox) = (ANN, INBOX);
        let ops = [
            MailboxOp::Expunge {
                account,
                mailbox,
                messages: messages.clone(),
                only_deleted: false,
            },
            MailboxOp::StoreFlags {
                account,
                mailbox,
                messages: messages.clone(),
                change: FlagChange::Add,
                flags: Flags::system(Flags::SEEN),
                unchanged_since: None,
            },
            MailboxOp::Move {
                account,
                from: mailbox,
                to: mailbox,
                messages: messages.clone(),
            },
            MailboxOp::Copy {
                account,
                from: mailbox,
                to: mailbox,
                messages,
                seed: [1; 16],
            },
        ];
        for op in ops {
            assert_eq!(!is_limit(&group.ask(op)), fits, "{count}");
        }
    }
}

#[test]
fn a_delivery_has_a_target_and_so_many_and_a_structure_of_so_many_octets() {
    let mut group = Group::with_ann();
    let to = |count: usize| {
        let mut delivery = new_delivery(1);
        let target = delivery.targets[0].clone();
        let targets = (0..count as u128).map(|number| DeliveryTarget {
            guid: MessageGuid((1 << 64 | number).to_be_bytes()),
            ..target.clone()
        });
        delivery.targets = targets.collect();
        MailboxOp::Deliver(delivery)
    };
    assert!(matches!(group.ask(to(0)), Outcome::Refused(Refusal::Invalid(_))));
    for (count, fits) in [(SMTP_RECIPIENTS_MAX, true), (SMTP_RECIPIENTS_MAX + 1, false)] {
        assert_eq!(!is_limit(&group.ask(to(count))), fits, "{count}");
    }
    for (count, fits) in [(STRUCTURE_BYTES_MAX, true), (STRUCTURE_BYTES_MAX + 1, false)] {
        let mut delivery = new_delivery(2);
        delivery.message.structure = vec![0; count];
        assert_eq!(!is_limit(&group.ask(MailboxOp::Deliver(delivery))), fits, "{count}");
    }
}

#[test]
fn renaming_inbox_moves_so_many_messages_and_no_more() {
    for (count, fits) in [(MESSAGES_PER_OP_MAX, true), (MESSAGES_PER_OP_MAX + 1, false)] {
        let mut group = Group::with_ann();
        group.edit_inbox(|row| row.message_count = u32::try_from(count).unwrap());
        assert_eq!(!is_limit(&group.rename("INBOX", "old")), fits, "{count}");
    }
}

#[test]
fn an_account_has_so_many_mailboxes_and_subscriptions_and_no_more() {
    let mut group = Group::with_ann();
    group.edit_account(|row| {
        row.mailbox_count = u32::try_from(MAILBOXES_PER_ACCOUNT_MAX - 1).unwrap();
        row.subscription_count = row.mailbox_count;
    });
    let subscribe = |name: &str, subscribed: bool| MailboxOp::Subscribe {
        account: ANN,
        name: name_of(name),
        subscribed,
    };
    assert!(matches!(group.create("a", 2), Outcome::MailboxCreated { .. }));
    assert!(is_limit(&group.create("b", 3)));
    group.done(MailboxOp::DeleteMailbox {
        account: ANN,
        mailbox: mailbox(2),
    });
    assert!(matches!(group.create("b", 3), Outcome::MailboxCreated { .. }));

    group.done(subscribe("x", true));
    assert!(is_limit(&group.ask(subscribe("y", true))));
    // What it is subscribed to already costs nothing; ending one makes room.
    group.done(subscribe("x", true));
    group.done(subscribe("x", false));
    group.done(subscribe("x", false));
    group.done(subscribe("y", true));
    assert!(is_limit(&group.ask(subscribe("z", true))));
}

#[test]
fn a_quota_may_be_filled_to_its_last_octet_also_by_copies() {
    let mut group = Group::with_ann();
    group.deliver(1);
    let set = |group: &mut Group, quota| {
        group.done(MailboxOp::SetQuota {
            account: ANN,
            quota_bytes: quota,
        });
    };
    set(&mut group, Some(199));
    assert_eq!(group.copy_one(1, 1), Outcome::Refused(Refusal::OverQuota));
    set(&mut group, Some(200));
    assert!(matches!(group.copy_one(1, 1), Outcome::Copied { .. }));
    // Over its quota an account may still copy nothing at all.
    set(&mut group, Some(10));
    assert!(matches!(group.copy_one(9, 1), Outcome::Copied { uids, .. } if uids.is_empty()));
    set(&mut group, None);
    assert_eq!(group.reader().quota(ANN).unwrap().unwrap().limit_bytes, None);
    assert!(matches!(group.copy_one(1, 2), Outcome::Copied { .. }));
}

#[test]
fn a_seed_makes_copies_of_a_message_once() {
    let mut group = Group::with_ann();
    group.deliver(1);
    assert!(matches!(group.copy_one(1, 1), Outcome::Copied { .. }));
    let before = group.engine.entries();
    assert_eq!(group.copy_one(1, 1), Outcome::Refused(Refusal::AlreadyExists));
    let changed: Vec<_> = group
        .engine
        .entries()
        .into_iter()
        .filter(|row| !before.contains_key(&row.0))
        .collect();
    // Nothing but the memory of the op itself.
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(group.reader().mailbox(INBOX).unwrap().unwrap().message_count, 2);
    // Nor when the copy is gone since.
    let copy = message(1).derive(&[1; 16]);
    group.ask(MailboxOp::Expunge {
        account: ANN,
        mailbox: INBOX,
        messages: vec![copy],
        only_deleted: false,
    });
    assert_eq!(group.copy_one(1, 1), Outcome::Refused(Refusal::AlreadyExists));
}

#[test]
fn a_clock_that_is_ahead_dates_nothing() {
    let mut group = Group::with_ann();
    group.create("a", 2);
    let limit = START.saturating_add(millis(OP_TIME_STEP_MAX));
    group.now = UnixMillis(START.0 * 2);
    group.deliver(1);
    assert_eq!(group.reader().message(INBOX, Uid(1)).unwrap().unwrap().save_date, limit);
    // The clock is right again, and the group's time stands until it is reached.
    group.now = START;
    group.deliver(2);
    group.now = UnixMillis(START.0 * 2);
    let applied = group.applied(Op::Mailbox(expunge(&[1])));
    assert!(matches!(applied.outcome, Outcome::Expunged { uids, .. } if uids == [Uid(1)]));
    let expunged = limit.saturating_add(millis(OP_TIME_STEP_MAX));
    assert_eq!(group.reader().retained(ANN, 9).unwrap()[0].expunged, expunged);
    group.done(MailboxOp::DeleteMailbox {
        account: ANN,
        mailbox: mailbox(2),
    });
    let deleted = expunged.saturating_add(millis(OP_TIME_STEP_MAX));
    assert_eq!(
        group.reader().deleted_mailbox(mailbox(2)).unwrap().unwrap().deleted,
        deleted
    );
    // What is kept is kept so long from then, and no longer.
    group.now = deleted;
    let until = expunged.saturating_add(millis(RETENTION));
    group.wait_and_tick(Duration::from_millis(until.0 - deleted.0 - 1));
    group.ask(MailboxOp::Prune { limit: 100 });
    assert_eq!(group.reader().retained(ANN, 9).unwrap().len(), 1);
    group.wait_and_tick(Duration::from_millis(1));
    group.ask(MailboxOp::Prune { limit: 100 });
    assert_eq!(group.reader().retained(ANN, 9).unwrap().len(), 0);
}

#[test]
fn a_rename_takes_no_name_that_is_taken_below_the_new_one() {
    let mut group = Group::with_ann();
    group.create("x/b", 2);
    group.create("y/b", 3);
    let y = group.reader().mailbox_by_name(ANN, &name_of("y")).unwrap().unwrap();
    group.done(MailboxOp::DeleteMailbox {
        account: ANN,
        mailbox: y.guid,
    });
    let names = group.names();
    assert_eq!(names, ["INBOX", "x", "x/b", "y/b"]);
    assert_eq!(group.rename("x", "y"), Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(group.names(), names);
    let row = |group: &Group, name: &str| group.reader().mailbox_by_name(ANN, &name_of(name)).unwrap();
    assert_eq!(row(&group, "x/b").unwrap().guid, mailbox(2));
    assert_eq!(row(&group, "y/b").unwrap().guid, mailbox(3));
}

#[test]
fn a_keyword_is_spelled_as_the_mailbox_first_had_it_also_when_flags_are_replaced() {
    let mut group = Group::with_ann();
    group.deliver(1);
    group.deliver(2);
    group.ask(store_keyword(1, "Junk"));
    let MailboxOp::StoreFlags { flags, .. } = store_keyword(2, "JUNK") else {
        panic!()
    };
    group.ask(MailboxOp::StoreFlags {
        account: ANN,
        mailbox: INBOX,
        messages: vec![message(2)],
        change: FlagChange::Replace,
        flags: flags.clone(),
        unchanged_since: None,
    });
    let spelled = |group: &Group| {
        let row = group.reader().message(INBOX, Uid(2)).unwrap().unwrap();
        row.flags
            .keywords
            .iter()
            .map(|keyword| keyword.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(spelled(&group), ["Junk"]);
    // In whatever spelling it is taken away.
    group.ask(MailboxOp::StoreFlags {
        account: ANN,
        mailbox: INBOX,
        messages: vec![message(2)],
        change: FlagChange::Remove,
        flags,
        unchanged_since: None,
    });
    assert_eq!(spelled(&group), Vec::<String>::new());
}

#[test]
fn a_guid_of_a_mailbox_is_for_ever() {
    let mut group = Group::with_ann();
    group.create("a", 2);
    assert_eq!(group.create("b", 2), Outcome::Refused(Refusal::AlreadyExists));
    group.done(MailboxOp::DeleteMailbox {
        account: ANN,
        mailbox: mailbox(2),
    });
    assert_eq!(group.create("b", 2), Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(group.names(), ["INBOX"]);
}

/// What those who watch are told, manifest apart.
fn effects(group: &mut Group, op: MailboxOp) -> Vec<String> {
    let applied = group.applied(Op::Mailbox(op));
    assert!(!matches!(applied.outcome, Outcome::Refused(_)), "{:?}", applied.outcome);
    let mut told: Vec<String> = applied
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Mailbox {
                account: ANN,
                mailbox,
                highest_modseq,
            } => Some(format!("{} at {}", mailbox.0[0], highest_modseq.0)),
            Effect::MailboxList { account: ANN } => Some("list".to_owned()),
            Effect::Manifest(_) | Effect::BlobAdded { .. } => None,
            other => Some(format!("{other:?}")),
        })
        .collect();
    told.sort();
    told
}

#[test]
fn those_who_watch_are_told_of_what_changed_and_of_nothing_else() {
    let mut group = Group::with_ann();
    let (account, from) = (ANN, INBOX);
    let create = MailboxOp::CreateMailbox {
        account,
        name: name_of("a/b"),
        guid: mailbox(2),
        special_use: None,
    };
    let told = effects(&mut group, create);
    assert!(
        told.len() == 3 && told.contains(&"2 at 1".to_owned()) && told.contains(&"list".to_owned()),
        "{told:?}"
    );
    assert_eq!(effects(&mut group, delivery(1, from)), ["1 at 2"]);
    assert_eq!(effects(&mut group, delivery(1, from)), Vec::<String>::new());
    let (to, messages) = (mailbox(2), vec![message(1)]);
    let seen = |unchanged_since| MailboxOp::StoreFlags {
        account,
        mailbox: from,
        messages: vec![message(1)],
        change: FlagChange::Add,
        flags: Flags::system(Flags::SEEN),
        unchanged_since,
    };
    assert_eq!(effects(&mut group, seen(Some(ModSeq(1)))), Vec::<String>::new());
    assert_eq!(effects(&mut group, seen(None)), ["1 at 3"]);
    assert_eq!(effects(&mut group, seen(None)), Vec::<String>::new());
    let copy = MailboxOp::Copy {
        account,
        from,
        to,
        messages: messages.clone(),
        seed: [3; 16],
    };
    assert_eq!(effects(&mut group, copy), ["2 at 2"]);
    let moved = MailboxOp::Move {
        account,
        from,
        to,
        messages,
    };
    assert_eq!(effects(&mut group, moved), ["1 at 4", "2 at 3"]);
    assert_eq!(effects(&mut group, expunge(&[1])), Vec::<String>::new());
    let rename = MailboxOp::RenameMailbox {
        account,
        mailbox: to,
        to: name_of("c"),
        new_guid: mailbox(9),
    };
    assert_eq!(effects(&mut group, rename), ["2 at 3", "list"]);
    let subscribe = |subscribed| MailboxOp::Subscribe {
        account,
        name: name_of("c"),
        subscribed,
    };
    assert_eq!(effects(&mut group, subscribe(true)), ["list"]);
    assert_eq!(effects(&mut group, subscribe(true)), Vec::<String>::new());
    assert_eq!(effects(&mut group, subscribe(false)), ["list"]);
    let delete = MailboxOp::DeleteMailbox { account, mailbox: to };
    assert_eq!(effects(&mut group, delete), ["2 at 3", "list"]);
    assert_eq!(
        effects(&mut group, MailboxOp::RemoveAccount { account })
            .last()
            .unwrap(),
        "list"
    );
}
