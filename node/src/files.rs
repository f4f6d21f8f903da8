//! The node's own small files: who it is, and what it was told when it joined.
//!
//! Each is written whole: to a temporary file, synced, renamed, and the directory synced. Each has a checksum, so that rot is
//! not taken for another address, another key, or another place of a node's log.

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
    /// Its bytes are not those that were written.
    #[error("{0}: damaged, its checksum does not fit")]
    Checksum(String),
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

/// Writes bytes with their checksum.
pub(crate) fn write_sealed(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Result<(), DiskError> {
    let mut sealed = vec![SEALED];
    sealed.extend_from_slice(&crc32c::crc32c(bytes).to_le_bytes());
    sealed.extend_from_slice(bytes);
    write(disk, path, &sealed)
}

/// Reads what [`write_sealed`] wrote; or, of an older program, what it wrote without a checksum.
pub(crate) fn read_sealed(disk: &dyn Disk, path: &str) -> Result<Option<Vec<u8>>, FileError> {
    let Some(stored) = read(disk, path)? else {
        return Ok(None);
    };
    match stored.split_first_chunk::<{ 1 + CHECKSUM }>() {
        Some(([SEALED, checksum @ ..], bytes)) if crc32c::crc32c(bytes).to_le_bytes() == *checksum => {
            Ok(Some(bytes.to_vec()))
        }
        _ if stored.first() == Some(&VERSION) => Ok(Some(stored)),
        _ => Err(FileError::Checksum(path.to_owned())),
    }
}

/// Whether the directory holds what only a node has that once ran.
pub(crate) fn has_data(disk: &dyn Disk) -> bool {
    ["log", "snapshots", "blobs.journal"]
        .iter()
        .any(|directory| disk.list(directory).is_ok_and(|names| !names.is_empty()))
}

pub(crate) fn write_value<T: Serialize>(disk: &dyn Disk, path: &str, value: &T) -> Result<(), FileError> {
    let bytes = codec::encode(VERSION, value, BYTES_MAX).map_err(|error| FileError::Damaged(path.to_owned(), error))?;
    Ok(write_sealed(disk, path, &bytes)?)
}

pub(crate) fn read_value<T: DeserializeOwned>(disk: &dyn Disk, path: &str) -> Result<Option<T>, FileError> {
    let Some(bytes) = read_sealed(disk, path)? else {
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

/// Of a value, and of a whole file that has no checksum.
const VERSION: u8 = 1;
/// Of a file with a checksum. The two differ in more than one bit, so that none becomes the other by rot.
const SEALED: u8 = 2;
/// Octets of the checksum.
const CHECKSUM: usize = 4;
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
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let disk = FaultyDisk::new();
        let seed = Seed {
            nodes: vec![(NodeId(1), "h:1".to_owned(), [1; 32])],
        };
        write_value(&disk, SEED, &seed).unwrap();
        let length = read(&disk, SEED).unwrap().unwrap().len() as u64;
        for octet in 0..length {
            for bit in 0..8 {
                disk.flip_bit(SEED, octet, bit);
                assert_eq!(
                    read_value::<Seed>(&disk, SEED).unwrap_err().to_string(),
                    "seed: damaged, its checksum does not fit",
                    "bit {bit} of octet {octet}"
                );
                disk.flip_bit(SEED, octet, bit);
            }
        }
        assert_eq!(read_value::<Seed>(&disk, SEED).unwrap(), Some(seed));
    }

    #[test]
    fn a_file_cut_anywhere_is_noticed() {
        let disk = FaultyDisk::new();
        write_sealed(&disk, "f", b"some bytes").unwrap();
        let whole = read(&disk, "f").unwrap().unwrap();
        for length in 0..whole.len() {
            write(&disk, "f", &whole[..length]).unwrap();
            assert!(read_sealed(&disk, "f").is_err(), "{length} octets");
        }
    }

    #[test]
    fn a_file_without_a_checksum_is_read_as_before() {
        let disk = FaultyDisk::new();
        let seed = Seed {
            nodes: vec![(NodeId(1), "h:1".to_owned(), [1; 32])],
        };
        write(&disk, SEED, &codec::encode(VERSION, &seed, BYTES_MAX).unwrap()).unwrap();
        assert_eq!(read_value::<Seed>(&disk, SEED).unwrap(), Some(seed));
    }
}
