//! The state machine as openraft drives it: entries are applied in batches, each written together with how far it goes.
//!
//! One batch of the engine holds the rows, the last applied log id and the membership, so that after a crash the index
//! agrees with itself, whatever of it is left; the log gives back the rest. Responders are answered and effects published
//! only after that write.
//!
//! An entry that cannot be applied closes this replica: it stops with everything before the entry applied, never skips, and
//! the node's other groups go on.
//! Not here: what a command does (`state`), files of snapshots ([`crate::snapshot`]).

use std::io;
use std::sync::Arc;

use core_types::mutants::{self, Mutant};
use core_types::{Batch, DiskError, DiskErrorKind, KvError, codec};
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use serde::{Deserialize, Serialize};
use state::digest::Digest;
use state::{ApplyError, Effect, Overlay};

use crate::blocking;
use crate::generation::{GroupRows, Pin};
use crate::replica::{DIGEST_INTERVAL, DigestAt, Replica};
use crate::snapshot::{self, Header, RowReader, SnapshotFile, Writer};
use crate::types::{Applied, LogId, SnapshotMeta, StoredMembership, TypeConfig};

const ROW_VERSION: u8 = 2;
/// Octets of the adapter's row.
const ROW_BYTES_MAX: u64 = 64 * 1024;
/// Changed rows after which a batch is written.
const BATCH_ROWS: usize = 4096;
/// Rows of a pin that are read under one lock.
const CHUNK_ROWS: usize = 512;
/// Octets of rows that are read from a file of a snapshot at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// What openraft hands around as a snapshot: a file, or nothing when one could not be made.
pub(crate) type SnapshotData = Option<SnapshotFile>;
type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// What stands beside the rows, in the same batch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MachineRow {
    pub(crate) applied: Option<LogId>,
    pub(crate) membership: StoredMembership,
    /// Of the rows that stand beside it: an index of which a power loss left a mixture is known by it.
    pub(crate) digest: Digest,
}

pub(crate) struct Machine {
    replica: Arc<Replica>,
    row: MachineRow,
}

impl MachineRow {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, codec::CodecError> {
        codec::decode(ROW_VERSION, bytes, ROW_BYTES_MAX)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, codec::CodecError> {
        codec::encode(ROW_VERSION, self, ROW_BYTES_MAX)
    }
}

/// One entry that stands in the overlay and is not written yet.
struct Waiting {
    responder: Option<ApplyResponder<TypeConfig>>,
    applied: Applied,
    effects: Vec<Effect>,
}

impl Machine {
    /// # Errors
    /// [`KvError::Damaged`] when the adapter's row does not decode.
    pub(crate) fn open(replica: Arc<Replica>) -> Result<Self, KvError> {
        let row = match replica.rows.machine_row()? {
            Some(bytes) => MachineRow::decode(&bytes)
                .map_err(|error| KvError::Damaged(format!("group {}: {error}", replica.group)))?,
            None => MachineRow::default(),
        };
        #[cfg(feature = "mutants")]
        if mutants::is_planted(Mutant::ReuseUid) {
            replica.rows.forget_uid_next()?;
        }
        let machine = Self { replica, row };
        machine.tell_applied();
        Ok(machine)
    }

    /// How far index or snapshot reach.
    pub(crate) fn has(&self) -> Option<LogId> {
        let saved = self
            .replica
            .current_snapshot()
            .and_then(|file| file.header.meta.last_log_id);
        self.row.applied.max(saved)
    }

    /// Makes a snapshot of what neither the log nor a snapshot has, so that a lost index can be made again.
    ///
    /// The index can be ahead of the log: entries that others had committed were applied, and then found no room in the log
    /// here, or were lost from it in a power loss; openraft then counts the log as purged up to what is applied. And the
    /// snapshot up to which it was purged can be lost.
    pub(crate) async fn save_what_the_log_lacks(&self, last: Option<LogId>, purged: Option<LogId>) -> io::Result<()> {
        let saved = self
            .replica
            .current_snapshot()
            .and_then(|file| file.header.meta.last_log_id);
        if self.row.applied <= saved || (self.row.applied <= last && purged <= saved) {
            return Ok(());
        }
        self.builder(true).build().await.map(drop)
    }

    fn tell_applied(&self) {
        self.replica
            .set_applied(self.row.applied.as_ref().map_or(0, |id| id.index + 1));
    }

    /// Applies one entry on top of the overlay. The error is the reason to close.
    fn apply_entry(
        replica: &Replica,
        row: &mut MachineRow,
        overlay: &mut Overlay<'_>,
        entry: crate::types::Entry,
    ) -> Result<(Applied, Vec<Effect>), String> {
        let log_id = entry.log_id();
        let index = log_id.index;
        let mut result = (Applied(None), Vec::new());
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                row.membership = StoredMembership::new(Some(log_id), membership);
            }
            EntryPayload::Normal(data) => {
                let command = data
                    .decode()
                    .map_err(|error| format!("entry {index}: unknown op: {error}"))?;
                let applied = (replica.apply)(overlay, replica.kind, &command).map_err(|error| {
                    if matches!(&error, ApplyError::Kv(error) if index_may_do_better(error)) {
                        replica.note_passing();
                    }
                    format!("entry {index}: {error}")
                })?;
                overlay.add(&applied.batch);
                replica.add_unsaved(data.0.len() as u64);
                result = (Applied(Some(applied.outcome)), applied.effects);
            }
        }
        row.applied = Some(log_id);
        if index.is_multiple_of(DIGEST_INTERVAL) {
            let digest = state::digest::stored(overlay).map_err(|error| format!("entry {index}: {error}"))?;
            replica.keep_digest(DigestAt { index, digest });
        }
        Ok(result)
    }

    /// Writes what the overlay holds and answers those who wait for it.
    async fn write(&mut self, overlay: Overlay<'_>, waiting: &mut Vec<Waiting>) -> io::Result<()> {
        if waiting.is_empty() {
            return Ok(());
        }
        if mutants::is_planted(Mutant::AppliedApart) {
            let row = self.row.encode().map_err(io::Error::other)?;
            let written = self.replica.rows.write(&Batch::default(), &row).await;
            written.map_err(io::Error::other)?;
        }
        self.row.digest = state::digest::stored(&overlay).map_err(io::Error::other)?;
        let row = self.row.encode().map_err(io::Error::other)?;
        if let Err(error) = self.replica.rows.write(&overlay.into_batch(), &row).await {
            if index_may_do_better(&error) {
                self.replica.note_passing();
            }
            self.replica.close(&format!("index: {error}"));
            return Err(io::Error::other(error));
        }
        // Before the index is told: who sees the index finds every effect up to it.
        for done in waiting.iter_mut().filter(|done| !done.effects.is_empty()) {
            self.replica.publish(std::mem::take(&mut done.effects).into());
        }
        self.tell_applied();
        for done in waiting.drain(..) {
            if let Some(responder) = done.responder {
                responder.send(done.applied);
            }
        }
        Ok(())
    }

    fn builder(&self, is_forced: bool) -> Builder {
        Builder {
            replica: Arc::clone(&self.replica),
            pin: Some(self.replica.rows.pin()),
            meta: SnapshotMeta {
                last_log_id: self.row.applied,
                last_membership: self.row.membership.clone(),
            },
            is_forced,
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.row.applied, self.row.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let replica = Arc::clone(&self.replica);
        let _busy = replica.busy.lock().await;
        if let Some(reason) = replica.closed() {
            return Err(io::Error::other(reason));
        }
        let rows: Arc<GroupRows> = Arc::clone(&self.replica.rows);
        let mut waiting = Vec::new();
        let mut overlay = Overlay::new(&*rows);
        while let Some(next) = entries.next().await {
            let (entry, responder) = match next {
                Ok(next) => next,
                Err(error) => {
                    self.write(overlay, &mut waiting).await?;
                    return Err(error);
                }
            };
            match Self::apply_entry(&self.replica, &mut self.row, &mut overlay, entry) {
                Ok((applied, effects)) => waiting.push(Waiting {
                    responder,
                    applied,
                    effects,
                }),
                Err(reason) => {
                    self.write(overlay, &mut waiting).await?;
                    self.replica.close(&reason);
                    return Err(io::Error::other(reason));
                }
            }
            if overlay.batch().len() >= BATCH_ROWS {
                self.write(overlay, &mut waiting).await?;
                overlay = Overlay::new(&*rows);
            }
        }
        self.write(overlay, &mut waiting).await
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        Some(self.builder(force))
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder(false)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let Some(file) = snapshot else {
            return Err(io::Error::other("there is no file to install"));
        };
        let replica = Arc::clone(&self.replica);
        let _busy = replica.lock_open().await?;
        let result = self.install(meta, file).await;
        if let Err(error) = &result {
            if may_pass(error) {
                self.replica.note_passing();
            }
            self.replica.close(&format!("install of a snapshot: {error}"));
        }
        result
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.replica.current_snapshot().map(|file| Snapshot {
            meta: file.header.meta.clone(),
            snapshot: Some(file),
        }))
    }
}

impl Machine {
    async fn install(&mut self, meta: &SnapshotMeta, file: SnapshotFile) -> io::Result<()> {
        // What an install that was given up left behind takes room.
        let cleaner = Arc::clone(&self.replica.pool);
        self.replica.rows.collect(&*cleaner).await.map_err(io::Error::other)?;
        let install = self.replica.rows.install().map_err(io::Error::other)?;
        let (path, open) = (file.path.clone(), Arc::clone(&file.file));
        let pool = Arc::clone(&self.replica.pool);
        let mut reader = blocking::run(&*pool, move || RowReader::open(&path, open))
            .await
            .map_err(io::Error::other)?;
        loop {
            let (back, mut rows) = blocking::run(&*pool, move || {
                let rows = reader.next_rows(CHUNK_BYTES)?;
                Ok((reader, rows))
            })
            .await
            .map_err(io::Error::other)?;
            reader = back;
            if rows.is_empty() {
                break;
            }
            if mutants::is_planted(Mutant::HalfSnapshot) {
                rows.truncate(rows.len() / 2);
            }
            install.add(&rows).map_err(io::Error::other)?;
        }
        let row = MachineRow {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            digest: install.digest().map_err(io::Error::other)?,
        };
        let encoded = row.encode().map_err(io::Error::other)?;
        install.finish(&encoded).await.map_err(io::Error::other)?;
        self.row = row;
        keep_snapshot(&self.replica, file).await.map_err(io::Error::other)?;
        // Before the index is told: who sees the index finds that there is more to look at.
        self.replica.publish_replaced();
        self.tell_applied();
        // Still here, where no other state is installed and the replica not opened anew meanwhile: it would use the same keys.
        self.replica.rows.collect(&*cleaner).await.map_err(io::Error::other)
    }
}

/// Makes a snapshot from a pin.
pub(crate) struct Builder {
    replica: Arc<Replica>,
    pin: Option<Pin>,
    meta: SnapshotMeta,
    is_forced: bool,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        match self.build().await {
            Ok(file) => Ok(Snapshot {
                meta: file.header.meta.clone(),
                snapshot: Some(file),
            }),
            // A full disk must not end the group: nothing is purged, and the next attempt may do better. openraft takes a
            // snapshot of nothing as one that is older than what it has.
            Err(error) if is_sync_failed(&error) => {
                // The system may have dropped what others wrote as well: nothing on this disk can be believed any more.
                self.replica.ties.failed.tell(&format!("snapshot: {error}"));
                Err(error)
            }
            Err(error) if !self.is_forced => {
                tracing::error!(group = self.replica.group.0, error = %error, "snapshot not made");
                Ok(Snapshot {
                    meta: SnapshotMeta::default(),
                    snapshot: None,
                })
            }
            Err(error) => Err(error),
        }
    }
}

impl Builder {
    async fn build(&mut self) -> io::Result<SnapshotFile> {
        let Some(pin) = self.pin.take() else {
            return Err(io::Error::other("a builder makes one snapshot"));
        };
        let replica = Arc::clone(&self.replica);
        let header = Header {
            group: replica.group,
            incarnation: replica.incarnation,
            meta: self.meta.clone(),
        };
        if let Some(current) = replica.current_snapshot()
            && current.header == header
        {
            return Ok(current);
        }
        let disk = Arc::clone(&replica.disk);
        let mut writer = blocking::run(&*replica.pool, move || Writer::create(disk, header))
            .await
            .map_err(io::Error::other)?;
        let mut from = Vec::new();
        loop {
            let (rows, has_more) = pin.chunk(&from, &[0xFF], CHUNK_ROWS).await.map_err(io::Error::other)?;
            if let Some((last, _)) = rows.last() {
                from = [last.as_slice(), &[0]].concat();
            }
            writer = blocking::run(&*replica.pool, move || {
                writer.add(&rows)?;
                Ok(writer)
            })
            .await
            .map_err(io::Error::other)?;
            if !has_more {
                break;
            }
        }
        drop(pin);
        writer = blocking::run(&*replica.pool, move || {
            writer.seal()?;
            Ok(writer)
        })
        .await
        .map_err(io::Error::other)?;
        let busy = replica.lock_open().await?;
        let path = blocking::run(&*replica.pool, move || writer.publish())
            .await
            .map_err(io::Error::other)?;
        drop(busy);
        let disk = Arc::clone(&replica.disk);
        let file = blocking::run(&*replica.pool, move || snapshot::verify(&*disk, &path))
            .await
            .map_err(io::Error::other)?;
        let busy = replica.lock_open().await?;
        keep_snapshot(&replica, file.clone()).await.map_err(io::Error::other)?;
        drop(busy);
        replica.reset_unsaved();
        collect(&replica).await.map_err(io::Error::other)?;
        Ok(file)
    }
}

/// Removes what no pin needs any more, while the replica goes on. Not once it is closed: opened anew, it uses the same keys.
async fn collect(replica: &Arc<Replica>) -> Result<(), KvError> {
    loop {
        let _busy = replica.busy.lock().await;
        if replica.closed().is_some() || !replica.rows.collect_piece(&*replica.pool).await? {
            return Ok(());
        }
    }
}

/// Makes a verified file the group's snapshot and removes the one before it.
async fn keep_snapshot(replica: &Arc<Replica>, file: SnapshotFile) -> Result<(), DiskError> {
    let Some(old) = replica.replace_snapshot(file) else {
        return Ok(());
    };
    let disk = Arc::clone(&replica.disk);
    blocking::run(&*replica.pool, move || match disk.remove(&old.path) {
        Err(error) if error.kind != DiskErrorKind::NotFound => Err(error),
        _ => disk.sync_dir(snapshot::DIRECTORY),
    })
    .await
}

/// The error of the disk behind an error.
fn disk_kind(error: &io::Error) -> Option<DiskErrorKind> {
    let inner = error.get_ref()?;
    inner.downcast_ref::<DiskError>().map(|error| error.kind)
}

fn is_sync_failed(error: &io::Error) -> bool {
    disk_kind(error) == Some(DiskErrorKind::SyncFailed)
}

/// Whether the same may go well when it is tried again: there was no room, or the system refused a call. Not after a failed
/// sync, and not where bytes are wrong.
pub(crate) fn may_pass(error: &io::Error) -> bool {
    let index = error.get_ref().and_then(|inner| inner.downcast_ref::<KvError>());
    matches!(disk_kind(error), Some(DiskErrorKind::Full | DiskErrorKind::Other))
        || index.is_some_and(index_may_do_better)
}

fn index_may_do_better(error: &KvError) -> bool {
    matches!(error, KvError::Full | KvError::Io(_))
}
