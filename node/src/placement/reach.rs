//! For how long each node has not been reached.
//!
//! Every node watches, not only the one that plans: a new leader of the directory group knows as much. What was before this
//! process began is not known, so a node is at most as long away as this process runs.
//!
//! Not here: what follows from it (`plan`).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use core_types::NodeId;
use tokio::time::Instant;

/// The nodes that are not reached now, and since when.
#[derive(Debug, Default)]
pub(crate) struct Reach(Mutex<BTreeMap<NodeId, Instant>>);

impl Reach {
    /// Notes whether a node is reached now.
    pub(crate) fn note(&self, node: NodeId, reached: bool) {
        let mut away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reached {
            away.remove(&node);
        } else {
            away.entry(node).or_insert_with(Instant::now);
        }
    }

    /// For how long a node has been away; `None` when it is reached.
    pub(crate) fn away(&self, node: NodeId) -> Option<Duration> {
        let away = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        away.get(&node).map(Instant::elapsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_away_since_it_was_reached_last() {
        let reach = Reach::default();
        assert_eq!(reach.away(NodeId(2)), None);
        reach.note(NodeId(2), false);
        tokio::time::advance(Duration::from_secs(5)).await;
        reach.note(NodeId(2), false);
        assert_eq!(reach.away(NodeId(2)), Some(Duration::from_secs(5)));
        reach.note(NodeId(2), true);
        assert_eq!(reach.away(NodeId(2)), None);
        reach.note(NodeId(2), false);
        assert_eq!(reach.away(NodeId(2)), Some(Duration::ZERO));
    }
}
