//! Pins against clones, and installs that are cut short.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use proptest::prelude::*;
use state::MemoryEngine;

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(engine: &Arc<MemoryEngine>) -> Arc<GroupRows> {
    let rows = GroupRows::open(engine.clone(), GroupId(7), Incarnation(1)).unwrap();
    collect(&rows);
    rows
}

fn collect(rows: &GroupRows) {
    while rows.collect_here(3).unwrap() {}
}

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("nothing waits here")
}

fn write(rows: &Arc<GroupRows>, model: &mut Model, key: u8, value: Option<u8>) {
    let mut batch = Batch::default();
    match value {
        Some(value) => {
            batch.put([key], [value]);
            model.insert(vec![key], vec![value]);
        }
        None => {
            batch.delete([key]);
            model.remove(&vec![key]);
        }
    }
    now(rows.write(&batch, b"row")).unwrap();
}

fn pinned(pin: &Pin, limit: usize) -> Model {
    let mut seen = Model::new();
    let mut from = Vec::new();
    loop {
        let (rows, more) = now(pin.chunk(&from, &[0xFF], limit)).unwrap();
        if let Some((last, _)) = rows.last() {
            from = [last.as_slice(), &[0]].concat();
        }
        seen.extend(rows);
        if !more {
            return seen;
        }
    }
}

fn live(rows: &Arc<GroupRows>) -> Model {
    let mut seen = Model::new();
    now(rows.read(&mut |view| {
        view.scan(&[], &[0xFF], &mut |key, value| {
            seen.insert(key.to_vec(), value.to_vec());
            true
        })
        .unwrap();
    }));
    seen
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8, Option<u8>),
    Pin,
    Close(usize),
    Read(usize),
    Collect,
    Install(Vec<(u8, u8)>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..8, prop::option::of(any::<u8>())).prop_map(|(key, value)| Step::Write(key, value)),
        2 => Just(Step::Pin),
        2 => (0_usize..4).prop_map(Step::Close),
        2 => (0_usize..4).prop_map(Step::Read),
        1 => Just(Step::Collect),
        1 => prop::collection::vec((0_u8..8, any::<u8>()), 0..5).prop_map(Step::Install),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_pin_shows_what_a_clone_would_show(steps in prop::collection::vec(step(), 0..60), limit in 1_usize..5) {
        let engine = Arc::new(MemoryEngine::default());
        let rows = open(&engine);
        let mut model = Model::new();
        let mut pins: Vec<(Pin, Model)> = Vec::new();
        for step in steps {
            match step {
                Step::Write(key, value) => write(&rows, &mut model, key, value),
                Step::Pin => pins.push((rows.pin(), model.clone())),
                Step::Close(index) if index < pins.len() => drop(pins.remove(index)),
                Step::Read(index) if index < pins.len() => prop_assert_eq!(&pinned(&pins[index].0, limit), &pins[index].1),
                Step::Close(_) | Step::Read(_) => {}
                Step::Collect => collect(&rows),
                Step::Install(entries) => {
                    let Ok(install) = rows.install() else { continue };
                    model = entries.iter().map(|(key, value)| (vec![*key], vec![*value])).collect();
                    install.add(&model.clone().into_iter().collect::<Vec<_>>()).unwrap();
                    now(install.finish(b"row")).unwrap();
                }
            }
            prop_assert_eq!(&live(&rows), &model);
        }
        for (pin, expected) in &pins {
            prop_assert_eq!(&pinned(pin, limit), expected);
        }
        pins.clear();
        collect(&rows);
        // Nothing but the live rows and the two rows about them is left.
        let meta = engine.entries().keys().filter(|key| key[9] == SPACE_META).count();
        prop_assert_eq!(engine.entries().len() - meta, model.len());
    }
}

#[test]
fn pins_left_over_after_a_crash_are_dropped_at_open() {
    let engine = Arc::new(MemoryEngine::default());
    let rows = open(&engine);
    let mut model = Model::new();
    write(&rows, &mut model, 1, Some(1));
    std::mem::forget(rows.pin());
    write(&rows, &mut model, 1, Some(2));
    write(&rows, &mut model, 2, Some(3));
    assert_eq!(engine.entries().len(), 5);
    let rows = open(&engine);
    assert_eq!(live(&rows), model);
    assert_eq!(rows.machine_row().unwrap().as_deref(), Some(b"row".as_slice()));
    assert_eq!(engine.entries().len(), 3);
}

#[test]
fn an_install_that_was_cut_short_leaves_the_old_state_whole() {
    let engine = Arc::new(MemoryEngine::default());
    let rows = open(&engine);
    let mut model = Model::new();
    write(&rows, &mut model, 1, Some(1));
    let install = rows.install().unwrap();
    install.add(&[(vec![9], vec![9])]).unwrap();
    std::mem::forget(install);
    let rows = open(&engine);
    assert_eq!(live(&rows), model);
    assert_eq!(engine.entries().len(), 2);
    drop(rows.install().unwrap());
    collect(&rows);
    assert_eq!(live(&rows), model);
}

/// An engine that notes how many keys each batch changes.
#[derive(Default)]
struct Counting {
    engine: MemoryEngine,
    batches: Mutex<Vec<usize>>,
}

impl KvRead for Counting {
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

impl KvEngine for Counting {
    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        self.batches.lock().unwrap().push(batch.len());
        self.engine.write(batch)
    }

    fn checkpoint(&self) -> Result<(), KvError> {
        self.engine.checkpoint()
    }

    fn close(&self) -> Result<(), KvError> {
        self.engine.close()
    }

    fn size_bytes(&self) -> Result<u64, KvError> {
        self.engine.size_bytes()
    }
}

/// Counts the jobs, and runs each where it is submitted.
#[derive(Default)]
struct CountingPool(Mutex<usize>);

impl BlockingPool for CountingPool {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        *self.0.lock().unwrap() += 1;
        job();
    }
}

#[tokio::test]
async fn a_large_state_is_cleared_in_pieces_between_which_others_run() {
    let engine = Arc::new(Counting::default());
    let pool = CountingPool::default();
    let rows = GroupRows::open(engine.clone(), GroupId(7), Incarnation(1)).unwrap();
    rows.collect(&pool).await.unwrap();
    let many: Vec<_> = (0..5000_u16).map(|key| (key.to_be_bytes().to_vec(), vec![1])).collect();
    for _ in 0..2 {
        let install = rows.install().unwrap();
        for part in many.chunks(500) {
            install.add(part).unwrap();
        }
        install.finish(b"row").await.unwrap();
    }
    *pool.0.lock().unwrap() = 0;
    engine.batches.lock().unwrap().clear();
    let other = tokio::spawn(async {});
    assert!(rows.collect_piece(&pool).await.unwrap(), "there is more");
    assert!(other.is_finished(), "whoever waited had its turn");
    rows.collect(&pool).await.unwrap();
    let batches = engine.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().sum::<usize>(), 5000);
    assert!(batches.iter().all(|keys| *keys <= CLEAR_KEYS), "{batches:?}");
    assert!(*pool.0.lock().unwrap() >= 5000 / CLEAR_KEYS);
    assert_eq!(live_count(&*rows), 5000);
    // The same when the whole replica goes.
    engine.batches.lock().unwrap().clear();
    GroupRows::remove(engine.clone(), &pool, GroupId(7), Incarnation(1))
        .await
        .unwrap();
    assert!(engine.batches.lock().unwrap().iter().all(|keys| *keys <= CLEAR_KEYS));
    assert!(engine.engine.entries().is_empty());
}

fn live_count(rows: &dyn KvRead) -> usize {
    let mut count = 0;
    rows.scan(&[], &[0xFF], &mut |_, _| {
        count += 1;
        true
    })
    .unwrap();
    count
}

#[test]
fn groups_and_incarnations_do_not_see_each_other() {
    let engine = Arc::new(MemoryEngine::default());
    let mut model = Model::new();
    write(&open(&engine), &mut model, 1, Some(1));
    let later = GroupRows::open(engine.clone(), GroupId(7), Incarnation(2)).unwrap();
    let other = GroupRows::open(engine.clone(), GroupId(8), Incarnation(1)).unwrap();
    assert!(live(&later).is_empty());
    assert!(live(&other).is_empty());
    assert_eq!(live(&open(&engine)), model);
}
