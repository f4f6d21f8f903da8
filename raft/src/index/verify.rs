//! Whether an index agrees with itself: what a power loss left of it may not, although the engine opens it.
//!
//! Beside the rows of each replica stands their digest, written in the same batch as how far they go. Both are made anew here
//! from all rows. What does not agree is a mixture of states, and no part of the index is trusted then.
//!
//! Costs one read of everything. Not here: what happens with an index that does not agree ([`super::SledEngine`]).

use core_types::{KvError, KvRead};
use state::ReadError;

use crate::generation::StoredRows;
use crate::machine::MachineRow;

/// # Errors
/// [`KvError::Damaged`] when rows and digest of a replica do not belong together; errors of the engine.
pub(crate) fn verify(engine: &dyn KvRead) -> Result<(), KvError> {
    let mut last = None;
    while let Some(rows) = StoredRows::next(engine, last.as_ref())? {
        let damaged = |reason: String| KvError::Damaged(format!("replica {:02x?}: {reason}", rows.name()));
        let expected = match rows.machine_row()? {
            None => MachineRow::default(),
            Some(bytes) => MachineRow::decode(&bytes).map_err(|error| damaged(error.to_string()))?,
        };
        let of_engine = |error| match error {
            ReadError::Kv(error) => error,
            ReadError::Corrupt(reason) => damaged(reason),
        };
        let stored = state::digest::stored(&rows).map_err(of_engine)?;
        let recomputed = state::digest::recomputed(&rows).map_err(of_engine)?;
        if recomputed != stored || stored != expected.digest {
            return Err(damaged("the rows are not those that were written together".to_owned()));
        }
        last = Some(rows);
    }
    Ok(())
}
