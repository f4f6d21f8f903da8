//! The real disk: a data directory of the file system, held by one process at a time.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use core_types::{Disk, DiskError, DiskErrorKind, File, OpenMode};

/// A data directory. Files are made with mode 0600 and directories with 0700: mail is nobody else's business.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    /// Held until the disk is dropped: an advisory lock, so that no two nodes work on one data directory.
    _lock: fs::File,
}

/// Why a data directory was not opened.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("the data directory {0} is in use by another node (its lock file is held)")]
    InUse(PathBuf),
    /// It cannot be made or opened.
    #[error("the data directory {0} cannot be opened: {1}")]
    Io(PathBuf, io::Error),
}

impl RealDisk {
    /// Opens, or makes, a data directory and takes its lock.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, LockError> {
        let root = root.into();
        let at = |error| LockError::Io(root.clone(), error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&root)
            .map_err(at)?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(root.join(LOCK_FILE))
            .map_err(at)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { root, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::InUse(root)),
            Err(error) => Err(LockError::Io(root, error.into())),
        }
    }

    /// Where the directory is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn resolve(&self, path: &str) -> Result<PathBuf, DiskError> {
        let inside = path.is_empty()
            || path
                .split('/')
                .all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
        if inside {
            Ok(self.root.join(path))
        } else {
            Err(DiskError::new(
                DiskErrorKind::Other,
                path,
                "not a path inside the data directory",
            ))
        }
    }
}

const LOCK_FILE: &str = "lock";

impl Disk for RealDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<dyn File>, DiskError> {
        let mut options = fs::OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
            OpenMode::CreateOrOpen => {
                options.write(true).create(true);
            }
        }
        let file = options
            .open(self.resolve(path)?)
            .map_err(|error| from_io(path, &error))?;
        Ok(Arc::new(RealFile {
            path: path.to_owned(),
            file,
        }))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        let entries = fs::read_dir(self.resolve(path)?).map_err(|error| from_io(path, &error))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| from_io(path, &error))?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, path: &str) -> Result<(), DiskError> {
        let mut prefix = String::new();
        for part in path.split('/') {
            let parent = prefix.clone();
            if !prefix.is_empty() {
                prefix.push('/');
            }
            prefix.push_str(part);
            match fs::DirBuilder::new().mode(0o700).create(self.resolve(&prefix)?) {
                Ok(()) => self.sync_dir(&parent)?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(from_io(&prefix, &error)),
            }
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        fs::rename(self.resolve(from)?, self.resolve(to)?).map_err(|error| from_io(from, &error))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        fs::remove_file(self.resolve(path)?).map_err(|error| from_io(path, &error))
    }

    fn remove_dir_all(&self, path: &str) -> Result<(), DiskError> {
        match fs::remove_dir_all(self.resolve(path)?) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(from_io(path, &error)),
            _ => Ok(()),
        }
    }

    fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        let failed = |error: io::Error| DiskError::new(DiskErrorKind::SyncFailed, path, error.to_string());
        fs::File::open(self.resolve(path)?)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let stat = rustix::fs::statvfs(&self.root).map_err(|error| from_io("", &error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[derive(Debug)]
struct RealFile {
    path: String,
    file: fs::File,
}

impl File for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => return result.map_err(|error| from_io(&self.path, &error)),
            }
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| from_io(&self.path, &error))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file
            .sync_data()
            .map_err(|error| DiskError::new(DiskErrorKind::SyncFailed, &self.path, error.to_string()))
    }

    fn set_len(&self, length: u64) -> Result<(), DiskError> {
        self.file.set_len(length).map_err(|error| from_io(&self.path, &error))
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.file
            .metadata()
            .map(|metadata| metadata.len())
            .map_err(|error| from_io(&self.path, &error))
    }
}

fn from_io(path: &str, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        ErrorKind::NotFound => DiskErrorKind::NotFound,
        ErrorKind::AlreadyExists => DiskErrorKind::AlreadyExists,
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => DiskErrorKind::Full,
        ErrorKind::UnexpectedEof => DiskErrorKind::UnexpectedEnd,
        _ => DiskErrorKind::Other,
    };
    DiskError::new(kind, path, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_read_renamed_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path().join("data")).unwrap();
        disk.create_dir_all("a/b").unwrap();
        let file = disk.open("a/b/one", OpenMode::CreateNew).unwrap();
        file.write_at(3, b"xyz").unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.len().unwrap(), 6);
        let mut bytes = [1; 6];
        file.read_exact_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0xyz");
        disk.rename("a/b/one", "a/two").unwrap();
        disk.sync_dir("a").unwrap();
        assert_eq!(disk.list("a").unwrap(), ["b", "two"]);
        assert_eq!(
            disk.open("a/b/one", OpenMode::Read).unwrap_err().kind,
            DiskErrorKind::NotFound
        );
        assert_eq!(
            disk.open("a/two", OpenMode::CreateNew).unwrap_err().kind,
            DiskErrorKind::AlreadyExists
        );
        assert!(disk.free_bytes().unwrap() > 0);
        disk.remove_dir_all("a").unwrap();
        disk.remove_dir_all("a").unwrap();
    }

    #[test]
    fn paths_out_of_the_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        for path in ["../x", "/etc/passwd", "a/../b", "a//b", "./a", "a\0"] {
            assert_eq!(
                disk.open(path, OpenMode::Read).unwrap_err().kind,
                DiskErrorKind::Other,
                "{path}"
            );
        }
    }

    #[test]
    fn two_nodes_cannot_share_a_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = RealDisk::open(dir.path()).unwrap();
        assert!(matches!(RealDisk::open(dir.path()), Err(LockError::InUse(_))));
        drop(first);
        assert!(RealDisk::open(dir.path()).is_ok());
    }
}
