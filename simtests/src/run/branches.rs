//! Rare branches, counted by what the nodes say about them: each has its line in the log.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::book::Book;

/// Target (what it begins with), a part of the message, and the counter.
const BRANCHES: &[(&str, &str, &str)] = &[
    (
        "node::repair",
        "it is being repaired from the others",
        "branch.replica_taken_out",
    ),
    ("node::repair", "the replica is begun anew", "branch.replica_begun_anew"),
    ("raft::groups", "caught up with what took it out", "branch.replica_back"),
    ("raft::groups", "replica opened again", "branch.replica_opened_again"),
    (
        "raft::network",
        "lost what it had acknowledged",
        "branch.lost_acknowledged",
    ),
    ("raft::replica", "replica closed", "branch.replica_closed"),
    ("raft::log", "a torn tail of the log is cut off", "branch.torn_tail_cut"),
    ("raft::log", "damaged where it was durable", "branch.log_damaged"),
    ("raft::log", "no room for the log", "branch.log_no_room"),
    ("raft::snapshot", "damaged snapshot removed", "branch.snapshot_damaged"),
    ("raft::machine", "snapshot not made", "branch.snapshot_failed"),
    ("node::fence", "is repaired from the others", "branch.fenced"),
    (
        "blobstore::store",
        "blobs from the journal get their files now",
        "branch.journal_recovery",
    ),
    (
        "blobstore::store",
        "records of the blob journal cannot be read",
        "branch.journal_damaged",
    ),
    ("blobstore::health", "a blob is corrupt here", "branch.blob_corrupt"),
    (
        "blobstore::fetch",
        "read from a peer instead",
        "branch.blob_read_from_peer",
    ),
    ("blobstore::replicator", "a voter is skipped", "branch.voter_skipped"),
    ("blobstore::collect", "collected", "branch.blob_collected"),
    ("node::care", "a damaged blob was replaced", "branch.blob_repair"),
    ("node::care", "unreferenced blobs removed", "branch.blobs_removed"),
    (
        "node::manifests",
        "its manifest is written anew",
        "branch.snapshot_installed",
    ),
    ("node::manifests", "the manifest missed changes", "branch.manifest_gap"),
    ("node::placement", "placement planned", "branch.placement_planned"),
    ("node::placement", "replica added", "branch.replica_added"),
    ("node::placement", "voters changed", "branch.voters_changed"),
    (
        "node::placement",
        "replicas of removed nodes leave",
        "branch.removed_leave",
    ),
    ("node::face", "a node joined", "branch.node_joined"),
    ("node::commands", "the disk failed", "branch.disk_failed"),
    ("queue::attempt", "attempt finished", "branch.queue_attempt"),
    (
        "queue::worker",
        "attempt not written down",
        "branch.queue_attempt_failed",
    ),
];

/// What many runs are to hit: what is missing among these is not tested by them.
pub const EXPECTED: &[&str] = &[
    "branch.leader_change",
    "branch.leader_change_in_delivery",
    "branch.membership_change",
    "branch.snapshot_made_or_installed",
    "branch.snapshot_installed",
    "branch.log_purged",
    "branch.replica_taken_out",
    "branch.replica_begun_anew",
    "branch.replica_back",
    "branch.replica_opened_again",
    "branch.torn_tail_cut",
    "branch.log_damaged",
    "branch.log_no_room",
    "branch.fenced",
    "branch.journal_recovery",
    "branch.blob_corrupt",
    "branch.blob_read_from_peer",
    "branch.blob_repair",
    "branch.voter_skipped",
    "branch.queue_attempt",
    "branch.placement_planned",
    "branch.replica_added",
    "branch.voters_changed",
    "branch.removed_leave",
    "branch.node_joined",
    "admin.add.done",
    "admin.drain.done",
    "admin.remove.done",
    "admin.move.done",
    "admin.replace.done",
];

/// Counts in this thread, until the guard is dropped. Where a log is wanted (`--log`), nothing is counted: one thread has one
/// subscriber.
pub(super) fn count(book: &Book) -> Option<DefaultGuard> {
    let is_logged = tracing::dispatcher::get_default(|dispatch| dispatch.is::<tracing::subscriber::NoSubscriber>());
    is_logged.then(|| tracing::subscriber::set_default(Counting(book.clone())))
}

struct Counting(Book);

impl Subscriber for Counting {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= Level::INFO
            && BRANCHES
                .iter()
                .any(|(target, ..)| metadata.target().starts_with(target))
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        let target = event.metadata().target();
        let branch = BRANCHES
            .iter()
            .find(|(of, part, _)| target.starts_with(of) && message.0.contains(part));
        if let Some((_, _, name)) = branch {
            self.0.count(name);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}
