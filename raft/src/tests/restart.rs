//! Crashes, restarts, snapshots.

use super::*;
use crate::snapshot;

fn snapshots(cluster: &Cluster, node: u64) -> Vec<String> {
    cluster.machines[&node]
        .disk
        .list(snapshot::DIRECTORY)
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn all_nodes_lose_power_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3, 3).await;
    for round in 0..20 {
        cluster.set(1, &format!("n{round}"), "x").await.unwrap();
    }
    for node in 1..=3 {
        cluster.crash(node).await;
    }
    for node in 1..=3 {
        cluster.boot(node).await;
    }
    cluster.settle().await;
    for round in 0..20 {
        assert_eq!(cluster.shown(2, &format!("n{round}")).await.as_deref(), Some("x"));
    }
    cluster.set(2, "after", "y").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_index_is_made_again_from_snapshot_and_log() {
    let mut cluster = Cluster::start_with(1, 1, |config| {
        config.snapshot_entries = 50;
        config.log_entries_kept = 5;
    })
    .await;
    for round in 0..120 {
        cluster.set(1, &format!("n{round}"), "x").await.unwrap();
    }
    cluster
        .until("the log is purged", |cluster| {
            cluster.group(1).status().purged >= Some(50)
        })
        .await;
    assert_eq!(snapshots(&cluster, 1).len(), 1);
    // The index is in memory: nothing of it is left.
    cluster.crash(1).await;
    cluster.boot(1).await;
    cluster.settle().await;
    for round in 0..120 {
        assert_eq!(cluster.shown(1, &format!("n{round}")).await.as_deref(), Some("x"));
    }
}

#[tokio::test(start_paused = true)]
async fn sled_keeps_the_index_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(1, 1).await;
    cluster.stop(1).await;
    cluster.machines.get_mut(&1).unwrap().index = Some(directory.path().join("index"));
    cluster.boot(1).await;
    cluster.set(1, "a", "1").await.unwrap();
    cluster.running[&1].checkpoint().await.unwrap();
    let applied = cluster.group(1).status().applied;
    cluster.stop(1).await;
    cluster.boot(1).await;
    assert!(cluster.group(1).status().applied >= applied);
    cluster.settle().await;
    assert_eq!(cluster.shown(1, "a").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_index_is_set_aside_and_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let index = directory.path().join("index");
    let mut cluster = Cluster::start(1, 1).await;
    cluster.stop(1).await;
    cluster.machines.get_mut(&1).unwrap().index = Some(index.clone());
    cluster.boot(1).await;
    cluster.set(1, "a", "1").await.unwrap();
    cluster.stop(1).await;
    std::fs::write(index.join("conf"), [0x5A; 100]).unwrap();
    let (engine, aside) = crate::index::SledEngine::open_or_set_aside(&index, 4 << 20).unwrap();
    assert!(aside.is_some());
    drop(engine);
    cluster.boot(1).await;
    cluster.settle().await;
    assert_eq!(cluster.shown(1, "a").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_far_behind_gets_a_snapshot_while_commands_go_on() {
    let mut cluster = Cluster::start_with(4, 3, |config| {
        config.snapshot_entries = 40;
        config.log_entries_kept = 5;
    })
    .await;
    let leader = cluster.leader().await;
    let away = if leader == 3 { 2 } else { 3 };
    cluster.set(leader, "deleted later", "x").await.unwrap();
    cluster.net.cut_off(away);
    for round in 0..100 {
        cluster
            .set(leader, &format!("n{round}"), &"x".repeat(3000))
            .await
            .unwrap();
    }
    cluster
        .until("the log is purged", |cluster| {
            cluster.group(leader).status().purged >= Some(40)
        })
        .await;
    cluster.net.heal();
    cluster.group(leader).add_learner(NodeId(4)).await.unwrap();
    let mut watcher = cluster.group(4).effects();
    for round in 100..150 {
        cluster.set(leader, &format!("n{round}"), "x").await.unwrap();
    }
    cluster.settle().await;
    for node in [away, 4] {
        assert!(cluster.shown(node, "n0").await.is_some() && cluster.shown(node, "n149").await.is_some());
        assert!(cluster.group(node).status().snapshot.is_some());
        assert_eq!(snapshots(&cluster, node).len(), 1, "{:?}", snapshots(&cluster, node));
    }
    // Whoever watched the new replica was told to look at everything anew.
    let mut is_told = false;
    while let Ok(effects) = watcher.try_recv() {
        is_told = is_told || effects.contains(&state::Effect::Replaced);
    }
    assert!(is_told);
    // And a replica that got its state as a file comes back from it.
    cluster.crash(4).await;
    cluster.boot(4).await;
    cluster.settle().await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_made_after_so_many_octets_too() {
    let mut cluster = Cluster::start_with(1, 1, |config| config.snapshot_bytes = 100_000).await;
    for round in 0..3 {
        cluster.set(1, &format!("n{round}"), &"x".repeat(50_000)).await.unwrap();
    }
    cluster
        .until("there is a snapshot", |cluster| {
            cluster.group(1).status().snapshot.is_some()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_costs_the_snapshot_and_not_the_group() {
    let mut cluster = Cluster::start(1, 1).await;
    for round in 0..5 {
        cluster
            .set(1, &format!("n{round}"), &"x".repeat(200_000))
            .await
            .unwrap();
    }
    let disk = cluster.machines[&1].disk.clone();
    disk.set_capacity(Some(1 << 20));
    cluster.group(1).trigger_snapshot().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.group(1).status().snapshot, None);
    disk.set_capacity(None);
    cluster.set(1, "after", "x").await.unwrap();
    cluster.group(1).trigger_snapshot().await;
    cluster
        .until("there is a snapshot", |cluster| {
            cluster.group(1).status().snapshot.is_some()
        })
        .await;
    assert_eq!(snapshots(&cluster, 1).len(), 1, "{:?}", snapshots(&cluster, 1));
}

#[tokio::test(start_paused = true)]
async fn a_removed_replica_leaves_nothing() {
    let mut cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let leaving = if leader == 3 { 2 } else { 3 };
    cluster.set(leader, "a", "1").await.unwrap();
    cluster.settle().await;
    cluster.group(leaving).trigger_snapshot().await;
    cluster
        .until("there is a snapshot", |cluster| {
            cluster.group(leaving).status().snapshot.is_some()
        })
        .await;
    let voters = [1, 2, 3]
        .into_iter()
        .filter(|node| *node != leaving)
        .map(NodeId)
        .collect();
    cluster.group(leader).change_voters(&voters).await.unwrap();
    cluster.running[&leaving].remove_group(GROUP, LIFE).await.unwrap();
    assert!(snapshots(&cluster, leaving).is_empty());
    cluster.crash(leaving).await;
    cluster.boot(leaving).await;
    let status = cluster.group(leaving).status();
    assert_eq!((status.applied, status.last_log), (None, None));
    assert_eq!(cluster.shown(leaving, "a").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_fails_closes_the_replica_and_says_so() {
    let mut cluster = Cluster::start(3, 3).await;
    let leader = cluster.leader().await;
    let failing = if leader == 3 { 2 } else { 3 };
    cluster.machines[&failing].disk.fail_syncs(1);
    cluster.set(leader, "a", "1").await.unwrap();
    cluster
        .until("it stops", |cluster| cluster.group(failing).status().closed.is_some())
        .await;
    cluster.set(leader, "b", "1").await.unwrap();
    assert!(matches!(
        cluster.set(failing, "c", "1").await,
        Err(GroupError::Closed(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn three_nodes_on_real_directories_come_back_with_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_with(3, 1, |config| {
        config.snapshot_entries = 30;
        config.log_entries_kept = 5;
    })
    .await;
    for node in 1..=3 {
        cluster.stop(node).await;
        let machine = cluster.machines.get_mut(&node).unwrap();
        machine.directory = Some(directory.path().join(node.to_string()));
        machine.index = Some(directory.path().join(node.to_string()).join("index"));
        std::fs::create_dir(directory.path().join(node.to_string())).unwrap();
        cluster.boot(node).await;
    }
    cluster
        .group(1)
        .initialize(&[1, 2, 3].map(NodeId).into())
        .await
        .unwrap();
    for round in 0..80 {
        cluster.set(1 + round % 3, &format!("n{round}"), "x").await.unwrap();
    }
    cluster.settle().await;
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    // One of them loses its index, one its snapshots.
    std::fs::remove_dir_all(directory.path().join("2/index")).unwrap();
    std::fs::remove_dir_all(directory.path().join("3/snapshots")).unwrap();
    for node in 1..=3 {
        cluster.boot(node).await;
    }
    cluster.settle().await;
    for node in 1..=3 {
        assert_eq!(cluster.shown(node, "n79").await.as_deref(), Some("x"));
    }
    cluster.set(2, "after", "x").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quiet_group_does_not_keep_the_log_of_the_busy_ones() {
    let mut cluster = Cluster::start_with(1, 1, |config| {
        config.snapshot_entries = 20;
        config.log_entries_kept = 2;
        config.log_segments_kept = 3;
    })
    .await;
    let quiet = cluster.running[&1]
        .open_group(GroupId(1), LIFE, MachineKind::Directory)
        .await
        .unwrap();
    quiet.initialize(&[NodeId(1)].into()).await.unwrap();
    let command = cluster.command("quiet", "x");
    quiet.propose(&command, PATIENCE).await.unwrap();
    for round in 0..100 {
        cluster
            .set(1, &format!("n{}", round % 5), &"x".repeat(100_000))
            .await
            .unwrap();
    }
    let log = cluster.log(1);
    cluster.until("the log is let go", |_| log.segment_count() <= 4).await;
    assert!(quiet.status().purged.is_some());
    cluster.crash(1).await;
    cluster.boot(1).await;
    let quiet = cluster.running[&1]
        .open_group(GroupId(1), LIFE, MachineKind::Directory)
        .await
        .unwrap();
    quiet.read_barrier(PATIENCE).await.unwrap();
    let mut seen = None;
    quiet
        .read(&mut |view| seen = state::directory::Reader::new(view).setting("quiet").unwrap())
        .await
        .unwrap();
    assert_eq!(seen.as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_log_is_lost_does_not_begin_anew() {
    let directory = tempfile::tempdir().unwrap();
    for has_index in [false, true] {
        let mut cluster = Cluster::start(1, 1).await;
        if has_index {
            cluster.stop(1).await;
            cluster.machines.get_mut(&1).unwrap().index = Some(directory.path().join("index"));
            cluster.boot(1).await;
        }
        cluster.set(1, "a", "1").await.unwrap();
        if !has_index {
            cluster.group(1).trigger_snapshot().await;
            cluster
                .until("there is a snapshot", |cluster| {
                    cluster.group(1).status().snapshot.is_some()
                })
                .await;
        }
        cluster.stop(1).await;
        cluster.machines[&1].disk.remove_dir_all("log").unwrap();
        let groups = cluster.boot_without_group(1);
        let refused = groups.open_group(GROUP, LIFE, MachineKind::Directory).await;
        assert!(
            matches!(refused, Err(crate::OpenError::NeedsRepair { .. })),
            "{refused:?}"
        );
        groups.shutdown().await;
        cluster.running.clear();
    }
}
