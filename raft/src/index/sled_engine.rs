//! The index engine of production: sled 0.34.7, one database and one tree per node.
//!
//! Everything in it can be rebuilt from snapshots and logs. Its `flush` calls no fsync on Linux (it was measured: after a
//! model of a power loss nothing that it had acknowledged was left), so a checkpoint is `flush` and then our own
//! `fdatasync` of its file `db`, and nothing is ever acknowledged on it. Batches are atomic per tree only, which is why
//! there is one tree.
//!
//! After a power loss sled opens mixtures of old and new pages without a word (some 7 of 100 in the tests), so an index that
//! was not closed in order is verified as a whole when it is opened. The file `clean` beside sled's says that it was, and which
//! files it then had: so is one of which a file was cut or put back since.
//!
//! This is the only file of the product below `node` that takes a real path: sled cannot work on [`core_types::Disk`].
//! Not used: `flush_async` and its threads, merge operators, subscribers, compression.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use core_types::{Batch, KvEngine, KvError, KvRead};

use super::verify::verify;

/// The index on disk.
pub struct SledEngine {
    db: sled::Db,
    /// sled's data file, which a checkpoint syncs.
    data: fs::File,
    directory: PathBuf,
    is_closed: AtomicBool,
    /// The first damage that was met.
    damage: OnceLock<String>,
}

/// Where a damaged index was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The directory that holds the damaged index now; nothing needs it any more.
    pub directory: PathBuf,
    /// What was wrong with it.
    pub reason: String,
}

impl SledEngine {
    /// Opens or creates the index in a directory. `cache_bytes` is how much of it sled keeps in memory.
    ///
    /// # Errors
    /// [`KvError::Damaged`] when what is stored does not verify: the caller sets the directory aside and begins anew, see
    /// [`Self::open_or_set_aside`].
    pub fn open(directory: &Path, cache_bytes: u64) -> Result<Self, KvError> {
        Self::open_told(directory, cache_bytes).map(|(engine, _)| engine)
    }

    /// Opens, and tells whether the index was closed in order.
    fn open_told(directory: &Path, cache_bytes: u64) -> Result<(Self, bool), KvError> {
        let was_closed = is_marked(directory).map_err(from_io)?;
        // sled answers some damage with a panic; it has not touched anything of ours then.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            sled::Config::new()
                .path(directory)
                .cache_capacity(cache_bytes)
                .mode(sled::Mode::HighThroughput)
                .flush_every_ms(None)
                .open()
        }));
        let db = match opened {
            Ok(result) => result.map_err(from_sled)?,
            Err(_) => return Err(KvError::Damaged("sled panicked while it opened the index".to_owned())),
        };
        remove_mark(directory).map_err(from_io)?;
        let data = fs::OpenOptions::new()
            .write(true)
            .open(directory.join("db"))
            .map_err(from_io)?;
        let engine = Self {
            db,
            data,
            directory: directory.to_owned(),
            is_closed: AtomicBool::new(false),
            damage: OnceLock::new(),
        };
        Ok((engine, was_closed))
    }

    /// Reads the whole index and checks that every replica's rows are those that were written together. sled verifies each of
    /// its records, but after a power loss it may take old ones for the newest.
    ///
    /// # Errors
    /// [`KvError::Damaged`] when they are not; errors of sled, its panics among them.
    pub fn verify(&self) -> Result<(), KvError> {
        catch_unwind(AssertUnwindSafe(|| verify(self)))
            .unwrap_or_else(|_| Err(KvError::Damaged("sled panicked while it read the index".to_owned())))
    }

    fn open_verified(directory: &Path, cache_bytes: u64) -> Result<Self, KvError> {
        let (engine, was_closed) = Self::open_told(directory, cache_bytes)?;
        if was_closed {
            return Ok(engine);
        }
        match engine.verify() {
            Ok(()) => Ok(engine),
            Err(error) => {
                // What sled does with a damaged index when it is closed is of no interest.
                let _ = catch_unwind(AssertUnwindSafe(|| drop(engine)));
                Err(error)
            }
        }
    }

    /// Opens the index and verifies it, see [`Self::verify`], unless it was closed in order; a damaged one is renamed to `<directory>.damaged-<n>` and an empty one takes its place, which the
    /// groups then fill from their snapshots and logs.
    ///
    /// # Errors
    /// [`KvError`] when the directory can be neither opened nor moved.
    pub fn open_or_set_aside(directory: &Path, cache_bytes: u64) -> Result<(Self, Option<SetAside>), KvError> {
        let reason = match Self::open_verified(directory, cache_bytes) {
            Ok(engine) => return Ok((engine, None)),
            Err(KvError::Damaged(reason)) => reason,
            Err(error) => return Err(error),
        };
        let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = (1_u32..)
            .map(|count| directory.with_file_name(format!("{name}.damaged-{count}")))
            .find(|path| !path.exists())
            .ok_or_else(|| KvError::Io("no name left for the damaged index".to_owned()))?;
        fs::rename(directory, &aside).map_err(from_io)?;
        tracing::error!(directory = %aside.display(), reason, "index set aside");
        Ok((
            Self::open(directory, cache_bytes)?,
            Some(SetAside {
                directory: aside,
                reason,
            }),
        ))
    }
}

impl SledEngine {
    /// A call of sled. What it says of damage is remembered; some damage it answers with a panic.
    fn guarded<T>(&self, call: impl FnOnce() -> sled::Result<T>) -> Result<T, KvError> {
        let done = catch_unwind(AssertUnwindSafe(call))
            .unwrap_or_else(|_| Err(sled::Error::ReportableBug("sled panicked".to_owned())))
            .map_err(from_sled);
        if let Err(KvError::Damaged(reason)) = &done {
            let _ = self.damage.set(reason.clone());
        }
        done
    }

    fn visit_all(
        &self,
        mut entries: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), KvError> {
        while let Some((key, value)) = self.guarded(|| entries.next().transpose())? {
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}

impl KvRead for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.guarded(|| self.db.get(key))?.map(|value| value.to_vec()))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        if from >= to {
            return Ok(()); // sled panics on an inverted range.
        }
        self.visit_all(self.db.range(from..to), visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        if from >= to {
            return Ok(());
        }
        self.visit_all(self.db.range(from..to).rev(), visit)
    }
}

impl KvEngine for SledEngine {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        if self.is_closed.load(Ordering::Acquire) {
            return Err(KvError::Io("the index is closed".to_owned()));
        }
        let mut writes = sled::Batch::default();
        for (key, value) in batch.iter() {
            match value {
                Some(value) => writes.insert(key, value),
                None => writes.remove(key),
            }
        }
        self.guarded(|| self.db.apply_batch(writes))
    }

    fn checkpoint(&self) -> Result<(), KvError> {
        self.guarded(|| self.db.flush())?;
        self.data.sync_data().map_err(from_io)
    }

    fn close(&self) -> Result<(), KvError> {
        self.is_closed.store(true, Ordering::Release);
        self.checkpoint()?;
        match self.damage.get() {
            None => write_mark(&self.directory).map_err(from_io),
            // Without the mark it is verified when it is opened again.
            Some(reason) => Err(KvError::Damaged(reason.clone())),
        }
    }

    fn damage(&self) -> Option<String> {
        self.damage.get().cloned()
    }

    fn size_bytes(&self) -> Result<u64, KvError> {
        self.db.size_on_disk().map_err(from_sled)
    }
}

/// Opens an index that this process had open: sled's threads keep its lock for a moment after the last handle is dropped.
#[cfg(test)]
pub(crate) fn reopen(directory: &Path, cache_bytes: u64) -> SledEngine {
    for _ in 0..500 {
        match SledEngine::open(directory, cache_bytes) {
            Ok(engine) => return engine,
            Err(error) if error.to_string().contains("lock") => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("sled does not let go of its lock");
}

/// The name of the file that says that the index was closed in order.
const MARK: &str = "clean";

/// Whether the index was closed in order, and its files are those that it then had.
fn is_marked(directory: &Path) -> io::Result<bool> {
    match fs::read(directory.join(MARK)) {
        Ok(told) => Ok(told == list_files(directory)?.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The index is not closed in order any more, durably, before anything is written. (What sled itself writes while it opens
/// makes the mark one of other files.)
fn remove_mark(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(MARK)) {
        Ok(()) => sync_directory(directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn write_mark(directory: &Path) -> io::Result<()> {
    let found = list_files(directory)?;
    let mut mark = fs::File::create(directory.join(MARK))?;
    mark.write_all(found.as_bytes())?;
    mark.sync_all()?;
    sync_directory(directory)
}

/// The files of an index, each with its length and when it was changed last.
fn list_files(directory: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for place in [directory.to_owned(), directory.join("blobs")] {
        let entries = match fs::read_dir(&place) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_file() && entry.file_name() != MARK {
                let (seconds, nanoseconds) = (about.mtime(), about.mtime_nsec());
                let name = entry
                    .path()
                    .strip_prefix(directory)
                    .unwrap_or(&place)
                    .display()
                    .to_string();
                files.push(format!("{name} {} {seconds}.{nanoseconds:09}\n", about.len()));
            }
        }
    }
    files.sort();
    Ok(files.concat())
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

fn from_sled(error: sled::Error) -> KvError {
    match error {
        sled::Error::Io(error) => from_io(error),
        sled::Error::Corruption { .. } | sled::Error::ReportableBug(_) | sled::Error::CollectionNotFound(_) => {
            KvError::Damaged(error.to_string())
        }
        sled::Error::Unsupported(detail) => KvError::Damaged(detail),
    }
}

fn from_io(error: io::Error) -> KvError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => KvError::Full,
        // Both come from what is stored, not from the system: sled reads a length or a record that cannot be.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => KvError::Damaged(error.to_string()),
        _ => KvError::Io(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: u64 = 4 * 1024 * 1024;

    fn batch(puts: &[(&str, &str)], deletes: &[&str]) -> Batch {
        let mut batch = Batch::default();
        for (key, value) in puts {
            batch.put(*key, *value);
        }
        for key in deletes {
            batch.delete(*key);
        }
        batch
    }

    #[test]
    fn what_a_checkpoint_covered_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        {
            let engine = SledEngine::open(&path, CACHE).unwrap();
            engine
                .write(&batch(&[("a", "1"), ("b", "2"), ("c", "3")], &[]))
                .unwrap();
            engine.write(&batch(&[("c", "4")], &["b"])).unwrap();
            engine.checkpoint().unwrap();
        }
        let engine = reopen(&path, CACHE);
        assert_eq!(engine.get(b"a").unwrap(), Some(b"1".to_vec()));
        assert_eq!(engine.get(b"b").unwrap(), None);
        let mut seen = Vec::new();
        engine
            .scan_back(b"a", b"d", &mut |key, value| {
                seen.push((key.to_vec(), value.to_vec()));
                true
            })
            .unwrap();
        assert_eq!(seen, [(b"c".to_vec(), b"4".to_vec()), (b"a".to_vec(), b"1".to_vec())]);
        engine
            .scan(b"b", b"a", &mut |_, _| panic!("an inverted range is empty"))
            .unwrap();
    }

    /// An index with a row that belongs to no replica, which only a verification notices.
    fn with_a_row_that_cannot_be(path: &Path) -> SledEngine {
        let engine = SledEngine::open(path, CACHE).unwrap();
        engine.write(&batch(&[("no replica's", "row")], &[])).unwrap();
        engine
    }

    /// Opens an index that this process had open, see [`reopen`].
    fn open_again(path: &Path) -> (SledEngine, Option<SetAside>) {
        for _ in 0..500 {
            match SledEngine::open_or_set_aside(path, CACHE) {
                Err(error) if error.to_string().contains("lock") => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                opened => return opened.unwrap(),
            }
        }
        panic!("sled does not let go of its lock");
    }

    #[test]
    fn an_index_is_verified_unless_it_was_closed_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let engine = with_a_row_that_cannot_be(&path);
        engine.close().unwrap();
        assert!(engine.write(&batch(&[("b", "1")], &[])).is_err());
        drop(engine);
        let (engine, aside) = open_again(&path);
        assert_eq!(aside, None);
        drop(engine);
        // Now it was not.
        let (_, aside) = open_again(&path);
        assert!(aside.unwrap().reason.contains("a key that cannot be"));
    }

    #[test]
    fn damage_that_is_met_while_the_index_is_used_is_remembered_and_verified_at_the_next_opening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let engine = SledEngine::open(&path, CACHE).unwrap();
        for round in 0..3000_u32 {
            let value = format!("{round} ").repeat(200);
            engine.write(&batch(&[(&format!("key {round}"), &value)], &[])).unwrap();
        }
        engine.close().unwrap();
        assert_eq!(engine.damage(), None);
        drop(engine);
        reopen(&path, 1 << 18).close().unwrap();
        // A disk that rots says nothing: neither the length nor the time changes.
        let file = path.join("db");
        let written = fs::metadata(&file).unwrap().modified().unwrap();
        let mut bytes = fs::read(&file).unwrap();
        let used = bytes.len() / 2;
        for place in (5000..used).step_by(1009) {
            bytes[place] ^= 0x10;
        }
        fs::write(&file, bytes).unwrap();
        fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(written)
            .unwrap();
        let engine = match SledEngine::open_told(&path, 1 << 18) {
            Ok((engine, was_closed)) => {
                assert!(was_closed);
                engine
            }
            // sled saw it at once.
            Err(KvError::Damaged(_)) => return,
            Err(error) => panic!("{error}"),
        };
        let seen = engine.scan(b"a", b"z", &mut |_, _| true);
        assert!(matches!(seen, Err(KvError::Damaged(_))), "{seen:?}");
        assert!(engine.damage().is_some());
        assert!(matches!(engine.close(), Err(KvError::Damaged(_))));
        drop(engine);
        let (_, aside) = open_again(&path);
        assert!(aside.is_some());
    }

    #[test]
    fn an_index_whose_file_was_put_back_since_it_was_closed_is_verified() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let engine = with_a_row_that_cannot_be(&path);
        engine.checkpoint().unwrap();
        let older = fs::read(path.join("conf")).unwrap();
        engine.close().unwrap();
        drop(engine);
        // The same octets, as a copy has them.
        fs::write(path.join("conf"), older).unwrap();
        let (_, aside) = open_again(&path);
        assert!(aside.unwrap().reason.contains("a key that cannot be"));
    }

    #[test]
    fn an_index_that_has_other_files_than_when_it_was_closed_is_verified() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        let engine = with_a_row_that_cannot_be(&path);
        engine.close().unwrap();
        drop(engine);
        fs::write(path.join("conf.copy"), []).unwrap();
        let (_, aside) = open_again(&path);
        assert!(aside.unwrap().reason.contains("a key that cannot be"));
    }

    #[test]
    fn a_damaged_index_is_set_aside_and_an_empty_one_takes_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("index");
        {
            let engine = SledEngine::open(&path, CACHE).unwrap();
            for round in 0..200_u32 {
                engine
                    .write(&batch(&[(&format!("key {round}"), &"x".repeat(2000))], &[]))
                    .unwrap();
            }
            engine.checkpoint().unwrap();
        }
        drop(reopen(&path, CACHE));
        drop(reopen(&path, CACHE));
        fs::write(path.join("conf"), [0x5A; 100]).unwrap();
        let error = SledEngine::open(&path, CACHE).err();
        assert!(matches!(error, Some(KvError::Damaged(_))), "{error:?}");
        let (engine, aside) = SledEngine::open_or_set_aside(&path, CACHE).unwrap();
        assert_eq!(aside.unwrap().directory, directory.path().join("index.damaged-1"));
        assert_eq!(engine.get(b"key 1").unwrap(), None);
    }
}
