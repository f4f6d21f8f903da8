//! The ids of this boot's ops, and which of them are settled.
//!
//! Ids are counted for each group by itself, so that a group that cannot be reached does not keep the memory of others
//! from being let go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_types::{Entropy, GroupId, NodeId, OpId};

/// Gives out op ids.
#[derive(Debug)]
pub struct OpIds {
    node: NodeId,
    boot: u128,
    groups: Mutex<BTreeMap<GroupId, Open>>,
}

#[derive(Debug, Default)]
struct Open {
    last: u64,
    unsettled: BTreeSet<u64>,
}

/// One op id. Dropping it says that nobody will ask for this op again.
#[derive(Debug)]
pub struct OpTicket {
    ids: Arc<OpIds>,
    group: GroupId,
    op_id: OpId,
    settled_below: u64,
}

impl OpIds {
    /// The ids of this start of the node.
    #[must_use]
    pub fn new(node: NodeId, entropy: &dyn Entropy) -> Arc<Self> {
        Arc::new(Self {
            node,
            boot: u128::from_le_bytes(entropy.bytes()),
            groups: Mutex::default(),
        })
    }

    /// This start of the node.
    #[must_use]
    pub fn boot(&self) -> u128 {
        self.boot
    }

    /// The next id for a group.
    #[must_use]
    pub fn next(self: &Arc<Self>, group: GroupId) -> OpTicket {
        let mut groups = self.lock();
        let open = groups.entry(group).or_default();
        open.last += 1;
        let seq = open.last;
        open.unsettled.insert(seq);
        let settled_below = open.unsettled.first().copied().unwrap_or(seq);
        OpTicket {
            ids: Arc::clone(self),
            group,
            op_id: OpId {
                node: self.node,
                boot: self.boot,
                seq,
            },
            settled_below,
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<GroupId, Open>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpTicket {
    /// The id.
    #[must_use]
    pub fn op_id(&self) -> OpId {
        self.op_id
    }

    /// For [`state::Command::settled_below`].
    #[must_use]
    pub fn settled_below(&self) -> u64 {
        self.settled_below
    }
}

impl Drop for OpTicket {
    fn drop(&mut self) {
        if let Some(open) = self.ids.lock().get_mut(&self.group) {
            open.unsettled.remove(&self.op_id.seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_is_settled_when_its_ticket_is_gone_and_all_before_are() {
        let ids = OpIds::new(NodeId(1), &platform::SeededEntropy::new(1));
        let group = GroupId(1);
        let first = ids.next(group);
        let second = ids.next(group);
        assert_eq!(
            (first.op_id().seq, second.op_id().seq, second.settled_below()),
            (1, 2, 1)
        );
        drop(second);
        assert_eq!(ids.next(group).settled_below(), 1);
        drop(first);
        assert_eq!(ids.next(group).settled_below(), 4);
        assert_eq!(ids.next(GroupId(2)).op_id().seq, 1);
    }
}
