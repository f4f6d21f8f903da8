//! What a replica does when it is asked as the leader.

use std::collections::BTreeSet;
use std::time::Duration;

use core_types::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::impls::ProgressResponder;
use openraft::{ChangeMembers, EmptyNode, ReadPolicy};
use tokio::time::{Instant, timeout_at};

use super::{Ask, Inner};
use crate::config::{GroupError, Proposed};
use crate::frame::{Answer, Attempt, Change, Exit};
use crate::receipts;
use crate::space;
use crate::types::EncodedCommand;

impl Inner {
    pub(super) async fn answer(&self, ask: Ask, deadline: Instant) -> Answer {
        match ask {
            Ask::Propose(data) => Answer::Proposed(self.propose_here(data, deadline).await),
            Ask::ReadIndex => Answer::ReadIndex(self.read_here(deadline).await),
            Ask::Change(change) => Answer::Changed(self.change_here(change, deadline).await),
        }
    }

    /// `None` when this replica leads, as far as it knows.
    fn other_leader(&self) -> Option<Option<u64>> {
        let leader = self.raft.metrics().borrow_watched().current_leader;
        (leader != Some(self.node().0)).then_some(leader)
    }

    async fn propose_here(&self, data: EncodedCommand, deadline: Instant) -> Attempt<Proposed> {
        let command = match data.decode() {
            Ok(command) => command,
            Err(error) => return Attempt::Refused(GroupError::Refused(error.to_string())),
        };
        if let Some(other) = self.other_leader() {
            return Attempt::NotLeader(other);
        }
        if !space::makes_room(&command) && self.space.is_low().await {
            return Attempt::Refused(GroupError::Full);
        }
        let receiver = {
            let _gate = self.gate.read().await;
            if let Some(other) = self.other_leader() {
                return Attempt::NotLeader(other);
            }
            if let Some(receipts) = receipts::of(&command) {
                let membership = self.membership();
                let checked = receipts::check(receipts, self.replica.incarnation, membership.index, &membership.voters);
                if let Err(error) = checked {
                    return Attempt::Refused(error);
                }
                let mut skipped = Self::locked(&self.skipped);
                skipped.extend(receipts.skipped.iter().filter(|node| membership.voters.contains(node)));
                skipped.retain(|node| membership.voters.contains(node) && !receipts.nodes.contains(node));
            }
            let (responder, receiver) = ProgressResponder::complete_only();
            if self.raft.client_write_ff(data, Some(responder)).await.is_err() {
                return Attempt::NotLeader(None);
            }
            receiver
        };
        match timeout_at(deadline, receiver).await {
            Err(_) | Ok(Err(_)) => Attempt::Unknown,
            Ok(Ok(Ok(response))) => {
                let index = response.log_id.index;
                self.wait_for_all_voters(index).await;
                match response.data.0 {
                    Some(outcome) => Attempt::Done(Proposed { outcome, index }),
                    None => Attempt::Unknown,
                }
            }
            Ok(Ok(Err(ClientWriteError::ForwardToLeader(forward)))) => {
                Attempt::NotLeader(forward.leader_id.filter(|leader| *leader != self.node().0))
            }
            Ok(Ok(Err(ClientWriteError::LogEntryDiscarded(_)))) => Attempt::Unknown,
            Ok(Ok(Err(error))) => Attempt::Refused(GroupError::Refused(error.to_string())),
        }
    }

    /// A commit is acknowledged when all live voters have it, or a little later: a survivor then knows what was acknowledged.
    async fn wait_for_all_voters(&self, index: u64) {
        let deadline = Instant::now() + self.config.all_voters_wait;
        let mut metrics = self.raft.metrics();
        loop {
            let is_everywhere = {
                let now = metrics.borrow_and_update();
                let has = |voter: u64| {
                    now.replication.as_ref().is_none_or(|replication| {
                        replication
                            .get(&voter)
                            .is_some_and(|matched| matched.is_some_and(|id| id.index >= index))
                    })
                };
                now.membership_config
                    .membership()
                    .voter_ids()
                    .filter(|voter| *voter != self.node().0 && self.network.rpc.is_reachable(NodeId(*voter)))
                    .all(has)
            };
            if is_everywhere || !matches!(timeout_at(deadline, metrics.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// The least index that need not be applied for a read that begins now.
    pub(super) async fn read_here(&self, deadline: Instant) -> Attempt<u64> {
        if let Some(other) = self.other_leader() {
            return Attempt::NotLeader(other);
        }
        match timeout_at(deadline, self.raft.get_read_log_id(ReadPolicy::ReadIndex)).await {
            Err(_) => Attempt::Unknown,
            Ok(Ok((read, _))) => Attempt::Done(read.index().saturating_add(1)),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Attempt::NotLeader(forward.leader_id.filter(|leader| *leader != self.node().0))
            }
            Ok(Err(_)) => Attempt::NotLeader(None),
        }
    }

    async fn change_here(&self, change: Change, deadline: Instant) -> Attempt<()> {
        if let Some(other) = self.other_leader() {
            return Attempt::NotLeader(other);
        }
        match change {
            Change::Leader(to) => self.hand_over(to, deadline).await,
            Change::AddLearner(node) => {
                let _gate = self.gate.write().await;
                let added = self.raft.add_learner(node, EmptyNode::new(), false);
                match timeout_at(deadline, added).await {
                    Ok(result) => self.changed(result, deadline).await,
                    Err(_) => Attempt::Unknown,
                }
            }
            Change::Voters(voters) => {
                let change = ChangeMembers::ReplaceAllVoters(voters);
                self.change_members(change, false, None, deadline).await
            }
            Change::VotersKeeping { voters, after } => {
                let change = ChangeMembers::ReplaceAllVoters(voters);
                self.change_members(change, true, Some(after), deadline).await
            }
            Change::RemoveLearners(learners) => {
                let change = ChangeMembers::RemoveNodes(learners);
                self.change_members(change, false, None, deadline).await
            }
        }
    }

    /// With `keeping`, who voted before and does not any more follows; with `after`, only while that membership is in force.
    async fn change_members(
        &self,
        change: ChangeMembers<u64, EmptyNode>,
        keeping: bool,
        after: Option<u64>,
        deadline: Instant,
    ) -> Attempt<()> {
        let _gate = self.gate.write().await;
        let index = self.membership().index;
        if after.is_some_and(|after| after != index) {
            return Attempt::Refused(GroupError::StaleMembership {
                incarnation: self.replica.incarnation,
                index,
            });
        }
        match timeout_at(deadline, self.raft.change_membership(change, keeping)).await {
            Ok(result) => self.changed(result, deadline).await,
            Err(_) => Attempt::Unknown,
        }
    }

    /// Takes a node whose replica cannot go on out of the members, by a committed change that the others make without it.
    pub(super) async fn take_out(&self, node: NodeId, deadline: Instant) -> Answer {
        let attempt = self.take_out_here(node, deadline).await;
        let voters = self.membership().voters.into_iter().map(|voter| voter.0).collect();
        Answer::TakenOut { attempt, voters }
    }

    async fn take_out_here(&self, node: NodeId, deadline: Instant) -> Attempt<Exit> {
        if let Some(other) = self.other_leader() {
            return Attempt::NotLeader(other);
        }
        let _gate = self.gate.write().await;
        let membership = self.membership();
        let gone = BTreeSet::from([node.0]);
        let change = if membership.voters.contains(&node) {
            Some(ChangeMembers::RemoveVoters(gone))
        } else if membership.learners.contains(&node) {
            Some(ChangeMembers::RemoveNodes(gone))
        } else {
            None
        };
        if let Some(change) = change {
            tracing::warn!(group = self.replica.group.0, %node, "a replica that cannot go on is taken out");
            let changed = match timeout_at(deadline, self.raft.change_membership(change, false)).await {
                Ok(result) => self.changed(result, deadline).await,
                Err(_) => Attempt::Unknown,
            };
            match changed {
                Attempt::Done(()) => {}
                Attempt::NotLeader(other) => return Attempt::NotLeader(other),
                Attempt::Unknown => return Attempt::Unknown,
                Attempt::Refused(error) => return Attempt::Refused(error),
            }
        }
        // Where an earlier request or leader took it out, that may not be committed yet. A read index is confirmed by a
        // majority and includes this leader's first entry, and what is applied is committed.
        let index = self.membership().index;
        match self.read_here(deadline).await {
            Attempt::Done(_) => {}
            Attempt::NotLeader(other) => return Attempt::NotLeader(other),
            Attempt::Unknown | Attempt::Refused(_) => return Attempt::Unknown,
        }
        if self.wait_applied(index.saturating_add(1), deadline).await.is_err() {
            return Attempt::Unknown;
        }
        let membership = self.membership();
        if membership.voters.contains(&node) || membership.learners.contains(&node) {
            // Added again since, as a learner: what it is told must follow that.
            return Attempt::Unknown;
        }
        let vote = self.raft.metrics().borrow_watched().vote;
        Attempt::Done(Exit {
            vote,
            index: membership.index,
        })
    }

    async fn changed(
        &self,
        result: Result<
            openraft::raft::ClientWriteResponse<crate::types::TypeConfig>,
            RaftError<crate::types::TypeConfig, ClientWriteError<crate::types::TypeConfig>>,
        >,
        deadline: Instant,
    ) -> Attempt<()> {
        match result {
            Ok(response) => {
                // The gate opens when the new membership is the one that receipts are checked against.
                let mut metrics = self.raft.metrics();
                while self.membership().index < response.log_id.index {
                    if !matches!(timeout_at(deadline, metrics.changed()).await, Ok(Ok(()))) {
                        break;
                    }
                }
                Attempt::Done(())
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Attempt::NotLeader(forward.leader_id.filter(|leader| *leader != self.node().0))
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => Attempt::Unknown,
            Err(RaftError::APIError(error)) => Attempt::Refused(GroupError::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Attempt::NotLeader(None),
        }
    }

    async fn hand_over(&self, to: u64, deadline: Instant) -> Attempt<()> {
        if to == self.node().0 {
            return Attempt::Done(());
        }
        let voters: BTreeSet<NodeId> = self.membership().voters;
        if !voters.contains(&NodeId(to)) {
            return Attempt::Refused(GroupError::Refused(format!("node {to} is not a voter")));
        }
        if self.raft.trigger().transfer_leader(to).await.is_err() {
            return Attempt::NotLeader(None);
        }
        let mut metrics = self.raft.metrics();
        loop {
            if metrics.borrow_and_update().current_leader == Some(to) {
                return Attempt::Done(());
            }
            let wait = deadline.min(Instant::now() + Duration::from_secs(1));
            if !matches!(timeout_at(wait, metrics.changed()).await, Ok(Ok(()))) {
                return Attempt::Unknown;
            }
        }
    }
}
