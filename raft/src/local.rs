//! Groups without replication: each command is applied at once, in memory. For tests of what stands above consensus.
//!
//! The state machine is the real one. A group can be made unavailable, as one without a majority is.

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
    voters: Vec<NodeId>,
    groups: BTreeMap<GroupId, Local>,
    cut: Mutex<BTreeSet<GroupId>>,
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
            voters: vec![node],
            groups,
            cut: Mutex::default(),
        }
    }

    /// With these voters in every group's membership, so that blobs have places to be. What is proposed is applied here
    /// all the same.
    #[must_use]
    pub fn with_voters(self, voters: Vec<NodeId>) -> Self {
        Self { voters, ..self }
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

    async fn propose(&self, group: GroupId, command: Command, _timeout: Duration) -> Result<Outcome, ProposeError> {
        let local = self.majority(group)?;
        let kind = if group == GroupId::DIRECTORY {
            MachineKind::Directory
        } else {
            MachineKind::Mailbox
        };
        let applied = {
            let _order = local.order.write().unwrap_or_else(PoisonError::into_inner);
            let failed = |error: String| Unavailable(group, error);
            let applied = state::apply(&local.engine, kind, &command).map_err(|error| failed(error.to_string()))?;
            local
                .engine
                .write(&applied.batch)
                .map_err(|error| failed(error.to_string()))?;
            applied
        };
        let _ = local.effects.send(applied.effects.into());
        Ok(applied.outcome)
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
        Ok(Membership {
            incarnation: Incarnation(1),
            index: 0,
            voters: self.voters.clone(),
            learners: Vec::new(),
        })
    }
}
