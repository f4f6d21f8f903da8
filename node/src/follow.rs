//! Following the directory: who the members are, and which groups have a replica here.

use std::sync::Arc;

use core_types::{GroupId, Incarnation};
use state::{Effect, MachineKind};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use crate::files::{self, SEED};
use crate::start::Parts;

/// Takes over the members from the directory, and remembers them for the next start.
pub(crate) async fn renew_members(parts: &Arc<Parts>) {
    let read = parts
        .store
        .directory()
        .query(|reader| Ok((reader.nodes()?, reader.join_tokens()?)))
        .await;
    let (nodes, tokens) = match read {
        Ok(read) => read,
        Err(error) => return tracing::warn!(%error, "the members could not be read"),
    };
    if parts.members.renew(&nodes, &tokens, parts.clock.now()) {
        parts.transport.peers_changed();
        if let Err(error) = files::write_value(parts.disk.as_ref(), SEED, &parts.members.seed()) {
            tracing::warn!(%error, "the members were not written down");
        }
    }
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

/// Follows the directory for ever.
pub(crate) async fn follow_directory(parts: Arc<Parts>) {
    let mut tasks = JoinSet::new();
    let Ok(mut effects) = parts.store.groups().effects(GroupId::DIRECTORY) else {
        return;
    };
    loop {
        renew_members(&parts).await;
        for (group, incarnation) in placed_here(&parts).await {
            if parts.groups.group(group).is_none()
                && !parts.ailments.contains(group)
                && let Err(error) = parts
                    .open_group(group, incarnation, MachineKind::Mailbox, &mut tasks)
                    .await
            {
                parts.not_opened(group, &error);
            }
        }
        loop {
            match effects.recv().await {
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
