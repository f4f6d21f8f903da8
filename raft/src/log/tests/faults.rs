//! Disks that are full and disks that fail.

use std::sync::atomic::{AtomicUsize, Ordering};

use platform::{FaultyDisk, SeededEntropy};

use super::super::*;
use super::{LatePool, SEGMENT, append, config, indexes, key, open, submit, try_open};

#[test]
fn a_failed_sync_ends_the_log_for_good() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    submit(&log, key(1), vec![Record::Created, append(1, 0, b"x")]).unwrap();
    disk.fail_syncs(1);
    assert!(matches!(
        submit(&log, key(1), vec![append(1, 1, b"y")]),
        Err(LogError::SyncFailed(_))
    ));
    // The disk is well again, but nobody knows what it holds.
    assert!(matches!(
        submit(&log, key(1), vec![append(1, 2, b"z")]),
        Err(LogError::SyncFailed(_))
    ));
    assert!(matches!(
        log.note_committed(key(1), LogMark { term: 1, index: 0 }),
        Err(LogError::SyncFailed(_))
    ));
    assert!(log.failure().is_some());
    drop(log);
    disk.crash(3);
    let kept = indexes(&open(&disk), key(1));
    assert!(kept == [0] || kept == [0, 1]);
}

#[test]
fn everything_that_waits_fails_with_the_sync() {
    let disk = FaultyDisk::new();
    let pool = Arc::new(LatePool::default());
    let log = SharedLog::open(Arc::new(disk.clone()), pool.clone(), &SeededEntropy::new(1), config()).unwrap();
    let failed = Arc::new(AtomicUsize::new(0));
    for group in 0..300 {
        let failed = Arc::clone(&failed);
        let done = move |result: Result<(), LogError>| {
            assert!(matches!(result, Err(LogError::SyncFailed(_))));
            failed.fetch_add(1, Ordering::Relaxed);
        };
        log.submit(
            key(group),
            vec![Record::Created, append(1, 0, &[1; 100])],
            Box::new(done),
        );
    }
    disk.fail_syncs(1);
    pool.run();
    assert_eq!(failed.load(Ordering::Relaxed), 300);
}

#[test]
fn a_full_disk_refuses_whole_requests_and_the_log_works_again_when_there_is_room() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    submit(&log, key(1), vec![Record::Created]).unwrap();
    disk.set_capacity(Some(3 * SEGMENT + 100));
    let mut index = 0;
    let error = loop {
        match submit(&log, key(1), vec![append(1, index, &[1; 200])]) {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Full(_)), "{error}");
    assert!(index > 40);
    // Nothing of it is kept, in memory or on the disk, and the log is not broken.
    assert_eq!(
        log.state(key(1)).unwrap().last,
        Some(LogMark {
            term: 1,
            index: index - 1
        })
    );
    assert!(log.failure().is_none());
    assert!(matches!(
        submit(&log, key(1), vec![append(1, index, &[1; 200])]),
        Err(LogError::Full(_))
    ));
    assert!(
        disk.paths()
            .iter()
            .all(|path| path.ends_with(".seg") || path == "log.id"),
        "{:?}",
        disk.paths()
    );
    disk.set_capacity(None);
    submit(&log, key(1), vec![append(1, index, &[2; 200])]).unwrap();
    submit(&log, key(1), vec![append(1, index + 1, &[2; 200])]).unwrap();
    drop(log);
    disk.crash_strictly();
    assert_eq!(indexes(&open(&disk), key(1)), (0..=index + 1).collect::<Vec<u64>>());
}

#[test]
fn on_a_full_disk_a_purge_still_fits_and_makes_room() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    submit(&log, key(1), vec![Record::Created]).unwrap();
    disk.set_capacity(Some(3 * SEGMENT + 100));
    let mut index = 0;
    while submit(&log, key(1), vec![append(1, index, &[1; 600])]).is_ok() {
        index += 1;
    }
    let upto = LogMark {
        term: 1,
        index: index - 1,
    };
    submit(&log, key(1), vec![Record::Purge { upto }]).unwrap();
    assert!(log.segment_count() < 3);
    // The simulated disk counts a removed file until a crash.
    disk.set_capacity(Some(3 * SEGMENT + 100 + (3 - log.segment_count() as u64) * SEGMENT));
    for more in 0..10 {
        submit(&log, key(1), vec![append(1, index + more, &[1; 600])]).unwrap();
    }
}

#[test]
fn a_disk_without_room_for_a_first_segment_says_so() {
    let disk = FaultyDisk::new();
    disk.set_capacity(Some(1000));
    assert!(matches!(try_open(&disk), Err(LogError::Full(_))));
    disk.set_capacity(None);
    assert!(open(&disk).groups().is_empty());
}

#[test]
fn a_segment_that_cannot_be_read_is_an_error_and_not_an_empty_log() {
    let disk = FaultyDisk::new();
    drop(open(&disk));
    disk.make_unreadable(&super::newest(&disk));
    assert!(try_open(&disk).is_err());
}
