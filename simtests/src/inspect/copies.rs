//! I02, I03 and I28: what of messages would survive the loss of power everywhere, and what is kept that nobody needs.
//!
//! Copies of the disks as a power loss would leave them are opened as a node would open them: the blob store's files and journal,
//! each blob verified to the last octet, and the log with its entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use blobstore::Audit;
use core_types::limits::BLOB_COPIES;
use core_types::{BlobId, BlockingPool, Disk, Entropy, NodeId};
use platform::{DiskImage, FaultyDisk, SeededEntropy};
use raft::log::{LogConfig, SharedLog};

use super::replicas::Watch;
use crate::host::{self, Host};

/// Damage at rest is found and mended within this time: that of a scrub, and of what follows it.
pub(super) const SCRUBBED_WITHIN: Duration = Duration::from_secs(120);
/// What nothing refers to is gone within this time: the grace time after the last start, the next collection, which marks it, the
/// grace time again, and the next collection.
pub(super) const COLLECTED_WITHIN: Duration =
    Duration::from_secs(2 * host::GRACE.as_secs() + 2 * host::COLLECT.as_secs() + 10);
/// Problems that are told of, of each kind.
const TOLD: usize = 5;
/// The space of the index in which rows say that a blob is referred to (`state::keys`).
const BLOB_ROWS: u8 = 0x19;

/// Which disks were damaged when, as far as they know.
#[derive(Default)]
pub struct Harm {
    counts: BTreeMap<u64, u64>,
    harmed: Vec<(Duration, u64)>,
}

impl Harm {
    /// Looks for damage that was not there at the last look.
    pub fn look(&mut self, now: Duration, hosts: &[Host], watch: &mut Watch) {
        for host in hosts {
            let count = damage(&host.disk().fired());
            if self.counts.insert(host.number(), count).unwrap_or(0) != count {
                self.harmed.push((now, host.number()));
                watch.forget(host.number());
            }
        }
    }

    /// The hosts whose disks were damaged since then.
    #[must_use]
    pub fn since(&self, then: Duration) -> BTreeSet<u64> {
        self.harmed
            .iter()
            .filter(|(at, _)| *at >= then)
            .map(|(_, host)| *host)
            .collect()
    }

    /// Whether any was.
    #[must_use]
    pub fn is_any(&self) -> bool {
        !self.harmed.is_empty()
    }
}

/// How often a disk lost or changed what was durable on it.
fn damage(fired: &BTreeMap<String, u64>) -> u64 {
    let is_damage = |name: &str| {
        [
            "disk.restore",
            "disk.bit_flip",
            "disk.file_",
            "disk.misdirected",
            "disk.ignored_sync",
        ]
        .iter()
        .any(|kind| name.starts_with(kind))
    };
    fired
        .iter()
        .filter(|(name, _)| is_damage(name))
        .map(|(_, count)| count)
        .sum()
}

/// Blobs as they were read so far.
#[derive(Default)]
pub struct Disks {
    known: BTreeMap<BlobId, Vec<u8>>,
}

/// On which hosts something is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its blob, verified.
    pub blob: BTreeSet<u64>,
    /// The entry that names the blob; or the log was purged beyond it.
    pub entry: BTreeSet<u64>,
    /// A log that is damaged somewhere, and so says nothing of a group: after a power loss the replica is repaired.
    pub damaged: BTreeSet<u64>,
}

/// What a look at all disks found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whole {
    /// Blobs that a message refers to and that are not where they should be.
    pub lacking: Vec<String>,
    /// Blobs that nothing refers to.
    pub orphans: Vec<String>,
    /// How many are referred to.
    pub blobs: u64,
    /// How many are not, counted on each disk.
    pub orphaned: u64,
}

/// A disk as a power loss would leave it.
pub struct Durable {
    node: NodeId,
    copy: FaultyDisk,
    blobs: Audit,
}

/// Jobs of a copy of a disk, which nobody waits for.
struct NoPool;

impl BlockingPool for NoPool {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }
}

impl Durable {
    /// What an image of a node's disk has; `None` where the node could not start on it.
    #[must_use]
    pub fn of(node: u64, image: &DiskImage) -> Option<Self> {
        let copy = FaultyDisk::new();
        copy.restore(image);
        let disk: Arc<dyn Disk> = Arc::new(copy.clone());
        let blobs = Audit::of(disk, Arc::new(SeededEntropy::new(1)), host::scale().blobs).ok()?;
        Some(Self {
            node: NodeId(node),
            copy,
            blobs,
        })
    }

    /// The blobs that are there, verified or not.
    fn ids(&self) -> BTreeSet<BlobId> {
        let mut ids = filed(&self.copy);
        ids.extend(self.blobs.in_journal());
        ids
    }

    /// Where an entry that names a blob stands in the log, and up to where each group's log was purged.
    fn entries(&self, blob: BlobId) -> Entries {
        let config = LogConfig {
            segment_bytes: host::scale().log_segment_bytes,
            ..LogConfig::new(self.node)
        };
        let disk: Arc<dyn Disk> = Arc::new(self.copy.clone());
        let entropy: &dyn Entropy = &SeededEntropy::new(1);
        let mut entries = Entries::default();
        let Ok(log) = SharedLog::open(disk, Arc::new(NoPool), entropy, config) else {
            entries.is_damaged = true;
            return entries;
        };
        for key in log.groups() {
            let Some(state) = log.state(key) else { continue };
            let first = state.purged.map_or(0, |mark| mark.index + 1);
            entries.purged.insert(key.group.0, first);
            let end = state.last.map_or(0, |mark| mark.index + 1);
            let all = log.read(key, first..end.max(first), usize::MAX);
            entries.is_damaged |= state.damage.is_some() || all.is_err();
            let all = all.unwrap_or_default();
            let names = |body: &[u8]| body.windows(32).any(|window| window == blob.0);
            let found = all.iter().filter(|entry| names(&entry.body));
            entries.found.extend(found.map(|entry| (key.group.0, entry.mark.index)));
        }
        entries
    }
}

#[derive(Default)]
struct Entries {
    found: BTreeSet<(u32, u64)>,
    purged: BTreeMap<u32, u64>,
    is_damaged: bool,
}

impl Disks {
    /// On which hosts the message that ends in these bytes is durable now.
    pub fn copies(&mut self, hosts: &[Host], bytes: &[u8]) -> Seen {
        let disks: Vec<(u64, Durable)> = hosts
            .iter()
            .filter_map(|host| Some((host.number(), Durable::of(host.node_id()?, &host.disk().image())?)))
            .collect();
        self.copies_on(&disks, bytes)
    }

    fn copies_on(&mut self, disks: &[(u64, Durable)], bytes: &[u8]) -> Seen {
        for (_, disk) in disks {
            for id in disk.ids() {
                if !self.known.contains_key(&id)
                    && let Ok(blob) = disk.blobs.read(id)
                {
                    self.known.insert(id, blob.to_vec());
                }
            }
        }
        // The same bytes may have come twice, as two blobs: the one that was acknowledged has the most copies.
        let blobs = self
            .known
            .iter()
            .filter(|(_, blob)| blob.ends_with(bytes))
            .map(|(id, _)| *id);
        blobs
            .map(|id| seen(disks, id))
            .max_by_key(|seen| (seen.blob.len(), seen.entry.len()))
            .unwrap_or_default()
    }

    /// Looks at every blob of every disk.
    #[must_use]
    pub fn whole(&self, hosts: &[Host]) -> Whole {
        let disks: Vec<Stock> = hosts
            .iter()
            // Of a member that has groups: what one that has left or lost its last group keeps is nobody's matter.
            .filter(|host| host.running().is_some_and(|running| running.groups.list().len() > 1))
            .filter_map(|host| {
                let disk = Durable::of(host.node_id()?, &host.disk().image())?;
                let groups = (1..=host.groups()).map(|group| host.rows(group));
                let wanted = groups
                    .flat_map(|rows| rows.into_keys())
                    .filter_map(|key| referred(&key))
                    .collect();
                Some(Stock {
                    node: host.name(),
                    disk,
                    filed: filed(host.disk()),
                    wanted,
                })
            })
            .collect();
        whole_of(&disks)
    }
}

/// The blob that a row says is referred to.
fn referred(key: &[u8]) -> Option<BlobId> {
    let (space, id) = key.split_first()?;
    (*space == BLOB_ROWS).then_some(())?;
    Some(BlobId(id.try_into().ok()?))
}

fn seen(disks: &[(u64, Durable)], blob: BlobId) -> Seen {
    let has = disks.iter().filter(|(_, disk)| disk.blobs.read(blob).is_ok());
    let entries: Vec<(u64, Entries)> = disks.iter().map(|(host, disk)| (*host, disk.entries(blob))).collect();
    let places: BTreeSet<(u32, u64)> = entries.iter().flat_map(|(_, entries)| entries.found.clone()).collect();
    let holds = |entries: &Entries| {
        places.iter().any(|(group, index)| {
            entries.found.contains(&(*group, *index)) || entries.purged.get(group).is_some_and(|first| first > index)
        })
    };
    Seen {
        blob: has.map(|(host, _)| *host).collect(),
        entry: entries
            .iter()
            .filter(|(_, entries)| holds(entries))
            .map(|(host, _)| *host)
            .collect(),
        damaged: entries
            .iter()
            .filter(|(_, entries)| entries.is_damaged)
            .map(|(host, _)| *host)
            .collect(),
    }
}

/// A disk with what the rows of its node refer to.
struct Stock {
    node: String,
    disk: Durable,
    /// Those that have a file now. That one is gone need not be durable, and the journal's places are used again: a start that
    /// finds a blob which was removed has it removed once more.
    filed: BTreeSet<BlobId>,
    wanted: BTreeSet<BlobId>,
}

fn filed(disk: &FaultyDisk) -> BTreeSet<BlobId> {
    let of_path = |path: &String| {
        let name = path.strip_prefix("blobs/")?.rsplit('/').next()?;
        BlobId::parse_hex(name.strip_suffix(".eml.zst").or_else(|| name.strip_suffix(".eml"))?)
    };
    disk.paths().iter().filter_map(of_path).collect()
}

fn whole_of(disks: &[Stock]) -> Whole {
    let all: BTreeSet<BlobId> = disks.iter().flat_map(|stock| stock.wanted.clone()).collect();
    let mut whole = Whole {
        blobs: all.len() as u64,
        ..Whole::default()
    };
    let mut copies: BTreeMap<BlobId, Vec<&str>> = BTreeMap::new();
    for stock in disks {
        for id in &all {
            match stock.disk.blobs.read(*id) {
                Ok(_) => copies.entry(*id).or_default().push(&stock.node),
                Err(error) if stock.wanted.contains(id) => {
                    whole
                        .lacking
                        .push(format!("{} refers to a blob and has no copy: {error}", stock.node));
                }
                Err(_) => {}
            }
        }
        let orphans: Vec<BlobId> = stock.filed.difference(&stock.wanted).copied().collect();
        whole.orphaned += orphans.len() as u64;
        let told = orphans.iter().take(TOLD);
        whole
            .orphans
            .extend(told.map(|id| format!("{} keeps {id}, to which nothing refers", stock.node)));
    }
    let least = BLOB_COPIES.min(disks.len());
    for id in all {
        let on = copies.remove(&id).unwrap_or_default();
        if on.len() < least {
            whole.lacking.push(format!("{id} has whole copies on {on:?} only"));
        }
    }
    whole.lacking.truncate(2 * TOLD);
    whole
}

#[cfg(test)]
mod tests;
