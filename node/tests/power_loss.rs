//! What was acknowledged outlives power losses at any disk call, without the help of any page cache.
//!
//! More seeds: `POWER_LOSS_SEEDS=50 cargo test -p node --test power_loss`; one alone: `POWER_LOSS_SEED=17`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/load.rs"]
mod load;
#[path = "support/site.rs"]
mod site;

use std::time::Duration;

use core_types::{BlobId, Entropy, NodeId};
use disk::{Event, Trace};
use load::{Client, Ledger};
use platform::SeededEntropy;
use site::{NODES, Site};
use tokio::task::JoinSet;

const CLIENTS_PER_NODE: u64 = 2;
const ROUNDS: u64 = 3;
/// Enough that clients work until their node loses its power.
const STEPS_MAX: usize = 100_000;

fn clients(site: &Site, ledger: &Ledger, entropy: &dyn Entropy, steps: usize, trace: Option<&Trace>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for running in site.running.values() {
        for _ in 0..CLIENTS_PER_NODE {
            let client = Client {
                running: running.clone(),
                accounts: site.accounts.clone(),
                ledger: ledger.clone(),
                entropy: SeededEntropy::new(entropy.below(u64::MAX)),
                trace: trace.cloned(),
            };
            tasks.spawn(client.work(steps));
        }
    }
    tasks
}

/// Lets the power go: of one node, of one and then of all, or of all at once. It goes at a disk call that the seed chooses.
async fn power_loss(site: &mut Site, entropy: &dyn Entropy) {
    let kind = entropy.below(4);
    let one = 1 + entropy.below(NODES);
    let calls = u32::try_from(entropy.below(400)).unwrap();
    if kind < 3 {
        let power = site.running[&one].powers[0].clone();
        power.blow_after(calls);
        wait_for(|| !power.is_on()).await;
        site.lose_power(&[one], entropy).await;
        tokio::time::sleep(Duration::from_millis(entropy.below(3000))).await;
    }
    if kind == 1 {
        // It comes back, and everything goes while it still catches up.
        site.boot(one).await;
        tokio::time::sleep(Duration::from_millis(entropy.below(500))).await;
    }
    if kind > 0 {
        let power = site.power.clone();
        power.blow_after(calls);
        wait_for(|| !power.is_on()).await;
        let all: Vec<u64> = site.running.keys().copied().collect();
        site.lose_power(&all, entropy).await;
        site.power = disk::Power::new();
    }
}

/// Waits, but not for ever: a site without clients at work may make no disk calls.
async fn wait_for(is_true: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn run_seed(seed: u64) -> (usize, usize) {
    let entropy: &dyn Entropy = &SeededEntropy::new(seed);
    let mut site = Site::start(seed, Duration::from_micros(100), None).await;
    let ledger = Ledger::default();
    for _ in 0..ROUNDS {
        let mut tasks = clients(&site, &ledger, entropy, STEPS_MAX, None);
        if entropy.below(3) == 0 {
            // Somebody is cut off for a while at first.
            site.net.cut_off(1 + entropy.below(NODES));
            tokio::time::sleep(Duration::from_millis(entropy.below(2000))).await;
            site.net.heal();
        }
        power_loss(&mut site, entropy).await;
        tasks.shutdown().await;
        for node in 1..=NODES {
            if !site.running.contains_key(&node) {
                site.boot(node).await;
            }
        }
        load::verify(&site, &ledger).await;
    }
    // And it goes on as if nothing had been.
    let before = ledger.acknowledged();
    let tasks = clients(&site, &ledger, entropy, 5, None);
    tasks.join_all().await;
    assert!(ledger.acknowledged() > before);
    load::verify(&site, &ledger).await;
    (ledger.acknowledged(), ledger.flag_changes())
}

fn on_paused_time<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(work)
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("POWER_LOSS_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("POWER_LOSS_SEEDS").unwrap_or(2)).collect(),
    }
}

#[test]
fn what_was_acknowledged_outlives_any_power_loss() {
    for seed in seeds() {
        let (messages, flags) = on_paused_time(run_seed(seed));
        eprintln!("seed {seed}: {messages} messages acknowledged, {flags} of them flagged");
        assert!(messages > 10, "seed {seed}: hardly anything was tested");
    }
}

/// Whether one node's disk had the entry durably before the acknowledgement.
fn is_entry_durable(before: &[(NodeId, Event)], node: NodeId, guid: &[u8]) -> bool {
    is_write_synced(before, node, |path, bytes| {
        path.starts_with("log/") && contains(bytes, guid)
    })
}

/// Whether one node's disk had the blob durably: in the journal, or as a file with a synced name.
fn is_blob_durable(before: &[(NodeId, Event)], node: NodeId, blob: BlobId) -> bool {
    let in_journal = is_write_synced(before, node, |path, bytes| {
        path.starts_with("blobs.journal/") && contains(bytes, &blob.0)
    });
    in_journal || is_file_durable(before, node, blob)
}

fn is_write_synced(before: &[(NodeId, Event)], node: NodeId, is_it: impl Fn(&str, &[u8]) -> bool) -> bool {
    let written = before.iter().enumerate().find_map(|(at, (other, event))| match event {
        Event::Wrote { path, bytes } if *other == node && is_it(path, bytes) => Some((at, path.clone())),
        _ => None,
    });
    written.is_some_and(|(at, path)| is_synced(before, node, at, &path))
}

fn is_synced(before: &[(NodeId, Event)], node: NodeId, written: usize, path: &str) -> bool {
    before.iter().any(
        |(other, event)| matches!(event, Event::Synced { path: synced, began } if *other == node && synced == path && *began > written),
    )
}

fn is_file_durable(before: &[(NodeId, Event)], node: NodeId, blob: BlobId) -> bool {
    let name = blob.to_string();
    let mine = || before.iter().enumerate().filter(|(_, (other, _))| *other == node);
    mine().any(|(renamed, (_, event))| {
        let Event::Renamed { from, to } = event else { return false };
        let directory = to.rsplit_once('/').map_or("", |(directory, _)| directory);
        let last_write = mine()
            .take_while(|(at, _)| *at < renamed)
            .filter(|(_, (_, event))| matches!(event, Event::Wrote { path, .. } if path == from))
            .map(|(at, _)| at)
            .last();
        to.starts_with("blobs/")
            && to.contains(&name)
            && last_write.is_some_and(|written| is_synced(&before[..renamed], node, written, from))
            && mine().any(
                |(_, (_, event))| matches!(event, Event::DirSynced { path, began } if path == directory && *began > renamed),
            )
    })
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn acknowledgements_follow_their_syncs() {
    let trace = Trace::default();
    on_paused_time(async {
        let entropy: &dyn Entropy = &SeededEntropy::new(1);
        // A sync takes long: whoever does not wait for it is well ahead of it.
        let site = Site::start(1, Duration::from_millis(3), Some(trace.clone())).await;
        let ledger = Ledger::default();
        clients(&site, &ledger, entropy, 12, Some(&trace)).join_all().await;
        load::verify(&site, &ledger).await;
    });
    let events = trace.events();
    let mut acknowledgements = 0;
    for (at, (_, event)) in events.iter().enumerate() {
        let Event::Acked { guid, blob } = event else { continue };
        acknowledgements += 1;
        let before = &events[..at];
        let count =
            |is_durable: &dyn Fn(NodeId) -> bool| (1..=NODES).map(NodeId).filter(|node| is_durable(*node)).count();
        let entries = count(&|node| is_entry_durable(before, node, guid));
        // Copies come first: no log has the entry before its blob is durable on all three.
        let proposed = events
            .iter()
            .position(|(_, event)| matches!(event, Event::Wrote { path, bytes } if path.starts_with("log/") && contains(bytes, guid)))
            .unwrap();
        let blobs = count(&|node| is_blob_durable(&events[..proposed], node, *blob));
        assert!(
            entries >= 2,
            "acknowledgement {acknowledgements}: the entry was durable on {entries} nodes"
        );
        assert!(
            blobs >= 3,
            "acknowledgement {acknowledgements}: the blob was durable on {blobs} nodes"
        );
    }
    assert!(acknowledgements > 20, "{acknowledgements}");
}
