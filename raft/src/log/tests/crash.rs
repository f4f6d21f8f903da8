//! Power loss at any moment: what was acknowledged is there, and of the rest a prefix.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use core_types::OpenMode;
use platform::{FaultyDisk, SeededEntropy};

use super::super::*;
use super::model::{self, Model};
use super::{LatePool, config, key, open};

/// A disk whose power goes after so many calls that change something.
#[derive(Clone)]
struct Fuse {
    disk: FaultyDisk,
    left: Arc<AtomicU64>,
}

impl Fuse {
    fn burn(&self) -> Result<(), DiskError> {
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match left {
            Ok(_) => Ok(()),
            Err(_) => Err(DiskError::new(DiskErrorKind::Other, "disk", "no power")),
        }
    }
}

#[derive(Debug)]
struct FuseFile(Arc<dyn File>, Fuse);

impl fmt::Debug for Fuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fuse")
    }
}

impl Disk for Fuse {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Arc<dyn File>, DiskError> {
        if mode == OpenMode::CreateNew {
            self.burn()?;
        }
        Ok(Arc::new(FuseFile(self.disk.open(path, mode)?, self.clone())))
    }
    fn list(&self, path: &str) -> Result<Vec<String>, DiskError> {
        self.disk.list(path)
    }
    fn create_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.disk.create_dir_all(path)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.burn()?;
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.burn()?;
        self.disk.remove(path)
    }
    fn remove_dir_all(&self, path: &str) -> Result<(), DiskError> {
        self.disk.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &str) -> Result<(), DiskError> {
        self.burn()?;
        self.disk.sync_dir(path)
    }
    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.disk.free_bytes()
    }
}

impl File for FuseFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.0.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.1.burn()?;
        self.0.write_at(offset, bytes)
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        self.1.burn()?;
        self.0.sync_data()
    }
    fn set_len(&self, length: u64) -> Result<(), DiskError> {
        self.1.burn()?;
        self.0.set_len(length)
    }
    fn len(&self) -> Result<u64, DiskError> {
        self.0.len()
    }
}

/// One life of the log on a disk whose power goes at some call: what it was asked, and how much of it was acknowledged.
struct Life {
    records: Vec<(GroupKey, Record)>,
    acknowledged: Arc<AtomicU64>,
    position: LogPosition,
}

fn live(disk: &FaultyDisk, start: &Model, calls: u64, requests: u64, entropy: &dyn Entropy) -> Life {
    let fuse = Fuse {
        disk: disk.clone(),
        left: Arc::new(AtomicU64::new(calls)),
    };
    let pool = Arc::new(LatePool::default());
    let mut life = Life {
        records: Vec::new(),
        acknowledged: Arc::new(AtomicU64::new(0)),
        position: LogPosition::default(),
    };
    let Ok(log) = SharedLog::open(Arc::new(fuse), pool.clone(), entropy, config()) else {
        return life;
    };
    let mut model = start.clone();
    for _ in 0..requests {
        if log.failure().is_some() {
            break;
        }
        let key = key(u32::try_from(entropy.below(4)).unwrap());
        let records = model::request(&model, key, entropy);
        for record in &records {
            model::apply(&mut model, key, record);
            life.records.push((key, record.clone()));
        }
        let (count, acknowledged) = (life.records.len() as u64, Arc::clone(&life.acknowledged));
        let done = move |result: Result<(), LogError>| {
            if result.is_ok() {
                assert!(acknowledged.swap(count, Ordering::Relaxed) < count, "in order");
            }
        };
        log.submit(key, records, Box::new(done));
        if let Some(last) = log.state(key).and_then(|state| state.last) {
            log.note_committed(key, last).ok();
        }
        if entropy.below(3) == 0 {
            pool.run();
        }
    }
    pool.run();
    life.position = log.position();
    life
}

/// Checks the disk after a crash, and gives the prefix that it kept.
fn check(disk: &FaultyDisk, start: &Model, life: &Life, context: &str) -> Model {
    let log = open(disk);
    assert!(log.damages().is_empty(), "{context}: {:?}", log.damages());
    let position = log.position();
    assert!(
        (position.boot, position.seq) > (life.position.boot, life.position.seq),
        "{context}: {position:?} after {:?}",
        life.position
    );
    let found = model::read(&log);
    let acknowledged = usize::try_from(life.acknowledged.load(Ordering::Relaxed)).unwrap();
    let mut model = start.clone();
    for (count, (key, record)) in life.records.iter().enumerate() {
        if count >= acknowledged && model == found {
            return found;
        }
        model::apply(&mut model, *key, record);
    }
    if model == found {
        return found;
    }
    let mut at_acknowledged: Model = start.clone();
    for (key, record) in life.records.iter().take(acknowledged) {
        model::apply(&mut at_acknowledged, *key, record);
    }
    let summary = |model: &Model| -> BTreeMap<GroupKey, (Option<LogMark>, Vec<u64>)> {
        let one = |group: &model::ModelGroup| (group.purged, group.entries.keys().copied().collect());
        model.iter().map(|(key, group)| (*key, one(group))).collect()
    };
    panic!(
        "{context}: found {:?}, acknowledged {acknowledged} of {}: {:?}",
        summary(&found),
        life.records.len(),
        summary(&at_acknowledged)
    );
}

#[test]
fn what_was_acknowledged_survives_power_loss_and_the_rest_is_a_prefix() {
    for seed in 0..300 {
        let entropy: &dyn Entropy = &SeededEntropy::new(seed);
        let disk = FaultyDisk::new();
        let mut model = Model::new();
        for round in 0..5 {
            let calls = entropy.below(200);
            let life = live(&disk, &model, calls, 80, entropy);
            disk.crash(seed * 100 + round);
            model = check(&disk, &model, &life, &format!("seed {seed}, round {round}"));
            // The check opened the log, too: it may lose its power as well.
            disk.crash(seed * 100 + 50 + round);
        }
    }
}

#[test]
fn a_kill_between_any_two_steps_of_a_roll_or_a_deletion_is_harmless() {
    // The same life again and again, with the power gone one call later each time.
    for calls in 0..330 {
        for strictly in [true, false] {
            let disk = FaultyDisk::new();
            let entropy: &dyn Entropy = &SeededEntropy::new(77);
            let life = live(&disk, &Model::new(), calls, 120, entropy);
            if strictly {
                disk.crash_strictly();
            } else {
                disk.crash(calls);
            }
            check(
                &disk,
                &Model::new(),
                &life,
                &format!("{calls} calls, strictly {strictly}"),
            );
        }
    }
}

#[test]
fn a_process_that_is_killed_keeps_what_it_wrote_and_makes_it_durable() {
    for seed in 0..50 {
        let entropy: &dyn Entropy = &SeededEntropy::new(seed);
        let disk = FaultyDisk::new();
        let life = live(&disk, &Model::new(), 20 + entropy.below(100), 80, entropy);
        // No power loss: the page cache is still there. What the next start reads must not vanish later.
        let kept = check(&disk, &Model::new(), &life, "killed");
        disk.crash_strictly();
        assert_eq!(model::read(&open(&disk)), kept, "seed {seed}");
    }
}

#[test]
fn what_was_told_of_a_position_is_found_again_after_any_crash() {
    for seed in 0..40 {
        let disk = FaultyDisk::new();
        let log = open(&disk);
        super::submit(&log, key(1), vec![Record::Created]).unwrap();
        for index in 0..seed % 9 * 4 {
            super::submit(&log, key(1), vec![super::append(1, index, &[3; 90])]).unwrap();
        }
        let told = log.position();
        drop(log);
        disk.crash(seed);
        let log = open(&disk);
        let found = log.found();
        // Otherwise a node would be taken for one on an older image.
        assert_eq!((found.boot, found.nonce), (told.boot, told.nonce), "{seed}");
        assert!(found.seq >= told.seq, "{seed}: {found:?} {told:?}");
        assert_eq!(log.position().boot, told.boot + 1);
    }
}
