//! Groups without replication: each command is applied at once, in memory. For tests of what stands above consensus.
//!
//! The state machine is the real one. A group can be made unavailable, as one without a majority is, and it can be made to
//! hang: what is proposed to it then is committed late, after its maker has given up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use core_types::{GroupId, Incarnation, KvEngine, NodeId};
use state::{Command, Effect, MachineKind, MemoryEngine, Outcome};
use tokio::sync::broadcast;

use crate::consensus::{Consensus, Membership, ProposeError, ReadFn, Unavailable};

/// See the module.
pub struct LocalGroups {
    /// Voters and learners.
    members: Mutex<(Vec<NodeId>, Vec<NodeId>)>,
    groups: BTreeMap<GroupId, Local>,
    cut: Mutex<BTreeSet<GroupId>>,
    /// Groups that hang, with what was proposed to them meanwhile.
    hanging: Mutex<BTreeMap<GroupId, Vec<Command>>>,
}

struct Local {
    engine: MemoryEngine,
    order: RwLock<()>,
    effects: broadcast::Sender<Arc<[Effect]>>,
}

impl LocalGroups {
    /// The directory group and mailbox groups 1 to `mailbox_groups`, all empty.
    #[must_use]
    pub fn new(node: NodeId, mailbox_groups: u32) -> Self {
        let local = || Local {
            engine: MemoryEngine::default(),
            order: RwLock::new(()),
            effects: broadcast::channel(64).0,
        };
        let groups = (0..=mailbox_groups).map(|group| (GroupId(group), local())).collect();
        Self {
            members: Mutex::new((vec![node], Vec::new())),
            groups,
            cut: Mutex::default(),
            hanging: Mutex::default(),
        }
    }

    /// With these voters in every group's membership, so that blobs have places to be. What is proposed is applied here
    /// all the same.
    #[must_use]
    pub fn with_voters(self, voters: Vec<NodeId>) -> Self {
        self.set_members(voters, Vec::new());
        self
    }

    /// From now on every group has these voters and learners.
    pub fn set_members(&self, voters: Vec<NodeId>, learners: Vec<NodeId>) {
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) = (voters, learners);
    }

    /// Makes a group unavailable, or available again.
    pub fn set_available(&self, group: GroupId, available: bool) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        if available {
            cut.remove(&group);
        } else {
            cut.insert(group);
        }
    }

    /// From now on what is proposed to the group is taken, and not decided before its maker's patience ends.
    pub fn hang(&self, group: GroupId) {
        let mut hanging = self.hanging.lock().unwrap_or_else(PoisonError::into_inner);
        hanging.entry(group).or_default();
    }

    /// The group goes on, and first decides what it has taken, in that order; the outcomes, which nobody waits for any more.
    ///
    /// # Errors
    /// [`Unavailable`], when one cannot be applied.
    pub fn go_on(&self, group: GroupId) -> Result<Vec<Outcome>, Unavailable> {
        let mut hanging = self.hanging.lock().unwrap_or_else(PoisonError::into_inner);
        let late = hanging.remove(&group).unwrap_or_default();
        late.iter().map(|command| self.apply(group, command)).collect()
    }

    /// Whether the group hangs; if so it has taken the command.
    fn is_taken(&self, group: GroupId, command: &Command) -> bool {
        let mut hanging = self.hanging.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = hanging.get_mut(&group).map(|taken| taken.push(command.clone()));
        taken.is_some()
    }

    fn apply(&self, group: GroupId, command: &Command) -> Result<Outcome, Unavailable> {
        let local = self.local(group)?;
        let kind = if group == GroupId::DIRECTORY {
            MachineKind::Directory
        } else {
            MachineKind::Mailbox
        };
        let applied = {
            let _order = local.order.write().unwrap_or_else(PoisonError::into_inner);
            let failed = |error: String| Unavailable(group, error);
            let applied = state::apply(&local.engine, kind, command).map_err(|error| failed(error.to_string()))?;
            local
                .engine
                .write(&applied.batch)
                .map_err(|error| failed(error.to_string()))?;
            applied
        };
        let _ = local.effects.send(applied.effects.into());
        Ok(applied.outcome)
    }

    fn local(&self, group: GroupId) -> Result<&Local, Unavailable> {
        self.groups
            .get(&group)
            .ok_or_else(|| Unavailable(group, "no replica here".to_owned()))
    }

    fn majority(&self, group: GroupId) -> Result<&Local, Unavailable> {
        if self.cut.lock().unwrap_or_else(PoisonError::into_inner).contains(&group) {
            return Err(Unavailable(group, "no majority".to_owned()));
        }
        self.local(group)
    }
}

#[async_trait]
impl Consensus for LocalGroups {
    fn groups(&self) -> Vec<GroupId> {
        self.groups.keys().copied().collect()
    }

    async fn propose(&self, group: GroupId, command: Command, timeout: Duration) -> Result<Outcome, ProposeError> {
        self.majority(group)?;
        if self.is_taken(group, &command) {
            tokio::time::sleep(timeout).await;
            return Err(ProposeError::Unknown);
        }
        Ok(self.apply(group, &command)?)
    }

    async fn read_barrier(&self, group: GroupId, _timeout: Duration) -> Result<(), Unavailable> {
        self.majority(group).map(|_| ())
    }

    async fn read(&self, group: GroupId, read: &mut ReadFn<'_>) -> Result<(), Unavailable> {
        let local = self.local(group)?;
        let _order = local.order.read().unwrap_or_else(PoisonError::into_inner);
        read(&local.engine);
        Ok(())
    }

    fn effects(&self, group: GroupId) -> Result<broadcast::Receiver<Arc<[Effect]>>, Unavailable> {
        Ok(self.local(group)?.effects.subscribe())
    }

    fn membership(&self, group: GroupId) -> Result<Membership, Unavailable> {
        self.local(group)?;
        let (voters, learners) = self.members.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Membership {
            incarnation: Incarnation(1),
            index: 0,
            voters,
            learners,
        })
    }
}
