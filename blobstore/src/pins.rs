//! Which blobs must not be collected: those that were put lately, whatever refers to them.
//!
//! An op that names a blob may be in doubt for a while; every put, also of a blob that exists, pins it for the grace time,
//! which is longer. Removal and pinning exclude each other: a blob is checked and declared as being removed under one
//! lock, and a put waits until the removal is over, finds the blob gone and stores it anew.
//!
//! Memory: some 30 octets for each blob put within the grace time. A pin keeps 8 octets of the name; two names that share
//! them protect each other, which does no harm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use core_types::BlobId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::files::lock;

/// See the module.
pub(crate) struct Pins {
    grace: Duration,
    opened: Instant,
    state: Mutex<State>,
    removed: Notify,
}

#[derive(Default)]
struct State {
    /// When each was last pinned, as time since the store was opened.
    pins: BTreeMap<[u8; 8], Duration>,
    marks: BTreeMap<BlobId, Duration>,
    removing: BTreeSet<BlobId>,
}

/// The permission to remove one blob; puts of it wait until it is dropped.
pub(crate) struct Removal<'a> {
    pins: &'a Pins,
    id: BlobId,
}

impl Drop for Removal<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.pins.state);
        state.removing.remove(&self.id);
        state.marks.remove(&self.id);
        drop(state);
        self.pins.removed.notify_waiters();
    }
}

impl Pins {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            grace,
            opened: Instant::now(),
            state: Mutex::default(),
            removed: Notify::new(),
        }
    }

    /// Pins a blob from now on, after a removal that is under way.
    pub(crate) async fn pin(&self, id: BlobId) {
        loop {
            let removed = self.removed.notified();
            tokio::pin!(removed);
            removed.as_mut().enable();
            {
                let mut state = lock(&self.state);
                if !state.removing.contains(&id) {
                    state.pins.insert(key(id), self.opened.elapsed());
                    state.marks.remove(&id);
                    return;
                }
            }
            removed.await;
        }
    }

    /// Whether nothing may be collected yet, since nobody knows what was put before the start.
    pub(crate) fn all_pinned(&self) -> bool {
        self.opened.elapsed() < self.grace
    }

    /// Forgets pins whose time is over.
    pub(crate) fn prune(&self) {
        let now = self.opened.elapsed();
        lock(&self.state).pins.retain(|_, pinned| now < *pinned + self.grace);
    }

    /// Takes note that nothing refers to a blob; whether it has been so for the grace time, without a pin.
    pub(crate) fn mark(&self, id: BlobId, marks_max: usize) -> bool {
        let now = self.opened.elapsed();
        let mut state = lock(&self.state);
        if is_pinned(&state, id, now, self.grace) {
            state.marks.remove(&id);
            return false;
        }
        if let Some(marked) = state.marks.get(&id) {
            return now >= *marked + self.grace;
        }
        if state.marks.len() < marks_max {
            state.marks.insert(id, now);
        }
        false
    }

    /// Something refers to the blob (again).
    pub(crate) fn unmark(&self, id: BlobId) {
        lock(&self.state).marks.remove(&id);
    }

    /// Checks once more that there is no pin, and keeps puts of the blob waiting from then on.
    pub(crate) fn begin_removal(&self, id: BlobId) -> Option<Removal<'_>> {
        let now = self.opened.elapsed();
        let mut state = lock(&self.state);
        if is_pinned(&state, id, now, self.grace) || !state.marks.contains_key(&id) || !state.removing.insert(id) {
            return None;
        }
        Some(Removal { pins: self, id })
    }

    pub(crate) fn marked_count(&self) -> u64 {
        lock(&self.state).marks.len() as u64
    }
}

fn is_pinned(state: &State, id: BlobId, now: Duration, grace: Duration) -> bool {
    state.pins.get(&key(id)).is_some_and(|pinned| now < *pinned + grace)
}

fn key(id: BlobId) -> [u8; 8] {
    id.0.first_chunk::<8>().copied().unwrap_or_default()
}
