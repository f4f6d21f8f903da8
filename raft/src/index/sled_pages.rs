//! What sled makes of its files after a power loss: copies in which blocks written since the last checkpoint are undone at
//! random, and files that end too early.
//!
//! Whatever is opened then holds, for each group, a state that it had; everything else is set aside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use core_types::{Batch, Entropy, GroupId, Incarnation, KvEngine, KvError, NodeId, OpId, UnixMillis};
use futures_util::FutureExt;
use platform::SeededEntropy;
use state::{Command, DirectoryOp, MachineKind, MemoryEngine, Op, Overlay};

use super::SledEngine;
use super::verify::verify;
use crate::generation::{GroupRows, StoredRows};
use crate::machine::MachineRow;
use crate::types::log_id;

const GROUPS: u32 = 3;
const CACHE: u64 = 1 << 20;
const BLOCK_BYTES: usize = 4096;
const LIFE: Incarnation = Incarnation(1);

type Digest = state::digest::Digest;
/// The digest of each group after each entry.
type History = BTreeMap<(u32, u64), Digest>;
/// All files of a directory, by their paths in it.
type Files = BTreeMap<PathBuf, Vec<u8>>;

struct Writer {
    engine: Arc<dyn KvEngine>,
    groups: Vec<Arc<GroupRows>>,
    applied: Vec<u64>,
    history: History,
}

impl Writer {
    fn new(engine: Arc<dyn KvEngine>) -> Self {
        let open = |group| GroupRows::open(engine.clone(), GroupId(group), LIFE).unwrap();
        Self {
            groups: (0..GROUPS).map(open).collect(),
            applied: vec![0; GROUPS as usize],
            history: History::new(),
            engine,
        }
    }

    fn work(&mut self, entropy: &dyn Entropy, steps: u64) {
        for _ in 0..steps {
            let group = usize::try_from(entropy.below(u64::from(GROUPS))).unwrap();
            self.applied[group] += 1;
            let index = self.applied[group];
            let length = usize::try_from(entropy.below(4000)).unwrap();
            let name = format!("setting {}", entropy.below(150));
            let value = (entropy.below(4) != 0).then(|| format!("{index}{}", "x".repeat(length)));
            let command = Command {
                op_id: OpId {
                    node: NodeId(1),
                    boot: 1,
                    seq: index,
                },
                settled_below: index,
                time: UnixMillis(index),
                op: Op::Directory(DirectoryOp::SetSetting { name, value }),
            };
            let rows = &self.groups[group];
            let mut overlay = Overlay::new(&**rows);
            let applied = state::apply(&overlay, MachineKind::Directory, &command).unwrap();
            overlay.add(&applied.batch);
            let row = MachineRow {
                applied: Some(log_id(1, index)),
                digest: state::digest::stored(&overlay).unwrap(),
                ..MachineRow::default()
            };
            self.history.insert((u32::try_from(group).unwrap(), index), row.digest);
            rows.write(&overlay.into_batch(), &row.encode().unwrap())
                .now_or_never()
                .unwrap()
                .unwrap();
        }
    }
}

fn read_all(directory: &Path) -> Files {
    let mut files = Files::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                files.insert(
                    path.strip_prefix(directory).unwrap().to_owned(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    files
}

/// What a power loss may leave: of each block the old or the new bytes, of each file the old or the new end or one between.
fn mixture(old: &Files, new: &Files, entropy: &dyn Entropy, directory: &Path) {
    // From nearly all new to nearly all old.
    let old_of_16 = entropy.below(17);
    let paths: std::collections::BTreeSet<&PathBuf> = old.keys().chain(new.keys()).collect();
    for path in paths {
        let empty = Vec::new();
        let (before, after) = (old.get(path).unwrap_or(&empty), new.get(path).unwrap_or(&empty));
        if (!old.contains_key(path) || !new.contains_key(path)) && entropy.below(2) == 0 {
            continue;
        }
        let mut bytes = after.clone();
        bytes.resize(before.len().max(after.len()), 0);
        for (number, block) in bytes.chunks_mut(BLOCK_BYTES).enumerate() {
            if entropy.below(16) < old_of_16 {
                let start = number * BLOCK_BYTES;
                for (offset, byte) in block.iter_mut().enumerate() {
                    *byte = before.get(start + offset).copied().unwrap_or(0);
                }
            }
        }
        let (least, most) = (before.len().min(after.len()), before.len().max(after.len()));
        let end = match entropy.below(4) {
            0 => least + usize::try_from(entropy.below((most - least) as u64 + 1)).unwrap(),
            _ => after.len(),
        };
        bytes.truncate(end);
        let target = directory.join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(target, bytes).unwrap();
    }
}

/// Asserts that each group has a state that it had, as of the entry that it names.
fn assert_is_of(history: &History, engine: &SledEngine, seed: u64) {
    let mut last = None;
    while let Some(rows) = StoredRows::next(engine, last.as_ref()).unwrap() {
        let group = u32::from_be_bytes(*rows.name().first_chunk().unwrap());
        let recomputed = state::digest::recomputed(&rows).unwrap();
        let expected = match rows.machine_row().unwrap() {
            None => Digest::default(),
            Some(bytes) => history[&(group, MachineRow::decode(&bytes).unwrap().applied.unwrap().index)],
        };
        assert_eq!(recomputed, expected, "seed {seed}, group {group}");
        last = Some(rows);
    }
}

#[derive(Debug, Default)]
struct Counts {
    whole: u32,
    refused_by_sled: u32,
    refused_by_us: u32,
}

fn run_seed(seed: u64, mixtures: u64, counts: &mut Counts) {
    let entropy: &dyn Entropy = &SeededEntropy::new(seed);
    let root = tempfile::tempdir().unwrap();
    let live = root.path().join("live");
    let engine = Arc::new(SledEngine::open(&live, CACHE).unwrap());
    let mut writer = Writer::new(engine);
    writer.work(entropy, 100 + entropy.below(900));
    writer.engine.checkpoint().unwrap();
    let old = read_all(&live);
    writer.work(entropy, 1 + entropy.below(900));
    if entropy.below(2) == 0 {
        // Written, but our sync of it did not end.
        writer.engine.checkpoint().unwrap();
    }
    let new = read_all(&live);
    for number in 0..mixtures {
        let directory = root.path().join(format!("mixture-{number}"));
        fs::create_dir(&directory).unwrap();
        mixture(&old, &new, entropy, &directory);
        let (engine, aside) = SledEngine::open_or_set_aside(&directory, CACHE).unwrap();
        match aside {
            None => counts.whole += 1,
            Some(aside) if aside.reason.contains("written together") => counts.refused_by_us += 1,
            Some(_) => counts.refused_by_sled += 1,
        }
        assert_is_of(&writer.history, &engine, seed);
        // And it can be worked with.
        let mut again = Writer::new(Arc::new(engine));
        again.work(entropy, 20);
        verify(&*again.engine).unwrap();
    }
}

#[test]
fn rows_that_were_not_written_together_are_found() {
    let written = || {
        let mut writer = Writer::new(Arc::new(MemoryEngine::default()));
        writer.work(&SeededEntropy::new(1), 100);
        writer.engine
    };
    let engine = written();
    verify(&*engine).unwrap();
    let mut keys = Vec::new();
    engine
        .scan(&[], &[0xFF], &mut |key, value| {
            keys.push((key.to_vec(), value.to_vec()));
            true
        })
        .unwrap();
    assert!(keys.len() > 50);
    for (key, value) in keys {
        for changed in [None, Some([value.as_slice(), b"x"].concat())] {
            let mut batch = Batch::default();
            match changed {
                None => batch.delete(key.as_slice()),
                Some(changed) => batch.put(key.as_slice(), changed),
            }
            engine.write(&batch).unwrap();
            assert!(matches!(verify(&*engine), Err(KvError::Damaged(_))), "{key:02x?}");
        }
        let mut batch = Batch::default();
        batch.put(key, value);
        engine.write(&batch).unwrap();
        verify(&*engine).unwrap();
    }
}

#[test]
fn an_index_that_lost_pages_is_a_state_that_was_or_is_set_aside() {
    let seeds = std::env::var("SLED_PAGES_SEEDS").map_or(3, |text| text.parse().unwrap());
    let mut counts = Counts::default();
    for seed in 1..=seeds {
        run_seed(seed, 6, &mut counts);
        eprintln!("up to seed {seed}: {counts:?}");
    }
}
