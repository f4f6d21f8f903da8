//! Repair of a replica that cannot go on: its votes are lost or its state is wrong, so it must neither vote nor acknowledge.
//!
//! 1. The replica is closed and marked, durably: from here on it answers nothing, also after a restart.
//! 2. The group's leader takes it out of the members. That is a committed change, made by a majority of the voters of before
//!    without this replica, which says nothing.
//! 3. Only then is everything of it removed here, and an empty replica opened. Its log begins with the leader's vote: what it
//!    has forgotten it gave in terms up to that one, or to nobody who can still win by it.
//! 4. It reads the group's log from the beginning, and with it members of long ago, of which it was one: of a group that one
//!    node founded the only one. Therefore it neither votes nor asks for votes before it has applied the change of 2.
//! 5. It is added again, as any other new replica is: learner, caught up, voter (not here).
//!
//! The argument why this loses nothing stands in `docs/invariants.md`. A crash anywhere leaves the mark, and the repair begins
//! again at 2.
//!
//! Not here: finding out that a replica is damaged ([`crate::log`], the comparison of digests), and when to try again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, MutexGuard, PoisonError};

use core_types::{GroupId, Incarnation, NodeId};
use state::MachineKind;
use transport::{CallError, Class};

use crate::blocking;
use crate::config::{OpenError, RepairError};
use crate::frame::{Answer, Attempt, Exit, Request};
use crate::group::Group;
use crate::groups::{Groups, Inner};
use crate::log::{GroupKey, Record};
use crate::log_store;
use crate::network::Network;
use crate::replica::Ties;
use crate::snapshot;

/// A replica that closed while it was open, and is to be repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ailing {
    /// Which group.
    pub group: GroupId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// What its state machine is.
    pub kind: MachineKind,
    /// What is wrong.
    pub reason: String,
}

/// What the others said when they were asked.
#[derive(Default)]
struct Heard {
    /// Who votes, as far as somebody knows.
    voters: BTreeSet<u64>,
    /// Those that answered.
    answered: BTreeSet<u64>,
    refused: Option<String>,
}

impl Groups {
    /// The replicas here that closed and are to be repaired.
    #[must_use]
    pub fn ailing(&self) -> Vec<Ailing> {
        let of = |group: Group| {
            let replica = &group.inner.replica;
            Some(Ailing {
                group: replica.group,
                incarnation: replica.incarnation,
                kind: replica.kind,
                reason: replica.fault()?.to_owned(),
            })
        };
        self.list().into_iter().filter_map(of).collect()
    }

    /// Has no replica of this node take part any more before it was repaired: the disk is an older image, of which others
    /// remember that it was in start `boot`. What is open closes and is [`Groups::ailing`]; nothing else is opened.
    ///
    /// # Errors
    /// [`OpenError`]. It is to be asked again then.
    pub async fn fence(&self, reason: &str, boot: u64) -> Result<(), OpenError> {
        let _opening = self.inner.opening.lock().await;
        let log = &self.inner.dependencies.log;
        for key in log.groups() {
            let (disk, text) = (Arc::clone(&self.inner.dependencies.disk), reason.to_owned());
            blocking::run(&*self.inner.dependencies.pool, move || {
                snapshot::mark(&*disk, key.group, key.incarnation, &text)
            })
            .await?;
            if let Some(open) = self.group(key.group) {
                open.inner.replica.close_for_repair(reason);
            }
        }
        log.fence(boot).await.map_err(|error| OpenError::Log {
            group: GroupId::DIRECTORY,
            detail: error.to_string(),
        })
    }

    /// Repairs a replica that is [`Groups::ailing`], or that could not be opened ([`OpenError::NeedsRepair`]), from the
    /// others: has it taken out of its group, removes what is here of it, and opens an empty one. One attempt; it may be
    /// repeated after any error. `others` are asked for the group's leader.
    ///
    /// # Errors
    /// [`RepairError`]. The replica takes no part in its group then.
    pub async fn repair_group(&self, ailing: &Ailing, others: &[NodeId]) -> Result<Group, RepairError> {
        let Ailing {
            group,
            incarnation,
            kind,
            ..
        } = *ailing;
        let ties = self.inner.set_aside(ailing).await?;
        let exit = self.inner.ask_to_be_taken_out(group, incarnation, others).await?;
        let _opening = self.inner.opening.lock().await;
        self.inner.begin_anew(GroupKey { group, incarnation }, exit).await?;
        let opened = self.inner.open(group, incarnation, kind, ties).await?;
        self.inner.locked_aside().remove(&group);
        tracing::info!(
            group = group.0,
            "replica begun anew; it follows as soon as it is added again"
        );
        opened.inner.replica.publish_replaced();
        Ok(opened)
    }
}

impl Inner {
    /// Has the replica take no part from here on, whatever happens; gives what outlives it.
    async fn set_aside(&self, ailing: &Ailing) -> Result<Ties, OpenError> {
        let _opening = self.opening.lock().await;
        let Ailing { group, incarnation, .. } = *ailing;
        let open = self.group(group);
        if open.is_some_and(|open| open.inner.replica.fault().is_none()) {
            return Err(OpenError::IsOpen(group));
        }
        let (disk, reason) = (Arc::clone(&self.dependencies.disk), ailing.reason.clone());
        blocking::run(&*self.dependencies.pool, move || {
            snapshot::mark(&*disk, group, incarnation, &reason)
        })
        .await?;
        let closed = self.close_group(group).await;
        let mut aside = self.locked_aside();
        // Kept over attempts that fail: whoever watches the group hears nothing else of it.
        let ties = match closed {
            Some(closed) => Ties {
                may_pass: Arc::default(),
                ..closed.inner.replica.ties.clone()
            },
            None => match aside.remove(&group) {
                Some(ties) => ties,
                None => Ties::new(self.failed.clone()),
            },
        };
        aside.insert(group, ties.clone());
        Ok(ties)
    }

    fn locked_aside(&self) -> MutexGuard<'_, BTreeMap<GroupId, Ties>> {
        self.set_aside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks until somebody who leads the group has committed that this node is no member.
    async fn ask_to_be_taken_out(
        &self,
        group: GroupId,
        incarnation: Incarnation,
        others: &[NodeId],
    ) -> Result<Exit, RepairError> {
        let network = Network {
            rpc: Arc::clone(&self.dependencies.rpc),
            group,
            incarnation,
            timeout: self.config.rpc_timeout,
            pool: Arc::clone(&self.dependencies.pool),
        };
        let timeout = self.config.request_timeout;
        let patience = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) * 9 / 10;
        let mut heard = Heard::default();
        let mut asked = BTreeSet::new();
        let mut left: VecDeque<NodeId> = others.iter().copied().collect();
        while let Some(other) = left.pop_front() {
            if other == self.config.node || !asked.insert(other) {
                continue;
            }
            let request = Request::TakeOut { patience };
            let attempt = match network.call(other, Class::Control, request, timeout).await {
                Ok(Answer::TakenOut { attempt, voters }) => {
                    heard.answered.insert(other.0);
                    // Whoever leads knows best, and is asked last.
                    if !voters.is_empty() {
                        heard.voters = voters;
                    }
                    attempt
                }
                Ok(_) | Err(CallError::NoAnswer(_)) => Attempt::Unknown,
                Err(_) => Attempt::NotLeader(None),
            };
            match attempt {
                Attempt::Done(exit) => return Ok(exit),
                Attempt::NotLeader(leader) => left.extend(leader.map(NodeId)),
                Attempt::Refused(error) => heard.refused = Some(error.to_string()),
                Attempt::Unknown => {}
            }
        }
        Err(RepairError::NotTakenOut {
            group,
            detail: heard.wanting(self.config.node),
        })
    }

    /// Removes everything of the replica, whose log then begins with the vote of the leader that took it out.
    async fn begin_anew(&self, key: GroupKey, exit: Exit) -> Result<(), OpenError> {
        let disk = Arc::clone(&self.dependencies.disk);
        blocking::run(&*self.dependencies.pool, move || {
            snapshot::note_behind(&*disk, key.group, key.incarnation, exit.index)
        })
        .await?;
        let failed = |detail: String| OpenError::Log {
            group: key.group,
            detail,
        };
        let vote = log_store::encode_vote(&exit.vote).map_err(|error| failed(error.to_string()))?;
        self.dependencies
            .log
            .write(key, vec![Record::Created, Record::Vote(vote)])
            .await
            .map_err(|error| failed(error.to_string()))?;
        // The mark goes last: until then the next start begins the repair again.
        self.clear(key.group, key.incarnation).await
    }
}

impl Heard {
    /// Why nobody did it.
    fn wanting(&self, node: NodeId) -> String {
        let others: Vec<u64> = self.voters.iter().copied().filter(|voter| *voter != node.0).collect();
        let needed = self.voters.len() / 2 + 1;
        let is_voter = self.voters.contains(&node.0);
        let names =
            |nodes: &mut dyn Iterator<Item = u64>| nodes.map(|node| node.to_string()).collect::<Vec<_>>().join(", ");
        if let Some(refused) = &self.refused {
            return format!("the leader did not take it out: {refused}");
        }
        if self.voters.is_empty() {
            return "no other node that answers has a replica of the group".to_owned();
        }
        let all = names(&mut self.voters.iter().copied());
        if is_voter && others.len() < needed {
            return format!(
                "its voters are nodes {all}, which without this one are no majority: it stays closed, and only a recovery of \
                 the group by hand (`group recover`, not built yet) brings it back"
            );
        }
        let answered: Vec<u64> = others
            .iter()
            .copied()
            .filter(|voter| self.answered.contains(voter))
            .collect();
        if answered.len() < needed.min(others.len()) {
            return format!(
                "its voters are nodes {all}; {needed} of them other than this one are needed, and only these answer for \
                 the group: [{}]",
                names(&mut answered.into_iter())
            );
        }
        format!("its voters are nodes {all}, and none of them leads the group just now")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(voters: &[u64], answered: &[u64]) -> Heard {
        Heard {
            voters: voters.iter().copied().collect(),
            answered: answered.iter().copied().collect(),
            refused: None,
        }
    }

    #[test]
    fn what_is_wanting_is_said_precisely() {
        let says = |heard: Heard, text: &str| {
            let said = heard.wanting(NodeId(3));
            assert!(said.contains(text), "{said}");
        };
        says(heard(&[], &[]), "no other node that answers has a replica");
        says(heard(&[3], &[1]), "without this one are no majority");
        says(
            heard(&[1, 3], &[1]),
            "nodes 1, 3, which without this one are no majority",
        );
        says(
            heard(&[1, 2, 3], &[1]),
            "2 of them other than this one are needed, and only these answer for the group: [1]",
        );
        says(heard(&[1, 2, 3], &[1, 2]), "none of them leads the group just now");
        let refused = Heard {
            refused: Some("a change is under way".to_owned()),
            ..heard(&[1, 2, 3], &[1, 2])
        };
        says(refused, "a change is under way");
    }
}
