//! Snapshots on their way between nodes: chunks of the file, each a request of its own, resumable where the last one ended.
//!
//! The receiver writes into `snapshots/<group>-<incarnation>-incoming`. A chunk that it has is passed over; one that leaves a
//! gap, overflows, or would go beyond the announced length is refused, and what was received is dropped. Nothing is installed
//! before length, structure and hash of the whole file were verified.
//! Not here: what is done with a whole file ([`crate::machine`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use core_types::{Disk, DiskError, DiskErrorKind, File, NodeId, OpenMode, limits};
use openraft::errors::{NetworkError, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use transport::{CallError, Class};

use crate::blocking;
use crate::frame::{Answer, Chunk, Request};
use crate::network::Network;
use crate::snapshot::{self, SnapshotFile};
use crate::types::{TypeConfig, Vote};

/// How long a chunk may take: it has the lowest priority, and up to a mebibyte.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other end may take to verify and install.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);
/// Chunks that may be lost one after the other before the transfer is left to openraft's next attempt.
const RETRIES: u32 = 5;

/// Sends a file and waits until it is installed.
pub(crate) async fn send(
    network: &Network,
    to: NodeId,
    vote: Vote,
    file: SnapshotFile,
) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
    let mut offset = 0;
    let mut failures = 0;
    loop {
        let length = usize::try_from(file.length - offset)
            .unwrap_or(usize::MAX)
            .min(limits::CHUNK_BYTES);
        let source = Arc::clone(&file.file);
        let read = blocking::run(&*network.pool, move || {
            let mut bytes = vec![0; length];
            source.read_exact_at(offset, &mut bytes)?;
            Ok(bytes)
        });
        let bytes = read
            .await
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let chunk = Chunk {
            vote,
            hash: file.hash,
            length: file.length,
            offset,
            bytes: Bytes::from(bytes),
        };
        match network
            .call(to, Class::Bulk, Request::SnapshotChunk(chunk), CHUNK_TIMEOUT)
            .await
        {
            Ok(Answer::SnapshotChunk { vote: theirs, .. }) if theirs > vote => {
                return Ok(SnapshotResponse::new(theirs));
            }
            // The other end says where it wants to go on; never beyond what it was sent.
            Ok(Answer::SnapshotChunk { next, .. }) if next <= offset + length as u64 => {
                failures = if next > offset { 0 } else { failures + 1 };
                offset = next;
                if offset == file.length {
                    break;
                }
            }
            Ok(_) => return Err(unexpected()),
            Err(CallError::NoAnswer(_) | CallError::Busy(_)) => failures += 1,
            Err(error) => return Err(StreamingError::Unreachable(Unreachable::new(&error))),
        }
        if failures > RETRIES {
            return Err(StreamingError::Network(NetworkError::from_string(
                "the snapshot does not get on",
            )));
        }
    }
    let install = Request::SnapshotInstall { vote, hash: file.hash };
    match network.call(to, Class::Bulk, install, INSTALL_TIMEOUT).await {
        Ok(Answer::SnapshotInstalled(response)) => Ok(response),
        Ok(_) => Err(unexpected()),
        Err(error) => Err(StreamingError::Network(NetworkError::new(&error))),
    }
}

fn unexpected() -> StreamingError<TypeConfig> {
    StreamingError::Network(NetworkError::from_string("an answer to another request"))
}

/// A snapshot that is being received.
pub(crate) struct Incoming {
    path: String,
    file: Arc<dyn File>,
    hash: [u8; 32],
    length: u64,
    received: u64,
}

impl Incoming {
    /// Begins a new file in place of what was received before.
    pub(crate) fn create(disk: &dyn Disk, path: String, chunk: &Chunk) -> Result<Self, DiskError> {
        if chunk.length > disk.free_bytes()? {
            return Err(DiskError::new(DiskErrorKind::Full, &path, "no room for the snapshot"));
        }
        disk.create_dir_all(snapshot::DIRECTORY)?;
        let file = disk.open(&path, OpenMode::CreateOrOpen)?;
        file.set_len(0)?;
        Ok(Self {
            path,
            file,
            hash: chunk.hash,
            length: chunk.length,
            received: 0,
        })
    }

    pub(crate) fn is_of(&self, chunk: &Chunk) -> bool {
        self.hash == chunk.hash && self.length == chunk.length
    }

    pub(crate) fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Adds a chunk and says which offset is wanted next.
    ///
    /// # Errors
    /// `Other` for a chunk that leaves a gap or goes beyond the length: what was received is worth nothing then.
    pub(crate) fn add(&mut self, chunk: &Chunk) -> Result<u64, DiskError> {
        let refuse = |what: &str| Err(DiskError::new(DiskErrorKind::Other, &self.path, what));
        let end = chunk.offset.checked_add(chunk.bytes.len() as u64);
        match end {
            Some(end) if end <= self.length => {}
            _ => return refuse("a chunk beyond the end of the snapshot"),
        }
        if chunk.offset < self.received {
            return Ok(self.received); // It was sent again because its answer was lost.
        }
        if chunk.offset > self.received {
            return refuse("a chunk after a gap");
        }
        self.file.write_at(chunk.offset, &chunk.bytes)?;
        self.received += chunk.bytes.len() as u64;
        Ok(self.received)
    }

    /// Verifies the whole file and gives it its name.
    pub(crate) fn finish(self, disk: &dyn Disk) -> Result<SnapshotFile, DiskError> {
        if self.received != self.length {
            return Err(DiskError::new(
                DiskErrorKind::Other,
                &self.path,
                "the snapshot is not whole",
            ));
        }
        self.file.sync_data()?;
        let verified = snapshot::verify(disk, &self.path)?;
        if verified.hash != self.hash || verified.length != self.length {
            return Err(DiskError::new(
                DiskErrorKind::Other,
                &self.path,
                "not the snapshot that was announced",
            ));
        }
        let path = snapshot::path_of(&verified.header);
        snapshot::publish(disk, &self.path, &path)?;
        Ok(SnapshotFile { path, ..verified })
    }
}
