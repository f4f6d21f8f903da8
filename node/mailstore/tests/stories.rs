//! What the mail store promises to the front ends, told on one node.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

use core_types::limits::SMTP_RECIPIENTS_MAX;
use core_types::{Flags, MailboxName, ModSeq, NodeId, Uid};
use mailstore::testing::TestStore;
use mailstore::{DeliverTo, Delivered, EnvelopeFrom, StoreError};
use raft::consensus::Consensus;
use state::Refusal;
use state::command::FlagChange;

const MESSAGE: &[u8] = b"From: a@example.org\r\nSubject: hello\r\n\r\nbody\r\n";

fn to(account: &directory::Account) -> DeliverTo {
    DeliverTo {
        address: account.address.clone(),
        accounts: vec![account.clone()],
        notify: 0,
        original: None,
    }
}

#[tokio::test]
async fn what_is_delivered_is_read_byte_for_byte() {
    let test = TestStore::new(1).await;
    let mail = test.store.account(&test.accounts[0]);
    test.deliver(&test.accounts[0], MESSAGE).await;
    mail.sync().await.unwrap();
    let inbox = mail.select(&MailboxName::inbox()).await.unwrap().unwrap();
    assert_eq!(
        (inbox.messages.len(), inbox.messages[0].uid, inbox.mailbox.uid_next),
        (1, Uid(1), Uid(2))
    );
    let bytes = mail.open(&inbox.messages[0]).await.unwrap();
    assert_eq!(bytes.read_all(0..u64::MAX).await.unwrap(), MESSAGE);
    assert_eq!(bytes.read_all(6..10).await.unwrap(), b"a@ex");
    let structure = mail.structure(&inbox.messages[0]).await.unwrap();
    assert_eq!(structure.envelope().unwrap().subject.as_deref(), Some(&b"hello"[..]));
}

#[tokio::test]
async fn a_message_damaged_here_while_it_is_read_is_read_on_from_another_node() {
    let test = TestStore::with_peer(1).await;
    let message = noise(3 << 20);
    test.deliver(&test.accounts[0], &message).await;
    let mail = test.store.account(&test.accounts[0]);
    let row = mail
        .select(&MailboxName::inbox())
        .await
        .unwrap()
        .unwrap()
        .messages
        .remove(0);
    let bytes = mail.open(&row).await.unwrap();
    let first = bytes.read(0..u64::MAX).await.unwrap();
    assert_eq!(&first[..], &message[..first.len()]);
    let name = row.blob.to_string();
    let path = test.disk.paths().into_iter().find(|path| path.contains(&name)).unwrap();
    test.disk.flip_bit(&path, 3 << 19, 0);
    let rest = bytes.read_all(first.len() as u64..u64::MAX).await.unwrap();
    assert!(rest == message[first.len()..], "the same octets from the same place on");
    assert!(!test.disk.paths().contains(&path), "the damaged file was set aside");

    // Also from one that only follows.
    test.groups.set_members(vec![NodeId(1)], vec![NodeId(2)]);
    let bytes = mail.open(&row).await.unwrap();
    assert!(bytes.read_all(0..u64::MAX).await.unwrap() == message);

    // The other node's copy damaged too: an error, and no wrong octet.
    let path = test
        .peer_disk
        .paths()
        .into_iter()
        .find(|path| path.contains(&name))
        .unwrap();
    test.peer_disk.flip_bit(&path, 3 << 19, 0);
    let bytes = mail.open(&row).await.unwrap();
    let damaged = bytes.read_all(0..u64::MAX).await;
    assert!(matches!(damaged, Err(StoreError::BlobMissing(blob)) if blob == row.blob));
}

#[tokio::test]
async fn a_message_that_the_disk_does_not_read_any_more_is_read_on_from_another_node() {
    let test = TestStore::with_peer(1).await;
    let message = noise(3 << 20);
    test.deliver(&test.accounts[0], &message).await;
    let mail = test.store.account(&test.accounts[0]);
    let inbox = mail.select(&MailboxName::inbox()).await.unwrap().unwrap();
    let name = inbox.messages[0].blob.to_string();
    let path = test.disk.paths().into_iter().find(|path| path.contains(&name)).unwrap();
    test.disk.make_range_unreadable(&path, 3 << 19..(3 << 19) + 4096);
    for _ in 0..2 {
        let bytes = mail.open(&inbox.messages[0]).await.unwrap();
        assert!(bytes.read_all(0..u64::MAX).await.unwrap() == message);
    }
}

/// Each frame has its own octets in the file.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut message = b"Subject: noise\r\n\r\n".to_vec();
    message.resize_with(length, || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    });
    message
}

#[tokio::test]
async fn one_message_to_many_accounts_is_one_blob_and_one_entry_each() {
    let test = TestStore::new(5).await;
    let message = test.ingest(MESSAGE).await;
    let mut recipients: Vec<_> = test.accounts.iter().map(to).collect();
    recipients.push(to(&test.accounts[0]));
    let results = test
        .store
        .deliver(&message, &EnvelopeFrom::default(), &recipients, false)
        .await;
    assert!(
        results.iter().all(|result| matches!(result, Ok(Delivered::Placed(_)))),
        "{results:?}"
    );
    for account in &test.accounts {
        let inbox = test
            .store
            .account(account)
            .select(&MailboxName::inbox())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(inbox.messages.len(), 1, "{}", account.address);
        assert_eq!(inbox.messages[0].blob, message.blob());
    }
}

#[tokio::test]
async fn a_group_without_majority_has_its_mail_queued_elsewhere() {
    let test = TestStore::new(2).await;
    let (cut, other) = (&test.accounts[0], &test.accounts[1]);
    assert_ne!(cut.group, other.group);
    test.set_available(cut.group, false);
    let message = test.ingest(MESSAGE).await;
    let results = test
        .store
        .deliver(&message, &EnvelopeFrom::default(), &[to(cut), to(other)], false)
        .await;
    assert!(
        matches!(&results[..], [Ok(Delivered::Queued(_)), Ok(Delivered::Placed(_))]),
        "{results:?}"
    );
    for group in 1..=4 {
        test.set_available(core_types::GroupId(group), false);
    }
    let results = test
        .store
        .deliver(&message, &EnvelopeFrom::default(), &[to(cut)], false)
        .await;
    assert!(matches!(&results[..], [Err(StoreError::Unavailable(_))]), "{results:?}");
}

#[tokio::test]
async fn a_recipient_refused_for_good_beside_others_is_queued_where_all_share_one_answer() {
    let test = TestStore::new(1).await;
    let there = &test.accounts[0];
    let mut gone = there.clone();
    gone.id = core_types::AccountId([9; 16]);
    let message = test.ingest(MESSAGE).await;
    let deliver = async |recipients: &[DeliverTo], is_lmtp: bool| {
        let from = EnvelopeFrom::default();
        test.store.deliver(&message, &from, recipients, is_lmtp).await
    };
    let results = deliver(&[to(&gone), to(there)], false).await;
    assert!(
        matches!(&results[..], [Ok(Delivered::Queued(_)), Ok(Delivered::Placed(_))]),
        "{results:?}"
    );
    // Nobody has it, or each has an answer of its own: the sender hears of it at once.
    let results = deliver(&[to(&gone)], false).await;
    assert!(matches!(&results[..], [Err(StoreError::Refused(_))]), "{results:?}");
    let results = deliver(&[to(&gone), to(there)], true).await;
    assert!(
        matches!(&results[..], [Err(StoreError::Refused(_)), Ok(Delivered::Placed(_))]),
        "{results:?}"
    );
}

/// Accounts in one group, without a place in the directory.
async fn crowd(test: &TestStore, group: core_types::GroupId, count: usize) -> Vec<directory::Account> {
    let mut crowd = Vec::new();
    for number in 0..count {
        let account = directory::Account {
            id: core_types::AccountId(test.store.entropy().bytes()),
            address: core_types::Address::parse(&format!("{group}-{number}@example.test")).unwrap(),
            group,
        };
        test.store.create_account_mail(&account, None).await.unwrap();
        crowd.push(account);
    }
    crowd
}

async fn has_mail(test: &TestStore, account: &directory::Account) -> bool {
    let mail = test.store.account(account);
    let inbox = mail.select(&MailboxName::inbox()).await.unwrap().unwrap();
    inbox.messages.len() == 1
}

#[tokio::test]
async fn more_accounts_of_a_group_than_one_op_takes_all_get_the_message() {
    let test = TestStore::new(0).await;
    let (few, many) = (core_types::GroupId(1), core_types::GroupId(2));
    let mut accounts = crowd(&test, few, 2).await;
    accounts.extend(crowd(&test, many, SMTP_RECIPIENTS_MAX + 3).await);
    let aliases: Vec<DeliverTo> = accounts
        .chunks(700)
        .map(|accounts| DeliverTo {
            accounts: accounts.to_vec(),
            ..to(&accounts[0])
        })
        .collect();
    let message = test.ingest(MESSAGE).await;
    let from = EnvelopeFrom::default();
    let results = test.store.deliver(&message, &from, &aliases, false).await;
    assert!(
        results.iter().all(|result| matches!(result, Ok(Delivered::Placed(_)))),
        "{results:?}"
    );
    for account in &accounts {
        assert!(has_mail(&test, account).await, "{}", account.address);
    }

    // All of them have to wait: in two entries.
    test.set_available(many, false);
    let results = test.store.deliver(&message, &from, &aliases, false).await;
    assert!(
        results.iter().all(|result| matches!(result, Ok(Delivered::Queued(_)))),
        "{results:?}"
    );
    let mut queued = Vec::new();
    let read = &mut |engine: &dyn core_types::KvRead| {
        queued.extend(state::mailbox::Reader::new(engine).queue(None, 10).unwrap());
    };
    test.groups.read(few, read).await.unwrap();
    let waiting: usize = queued.iter().map(|entry| entry.recipients.len()).sum();
    assert_eq!((queued.len(), waiting), (2, SMTP_RECIPIENTS_MAX + 3));
}

#[tokio::test]
async fn part_of_an_alias_whose_group_refuses_for_a_moment_waits_in_the_queue() {
    let test = TestStore::new(2).await;
    let (full, other) = (&test.accounts[0], &test.accounts[1]);
    assert_ne!(full.group, other.group);
    // An op whose maker still waits, and after it as many as the group remembers.
    let forgotten = || state::MailboxOp::QueueControl {
        entry: core_types::QueueId([7; 16]),
        action: state::command::QueueAction::Drop,
    };
    test.groups.hang(full.group);
    let (store, group, op) = (test.store.clone(), full.group, forgotten());
    let pending = tokio::spawn(async move { store.propose(group, op).await });
    tokio::task::yield_now().await;
    assert_eq!(test.groups.go_on(full.group).unwrap().len(), 1);
    for _ in 1..core_types::limits::UNSETTLED_OPS_MAX {
        test.store.propose(full.group, forgotten()).await.unwrap_err();
    }
    let alias = DeliverTo {
        accounts: vec![full.clone(), other.clone()],
        ..to(other)
    };
    let message = test.ingest(MESSAGE).await;
    for is_lmtp in [false, true] {
        let alias = std::slice::from_ref(&alias);
        let results = test
            .store
            .deliver(&message, &EnvelopeFrom::default(), alias, is_lmtp)
            .await;
        assert!(matches!(&results[..], [Ok(Delivered::Queued(_))]), "{results:?}");
    }
    pending.abort();
}

#[tokio::test]
async fn quota_is_enforced_where_the_protocol_can_say_so() {
    let test = TestStore::new(0).await;
    let small = test.add_account("small@example.test", Some(10)).await;
    let message = test.ingest(MESSAGE).await;
    let results = test
        .store
        .deliver(&message, &EnvelopeFrom::default(), &[to(&small)], true)
        .await;
    assert!(
        matches!(&results[..], [Err(StoreError::Refused(Refusal::OverQuota))]),
        "{results:?}"
    );
    let results = test
        .store
        .deliver(&message, &EnvelopeFrom::default(), &[to(&small)], false)
        .await;
    assert!(matches!(&results[..], [Ok(Delivered::Placed(_))]), "{results:?}");
}

#[tokio::test]
async fn an_alias_placed_in_part_loses_no_copy_to_a_quota() {
    let test = TestStore::new(1).await;
    let small = test.add_account("small@example.test", Some(10)).await;
    let roomy = &test.accounts[0];
    let alias = DeliverTo {
        accounts: vec![small.clone(), roomy.clone()],
        ..to(roomy)
    };
    let count = async |account: &directory::Account| {
        let mail = test.store.account(account);
        mail.select(&MailboxName::inbox())
            .await
            .unwrap()
            .unwrap()
            .messages
            .len()
    };
    let message = test.ingest(MESSAGE).await;
    let from = EnvelopeFrom::default();
    let results = test
        .store
        .deliver(&message, &from, std::slice::from_ref(&alias), true)
        .await;
    assert!(
        matches!(&results[..], [Ok(Delivered::Placed(guids))] if guids.len() == 2),
        "{results:?}"
    );
    assert_eq!((count(&small).await, count(roomy).await), (1, 1));

    // One has to wait: then the one without room waits with it.
    assert_ne!(small.group, roomy.group);
    test.set_available(roomy.group, false);
    let results = test.store.deliver(&message, &from, &[alias], true).await;
    assert!(matches!(&results[..], [Ok(Delivered::Queued(_))]), "{results:?}");
    let mut queued = Vec::new();
    for group in 1..=4 {
        let group = core_types::GroupId(group);
        let read = &mut |engine: &dyn core_types::KvRead| {
            queued.extend(state::mailbox::Reader::new(engine).queue(None, 10).unwrap());
        };
        test.groups.read(group, read).await.unwrap();
    }
    assert_eq!(queued.len(), 1);
    let waiting: Vec<_> = queued[0].recipients.iter().map(|waiting| waiting.account).collect();
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    assert!(waiting.contains(&Some(small.id)));

    // Nobody took it: the sender is told, and nobody has it.
    test.set_available(roomy.group, true);
    let results = test.store.deliver(&message, &from, &[to(&small)], true).await;
    assert!(
        matches!(&results[..], [Err(StoreError::Refused(Refusal::OverQuota))]),
        "{results:?}"
    );
    assert_eq!(count(&small).await, 1);
}

#[tokio::test]
async fn a_watcher_hears_of_changes_and_asks_for_them() {
    let test = TestStore::new(1).await;
    let mail = test.store.account(&test.accounts[0]);
    let inbox = mail.mailbox_by_name(&MailboxName::inbox()).await.unwrap().unwrap();
    let mut watch = mail.watch_mailbox(inbox.guid);
    test.deliver(&test.accounts[0], MESSAGE).await;
    watch.changed().await;
    let changes = mail.changes(inbox.guid, ModSeq(0), 100).await.unwrap().unwrap();
    assert_eq!(changes.changes.len(), 1);
    let row = mail.messages(inbox.guid, Uid(0), 10).await.unwrap().remove(0);
    let stored = mail
        .store_flags(inbox.guid, &[row.guid], FlagChange::Add, &Flags::system(Flags::SEEN))
        .await
        .unwrap();
    assert!(stored.highest_modseq > row.modseq);
    assert_eq!(mail.expunge(inbox.guid, &[row.guid], true).await.unwrap(), []);
    assert_eq!(mail.expunge(inbox.guid, &[row.guid], false).await.unwrap(), [Uid(1)]);
}

#[tokio::test]
async fn login_takes_the_right_password_and_confirms_every_no() {
    let test = TestStore::new(1).await;
    let directory = test.store.directory();
    let peer = "192.0.2.1".parse().unwrap();
    let login = |name: &'static str, password: &'static [u8]| directory.authenticate(name, password, peer);
    assert_eq!(login("User1@Example.TEST", b"secret").await.unwrap(), test.accounts[0]);
    assert_eq!(
        login("user1@example.test", b"wrong").await,
        Err(directory::LoginError::Wrong)
    );
    assert_eq!(
        login("nobody@example.test", b"secret").await,
        Err(directory::LoginError::Wrong)
    );
    test.set_available(core_types::GroupId::DIRECTORY, false);
    assert!(
        login("user1@example.test", b"secret").await.is_ok(),
        "a yes needs no majority"
    );
    let no = login("user1@example.test", b"wrong").await;
    assert!(matches!(no, Err(directory::LoginError::Unavailable(_))), "{no:?}");
}
