//! Writing each group's manifest, and making it right when it missed changes.
//!
//! Invariant: behind a mark `applied` stands every change up to that entry of the log. Where the last mark of an earlier life
//! is below what the replica has applied before anybody listened, or the listener lagged, or a snapshot was installed,
//! everything is told anew (`resync`) while changes go on. The same is done, in a new file, when the greater part of a group's
//! manifest is dead; the files from before are removed only when all that is on the disk.
//!
//! Not here: what a line says (`state::manifest`), files (`blobstore`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use blobstore::{BlobError, Manifest, ManifestLine};
use core_types::limits::PROPOSE_RESERVE_BYTES;
use core_types::{GroupId, Incarnation};
use raft::Group;
use raft::consensus::Consensus;
use state::manifest::{self, Line, Place};
use state::{Effect, MachineKind};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, timeout};

use crate::care::Health;
use crate::start::Parts;

/// The writers of this node's manifests.
#[derive(Default)]
pub(crate) struct Manifests(Mutex<BTreeMap<GroupId, Arc<tokio::sync::Mutex<Writer>>>>);

/// What a writer works with.
struct Book<'a> {
    manifest: &'a Manifest,
    groups: &'a Arc<dyn Consensus>,
    health: &'a Health,
    /// The last entry that the group's replica here has applied.
    applied: &'a (dyn Fn(GroupId) -> Option<u64> + Send + Sync),
}

struct Writer {
    group: GroupId,
    incarnation: Incarnation,
    kind: MachineKind,
    effects: Receiver<Arc<[Effect]>>,
    /// The index of the last mark.
    marked: Option<u64>,
    /// Something is missing in the file. From the beginning of a resync, which nothing marks as whole, to its end.
    has_gap: bool,
    /// Changes were missed since the last resync began.
    has_missed: bool,
    /// Octets that the files had when they were last looked at to be made smaller.
    looked_bytes: u64,
}

/// Writes the group's manifest until it is aborted.
pub(crate) async fn write(parts: Arc<Parts>, group: GroupId, incarnation: Incarnation, kind: MachineKind) {
    // What is applied is looked up after the subscription: what comes later is heard.
    let Ok(effects) = parts.store.groups().effects(group) else {
        return;
    };
    let applied_by = applied_by(&parts);
    let book = Book {
        manifest: &parts.manifest,
        groups: parts.store.groups(),
        health: &parts.health,
        applied: &applied_by,
    };
    let applied = (book.applied)(group);
    let marked = match last_mark(&parts.manifest, group, incarnation).await {
        Ok(marked) => marked,
        Err(error) => {
            tracing::warn!(%group, %error, "the manifest was not read; it is written anew");
            None
        }
    };
    let writer = Writer {
        group,
        incarnation,
        kind,
        effects,
        marked,
        has_gap: applied.is_some() && marked < applied,
        has_missed: false,
        looked_bytes: 0,
    };
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    parts
        .manifests
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(group, Arc::clone(&writer));
    let mut writer = writer.lock().await;
    writer.run(&book).await;
}

fn applied_by(parts: &Parts) -> impl Fn(GroupId) -> Option<u64> + Send + Sync {
    let groups = parts.groups.clone();
    move |group| groups.group(group)?.status().applied
}

/// Takes what is left when no group applies anything any more. The tasks that write have ended; `replicas` are the ones that
/// were open, which are not found any more once they are stopped.
pub(crate) async fn finish(parts: &Parts, replicas: &[Group]) {
    let writers = std::mem::take(&mut *parts.manifests.0.lock().unwrap_or_else(PoisonError::into_inner));
    let applied_by = |group| {
        let replica = replicas.iter().find(|replica| replica.group() == group)?;
        replica.status().applied
    };
    let book = Book {
        manifest: &parts.manifest,
        groups: parts.store.groups(),
        health: &parts.health,
        applied: &applied_by,
    };
    for writer in writers.into_values() {
        writer.lock().await.mark(&book);
    }
    if let Err(error) = parts.manifest.sync().await {
        tracing::warn!(%error, "the manifest was not synced");
    }
}

impl Writer {
    async fn run(&mut self, book: &Book<'_>) {
        let mut mark_at = Instant::now() + MARK_EVERY;
        let mut compact_at = Instant::now() + COMPACT_LOOK;
        loop {
            if self.has_gap {
                self.close_gap(book).await;
            }
            if Instant::now() >= compact_at {
                self.look_and_compact(book).await;
                compact_at = Instant::now() + COMPACT_LOOK;
            }
            if Instant::now() >= mark_at {
                self.mark(book);
                mark_at = Instant::now() + MARK_EVERY;
            }
            match timeout(MARK_EVERY, self.effects.recv()).await {
                Ok(Ok(changes)) => self.take(book, &changes),
                Ok(Err(RecvError::Lagged(missed))) => self.lagged(book, missed),
                Ok(Err(RecvError::Closed)) => return,
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, book: &Book<'_>, changes: &[Effect]) {
        for effect in changes {
            match effect {
                Effect::Manifest(entry) => {
                    self.append(book, &entry.line);
                }
                Effect::Replaced => self.replaced(book),
                _ => {}
            }
        }
    }

    /// Adds a line; octets that wait to be written.
    fn append(&mut self, book: &Book<'_>, line: &str) -> usize {
        match book.manifest.append(self.group, line) {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(group = %self.group, %error, "a manifest line was not written");
                book.health.manifest_gap(self.group);
                0
            }
        }
    }

    /// The replica has another state now.
    fn replaced(&mut self, book: &Book<'_>) {
        tracing::info!(group = %self.group, "the state was replaced and its manifest is written anew");
        self.missed(book);
    }

    fn lagged(&mut self, book: &Book<'_>, missed: u64) {
        tracing::info!(group = %self.group, missed, "the manifest missed changes and is written anew");
        self.missed(book);
    }

    fn missed(&mut self, book: &Book<'_>) {
        book.health.manifest_gap(self.group);
        self.has_gap = true;
        self.has_missed = true;
    }

    /// Takes what is there already. Whatever was applied before is told then, unless there is a gap. Returns whether the replica
    /// is still the one that is listened to.
    fn drain(&mut self, book: &Book<'_>) -> bool {
        loop {
            match self.effects.try_recv() {
                Ok(changes) => self.take(book, &changes),
                Err(TryRecvError::Lagged(missed)) => self.lagged(book, missed),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Closed) => return false,
            }
        }
    }

    fn mark(&mut self, book: &Book<'_>) {
        let applied = (book.applied)(self.group);
        let is_heard = self.drain(book);
        if let Some(index) = applied
            && self.marked != applied
            && is_heard
            && !self.has_gap
        {
            self.append(book, &manifest::applied(self.incarnation, index));
            self.marked = applied;
        }
    }

    async fn close_gap(&mut self, book: &Book<'_>) {
        match self.resync(book).await {
            Ok(()) if self.has_gap => {}
            Ok(()) => {
                self.mark(book);
                book.health.manifest_whole(self.group);
            }
            Err(error) => {
                tracing::warn!(group = %self.group, %error, "the manifest cannot be written anew now");
                book.health.manifest_gap(self.group);
                tokio::time::sleep(RESYNC_AGAIN).await;
            }
        }
    }

    /// Tells everything anew. Each page is followed by the changes since, so that the last word on a message is the right
    /// one. There is a gap until it has come to its end: wherever it is stopped, no mark follows. Ends early, with the gap, when
    /// changes were missed meanwhile.
    async fn resync(&mut self, book: &Book<'_>) -> Result<(), String> {
        self.has_gap = true;
        self.has_missed = false;
        self.append(book, &manifest::resync());
        let mut place = Some(Place::default());
        while let Some(from) = place {
            let kind = self.kind;
            let page = book
                .groups
                .query(self.group, |view| manifest::page(view, kind, from, PAGE_LINES))
                .await
                .map_err(|error| error.to_string())?;
            let mut waiting = 0;
            for line in &page.lines {
                waiting = self.append(book, line);
            }
            self.drain(book);
            if self.has_missed {
                return Ok(());
            }
            if waiting > WAITING_BYTES_MAX {
                book.manifest.sync().await.map_err(|error| error.to_string())?;
            }
            place = page.next;
        }
        self.append(book, &manifest::resync_end());
        self.has_gap = false;
        Ok(())
    }

    async fn look_and_compact(&mut self, book: &Book<'_>) {
        match self.compact(book, COMPACT_BYTES_MIN).await {
            Ok(false) => {}
            Ok(true) => tracing::info!(group = %self.group, "the manifest was written anew, without what is dead"),
            Err(error) => {
                tracing::warn!(group = %self.group, %error, "the manifest cannot be made smaller now");
                self.looked_bytes = 0;
            }
        }
    }

    /// Tells everything anew in a new file and removes the others, if they have so many octets and the greater part of them is
    /// dead. A crash at any time leaves the old files, or the new one with all of it, or both, which say the same.
    async fn compact(&mut self, book: &Book<'_>, bytes_min: u64) -> Result<bool, String> {
        let told = |error: BlobError| error.to_string();
        let bytes = book.manifest.size_bytes(self.group).await.map_err(told)?;
        // Counting what lives reads the whole state: not again before there is some more.
        if bytes < bytes_min.max(self.looked_bytes + self.looked_bytes / 4) {
            return Ok(false);
        }
        let live_bytes = self.live_bytes(book).await?;
        self.looked_bytes = bytes;
        let has_room = book.manifest.free_bytes().await.map_err(told)? > live_bytes + PROPOSE_RESERVE_BYTES;
        if bytes <= 2 * live_bytes || !has_room || self.has_gap {
            return Ok(false);
        }
        let old = book.manifest.begin_file(self.group).await.map_err(told)?;
        // What was begun and does not come to its end leaves a gap.
        self.resync(book).await?;
        if self.has_gap {
            return Err("changes were missed meanwhile".to_owned());
        }
        self.mark(book);
        book.manifest.sync().await.map_err(told)?;
        book.manifest.remove_files(old).await.map_err(told)?;
        self.looked_bytes = live_bytes;
        Ok(true)
    }

    /// Octets of the lines that would be written now.
    async fn live_bytes(&mut self, book: &Book<'_>) -> Result<u64, String> {
        let (mut place, mut bytes) = (Some(Place::default()), 0);
        while let Some(from) = place {
            let kind = self.kind;
            let page = book
                .groups
                .query(self.group, |view| manifest::page(view, kind, from, PAGE_LINES))
                .await
                .map_err(|error| error.to_string())?;
            bytes += page.lines.iter().map(|line| Manifest::line_bytes(line)).sum::<u64>();
            self.drain(book);
            place = page.next;
        }
        Ok(bytes)
    }
}

/// Up to which entry of this life of the group an earlier run says that the manifest is whole.
async fn last_mark(written: &Manifest, group: GroupId, incarnation: Incarnation) -> Result<Option<u64>, BlobError> {
    let lines = written.last_lines(group).await?;
    let marks = lines.iter().rev().filter_map(|line| match line {
        ManifestLine::Good(line) => manifest::parse(line),
        ManifestLine::Damaged(_) => None,
    });
    let mut newest = None;
    let mut is_ended = false;
    for line in marks {
        match line {
            Line::Applied {
                incarnation: life,
                index,
            } if life == incarnation => newest = newest.or(Some(index)),
            Line::ResyncEnd => is_ended = true,
            // One that did not end: what it was to mend is not mended, whatever mark stands behind it.
            Line::Resync => return Ok(newest.filter(|_| is_ended)),
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
/// Between two looks at whether a manifest is to be made smaller.
const COMPACT_LOOK: Duration = Duration::from_secs(600);
/// A smaller manifest is not worth it.
const COMPACT_BYTES_MIN: u64 = 1024 * 1024;

#[cfg(test)]
mod tests;
