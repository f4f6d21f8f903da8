//! Which log the node once began, remembered beside the log: so that one that is gone, or that another took the place of, is
//! not taken for one that never was.
//!
//! The file, `log.id`, is a version and the salt of the first log. It is written once, right after that log was begun, and
//! stays: a log with another salt is one that was begun after a loss. What such a log does not know of a replica says
//! nothing, since the votes of that replica may have been in the one that is lost.

use core_types::{Disk, DiskError, DiskErrorKind, OpenMode};

use super::record::Salt;
use super::{LogConfig, LogError};

const VERSION: u8 = 1;

fn path_of(config: &LogConfig) -> String {
    format!("{}.id", config.directory)
}

/// Whether the log with this salt came after one that is lost.
pub(crate) fn is_lost(disk: &dyn Disk, config: &LogConfig, salt: &Salt) -> Result<bool, LogError> {
    let mut expected = vec![VERSION];
    expected.extend_from_slice(salt);
    let path = path_of(config);
    match read(disk, &path) {
        // One that cannot be read says at least that there was a log.
        Ok(found) => Ok(found != expected),
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            write(disk, &path, &expected)?;
            Ok(false)
        }
        Err(error) => Err(LogError::Disk(error)),
    }
}

/// From here on what the log does not know says nothing.
pub(crate) fn forget(disk: &dyn Disk, config: &LogConfig) -> Result<(), LogError> {
    // No log has this salt.
    write(disk, &path_of(config), &[VERSION])
}

/// Sets what cannot be read as a log aside, so that another is begun.
pub(crate) fn set_aside(disk: &dyn Disk, config: &LogConfig) -> Result<(), LogError> {
    let path = path_of(config);
    if let Err(error) = read(disk, &path) {
        if error.kind != DiskErrorKind::NotFound {
            return Err(LogError::Disk(error));
        }
        forget(disk, config)?;
    }
    for name in disk.list(&config.directory).map_err(LogError::Disk)? {
        if name.ends_with(".seg") {
            let from = format!("{}/{name}", config.directory);
            disk.rename(&from, &format!("{from}.damaged"))
                .map_err(LogError::of_write)?;
        }
    }
    disk.sync_dir(&config.directory).map_err(LogError::SyncFailed)
}

fn read(disk: &dyn Disk, path: &str) -> Result<Vec<u8>, DiskError> {
    let file = disk.open(path, OpenMode::Read)?;
    // More is not what was written.
    let mut bytes = vec![0; usize::try_from(file.len()?.min(64)).unwrap_or(0)];
    file.read_exact_at(0, &mut bytes)?;
    Ok(bytes)
}

fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Result<(), LogError> {
    let temporary = format!("{path}.new");
    match disk.remove(&temporary) {
        Err(error) if error.kind != DiskErrorKind::NotFound => return Err(LogError::of_write(error)),
        _ => {}
    }
    let file = disk.open(&temporary, OpenMode::CreateNew).map_err(LogError::of_write)?;
    file.write_at(0, bytes).map_err(LogError::of_write)?;
    file.sync_data().map_err(LogError::SyncFailed)?;
    disk.rename(&temporary, path).map_err(LogError::of_write)?;
    disk.sync_dir("").map_err(LogError::SyncFailed)
}
