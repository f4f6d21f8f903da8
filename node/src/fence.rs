//! The fence: nodes remember how far each other node's log was durable, so that one that comes back with an older disk (a
//! restored image) is told so before it votes or acknowledges anything.
//!
//! A node tells the others where its log was when it was opened and where it is now, and each answers with the highest that it
//! remembers. Until a node has answered, nothing of Raft goes to it or is taken from it ([`GatedRpc`], [`GatedService`]): so
//! no vote and no entry passes between two nodes before the one was checked by the other's memory. This exchange needs no
//! group, and no quorum: nodes that start together answer each other at once.
//!
//! What is remembered is written down now and then, without hurry: what of it is lost makes an old image less likely to be
//! noticed, and nothing else worse. Not noticed is an image whose successors no node remembers that is up.
//!
//! Not here: what a fenced node does with its replicas (`raft`, and [`crate::repair`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use core_types::{Disk, NodeId, codec};
use raft::log::LogPosition;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use transport::{CallError, Class, Refused, Rpc, Service, ServiceId};

use crate::files::{self, REMEMBERED};
use crate::start::Parts;

/// What is remembered of the others, and who has told what it remembers of this node.
pub(crate) struct Fence {
    remembered: Mutex<Remembered>,
    heard: Mutex<BTreeSet<NodeId>>,
}

#[derive(Debug, Default)]
struct Remembered {
    nodes: BTreeMap<NodeId, LogPosition>,
    is_written: bool,
}

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Book {
    nodes: Vec<(NodeId, LogPosition)>,
}

/// The answer: what was remembered of the asker before.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Memory {
    highest: Option<LogPosition>,
}

impl Fence {
    /// Reads what was remembered; what cannot be read is forgotten.
    pub(crate) fn open(disk: &dyn Disk) -> Arc<Self> {
        let book: Option<Book> = files::read_value(disk, REMEMBERED).unwrap_or_else(|error| {
            tracing::warn!(%error, "what this node remembers of the others cannot be read");
            None
        });
        Arc::new(Self {
            remembered: Mutex::new(Remembered {
                nodes: book.unwrap_or_default().nodes.into_iter().collect(),
                is_written: true,
            }),
            heard: Mutex::default(),
        })
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_heard(&self, node: NodeId) -> bool {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&node)
    }

    fn hears(&self, node: NodeId) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(node);
    }

    /// Takes over where a node says its log is; gives what was the highest before.
    fn remember(&self, node: NodeId, now: LogPosition) -> Option<LogPosition> {
        let mut remembered = self.remembered();
        let before = remembered.nodes.get(&node).copied();
        // Of two lives with the same count the one that was known stays: the other one is to be noticed again.
        let is_higher = before.is_none_or(|before| {
            (before.boot, before.seq) < (now.boot, now.seq) && (before.boot != now.boot || before.nonce == now.nonce)
        });
        if is_higher {
            remembered.nodes.insert(node, now);
            remembered.is_written = false;
        }
        before
    }

    fn write(&self, disk: &dyn Disk) {
        let book = {
            let mut remembered = self.remembered();
            if std::mem::replace(&mut remembered.is_written, true) {
                return;
            }
            Book {
                nodes: remembered.nodes.iter().map(|(node, at)| (*node, *at)).collect(),
            }
        };
        if let Err(error) = files::write_value(disk, REMEMBERED, &book) {
            tracing::warn!(%error, "what this node remembers of the others was not written down");
            self.remembered().is_written = false;
        }
    }
}

#[async_trait]
impl Service for Fence {
    async fn serve(&self, from: NodeId, request: Bytes) -> Result<Bytes, Refused> {
        let refused = |error: codec::CodecError| Refused(error.to_string());
        let now: LogPosition = codec::decode(VERSION, &request, MESSAGE_BYTES_MAX).map_err(refused)?;
        let highest = self.remember(from, now);
        let answer = codec::encode(VERSION, &Memory { highest }, MESSAGE_BYTES_MAX).map_err(refused)?;
        Ok(answer.into())
    }
}

/// Whether a position that another node remembers is one that this node's log never had: `found` when it was opened, `now`
/// since then.
fn is_older(found: LogPosition, now: LogPosition, remembered: LogPosition) -> bool {
    let of = |ours: LogPosition| remembered.nonce != ours.nonce || remembered.seq > ours.seq;
    if remembered.boot == now.boot {
        of(now)
    } else if remembered.boot == found.boot {
        of(found)
    } else {
        remembered.boot > found.boot
    }
}

/// Raft's way to the other nodes: to none that has not been heard.
pub(crate) struct GatedRpc {
    pub(crate) rpc: Arc<dyn Rpc>,
    pub(crate) fence: Arc<Fence>,
}

#[async_trait]
impl Rpc for GatedRpc {
    fn node(&self) -> NodeId {
        self.rpc.node()
    }

    async fn call(
        &self,
        to: NodeId,
        class: Class,
        service: ServiceId,
        request: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        if !self.fence.has_heard(to) {
            return Err(CallError::Unreachable(to));
        }
        self.rpc.call(to, class, service, request, timeout).await
    }

    fn is_reachable(&self, to: NodeId) -> bool {
        self.rpc.is_reachable(to) && self.fence.has_heard(to)
    }
}

/// Raft's answers: none to a node that has not been heard.
pub(crate) struct GatedService<S> {
    pub(crate) service: S,
    pub(crate) fence: Arc<Fence>,
}

#[async_trait]
impl<S: Service> Service for GatedService<S> {
    async fn serve(&self, from: NodeId, request: Bytes) -> Result<Bytes, Refused> {
        if !self.fence.has_heard(from) {
            return Err(Refused(
                "this node still has to hear what the asker remembers of it".to_owned(),
            ));
        }
        self.service.serve(from, request).await
    }
}

/// Asks all members at the start, before any group is open: returns when all have answered, or after a while. Whoever answers
/// later is heard before anything of Raft passes to it or from it.
pub(crate) async fn first_round(parts: &Arc<Parts>) {
    let deadline = Instant::now() + START_PATIENCE;
    while ask_all(parts).await > 0 && Instant::now() < deadline {
        tokio::time::sleep(SOON).await;
    }
}

/// Asks for ever.
pub(crate) async fn run(parts: Arc<Parts>) {
    let mut told_all_at = Instant::now();
    loop {
        let missing = ask_all(&parts).await;
        if told_all_at.elapsed() >= TELL_EVERY {
            told_all_at = Instant::now();
            tell_all(&parts).await;
            let (fence, disk) = (Arc::clone(&parts.fence), Arc::clone(&parts.disk));
            parts.log.pool().execute(Box::new(move || fence.write(disk.as_ref())));
        }
        tokio::time::sleep(if missing > 0 { SOON } else { LOOK }).await;
    }
}

fn others(parts: &Parts) -> Vec<NodeId> {
    let node = parts.identity.node();
    let members = parts.members.seed().nodes;
    members
        .into_iter()
        .map(|(member, ..)| member)
        .filter(|member| *member != node)
        .collect()
}

/// Asks those that were not heard yet; how many of them are left.
async fn ask_all(parts: &Arc<Parts>) -> usize {
    let missing: Vec<NodeId> = others(parts)
        .into_iter()
        .filter(|node| !parts.fence.has_heard(*node))
        .collect();
    let asked = missing.iter().map(|node| exchange(parts, *node));
    let heard = futures_util::future::join_all(asked).await;
    heard.into_iter().filter(|heard| !heard).count()
}

async fn tell_all(parts: &Arc<Parts>) {
    let told = others(parts).into_iter().map(|node| exchange(parts, node));
    futures_util::future::join_all(told).await;
}

/// Tells one node where this node's log is, and hears what it remembers. Whether it answered, and that was dealt with.
async fn exchange(parts: &Parts, node: NodeId) -> bool {
    let now = parts.log.position();
    let Ok(request) = codec::encode(VERSION, &now, MESSAGE_BYTES_MAX) else {
        return false;
    };
    let answer = parts
        .transport
        .call(node, Class::Control, ServiceId::FENCE, request.into(), PATIENCE)
        .await;
    let Ok(answer) = answer else { return false };
    let Ok(Memory { highest }) = codec::decode(VERSION, &answer, MESSAGE_BYTES_MAX) else {
        return false;
    };
    if let Some(highest) = highest
        && is_older(parts.log.found(), parts.log.position(), highest)
    {
        let reason = format!(
            "this disk is an older image: node {node} remembers start {} of this node, up to batch {} of its log",
            highest.boot, highest.seq
        );
        tracing::error!(%node, reason, "every replica of this node is repaired from the others");
        if let Err(error) = parts.groups.fence(&reason, highest.boot).await {
            tracing::error!(%error, "the replicas were not set aside; it is tried again, and nothing is taken from that node");
            return false;
        }
    }
    parts.fence.hears(node);
    true
}

const VERSION: u8 = 1;
/// Octets of a message.
const MESSAGE_BYTES_MAX: u64 = 256;
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a start waits for the members that do not answer.
const START_PATIENCE: Duration = Duration::from_millis(1500);
/// Between two looks for members that were not heard yet, while there are any.
const SOON: Duration = Duration::from_millis(100);
/// Between two such looks while there are none.
const LOOK: Duration = Duration::from_millis(500);
/// Between two rounds in which all are told how far the log is.
const TELL_EVERY: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use platform::FaultyDisk;

    fn at(boot: u64, nonce: u64, seq: u64) -> LogPosition {
        LogPosition { boot, nonce, seq }
    }

    #[test]
    fn only_what_the_log_never_had_shows_an_older_image() {
        // Opened at the end of start 4, and now in start 5.
        let (found, now) = (at(4, 40, 100), at(5, 50, 120));
        for well in [
            at(3, 30, 9999),
            at(4, 40, 100),
            at(4, 40, 7),
            at(5, 50, 120),
            at(5, 50, 1),
        ] {
            assert!(!is_older(found, now, well), "{well:?}");
        }
        for older in [at(4, 40, 101), at(4, 41, 7), at(5, 51, 1), at(5, 50, 121), at(6, 60, 1)] {
            assert!(is_older(found, now, older), "{older:?}");
        }
        // A log that was begun anew has never been anywhere.
        assert!(is_older(LogPosition::default(), at(1, 5, 1), at(3, 30, 1)));
        assert!(is_older(LogPosition::default(), at(1, 5, 1), at(1, 6, 1)));
        assert!(!is_older(LogPosition::default(), at(1, 5, 1), at(1, 5, 1)));
    }

    #[test]
    fn the_highest_is_remembered_over_a_restart_and_another_life_does_not_replace_it() {
        let disk = FaultyDisk::new();
        let fence = Fence::open(&disk);
        assert_eq!(fence.remember(NodeId(2), at(3, 30, 10)), None);
        assert_eq!(fence.remember(NodeId(2), at(3, 30, 20)), Some(at(3, 30, 10)));
        assert_eq!(fence.remember(NodeId(2), at(3, 30, 15)), Some(at(3, 30, 20)));
        // Another life of the same image is told of the first one, however often it asks.
        for _ in 0..2 {
            assert_eq!(fence.remember(NodeId(2), at(3, 31, 50)), Some(at(3, 30, 20)));
        }
        fence.write(&disk);
        disk.crash_strictly();
        let fence = Fence::open(&disk);
        assert_eq!(fence.remember(NodeId(2), at(4, 40, 1)), Some(at(3, 30, 20)));
        assert_eq!(fence.remember(NodeId(2), at(4, 40, 1)), Some(at(4, 40, 1)));
    }

    #[tokio::test]
    async fn nothing_of_raft_passes_before_a_node_was_heard() {
        struct Yes;
        #[async_trait]
        impl Service for Yes {
            async fn serve(&self, _: NodeId, request: Bytes) -> Result<Bytes, Refused> {
                Ok(request)
            }
        }
        let fence = Fence::open(&FaultyDisk::new());
        let service = GatedService {
            service: Yes,
            fence: Arc::clone(&fence),
        };
        assert!(service.serve(NodeId(2), Bytes::new()).await.is_err());
        fence.hears(NodeId(2));
        assert!(service.serve(NodeId(2), Bytes::new()).await.is_ok());
        assert!(service.serve(NodeId(3), Bytes::new()).await.is_err());
    }
}
