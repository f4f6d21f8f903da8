//! Following the directory: who the members are, which groups have a replica here, and whether this node is a member at all.
//!
//! A node that was removed hears it from the directory, if it still gets that entry, or from all others, who call it a stranger.

use std::sync::Arc;
use std::time::Duration;

use core_types::{GroupId, Incarnation};
use state::rows::{JoinTokenRow, NodeRow};
use state::{Effect, MachineKind};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::files::{self, SEED};
use crate::start::Parts;

/// Between two looks at what the others say.
const MEMBERSHIP_LOOK: Duration = Duration::from_secs(1);
/// How long most others have to call this node a stranger.
const STRANGER_PATIENCE: Duration = Duration::from_secs(10);

/// Whether this node is no member of its cluster any more, and why.
#[derive(Debug, Default)]
pub(crate) struct Removal(watch::Sender<Option<String>>);

impl Removal {
    fn tell(&self, reason: String) {
        self.0.send_if_modified(|told| {
            let is_first = told.is_none();
            if is_first {
                tracing::error!(reason, "the node serves no more");
                *told = Some(reason);
            }
            is_first
        });
    }

    pub(crate) fn reason(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Returns, with the reason, once the node is no member.
    pub(crate) async fn told(&self) -> String {
        let mut told = self.0.subscribe();
        let reason = told
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            // It is not told any more.
            None => std::future::pending().await,
        }
    }
}

/// Hears from the other nodes that this one is a stranger. One that has just joined is a stranger for a moment to those that
/// do not know it yet, and a lone one to nobody: only most others, for a while, while nobody is connected, are believed.
pub(crate) async fn watch_membership(parts: Arc<Parts>) {
    let mut since = None;
    loop {
        tokio::time::sleep(MEMBERSHIP_LOOK).await;
        let this = parts.identity.node();
        let others = parts
            .members
            .seed()
            .nodes
            .iter()
            .filter(|(node, ..)| *node != this)
            .count();
        let peers = parts.transport.peers_status();
        let refusing = peers.iter().filter(|peer| peer.refuses_as_stranger).count();
        if others == 0 || refusing * 2 <= others || peers.iter().any(|peer| peer.connected) {
            since = None;
            continue;
        }
        if since.get_or_insert_with(Instant::now).elapsed() >= STRANGER_PATIENCE {
            parts.health.removal.tell(format!(
                "node {this} is no member of the cluster any more: {refusing} of {others} other nodes say so"
            ));
        }
    }
}

/// Takes over the members from the directory, and remembers them for the next start. Returns whether that has to be tried
/// again: a member is taken back only when it is known that the directory here is not an old one.
pub(crate) async fn renew_members(parts: &Arc<Parts>) -> bool {
    let this = parts.identity.node();
    let removed = parts.store.directory().query(|reader| reader.removed_node(this)).await;
    if let Ok(Some(row)) = removed {
        let reason = format!("node {this} ({}) was removed from the cluster", row.name);
        parts.health.removal.tell(reason);
        // Whom it knows, it goes on knowing: it may have to hand in what it accepted while it was cut off.
        return false;
    }
    let Some((nodes, tokens)) = read_members(parts).await else {
        return true;
    };
    let now = parts.clock.now();
    let (is_open, changed) = if nodes.is_empty() || !parts.members.differ(&nodes) {
        (false, parts.members.renew(&nodes, &tokens, now))
    } else if let Some((nodes, tokens)) = confirmed_members(parts).await {
        (false, parts.members.renew(&nodes, &tokens, now))
    } else {
        (true, parts.members.add(&nodes, &tokens, now))
    };
    if changed {
        parts.transport.peers_changed();
        if let Err(error) = files::write_value(parts.disk.as_ref(), SEED, &parts.members.seed()) {
            tracing::warn!(%error, "the members were not written down");
        }
    }
    is_open
}

async fn read_members(parts: &Arc<Parts>) -> Option<(Vec<NodeRow>, Vec<JoinTokenRow>)> {
    let read = parts
        .store
        .directory()
        .query(|reader| Ok((reader.nodes()?, reader.join_tokens()?)))
        .await;
    read.inspect_err(|error| tracing::warn!(%error, "the members could not be read"))
        .ok()
}

/// The members as of now, confirmed by the directory's majority.
async fn confirmed_members(parts: &Arc<Parts>) -> Option<(Vec<NodeRow>, Vec<JoinTokenRow>)> {
    let directory = parts.groups.group(GroupId::DIRECTORY)?;
    directory.read_barrier(CONFIRM_PATIENCE).await.ok()?;
    read_members(parts).await
}

/// The mailbox groups of which this node is to hold a replica.
pub(crate) async fn placed_here(parts: &Arc<Parts>) -> Vec<(GroupId, Incarnation)> {
    let node = parts.identity.node();
    let rows = parts
        .store
        .directory()
        .query(|reader| reader.groups())
        .await
        .unwrap_or_default();
    rows.iter()
        .filter(|row| row.group != GroupId::DIRECTORY)
        .filter(|row| row.voters.contains(&node) || row.learners.contains(&node))
        .map(|row| (row.group, row.incarnation))
        .collect()
}

/// Follows the directory for ever, whatever becomes of its replica here.
pub(crate) async fn follow_directory(parts: Arc<Parts>) {
    // What looks after each group ends with this.
    let mut tasks = JoinSet::new();
    loop {
        if let Ok(effects) = parts.store.groups().effects(GroupId::DIRECTORY) {
            follow_replica(&parts, effects, &mut tasks).await;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Follows the replica of the directory for as long as it tells its changes.
async fn follow_replica(parts: &Arc<Parts>, mut effects: Receiver<Arc<[Effect]>>, tasks: &mut JoinSet<()>) {
    loop {
        let again = renew_members(parts).await;
        let mut again_at = again.then(|| Instant::now() + AGAIN);
        for (group, incarnation) in placed_here(parts).await {
            if parts.groups.group(group).is_none()
                && !parts.ailments.contains(group)
                && let Err(error) = parts.open_group(group, incarnation, MachineKind::Mailbox, tasks).await
            {
                parts.not_opened(group, &error);
                // Room on the disk, for one, comes back without a word.
                again_at.get_or_insert_with(|| Instant::now() + OPEN_AGAIN);
            }
        }
        loop {
            let next = match again_at {
                Some(at) => match timeout_at(at, effects.recv()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
                None => effects.recv().await,
            };
            match next {
                Ok(changes)
                    if !changes
                        .iter()
                        .any(|effect| matches!(effect, Effect::Directory | Effect::Replaced)) => {}
                Ok(_) | Err(RecvError::Lagged(_)) => break,
                Err(RecvError::Closed) => return,
            }
        }
    }
}

/// How long the confirmation by the directory's majority may take.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts to take over members that were not confirmed.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two attempts to open a group that could not be opened.
const OPEN_AGAIN: Duration = Duration::from_secs(10);
