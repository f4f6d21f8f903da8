//! Writing each group's manifest, and making it right when it missed changes.
//!
//! Invariant: behind a mark `applied` stands every change up to that entry of the log. Where the last mark of an earlier life
//! is below what the replica has applied before anybody listened, or the listener lagged, or a snapshot was installed,
//! everything is told anew (`resync`) while changes go on.
//!
//! Not here: what a line says (`state::manifest`), files (`blobstore`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blobstore::{BlobError, ManifestLine};
use core_types::{GroupId, Incarnation};
use state::manifest::{self, Line, Place};
use state::{Effect, MachineKind};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, timeout};

use crate::start::Parts;

/// The writers of this node's manifests.
#[derive(Default)]
pub(crate) struct Manifests(Mutex<BTreeMap<GroupId, Arc<tokio::sync::Mutex<Writer>>>>);

struct Writer {
    group: GroupId,
    replica: raft::Group,
    incarnation: Incarnation,
    kind: MachineKind,
    effects: Receiver<Arc<[Effect]>>,
    /// The index of the last mark.
    marked: Option<u64>,
    /// Something is missing.
    has_gap: bool,
}

/// Writes the group's manifest until it is aborted.
pub(crate) async fn write(parts: Arc<Parts>, group: GroupId, incarnation: Incarnation, kind: MachineKind) {
    // What is applied is looked up after the subscription: what comes later is heard.
    let Ok(effects) = parts.store.groups().effects(group) else {
        return;
    };
    let Some(replica) = parts.groups.group(group) else {
        return;
    };
    let applied = replica.status().applied;
    let marked = match last_mark(&parts, group, incarnation).await {
        Ok(marked) => marked,
        Err(error) => {
            tracing::warn!(%group, %error, "the manifest was not read; it is written anew");
            None
        }
    };
    let writer = Writer {
        group,
        replica,
        incarnation,
        kind,
        effects,
        marked,
        has_gap: applied.is_some() && marked < applied,
    };
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    parts
        .manifests
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(group, Arc::clone(&writer));
    let mut writer = writer.lock().await;
    writer.run(&parts).await;
}

/// Takes what is left when no group applies anything any more. The tasks that write have ended.
pub(crate) async fn finish(parts: &Parts) {
    let writers = std::mem::take(&mut *parts.manifests.0.lock().unwrap_or_else(PoisonError::into_inner));
    for writer in writers.into_values() {
        writer.lock().await.mark(parts);
    }
    if let Err(error) = parts.manifest.sync().await {
        tracing::warn!(%error, "the manifest was not synced");
    }
}

impl Writer {
    async fn run(&mut self, parts: &Parts) {
        let mut mark_at = Instant::now() + MARK_EVERY;
        loop {
            if self.has_gap {
                self.close_gap(parts).await;
            }
            if Instant::now() >= mark_at {
                self.mark(parts);
                mark_at = Instant::now() + MARK_EVERY;
            }
            match timeout(MARK_EVERY, self.effects.recv()).await {
                Ok(Ok(changes)) => self.take(parts, &changes),
                Ok(Err(RecvError::Lagged(missed))) => self.lagged(parts, missed),
                Ok(Err(RecvError::Closed)) => return,
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, parts: &Parts, changes: &[Effect]) {
        for effect in changes {
            match effect {
                Effect::Manifest(entry) => {
                    self.append(parts, &entry.line);
                }
                Effect::Replaced => self.replaced(parts),
                _ => {}
            }
        }
    }

    /// Adds a line; octets that wait to be written.
    fn append(&mut self, parts: &Parts, line: &str) -> usize {
        match parts.manifest.append(self.group, line) {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(group = %self.group, %error, "a manifest line was not written");
                parts.health.manifest_gap(self.group);
                0
            }
        }
    }

    /// The replica has another state now, and may be another one: it was opened again.
    fn replaced(&mut self, parts: &Parts) {
        tracing::info!(group = %self.group, "the state was replaced and its manifest is written anew");
        if let Some(replica) = parts.groups.group(self.group) {
            self.replica = replica;
        }
        parts.health.manifest_gap(self.group);
        self.has_gap = true;
    }

    fn lagged(&mut self, parts: &Parts, missed: u64) {
        tracing::info!(group = %self.group, missed, "the manifest missed changes and is written anew");
        parts.health.manifest_gap(self.group);
        self.has_gap = true;
    }

    /// Takes what is there already. Whatever was applied before is told then, unless there is a gap.
    fn drain(&mut self, parts: &Parts) {
        loop {
            match self.effects.try_recv() {
                Ok(changes) => self.take(parts, &changes),
                Err(TryRecvError::Lagged(missed)) => self.lagged(parts, missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn mark(&mut self, parts: &Parts) {
        let applied = self.replica.status().applied;
        self.drain(parts);
        if let Some(index) = applied
            && self.marked != applied
            && !self.has_gap
        {
            self.append(parts, &manifest::applied(self.incarnation, index));
            self.marked = applied;
        }
    }

    async fn close_gap(&mut self, parts: &Parts) {
        self.has_gap = false;
        match self.resync(parts).await {
            Ok(()) if self.has_gap => {}
            Ok(()) => {
                self.mark(parts);
                parts.health.manifest_whole(self.group);
            }
            Err(error) => {
                tracing::warn!(group = %self.group, %error, "the manifest cannot be written anew now");
                parts.health.manifest_gap(self.group);
                self.has_gap = true;
                tokio::time::sleep(RESYNC_AGAIN).await;
            }
        }
    }

    /// Tells everything anew. Each page is followed by the changes since, so that the last word on a message is the right
    /// one. Ends early when changes were missed meanwhile.
    async fn resync(&mut self, parts: &Parts) -> Result<(), String> {
        self.append(parts, &manifest::resync());
        let mut place = Some(Place::default());
        while let Some(from) = place {
            let kind = self.kind;
            let page = parts
                .store
                .groups()
                .query(self.group, |view| manifest::page(view, kind, from, PAGE_LINES))
                .await
                .map_err(|error| error.to_string())?;
            let mut waiting = 0;
            for line in &page.lines {
                waiting = self.append(parts, line);
            }
            self.drain(parts);
            if self.has_gap {
                return Ok(());
            }
            if waiting > WAITING_BYTES_MAX {
                parts.manifest.sync().await.map_err(|error| error.to_string())?;
            }
            place = page.next;
        }
        self.append(parts, &manifest::resync_end());
        Ok(())
    }
}

/// Up to which entry of this life of the group an earlier run says that the manifest is whole.
async fn last_mark(parts: &Parts, group: GroupId, incarnation: Incarnation) -> Result<Option<u64>, BlobError> {
    let lines = parts.manifest.last_lines(group).await?;
    let marks = lines.iter().rev().filter_map(|line| match line {
        ManifestLine::Good(line) => manifest::parse(line),
        ManifestLine::Damaged(_) => None,
    });
    let mut newest = None;
    for line in marks {
        match line {
            Line::Applied {
                incarnation: life,
                index,
            } if life == incarnation => newest = newest.or(Some(index)),
            // A resync that did not end: what it was to mend is not mended.
            Line::Resync if newest.is_none() => return Ok(None),
            _ => {}
        }
    }
    Ok(newest)
}

/// Between two marks of a group to which something happens: what a crash may cost is one more resync.
const MARK_EVERY: Duration = Duration::from_secs(2);
/// Between two attempts of a resync.
const RESYNC_AGAIN: Duration = Duration::from_secs(5);
/// Lines of one page of a resync: the state is locked while it is read.
const PAGE_LINES: usize = 256;
/// Octets of lines that wait in memory.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
