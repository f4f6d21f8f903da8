//! Whether an index agrees with itself: what a power loss left of it may not, although the engine opens it.
//!
//! Beside the rows of each replica stands their digest, written in the same batch as how far they go. Both are made anew here
//! from all rows. What does not agree is a mixture of states, and no part of the index is trusted then.
//!
//! Costs one read of everything. Not here: what happens with an index that does not agree ([`super::SledEngine`]).

use core_types::{KvError, KvRead};

use crate::generation::StoredRows;
use crate::machine::MachineRow;

/// # Errors
/// [`KvError::Damaged`] when rows and digest of a replica do not belong together; errors of the engine.
pub(crate) fn verify(engine: &dyn KvRead) -> Result<(), KvError> {
    let mut last = None;
    while let Some(rows) = StoredRows::next(engine, last.as_ref())? {
        verify_rows(&rows).map_err(|reason| KvError::Damaged(format!("replica {:02x?}: {reason}", rows.name())))?;
        last = Some(rows);
    }
    Ok(())
}

fn verify_rows(rows: &StoredRows<'_>) -> Result<(), String> {
    let expected = match rows.machine_row().map_err(|error| error.to_string())? {
        None => MachineRow::default(),
        Some(bytes) => MachineRow::decode(&bytes).map_err(|error| error.to_string())?,
    };
    let stored = state::digest::stored(rows).map_err(|error| error.to_string())?;
    let recomputed = state::digest::recomputed(rows).map_err(|error| error.to_string())?;
    if recomputed == stored && stored == expected.digest {
        return Ok(());
    }
    Err("the rows are not those that were written together".to_owned())
}
