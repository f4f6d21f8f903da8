//! What a replica answers to the other replicas of its group.
//!
//! Whatever comes is checked for what openraft takes for granted before openraft sees it, since it would panic.

use std::sync::Arc;
use std::time::Duration;

use core_types::{Disk, DiskError, NodeId};
use openraft::async_runtime::WatchReceiver;
use tokio::time::Instant;

use super::{Ask, Inner};
use crate::blocking;
use crate::frame::{Answer, Chunk, Rejection, Reply, Request};
use crate::network;
use crate::replica::DigestAt;
use crate::snapshot::{self, DIRECTORY};
use crate::transfer::Incoming;
use crate::types::Vote;

impl Inner {
    pub(crate) async fn serve(&self, from: NodeId, request: Request) -> Reply {
        if let Some(reason) = self.replica.closed() {
            return Err(Rejection::Closed(reason));
        }
        let is_election = matches!(
            request,
            Request::Vote(_) | Request::PreVote(_) | Request::TransferLeader(_)
        );
        if is_election && self.replica.behind().is_some() {
            return Err(Rejection::Behind);
        }
        match request {
            Request::Append(request) => {
                check_sender(from, &request.vote)?;
                if !network::is_well_formed(&request) {
                    return Err(Rejection::Invalid("entries with a gap or out of order".to_owned()));
                }
                self.raft
                    .append_entries(request)
                    .await
                    .map(Answer::Append)
                    .map_err(|error| self.stopped(&error))
            }
            Request::Vote(request) => {
                check_sender(from, &request.vote)?;
                self.raft
                    .vote(request)
                    .await
                    .map(Answer::Vote)
                    .map_err(|error| self.stopped(&error))
            }
            Request::PreVote(request) => {
                check_sender(from, &request.vote)?;
                self.raft
                    .pre_vote(request)
                    .await
                    .map(Answer::Vote)
                    .map_err(|error| self.stopped(&error))
            }
            Request::TransferLeader(request) => {
                check_sender(from, request.from_leader())?;
                let answer = self.raft.handle_transfer_leader(request).await;
                answer.map(Answer::TransferLeader).map_err(|error| self.stopped(&error))
            }
            Request::SnapshotChunk(chunk) => {
                check_sender(from, &chunk.vote)?;
                self.take_chunk(chunk).await
            }
            Request::SnapshotInstall { vote, hash } => {
                check_sender(from, &vote)?;
                self.install(vote, hash).await
            }
            Request::Propose { command, patience } => Ok(self.answer(Ask::Propose(command), until(patience)).await),
            Request::ReadIndex { patience } => Ok(self.answer(Ask::ReadIndex, until(patience)).await),
            Request::Change { change, patience } => Ok(self.answer(Ask::Change(change), until(patience)).await),
            Request::TakeOut { patience } => Ok(self.take_out(from, until(patience)).await),
            Request::Digests => Ok(Answer::Digests(self.replica.digests())),
            Request::CompareDigest(theirs) => {
                self.compare_with_majority(theirs).await;
                Ok(Answer::Compared)
            }
            Request::Reverted { index } => {
                let last = self.raft.metrics().borrow_watched().last_log_index;
                if last.is_none_or(|last| last < index) {
                    self.give_up(format!(
                        "this replica had acknowledged entry {index}, and its log ends before it: the disk is an older image, or \
                         lost what it had synced"
                    ))
                    .await;
                }
                Ok(Answer::Compared)
            }
        }
    }

    fn stopped(&self, error: &impl ToString) -> Rejection {
        Rejection::Closed(self.replica.closed().unwrap_or_else(|| error.to_string()))
    }

    /// Closes this replica if it has another digest than the majority at that index.
    pub(super) async fn compare_with_majority(&self, majority: DigestAt) {
        let ours = self
            .replica
            .digests()
            .into_iter()
            .find(|ours| ours.index == majority.index);
        if ours.is_some_and(|ours| ours != majority) {
            let index = majority.index;
            self.give_up(format!("the state differs from that of the majority at entry {index}"))
                .await;
        }
    }

    /// Closes this replica, for a reason that a restart does not mend: it has to be repaired from the others.
    async fn give_up(&self, reason: String) {
        let (disk, group, life) = (
            Arc::clone(&self.replica.disk),
            self.replica.group,
            self.replica.incarnation,
        );
        let text = reason.clone();
        // Set before it closes: a restart must not open the wrong rows again.
        let marked = blocking::run(&*self.replica.pool, move || snapshot::mark(&*disk, group, life, &text));
        if let Err(error) = marked.await {
            tracing::error!(%group, error = %error, "the divergence of a replica could not be noted");
        }
        self.replica.close_for_repair(&reason);
    }

    fn vote(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote
    }

    async fn take_chunk(&self, chunk: Chunk) -> Reply {
        let ours = self.vote();
        if ours > chunk.vote {
            return Ok(Answer::SnapshotChunk { vote: ours, next: 0 });
        }
        let mut slot = Arc::clone(&self.incoming).lock_owned().await;
        let known = slot.take().filter(|incoming| incoming.is_of(&chunk));
        if known.is_none() && chunk.offset > 0 {
            // The rest of a transfer that was given up here: the sender begins anew.
            return Ok(Answer::SnapshotChunk { vote: ours, next: 0 });
        }
        let (disk, path) = (Arc::clone(&self.replica.disk), self.incoming_path());
        let taken = blocking::run(&*self.replica.pool, move || {
            // The slot is held until the file is left alone, also when nobody waits for the answer any more.
            let added = known
                .map_or_else(|| Incoming::create(&*disk, path.clone(), &chunk), Ok)
                .and_then(|mut incoming| Ok((incoming.add(&chunk)?, incoming)));
            match added {
                Ok((next, incoming)) => {
                    *slot = Some(incoming);
                    Ok(next)
                }
                Err(error) => Err(dropped(&*disk, &path, error)),
            }
        });
        match taken.await {
            Ok(next) => Ok(Answer::SnapshotChunk { vote: ours, next }),
            Err(error) => Err(Rejection::Invalid(error.to_string())),
        }
    }

    async fn install(&self, vote: Vote, hash: [u8; 32]) -> Reply {
        let mut slot = Arc::clone(&self.incoming).lock_owned().await;
        let incoming = slot.take().filter(|incoming| *incoming.hash() == hash);
        let Some(incoming) = incoming else {
            return Err(Rejection::Invalid("no such snapshot was received".to_owned()));
        };
        let (disk, path) = (Arc::clone(&self.replica.disk), self.incoming_path());
        let finished = blocking::run(&*self.replica.pool, move || {
            // Until the file has its own name, no other transfer may begin under the temporary one.
            let _slot = slot;
            incoming.finish(&*disk).map_err(|error| dropped(&*disk, &path, error))
        });
        let file = finished.await.map_err(|error| Rejection::Invalid(error.to_string()))?;
        let header = &file.header;
        let committed = self.raft.metrics().borrow_watched().local_committed;
        let is_ours = header.group == self.replica.group && header.incarnation == self.replica.incarnation;
        let received = file.clone();
        let result = if is_ours && network::may_install(&vote, &header.meta, committed) {
            let snapshot = openraft::Snapshot {
                meta: header.meta.clone(),
                snapshot: Some(file),
            };
            let answer = self.raft.install_full_snapshot(vote, snapshot).await;
            answer
                .map(Answer::SnapshotInstalled)
                .map_err(|error| self.stopped(&error))
        } else {
            Err(Rejection::Invalid(
                "the snapshot is not one of this group and leader".to_owned(),
            ))
        };
        let current = self.replica.current_snapshot();
        if current.is_some_and(|current| current.path == received.path) {
            // Also when openraft had no need of it: it has taken the place of the file that was there.
            self.replica.replace_snapshot(received);
        } else {
            self.remove(received.path).await;
        }
        result
    }

    async fn remove(&self, path: String) {
        let disk = Arc::clone(&self.replica.disk);
        // What is left behind is removed at the next start.
        let _ = blocking::run(&*self.replica.pool, move || disk.remove(&path)).await;
    }

    fn incoming_path(&self) -> String {
        format!(
            "{DIRECTORY}/{}-{}-incoming",
            self.replica.group, self.replica.incarnation
        )
    }
}

/// Removes a file that is worth nothing.
fn dropped(disk: &dyn Disk, path: &str, error: DiskError) -> DiskError {
    // What is left behind is removed at the next start.
    let _ = disk.remove(path);
    error
}

/// A message of a leader or candidate comes from that node, or it is not believed.
fn check_sender(from: NodeId, vote: &Vote) -> Result<(), Rejection> {
    if vote.leader_id.voted_for == from.0 {
        Ok(())
    } else {
        Err(Rejection::Invalid(format!(
            "node {from} speaks for node {}",
            vote.leader_id.voted_for
        )))
    }
}

fn until(patience: u64) -> Instant {
    // An hour is longer than anybody waits, and keeps the sum in range.
    Instant::now() + Duration::from_millis(patience.min(3_600_000))
}
