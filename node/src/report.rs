//! What every node says of its replicas: asked of all, put together for an administrator.
//!
//! Not here: what follows from it (`agreement`, `departure`); the shapes that people see (`admin::api`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use core_types::limits::FRAME_BYTES_MAX;
use core_types::{GroupId, Incarnation, NodeId, codec};
use raft::{Group, Role};
use serde::{Deserialize, Serialize};
use state::digest::{Digest, MailboxDigest};
use transport::{Class, Refused, Rpc, Service, ServiceId};

use crate::placement::Replicas;
use crate::start::Parts;

/// What is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Request {
    /// Everything; with `afresh`, all blobs are to be looked at once more, in the background.
    Report { afresh: bool },
    /// The digest of each mailbox of a group.
    Mailboxes { group: GroupId },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Answer {
    Report(NodeReport),
    /// After which entry, when it is known.
    Mailboxes(Option<u64>, Vec<MailboxDigest>),
}

/// What a node says of its replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    pub(crate) node: NodeId,
    pub(crate) replicas: Vec<ReplicaReport>,
    /// Replicas that should be here and could not be opened; why.
    pub(crate) not_opened: Vec<(GroupId, String)>,
    /// The last look at the blobs of all groups that has ended.
    pub(crate) last_look: u64,
    /// The look that was wanted last: once it has ended, what is said of blobs is younger than the question.
    pub(crate) wanted_look: u64,
}

/// What a replica says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplicaReport {
    pub(crate) group: GroupId,
    pub(crate) incarnation: Incarnation,
    pub(crate) leads: bool,
    pub(crate) leader: Option<NodeId>,
    pub(crate) term: u64,
    pub(crate) applied: u64,
    /// The entry of the membership that it knows.
    pub(crate) membership: u64,
    pub(crate) voters: BTreeSet<NodeId>,
    pub(crate) learners: BTreeSet<NodeId>,
    /// At the leader.
    pub(crate) lag: Vec<(NodeId, u64)>,
    /// Up to which entry each replica has verified every blob, as the log says.
    pub(crate) caught_up: Vec<(NodeId, u64)>,
    /// Digests with the entries after which they were taken; the last one is after `applied`.
    pub(crate) digests: Vec<(u64, Digest)>,
    /// Why it is closed, or what is wrong with its group's copies.
    pub(crate) closed: Option<String>,
    /// What its leader waits for before it goes on towards the plan.
    pub(crate) waits: Option<String>,
    pub(crate) blobs: Option<BlobReport>,
}

/// How a group's blobs were when they were looked at last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlobReport {
    /// Messages in the group's mailboxes.
    pub(crate) messages: u64,
    /// Blobs that are not on this node.
    pub(crate) lacking_here: u64,
    pub(crate) under_replicated: u64,
    pub(crate) missing: u64,
}

/// Answers other nodes.
pub(crate) struct Reporting(pub(crate) Arc<Parts>);

#[async_trait]
impl Service for Reporting {
    async fn serve(&self, _: NodeId, request: Bytes) -> Result<Bytes, Refused> {
        let refused = |error: &dyn std::fmt::Display| Refused(error.to_string());
        let request: Request = codec::decode(VERSION, &request, REQUEST_BYTES_MAX).map_err(|error| refused(&error))?;
        let answer = answer(&self.0, request).await;
        let bytes = codec::encode(VERSION, &answer, FRAME_BYTES_MAX).map_err(|error| refused(&error))?;
        Ok(Bytes::from(bytes))
    }
}

async fn answer(parts: &Parts, request: Request) -> Answer {
    match request {
        Request::Report { afresh } => Answer::Report(here(parts, afresh).await),
        Request::Mailboxes { group } => {
            let (index, mailboxes) = mailboxes_here(parts, group).await;
            Answer::Mailboxes(index, mailboxes)
        }
    }
}

/// What this node says.
async fn here(parts: &Parts, afresh: bool) -> NodeReport {
    let wanted_look = if afresh {
        let look = parts.health.look_again();
        parts.moves.send_modify(|count| *count = count.wrapping_add(1));
        look
    } else {
        parts.health.look()
    };
    let looks = parts.groups.list().into_iter().map(|group| group.group());
    let looks = looks.filter(|group| *group != GroupId::DIRECTORY);
    let last_look = looks
        .map(|group| parts.health.last_look(group))
        .min()
        .unwrap_or(wanted_look);
    let mut replicas = Vec::new();
    for group in parts.groups.list() {
        replicas.push(replica_report(parts, &group).await);
    }
    NodeReport {
        node: parts.identity.node(),
        replicas,
        not_opened: parts
            .health
            .all_not_opened()
            .into_iter()
            .chain(parts.ailments.all())
            .collect(),
        last_look,
        wanted_look,
    }
}

async fn replica_report(parts: &Parts, group: &Group) -> ReplicaReport {
    let status = group.status();
    let id = group.group();
    let members: BTreeSet<NodeId> = status
        .membership
        .voters
        .union(&status.membership.learners)
        .copied()
        .collect();
    let replicas = Replicas::read(parts, id, &members).await.unwrap_or_default();
    // A closed replica's rows are not to be trusted.
    let digests = group.digests().await.unwrap_or_default();
    ReplicaReport {
        group: id,
        incarnation: status.incarnation,
        leads: status.role == Role::Leader,
        leader: status.leader,
        term: status.term,
        applied: status.applied.unwrap_or(0),
        membership: status.membership.index,
        voters: status.membership.voters,
        learners: status.membership.learners,
        lag: status.lag.into_iter().collect(),
        caught_up: members.iter().map(|node| (*node, replicas.caught_up(*node))).collect(),
        digests,
        closed: status.closed.or(status.alarm),
        waits: parts.health.waiting(id),
        blobs: blob_report(parts, id).await,
    }
}

async fn blob_report(parts: &Parts, group: GroupId) -> Option<BlobReport> {
    let found = parts.health.blobs_of(group)?;
    let counted = parts
        .store
        .groups()
        .query(group, |view| state::mailbox::Reader::new(view).counts())
        .await;
    Some(BlobReport {
        messages: counted.map_or(0, |counts| counts.messages),
        lacking_here: found.lacking_here,
        under_replicated: found.under_replicated,
        missing: found.missing,
    })
}

async fn mailboxes_here(parts: &Parts, group: GroupId) -> (Option<u64>, Vec<MailboxDigest>) {
    let Some(replica) = parts.groups.group(group) else {
        return (None, Vec::new());
    };
    let before = replica.status().applied;
    let read = parts.store.groups().query(group, state::digest::of_mailboxes).await;
    let is_same = before == replica.status().applied;
    (before.filter(|_| is_same), read.unwrap_or_default())
}

/// What all members say; the error of each that does not.
pub(crate) async fn of_all(
    parts: &Parts,
    members: &[NodeId],
    afresh: bool,
) -> BTreeMap<NodeId, Result<NodeReport, String>> {
    let asked = members.iter().map(|node| async move {
        let answer = ask(parts, *node, Request::Report { afresh }, PATIENCE).await;
        let report = answer.and_then(|answer| match answer {
            Answer::Report(report) => Ok(report),
            Answer::Mailboxes(..) => Err("an answer to another question".to_owned()),
        });
        (*node, report)
    });
    futures_util::future::join_all(asked).await.into_iter().collect()
}

/// The digest of each mailbox of a group on a node, and after which entry they were taken.
pub(crate) async fn mailboxes(
    parts: &Parts,
    node: NodeId,
    group: GroupId,
) -> Result<(Option<u64>, Vec<MailboxDigest>), String> {
    match ask(parts, node, Request::Mailboxes { group }, MAILBOXES_PATIENCE).await? {
        Answer::Mailboxes(index, mailboxes) => Ok((index, mailboxes)),
        Answer::Report(_) => Err("an answer to another question".to_owned()),
    }
}

async fn ask(parts: &Parts, node: NodeId, request: Request, patience: Duration) -> Result<Answer, String> {
    if node == parts.identity.node() {
        return Ok(answer(parts, request).await);
    }
    let bytes = codec::encode(VERSION, &request, REQUEST_BYTES_MAX).map_err(|error| error.to_string())?;
    let asked = parts
        .transport
        .call(node, Class::Store, ServiceId::REPORT, Bytes::from(bytes), patience)
        .await;
    let bytes = asked.map_err(|error| error.to_string())?;
    codec::decode(VERSION, &bytes, FRAME_BYTES_MAX).map_err(|error| error.to_string())
}

const VERSION: u8 = 1;
/// Octets of a question.
const REQUEST_BYTES_MAX: u64 = 1024;
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a node may take to read all mailboxes of a group.
const MAILBOXES_PATIENCE: Duration = Duration::from_secs(30);
