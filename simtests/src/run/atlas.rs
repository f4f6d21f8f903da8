//! What may happen to a site: the shape of the schedules that seeds give.

use std::time::Duration;

use oracle::rng::Rng;
use oracle::schedule::{Atlas, Change, Event, Fault, FaultKind, Schedule};

/// The schedule of a seed.
#[must_use]
pub fn schedule(seed: u64, seconds: u64) -> Schedule {
    let mut schedule = atlas(seed, seconds).schedule(seed);
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
            | FaultKind::PowerOffAt
            | FaultKind::KillLeader
            | FaultKind::Pause
            | FaultKind::ReplaceNode
            | FaultKind::Membership
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

/// Members of most sites.
pub const NODES: usize = 3;

/// What can happen in so many seconds to the site of a seed: of three nodes mostly, some with machines that may be added.
fn atlas(seed: u64, seconds: u64) -> Atlas {
    let mut rng = Rng::named(seed, "site");
    let (nodes, spares) = *rng
        .pick(&[(3, 0), (3, 0), (3, 0), (3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (5, 0)])
        .unwrap_or(&(3, 0));
    let mut atlas = Atlas::site(nodes);
    atlas.spares = (nodes + 1..=nodes + spares).collect();
    // A group has three voters in a larger site, too.
    atlas.damaged_max = 1;
    atlas.duration = Duration::from_secs(seconds);
    atlas.calm = Duration::from_secs(1);
    atlas.warm_up = Duration::from_secs(1);
    atlas.groups = 2;
    atlas.knobs = vec![("groups".to_owned(), 2, 4), ("users".to_owned(), 2, 3)];
    if nodes > 3 && rng.chance(500) {
        atlas.knobs.push(("replace_after".to_owned(), 10, 15));
    }
    atlas
}

/// How many machines there are: the first members, and those that are added.
pub(super) fn machines(schedule: &Schedule) -> u64 {
    let added = schedule.events.iter().filter_map(|event| match event.fault {
        Fault::Membership {
            change: Change::Add(machine),
        } => Some(machine),
        _ => None,
    });
    added
        .chain(schedule.nodes.iter().copied())
        .max()
        .unwrap_or(NODES as u64)
}
