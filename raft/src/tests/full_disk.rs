//! A disk that is full for a while: what is refused, what closes, and that all of it works again without a restart.

use super::*;
use crate::consensus::{Consensus, ProposeError};

const RESERVE: u64 = 3 << 20;

#[tokio::test(start_paused = true)]
async fn a_leader_without_room_refuses_and_takes_ops_again_when_there_is_room() {
    let mut cluster = Cluster::start_with(1, 1, |config| config.propose_reserve_bytes = RESERVE).await;
    cluster.set(1, "before", "x").await.unwrap();
    let disk = cluster.machines[&1].disk.clone();
    disk.set_capacity(Some(RESERVE));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.set(1, "refused", "x").await, Err(GroupError::Full));
    let command = cluster.command("refused", "x");
    let above = cluster.running[&1].propose(GROUP, command, PATIENCE).await;
    assert_eq!(above, Err(ProposeError::Full));
    assert_eq!(cluster.shown(1, "before").await.as_deref(), Some("x"));
    assert_eq!(cluster.group(1).status().closed, None);
    disk.set_capacity(None);
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.set(1, "after", "x").await.unwrap();
    assert_eq!(cluster.shown(1, "refused").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_closed_on_a_full_disk_is_open_again_when_there_is_room() {
    let mut cluster = Cluster::start_with(3, 3, |config| config.propose_reserve_bytes = RESERVE).await;
    let leader = cluster.leader().await;
    let full = if leader == 3 { 2 } else { 3 };
    let disk = cluster.machines[&full].disk.clone();
    let mut watcher = cluster.group(full).effects();
    disk.set_capacity(Some(1 << 20));
    for round in 0..40 {
        cluster
            .set(leader, &format!("n{round}"), &"x".repeat(100_000))
            .await
            .unwrap();
    }
    cluster
        .until("it closes", |cluster| cluster.group(full).status().closed.is_some())
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(cluster.group(full).status().closed.is_some());
    disk.set_capacity(None);
    cluster
        .until("it is open again", |cluster| {
            cluster.group(full).status().closed.is_none()
        })
        .await;
    cluster.settle().await;
    assert!(cluster.shown(full, "n39").await.is_some());
    // Who watched the old replica goes on hearing, after having been told to look at everything.
    let mut is_told = false;
    while let Ok(effects) = watcher.try_recv() {
        is_told = is_told || effects.contains(&state::Effect::Replaced);
    }
    assert!(is_told);
    cluster.set(leader, "after", "x").await.unwrap();
    cluster.settle().await;
    assert!(watcher.try_recv().is_ok());
}
