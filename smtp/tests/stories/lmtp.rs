//! Mail from a trusted mail system.

use std::sync::Arc;
use std::time::Duration;

use core_types::{GroupId, MailboxName, NodeId};
use mailstore::testing::TestStore;
use raft::consensus::Consensus;
use smtp::Role;
use state::Outcome;
use state::rows::QueueEntry;
use tokio::time::Instant;
use wire::Shutdown;

use super::support::{Setup, inbox};

#[tokio::test(start_paused = true)]
async fn lmtp_reply_count() {
    let test = TestStore::new(2).await;
    let small = test.add_account("small@example.test", Some(100)).await;
    let mut client = Setup::new(&test, Role::Lmtp).greeted().await;
    let recipients = ["user1@example.test", "small@example.test", "user2@example.test"];
    let reply = client
        .message("a@b.example", &recipients, "Subject: x\r\n\r\nbody")
        .await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    let reply = client.reply().await;
    assert!(reply.starts_with("552 5.2.2"), "{reply}");
    let reply = client.reply().await;
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    client.script(&[("NOOP", "250")]).await;
    assert!(inbox(&test, &small).await.is_empty());
    assert_eq!(inbox(&test, &test.accounts[0]).await.len(), 1);
}

/// A commit that hangs: neither refused nor done when patience ends, and done after all when nobody waits any more.
#[tokio::test(start_paused = true)]
async fn lmtp_slow_recipient() {
    let test = TestStore::new(3).await;
    let slow = test.accounts[1].clone();
    test.groups.hang(slow.group);
    let mut client = Setup::new(&test, Role::Lmtp).greeted().await;
    let recipients = ["user1@example.test", "user2@example.test", "user3@example.test"];
    let begin = Instant::now();
    let reply = client
        .message("a@b.example", &recipients, "Subject: x\r\n\r\nbody")
        .await;
    assert!(reply.starts_with("250 2.0.0 delivered"), "{reply}");
    let reply = client.reply().await;
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    let reply = client.reply().await;
    assert!(reply.starts_with("250 2.0.0 delivered"), "{reply}");
    // The client of LMTP waits for minutes; it need not.
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    assert!(inbox(&test, &slow).await.is_empty());
    assert_eq!(inbox(&test, &test.accounts[0]).await.len(), 1);

    // Late, the commit is there: the queue's entry goes by the same GUID, so that nothing is there twice.
    let queued = queue_entry(&test, slow.group).await.recipients[0].guid;
    let outcomes = test.groups.go_on(slow.group).unwrap();
    assert!(
        matches!(outcomes.first(), Some(Outcome::Delivered(placed)) if placed[0].is_ok()),
        "{outcomes:?}"
    );
    let mail = test.store.account(&slow);
    let row = mail.select(&MailboxName::inbox()).await.unwrap().unwrap();
    assert_eq!(row.messages[0].guid, queued);
    tokio::spawn(queue::run(
        queue::Worker {
            store: test.store.clone(),
            node: NodeId(1),
            hostname: "mx.example.test".into(),
            leads: Arc::new(|_| true),
        },
        Shutdown::never(),
    ));
    for _ in 0..20 {
        test.clock.advance(60_000);
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(inbox(&test, &slow).await.len(), 1);
    assert!(entries(&test).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_can_neither_be_delivered_nor_queued_is_left_to_the_client() {
    for hangs in [false, true] {
        let test = TestStore::new(1).await;
        let mut client = Setup::new(&test, Role::Lmtp).greeted().await;
        for group in (1..=4).map(GroupId) {
            if hangs {
                test.groups.hang(group);
            } else {
                test.set_available(group, false);
            }
        }
        let begin = Instant::now();
        let reply = client
            .message("a@b.example", &["user1@example.test"], "Subject: x\r\n\r\nbody")
            .await;
        assert!(reply.starts_with("451 4.3.0"), "{reply}");
        assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    }
}

async fn entries(test: &TestStore) -> Vec<QueueEntry> {
    let mut all = Vec::new();
    for group in (1..=4).map(GroupId) {
        test.groups
            .read(group, &mut |view| {
                all.extend(state::mailbox::Reader::new(view).queue(None, usize::MAX).unwrap());
            })
            .await
            .unwrap();
    }
    all
}

/// The one entry there is, which is not in this group.
async fn queue_entry(test: &TestStore, not_in: GroupId) -> QueueEntry {
    test.groups
        .read(not_in, &mut |view| {
            let queue = state::mailbox::Reader::new(view).queue(None, usize::MAX).unwrap();
            assert!(queue.is_empty(), "{queue:?}");
        })
        .await
        .unwrap();
    let mut all = entries(test).await;
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}
