//! How many rows refer to a blob. The structure of a message lives as long as its blob is referred to, and is kept once.

use core_types::{BlobId, NodeId};

use crate::apply::tx::{Halt, Tx};
use crate::keys;
use crate::outcome::Effect;
use crate::store;

/// One more row refers to the blob. `holders`: who is said to hold it; `structure`: what its message looks like, empty if
/// that is not known.
pub(crate) fn refer(tx: &mut Tx<'_>, blob: BlobId, holders: &[NodeId], structure: &[u8]) -> Result<(), Halt> {
    let count: u64 = tx.load(&keys::blob(blob))?.unwrap_or(0);
    tx.put(keys::blob(blob), &count.saturating_add(1))?;
    if count == 0 {
        tx.effect(Effect::BlobAdded {
            blob,
            holders: holders.to_vec(),
        });
    }
    if !structure.is_empty() && !tx.exists(&keys::structure(blob))? {
        tx.put(keys::structure(blob), serde_bytes::Bytes::new(structure))?;
    }
    Ok(())
}

/// One row less refers to the blob.
pub(crate) fn release(tx: &mut Tx<'_>, blob: BlobId) -> Result<(), Halt> {
    let key = keys::blob(blob);
    let count: u64 = tx.load(&key)?.unwrap_or(0);
    match count {
        0 => return Err(store::corrupt(&key, "a reference too few").into()),
        1 => {
            tx.delete(key);
            tx.delete(keys::structure(blob));
            tx.effect(Effect::BlobReleased(blob));
        }
        _ => tx.put(key, &(count - 1))?,
    }
    Ok(())
}
