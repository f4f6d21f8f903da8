//! Bits that flip at rest: below the watermark they are named, above it they are a torn tail.

use core_types::{Disk, OpenMode};
use platform::{CallClass, Effect, FaultRule, FaultyDisk, InlinePool, SeededEntropy};

use super::super::record::SEGMENT_HEADER_BYTES;
use super::super::*;
use super::{SEGMENT, append, config, indexes, key, model, newest, open, submit, try_open};

/// A log of some segments: groups 1, 2 and 3 in turn.
fn filled(disk: &FaultyDisk, entries: u64) -> SharedLog {
    fill(open(disk), entries)
}

fn fill(log: SharedLog, entries: u64) -> SharedLog {
    for group in 1..=3 {
        submit(
            &log,
            key(group),
            vec![Record::Created, Record::Vote(Bytes::from_static(b"v"))],
        )
        .unwrap();
    }
    for index in 0..entries {
        for group in 1..=3 {
            submit(&log, key(group), vec![append(1, index, &[5; 80])]).unwrap();
        }
    }
    log
}

fn place_of(log: &SharedLog, key: GroupKey, index: u64) -> (String, u64) {
    let shared = log.inner.lock();
    let place = shared.index.place(key, index).unwrap();
    (shared.segments[&place.segment].path.clone(), place.offset)
}

#[test]
fn a_flipped_bit_below_the_watermark_is_named_with_its_segment_offset_and_group() {
    let disk = FaultyDisk::new();
    let log = filled(&disk, 60);
    let (segment, offset) = place_of(&log, key(2), 20);
    drop(log);
    disk.flip_bit(&segment, offset + 50, 3);
    let log = open(&disk);
    let damages = log.damages();
    assert_eq!(damages.len(), 1);
    assert_eq!(
        (&damages[0].segment, damages[0].offset, &damages[0].groups),
        (&segment, offset, &Some(vec![key(2)]))
    );
    assert!(log.state(key(2)).unwrap().damage.is_some());
    assert!(matches!(
        submit(&log, key(2), vec![Record::Vote(Bytes::new())]),
        Err(LogError::Corrupt(_))
    ));
    assert!(matches!(log.read(key(2), 0..1, 1), Err(LogError::Corrupt(_))));
    // The others are whole and work.
    for group in [1, 3] {
        assert_eq!(indexes(&log, key(group)).len(), 60);
        submit(&log, key(group), vec![append(1, 60, b"x")]).unwrap();
    }
    // The next start finds it again, until the group is created anew.
    drop(log);
    let log = open(&disk);
    assert_eq!(log.damages().len(), 1);
    submit(&log, key(2), vec![Record::Created, append(7, 100, b"repaired")]).unwrap();
    assert!(log.damages().is_empty());
    drop(log);
    let log = open(&disk);
    assert!(log.damages().is_empty());
    assert_eq!(indexes(&log, key(2)), [100]);
    assert_eq!(indexes(&log, key(1)).len(), 61);
}

#[test]
fn a_damaged_marker_below_the_watermark_concerns_every_group() {
    let disk = FaultyDisk::new();
    let log = filled(&disk, 30);
    let (segment, offset) = place_of(&log, key(2), 20);
    drop(log);
    disk.flip_bit(&segment, offset - 10, 3);
    let log = open(&disk);
    assert_eq!(log.damages()[0].groups, None);
    for group in 1..=3 {
        assert!(log.state(key(group)).unwrap().damage.is_some());
    }
    // A group that begins after it is not concerned.
    submit(&log, key(4), vec![Record::Created, append(1, 0, b"x")]).unwrap();
    drop(log);
    assert_eq!(indexes(&open(&disk), key(4)), [0]);
}

#[test]
fn the_last_batch_before_a_pause_is_below_the_watermark() {
    let disk = FaultyDisk::new();
    let log = filled(&disk, 2);
    let (segment, offset) = place_of(&log, key(3), 1);
    drop(log);
    disk.flip_bit(&segment, offset + 45, 0);
    // The marker that says so was written but not synced, and came through.
    assert_eq!(open(&disk).damages()[0].groups, Some(vec![key(3)]));
}

#[test]
fn a_flipped_bit_above_the_watermark_is_a_torn_tail() {
    let disk = FaultyDisk::new();
    let log = filled(&disk, 2);
    let (segment, offset) = place_of(&log, key(3), 1);
    drop(log);
    // The marker that followed the last batch is lost.
    disk.crash_strictly();
    disk.flip_bit(&segment, offset + 45, 0);
    let log = open(&disk);
    assert!(log.damages().is_empty());
    assert_eq!(indexes(&log, key(3)), [0]);
    assert_eq!(indexes(&log, key(2)), [0, 1]);
    submit(&log, key(3), vec![append(2, 1, b"again")]).unwrap();
    drop(log);
    assert_eq!(indexes(&open(&disk), key(3)), [0, 1]);
}

#[test]
fn any_flipped_bit_is_noticed_harmless_or_in_the_last_batch() {
    let disk = FaultyDisk::new();
    let log = filled(&disk, 40);
    let whole = model::read(&log);
    drop(log);
    disk.crash_strictly();
    let last = newest(&disk);
    for seed in 0..1500 {
        let entropy: &dyn Entropy = &SeededEntropy::new(seed);
        let paths = super::segments(&disk);
        let path = &paths[usize::try_from(entropy.below(paths.len() as u64)).unwrap()];
        let (offset, bit) = (entropy.below(SEGMENT), u8::try_from(entropy.below(8)).unwrap());
        // A copy of the disk, since opening writes.
        let copy = copy_of(&disk);
        copy.flip_bit(path, offset, bit);
        let context = format!("{path} {offset} {bit}");
        match try_open(&copy) {
            Ok(log) => {
                let found = model::read(&log);
                let damaged = !log.damages().is_empty();
                for (key, group) in &whole {
                    let same = found.get(key) == Some(group);
                    let concerned = log.state(*key).is_some_and(|state| state.damage.is_some());
                    let torn = *path == last
                        && found
                            .get(key)
                            .is_some_and(|found| found.entries.len() + 1 == group.entries.len());
                    assert!(same || concerned || (torn && !damaged), "{context} {key}");
                }
            }
            Err(LogError::Corrupt(_)) => assert!(offset < SEGMENT_HEADER_BYTES as u64, "{context}"),
            Err(error) => panic!("{context}: {error}"),
        }
    }
}

#[test]
fn zeros_below_the_watermark_do_not_end_the_log() {
    let disk = FaultyDisk::new();
    let log = filled(&disk, 10);
    let (segment, offset) = place_of(&log, key(2), 5);
    drop(log);
    let file = disk.open(&segment, OpenMode::Write).unwrap();
    file.write_at(offset & !511, &[0; 512]).unwrap();
    let log = open(&disk);
    assert_eq!(log.damages()[0].segment, segment);
}

#[test]
fn what_the_disk_does_not_read_is_damage_and_neither_a_torn_tail_nor_the_end() {
    // Segments of several sectors.
    let open = |disk: &FaultyDisk| {
        let config = LogConfig {
            segment_bytes: 8 * SEGMENT,
            ..config()
        };
        let pool = Arc::new(InlinePool);
        SharedLog::open(Arc::new(disk.clone()), pool, &SeededEntropy::new(9), config).unwrap()
    };
    let disk = FaultyDisk::new();
    let log = fill(open(&disk), 260);
    let (old, in_old) = place_of(&log, key(2), 40);
    let (last, in_last) = place_of(&log, key(3), 259);
    assert!(old != last);
    drop(log);
    let length = disk.open(&last, OpenMode::Read).unwrap().len().unwrap();
    let behind = (in_last + 4096).next_multiple_of(4096);
    assert!(in_old > 4096 && in_last > 4096 && behind < length);
    for (segment, offset) in [(&old, in_old), (&last, in_last), (&last, behind), (&old, 100)] {
        let disk = copy_of(&disk);
        disk.make_range_unreadable(segment, offset..offset + 1);
        let log = open(&disk);
        assert!(
            log.damages().iter().any(|damage| &damage.segment == segment),
            "{offset}"
        );
        // All that is not known to be whole takes part in nothing, until it is begun anew.
        assert!(
            log.state(key(2)).is_some_and(|state| state.damage.is_some()),
            "{offset}"
        );
        for group in 1..=3 {
            submit(&log, key(group), vec![Record::Created, append(7, 100, b"repaired")]).unwrap();
        }
        assert!(log.damages().is_empty());
        drop(log);
        let log = open(&disk);
        for group in 1..=3 {
            assert_eq!(indexes(&log, key(group)), [100]);
        }
    }
}

#[test]
fn a_read_that_fails_for_a_moment_costs_nothing_and_a_disk_that_reads_nothing_is_no_damage() {
    let disk = FaultyDisk::new();
    drop(filled(&disk, 30));
    let reads = || FaultRule::always(Effect::Eio).under("log/").on(&[CallClass::Read]);
    disk.add_rule(reads().permille(200).times(20));
    let log = open(&disk);
    disk.heal();
    assert!(log.damages().is_empty());
    assert_eq!(indexes(&log, key(1)).len(), 30);
    drop(log);
    disk.add_rule(reads());
    assert!(matches!(try_open(&disk), Err(LogError::Disk(_))));
    disk.heal();
    assert!(open(&disk).damages().is_empty());
}

#[test]
fn a_missing_segment_concerns_every_group() {
    for which in [0, 1] {
        let disk = FaultyDisk::new();
        drop(filled(&disk, 60));
        let paths = super::segments(&disk);
        assert!(paths.len() > 3);
        disk.remove(&paths[which]).unwrap();
        let log = open(&disk);
        for group in 1..=3 {
            assert!(log.state(key(group)).unwrap().damage.is_some(), "{which}");
        }
    }
}

/// Also where the rest looks like a log that simply ends there.
#[test]
fn a_segment_that_was_cut_concerns_every_group() {
    let lengths = [0, 1, 8, 300, 511, 512, 513, 1000, 4000, 8000];
    for (which, length) in [0, 1]
        .into_iter()
        .flat_map(|which| lengths.map(|length| (which, length)))
    {
        let disk = FaultyDisk::new();
        drop(filled(&disk, 60));
        let paths = super::segments(&disk);
        let path = if which == 0 { &paths[1] } else { paths.last().unwrap() };
        assert!(disk.open(path, OpenMode::Read).unwrap().len().unwrap() > 8000);
        disk.truncate_at_rest(path, length);
        for _ in 0..2 {
            let log = open(&disk);
            for group in 1..=3 {
                assert!(log.state(key(group)).unwrap().damage.is_some(), "{path} {length}");
            }
            // What begins anew works.
            submit(&log, key(9), vec![Record::Created, append(1, 0, b"x")]).unwrap();
            assert_eq!(indexes(&log, key(9)).len(), 1, "{path} {length}");
            drop(log);
            disk.crash_strictly();
        }
    }
}

#[test]
fn damage_that_comes_while_the_node_runs_is_found_when_it_is_read() {
    let disk = FaultyDisk::new();
    let log = filled(&disk, 60);
    let (segment, offset) = place_of(&log, key(2), 20);
    disk.flip_bit(&segment, offset + 50, 3);
    let Err(LogError::Corrupt(damage)) = log.read(key(2), 0..60, usize::MAX) else {
        panic!("read damaged bytes");
    };
    assert_eq!((&damage.segment, damage.offset), (&segment, offset));
}

#[test]
fn an_entry_that_looks_like_a_marker_is_not_one() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    // What an attacker can know: everything but the salt.
    let salt = [0; 16];
    let mut forged = Vec::new();
    for segment in 1..3 {
        let marker = record::Marker {
            seq: 1 << 40,
            durable: 1 << 40,
            bytes: 0,
            groups: Some(Vec::new()),
        };
        let context = Context { salt: &salt, segment };
        marker.encode(&mut forged, context, 1000);
    }
    submit(&log, key(1), vec![Record::Created]).unwrap();
    submit(&log, key(1), vec![append(1, 0, &forged)]).unwrap();
    let (segment, offset) = place_of(&log, key(1), 0);
    drop(log);
    disk.crash_strictly();
    disk.flip_bit(&segment, offset, 0);
    let log = open(&disk);
    assert!(log.damages().is_empty(), "a torn tail, whatever is in it");
    assert!(indexes(&log, key(1)).is_empty());
}

fn copy_of(disk: &FaultyDisk) -> FaultyDisk {
    let copy = FaultyDisk::new();
    copy.create_dir_all("log").unwrap();
    for path in disk.paths() {
        let source = disk.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(source.len().unwrap()).unwrap()];
        source.read_exact_at(0, &mut bytes).unwrap();
        let target = copy.open(&path, OpenMode::CreateNew).unwrap();
        target.write_at(0, &bytes).unwrap();
        target.sync_data().unwrap();
    }
    copy.sync_dir("log").unwrap();
    copy
}
