//! Requests between members: the way, the order, the bounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    dead_code
)]

#[path = "support/net.rs"]
mod net;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use core_types::NodeId;
use core_types::limits::{FRAME_BYTES_MAX, PEER_REQUESTS_MAX};
use net::{Answers, Hangs, Net, PATIENT, SECOND, echo, until};
use tokio::time::Duration;
use transport::{CallError, Class, Refused, Rpc, ServiceId, Transport, Tuning};

const ECHO: ServiceId = ServiceId(100);
const HANGS: ServiceId = ServiceId(101);

async fn ask(from: &Transport, to: u64, text: &'static str) -> Result<Bytes, CallError> {
    from.call(
        NodeId(to),
        Class::Store,
        ECHO,
        Bytes::from_static(text.as_bytes()),
        PATIENT,
    )
    .await
}

fn links(transport: &Transport, to: u64) -> Option<transport::PeerStatus> {
    transport
        .peers_status()
        .into_iter()
        .find(|status| status.node == NodeId(to))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_answered_in_both_directions_and_by_this_node_itself() {
    let net = Net::new();
    let ((one, _), (two, _)) = (net.start(1), net.start(2));
    for node in [&one, &two] {
        node.register(ECHO, echo());
    }
    two.register(
        ServiceId(7),
        Arc::new(Answers(|from, _| Err(Refused(format!("not for {from}"))))),
    );
    assert_eq!(ask(&one, 2, "hello").await, Ok(Bytes::from_static(b"hello")));
    assert_eq!(ask(&two, 1, "and back").await, Ok(Bytes::from_static(b"and back")));
    assert_eq!(ask(&one, 1, "myself").await, Ok(Bytes::from_static(b"myself")));
    assert!(one.is_reachable(NodeId(2)) && two.is_reachable(NodeId(1)));
    let refused = one
        .call(NodeId(2), Class::Store, ServiceId(7), Bytes::new(), PATIENT)
        .await;
    assert_eq!(refused, Err(CallError::Refused("not for 1".to_owned())));
    let unknown = one
        .call(NodeId(2), Class::Store, ServiceId(8), Bytes::new(), PATIENT)
        .await;
    assert!(matches!(unknown, Err(CallError::Refused(reason)) if reason.contains("unsupported")));
    let status = links(&one, 2).unwrap();
    assert!(status.connected && status.since.is_some() && status.rtt.is_some() && status.via_relay.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_dialling_at_once_end_with_requests_answered_on_one_connection() {
    let net = Net::new();
    let ((one, _), (two, _)) = (net.start(1), net.start(2));
    for node in [&one, &two] {
        node.register(ECHO, echo());
    }
    for _ in 0..20 {
        let (there, back) = tokio::join!(ask(&one, 2, "there"), ask(&two, 1, "back"));
        assert!(there.is_ok() && back.is_ok(), "{there:?} {back:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_at_the_limit_passes_and_one_octet_more_does_not() {
    let net = Net::new();
    let ((one, _), (two, _)) = (net.start(1), net.start(2));
    two.register(ECHO, echo());
    two.register(
        ServiceId(7),
        Arc::new(Answers(|_, _| Ok(Bytes::from(vec![0; FRAME_BYTES_MAX as usize + 1])))),
    );
    for length in [FRAME_BYTES_MAX as usize - 1, FRAME_BYTES_MAX as usize] {
        let body = Bytes::from(vec![7; length]);
        assert_eq!(
            one.call(NodeId(2), Class::Blob, ECHO, body.clone(), PATIENT).await,
            Ok(body)
        );
    }
    let body = Bytes::from(vec![7; FRAME_BYTES_MAX as usize + 1]);
    let too_large = Err(CallError::TooLarge(FRAME_BYTES_MAX + 1));
    assert_eq!(one.call(NodeId(2), Class::Blob, ECHO, body, PATIENT).await, too_large);
    assert_eq!(
        one.call(NodeId(2), Class::Blob, ServiceId(7), Bytes::new(), PATIENT)
            .await,
        too_large
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_megabytes_under_way_do_not_delay_a_heartbeat() {
    let net = Net::new();
    let ((one, _), (two, _)) = (net.start(1), net.start(2));
    let arrived = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&arrived);
    two.register(
        ServiceId::BLOB,
        Arc::new(Answers(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::new())
        })),
    );
    two.register(ECHO, echo());
    ask(&one, 2, "connected").await.unwrap();
    let blob = Bytes::from(vec![1; 1 << 20]);
    let blobs: Vec<_> = (0..50)
        .map(|number| {
            let (one, blob) = (Arc::clone(&one), blob.clone());
            let class = if number % 2 == 0 { Class::Bulk } else { Class::Blob };
            tokio::spawn(async move { one.call(NodeId(2), class, ServiceId::BLOB, blob, PATIENT).await })
        })
        .collect();
    until("the first blob", || arrived.load(Ordering::SeqCst) > 0).await;
    let before = arrived.load(Ordering::SeqCst);
    for _ in 0..3 {
        one.call(NodeId(2), Class::Control, ECHO, Bytes::from_static(b"beat"), SECOND)
            .await
            .unwrap();
    }
    // Three round trips fit between a few blobs; behind the queue they would come after all fifty.
    let passed = arrived.load(Ordering::SeqCst) - before;
    assert!(passed < 40, "{passed} blobs came before three heartbeats");
    for blob in blobs {
        blob.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_between_two_nodes_is_bridged_by_one_hop_and_the_direct_way_returns() {
    let net = Net::new();
    let ((one, at_one), (two, _), (three, at_three)) = (net.start(1), net.start(2), net.start(3));
    for node in [&one, &two, &three] {
        node.register(
            ECHO,
            Arc::new(Answers(|from: NodeId, _| Ok(Bytes::from(from.to_string())))),
        );
    }
    let whoami = |text: Result<Bytes, CallError>| String::from_utf8(text.unwrap().to_vec()).unwrap();
    assert_eq!(whoami(ask(&one, 3, "").await), "1");
    ask(&one, 2, "").await.unwrap();
    ask(&three, 2, "").await.unwrap();
    net.wires.cut(at_one, at_three);
    until("the hop through node 2", || {
        let status = links(&one, 3).unwrap();
        !status.connected && status.via_relay == Some(NodeId(2))
    })
    .await;
    // The receiver sees the asker, not the relay.
    assert_eq!(whoami(ask(&one, 3, "").await), "1");
    assert!(one.is_reachable(NodeId(3)));
    until("the relayed way back", || {
        three.is_reachable(NodeId(1)) && !links(&three, 1).unwrap().connected
    })
    .await;
    assert_eq!(whoami(ask(&three, 1, "").await), "3");
    net.wires.mend();
    until("the direct way", || links(&one, 3).unwrap().connected).await;
    assert_eq!(whoami(ask(&one, 3, "").await), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_restarted_elsewhere_is_found_again() {
    let net = Net::new();
    let ((one, _), (two, address)) = (net.start(1), net.start(2));
    two.register(ECHO, echo());
    ask(&one, 2, "before").await.unwrap();
    two.shutdown().await;
    drop(two);
    until("the loss", || !links(&one, 2).unwrap().connected).await;
    assert_eq!(
        ask(&one, 2, "while it is down").await,
        Err(CallError::Unreachable(NodeId(2)))
    );
    let (two, moved) = net.start(2);
    assert_ne!(address, moved);
    two.register(ECHO, echo());
    one.peers_changed();
    until("the way to the new address", || links(&one, 2).unwrap().connected).await;
    ask(&one, 2, "after").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_the_bound_are_busy_in_their_class_only() {
    let net = Net::new();
    let ((one, _), (two, _)) = (net.start(1), net.start(2));
    two.register(ECHO, echo());
    two.register(HANGS, Arc::new(Hangs));
    ask(&one, 2, "connected").await.unwrap();
    let hanging: Vec<_> = (0..PEER_REQUESTS_MAX)
        .map(|_| {
            let one = Arc::clone(&one);
            tokio::spawn(async move { one.call(NodeId(2), Class::Blob, HANGS, Bytes::new(), PATIENT).await })
        })
        .collect();
    let probe = || async {
        one.call(NodeId(2), Class::Blob, ECHO, Bytes::new(), Duration::from_millis(20))
            .await
    };
    let full = tokio::time::Instant::now() + PATIENT;
    while probe().await != Err(CallError::Busy(NodeId(2))) {
        assert!(tokio::time::Instant::now() < full, "never busy");
    }
    one.call(NodeId(2), Class::Control, ECHO, Bytes::new(), PATIENT)
        .await
        .unwrap();
    for call in hanging {
        call.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_member_is_disconnected_and_stays_away() {
    let net = Net::new();
    let ((one, _), (two, _)) = (net.start(1), net.start(2));
    one.register(ECHO, echo());
    ask(&two, 1, "as a member").await.unwrap();
    net.directory.remove_member(2);
    one.peers_changed();
    until("the end", || !links(&one, 2).unwrap().connected).await;
    assert!(matches!(
        one.call(NodeId(2), Class::Log, ECHO, Bytes::new(), SECOND).await,
        Err(CallError::Unreachable(_))
    ));
    until("its side", || !links(&two, 1).unwrap().connected).await;
    assert!(ask(&two, 1, "no more").await.is_err());
    // It is told why, and shows it.
    until("the refusal", || links(&two, 1).unwrap().refuses_as_stranger).await;
    assert!(!links(&one, 2).is_some_and(|link| link.refuses_as_stranger));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datagram_size_can_be_fixed() {
    let net = Net::new();
    let tuning = Tuning {
        mtu: Some(1400),
        ..Tuning::default()
    };
    let (one, _) = net.start_at(1, "127.0.0.1:0", tuning.clone());
    let (two, _) = net.start_at(2, "127.0.0.1:0", tuning);
    two.register(ECHO, echo());
    ask(&one, 2, "hello").await.unwrap();
}
