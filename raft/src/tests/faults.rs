//! Random cuts and power losses under load: what was acknowledged is there at the end, once, and all states are the same.

use std::sync::atomic::{AtomicBool, Ordering};

use core_types::Entropy;

use super::*;

/// One client: sets numbered settings through one node after the other, and notes what was acknowledged.
async fn write_until(
    net: Arc<Net>,
    groups: Arc<Mutex<BTreeMap<u64, Groups>>>,
    client: u64,
    end: Arc<AtomicBool>,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut seq = 0;
    while !end.load(Ordering::Relaxed) {
        seq += 1;
        let name = format!("c{client}-{seq}");
        let node = 1 + (seq + client) % 3;
        let group = groups.lock().unwrap().get(&node).and_then(|groups| groups.group(GROUP));
        let Some(group) = group.filter(|_| net.services.lock().unwrap().contains_key(&NodeId(node))) else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let command = Command {
            op_id: OpId {
                node: NodeId(100 + client),
                boot: 1,
                seq,
            },
            settled_below: seq,
            time: UnixMillis(1_700_000_000_000 + seq),
            op: Op::Directory(DirectoryOp::SetSetting {
                name: name.clone(),
                value: Some("x".repeat(200)),
            }),
        };
        if group.propose(&command, Duration::from_secs(2)).await.is_ok() {
            acknowledged.push(name);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    acknowledged
}

async fn run(seed: u64) -> usize {
    let chance: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
    let mut cluster = Cluster::start_with(3, 3, |config| {
        config.snapshot_entries = 60;
        config.log_entries_kept = 10;
        config.digest_interval = Duration::from_secs(2);
    })
    .await;
    let shared = Arc::new(Mutex::new(cluster.running.clone()));
    let end = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|client| tokio::spawn(write_until(cluster.net.clone(), shared.clone(), client, end.clone())))
        .collect();
    for round in 0..12 {
        tokio::time::sleep(Duration::from_millis(300 + chance.below(700))).await;
        let node = 1 + chance.below(3);
        match chance.below(3) {
            0 => {
                cluster.net.cut_off(node);
                tokio::time::sleep(Duration::from_millis(chance.below(1500))).await;
                cluster.net.heal();
            }
            1 => {
                let other = 1 + chance.below(3);
                let pairs = [(NodeId(node), NodeId(other)), (NodeId(other), NodeId(node))];
                cluster.net.cut.lock().unwrap().extend(pairs);
                tokio::time::sleep(Duration::from_millis(chance.below(1500))).await;
                cluster.net.heal();
            }
            _ => {
                shared.lock().unwrap().remove(&node);
                cluster.net.services.lock().unwrap().remove(&NodeId(node));
                cluster.machines[&node].disk.crash(seed * 1000 + round);
                cluster.running.remove(&node).unwrap().shutdown().await;
                tokio::time::sleep(Duration::from_millis(chance.below(1000))).await;
                cluster.boot(node).await;
                shared.lock().unwrap().insert(node, cluster.running[&node].clone());
            }
        }
    }
    end.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    cluster.settle().await;
    for node in 1..=3 {
        assert_eq!(
            (cluster.group(node).status().closed, cluster.group(node).status().alarm),
            (None, None)
        );
        for name in &acknowledged {
            assert!(
                cluster.shown(node, name).await.is_some(),
                "{name} was acknowledged and is not on node {node}"
            );
        }
    }
    acknowledged.len()
}

/// One history; more with `RAFT_SEEDS=first..last` in the environment.
#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_under_cuts_and_power_losses() {
    let seeds = std::env::var("RAFT_SEEDS").unwrap_or_else(|_| "1..1".to_owned());
    let (first, last) = seeds.split_once("..").unwrap();
    for seed in first.parse().unwrap()..=last.parse().unwrap() {
        let acknowledged = run(seed).await;
        assert!(acknowledged > 100, "seed {seed}: {acknowledged} commands came through");
    }
}
