//! Entries that a group writes about itself.

use core_types::limits::SLOTS_MAX;
use core_types::{NodeId, Slot};

use crate::apply::ApplyError;
use crate::apply::tx::{Halt, Tx, refuse};
use crate::command::GroupOp;
use crate::group::Reader;
use crate::keys;
use crate::outcome::{Outcome, Refusal};
use crate::rows::{GroupMetaRow, ReplicaRow};

/// The highest level at which this program's `apply` works.
pub const FEATURE_LEVEL: u32 = 1;

pub(crate) fn apply(tx: &mut Tx<'_>, op: &GroupOp) -> Result<Outcome, Halt> {
    match op {
        GroupOp::ReplicaLost { replica, episode } => {
            let row = self::replica(tx, *replica)?;
            let lost_episode = row.lost_episode.max(*episode);
            tx.put(keys::replica(*replica), &ReplicaRow { lost_episode, ..row })?;
        }
        GroupOp::CaughtUp { replica, index } => {
            let row = self::replica(tx, *replica)?;
            let caught_up = row.caught_up.max(*index);
            tx.put(keys::replica(*replica), &ReplicaRow { caught_up, ..row })?;
        }
        GroupOp::FeatureLevel { level } => raise_level(tx, *level)?,
        GroupOp::AssignSlot { replica } => assign_slot(tx, *replica)?,
        GroupOp::FreeSlot { replica } => {
            if let Some(slot) = Reader::new(tx.view()).slot_of(*replica)? {
                tx.delete(keys::slot(slot));
            }
            tx.delete(keys::replica(*replica));
        }
    }
    Ok(Outcome::Done)
}

fn raise_level(tx: &mut Tx<'_>, level: u32) -> Result<(), Halt> {
    if level > FEATURE_LEVEL {
        // The others would go on by rules that this program does not know.
        return Err(ApplyError::UnknownOp(format!("feature level {level}, this program knows {FEATURE_LEVEL}")).into());
    }
    let meta: GroupMetaRow = tx.load(&keys::meta())?.unwrap_or_default();
    tx.put(
        keys::meta(),
        &GroupMetaRow {
            feature_level: meta.feature_level.max(level),
            ..meta
        },
    )?;
    Ok(())
}

fn assign_slot(tx: &mut Tx<'_>, replica: NodeId) -> Result<(), Halt> {
    let slots = Reader::new(tx.view()).slots()?;
    if slots.iter().any(|(_, node)| *node == replica) {
        return Ok(());
    }
    let free = (1..=SLOTS_MAX)
        .map(Slot)
        .find(|slot| slots.iter().all(|(taken, _)| taken != slot));
    let Some(slot) = free else {
        return refuse(Refusal::Limit("SLOTS_MAX".to_owned()));
    };
    tx.put(keys::slot(slot), &replica)?;
    Ok(())
}

fn replica(tx: &Tx<'_>, replica: NodeId) -> Result<ReplicaRow, Halt> {
    Ok(Reader::new(tx.view()).replica(replica)?)
}
