//! Keeping a group's blobs where they belong: a task for each group that has a replica here.
//!
//! It hears of every blob that the group refers to from now on, and of whom the receipts name; fetches at once what this node
//! lacks; asks voters that come back for what they lacked; compares everything when it starts or has missed something, and
//! then again and again in the background, at a small part of the time. Once this node has everything for the first time, it says
//! so in the log (`CaughtUp`).
//!
//! Not here: what is compared and counted, and how (`blobstore::Repair`).

use std::sync::Arc;
use std::time::Duration;

use blobstore::{Compared, References, Repair};
use core_types::{GroupId, NodeId};
use raft::MembershipStatus;
use state::{Effect, GroupOp};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::watch;
use tokio::time::Instant;
use transport::Rpc;

use crate::start::Parts;

/// Repairs one group's blobs until the group is gone.
pub(crate) async fn run(parts: Arc<Parts>, group: GroupId) {
    // The first comparison comes after the subscription: what is referred to later is heard of.
    let Ok(effects) = parts.store.groups().effects(group) else {
        return;
    };
    let rpc = Arc::clone(&parts.transport) as Arc<dyn Rpc>;
    let mut keeper = Keeper {
        repair: Repair::new(parts.store.blobs().clone(), rpc, group),
        references: mailstore::references_of(parts.store.groups())(group),
        group,
        effects,
        moves: parts.moves.subscribe(),
        mend_at: Instant::now(),
        caught_up_at: None,
        look: 0,
        gone: false,
        parts,
    };
    while !keeper.gone {
        let pause = keeper.step().await;
        keeper.wait(pause).await;
    }
}

struct Keeper {
    parts: Arc<Parts>,
    group: GroupId,
    repair: Repair,
    references: Arc<dyn References>,
    effects: Receiver<Arc<[Effect]>>,
    moves: watch::Receiver<u64>,
    mend_at: Instant,
    /// The entry up to which the state here is the whole one, as long as `CaughtUp` is not written.
    caught_up_at: Option<u64>,
    /// The look at all blobs that was begun last, by an administrator's wish.
    look: u64,
    gone: bool,
}

impl Keeper {
    /// Does what is due. Returns how long there is time.
    async fn step(&mut self) -> Duration {
        self.hear();
        let node = self.parts.identity.node();
        let Some(group) = self.parts.groups.group(self.group) else {
            return PAUSE_MAX;
        };
        let status = group.status();
        let membership = &status.membership;
        let is_member = membership.voters.contains(&node) || membership.learners.contains(&node);
        if status.closed.is_some() || !is_member {
            return PAUSE_MAX;
        }
        self.repair.set_members(&membership.voters, &membership.learners);
        let look = self.parts.health.look();
        if look > self.look {
            self.look = look;
            self.repair.doubt_here();
        }
        let catching_up = self.begin_catching_up(&group, membership, node).await;
        let mut pause = PAUSE_MAX;
        if self.group != GroupId::DIRECTORY {
            match self.repair_step().await {
                Ok(next) => pause = next,
                Err(error) => tracing::warn!(group = %self.group, %error, "blobs could not be repaired now"),
            }
            self.parts.health.repaired(self.group, self.repair.report());
            if self.repair.is_looked_at_here() {
                self.parts.health.looked(self.group, self.look);
            }
        }
        if catching_up {
            self.end_catching_up(node).await;
            pause = pause.min(MEND_EVERY);
        }
        pause
    }

    async fn repair_step(&mut self) -> Result<Duration, blobstore::BlobError> {
        // Not all groups at once: each step reads names and looks at files.
        let Ok(_turn) = self.parts.repair_turns.acquire().await else {
            return Ok(PAUSE_MAX);
        };
        let references = Arc::clone(&self.references);
        if self.repair.is_anything_lacking() && Instant::now() >= self.mend_at {
            let began = Instant::now();
            self.repair.mend(references.as_ref()).await?;
            let pause = (began.elapsed() * COST).clamp(MEND_EVERY, PAUSE_MAX);
            self.mend_at = Instant::now() + pause;
        }
        let began = Instant::now();
        let compared = self.repair.compare(references.as_ref()).await?;
        let pause = match compared {
            Compared::Soon => Duration::ZERO,
            Compared::Page => (began.elapsed() * COST).clamp(PAGE_PAUSE_MIN, PAUSE_MAX),
            Compared::End => PAUSE_MAX,
        };
        if self.repair.is_anything_lacking() {
            return Ok(pause.min(self.mend_at.saturating_duration_since(Instant::now())));
        }
        Ok(pause)
    }

    /// Whether this replica is to say that it has everything: under each membership anew, so that whoever voted before may let
    /// its blobs go, and what was said before a replica was added anew says nothing; and again and again while it is to vote and
    /// does not yet. The state here has to be the whole one before it can say which blobs are needed.
    async fn begin_catching_up(&mut self, group: &raft::Group, membership: &MembershipStatus, node: NodeId) -> bool {
        let recorded = self
            .parts
            .store
            .groups()
            .query(self.group, |view| state::group::Reader::new(view).replica(node))
            .await;
        let Ok(recorded) = recorded else {
            return false;
        };
        let is_old = recorded.caught_up < membership.index.max(1);
        if !is_old && (membership.voters.contains(&node) || !self.is_to_vote(node).await) {
            self.caught_up_at = None;
            return false;
        }
        // That was said, or is of another membership: it begins anew.
        let is_past = |index: u64| recorded.caught_up >= index || index < membership.index;
        if self.caught_up_at.is_some_and(is_past) {
            self.caught_up_at = None;
        }
        if self.caught_up_at.is_none() && group.read_barrier(BARRIER_PATIENCE).await.is_ok() {
            self.caught_up_at = group.status().applied;
            self.hear();
            self.repair.doubt_here();
        }
        true
    }

    /// Whether the plan wants this node to vote in the group.
    async fn is_to_vote(&self, node: NodeId) -> bool {
        let directory = self.parts.store.directory();
        let row = directory.query(|reader| reader.group(self.group)).await;
        row.is_ok_and(|row| row.is_some_and(|row| row.voters.contains(&node)))
    }

    async fn end_catching_up(&mut self, node: NodeId) {
        let is_whole = self.group == GroupId::DIRECTORY || self.repair.is_whole_here();
        let Some(index) = self.caught_up_at.filter(|_| is_whole) else {
            return;
        };
        let op = GroupOp::CaughtUp { replica: node, index };
        if let Err(error) = self.parts.store.propose_group_op(self.group, op).await {
            tracing::debug!(group = %self.group, %error, "caught up, but that could not be written now");
        }
    }

    /// Takes the changes that are there already.
    fn hear(&mut self) {
        loop {
            match self.effects.try_recv() {
                Ok(changes) => self.take(&changes),
                Err(TryRecvError::Lagged(_)) => self.repair.missed_changes(),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Closed) => {
                    self.gone = true;
                    return;
                }
            }
        }
    }

    fn take(&mut self, changes: &[Effect]) {
        for change in changes {
            match change {
                Effect::BlobAdded { blob, holders } => self.repair.added(*blob, holders),
                Effect::BlobReleased(blob) => self.repair.released(*blob),
                Effect::Replaced => self.repair.missed_changes(),
                _ => {}
            }
        }
    }

    /// Waits so long, or until something has happened that makes a step worth while.
    async fn wait(&mut self, pause: Duration) {
        let mut until = Instant::now() + pause;
        while !self.gone && Instant::now() < until {
            tokio::select! {
                biased;
                moved = self.moves.changed() => {
                    self.gone |= moved.is_err();
                    self.mend_at = Instant::now();
                    return;
                }
                heard = self.effects.recv() => match heard {
                    Ok(changes) => {
                        let was_lacking = self.repair.is_anything_lacking();
                        self.take(&changes);
                        if !was_lacking && self.repair.is_anything_lacking() {
                            // A little later: a put that was slow may still come to its end.
                            self.mend_at = self.mend_at.max(Instant::now() + MEND_FIRST);
                            until = until.min(self.mend_at);
                        }
                        if changes.contains(&Effect::Replaced) {
                            return;
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        self.repair.missed_changes();
                        return;
                    }
                    Err(RecvError::Closed) => self.gone = true,
                },
                () = tokio::time::sleep_until(until) => {}
            }
        }
        // Steps that follow each other at once let others go on.
        tokio::task::yield_now().await;
    }
}

/// What makes a look at a group's blobs worth while when it changes: groups, memberships, and who is connected.
type Moves = (Vec<(GroupId, u64)>, Vec<NodeId>);

fn what_moves(parts: &Parts) -> Moves {
    let groups = parts.groups.list();
    let memberships = groups
        .iter()
        .map(|group| (group.group(), group.membership().index))
        .collect();
    let connected = parts
        .transport
        .peers_status()
        .into_iter()
        .filter(|peer| peer.connected)
        .map(|peer| peer.node);
    (memberships, connected.collect())
}

/// Tells every group's task when something has moved: whoever waits for `CaughtUp` or for a copy is not to wait long.
pub(crate) async fn watch_moves(parts: Arc<Parts>) {
    let mut before = what_moves(&parts);
    loop {
        tokio::time::sleep(MOVES_LOOK).await;
        let now = what_moves(&parts);
        if now != before {
            before = now;
            parts.moves.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// How many groups repair at a time.
pub(crate) const TURNS: usize = 4;
/// What is done in the background, or again and again, is followed by a pause of this many times its length.
const COST: u32 = 20;
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The shortest pause between two pages in the background.
const PAGE_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Between two attempts at what is lacking.
const MEND_EVERY: Duration = Duration::from_secs(2);
/// Between the word of a blob that is lacking and the first attempt.
const MEND_FIRST: Duration = Duration::from_millis(500);
/// How long a confirmation by the majority may take.
const BARRIER_PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at memberships and connections.
const MOVES_LOOK: Duration = Duration::from_millis(200);
