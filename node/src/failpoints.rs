//! Death at a chosen point: for tests of the binary only, behind the feature `failpoints`.
//!
//! The variable `FAILPOINTS` names points, with commas between: `POINT[@PATH]:N[+MICROSECONDS]`, for instance
//! `rename.after@blobs:17` or `index.batch.before:40+300`. At the N-th pass of a point (of a path that begins so) the process
//! is ended by SIGKILL, at once or so much later. The point is written down in `DATA_DIR.killed` before.
//!
//! Points are before and after every change of the disk, `NAME.before` and `NAME.after` with NAME one of `create`, `write`,
//! `sync`, `set_len`, `create_dir`, `rename`, `remove`, `remove_dir`, `sync_dir`; `write.torn`, where half of the bytes are
//! written; and `index.batch` and `index.checkpoint`: what Raft's log holds already, and the state machine does not.
//!
//! With `FAILPOINTS_SCALE=small` the node has the small segments and frequent snapshots that make rare points common.
//!
//! Not here: a normal build has nothing of this.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blobstore::BlobConfig;
use core_types::{Batch, Disk, DiskError, File, KvEngine, KvError, KvRead, OpenMode};

use crate::machine::{Machine, Rhythm, Scale};
use crate::start::StartError;

/// The variable that names the points.
const VARIABLE: &str = "FAILPOINTS";
/// The variable that asks for a small scale.
const SCALE: &str = "FAILPOINTS_SCALE";

/// Puts the points of `FAILPOINTS` into a machine.
///
/// # Errors
/// [`StartError::Configuration`] when the variable does not read.
pub(crate) fn arm(mut machine: Machine, data_dir: &Path) -> Result<Machine, StartError> {
    if std::env::var(SCALE).is_ok_and(|scale| scale == "small") {
        machine.scale = small();
    }
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(machine);
    };
    let traps = text
        .split(',')
        .map(Trap::parse)
        .collect::<Option<Vec<Trap>>>()
        .ok_or_else(|| StartError::Configuration(format!("{VARIABLE}: {text} is no list of points")))?;
    let mut note = data_dir.as_os_str().to_owned();
    note.push(".killed");
    let points = Arc::new(Points {
        traps,
        note: PathBuf::from(note),
    });
    tracing::warn!(points = text, "this process will end itself");
    Ok(Machine {
        disk: Arc::new(TrappedDisk {
            disk: machine.disk,
            points: Arc::clone(&points),
        }),
        engine: Arc::new(TrappedEngine {
            engine: machine.engine,
            points,
        }),
        ..machine
    })
}

/// What is rare in production happens in seconds.
fn small() -> Scale {
    Scale {
        log_segment_bytes: 1024 * 1024,
        blobs: BlobConfig {
            journal_segment_bytes: 256 * 1024,
            inline_bytes_max: 32 * 1024,
            ..BlobConfig::default()
        },
        raft: |node| raft::Config {
            snapshot_entries: 200,
            log_entries_kept: 40,
            checkpoint_interval: Duration::from_secs(2),
            digest_interval: Duration::from_secs(3),
            ..raft::Config::new(node)
        },
        care: Rhythm {
            scrub: Duration::from_secs(60),
            collect: Duration::from_secs(20),
            prune: Duration::from_secs(15),
        },
    }
}

/// One point of the list.
#[derive(Debug)]
struct Trap {
    point: String,
    /// What the path begins with.
    path: String,
    at: u64,
    later: Duration,
    passed: AtomicU64,
}

impl Trap {
    fn parse(text: &str) -> Option<Self> {
        let (place, count) = text.rsplit_once(':')?;
        let (point, path) = place.split_once('@').unwrap_or((place, ""));
        let (at, later) = count.split_once('+').unwrap_or((count, "0"));
        Some(Self {
            point: point.to_owned(),
            path: path.to_owned(),
            at: at.parse().ok()?,
            later: Duration::from_micros(later.parse().ok()?),
            passed: AtomicU64::new(0),
        })
    }
}

#[derive(Debug)]
struct Points {
    traps: Vec<Trap>,
    note: PathBuf,
}

impl Points {
    /// Passes a point, or ends the process.
    fn pass(&self, point: &str, path: &str) {
        self.pass_with(point, path, || ());
    }

    /// The same; the last thing that the process does is `deed`.
    fn pass_with(&self, point: &str, path: &str, deed: impl FnOnce()) {
        // The data directory itself has a name that can be asked for.
        let path = if path.is_empty() { "." } else { path };
        let met = |trap: &&Trap| {
            trap.point == point
                && path.starts_with(&trap.path)
                && trap.passed.fetch_add(1, Ordering::Relaxed) + 1 == trap.at
        };
        let Some(trap) = self.traps.iter().find(met) else {
            return;
        };
        self.write_down(&format!("{point} {path}\n"));
        if trap.later.is_zero() {
            deed();
            end();
        } else {
            let later = trap.later;
            std::thread::spawn(move || {
                std::thread::sleep(later);
                end();
            });
        }
    }

    fn write_down(&self, line: &str) {
        let written = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.note)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            tracing::error!(%error, path = %self.note.display(), "the point is not written down");
        }
    }
}

/// Ends the process as `kill -9` does: nothing is unwound, dropped or flushed.
fn end() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}

struct TrappedDisk {
    disk: Arc<dyn Disk>,
    points: Arc<Points>,
}

impl TrappedDisk {
    fn around<T>(
        &self,
        [before, after]: [&str; 2],
        path: &str,
        call: impl FnOnce() -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        self.points.pass(before, path);
        let done = call()?;
        self.points.pass(after, path);
        Ok(done)
    }
}

impl Disk for TrappedDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<dyn File>, DiskError> {
        let file = match mode {
            OpenMode::Read | OpenMode::Write => self.disk.open(path, mode)?,
            OpenMode::CreateNew | OpenMode::CreateOrOpen => {
                self.around(["create.before", "create.after"], path, || self.disk.open(path, mode))?
            }
        };
        Ok(Arc::new(TrappedFile {
            file,
            path: path.to_owned(),
            points: Arc::clone(&self.points),
        }))
    }

    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        self.disk.list(path)
    }

    fn create_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.around(["create_dir.before", "create_dir.after"], path, || {
            self.disk.create_dir_all(path)
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.around(["rename.before", "rename.after"], to, || self.disk.rename(from, to))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.around(["remove.before", "remove.after"], path, || self.disk.remove(path))
    }

    fn remove_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.around(["remove_dir.before", "remove_dir.after"], path, || {
            self.disk.remove_dir_all(path)
        })
    }

    fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        self.around(["sync_dir.before", "sync_dir.after"], path, || self.disk.sync_dir(path))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.disk.free_bytes()
    }
}

#[derive(Debug)]
struct TrappedFile {
    file: Arc<dyn File>,
    path: String,
    points: Arc<Points>,
}

impl File for TrappedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.points.pass("write.before", &self.path);
        self.points.pass_with("write.torn", &self.path, || {
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            let _ = self.file.write_at(offset, half);
        });
        self.file.write_at(offset, bytes)?;
        self.points.pass("write.after", &self.path);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.points.pass("sync.before", &self.path);
        self.file.sync_data()?;
        self.points.pass("sync.after", &self.path);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), DiskError> {
        self.points.pass("set_len.before", &self.path);
        self.file.set_len(length)?;
        self.points.pass("set_len.after", &self.path);
        Ok(())
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.file.len()
    }
}

struct TrappedEngine {
    engine: Arc<dyn KvEngine>,
    points: Arc<Points>,
}

impl KvRead for TrappedEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.engine.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        self.engine.scan(from, to, visit)
    }

    fn scan_back(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        self.engine.scan_back(from, to, visit)
    }
}

impl KvEngine for TrappedEngine {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        self.points.pass("index.batch.before", "index");
        self.engine.write(batch)?;
        self.points.pass("index.batch.after", "index");
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), KvError> {
        self.points.pass("index.checkpoint.before", "index");
        self.engine.checkpoint()?;
        self.points.pass("index.checkpoint.after", "index");
        Ok(())
    }

    fn close(&self) -> Result<(), KvError> {
        self.points.pass("index.close.before", "index");
        self.engine.close()?;
        self.points.pass("index.close.after", "index");
        Ok(())
    }

    fn damage(&self) -> Option<String> {
        self.engine.damage()
    }

    fn size_bytes(&self) -> Result<u64, KvError> {
        self.engine.size_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_has_a_path_a_number_and_a_delay() {
        let trap = Trap::parse("rename.after@blobs:17+250").unwrap();
        assert_eq!(
            (trap.point.as_str(), trap.path.as_str(), trap.at),
            ("rename.after", "blobs", 17)
        );
        assert_eq!(trap.later, Duration::from_micros(250));
        let trap = Trap::parse("sync.before:3").unwrap();
        assert_eq!((trap.path.as_str(), trap.later), ("", Duration::ZERO));
        for wrong in ["", "sync.before", "sync.before:x", "sync.before:1+x"] {
            assert!(Trap::parse(wrong).is_none(), "{wrong}");
        }
    }
}
