//! Pins against clones, and installs that are cut short.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use proptest::prelude::*;
use state::MemoryEngine;

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(engine: &Arc<MemoryEngine>) -> Arc<GroupRows> {
    GroupRows::open(engine.clone(), GroupId(7), Incarnation(1)).unwrap()
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
                Step::Collect => rows.collect().unwrap(),
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
        rows.collect().unwrap();
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
    rows.collect().unwrap();
    assert_eq!(live(&rows), model);
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
