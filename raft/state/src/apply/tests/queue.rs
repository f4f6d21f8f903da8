//! Tests of the queue's ops.

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
