//! What is on the disk: files, names, what of both is durable, and what a crash leaves of the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use core_types::{DiskError, DiskErrorKind, Entropy};

use super::call::{CallClass, CallEvent, DiskCall};
use super::faults::{Effect, Faults};
use super::pages::Pages;
use super::{DiskHook, SECTOR_BYTES};
use crate::system::SeededEntropy;

#[derive(Default)]
pub(super) struct Shared {
    /// Counts crashes: handles of an earlier life are dead.
    pub(super) life: u64,
    pub(super) files: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    /// How many handles of this life each file has.
    pub(super) handles: BTreeMap<u64, usize>,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    /// Changes of names that no `sync_dir` has made durable, oldest first.
    pub(super) name_changes: Vec<NameChange>,
    pub(super) directories: BTreeSet<String>,
    pub(super) capacity: Option<u64>,
    pub(super) fail_syncs: u32,
    pub(super) unreadable: BTreeSet<String>,
    /// Of files, by inode: reads that touch them fail.
    pub(super) bad_ranges: BTreeMap<u64, Vec<Range<u64>>>,
    pub(super) trace: Option<Vec<DiskCall>>,
    pub(super) hook: Option<DiskHook>,
    pub(super) faults: Faults,
}

#[derive(Default)]
pub(super) struct Inode {
    pub(super) current: Pages,
    pub(super) durable: Pages,
    pub(super) pending: Vec<Pending>,
}

pub(super) enum Pending {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

pub(super) enum NameChange {
    Put(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

/// A call on its way in.
pub(super) struct Site<'a> {
    pub(super) class: CallClass,
    pub(super) path: &'a str,
    pub(super) to: &'a str,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) digest: [u8; 32],
}

impl<'a> Site<'a> {
    pub(super) fn new(class: CallClass, path: &'a str) -> Self {
        Self {
            class,
            path,
            to: "",
            offset: 0,
            length: 0,
            digest: [0; 32],
        }
    }

    pub(super) fn at(mut self, offset: u64, length: u64) -> Self {
        self.offset = offset;
        self.length = length;
        self
    }

    fn error(&self, kind: DiskErrorKind, detail: &str) -> DiskError {
        DiskError::new(kind, self.path, detail)
    }
}

impl NameChange {
    fn touches(&self, directory: &str) -> bool {
        match self {
            Self::Put(path, _) | Self::Remove(path) => parent(path) == directory,
            Self::Rename(from, to, _) => parent(from) == directory || parent(to) == directory,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Put(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, inode) => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
        }
    }
}

impl Inode {
    /// Makes everything durable.
    pub(super) fn settle(&mut self) {
        // Only what changed is copied: a preallocated segment is large, a batch small.
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Write(offset, bytes) => self.durable.write(offset, &bytes),
                Pending::SetLen(length) => self.durable.resize(length),
            }
        }
    }

    /// Each change that is not durable is kept, dropped or torn; gives how many were not kept whole.
    fn settle_randomly(&mut self, entropy: &dyn Entropy) -> u64 {
        let mut harmed = 0;
        for pending in std::mem::take(&mut self.pending) {
            harmed += u64::from(!keep_randomly(&mut self.durable, pending, entropy));
        }
        harmed
    }
}

impl Shared {
    pub(super) fn record(&mut self, call: impl FnOnce() -> DiskCall) {
        if let Some(trace) = &mut self.trace {
            trace.push(call());
        }
    }

    /// Lets a call in, under whatever fault hits it, and reports it.
    pub(super) fn call<T>(
        &mut self,
        mut site: Site<'_>,
        act: impl FnOnce(&mut Self, &mut Site<'_>, Option<Effect>) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let mut effect = None;
        let result = self.power(&site).and_then(|()| {
            self.faults.charge(site.class);
            effect = self.faults.draw(site.class, site.path);
            let is_sync = matches!(site.class, CallClass::Sync | CallClass::SyncDir);
            match effect {
                Some(Effect::Eio) if !is_sync => Err(site.error(DiskErrorKind::Other, "input/output error (injected)")),
                Some(Effect::Full) => Err(site.error(DiskErrorKind::Full, "no space left (injected)")),
                _ => act(self, &mut site, effect),
            }
        });
        if let Some(hook) = &self.hook {
            hook(&CallEvent {
                class: site.class,
                path: site.path,
                to: site.to,
                offset: site.offset,
                length: site.length,
                digest: site.digest,
                failed: result.as_ref().err().map(|error| error.kind),
                effect,
            });
        }
        result
    }

    fn power(&mut self, site: &Site<'_>) -> Result<(), DiskError> {
        match &mut self.faults.power_fails_in {
            Some(0) => {
                self.faults.power_fails_in = None;
                self.faults.powered_off = true;
                self.faults.fire("disk.power_off");
            }
            Some(calls) => *calls -= 1,
            None => {}
        }
        if self.faults.powered_off {
            return Err(site.error(DiskErrorKind::Other, "the power is off (injected)"));
        }
        Ok(())
    }

    /// The digest that a hook wants.
    pub(super) fn digest(&self, bytes: &[u8]) -> [u8; 32] {
        self.hook.as_ref().map_or([0; 32], |_| *blake3::hash(bytes).as_bytes())
    }

    /// What is removed and open nowhere takes no room, although a crash may bring it back.
    pub(super) fn used_bytes(&self) -> u64 {
        let live: BTreeSet<&u64> = self.names.values().chain(self.handles.keys()).collect();
        let live = live.into_iter().filter_map(|inode| self.files.get(inode));
        live.map(|inode| inode.current.len()).sum()
    }

    /// Bytes that are free; `None` for no bound.
    pub(super) fn room(&self) -> Option<u64> {
        self.capacity.map(|capacity| capacity.saturating_sub(self.used_bytes()))
    }

    pub(super) fn room_for(&mut self, path: &str, more: u64) -> Result<(), DiskError> {
        if self.room().is_some_and(|room| more > room) {
            self.faults.fire("disk.full");
            return Err(DiskError::new(DiskErrorKind::Full, path, "no space left (injected)"));
        }
        Ok(())
    }

    pub(super) fn require_dir(&self, path: &str) -> Result<(), DiskError> {
        if self.directories.contains(path) {
            return Ok(());
        }
        Err(DiskError::new(DiskErrorKind::NotFound, path, "no such directory"))
    }

    fn sync_fails(&mut self, effect: Option<Effect>) -> bool {
        if self.fail_syncs == 0 {
            return effect == Some(Effect::Eio);
        }
        self.fail_syncs -= 1;
        true
    }

    pub(super) fn sync_file(&mut self, inode: u64, site: &Site<'_>, effect: Option<Effect>) -> Result<(), DiskError> {
        if self.sync_fails(effect) {
            let entropy = self.faults.entropy();
            // As Linux does it: the pages count as clean afterwards, whether they reached the disk or not.
            if let Some(inode) = self.files.get_mut(&inode) {
                inode.settle_randomly(entropy);
            }
            return Err(site.error(DiskErrorKind::SyncFailed, "sync failed (injected)"));
        }
        if effect == Some(Effect::IgnoredSync) {
            return Ok(());
        }
        if let Some(inode) = self.files.get_mut(&inode) {
            inode.settle();
        }
        self.record(|| DiskCall::Sync(site.path.to_owned()));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, site: &Site<'_>, effect: Option<Effect>) -> Result<(), DiskError> {
        self.require_dir(site.path)?;
        let fails = self.sync_fails(effect);
        if effect == Some(Effect::IgnoredSync) && !fails {
            return Ok(());
        }
        let changes = std::mem::take(&mut self.name_changes);
        let (durable, pending): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.touches(site.path));
        self.name_changes = pending;
        let kept = if fails {
            self.faults.below(durable.len() as u64 + 1)
        } else {
            u64::MAX
        };
        for change in durable.iter().take(usize::try_from(kept).unwrap_or(usize::MAX)) {
            change.apply(&mut self.durable_names);
        }
        if fails {
            return Err(site.error(DiskErrorKind::SyncFailed, "sync failed (injected)"));
        }
        self.record(|| DiskCall::SyncDir(site.path.to_owned()));
        Ok(())
    }

    /// Ends all handles, and turns the power on again.
    fn new_life(&mut self) {
        self.life += 1;
        self.handles.clear();
        self.fail_syncs = 0;
        self.faults.powered_off = false;
        self.faults.power_fails_in = None;
    }

    /// The process ends, and the system goes on: nothing that it wrote is lost.
    pub(super) fn kill(&mut self) {
        self.new_life();
        self.drop_nameless();
    }

    /// Power loss; without entropy nothing is kept that was not synced.
    pub(super) fn crash(&mut self, entropy: Option<&dyn Entropy>) {
        self.new_life();
        let changes = std::mem::take(&mut self.name_changes);
        let kept = entropy.map_or(0, |entropy| entropy.below(changes.len() as u64 + 1));
        let kept = usize::try_from(kept).unwrap_or(0);
        for change in changes.iter().take(kept) {
            change.apply(&mut self.durable_names);
        }
        if kept < changes.len() {
            self.faults.fire("disk.crash.names_lost");
        }
        self.names = self.durable_names.clone();
        self.drop_nameless();
        let mut harmed = 0;
        for inode in self.files.values_mut() {
            match entropy {
                Some(entropy) => harmed += inode.settle_randomly(entropy),
                None => {
                    harmed += inode.pending.len() as u64;
                    inode.pending.clear();
                }
            }
            inode.current = inode.durable.clone();
        }
        if harmed != 0 {
            self.faults.fire("disk.crash.writes_lost");
        }
    }

    fn drop_nameless(&mut self) {
        let live: BTreeSet<u64> = self
            .names
            .values()
            .chain(self.durable_names.values())
            .copied()
            .collect();
        self.files.retain(|inode, _| live.contains(inode));
    }

    /// Changes a file at rest and as it is now.
    pub(super) fn at_rest(&mut self, path: &str, mut change: impl FnMut(&mut Pages)) {
        if let Some(inode) = self.names.get(path)
            && let Some(inode) = self.files.get_mut(inode)
        {
            change(&mut inode.current);
            change(&mut inode.durable);
        }
    }

    /// Whether a read touches what cannot be read.
    pub(super) fn is_bad(&self, inode: u64, offset: u64, length: u64) -> bool {
        let end = offset.saturating_add(length);
        let bad = self.bad_ranges.get(&inode).into_iter().flatten();
        bad.into_iter().any(|bad| bad.start < end && offset < bad.end)
    }

    pub(super) fn pages(&self, path: &str) -> Option<&Pages> {
        self.names
            .get(path)
            .and_then(|inode| self.files.get(inode))
            .map(|inode| &inode.current)
    }

    /// What a power loss that keeps nothing would leave.
    pub(super) fn image(&self) -> DiskImage {
        let file = |(path, inode): (&String, &u64)| {
            let pages = self.files.get(inode).map(|inode| inode.durable.clone());
            (path.clone(), pages.unwrap_or_default())
        };
        DiskImage {
            files: Arc::new(self.durable_names.iter().map(file).collect()),
            directories: Arc::new(self.directories.clone()),
        }
    }

    pub(super) fn restore(&mut self, image: &DiskImage) {
        self.new_life();
        self.files.clear();
        self.names.clear();
        self.name_changes.clear();
        self.directories = (*image.directories).clone();
        for (path, pages) in image.files.iter() {
            let inode = self.next_inode;
            self.next_inode += 1;
            self.names.insert(path.clone(), inode);
            let inode_of = Inode {
                current: pages.clone(),
                durable: pages.clone(),
                pending: Vec::new(),
            };
            self.files.insert(inode, inode_of);
        }
        self.durable_names = self.names.clone();
    }
}

/// All that was durable on a disk at one moment. Copies are cheap: they share the bytes.
#[derive(Clone)]
pub struct DiskImage {
    files: Arc<BTreeMap<String, Pages>>,
    directories: Arc<BTreeSet<String>>,
}

impl DiskImage {
    /// An image of an empty disk.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            files: Arc::default(),
            directories: Arc::new(BTreeSet::from([String::new()])),
        }
    }

    /// The paths of its files, in order, with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        self.files
            .iter()
            .map(|(path, pages)| (path.clone(), pages.len()))
            .collect()
    }
}

impl std::fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DiskImage({} files)", self.files.len())
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Keeps, drops or tears a write that was not synced; whether it was kept whole.
fn keep_randomly(durable: &mut Pages, pending: Pending, entropy: &dyn Entropy) -> bool {
    match (pending, entropy.below(3)) {
        (_, 0) => false,
        (Pending::Write(offset, bytes), 1) => {
            // Torn: some of the sectors that it covers reached the disk.
            let mut start = 0;
            while start < bytes.len() {
                let position = usize::try_from(offset).unwrap_or(0) + start;
                let end = bytes.len().min(start + SECTOR_BYTES - position % SECTOR_BYTES);
                if entropy.below(2) == 0 {
                    durable.write(offset + start as u64, bytes.get(start..end).unwrap_or_default());
                }
                start = end;
            }
            false
        }
        (Pending::Write(offset, bytes), _) => {
            durable.write(offset, &bytes);
            true
        }
        (Pending::SetLen(length), _) => {
            durable.resize(length);
            true
        }
    }
}

/// The entropy of one crash.
pub(super) fn entropy_of(seed: u64) -> SeededEntropy {
    SeededEntropy::new(seed)
}
