//! The segment that is made ahead.

use platform::{DiskCall, FaultyDisk, SeededEntropy};

use super::super::*;
use super::{LatePool, SEGMENT, append, config, indexes, key, open, segments, submit};

/// A log whose jobs run when the test says so, with one group.
fn late(disk: &FaultyDisk) -> (SharedLog, Arc<LatePool>) {
    let pool = Arc::new(LatePool::default());
    let log = SharedLog::open(Arc::new(disk.clone()), pool.clone(), &SeededEntropy::new(5), config()).unwrap();
    log.submit(key(1), vec![Record::Created], Box::new(|result| result.unwrap()));
    pool.run();
    (log, pool)
}

fn add(log: &SharedLog, indexes: Range<u64>) {
    for index in indexes {
        log.submit(
            key(1),
            vec![append(1, index, &[1; 400])],
            Box::new(|result| result.unwrap()),
        );
    }
}

fn has_spare(disk: &FaultyDisk) -> bool {
    disk.paths().contains(&"log/next.tmp".to_owned())
}

/// Octets written to the file that becomes a segment, and how often it was synced.
fn made(trace: &[DiskCall]) -> (u64, usize) {
    let octets = trace.iter().map(|call| match call {
        DiskCall::Write(path, _, count) if path.ends_with("next.tmp") => *count as u64,
        _ => 0,
    });
    let syncs = trace
        .iter()
        .filter(|call| matches!(call, DiskCall::Sync(path) if path.ends_with("next.tmp")));
    (octets.sum(), syncs.count())
}

#[test]
fn the_next_segment_is_made_ahead_and_a_batch_waits_for_its_header_only() {
    let disk = FaultyDisk::new();
    let (log, pool) = late(&disk);
    assert!(!has_spare(&disk));
    add(&log, 0..10);
    pool.run();
    assert!(has_spare(&disk), "more than half is used");
    pool.run();
    disk.start_trace();
    let before = log.segment_count();
    let mut index = 10;
    while log.segment_count() == before {
        add(&log, index..index + 1);
        index += 1;
        pool.run();
    }
    // What the batch waited for: a header, and the sync of one sector.
    assert_eq!(made(&disk.trace()), (record::SEGMENT_HEADER_BYTES as u64, 1));
    drop(log);
    disk.crash_strictly();
    assert_eq!(indexes(&open(&disk), key(1)), (0..index).collect::<Vec<_>>());
}

#[test]
fn who_needs_the_segment_finishes_it() {
    let disk = FaultyDisk::new();
    let (log, pool) = late(&disk);
    add(&log, 0..10);
    // The job that writes runs, the one that zeroes is still to come.
    pool.run();
    assert!(has_spare(&disk));
    let steps = pool.take();
    disk.start_trace();
    add(&log, 10..20);
    pool.run();
    assert_eq!(log.segment_count(), 2);
    assert_eq!(made(&disk.trace()).0, SEGMENT + record::SEGMENT_HEADER_BYTES as u64);
    // The job that comes late leaves the segment alone, which is in use now.
    for step in steps {
        step();
    }
    add(&log, 20..22);
    pool.run();
    drop(log);
    assert_eq!(indexes(&open(&disk), key(1)), (0..22).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_was_half_made_at_a_crash_is_thrown_away() {
    for seed in 0..20 {
        let disk = FaultyDisk::new();
        let (log, pool) = late(&disk);
        add(&log, 0..10);
        pool.run();
        if seed % 2 == 0 {
            pool.run();
        }
        drop(log);
        disk.crash(seed);
        let log = open(&disk);
        assert!(!has_spare(&disk));
        assert_eq!(indexes(&log, key(1)), (0..10).collect::<Vec<_>>());
        for index in 10..40 {
            submit(&log, key(1), vec![append(1, index, &[2; 400])]).unwrap();
        }
        assert_eq!(segments(&disk).len(), log.segment_count());
    }
}

#[test]
fn nothing_is_made_ahead_on_a_disk_that_is_nearly_full() {
    let disk = FaultyDisk::new();
    let (log, pool) = late(&disk);
    disk.set_capacity(Some(4 * SEGMENT));
    add(&log, 0..10);
    pool.run();
    pool.run();
    assert!(!has_spare(&disk));
    // It is made when it is needed.
    add(&log, 10..20);
    pool.run();
    assert_eq!(log.segment_count(), 2);
}

#[test]
fn a_disk_that_becomes_full_costs_the_spare_and_nothing_else() {
    let disk = FaultyDisk::new();
    let (log, pool) = late(&disk);
    add(&log, 0..10);
    pool.run();
    assert!(has_spare(&disk));
    disk.set_capacity(Some(SEGMENT + 1000));
    pool.run();
    assert!(!has_spare(&disk));
    assert!(log.failure().is_none());
    disk.set_capacity(None);
    add(&log, 10..20);
    pool.run();
    assert_eq!(log.segment_count(), 2);
}

#[test]
fn a_failed_sync_of_the_segment_that_is_made_ahead_ends_the_log() {
    let disk = FaultyDisk::new();
    let (log, pool) = late(&disk);
    add(&log, 0..10);
    pool.run();
    disk.fail_syncs(1);
    pool.run();
    assert!(matches!(log.failure(), Some(LogError::SyncFailed(_))));
}
