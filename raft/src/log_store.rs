//! One group's log as openraft wants it, on top of the node's shared log.
//!
//! Order is the shared log's: what a group submits is written in that order, so an append never becomes durable before the
//! vote or the truncation that came before it. openraft is told that an append is flushed only when its batch is synced.
//!
//! The committed mark goes along with whatever is written next and never has a sync of its own; what is read back is cut at
//! the last entry of the log, since openraft does not start with a mark beyond it.
//!
//! Not here: files, batches, recovery (`log`).

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use core_types::{codec, limits};
use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::log::{GroupKey, LogEntry, LogError, LogMark, Record, SharedLog};
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// The version of an entry's encoding in the log.
const ENTRY_VERSION: u8 = 1;
/// The version of a vote's encoding in the log.
const VOTE_VERSION: u8 = 1;

/// See the module. Clones are the same log.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    log: SharedLog,
    key: GroupKey,
    /// Set when a write found no room, or the disk failed a read: openraft stops the replica then, but both may pass, and it can
    /// be opened again.
    may_pass: Arc<AtomicBool>,
}

impl LogStore {
    /// The log of a group, begun if there is none.
    ///
    /// # Errors
    /// `Corrupt` when the group must not vote; otherwise how the log failed.
    pub(crate) async fn open(log: SharedLog, key: GroupKey, may_pass: Arc<AtomicBool>) -> Result<Self, LogError> {
        let store = Self { log, key, may_pass };
        match store.log.state(key) {
            None => store.log.write(key, vec![Record::Created]).await?,
            Some(state) => {
                if let Some(damage) = state.damage {
                    return Err(LogError::Corrupt(damage));
                }
            }
        }
        Ok(store)
    }

    async fn write(&self, record: Record) -> Result<(), io::Error> {
        let written = self.log.write(self.key, vec![record]).await;
        written.map_err(|error| to_io_noting(&self.may_pass, error))
    }

    /// Reads on this thread what is in memory, on the pool what is not.
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, io::Error> {
        let cached = self.log.is_cached(self.key, range.clone(), bytes_max).map_err(to_io)?;
        if cached {
            return decode(self.log.read(self.key, range, bytes_max).map_err(to_io)?);
        }
        let (tell, told) = oneshot::channel();
        let (log, key, may_pass) = (self.log.clone(), self.key, Arc::clone(&self.may_pass));
        self.log.pool().execute(Box::new(move || {
            let read = log.read(key, range, bytes_max);
            let read = read.map_err(|error| to_io_noting(&may_pass, error)).and_then(decode);
            // The reader was dropped: nobody wants the entries.
            let _gone = tell.send(read);
        }));
        told.await
            .map_err(|_| io::Error::other("the pool for disk reads is gone"))?
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(to_range(&range), usize::MAX).await
    }

    /// A leader's own vote is read back as that of a candidate: a node that starts follows until it is elected again. Its log may
    /// be an older image of the one with which it led, and openraft would let it lead on in the same term, with other entries
    /// under the numbers of those that were acknowledged.
    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let vote = self.log.state(self.key).and_then(|state| state.vote);
        let vote = vote.map(|bytes| decode_vote(&bytes).map_err(io::Error::other));
        let vote = vote.transpose()?;
        Ok(vote.map(|vote| match vote.leader_id.voted_for == self.log.node().0 {
            true => Vote {
                committed: false,
                ..vote
            },
            false => vote,
        }))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, limits::LOG_READ_BYTES_MAX).await
    }

    /// In pieces, so that a node that starts with a long log does not hold all of it in memory. Where entries
    /// found no room, one that is not there is an error and not the end: openraft takes the whole range for applied then.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = to_range(&range);
        let pieces = stream::unfold((self.clone(), range), |(store, range)| async move {
            if range.is_empty() {
                return None;
            }
            match store.read(range.clone(), limits::LOG_READ_BYTES_MAX).await {
                Ok(entries) if entries.is_empty() && store.may_pass.load(Ordering::Acquire) => {
                    let missing = io::Error::other(format!("the log has no entry {}", range.start));
                    Some((stream::iter(vec![Err(missing)]), (store, 0..0)))
                }
                Ok(entries) => {
                    let next = entries.last().map_or(range.end, |entry| entry.log_id.index + 1);
                    let entries: Vec<_> = entries.into_iter().map(Ok).collect();
                    Some((stream::iter(entries), (store, next..range.end)))
                }
                Err(error) => Some((stream::iter(vec![Err(error)]), (store, 0..0))),
            }
        });
        Box::pin(pieces.flatten())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self
            .log
            .state(self.key)
            .ok_or(LogError::NoGroup(self.key))
            .map_err(to_io)?;
        Ok(LogState {
            last_purged_log_id: state.purged.map(to_log_id),
            last_log_id: state.last.map(to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = encode_vote(vote).map_err(io::Error::other)?;
        self.write(Record::Vote(bytes)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        match committed {
            Some(committed) => self.log.note_committed(self.key, to_mark(&committed)).map_err(to_io),
            // What was committed stays so: there is nothing to take back.
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self
            .log
            .state(self.key)
            .and_then(|state| state.committed)
            .map(to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            let body = codec::encode(ENTRY_VERSION, &entry, ENTRY_BYTES_MAX).map_err(io::Error::other)?;
            bytes += body.len();
            records.push(Record::Append(LogEntry {
                mark: to_mark(&entry.log_id),
                body: Bytes::from(body),
            }));
        }
        let room: Option<OwnedSemaphorePermit> = self.log.reserve(bytes).await;
        let may_pass = Arc::clone(&self.may_pass);
        self.log.submit(
            self.key,
            records,
            Box::new(move |result| {
                drop(room);
                callback.io_completed(result.map_err(|error| to_io_noting(&may_pass, error)));
            }),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |last| last.index + 1);
        self.write(Record::Truncate { from }).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        let upto = to_mark(&log_id);
        self.write(Record::Purge { upto }).await
    }
}

/// A vote as it stands in the log.
pub(crate) fn encode_vote(vote: &Vote) -> Result<Bytes, codec::CodecError> {
    codec::encode(VOTE_VERSION, vote, VOTE_BYTES_MAX).map(Bytes::from)
}

/// The vote that stands in the log.
pub(crate) fn decode_vote(bytes: &[u8]) -> Result<Vote, codec::CodecError> {
    codec::decode(VOTE_VERSION, bytes, VOTE_BYTES_MAX)
}

fn decode(entries: Vec<LogEntry>) -> Result<Vec<Entry>, io::Error> {
    entries
        .into_iter()
        .map(|entry| codec::decode(ENTRY_VERSION, &entry.body, ENTRY_BYTES_MAX).map_err(io::Error::other))
        .collect()
}

fn to_mark(log_id: &LogId) -> LogMark {
    LogMark {
        term: log_id.leader_id.term,
        index: log_id.index,
    }
}

fn to_log_id(mark: LogMark) -> LogId {
    LogId::new_term_index(mark.term, mark.index)
}

fn to_range(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

/// Damage and failed syncs do not pass; [`LogError::Disk`] is a read that failed.
fn to_io_noting(may_pass: &AtomicBool, error: LogError) -> io::Error {
    if matches!(error, LogError::Full(_) | LogError::Disk(_)) {
        may_pass.store(true, Ordering::Release);
    }
    to_io(error)
}

fn to_io(error: LogError) -> io::Error {
    let kind = match error {
        LogError::Full(_) => io::ErrorKind::StorageFull,
        LogError::Corrupt(_) => io::ErrorKind::InvalidData,
        LogError::NoGroup(_) => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

const VOTE_BYTES_MAX: u64 = 256;
const ENTRY_BYTES_MAX: u64 = limits::LOG_RECORD_BYTES_MAX as u64 - 1;

#[cfg(test)]
mod tests;
