//! Mail from a trusted mail system.

use mailstore::testing::TestStore;
use smtp::Role;

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

#[tokio::test(start_paused = true)]
async fn lmtp_slow_recipient() {
    let test = TestStore::new(3).await;
    test.set_available(test.accounts[1].group, false);
    let mut client = Setup::new(&test, Role::Lmtp).greeted().await;
    let recipients = ["user1@example.test", "user2@example.test", "user3@example.test"];
    let reply = client
        .message("a@b.example", &recipients, "Subject: x\r\n\r\nbody")
        .await;
    assert!(reply.starts_with("250 2.0.0 delivered"), "{reply}");
    let reply = client.reply().await;
    assert!(reply.starts_with("250 2.0.0 queued as "), "{reply}");
    let reply = client.reply().await;
    assert!(reply.starts_with("250 2.0.0 delivered"), "{reply}");
    for group in 1..=4 {
        test.set_available(core_types::GroupId(group), false);
    }
    let reply = client
        .message("a@b.example", &recipients[..1], "Subject: x\r\n\r\nbody")
        .await;
    assert!(reply.starts_with("451 4.3.0"), "{reply}");
}
