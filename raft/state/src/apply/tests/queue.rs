//! Tests of the queue's ops.

use core_types::limits::{QUEUE_ATTEMPT_TIME, QUEUE_EXPIRY, QUEUE_RETRY_MAX};
use core_types::{Address, QueueId};

use super::*;
use crate::command::QueueAction;
use crate::rows::{QueueEntry, QueuedRecipient, RecipientState};

const ENTRY: QueueId = QueueId([5; 16]);

fn entry(recipient_count: usize) -> QueueEntry {
    let recipient = QueuedRecipient {
        address: Address::parse("b@elsewhere.example").unwrap(),
        guid: message(1),
        account: None,
        notify: QueuedRecipient::NOTIFY_FAILURE,
        original: None,
        state: RecipientState::Waiting(None),
    };
    QueueEntry {
        id: ENTRY,
        blob: BlobId::of(b"queued"),
        size: 6,
        receipts: Receipts::default(),
        reverse_path: None,
        return_full: false,
        envelope_id: None,
        smtputf8: false,
        recipients: vec![recipient; recipient_count],
        created: START,
        expires: START.saturating_add(1000),
        next_attempt: START.saturating_add(10),
        attempts: 0,
        held: None,
        attempt: None,
        structure: vec![],
    }
}

fn due(group: &Group, after_start: u64) -> usize {
    group
        .reader()
        .queue_due(START.saturating_add(after_start), 9)
        .unwrap()
        .len()
}

#[test]
fn an_entry_is_due_at_its_time_and_not_while_it_is_tried_or_held() {
    let mut group = Group::with_ann();
    group.done(MailboxOp::Enqueue(Box::new(entry(2))));
    group.done(MailboxOp::Enqueue(Box::new(entry(2))));
    assert_eq!((due(&group, 9), due(&group, 10)), (0, 1));
    assert_eq!(group.reader().queue_next_due().unwrap(), Some(START.saturating_add(10)));

    let start = |node| MailboxOp::AttemptStarted {
        entry: ENTRY,
        node: NodeId(node),
        deadline: START.saturating_add(50),
    };
    group.done(start(1));
    assert!(matches!(group.ask(start(2)), Outcome::Refused(Refusal::InUse(_))));
    assert_eq!((due(&group, 49), due(&group, 50)), (0, 1));

    let results = vec![(0, RecipientState::Done)];
    group.done(MailboxOp::AttemptFinished {
        entry: ENTRY,
        results,
        next_attempt: START.saturating_add(70),
    });
    assert_eq!((due(&group, 69), due(&group, 70)), (0, 1));
    group.done(MailboxOp::QueueControl {
        entry: ENTRY,
        action: QueueAction::Hold,
    });
    assert_eq!(due(&group, 1000), 0);
    assert!(matches!(group.ask(start(1)), Outcome::Refused(Refusal::InUse(_))));
    group.done(MailboxOp::QueueControl {
        entry: ENTRY,
        action: QueueAction::Release,
    });
    assert_eq!(
        (
            due(&group, 0),
            group.reader().queue_entry(ENTRY).unwrap().unwrap().attempts
        ),
        (1, 0)
    );
}

#[test]
fn an_entrys_times_are_the_groups_whatever_a_nodes_clock_says() {
    let day = millis(OP_TIME_STEP_MAX);
    let stored = |group: &Group| group.reader().queue_entry(ENTRY).unwrap().unwrap();
    // A node that is three days ahead: the group follows by one at once.
    let mut group = Group::with_ann();
    group.now = START.saturating_add(3 * day);
    let ahead = QueueEntry {
        created: group.now,
        expires: group.now.saturating_add(1000),
        next_attempt: group.now.saturating_add(10),
        ..entry(1)
    };
    group.done(MailboxOp::Enqueue(Box::new(ahead.clone())));
    let time = START.saturating_add(day);
    let after = |time: UnixMillis, pause| time.saturating_add(pause);
    assert_eq!(
        (
            stored(&group).created,
            stored(&group).next_attempt,
            stored(&group).expires
        ),
        (ahead.created, after(time, 10), after(time, 1000))
    );
    group.done(MailboxOp::AttemptStarted {
        entry: ENTRY,
        node: NodeId(1),
        deadline: group.now.saturating_add(50),
    });
    let time = after(time, day);
    assert_eq!(stored(&group).attempt, Some((NodeId(1), after(time, 50))));
    // One that is behind.
    group.now = START;
    group.done(MailboxOp::AttemptFinished {
        entry: ENTRY,
        results: vec![],
        next_attempt: START.saturating_add(70),
    });
    assert_eq!(stored(&group).next_attempt, after(time, 70));

    // Nothing lasts for longer than it may.
    let far = START.saturating_add(1000 * day);
    group.done(MailboxOp::AttemptStarted {
        entry: ENTRY,
        node: NodeId(1),
        deadline: far,
    });
    assert_eq!(
        stored(&group).attempt,
        Some((NodeId(1), after(time, millis(QUEUE_ATTEMPT_TIME))))
    );
    group.done(MailboxOp::AttemptFinished {
        entry: ENTRY,
        results: vec![],
        next_attempt: far,
    });
    let longest = millis(QUEUE_RETRY_MAX) / 4 * 5;
    assert_eq!(stored(&group).next_attempt, after(time, longest));
    let never = QueueEntry {
        id: QueueId([6; 16]),
        created: START,
        expires: far,
        next_attempt: far,
        ..entry(1)
    };
    group.done(MailboxOp::Enqueue(Box::new(never)));
    let never = group.reader().queue_entry(QueueId([6; 16])).unwrap().unwrap();
    assert_eq!(
        (never.next_attempt, never.expires),
        (after(time, longest), after(time, millis(QUEUE_EXPIRY)))
    );
}

#[test]
fn an_entry_ends_with_its_last_recipient_and_does_not_come_back() {
    let mut group = Group::with_ann();
    group.done(MailboxOp::Enqueue(Box::new(entry(2))));
    let finish = |results| MailboxOp::AttemptFinished {
        entry: ENTRY,
        results,
        next_attempt: START,
    };
    group.done(finish(vec![(0, RecipientState::Done)]));
    group.done(finish(vec![
        (0, RecipientState::Waiting(None)),
        (1, RecipientState::Waiting(Some("450".into()))),
    ]));
    assert_eq!(
        group.reader().queue_entry(ENTRY).unwrap().unwrap().recipients[0].state,
        RecipientState::Done
    );
    assert!(matches!(
        group.ask(finish(vec![(2, RecipientState::Done)])),
        Outcome::Refused(Refusal::Invalid(_))
    ));
    let applied = group.applied(Op::Mailbox(finish(vec![(1, RecipientState::Failed("550".into()))])));
    assert_eq!(
        applied.effects,
        [Effect::BlobReleased(BlobId::of(b"queued")), Effect::Queue]
    );
    assert_eq!(group.reader().queue(None, 9).unwrap(), vec![]);
    // A repetition from the spool, long after its op id was settled.
    group.done(MailboxOp::Enqueue(Box::new(entry(2))));
    assert_eq!((group.reader().queue(None, 9).unwrap(), due(&group, 1000)), (vec![], 0));
}

#[test]
fn a_dropped_entry_is_forgotten_and_an_empty_one_refused() {
    let mut group = Group::with_ann();
    assert!(matches!(
        group.ask(MailboxOp::Enqueue(Box::new(entry(0)))),
        Outcome::Refused(Refusal::Invalid(_))
    ));
    group.done(MailboxOp::Enqueue(Box::new(entry(1))));
    assert_eq!(group.reader().counts().unwrap().queue_entries, 1);
    group.done(MailboxOp::QueueControl {
        entry: ENTRY,
        action: QueueAction::Drop,
    });
    let again = group.ask(MailboxOp::QueueControl {
        entry: ENTRY,
        action: QueueAction::Drop,
    });
    assert!(matches!(again, Outcome::Refused(Refusal::NoSuchObject(_))));
    assert!(!group.reader().references_blob(BlobId::of(b"queued")).unwrap());
    assert_eq!(due(&group, 1000), 0);
}
