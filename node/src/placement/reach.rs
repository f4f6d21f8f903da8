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

/// The nodes that are away: not reached, or back for a short time only.
#[derive(Debug, Default)]
pub(crate) struct Reach(Mutex<BTreeMap<NodeId, Away>>);

#[derive(Clone, Copy, Debug)]
struct Away {
    since: Instant,
    /// Since when it is reached again without a break.
    back: Option<Instant>,
}

impl Reach {
    /// Notes whether a node is reached now.
    pub(crate) fn note(&self, node: NodeId, reached: bool) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !reached {
            let away = all.entry(node).or_insert(Away { since: now, back: None });
            away.back = None;
        } else if let Some(away) = all.get_mut(&node) {
            let back = *away.back.get_or_insert(now);
            if now.duration_since(back) >= BACK_AFTER {
                all.remove(&node);
            }
        }
    }

    /// For how long a node has been away; `None` when it is reached, and has been for some time. One that ends soon after each
    /// start shows itself again and again, and is away all the time.
    pub(crate) fn away(&self, node: NodeId) -> Option<Duration> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&node).map(|away| away.since.elapsed())
    }

    /// The same; `None` also while it is reached just now.
    pub(crate) fn missed(&self, node: NodeId) -> Option<Duration> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&node)
            .filter(|away| away.back.is_none())
            .map(|away| away.since.elapsed())
    }
}

/// How long a node that was away has to be reached without a break until it is there again.
const BACK_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_away_since_it_was_reached_last_until_it_has_stayed() {
        let reach = Reach::default();
        assert_eq!(reach.away(NodeId(2)), None);
        reach.note(NodeId(2), false);
        tokio::time::advance(Duration::from_secs(5)).await;
        reach.note(NodeId(2), false);
        assert_eq!(reach.away(NodeId(2)), Some(Duration::from_secs(5)));
        reach.note(NodeId(2), true);
        assert_eq!(reach.away(NodeId(2)), Some(Duration::from_secs(5)));
        assert_eq!(reach.missed(NodeId(2)), None);
        tokio::time::advance(BACK_AFTER).await;
        reach.note(NodeId(2), true);
        assert_eq!(reach.away(NodeId(2)), None);
        reach.note(NodeId(2), false);
        assert_eq!(reach.away(NodeId(2)), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_shows_itself_for_moments_only_is_away_all_the_time() {
        let reach = Reach::default();
        for _ in 0..30 {
            reach.note(NodeId(2), false);
            tokio::time::advance(Duration::from_secs(1)).await;
            reach.note(NodeId(2), true);
            tokio::time::advance(BACK_AFTER / 2).await;
            reach.note(NodeId(2), true);
        }
        reach.note(NodeId(2), false);
        assert_eq!(reach.away(NodeId(2)), reach.missed(NodeId(2)));
        assert_eq!(reach.away(NodeId(2)), Some(Duration::from_secs(30) + 15 * BACK_AFTER));
    }
}
