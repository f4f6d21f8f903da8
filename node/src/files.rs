//! The node's own small files: who it is, and what it was told when it joined.
//!
//! Each is written whole: to a temporary file, synced, renamed, and the directory synced.

use core_types::codec::{self, CodecError};
use core_types::{Disk, DiskError, DiskErrorKind, NodeId, OpenMode, SiteId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What a node knows of its cluster before it has the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seed {
    /// The nodes: id, `host:port` of the cluster port, public key.
    pub(crate) nodes: Vec<(NodeId, String, [u8; 32])>,
}

/// What the first start of the first node has to do. The file is there until it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Founding {
    pub(crate) cluster: u128,
    pub(crate) ca_certificate: Vec<u8>,
    pub(crate) ca_key: Vec<u8>,
    pub(crate) site: SiteId,
    pub(crate) site_name: String,
    pub(crate) node_name: String,
    pub(crate) node_key: [u8; 32],
    pub(crate) address: String,
    pub(crate) mailbox_groups: u32,
}

/// Why a small file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// It does not decode.
    #[error("{0}: {1}")]
    Damaged(String, CodecError),
}

/// The node's key and certificate, as `transport::NodeIdentity` encodes them.
pub(crate) const IDENTITY: &str = "identity";
/// [`Seed`]
pub(crate) const SEED: &str = "seed";
/// [`Founding`]
pub(crate) const FOUNDING: &str = "founding";

/// How far the logs of the other nodes were: [`crate::fence`].
pub(crate) const REMEMBERED: &str = "remembered";

pub(crate) fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let temporary = format!("{path}.new");
    match disk.remove(&temporary) {
        Err(error) if error.kind != DiskErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.open(&temporary, OpenMode::CreateNew)?;
    file.write_at(0, bytes)?;
    file.sync_data()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir("")
}

pub(crate) fn read(disk: &dyn Disk, path: &str) -> Result<Option<Vec<u8>>, DiskError> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.len()?.min(BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(0, &mut bytes)?;
    Ok(Some(bytes))
}

pub(crate) fn write_value<T: Serialize>(disk: &dyn Disk, path: &str, value: &T) -> Result<(), FileError> {
    let bytes = codec::encode(VERSION, value, BYTES_MAX).map_err(|error| FileError::Damaged(path.to_owned(), error))?;
    Ok(write(disk, path, &bytes)?)
}

pub(crate) fn read_value<T: DeserializeOwned>(disk: &dyn Disk, path: &str) -> Result<Option<T>, FileError> {
    let Some(bytes) = read(disk, path)? else {
        return Ok(None);
    };
    let value = codec::decode(VERSION, &bytes, BYTES_MAX);
    value
        .map(Some)
        .map_err(|error| FileError::Damaged(path.to_owned(), error))
}

pub(crate) fn remove(disk: &dyn Disk, path: &str) -> Result<(), DiskError> {
    disk.remove(path)?;
    disk.sync_dir("")
}

const VERSION: u8 = 1;
/// Octets of a small file.
const BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use platform::FaultyDisk;

    #[test]
    fn a_small_file_is_the_old_one_or_the_new_one_after_a_crash() {
        for seed in 0..40 {
            let disk = FaultyDisk::new();
            write(&disk, "f", b"old").unwrap();
            let second = write(&disk, "f", b"newer");
            disk.crash(seed);
            assert!(second.is_ok());
            assert_eq!(read(&disk, "f").unwrap().as_deref(), Some(&b"newer"[..]));
        }
        assert_eq!(read(&FaultyDisk::new(), "f").unwrap(), None);
    }

    #[test]
    fn values_round_trip_and_damage_is_named() {
        let disk = FaultyDisk::new();
        let seed = Seed {
            nodes: vec![(NodeId(1), "h:1".to_owned(), [1; 32])],
        };
        write_value(&disk, SEED, &seed).unwrap();
        assert_eq!(read_value::<Seed>(&disk, SEED).unwrap(), Some(seed));
        disk.flip_bit(SEED, 0, 0);
        assert!(
            read_value::<Seed>(&disk, SEED)
                .unwrap_err()
                .to_string()
                .starts_with("seed: unknown version")
        );
    }
}
