//! A disk that is full, or does not read, for a while: what is refused, what closes, and that all of it works again without a restart.

use core_types::{Batch, DiskErrorKind, KvError, KvRead};
use platform::{CallClass, Effect, FaultRule};

use state::MemoryEngine;

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

/// An index whose checkpoints answer as told.
#[derive(Default)]
struct Checkpoints {
    rows: MemoryEngine,
    answer: Mutex<Option<KvError>>,
    /// What the next write answers.
    write: Mutex<Option<KvError>>,
    damage: Mutex<Option<String>>,
}

impl KvRead for Checkpoints {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.rows.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        self.rows.scan(from, to, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        self.rows.scan_back(from, to, visit)
    }
}

impl KvEngine for Checkpoints {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        if let Some(error) = self.write.lock().unwrap().take() {
            return Err(error);
        }
        self.rows.write(batch)
    }

    fn checkpoint(&self) -> Result<(), KvError> {
        self.answer.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn damage(&self) -> Option<String> {
        self.damage.lock().unwrap().clone()
    }

    fn size_bytes(&self) -> Result<u64, KvError> {
        self.rows.size_bytes()
    }
}

/// A node with one group, none of whose timers has run yet.
fn groups_on(disk: &Arc<FaultyDisk>, engine: &Arc<Checkpoints>) -> Groups {
    let config = LogConfig {
        segment_bytes: 1 << 20,
        ..LogConfig::new(NodeId(1))
    };
    let log = SharedLog::open(disk.clone(), Arc::new(InlinePool), &SeededEntropy::new(1), config).unwrap();
    let rpc = Arc::new(LocalRpc {
        node: NodeId(1),
        net: Arc::default(),
    });
    let dependencies = Dependencies {
        disk: disk.clone(),
        pool: Arc::new(InlinePool),
        engine: engine.clone(),
        rpc,
        log,
    };
    Groups::open(Config::new(NodeId(1)), dependencies)
}

#[tokio::test(start_paused = true)]
async fn damage_that_is_met_in_the_index_stops_the_node() {
    let (disk, engine) = (Arc::new(FaultyDisk::new()), Arc::new(Checkpoints::default()));
    let groups = groups_on(&disk, &engine);
    let group = groups.open_group(GROUP, LIFE, MachineKind::Directory).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(group.status().closed, None);
    *engine.damage.lock().unwrap() = Some("a page is rotten".to_owned());
    let reason = timeout(PATIENCE, groups.failed()).await.unwrap();
    assert_eq!(
        reason,
        "the index is damaged (a page is rotten); it is made anew at the next start"
    );
    assert_eq!(group.status().closed.as_deref(), Some(reason.as_str()));
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_without_room_is_tried_again_and_any_other_failure_stops_the_node() {
    let (disk, engine) = (Arc::new(FaultyDisk::new()), Arc::new(Checkpoints::default()));
    let groups = groups_on(&disk, &engine);
    let group = groups.open_group(GROUP, LIFE, MachineKind::Directory).await.unwrap();
    disk.set_capacity(Some(8 << 20));
    *engine.answer.lock().unwrap() = Some(KvError::Full);
    for _ in 0..10 {
        assert_eq!(groups.checkpoint().await.unwrap_err().kind, DiskErrorKind::Full);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(group.status().closed, None);
    *engine.answer.lock().unwrap() = None;
    groups.checkpoint().await.unwrap();
    assert!(timeout(PATIENCE, groups.failed()).await.is_err());
    *engine.answer.lock().unwrap() = Some(KvError::Io("injected".to_owned()));
    groups.checkpoint().await.unwrap_err();
    assert!(timeout(PATIENCE, groups.failed()).await.unwrap().contains("injected"));
    assert!(group.status().closed.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_synced_stops_the_node() {
    let mut cluster = Cluster::start(1, 1).await;
    cluster.set(1, "a", "x").await.unwrap();
    cluster.machines[&1].disk.fail_syncs(1);
    cluster.group(1).trigger_snapshot().await;
    let reason = timeout(PATIENCE, cluster.running[&1].failed()).await.unwrap();
    assert!(
        reason.starts_with("snapshots/") && reason.contains("sync failed"),
        "{reason}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_after_an_attempt_of_unknown_outcome_is_no_refusal() {
    let mut cluster = Cluster::start_with(3, 3, |config| config.propose_reserve_bytes = RESERVE).await;
    let leader = cluster.leader().await;
    let follower = if leader == 1 { 2 } else { 1 };
    *cluster.net.loses_answer.lock().unwrap() = Some(|request| {
        matches!(
            crate::frame::decode::<crate::frame::Frame>(request).unwrap().request,
            crate::frame::Request::Propose { .. }
        )
    });
    let command = cluster.command("a", "1");
    let asked = cluster.group(follower);
    let asking = tokio::spawn(async move { asked.propose(&command, Duration::from_secs(10)).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.machines[&leader].disk.set_capacity(Some(RESERVE));
    tokio::time::sleep(Duration::from_secs(3)).await;
    *cluster.net.loses_answer.lock().unwrap() = None;
    assert_eq!(asking.await.unwrap(), Err(GroupError::Unknown));
    assert_eq!(cluster.shown(leader, "a").await.as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_closed_on_a_failed_read_is_open_again_when_the_disk_reads() {
    let mut cluster = Cluster::start(3, 3).await;
    cluster.net.cut_off(3);
    let leader = cluster.leader().await;
    for round in 0..10 {
        cluster.set(leader, &format!("n{round}"), "x").await.unwrap();
    }
    // A log that was opened anew holds nothing in memory: what node 3 lacks has to be read.
    for node in [1, 2] {
        cluster.stop(node).await;
        cluster.boot(node).await;
        cluster.leader().await;
    }
    let leader = cluster.leader().await;
    let disk = cluster.machines[&leader].disk.clone();
    disk.add_rule(FaultRule::always(Effect::Eio).under("log/").on(&[CallClass::Read]));
    cluster.net.heal();
    cluster
        .until("it closes", |cluster| cluster.group(leader).status().closed.is_some())
        .await;
    disk.heal();
    cluster
        .until("it is open again", |cluster| {
            cluster.group(leader).status().closed.is_none()
        })
        .await;
    cluster.settle().await;
    assert_eq!(cluster.shown(3, "n9").await.as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_received_snapshot_that_cannot_be_synced_stops_the_node() {
    let mut cluster = Cluster::start_with(3, 3, |config| {
        config.snapshot_entries = 40;
        config.log_entries_kept = 5;
    })
    .await;
    let leader = cluster.leader().await;
    let away = if leader == 3 { 2 } else { 3 };
    cluster.net.cut_off(away);
    for round in 0..100 {
        cluster.set(leader, &format!("n{round}"), "x").await.unwrap();
    }
    cluster
        .until("the log is purged", |cluster| {
            cluster.group(leader).status().purged >= Some(40)
        })
        .await;
    let fault = FaultRule::always(Effect::Eio).under("snapshots/0-1-incoming");
    let disk = cluster.machines[&away].disk.clone();
    disk.add_rule(fault.on(&[CallClass::Sync]).times(1));
    cluster.net.heal();
    let failed = timeout(PATIENCE * 4, cluster.running[&away].failed());
    let reason = failed.await.unwrap();
    assert!(
        reason.contains("incoming") && reason.contains("sync failed"),
        "{reason}"
    );
    // The leader sends it again, and the disk would now say that it is synced.
    tokio::time::sleep(PATIENCE * 4).await;
    assert_eq!(cluster.group(away).status().snapshot, None);
}

/// A follower that gets a snapshot, and whose disk fails one call while it is installed.
async fn install_with_a_fault(class: CallClass) {
    let mut cluster = Cluster::start_with(3, 3, |config| {
        config.snapshot_entries = 40;
        config.log_entries_kept = 5;
    })
    .await;
    let leader = cluster.leader().await;
    let away = if leader == 3 { 2 } else { 3 };
    for round in 0..50 {
        cluster.set(leader, &format!("a{round}"), "x").await.unwrap();
    }
    cluster.settle().await;
    cluster
        .until("it has a snapshot, which the next one replaces", |cluster| {
            cluster.group(away).status().snapshot.is_some()
        })
        .await;
    cluster.net.cut_off(away);
    for round in 0..100 {
        cluster.set(leader, &format!("n{round}"), "x").await.unwrap();
    }
    cluster
        .until("the log is purged", |cluster| {
            cluster.group(leader).status().purged >= Some(100)
        })
        .await;
    let disk = cluster.machines[&away].disk.clone();
    let received = Arc::new(tokio::sync::Notify::new());
    let tell = received.clone();
    disk.set_hook(Some(Arc::new(move |call| {
        if call.class == CallClass::Rename && call.to.starts_with("snapshots/") {
            tell.notify_one();
        }
    })));
    let failing = disk.clone();
    let faults = tokio::spawn(async move {
        received.notified().await;
        failing.add_rule(FaultRule::always(Effect::Eio).under("snapshots/").on(&[class]).times(1));
    });
    cluster.net.heal();
    cluster
        .until("it closes", |cluster| cluster.group(away).status().closed.is_some())
        .await;
    faults.await.unwrap();
    cluster
        .until("it is open again", |cluster| {
            cluster.group(away).status().closed.is_none()
        })
        .await;
    cluster.settle().await;
    assert_eq!(cluster.shown(away, "n99").await.as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_disk_failed_while_a_snapshot_was_installed_is_open_again() {
    install_with_a_fault(CallClass::Read).await;
    install_with_a_fault(CallClass::Remove).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_index_failed_a_write_is_open_again() {
    let (disk, engine) = (Arc::new(FaultyDisk::new()), Arc::new(Checkpoints::default()));
    let groups = groups_on(&disk, &engine);
    let group = groups.open_group(GROUP, LIFE, MachineKind::Directory).await.unwrap();
    group.initialize(&BTreeSet::from([NodeId(1)])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    *engine.write.lock().unwrap() = Some(KvError::Io("injected".to_owned()));
    let command = Command {
        op_id: OpId {
            node: NodeId(99),
            boot: 7,
            seq: 1,
        },
        settled_below: 1,
        time: UnixMillis(1_700_000_000_000),
        op: Op::Directory(DirectoryOp::SetSetting {
            name: "a".to_owned(),
            value: Some("x".to_owned()),
        }),
    };
    assert!(group.propose(&command, PATIENCE).await.is_err());
    assert!(group.status().closed.is_some());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let again = groups.group(GROUP).unwrap();
    assert_eq!(again.status().closed, None);
    again.propose(&command, PATIENCE).await.unwrap();
}
