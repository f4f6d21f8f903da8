//! Each op is done once: the same op id with the same content is answered with the first outcome, with other content it is
//! refused, and an id that was declared settled is not looked at any more.
//!
//! No memory ends by a clock's word alone: [`settle_stale`] forgets outcomes after long op time, but keeps that their ids
//! were used.

use core_types::limits::{DELIVERY_MEMORY, UNSETTLED_OPS_MAX};
use core_types::mutants::{self, Mutant};
use core_types::{OpId, UnixMillis};

use crate::apply::{ApplyError, millis, tx};
use crate::command::Command;
use crate::keys::{self, Space};
use crate::outcome::{Outcome, Refusal};
use crate::overlay::Overlay;
use crate::rows::{OpRow, OpWindowRow};
use crate::store::{self, ReadError};

/// Whether an op is to be run.
pub(crate) enum Admission {
    /// It is new; the hash of its content.
    New([u8; 32]),
    /// It is not run, and nothing changes.
    Known(Outcome),
    /// It is not run, though what was settled is forgotten.
    Full(Refusal),
}

/// Looks whether an op is new, and forgets what is settled.
pub(crate) fn admit(state: &mut Overlay<'_>, command: &Command, time: UnixMillis) -> Result<Admission, ApplyError> {
    let id = command.op_id;
    let digest = *blake3::hash(&tx::encoded(&command.op)?).as_bytes();
    let mut window: OpWindowRow = store::load(&*state, &keys::op_window(id))?.unwrap_or_default();
    if let Some(row) = store::load::<OpRow>(&*state, &keys::op(id))? {
        let known = if row.digest == digest {
            row.outcome
        } else {
            Outcome::Refused(Refusal::OpIdReused)
        };
        return Ok(Admission::Known(known));
    }
    if id.seq < window.settled_below {
        return Ok(Admission::Known(Outcome::Refused(Refusal::AlreadySettled)));
    }
    // An op cannot declare itself settled: its own answer is still to be asked for.
    let settled_below = command.settled_below.min(id.seq);
    if settled_below > window.settled_below {
        let settled = (
            keys::op(OpId {
                seq: window.settled_below,
                ..id
            }),
            keys::op(OpId {
                seq: settled_below,
                ..id
            }),
        );
        for key in store::keys(&*state, &settled, UNSETTLED_OPS_MAX)? {
            state.delete(key);
            window.remembered = window.remembered.saturating_sub(1);
        }
        window.settled_below = settled_below;
        state.put(keys::op_window(id), tx::encoded(&window)?);
    }
    if window.remembered as usize >= UNSETTLED_OPS_MAX {
        return Ok(Admission::Full(Refusal::Limit("UNSETTLED_OPS_MAX".to_owned())));
    }
    window.time = time;
    state.put(keys::op_window(id), tx::encoded(&window)?);
    Ok(Admission::New(digest))
}

/// Keeps what came of an op.
pub(crate) fn remember(
    state: &mut Overlay<'_>,
    id: OpId,
    digest: [u8; 32],
    outcome: &Outcome,
) -> Result<(), ApplyError> {
    let mut window: OpWindowRow = store::load(&*state, &keys::op_window(id))?.unwrap_or_default();
    window.remembered = window.remembered.saturating_add(1);
    window.greatest = window.greatest.max(id.seq);
    state.put(keys::op_window(id), tx::encoded(&window)?);
    if mutants::is_planted(Mutant::ForgetIdempotency) {
        return Ok(());
    }
    state.put(
        keys::op(id),
        tx::encoded(&OpRow {
            digest,
            outcome: outcome.clone(),
        })?,
    );
    Ok(())
}

/// Forgets outcomes of boots that made no op for [`DELIVERY_MEMORY`], at most `limit`: from then on those ids are answered
/// as settled. Returns how many it forgot.
pub(crate) fn settle_stale(tx: &mut tx::Tx<'_>, limit: usize) -> Result<usize, ApplyError> {
    let due =
        |window: &OpWindowRow| window.remembered > 0 && window.time.saturating_add(millis(DELIVERY_MEMORY)) <= tx.time;
    let mut stale: Vec<(Vec<u8>, OpWindowRow)> = Vec::new();
    let mut rows = 0;
    store::scan(
        tx.view(),
        &Space::OpWindow.range(&[]),
        &mut |key, window: OpWindowRow| {
            if rows < limit && due(&window) {
                rows += window.remembered as usize;
                stale.push((key.to_vec(), window));
            }
            Ok(rows < limit)
        },
    )?;
    let mut forgotten = 0;
    for (key, mut window) in stale {
        let boot = key.get(1..).unwrap_or_default();
        let ops = store::keys(tx.view(), &Space::Op.range(&[boot]), limit - forgotten)?;
        for op in &ops {
            window.settled_below = seq_of(op)?.saturating_add(1);
            window.remembered = window.remembered.saturating_sub(1);
            tx.delete(op.clone());
        }
        if window.remembered == 0 {
            window.settled_below = window.settled_below.max(window.greatest.saturating_add(1));
        }
        forgotten += ops.len();
        tx.put(key, &window)?;
    }
    Ok(forgotten)
}

fn seq_of(op_key: &[u8]) -> Result<u64, ReadError> {
    store::part(op_key, 25).map(u64::from_be_bytes)
}
