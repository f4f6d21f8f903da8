//! Looks after the queues of the groups that this node leads, as long as the node runs.
//!
//! Invariants: at most [`QUEUE_ATTEMPTS_MAX`] entries of a group are under way, each once; a group that fails delays none
//! of the others. Not here: one attempt (`attempt`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use core_types::limits::QUEUE_ATTEMPTS_MAX;
use core_types::{GroupId, NodeId, QueueId, UnixMillis};
use mailstore::MailStore;
use raft::consensus::QueryError;
use state::mailbox::Reader;
use state::rows::QueueEntry;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::Shutdown;

use crate::attempt;
use crate::schedule::millis;

/// Whether this node leads a group now, as far as it knows. A wrong answer costs work, never a double delivery.
pub type Leads = Arc<dyn Fn(GroupId) -> bool + Send + Sync>;

/// What the worker is made of.
#[derive(Clone)]
pub struct Worker {
    /// The mail store of this node.
    pub store: MailStore,
    /// This node.
    pub node: NodeId,
    /// The name under which it reports.
    pub hostname: Arc<str>,
    /// Which groups it leads.
    pub leads: Leads,
}

/// Works the queues until the node stops; then waits a moment for the attempts under way.
pub async fn run(worker: Worker, shutdown: Shutdown) {
    let mut watch = worker.store.watch_queue();
    let mut rounds = Rounds {
        worker,
        attempts: JoinSet::new(),
        under_way: BTreeMap::new(),
        clocks: BTreeMap::new(),
    };
    while !shutdown.is_stopped() {
        let pause = rounds.start_due().await;
        tokio::select! {
            biased;
            () = shutdown.stopped() => break,
            Some(ended) = rounds.attempts.join_next(), if !rounds.attempts.is_empty() => rounds.ended(ended),
            () = watch.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    let drained = async { while rounds.attempts.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(DRAIN_TIME, drained).await;
}

struct Rounds {
    worker: Worker,
    attempts: JoinSet<(GroupId, QueueId)>,
    under_way: BTreeMap<GroupId, BTreeSet<QueueId>>,
    /// The time of each group's last op, and when it was seen here.
    clocks: BTreeMap<GroupId, (UnixMillis, Instant)>,
}

impl Rounds {
    /// Starts what is due and says when to look again.
    async fn start_due(&mut self) -> Duration {
        let mut pause = LOOK_AGAIN;
        for group in self.worker.store.groups().groups() {
            if group == GroupId::DIRECTORY || !(self.worker.leads)(group) {
                continue;
            }
            match self.due(group).await {
                Ok((now, entries, next)) => {
                    for entry in entries {
                        self.start(group, entry);
                    }
                    // What is due already is under way, or waits for one of those; their ends wake us.
                    if let Some(UnixMillis(next)) = next.filter(|next| *next > now) {
                        pause = pause.min(Duration::from_millis(next - now.0));
                    }
                }
                Err(error) => tracing::debug!(%group, %error, "the queue cannot be read now"),
            }
        }
        pause
    }

    /// What time it is for the group, which entries are due, and when the next one is.
    async fn due(&mut self, group: GroupId) -> Result<(UnixMillis, Vec<QueueEntry>, Option<UnixMillis>), QueryError> {
        let groups = Arc::clone(self.worker.store.groups());
        let time = groups
            .query(group, |view| state::group::Reader::new(view).time())
            .await?;
        let now = self.now(group, time.unwrap_or_default());
        groups
            .query(group, |view| {
                let reader = Reader::new(view);
                // Those under way are among the due ones until their AttemptStarted is applied.
                let due = reader.queue_due(now, 2 * QUEUE_ATTEMPTS_MAX)?;
                Ok((now, due, reader.queue_next_due()?))
            })
            .await
    }

    /// The group's time goes on between its ops, and is not to wait for this node's clock where that is behind.
    fn now(&mut self, group: GroupId, time: UnixMillis) -> UnixMillis {
        let (last, seen) = self.clocks.entry(group).or_insert_with(|| (time, Instant::now()));
        if *last != time {
            (*last, *seen) = (time, Instant::now());
        }
        let since = time.saturating_add(millis(seen.elapsed()));
        self.worker.store.clock().now().max(since)
    }

    fn start(&mut self, group: GroupId, entry: QueueEntry) {
        let under_way = self.under_way.entry(group).or_default();
        if under_way.len() >= QUEUE_ATTEMPTS_MAX || !under_way.insert(entry.id) {
            return;
        }
        let worker = self.worker.clone();
        self.attempts.spawn(async move {
            if let Err(error) = attempt::attempt(&worker, group, &entry).await {
                tracing::warn!(%group, entry = %entry.id, %error, "attempt not written down");
                // The entry may be due still: not again at once.
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            }
            (group, entry.id)
        });
    }

    fn ended(&mut self, ended: Result<(GroupId, QueueId), tokio::task::JoinError>) {
        match ended {
            Ok((group, entry)) => {
                if let Some(under_way) = self.under_way.get_mut(&group) {
                    under_way.remove(&entry);
                }
            }
            // Which one it was is not known: all are looked at anew, and a double attempt does no harm.
            Err(error) => {
                tracing::error!(%error, "an attempt ended in disorder");
                self.under_way.clear();
            }
        }
    }
}

/// How often the queues are looked at though nothing was heard of them: leaders and clocks change.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long an entry rests whose group could not be told.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(5);
/// How long attempts under way may take to end when the node stops.
const DRAIN_TIME: Duration = Duration::from_secs(5);
