//! Rows of `docs/bad-inputs.tsv` that belong to this crate, each a test of its name, and what else peers may get wrong.

use core_types::KvRead;
use openraft::EntryPayload;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::AppendEntriesRequest;
use state::{Applied, ApplyError};

use super::*;
use crate::frame::{self, Answer, Chunk, Frame, Rejection, Reply, Request};
use crate::group::Role;
use crate::snapshot;
use crate::types::{Entry, TypeConfig, Vote, log_id};

async fn ask(cluster: &Cluster, from: u64, to: u64, request: Request) -> Reply {
    ask_in(cluster, from, to, LIFE, request).await
}

async fn ask_in(cluster: &Cluster, from: u64, to: u64, incarnation: Incarnation, request: Request) -> Reply {
    let frame = Frame {
        group: GROUP,
        incarnation,
        request,
    };
    let bytes = frame::encode(&frame).unwrap();
    let answer = cluster.running[&to].serve(NodeId(from), bytes).await.unwrap();
    frame::decode(&answer).unwrap()
}

fn vote_of(cluster: &Cluster, node: u64) -> Vote {
    cluster.group(node).inner.raft.metrics().borrow_watched().vote
}

fn append(vote: Vote, prev: Option<(u64, u64)>, entries: &[(u64, u64)]) -> Request {
    Request::Append(AppendEntriesRequest::<TypeConfig> {
        vote,
        prev_log_id: prev.map(|(term, index)| log_id(term, index)),
        entries: entries
            .iter()
            .map(|(term, index)| Entry {
                log_id: log_id(*term, *index),
                payload: EntryPayload::Blank,
            })
            .collect(),
        leader_commit: None,
    })
}

#[tokio::test(start_paused = true)]
async fn quic_append_gap() {
    let mut cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let other = if leader == 1 { 2 } else { 1 };
    cluster.set(leader, "a", "1").await.unwrap();
    cluster.settle().await;
    let vote = vote_of(&cluster, leader);
    let term = vote.leader_id.term;
    let last = cluster.group(other).status().last_log.unwrap();
    let prev = Some((term, last));
    let bad = [
        append(vote, prev, &[(term, last + 2)]),
        append(vote, prev, &[(term, last + 1), (term, last + 3)]),
        append(vote, prev, &[(term, last + 2), (term, last + 1)]),
        append(vote, prev, &[(term - 1, last + 1)]),
        append(vote, prev, &[(term + 1, last + 1)]),
        append(vote, Some((term, u64::MAX)), &[(term, 0)]),
        append(vote, None, &[(term, 1)]),
        append(
            Vote {
                committed: false,
                ..vote
            },
            prev,
            &[(term, last + 1)],
        ),
    ];
    for request in bad {
        let reply = ask(&cluster, leader, other, request).await;
        assert!(matches!(reply, Err(Rejection::Invalid(_))), "{reply:?}");
    }
    // A previous entry that is not there is a conflict, which says nothing about what is.
    let reply = ask(
        &cluster,
        leader,
        other,
        append(vote, Some((term, last + 5)), &[(term, last + 6)]),
    )
    .await;
    assert!(matches!(reply, Ok(Answer::Append(response)) if response.is_conflict()));
    // Nobody speaks for another node.
    let reply = ask(&cluster, other, other, append(vote, prev, &[(term, last + 1)])).await;
    assert!(matches!(reply, Err(Rejection::Invalid(_))), "{reply:?}");
    assert_eq!(cluster.group(other).status().last_log, Some(last));
    cluster.set(leader, "a", "2").await.unwrap();
    cluster.settle().await;
}

/// A program that is older than the others: it does not know settings that begin with "new".
fn older(view: &dyn KvRead, kind: MachineKind, command: &Command) -> Result<Applied, ApplyError> {
    match &command.op {
        Op::Directory(DirectoryOp::SetSetting { name, .. }) if name.starts_with("new") => {
            Err(ApplyError::UnknownOp(name.clone()))
        }
        _ => state::apply(view, kind, command),
    }
}

#[tokio::test(start_paused = true)]
async fn quic_apply_unknown_op() {
    let mut cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let old = if leader == 3 { 2 } else { 3 };
    cluster.stop(old).await;
    cluster.machines.get_mut(&old).unwrap().apply = older;
    cluster.boot(old).await;
    cluster.running[&old]
        .open_group(GroupId(7), LIFE, MachineKind::Mailbox)
        .await
        .unwrap();
    cluster.set(leader, "a", "1").await.unwrap();
    cluster.settle().await;
    let applied = cluster.group(old).status().applied;
    cluster.set(leader, "new thing", "1").await.unwrap();
    cluster.set(leader, "b", "1").await.unwrap();
    cluster
        .until("the old replica stops", |cluster| {
            cluster.group(old).status().closed.is_some()
        })
        .await;
    let status = cluster.group(old).status();
    assert_eq!((status.role, status.applied), (Role::Closed, applied));
    assert!(status.closed.unwrap().contains("unknown op: new thing"));
    // It neither reads, nor takes commands, nor votes; the group goes on without it, and so do the node's other groups.
    assert!(matches!(
        cluster.group(old).read(&mut |_| panic!("closed")).await,
        Err(GroupError::Closed(_))
    ));
    assert!(matches!(cluster.set(old, "c", "1").await, Err(GroupError::Closed(_))));
    let vote = vote_of(&cluster, leader);
    let reply = ask(&cluster, leader, old, append(vote, None, &[])).await;
    assert!(matches!(reply, Err(Rejection::Closed(_))), "{reply:?}");
    cluster.set(leader, "d", "1").await.unwrap();
    assert_eq!(cluster.running[&old].group(GroupId(7)).unwrap().status().closed, None);
    // Bytes that are no command of any version that is known here stop it in the same way.
    let unknown = crate::types::EncodedCommand(Bytes::from_static(&[9, 1, 2, 3]));
    assert!(unknown.decode().is_err());
}

#[tokio::test(start_paused = true)]
async fn quic_snapshot_cut() {
    let mut cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let other = if leader == 1 { 2 } else { 1 };
    cluster.set(leader, "a", &"x".repeat(5000)).await.unwrap();
    cluster.settle().await;
    cluster.group(leader).trigger_snapshot().await;
    cluster
        .until("there is a snapshot", |cluster| {
            cluster.group(leader).status().snapshot.is_some()
        })
        .await;
    let file = cluster.group(leader).inner.replica.current_snapshot().unwrap();
    let mut bytes = vec![0; usize::try_from(file.length).unwrap()];
    file.file.read_exact_at(0, &mut bytes).unwrap();
    let bytes = Bytes::from(bytes);
    let vote = vote_of(&cluster, leader);
    let chunk = |offset: u64, from: usize, to: usize| {
        let bytes = bytes.slice(from..to);
        Request::SnapshotChunk(Chunk {
            vote,
            hash: file.hash,
            length: file.length,
            offset,
            bytes,
        })
    };
    let install = || Request::SnapshotInstall { vote, hash: file.hash };
    let next = |reply: Reply| match reply {
        Ok(Answer::SnapshotChunk { next, .. }) => next,
        other => panic!("{other:?}"),
    };
    let left = |cluster: &Cluster| {
        cluster.machines[&other]
            .disk
            .list(snapshot::DIRECTORY)
            .unwrap_or_default()
    };
    let invalid = |reply: Reply| assert!(matches!(reply, Err(Rejection::Invalid(_))), "{reply:?}");
    let half = bytes.len() / 2;

    // Cut: nothing is installed, and nothing is left.
    assert_eq!(next(ask(&cluster, leader, other, chunk(0, 0, half)).await), half as u64);
    invalid(ask(&cluster, leader, other, install()).await);
    assert!(left(&cluster).is_empty());
    // A chunk that comes again is passed over; a gap, an overflow and too many octets drop everything.
    for bad in [half as u64 + 1, u64::MAX, file.length - 1] {
        assert_eq!(next(ask(&cluster, leader, other, chunk(0, 0, half)).await), half as u64);
        assert_eq!(next(ask(&cluster, leader, other, chunk(0, 0, half)).await), half as u64);
        invalid(ask(&cluster, leader, other, chunk(bad, half, bytes.len())).await);
        assert!(left(&cluster).is_empty());
        // What follows is told to begin anew.
        assert_eq!(
            next(ask(&cluster, leader, other, chunk(half as u64, half, bytes.len())).await),
            0
        );
    }
    // Wrong bytes of the right length.
    assert_eq!(next(ask(&cluster, leader, other, chunk(0, 0, half)).await), half as u64);
    assert_eq!(
        next(ask(&cluster, leader, other, chunk(half as u64, 0, bytes.len() - half)).await),
        file.length
    );
    invalid(ask(&cluster, leader, other, install()).await);
    assert!(left(&cluster).is_empty());
    // Under an old vote nothing is taken.
    let old = Vote {
        leader_id: openraft::impls::leader_id_std::LeaderId {
            term: 0,
            voted_for: leader,
        },
        committed: true,
    };
    let stale = Request::SnapshotChunk(Chunk {
        vote: old,
        hash: file.hash,
        length: file.length,
        offset: 0,
        bytes: bytes.clone(),
    });
    assert_eq!(next(ask(&cluster, leader, other, stale).await), 0);
    assert!(left(&cluster).is_empty());
    // The right ones are installed, or passed over since the replica has them already; either way nothing more is left.
    assert_eq!(
        next(ask(&cluster, leader, other, chunk(0, 0, bytes.len())).await),
        file.length
    );
    assert!(matches!(
        ask(&cluster, leader, other, install()).await,
        Ok(Answer::SnapshotInstalled(_))
    ));
    assert!(left(&cluster).len() <= 1);
    cluster.set(leader, "b", "1").await.unwrap();
    cluster.settle().await;
}

#[tokio::test(start_paused = true)]
async fn quic_stale_leader_read() {
    let mut cluster = Cluster::start(3, 3).await;
    let old = cluster.leader().await;
    let other = if old == 1 { 2 } else { 1 };
    cluster.set(old, "a", "1").await.unwrap();
    cluster.net.cut_off(old);
    // At once, while it still believes that it leads, and after the others have gone on.
    let at_once = cluster.group(old).read_barrier(Duration::from_secs(1)).await;
    assert!(at_once.is_err());
    cluster.set(other, "a", "2").await.unwrap();
    assert!(cluster.group(old).read_barrier(Duration::from_secs(1)).await.is_err());
    assert!(!cluster.group(old).confirm_leadership(Duration::from_millis(300)).await);
    cluster.net.heal();
    cluster.group(old).read_barrier(PATIENCE).await.unwrap();
    assert_eq!(cluster.shown(old, "a").await.as_deref(), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_another_incarnation_or_group_is_refused_by_name() {
    let cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let other = if leader == 1 { 2 } else { 1 };
    let vote = vote_of(&cluster, leader);
    let reply = ask_in(&cluster, leader, other, Incarnation(2), append(vote, None, &[])).await;
    assert_eq!(
        reply.unwrap_err(),
        Rejection::OtherIncarnation {
            group: GROUP,
            ours: LIFE
        }
    );
    let frame = Frame {
        group: GroupId(9),
        incarnation: LIFE,
        request: Request::Digests,
    };
    let answer = cluster.running[&other]
        .serve(NodeId(leader), frame::encode(&frame).unwrap())
        .await
        .unwrap();
    assert_eq!(
        frame::decode::<Reply>(&answer).unwrap().unwrap_err(),
        Rejection::UnknownGroup(GroupId(9))
    );
    for garbage in [&b""[..], b"\x01", b"\x02abc", &[1; 60]] {
        let refused = cluster.running[&other]
            .serve(NodeId(leader), Bytes::copy_from_slice(garbage))
            .await;
        assert!(refused.is_err());
    }
}

/// A program whose state goes wrong at one setting.
fn diverging(view: &dyn KvRead, kind: MachineKind, command: &Command) -> Result<Applied, ApplyError> {
    let mut command = command.clone();
    if let Op::Directory(DirectoryOp::SetSetting { name, value }) = &mut command.op
        && name == "n3"
    {
        *value = Some("wrong".to_owned());
    }
    state::apply(view, kind, &command)
}

#[tokio::test(start_paused = true)]
async fn the_odd_one_of_three_states_stops() {
    let mut cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let odd = if leader == 3 { 2 } else { 3 };
    cluster.stop(odd).await;
    cluster.machines.get_mut(&odd).unwrap().apply = diverging;
    cluster.boot(odd).await;
    for round in 0..70 {
        cluster.set(leader, &format!("n{round}"), "x").await.unwrap();
    }
    cluster
        .until("the odd replica stops", |cluster| {
            cluster.group(odd).status().closed.is_some()
        })
        .await;
    assert!(
        cluster
            .group(odd)
            .status()
            .closed
            .unwrap()
            .contains("differs from that of the majority")
    );
    for node in (1..=3).filter(|node| *node != odd) {
        assert_eq!(
            (cluster.group(node).status().closed, cluster.group(node).status().alarm),
            (None, None)
        );
    }
    cluster.set(leader, "after", "x").await.unwrap();
    // A restart does not open the wrong state again; a removed replica can be added anew.
    cluster.crash(odd).await;
    let groups = cluster.boot_without_group(odd);
    let refused = groups.open_group(GROUP, LIFE, MachineKind::Directory).await;
    assert!(
        matches!(refused, Err(crate::OpenError::NeedsRepair { .. })),
        "{refused:?}"
    );
    groups.remove_group(GROUP, LIFE).await.unwrap();
    groups.open_group(GROUP, LIFE, MachineKind::Directory).await.unwrap();
}
