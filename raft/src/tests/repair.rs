//! Replicas that cannot go on: they take no part until the others have taken them out, and come back whole.

use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteRequest;

use super::*;
use crate::Ailing;
use crate::config::{OpenError, RepairError};
use crate::frame::{self, Answer, Frame, Rejection, Reply, Request};
use crate::log::GroupKey;
use crate::types::{TypeConfig, Vote, log_id};

const KEY: GroupKey = GroupKey {
    group: GROUP,
    incarnation: LIFE,
};

fn ailing(reason: &str) -> Ailing {
    Ailing {
        group: GROUP,
        incarnation: LIFE,
        kind: MachineKind::Directory,
        reason: reason.to_owned(),
    }
}

fn others(node: u64, nodes: u64) -> Vec<NodeId> {
    (1..=nodes).filter(|other| *other != node).map(NodeId).collect()
}

async fn ask(cluster: &Cluster, from: u64, to: u64, request: Request) -> Reply {
    let frame = Frame {
        group: GROUP,
        incarnation: LIFE,
        request,
    };
    let answer = cluster.running[&to]
        .serve(NodeId(from), frame::encode(&frame).unwrap())
        .await
        .unwrap();
    frame::decode(&answer).unwrap()
}

/// The reason for which the replica of a node is not opened.
async fn refused(cluster: &Cluster, node: u64) -> String {
    match cluster.running[&node]
        .open_group(GROUP, LIFE, MachineKind::Directory)
        .await
    {
        Err(OpenError::NeedsRepair { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

/// What the placement does once a node is a member no more: learner, caught up, voter.
async fn add_again(cluster: &Cluster, at: u64, node: u64) {
    cluster.group(at).add_learner(NodeId(node)).await.unwrap();
    cluster.settle().await;
    let mut voters = cluster.group(at).membership().voters;
    voters.insert(NodeId(node));
    cluster.group(at).change_voters(&voters).await.unwrap();
}

/// One that is not the leader, and another that is neither.
async fn followers(cluster: &Cluster) -> (u64, u64) {
    let leader = cluster.leader().await;
    let mut others = (1..=3).filter(|node| *node != leader);
    (others.next().unwrap(), others.next().unwrap())
}

/// As the node does it: again, until it works.
async fn repair(groups: &Groups, ailing: &Ailing, others: &[NodeId]) -> Group {
    for _ in 0..50 {
        match groups.repair_group(ailing, others).await {
            Ok(opened) => return opened,
            Err(RepairError::NotTakenOut { .. }) => tokio::time::sleep(Duration::from_millis(100)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("not repaired");
}

/// Flips a bit of an entry that was durable and acknowledged.
fn flip(cluster: &Cluster, node: u64, index: u64) -> (String, u64) {
    let (segment, offset) = cluster.log(node).place_of(KEY, index);
    cluster.machines[&node].disk.flip_bit(&segment, offset + 50, 3);
    (segment, offset)
}

#[tokio::test(start_paused = true)]
async fn a_replica_with_a_damaged_log_is_taken_out_and_comes_back_whole() {
    let mut cluster = Cluster::start(3, 3).await;
    for round in 0..20 {
        cluster.set(1, &format!("n{round}"), "x").await.unwrap();
    }
    cluster.settle().await;
    // Also the leader: its place is taken by another.
    for damaged in [cluster.leader().await, followers(&cluster).await.0] {
        let last = cluster.group(damaged).status().last_log.unwrap();
        cluster.stop(damaged).await;
        let (segment, offset) = {
            let groups = cluster.boot_without_group(damaged);
            let place = cluster.log(damaged).place_of(KEY, last - 5);
            groups.shutdown().await;
            cluster.running.remove(&damaged);
            place
        };
        cluster.machines[&damaged].disk.flip_bit(&segment, offset + 50, 3);
        let groups = cluster.boot_without_group(damaged);
        let reason = refused(&cluster, damaged).await;
        assert!(
            reason.contains("log damaged") && reason.contains(&format!("offset {offset} of {segment}")),
            "{reason}"
        );
        // It neither votes nor acknowledges, and the others go on.
        let vote = VoteRequest::<TypeConfig> {
            vote: Vote {
                leader_id: openraft::impls::leader_id_std::LeaderId { term: 99, voted_for: 1 },
                committed: false,
            },
            last_log_id: Some(log_id(98, 1000)),
            leadership_transfer: false,
        };
        let reply = ask(&cluster, 1, damaged, Request::Vote(vote)).await;
        assert_eq!(reply.unwrap_err(), Rejection::UnknownGroup(GROUP));
        cluster.running.remove(&damaged);
        let well = cluster.leader().await;
        cluster.set(well, "meanwhile", "x").await.unwrap();
        cluster.running.insert(damaged, groups.clone());

        repair(&groups, &ailing(&reason), &others(damaged, 3)).await;
        let membership = cluster.group(well).membership();
        assert_eq!(membership.voters, others(damaged, 3).into_iter().collect());
        assert!(membership.learners.is_empty());
        assert_eq!(cluster.group(damaged).status().applied, None);
        assert!(cluster.log(damaged).damages().is_empty());
        add_again(&cluster, well, damaged).await;
        cluster.set(damaged, "after", "x").await.unwrap();
        cluster.settle().await;
        assert_eq!(cluster.shown(damaged, "n3").await.as_deref(), Some("x"));
        assert_eq!(cluster.shown(damaged, "meanwhile").await.as_deref(), Some("x"));
    }
    // It is a voter like any other again: one of the others may go.
    let (_, gone) = followers(&cluster).await;
    cluster.crash(gone).await;
    let left = cluster.leader().await;
    cluster.set(left, "with two", "x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_log_is_gone_is_taken_out_and_comes_back_whole() {
    // Without an index nothing on the disk but the mark of the log's life tells that there was a replica.
    let mut cluster = Cluster::start(3, 3).await;
    for round in 0..20 {
        cluster.set(1, &format!("n{round}"), "x").await.unwrap();
    }
    let (lost, _) = followers(&cluster).await;
    cluster.stop(lost).await;
    cluster.machines[&lost].disk.remove_dir_all("log").unwrap();
    let groups = cluster.boot_without_group(lost);
    assert!(refused(&cluster, lost).await.contains("lost"));
    cluster.running.remove(&lost);
    let well = cluster.leader().await;
    cluster.running.insert(lost, groups);
    // Nor after another start.
    cluster.crash(lost).await;
    let groups = cluster.boot_without_group(lost);
    let reason = refused(&cluster, lost).await;
    let opened = repair(&groups, &ailing(&reason), &others(lost, 3)).await;
    assert_eq!(opened.status().last_log, None);
    add_again(&cluster, well, lost).await;
    assert_eq!(cluster.shown(lost, "n19").await.as_deref(), Some("x"));
    // From now on the log knows it.
    cluster.crash(lost).await;
    cluster.boot(lost).await;
    cluster.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_of_which_nothing_can_be_read_is_set_aside_as_lost() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.set(1, "a", "1").await.unwrap();
    let (lost, _) = followers(&cluster).await;
    cluster.stop(lost).await;
    let disk = cluster.machines[&lost].disk.clone();
    let segment = disk.paths().into_iter().find(|path| path.ends_with(".seg")).unwrap();
    disk.flip_bit(&segment, 20, 1);
    let groups = cluster.boot_without_group(lost);
    let reason = refused(&cluster, lost).await;
    assert!(
        disk.paths().contains(&format!("{segment}.damaged")),
        "{:?}",
        disk.paths()
    );
    repair(&groups, &ailing(&reason), &others(lost, 3)).await;
    add_again(&cluster, lost, lost).await;
    assert_eq!(cluster.shown(lost, "a").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn damage_that_is_found_while_a_replica_runs_closes_it_and_it_is_repaired_without_a_restart() {
    let mut cluster = Cluster::start(3, 3).await;
    for round in 0..20 {
        cluster.set(1, &format!("n{round}"), "x").await.unwrap();
    }
    cluster.settle().await;
    let (damaged, other) = followers(&cluster).await;
    let (segment, _) = flip(&cluster, damaged, 5);
    let log = cluster.log(damaged);
    // As if it were not in memory any more.
    log.forget_cached();
    assert!(log.read(KEY, 0..20, usize::MAX).is_err());
    cluster
        .until("the replica closes", |cluster| {
            !cluster.running[&damaged].ailing().is_empty()
        })
        .await;
    let found = cluster.running[&damaged].ailing();
    assert!(found[0].reason.contains(&segment), "{found:?}");
    let mut effects = cluster.group(damaged).effects();
    cluster.running[&damaged]
        .repair_group(&found[0], &others(damaged, 3))
        .await
        .unwrap();
    assert!(cluster.running[&damaged].ailing().is_empty());
    add_again(&cluster, other, damaged).await;
    assert_eq!(cluster.shown(damaged, "n3").await.as_deref(), Some("x"));
    // Whoever watched it goes on watching, and was told to look at everything anew.
    assert!(effects.try_recv().unwrap().contains(&state::Effect::Replaced));
}

#[tokio::test(start_paused = true)]
async fn a_new_replica_votes_in_no_term_in_which_the_one_before_may_have_voted() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.set(1, "a", "1").await.unwrap();
    let leader = cluster.leader().await;
    let (damaged, other) = followers(&cluster).await;
    cluster.stop(damaged).await;
    cluster.machines[&damaged].disk.remove_dir_all("log").unwrap();
    let groups = cluster.boot_without_group(damaged);
    repair(&groups, &ailing("lost"), &others(damaged, 3)).await;
    let term = cluster.group(leader).status().term;
    let request = |term| {
        Request::Vote(VoteRequest::<TypeConfig> {
            vote: Vote {
                leader_id: openraft::impls::leader_id_std::LeaderId { term, voted_for: other },
                committed: false,
            },
            last_log_id: Some(log_id(term, 1000)),
            leadership_transfer: true,
        })
    };
    let granted = |reply: Reply| match reply {
        Ok(Answer::Vote(response)) => response.vote_granted,
        other => panic!("{other:?}"),
    };
    // Nor in any other before it knows the members of now. Also after a crash.
    for _ in 0..2 {
        for term in [term, term + 1] {
            let reply = ask(&cluster, other, damaged, request(term)).await;
            assert_eq!(reply.unwrap_err(), Rejection::Behind);
        }
        cluster.crash(damaged).await;
        cluster.boot(damaged).await;
    }
    // Below that, the first thing in its log is the vote of the leader.
    cluster.group(damaged).inner.replica.has_caught_up();
    assert!(!granted(ask(&cluster, other, damaged, request(term)).await));
    assert!(granted(ask(&cluster, other, damaged, request(term + 1)).await));
}

/// The log of a group tells of members of long ago: who reads it from the beginning must not take them for those of now.
#[tokio::test(start_paused = true)]
async fn the_founder_that_begins_anew_does_not_elect_itself() {
    let mut cluster = Cluster::start(3, 1).await;
    cluster.set(1, "founded", "x").await.unwrap();
    for node in [2, 3] {
        cluster.group(1).add_learner(NodeId(node)).await.unwrap();
        cluster
            .until("it follows", |cluster| {
                cluster.group(node).status().applied == cluster.group(1).status().applied
            })
            .await;
        let voters = (1..=node).map(NodeId).collect();
        cluster.group(1).change_voters(&voters).await.unwrap();
    }
    for round in 0..20 {
        cluster.set(1, &format!("n{round}"), "x").await.unwrap();
    }
    cluster.stop(1).await;
    cluster.machines[&1].disk.remove_dir_all("log").unwrap();
    let leader = cluster.leader().await;
    let groups = cluster.boot_without_group(1);
    repair(&groups, &ailing("lost"), &others(1, 3)).await;
    let term = cluster.group(leader).status().term;
    // What reaches it first is the beginning of the log.
    let first = cluster.log(leader).read(KEY, 0..2, usize::MAX).unwrap();
    let entries: Vec<crate::types::Entry> = first
        .iter()
        .map(|entry| core_types::codec::decode(1, &entry.body, 1 << 20).unwrap())
        .collect();
    let vote = cluster.group(leader).inner.raft.metrics().borrow_watched().vote;
    let beginning = openraft::raft::AppendEntriesRequest::<TypeConfig> {
        vote,
        prev_log_id: None,
        leader_commit: entries.last().map(|entry| entry.log_id),
        entries,
    };
    let reply = ask(&cluster, leader, 1, Request::Append(beginning)).await;
    assert!(matches!(reply, Ok(Answer::Append(_))), "{reply:?}");
    assert_eq!(cluster.group(1).membership().voters, [NodeId(1)].into());
    cluster.net.cut_off(1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!cluster.group(1).is_leader());
    assert_eq!(cluster.group(1).status().term, term);
    cluster.net.heal();
    add_again(&cluster, leader, 1).await;
    cluster
        .until("it takes part in elections again", |cluster| {
            cluster.group(1).inner.replica.behind().is_none()
        })
        .await;
    assert_eq!(cluster.shown(1, "n19").await.as_deref(), Some("x"));
    // Of three it is one: with one of the others gone it is needed, and is there.
    cluster.crash(leader).await;
    let next = cluster.leader().await;
    cluster.set(next, "after", "x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_of_the_others_nothing_is_removed() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.set(1, "a", "1").await.unwrap();
    cluster.settle().await;
    let (damaged, other) = followers(&cluster).await;
    let last = cluster.group(damaged).status().last_log.unwrap();
    flip(&cluster, damaged, last);
    cluster.stop(damaged).await;
    cluster.stop(other).await;
    let groups = cluster.boot_without_group(damaged);
    let reason = refused(&cluster, damaged).await;
    let before = cluster.log(damaged).state(KEY).unwrap();
    let error = groups
        .repair_group(&ailing(&reason), &others(damaged, 3))
        .await
        .unwrap_err();
    let RepairError::NotTakenOut { detail, .. } = &error else {
        panic!("{error:?}")
    };
    assert!(detail.contains("2 of them other than this one are needed"), "{detail}");
    assert_eq!(cluster.log(damaged).state(KEY), Some(before), "nothing is removed");
    assert_eq!(refused(&cluster, damaged).await, reason);
    // The other comes back, and it works.
    cluster.running.remove(&damaged);
    cluster.boot(other).await;
    let leader = cluster.leader().await;
    cluster.running.insert(damaged, groups.clone());
    repair(&groups, &ailing(&reason), &others(damaged, 3)).await;
    add_again(&cluster, leader, damaged).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_voters_a_damaged_one_stays_closed_and_says_so() {
    let mut cluster = Cluster::start(2, 2).await;
    cluster.set(1, "a", "1").await.unwrap();
    cluster.stop(2).await;
    cluster.machines[&2].disk.remove_dir_all("log").unwrap();
    let groups = cluster.boot_without_group(2);
    let error = groups.repair_group(&ailing("lost"), &[NodeId(1)]).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("nodes 1, 2, which without this one are no majority"),
        "{error}"
    );
    assert_eq!(refused(&cluster, 2).await, "lost", "the mark keeps it closed");
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_a_crash_cut_short_begins_again() {
    let mut cluster = Cluster::start(3, 3).await;
    for round in 0..10 {
        cluster.set(1, &format!("n{round}"), "x").await.unwrap();
    }
    cluster.settle().await;
    let (damaged, other) = followers(&cluster).await;
    cluster.group(damaged).trigger_snapshot().await;
    cluster.settle().await;
    cluster.stop(damaged).await;
    let groups = cluster.boot_without_group(damaged);
    crate::snapshot::mark(&*cluster.machines[&damaged].disk, GROUP, LIFE, "for a test").unwrap();
    // Taken out, its log begun anew, and then the power goes: what is left of the old state must not be opened.
    cluster
        .log(damaged)
        .write(KEY, vec![crate::log::Record::Created])
        .await
        .unwrap();
    groups.shutdown().await;
    cluster.machines[&damaged].disk.crash_strictly();
    let groups = cluster.boot_without_group(damaged);
    assert_eq!(refused(&cluster, damaged).await, "for a test");
    repair(&groups, &ailing("for a test"), &others(damaged, 3)).await;
    add_again(&cluster, other, damaged).await;
    // A second request after it is a voter is refused where it is well: it is open.
    let again = groups.repair_group(&ailing("no"), &others(damaged, 3)).await;
    assert!(
        matches!(again, Err(RepairError::Open(OpenError::IsOpen(_)))),
        "{again:?}"
    );
    let vote = cluster.group(damaged).inner.raft.metrics().borrow_watched().vote;
    assert!(vote.leader_id.term > 0);
}

/// A restored image: everything that the node had said since is forgotten, and nothing on the disk tells of it.
#[tokio::test(start_paused = true)]
async fn a_node_on_an_older_image_has_all_its_replicas_repaired() {
    let mut cluster = Cluster::start(3, 3).await;
    for round in 0..10 {
        cluster.set(1, &format!("n{round}"), "x").await.unwrap();
    }
    cluster.settle().await;
    let (node, other) = followers(&cluster).await;
    let remembered = cluster.log(node).position();
    assert_eq!(cluster.log(node).found(), crate::log::LogPosition::default());
    cluster.stop(node).await;
    // As if the image were from before the start that the others remember.
    let groups = cluster.boot_without_group(node);
    let log = cluster.log(node);
    assert_eq!(
        (log.found().boot, log.found().nonce),
        (remembered.boot, remembered.nonce)
    );
    assert!(log.found().seq >= remembered.seq);
    groups.open_group(GROUP, LIFE, MachineKind::Directory).await.unwrap();
    groups.fence("an older image", 41).await.unwrap();
    assert_eq!((log.position().boot, log.found().boot), (42, 42));
    // What it has it does not vote with, and what it does not know may be what the image lacks.
    let found = groups.ailing();
    assert_eq!(found[0].reason, "an older image");
    let later = groups.open_group(GroupId(7), LIFE, MachineKind::Directory).await;
    assert!(matches!(later, Err(OpenError::NeedsRepair { .. })), "{later:?}");
    // Neither after another start, which is above what the others remember.
    cluster.crash(node).await;
    let groups = cluster.boot_without_group(node);
    assert_eq!(cluster.log(node).position().boot, 43);
    assert_eq!(refused(&cluster, node).await, "an older image");
    repair(&groups, &found[0], &others(node, 3)).await;
    add_again(&cluster, other, node).await;
    assert_eq!(cluster.shown(node, "n9").await.as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_what_it_had_acknowledged_is_told_by_the_leader_and_comes_back_whole() {
    let mut cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    cluster.set(leader, "before", "x").await.unwrap();
    cluster.settle().await;
    let reverted = followers(&cluster).await.0;
    let image = cluster.machines[&reverted].disk.image();
    for round in 0..5 {
        cluster.set(leader, &format!("n{round}"), "x").await.unwrap();
    }
    cluster.settle().await;
    cluster.crash(reverted).await;
    cluster.machines[&reverted].disk.restore(&image);
    cluster.boot(reverted).await;
    let groups = cluster.running[&reverted].clone();
    cluster.until("it is told", |_| !groups.ailing().is_empty()).await;
    let found = groups.ailing();
    assert!(
        found[0].reason.contains("had acknowledged entry"),
        "{}",
        found[0].reason
    );
    assert_eq!(cluster.leader().await, leader, "the leader goes on");
    repair(&groups, &found[0], &others(reverted, 3)).await;
    add_again(&cluster, leader, reverted).await;
    cluster.settle().await;
    assert_eq!(cluster.shown(reverted, "n4").await.as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_has_the_entry_is_not_talked_into_losing_it() {
    let mut cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    cluster.set(leader, "before", "x").await.unwrap();
    cluster.settle().await;
    let follower = followers(&cluster).await.0;
    let index = cluster.group(follower).status().last_log.unwrap();
    ask(&cluster, leader, follower, Request::Reverted { index })
        .await
        .unwrap();
    assert_eq!(cluster.group(follower).status().closed, None);
    assert!(cluster.running[&follower].ailing().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_log_that_begins_behind_everything_the_replica_has_is_repaired() {
    let mut cluster = Cluster::start_with(3, 3, |config| {
        config.snapshot_entries = 20;
        config.log_entries_kept = 1;
    })
    .await;
    let leader = cluster.leader().await;
    for round in 0..50 {
        cluster.set(leader, &format!("n{round}"), "x").await.unwrap();
    }
    let node = followers(&cluster).await.0;
    cluster
        .until("its log was purged", |cluster| {
            cluster.group(node).status().purged.is_some()
        })
        .await;
    // The index in memory goes with the process, and the snapshot with its file.
    cluster.stop(node).await;
    cluster.machines[&node].disk.remove_at_rest("snapshots/");
    let groups = cluster.boot_without_group(node);
    let reason = refused(&cluster, node).await;
    assert!(reason.contains("begins behind entry"), "{reason}");
    repair(&groups, &ailing(&reason), &others(node, 3)).await;
    let leader = cluster.leader().await;
    add_again(&cluster, leader, node).await;
    cluster.settle().await;
    assert_eq!(cluster.shown(node, "n49").await.as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_begins_anew_shows_nothing_older_than_the_one_before_it() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.set(1, "a", "1").await.unwrap();
    cluster.settle().await;
    let (damaged, other) = followers(&cluster).await;
    cluster.group(damaged).inner.replica.close_for_repair("for a test");
    let mut effects = cluster.group(damaged).effects();
    let groups = cluster.running[&damaged].clone();
    repair(&groups, &ailing("for a test"), &others(damaged, 3)).await;
    let read = || async {
        let mut was_called = false;
        let answer = cluster.group(damaged).read(&mut |_| was_called = true).await;
        (answer, was_called)
    };
    let (answer, was_called) = read().await;
    assert!(matches!(answer, Err(GroupError::Closed(_))), "{answer:?}");
    assert!(!was_called);
    add_again(&cluster, other, damaged).await;
    let (answer, was_called) = read().await;
    assert_eq!((answer, was_called), (Ok(()), true));
    assert_eq!(cluster.shown(damaged, "a").await.as_deref(), Some("1"));
    // Who looked in vain is told when it can be read.
    cluster
        .until("the replica takes part", |cluster| {
            cluster.group(damaged).inner.replica.behind().is_none()
        })
        .await;
    let mut replaced = 0;
    while let Ok(event) = effects.try_recv() {
        replaced += usize::from(event.contains(&state::Effect::Replaced));
    }
    assert_eq!(replaced, 2);
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_a_replica_hears_on_after_attempts_that_failed() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.set(1, "a", "1").await.unwrap();
    cluster.settle().await;
    let (damaged, other) = followers(&cluster).await;
    cluster.group(damaged).inner.replica.close_for_repair("for a test");
    let mut effects = cluster.group(damaged).effects();
    let groups = cluster.running[&damaged].clone();
    for _ in 0..3 {
        let failed = groups.repair_group(&ailing("for a test"), &[]).await;
        assert!(matches!(failed, Err(RepairError::NotTakenOut { .. })), "{failed:?}");
    }
    repair(&groups, &ailing("for a test"), &others(damaged, 3)).await;
    add_again(&cluster, other, damaged).await;
    assert!(effects.try_recv().unwrap().contains(&state::Effect::Replaced));
}

#[tokio::test(start_paused = true)]
async fn rows_of_the_replica_before_it_do_not_come_back_with_the_power() {
    for seed in 0..12 {
        let mut cluster = Cluster::start(3, 3).await;
        let kept: Arc<KeptEngine> = Arc::default();
        let (damaged, _) = followers(&cluster).await;
        cluster.stop(damaged).await;
        cluster.machines.get_mut(&damaged).unwrap().left = Some(kept.clone());
        cluster.boot(damaged).await;
        for round in 0..10 {
            cluster.set(1, &format!("n{round}"), "x").await.unwrap();
        }
        cluster.settle().await;
        cluster.group(damaged).inner.replica.close_for_repair("for a test");
        let groups = cluster.running[&damaged].clone();
        repair(&groups, &ailing("for a test"), &others(damaged, 3)).await;
        cluster.crash(damaged).await;
        let left = kept.after_power_loss(&SeededEntropy::new(seed)).unwrap();
        cluster.machines.get_mut(&damaged).unwrap().left = Some(left);
        cluster.boot(damaged).await;
        assert_eq!(cluster.group(damaged).inner.replica.applied(), None, "seed {seed}");
    }
}
