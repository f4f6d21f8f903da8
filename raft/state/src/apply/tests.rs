//! Tests of `apply`: stories of single rules here, random histories against a naive model in `histories`.

mod directory;
mod directory_nodes;
mod edges;
mod group;
mod histories;
mod model;
mod queue;
mod repetitions;

use core_types::limits::{
    BLOB_BYTES_MAX, DELIVERY_MEMORY, KEYWORDS_PER_MAILBOX_MAX, MESSAGE_BYTES_MAX, MESSAGE_TRACE_BYTES_MAX,
    OP_TIME_STEP_MAX, RETENTION, UNSETTLED_OPS_MAX,
};
use core_types::{
    AccountId, BlobId, EmailId, Flags, Keyword, KvEngine, MailboxGuid, MailboxName, MessageGuid, ModSeq, NodeId, OpId,
    Uid, UnixMillis,
};

use super::*;
use crate::command::{Delivery, DeliveryTarget, DirectoryOp, FlagChange, GroupOp, NewMessage, Receipts};
use crate::mailbox::Reader;
use crate::outcome::Placed;
use crate::{MemoryEngine, digest};

/// Some day in 2023.
pub(super) const START: UnixMillis = UnixMillis(1_700_000_000_000);
pub(super) const ANN: AccountId = AccountId([1; 16]);
pub(super) const INBOX: MailboxGuid = MailboxGuid([1; 16]);

/// A group of one replica.
pub(super) struct Group {
    pub(super) engine: MemoryEngine,
    pub(super) kind: MachineKind,
    pub(super) now: UnixMillis,
    seq: u64,
}

impl Group {
    pub(super) fn new(kind: MachineKind) -> Self {
        Self {
            engine: MemoryEngine::default(),
            kind,
            now: START,
            seq: 0,
        }
    }

    /// With Ann and her INBOX.
    pub(super) fn with_ann() -> Self {
        let mut group = Self::new(MachineKind::Mailbox);
        group.done(MailboxOp::CreateAccount {
            account: ANN,
            inbox: INBOX,
            mailboxes: vec![],
            quota_bytes: None,
        });
        group
    }

    pub(super) fn run(&mut self, command: &Command) -> Applied {
        let applied = apply(&self.engine, self.kind, command).unwrap();
        self.engine.write(&applied.batch).unwrap();
        applied
    }

    pub(super) fn command(&mut self, op: Op) -> Command {
        self.seq += 1;
        let op_id = OpId {
            node: NodeId(1),
            boot: 7,
            seq: self.seq,
        };
        Command {
            op_id,
            settled_below: self.seq,
            time: self.now,
            op,
        }
    }

    pub(super) fn applied(&mut self, op: Op) -> Applied {
        let command = self.command(op);
        self.run(&command)
    }

    pub(super) fn ask(&mut self, op: MailboxOp) -> Outcome {
        self.applied(Op::Mailbox(op)).outcome
    }

    pub(super) fn done(&mut self, op: MailboxOp) {
        assert_eq!(self.ask(op), Outcome::Done);
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader::new(&self.engine)
    }

    pub(super) fn deliver(&mut self, number: u8) -> Placed {
        match self.ask(delivery(number, INBOX)) {
            Outcome::Delivered(results) => results[0].clone().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now = self.now.saturating_add(millis(time));
    }

    /// Lets op time pass in steps that the group follows.
    pub(super) fn wait_and_tick(&mut self, time: Duration) {
        let end = self.now.saturating_add(millis(time));
        while self.now < end {
            self.now = end.min(self.now.saturating_add(millis(OP_TIME_STEP_MAX)));
            self.ask(MailboxOp::Prune { limit: 0 });
        }
    }

    pub(super) fn create(&mut self, name: &str, number: u8) -> Outcome {
        let guid = mailbox(number);
        self.ask(MailboxOp::CreateMailbox {
            account: ANN,
            name: name_of(name),
            guid,
            special_use: None,
        })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.reader()
            .mailboxes(ANN)
            .unwrap()
            .iter()
            .map(|row| row.name.to_string())
            .collect()
    }
}

pub(super) fn name_of(text: &str) -> MailboxName {
    MailboxName::parse(text).unwrap()
}

pub(super) fn mailbox(number: u8) -> MailboxGuid {
    MailboxGuid([number; 16])
}

pub(super) fn message(number: u8) -> MessageGuid {
    MessageGuid([number; 16])
}

pub(super) fn delivery(number: u8, mailbox: MailboxGuid) -> MailboxOp {
    let target = DeliveryTarget {
        account: ANN,
        guid: message(number),
        mailbox: Some(mailbox),
        flags: Flags::default(),
    };
    MailboxOp::Deliver(Delivery {
        message: NewMessage {
            blob: BlobId::of(&[number]),
            size: 100,
            email_id: EmailId([number; 16]),
            internal_date: START,
            structure: vec![number],
        },
        receipts: Receipts {
            nodes: vec![NodeId(1), NodeId(2)],
            ..Receipts::default()
        },
        targets: vec![target],
        enforce_quota: true,
    })
}

pub(super) fn expunge(numbers: &[u8]) -> MailboxOp {
    let messages = numbers.iter().map(|number| message(*number)).collect();
    MailboxOp::Expunge {
        account: ANN,
        mailbox: INBOX,
        messages,
        only_deleted: false,
    }
}

fn store_keyword(number: u8, keyword: &str) -> MailboxOp {
    let mut flags = Flags::default();
    flags.keywords.extend(Keyword::parse(keyword));
    MailboxOp::StoreFlags {
        account: ANN,
        mailbox: INBOX,
        messages: vec![message(number)],
        change: FlagChange::Add,
        flags,
        unchanged_since: None,
    }
}

#[test]
fn a_repetition_is_answered_and_changes_nothing() {
    let mut group = Group::with_ann();
    let command = group.command(Op::Mailbox(delivery(1, INBOX)));
    let first = group.run(&command);
    let before = group.engine.entries();
    let again = group.run(&command);
    assert_eq!(again.outcome, first.outcome);
    assert!(again.batch.is_empty() && again.effects.is_empty());
    assert_eq!(group.engine.entries(), before);

    let other = Command {
        op: Op::Mailbox(delivery(2, INBOX)),
        ..command.clone()
    };
    assert_eq!(group.run(&other).outcome, Outcome::Refused(Refusal::OpIdReused));

    group.deliver(3);
    assert_eq!(group.run(&command).outcome, Outcome::Refused(Refusal::AlreadySettled));
}

#[test]
fn the_window_of_unsettled_ops_is_bounded_until_some_are_settled() {
    let mut group = Group::with_ann();
    let command = |seq: usize, settled_below: u64| Command {
        op_id: OpId {
            node: NodeId(2),
            boot: 1,
            seq: seq as u64,
        },
        settled_below,
        time: START,
        op: Op::Group(GroupOp::CaughtUp {
            replica: NodeId(2),
            index: seq as u64,
        }),
    };
    for seq in 1..=UNSETTLED_OPS_MAX {
        assert_eq!(group.run(&command(seq, 0)).outcome, Outcome::Done);
    }
    let next = UNSETTLED_OPS_MAX + 1;
    assert!(matches!(
        group.run(&command(next, 0)).outcome,
        Outcome::Refused(Refusal::Limit(_))
    ));
    assert_eq!(group.run(&command(next, 2)).outcome, Outcome::Done);
    assert!(matches!(
        group.run(&command(next + 1, 2)).outcome,
        Outcome::Refused(Refusal::Limit(_))
    ));
    assert_eq!(
        digest::stored(&group.engine).unwrap(),
        digest::recomputed(&group.engine).unwrap()
    );
}

#[test]
fn op_time_never_goes_back_and_never_far_ahead() {
    let mut group = Group::with_ann();
    let day = millis(OP_TIME_STEP_MAX);
    let time = |group: &Group| crate::group::Reader::new(&group.engine).time().unwrap().unwrap();
    assert_eq!(time(&group), START);
    group.now = UnixMillis(0);
    group.deliver(1);
    assert_eq!(time(&group), START);
    group.now = UnixMillis(u64::MAX);
    group.deliver(2);
    assert_eq!(time(&group), START.saturating_add(day));
}

#[test]
fn a_message_of_the_largest_size_is_delivered_with_its_trace_fields() {
    let mut group = Group::with_ann();
    let sized = |number: u8, size: u64| {
        let MailboxOp::Deliver(mut delivery) = delivery(number, INBOX) else {
            panic!()
        };
        delivery.message.size = size;
        MailboxOp::Deliver(delivery)
    };
    for (number, size) in [(1, MESSAGE_BYTES_MAX + MESSAGE_TRACE_BYTES_MAX), (2, BLOB_BYTES_MAX)] {
        assert!(
            matches!(group.ask(sized(number, size)), Outcome::Delivered(_)),
            "{size}"
        );
    }
    assert!(matches!(
        group.ask(sized(3, BLOB_BYTES_MAX + 1)),
        Outcome::Refused(Refusal::Limit(_))
    ));
}

#[test]
fn a_guid_is_delivered_once_also_after_its_expunge_and_after_its_mailbox_is_gone() {
    let mut group = Group::with_ann();
    group.create("a", 2);
    let first = group.deliver(1);
    assert_eq!(
        group.deliver(1),
        Placed {
            repeated: true,
            ..first
        }
    );
    assert_eq!(group.reader().account(ANN).unwrap().unwrap().message_count, 1);
    group.ask(expunge(&[1]));
    let after = group.deliver(1);
    assert_eq!((after.uid, after.repeated), (first.uid, true));

    let op = MailboxOp::Move {
        account: ANN,
        from: INBOX,
        to: mailbox(2),
        messages: vec![message(2)],
    };
    group.deliver(2);
    group.ask(op);
    group.done(MailboxOp::DeleteMailbox {
        account: ANN,
        mailbox: mailbox(2),
    });
    let after = group.deliver(2);
    assert_eq!((after.mailbox, after.uid, after.repeated), (mailbox(2), Uid(1), true));
    assert_eq!(group.reader().message_by_guid(ANN, message(2)).unwrap(), None);

    // Remembered for DELIVERY_MEMORY of op time, then let go of.
    group.wait_and_tick(DELIVERY_MEMORY - Duration::from_secs(1));
    group.ask(MailboxOp::Prune { limit: 100 });
    assert!(group.deliver(1).repeated && group.deliver(2).repeated);
    group.wait_and_tick(Duration::from_secs(1));
    group.ask(MailboxOp::Prune { limit: 100 });
    assert!(!group.deliver(1).repeated && !group.deliver(2).repeated);
}

#[test]
fn an_expunged_messages_bytes_are_kept_for_the_retention_time() {
    let mut group = Group::with_ann();
    group.deliver(1);
    group.ask(expunge(&[1]));
    let blob = BlobId::of(&[1]);
    group.wait_and_tick(RETENTION - Duration::from_secs(1));
    assert_eq!(
        group.ask(MailboxOp::Prune { limit: 9 }),
        Outcome::Pruned { rows: 0, more: false }
    );
    assert!(group.reader().references_blob(blob).unwrap());
    assert_eq!(group.reader().retained(ANN, 9).unwrap().len(), 1);
    group.wait(Duration::from_secs(1));
    let applied = group.applied(Op::Mailbox(MailboxOp::Prune { limit: 9 }));
    assert_eq!(applied.effects, vec![Effect::BlobReleased(blob)]);
    assert!(!group.reader().references_blob(blob).unwrap());
}

#[test]
fn prune_keeps_to_its_limit_and_leaves_nothing_of_a_deleted_account() {
    let mut group = Group::with_ann();
    let empty = group.engine.entries().len();
    group.create("a/b", 2);
    for number in 1..=9 {
        group.deliver(number);
    }
    group.ask(expunge(&[1, 2, 3]));
    group.done(MailboxOp::RemoveAccount { account: ANN });
    assert_eq!(group.reader().counts().unwrap(), crate::mailbox::Counts::default());
    group.wait_and_tick(DELIVERY_MEMORY);
    let mut rounds = 0;
    while let Outcome::Pruned { rows, more: true } = group.ask(MailboxOp::Prune { limit: 2 }) {
        assert!(rows <= 2);
        rounds += 1;
        assert!(rounds < 100);
    }
    // Meta, digest, the op's window and outcome: Ann's five rows are gone with all others.
    assert_eq!(
        group.engine.entries().len(),
        empty - 4,
        "{:?}",
        group.engine.entries().keys()
    );
    assert_eq!(group.reader().all_blobs(None, 9).unwrap(), vec![]);
    assert_eq!(
        digest::stored(&group.engine).unwrap(),
        digest::recomputed(&group.engine).unwrap()
    );
}

#[test]
fn who_asks_for_forgotten_changes_is_told_so() {
    let mut group = Group::with_ann();
    group.deliver(1);
    let before = group.deliver(2).modseq;
    group.ask(expunge(&[1]));
    let changes = group.reader().changes_since(INBOX, before, 9).unwrap().unwrap();
    assert!(!changes.forgotten && changes.changes.len() == 1);
    group.wait_and_tick(DELIVERY_MEMORY);
    group.ask(MailboxOp::Prune { limit: 100 });
    let changes = group.reader().changes_since(INBOX, before, 9).unwrap().unwrap();
    assert!(changes.forgotten && changes.changes.is_empty());
    let now = ModSeq(before.0 + 1);
    assert!(!group.reader().changes_since(INBOX, now, 9).unwrap().unwrap().forgotten);
}

#[test]
fn keywords_of_a_mailbox_are_limited_and_spelled_as_first_seen() {
    let mut group = Group::with_ann();
    group.deliver(1);
    group.ask(store_keyword(1, "Junk"));
    group.ask(store_keyword(1, "JUNK"));
    let row = group.reader().message(INBOX, Uid(1)).unwrap().unwrap();
    assert_eq!(
        row.flags.keywords.iter().map(Keyword::as_str).collect::<Vec<_>>(),
        ["Junk"]
    );
    for number in 1..KEYWORDS_PER_MAILBOX_MAX {
        assert!(matches!(
            group.ask(store_keyword(1, &format!("k{number}"))),
            Outcome::Stored { .. }
        ));
    }
    assert!(matches!(
        group.ask(store_keyword(1, "more")),
        Outcome::Refused(Refusal::Limit(_))
    ));
    assert!(matches!(group.ask(store_keyword(1, "junk")), Outcome::Stored { .. }));
}

#[test]
fn uids_of_the_trunk_jump_over_the_islands_blocks() {
    let mut group = Group::with_ann();
    let mut row = group.reader().mailbox(INBOX).unwrap().unwrap();
    row.uid_next = Uid(4095);
    let mut batch = Batch::default();
    batch.put(keys::mailbox(INBOX), store::encode(&row).unwrap());
    group.engine.write(&batch).unwrap();
    assert_eq!(
        [group.deliver(1).uid, group.deliver(2).uid],
        [Uid(4095), Uid(32 * 4096)]
    );
}

#[test]
fn creating_a_mailbox_makes_its_superiors_and_renaming_moves_its_inferiors() {
    let mut group = Group::with_ann();
    assert!(matches!(group.create("a/b/c", 2), Outcome::MailboxCreated { .. }));
    assert!(matches!(group.create("ab", 3), Outcome::MailboxCreated { .. }));
    assert_eq!(group.names(), ["INBOX", "a", "a/b", "a/b/c", "ab"]);
    let a = group.reader().mailbox_by_name(ANN, &name_of("a")).unwrap().unwrap();
    let rename = |to: &str| MailboxOp::RenameMailbox {
        account: ANN,
        mailbox: a.guid,
        to: name_of(to),
        new_guid: mailbox(9),
    };
    assert_eq!(group.ask(rename("ab")), Outcome::Refused(Refusal::AlreadyExists));
    assert_eq!(group.ask(rename("a/x")), Outcome::Refused(Refusal::IntoItself));
    assert!(matches!(
        group.ask(rename(&vec!["x"; 31].join("/"))),
        Outcome::Refused(Refusal::BadName(_))
    ));
    assert_eq!(group.names(), ["INBOX", "a", "a/b", "a/b/c", "ab"]);
    assert_eq!(group.ask(rename("x/y")), Outcome::Done);
    assert_eq!(group.names(), ["INBOX", "ab", "x", "x/y", "x/y/b", "x/y/b/c"]);
    let renamed = group.reader().mailbox_by_name(ANN, &name_of("x/y")).unwrap().unwrap();
    assert_eq!((renamed.guid, renamed.uid_validity), (a.guid, a.uid_validity));
    // A mailbox without its own superior: deleting leaves what is below.
    assert_eq!(
        group.ask(MailboxOp::DeleteMailbox {
            account: ANN,
            mailbox: a.guid
        }),
        Outcome::Done
    );
    assert_eq!(group.names(), ["INBOX", "ab", "x", "x/y/b", "x/y/b/c"]);
    assert_eq!(group.create("new", 2), Outcome::Refused(Refusal::AlreadyExists));
}

#[test]
fn a_mailbox_made_anew_has_a_higher_uid_validity() {
    let mut group = Group::with_ann();
    group.create("a", 2);
    let old = group.reader().mailbox(mailbox(2)).unwrap().unwrap().uid_validity;
    group.done(MailboxOp::DeleteMailbox {
        account: ANN,
        mailbox: mailbox(2),
    });
    group.create("a", 3);
    let new = group.reader().mailbox(mailbox(3)).unwrap().unwrap().uid_validity;
    assert!(new > old && new.0.is_multiple_of(32) && old.0.is_multiple_of(32));
    assert!(old.0 >= START.seconds());
}

#[test]
fn a_quota_stops_appends_and_copies_but_not_mail_that_was_accepted() {
    let mut group = Group::with_ann();
    group.done(MailboxOp::SetQuota {
        account: ANN,
        quota_bytes: Some(200),
    });
    group.deliver(1);
    group.deliver(2);
    assert_eq!(
        group.ask(delivery(3, INBOX)),
        Outcome::Delivered(vec![Err(Refusal::OverQuota)])
    );
    let copy = MailboxOp::Copy {
        account: ANN,
        from: INBOX,
        to: INBOX,
        messages: vec![message(1)],
        seed: [1; 16],
    };
    assert_eq!(group.ask(copy), Outcome::Refused(Refusal::OverQuota));
    let MailboxOp::Deliver(mut accepted) = delivery(3, INBOX) else {
        panic!()
    };
    accepted.enforce_quota = false;
    assert!(matches!(group.ask(MailboxOp::Deliver(accepted)), Outcome::Delivered(results) if results[0].is_ok()));
    assert_eq!(group.reader().quota(ANN).unwrap().unwrap().used_bytes, 300);
}

#[test]
fn one_target_that_is_refused_does_not_touch_the_others() {
    let mut group = Group::with_ann();
    let MailboxOp::Deliver(mut delivery) = delivery(1, INBOX) else {
        panic!()
    };
    let target = delivery.targets[0].clone();
    delivery.targets.insert(
        0,
        DeliveryTarget {
            account: AccountId([9; 16]),
            ..target.clone()
        },
    );
    delivery.targets.insert(
        1,
        DeliveryTarget {
            mailbox: Some(mailbox(9)),
            guid: message(8),
            ..target.clone()
        },
    );
    delivery.targets.push(DeliveryTarget {
        mailbox: None,
        guid: message(9),
        ..target
    });
    let applied = group.applied(Op::Mailbox(MailboxOp::Deliver(delivery)));
    let Outcome::Delivered(results) = applied.outcome else {
        panic!()
    };
    assert_eq!(results[0], Err(Refusal::NoSuchAccount));
    assert_eq!(results[1], Err(Refusal::NoSuchMailbox));
    assert_eq!(
        [results[2].clone().unwrap().uid, results[3].clone().unwrap().uid],
        [Uid(1), Uid(2)]
    );
    let added = Effect::BlobAdded {
        blob: BlobId::of(&[1]),
        holders: vec![NodeId(1), NodeId(2)],
    };
    assert_eq!(applied.effects.iter().filter(|effect| **effect == added).count(), 1);
    assert_eq!(group.reader().structure(INBOX, Uid(1)).unwrap(), Some(vec![1]));
}
