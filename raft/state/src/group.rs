//! Reading what every group's state holds of the group itself, whatever it is for.

use core_types::{KvRead, NodeId, Slot, UnixMillis};

use crate::digest::Digest;
use crate::keys::{self, Space};
use crate::rows::{GroupMetaRow, ReplicaRow};
use crate::store::{self, ReadError};

/// Reads any group's state. Every method fails with [`ReadError`] when the engine does or the state is damaged.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    view: &'a dyn KvRead,
}

#[allow(clippy::missing_errors_doc, reason = "said once, at the type")]
impl<'a> Reader<'a> {
    /// Reads this view, which shows the group's logical keys only.
    #[must_use]
    pub fn new(view: &'a dyn KvRead) -> Self {
        Self { view }
    }

    /// The group's time: the greatest op time so far. `None` before the first op.
    pub fn time(&self) -> Result<Option<UnixMillis>, ReadError> {
        Ok(self.meta()?.time)
    }

    /// The level at which `apply` works; 0 before any entry said so.
    pub fn feature_level(&self) -> Result<u32, ReadError> {
        Ok(self.meta()?.feature_level)
    }

    /// Which replica holds which slot.
    pub fn slots(&self) -> Result<Vec<(Slot, NodeId)>, ReadError> {
        let mut slots = Vec::new();
        store::scan(self.view, &Space::Slot.range(&[]), &mut |key, node| {
            let [slot] = store::part(key, 1)?;
            slots.push((Slot(slot), node));
            Ok(true)
        })?;
        Ok(slots)
    }

    /// The slot of a replica.
    pub fn slot_of(&self, replica: NodeId) -> Result<Option<Slot>, ReadError> {
        Ok(self
            .slots()?
            .into_iter()
            .find(|(_, node)| *node == replica)
            .map(|(slot, _)| slot))
    }

    /// What the log says of a replica; all zero when it says nothing.
    pub fn replica(&self, replica: NodeId) -> Result<ReplicaRow, ReadError> {
        Ok(store::load(self.view, &keys::replica(replica))?.unwrap_or_default())
    }

    /// The digest of all rows.
    pub fn digest(&self) -> Result<Digest, ReadError> {
        crate::digest::stored(self.view)
    }

    fn meta(&self) -> Result<GroupMetaRow, ReadError> {
        Ok(store::load(self.view, &keys::meta())?.unwrap_or_default())
    }
}
