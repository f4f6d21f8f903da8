//! Mail that could not be delivered at once: what the queue's worker makes of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use core_types::limits::{QUEUE_ATTEMPT_TIME, QUEUE_EXPIRY};
use core_types::{Address, GroupId, MailboxName, NodeId, QueueId};
use directory::Account;
use mailstore::testing::TestStore;
use mailstore::{DeliverTo, Delivered, EnvelopeFrom};
use queue::Worker;
use state::command::QueueAction;
use state::rows::{QueueEntry, QueuedRecipient, RecipientState};
use state::{DirectoryOp, MailboxOp};
use wire::Shutdown;

const MESSAGE: &[u8] = b"Return-Path: <x@y.example>\r\nSubject: hello\r\n\r\nbody\r\n";

fn worker(test: &TestStore, node: u64) -> Worker {
    Worker {
        store: test.store.clone(),
        node: NodeId(node),
        hostname: "mx.example.test".into(),
        leads: Arc::new(|_| true),
    }
}

fn start(worker: Worker) {
    tokio::spawn(queue::run(worker, Shutdown::never()));
}

fn from(sender: Option<&str>) -> EnvelopeFrom {
    EnvelopeFrom {
        reverse_path: sender.map(|sender| Address::parse(sender).unwrap()),
        ..EnvelopeFrom::default()
    }
}

/// Delivers while the account's group is cut: the message is queued.
async fn queued(test: &TestStore, account: &Account, from: EnvelopeFrom, notify: u8) -> QueueId {
    test.set_available(account.group, false);
    let message = test.ingest(MESSAGE).await;
    let to = DeliverTo {
        address: account.address.clone(),
        accounts: vec![account.clone()],
        notify,
        original: Some(format!("rfc822;{}", account.address)),
    };
    match test.store.deliver(&message, &from, &[to], false).await.pop() {
        Some(Ok(Delivered::Queued(id))) => id,
        other => panic!("{other:?}"),
    }
}

/// Lets time go by: by the wall clock in large steps, in each of which the worker gets to look.
async fn pass(test: &TestStore, time: Duration) {
    let step = (time / 200).clamp(Duration::from_millis(500), Duration::from_secs(3600));
    let mut left = time;
    while !left.is_zero() {
        let now = step.min(left);
        test.clock.advance(now.as_millis().try_into().unwrap());
        tokio::time::sleep(now.min(Duration::from_secs(6))).await;
        left -= now;
    }
    // What began just now comes to its end.
    tokio::time::sleep(Duration::from_secs(6)).await;
}

async fn inbox(test: &TestStore, account: &Account) -> Vec<String> {
    let mail = test.store.account(account);
    let inbox = mail.select(&MailboxName::inbox()).await.unwrap().unwrap();
    let mut messages = Vec::new();
    for row in inbox.messages {
        let bytes = mail.open(&row).await.unwrap();
        messages.push(String::from_utf8(bytes.read_all(0..u64::MAX).await.unwrap()).unwrap());
    }
    messages
}

async fn entries(test: &TestStore) -> Vec<(GroupId, QueueEntry)> {
    let mut all = Vec::new();
    for group in (1..=4).map(GroupId) {
        let of_group = test
            .store
            .groups()
            .query(group, |view| state::mailbox::Reader::new(view).queue(None, 100))
            .await
            .unwrap();
        all.extend(of_group.into_iter().map(|entry| (group, entry)));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn mail_for_a_group_that_comes_back_is_delivered_exactly_once() {
    let test = TestStore::new(2).await;
    let account = &test.accounts[0];
    let id = queued(&test, account, from(None), 0).await;
    start(worker(&test, 1));
    start(worker(&test, 2));
    pass(&test, Duration::from_secs(60)).await;
    let waiting = entries(&test).await;
    assert_eq!((waiting.len(), waiting[0].1.id), (1, id));
    assert!(
        waiting[0].1.attempts > 2 && waiting[0].1.attempts < 10,
        "{}",
        waiting[0].1.attempts
    );
    assert!(
        matches!(&waiting[0].1.recipients[0].state, RecipientState::Waiting(Some(reason)) if reason.contains("no majority"))
    );
    test.set_available(account.group, true);
    pass(&test, Duration::from_secs(120)).await;
    assert_eq!(inbox(&test, account).await, [String::from_utf8_lossy(MESSAGE)]);
    assert!(entries(&test).await.is_empty());
    pass(&test, Duration::from_secs(24 * 3600)).await;
    assert_eq!(inbox(&test, account).await.len(), 1);
    assert!(inbox(&test, &test.accounts[1]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_end_was_not_written_down_delivers_nothing_twice() {
    let test = TestStore::new(1).await;
    let account = &test.accounts[0];
    queued(&test, account, from(None), 0).await;
    test.set_available(account.group, true);
    // Another node delivered, and died before it could say so.
    let (group, entry) = entries(&test).await.remove(0);
    let message = test.store.take_again(entry.blob).await.unwrap();
    let target = (account.id, entry.recipients[0].guid);
    test.store
        .redeliver(account.group, &message, entry.created, &[target])
        .await
        .unwrap();
    assert_eq!(inbox(&test, account).await.len(), 1);
    start(worker(&test, 1));
    pass(&test, Duration::from_secs(60)).await;
    assert_eq!(inbox(&test, account).await.len(), 1);
    assert!(entries(&test).await.is_empty(), "{group}");
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_waits_for_the_deadline_of_the_old_ones_attempt() {
    let test = TestStore::new(1).await;
    let account = &test.accounts[0];
    let id = queued(&test, account, from(None), 0).await;
    let (group, _) = entries(&test).await.remove(0);
    let now = core_types::Clock::now(test.clock.as_ref());
    let started = MailboxOp::AttemptStarted {
        entry: id,
        node: NodeId(9),
        deadline: now.saturating_add(QUEUE_ATTEMPT_TIME.as_millis().try_into().unwrap()),
    };
    test.store.propose(group, started).await.unwrap();
    test.set_available(account.group, true);
    start(worker(&test, 1));
    pass(&test, QUEUE_ATTEMPT_TIME - Duration::from_secs(10)).await;
    assert!(inbox(&test, account).await.is_empty());
    pass(&test, Duration::from_secs(20)).await;
    assert_eq!(inbox(&test, account).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_of_a_group_works_its_queue() {
    let test = TestStore::new(1).await;
    let account = &test.accounts[0];
    queued(&test, account, from(None), 0).await;
    test.set_available(account.group, true);
    let leads = Arc::new(AtomicBool::new(false));
    let of_worker = Arc::clone(&leads);
    start(Worker {
        leads: Arc::new(move |_| of_worker.load(Ordering::SeqCst)),
        ..worker(&test, 1)
    });
    pass(&test, Duration::from_secs(60)).await;
    assert!(inbox(&test, account).await.is_empty());
    leads.store(true, Ordering::SeqCst);
    pass(&test, Duration::from_secs(10)).await;
    assert_eq!(inbox(&test, account).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_expires_is_reported_to_its_sender_once() {
    let test = TestStore::new(2).await;
    let (account, sender) = (&test.accounts[0], &test.accounts[1]);
    let from = EnvelopeFrom {
        envelope_id: Some("env-7".to_owned()),
        ..from(Some("user2@example.test"))
    };
    queued(&test, account, from, QueuedRecipient::NOTIFY_FAILURE).await;
    start(worker(&test, 1));
    start(worker(&test, 2));
    pass(&test, QUEUE_EXPIRY - Duration::from_secs(7200)).await;
    assert!(inbox(&test, sender).await.is_empty());
    pass(&test, Duration::from_secs(4 * 7200)).await;
    assert!(entries(&test).await.is_empty());
    let reports = inbox(&test, sender).await;
    assert_eq!(reports.len(), 1);
    for expected in [
        "Return-Path: <>\r\n",
        "To: <user2@example.test>\r\n",
        "multipart/report; report-type=delivery-status",
        "Original-Envelope-Id: env-7\r\n",
        "Original-Recipient: rfc822;user1@example.test\r\nFinal-Recipient: rfc822; user1@example.test\r\nAction: failed\r\n\
         Status: 4.4.7\r\n",
        "text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n\r\nReturn-Path: <x@y.example>\r\nSubject: hello\r\n\r\n--",
    ] {
        assert!(reports[0].contains(expected), "{expected:?} is not in {}", reports[0]);
    }
    test.set_available(account.group, true);
    assert!(inbox(&test, account).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_wrong_neither_holds_up_mail_nor_ends_it() {
    let test = TestStore::new(2).await;
    let account = &test.accounts[0];
    let right = core_types::Clock::now(test.clock.as_ref());
    let days = |days: u64| days * 24 * 3600 * 1000;
    // Taken by a node that is a day ahead; those that are right work the queue.
    test.clock.set(right.saturating_add(days(1)));
    queued(&test, account, from(Some("user2@example.test")), 0).await;
    test.clock.set(right);
    test.set_available(account.group, true);
    start(worker(&test, 1));
    pass(&test, Duration::from_secs(30)).await;
    assert_eq!(inbox(&test, account).await.len(), 1);

    // Taken by one that is six days behind; and later the clock of the node that tries is six days ahead.
    test.clock.set(core_types::UnixMillis(right.0 - days(6)));
    let notify = QueuedRecipient::NOTIFY_FAILURE;
    queued(&test, account, from(Some("user2@example.test")), notify).await;
    test.clock.set(right);
    pass(&test, Duration::from_secs(60)).await;
    test.clock.set(right.saturating_add(days(6)));
    pass(&test, Duration::from_secs(60)).await;
    let waiting = entries(&test).await;
    assert_eq!(waiting.len(), 1);
    assert!(waiting[0].1.attempts > 2, "{}", waiting[0].1.attempts);
    assert!(inbox(&test, &test.accounts[1]).await.is_empty(), "no report");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_who_does_not_want_it_or_is_not_there() {
    for (sender, notify) in [
        (None, QueuedRecipient::NOTIFY_FAILURE),
        (Some("user2@example.test"), 0),
        (Some("nobody@example.test"), QueuedRecipient::NOTIFY_FAILURE),
    ] {
        let test = TestStore::new(2).await;
        queued(&test, &test.accounts[0], from(sender), notify).await;
        start(worker(&test, 1));
        pass(&test, QUEUE_EXPIRY + Duration::from_secs(7200)).await;
        assert!(entries(&test).await.is_empty(), "{sender:?}");
        assert!(inbox(&test, &test.accounts[1]).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_to_another_domain_is_held_until_mail_can_be_relayed() {
    let test = TestStore::new(1).await;
    let from = from(Some("someone@other.example"));
    queued(&test, &test.accounts[0], from, QueuedRecipient::NOTIFY_FAILURE).await;
    start(worker(&test, 1));
    pass(&test, QUEUE_EXPIRY + Duration::from_secs(7200)).await;
    let held = entries(&test).await;
    assert_eq!(held.len(), 1);
    let entry = &held[0].1;
    assert_eq!(entry.reverse_path, None, "a report makes no report");
    assert_eq!(entry.recipients[0].address.to_string(), "someone@other.example");
    assert_eq!(entry.held.as_deref(), Some("waits until mail can be relayed"));
    assert_eq!(entry.attempts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_late_delivery_is_reported_with_the_message_where_that_was_asked_for() {
    let test = TestStore::new(2).await;
    let (account, sender) = (&test.accounts[0], &test.accounts[1]);
    let from = EnvelopeFrom {
        return_full: true,
        ..from(Some("user2@example.test"))
    };
    queued(&test, account, from, QueuedRecipient::NOTIFY_SUCCESS).await;
    test.set_available(account.group, true);
    start(worker(&test, 1));
    pass(&test, Duration::from_secs(10)).await;
    assert_eq!(inbox(&test, account).await.len(), 1);
    let reports = inbox(&test, sender).await;
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("Action: delivered\r\nStatus: 2.0.0\r\n"));
    assert!(reports[0].contains(&format!(
        "message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\n{}",
        String::from_utf8_lossy(MESSAGE)
    )));
}

#[tokio::test(start_paused = true)]
async fn an_account_that_was_removed_meanwhile_is_reported_at_once() {
    let test = TestStore::new(2).await;
    let account = &test.accounts[0];
    queued(
        &test,
        account,
        from(Some("user2@example.test")),
        QueuedRecipient::NOTIFY_FAILURE,
    )
    .await;
    test.directory_op(DirectoryOp::RemoveAccount { account: account.id })
        .await;
    start(worker(&test, 1));
    pass(&test, Duration::from_secs(10)).await;
    let reports = inbox(&test, &test.accounts[1]).await;
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("Status: 5.1.1\r\n"), "{}", reports[0]);
    assert!(entries(&test).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_the_directory_nothing_is_given_up() {
    let test = TestStore::new(2).await;
    let account = &test.accounts[0];
    queued(
        &test,
        account,
        from(Some("user2@example.test")),
        QueuedRecipient::NOTIFY_FAILURE,
    )
    .await;
    test.directory_op(DirectoryOp::RemoveAccount { account: account.id })
        .await;
    test.set_available(GroupId::DIRECTORY, false);
    start(worker(&test, 1));
    pass(&test, Duration::from_secs(60)).await;
    assert_eq!(entries(&test).await.len(), 1);
    test.set_available(GroupId::DIRECTORY, true);
    pass(&test, Duration::from_secs(120)).await;
    assert!(entries(&test).await.is_empty());
    assert_eq!(inbox(&test, &test.accounts[1]).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_administrators_word_holds() {
    let test = TestStore::new(2).await;
    let account = &test.accounts[0];
    let control = |entry, action| MailboxOp::QueueControl { entry, action };
    let held = queued(&test, account, from(None), 0).await;
    let dropped = queued(&test, account, from(None), 0).await;
    for (group, entry) in entries(&test).await {
        let action = if entry.id == held {
            QueueAction::Hold
        } else {
            QueueAction::Drop
        };
        test.store.propose(group, control(entry.id, action)).await.unwrap();
    }
    test.set_available(account.group, true);
    start(worker(&test, 1));
    pass(&test, Duration::from_secs(3600)).await;
    assert!(inbox(&test, account).await.is_empty());
    let left = entries(&test).await;
    assert_eq!(left.len(), 1);
    assert_ne!(left[0].1.id, dropped);
    test.store
        .propose(left[0].0, control(held, QueueAction::Release))
        .await
        .unwrap();
    pass(&test, Duration::from_secs(10)).await;
    assert_eq!(inbox(&test, account).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_entries_are_worked_a_few_at_a_time_and_all_arrive() {
    let test = TestStore::new(3).await;
    for _ in 0..40 {
        queued(&test, &test.accounts[0], from(None), 0).await;
    }
    test.set_available(test.accounts[0].group, true);
    start(worker(&test, 1));
    pass(&test, Duration::from_secs(30)).await;
    assert_eq!(inbox(&test, &test.accounts[0]).await.len(), 40);
    assert!(entries(&test).await.is_empty());
}
