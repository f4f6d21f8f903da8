//! What may happen to a site: the shape of the schedules that seeds give.

use std::time::Duration;

use oracle::schedule::{Atlas, Event, FaultKind, Schedule};

/// The schedule of a seed.
#[must_use]
pub fn schedule(seed: u64, seconds: u64) -> Schedule {
    let mut schedule = atlas(seconds).schedule(seed);
    let is_restored = |event: &Event| event.fault.kind() == FaultKind::RestoreImage;
    if schedule.events.iter().any(is_restored) {
        // A disk that is put back is known by what the others remember of it: they have to be there, and to have heard of it.
        // Two acknowledgements of which one is taken back and the other is behind a cut are more than three nodes bear.
        schedule.events.retain(|event| !silences(event.fault.kind()));
    }
    schedule
}

/// Whether a fault keeps a node from hearing of others, or others from hearing of it.
fn silences(kind: FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::Crash
            | FaultKind::PowerOffAfter
            | FaultKind::Restart
            | FaultKind::Partition
            | FaultKind::OneWay
            | FaultKind::Bridge
            | FaultKind::Loss
            | FaultKind::Delay
            | FaultKind::SlowNode
            | FaultKind::DiskFrozen
            | FaultKind::DiskSlow
            | FaultKind::DiskEio
            | FaultKind::DiskFull
            | FaultKind::FileLost
            | FaultKind::IndexLost
            | FaultKind::BitFlip
            | FaultKind::Misdirected
    )
}

/// Nodes of the site.
pub const NODES: usize = 3;

/// What can happen to a site of three nodes in so many seconds.
fn atlas(seconds: u64) -> Atlas {
    let mut atlas = Atlas::site(NODES as u64).without(&[
        // Not in the simulation yet: see `docs/simulation.md`.
        FaultKind::Membership,
        FaultKind::ReplaceNode,
        FaultKind::Pause,
        // The workload's clients do it by themselves.
        FaultKind::ClientDies,
    ]);
    atlas.duration = Duration::from_secs(seconds);
    atlas.calm = Duration::from_secs(1);
    atlas.warm_up = Duration::from_secs(1);
    atlas.groups = 2;
    atlas.knobs = vec![
        ("groups".to_owned(), 2, 4),
        ("users".to_owned(), 2, 3),
        ("clients".to_owned(), 2, 6),
    ];
    atlas
}
