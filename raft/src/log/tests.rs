//! Tests of the log on a disk that loses what was not synced.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod crash;
mod damage;
mod faults;
mod model;
mod spare;

use core_types::OpenMode;
use platform::{DiskCall, FaultyDisk, InlinePool, SeededEntropy};

use super::*;

pub(super) type Jobs = Mutex<Vec<Box<dyn FnOnce() + Send>>>;

/// Runs its jobs when it is told to, so that a test decides what goes into one batch.
#[derive(Default)]
pub(super) struct LatePool(Jobs);

impl BlockingPool for LatePool {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        self.0.lock().unwrap().push(job);
    }
}

impl LatePool {
    pub(super) fn take(&self) -> Vec<Box<dyn FnOnce() + Send>> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// Runs the jobs that wait; those that they submit wait for the next time.
    pub(super) fn run(&self) {
        for job in self.take() {
            job();
        }
    }
}

pub(super) const SEGMENT: u64 = 8 * 1024;

pub(super) fn key(group: u32) -> GroupKey {
    GroupKey {
        group: GroupId(group),
        incarnation: Incarnation(1),
    }
}

pub(super) fn config() -> LogConfig {
    LogConfig {
        segment_bytes: SEGMENT,
        cache_bytes: 2000,
        ..LogConfig::new(NodeId(1))
    }
}

pub(super) fn try_open(disk: &FaultyDisk) -> Result<SharedLog, LogError> {
    SharedLog::open(
        Arc::new(disk.clone()),
        Arc::new(InlinePool),
        &SeededEntropy::new(5),
        config(),
    )
}

pub(super) fn open(disk: &FaultyDisk) -> SharedLog {
    try_open(disk).unwrap()
}

/// Submits to a log with an inline pool: it is done on return.
pub(super) fn submit(log: &SharedLog, key: GroupKey, records: Vec<Record>) -> Result<(), LogError> {
    let result = Arc::new(Mutex::new(None));
    let told = Arc::clone(&result);
    log.submit(
        key,
        records,
        Box::new(move |result| *told.lock().unwrap() = Some(result)),
    );
    let result = result.lock().unwrap().take();
    result.expect("completed on return")
}

pub(super) fn append(term: u64, index: u64, body: &[u8]) -> Record {
    Record::Append(LogEntry {
        mark: LogMark { term, index },
        body: Bytes::copy_from_slice(body),
    })
}

pub(super) fn indexes(log: &SharedLog, key: GroupKey) -> Vec<u64> {
    let entries = log.read(key, 0..u64::MAX, usize::MAX).unwrap();
    entries.iter().map(|entry| entry.mark.index).collect()
}

/// The segments, oldest first.
pub(super) fn segments(disk: &FaultyDisk) -> Vec<String> {
    disk.paths().into_iter().filter(|path| path.ends_with(".seg")).collect()
}

/// The newest segment.
pub(super) fn newest(disk: &FaultyDisk) -> String {
    segments(disk).pop().unwrap()
}

#[test]
fn what_is_submitted_is_read_back_before_and_after_it_is_opened_again() {
    let disk = FaultyDisk::new();
    {
        let log = open(&disk);
        submit(&log, key(1), vec![Record::Created]).unwrap();
        submit(&log, key(1), (0..10).map(|index| append(1, index, b"one")).collect()).unwrap();
        submit(&log, key(1), vec![Record::Vote(Bytes::from_static(b"vote"))]).unwrap();
        submit(&log, key(1), vec![Record::Truncate { from: 7 }, append(2, 7, b"new")]).unwrap();
        submit(&log, key(1), vec![Record::Committed(LogMark { term: 2, index: 7 })]).unwrap();
        let upto = LogMark { term: 1, index: 2 };
        submit(&log, key(1), vec![Record::Purge { upto }]).unwrap();
        assert_eq!(indexes(&log, key(1)), [3, 4, 5, 6, 7]);
    }
    let log = open(&disk);
    assert_eq!(indexes(&log, key(1)), [3, 4, 5, 6, 7]);
    let last = log.read(key(1), 7..8, usize::MAX).unwrap();
    assert_eq!(last[0].body, Bytes::from_static(b"new"));
    let state = log.state(key(1)).unwrap();
    assert_eq!(state.vote.as_deref(), Some(&b"vote"[..]));
    assert_eq!(state.last, Some(LogMark { term: 2, index: 7 }));
    assert_eq!(state.purged, Some(LogMark { term: 1, index: 2 }));
    assert_eq!(state.committed, state.last);
    assert_eq!(log.groups(), [key(1)]);
}

#[test]
fn one_write_and_one_sync_serve_all_groups_and_nothing_completes_before_them() {
    let disk = FaultyDisk::new();
    let pool = Arc::new(LatePool::default());
    let log = SharedLog::open(Arc::new(disk.clone()), pool.clone(), &SeededEntropy::new(5), config()).unwrap();
    disk.start_trace();
    for group in 0..10 {
        let disk = disk.clone();
        let done = move |result: Result<(), LogError>| {
            result.unwrap();
            disk.note(format!("ack {group}"));
        };
        log.submit(key(group), vec![Record::Created, append(1, 0, b"x")], Box::new(done));
    }
    assert!(disk.trace().is_empty(), "nothing is written where it is submitted");
    pool.run();
    let trace = disk.trace();
    let DiskCall::Write(segment, _, _) = &trace[0] else {
        panic!("{trace:?}")
    };
    assert_eq!(trace[1], DiskCall::Sync(segment.clone()));
    for group in 0..10 {
        assert_eq!(trace[2 + group], DiskCall::Note(format!("ack {group}")));
    }
    // The watermark follows, without a sync.
    assert!(matches!(trace[12..], [DiskCall::Write(..)]), "{trace:?}");
}

#[test]
fn every_completion_comes_after_a_sync_that_follows_its_write() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    submit(&log, key(1), vec![Record::Created]).unwrap();
    disk.start_trace();
    for index in 0..200 {
        let disk = disk.clone();
        disk.note("submit");
        let done = {
            let disk = disk.clone();
            move |_| disk.note("ack")
        };
        log.submit(key(1), vec![append(1, index, &[7; 100])], Box::new(done));
    }
    let mut written: Option<String> = None;
    let mut synced = false;
    for call in disk.trace() {
        match call {
            DiskCall::Note(note) if note == "submit" => (written, synced) = (None, false),
            DiskCall::Note(_) => assert!(synced),
            DiskCall::Write(path, ..) if path.ends_with(".seg") && !synced => written = Some(path),
            DiskCall::Sync(path) => synced |= written.as_ref() == Some(&path),
            _ => {}
        }
    }
    assert!(log.segment_count() > 3);
}

#[test]
fn entries_that_left_memory_are_read_from_the_disk() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    submit(&log, key(1), vec![Record::Created]).unwrap();
    for index in 0..100 {
        submit(
            &log,
            key(1),
            vec![append(1, index, &[u8::try_from(index).unwrap(); 50])],
        )
        .unwrap();
    }
    assert!(!log.is_cached(key(1), 0..100, usize::MAX).unwrap());
    assert!(log.is_cached(key(1), 99..100, usize::MAX).unwrap());
    let entries = log.read(key(1), 0..100, usize::MAX).unwrap();
    assert_eq!(entries.len(), 100);
    for (index, entry) in entries.iter().enumerate() {
        assert_eq!(entry.body[..], [u8::try_from(index).unwrap(); 50]);
    }
    assert_eq!(log.read(key(1), 0..100, 1).unwrap().len(), 1);
}

#[test]
fn a_hole_and_an_unknown_group_and_a_large_record_are_refused_and_leave_nothing() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    let refused = submit(&log, key(1), vec![append(1, 0, b"x")]);
    assert!(matches!(refused, Err(LogError::NoGroup(_))));
    submit(&log, key(1), vec![Record::Created, append(1, 0, b"x")]).unwrap();
    let refused = submit(&log, key(1), vec![append(1, 1, b"x"), append(1, 3, b"x")]);
    assert!(matches!(refused, Err(LogError::Hole { index: 3, .. })));
    assert_eq!(indexes(&log, key(1)), [0]);
    for (length, fits) in [
        (limits::LOG_RECORD_BYTES_MAX - 1, true),
        (limits::LOG_RECORD_BYTES_MAX, true),
        (limits::LOG_RECORD_BYTES_MAX + 1, false),
    ] {
        let next = log.state(key(1)).unwrap().last.unwrap().index + 1;
        let taken = submit(&log, key(1), vec![append(1, next, &vec![1; length])]);
        assert_eq!(taken.is_ok(), fits, "{length}: {taken:?}");
    }
    drop(log);
    assert_eq!(indexes(&open(&disk), key(1)), [0, 1, 2]);
}

#[test]
fn an_empty_request_completes_when_what_came_before_is_durable() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    submit(&log, key(1), vec![Record::Created]).unwrap();
    submit(&log, key(1), Vec::new()).unwrap();
    assert!(matches!(submit(&log, key(2), Vec::new()), Err(LogError::NoGroup(_))));
}

#[test]
fn purged_segments_go_and_what_else_stood_in_them_stays() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    // A group that is quiet from the beginning on, and many that are not.
    submit(
        &log,
        key(0),
        vec![Record::Created, Record::Vote(Bytes::from_static(b"v0"))],
    )
    .unwrap();
    for group in 1..50 {
        submit(&log, key(group), vec![Record::Created]).unwrap();
    }
    for round in 0..40_u64 {
        for group in 1..50 {
            submit(&log, key(group), vec![append(1, round, &[3; 64])]).unwrap();
        }
        let Some(old) = round.checked_sub(3) else { continue };
        for group in 1..50 {
            let upto = LogMark { term: 1, index: old };
            submit(&log, key(group), vec![Record::Purge { upto }]).unwrap();
        }
    }
    assert!(log.segment_count() < 20, "{}", log.segment_count());
    assert_eq!(segments(&disk).len(), log.segment_count());
    let boot = log.position().boot;
    drop(log);
    disk.crash_strictly();
    let log = open(&disk);
    assert!(log.damages().is_empty());
    assert_eq!(log.groups().len(), 50);
    assert_eq!(log.state(key(0)).unwrap().vote.as_deref(), Some(&b"v0"[..]));
    for group in 1..50 {
        assert_eq!(indexes(&log, key(group)), [37, 38, 39]);
    }
    assert_eq!(log.position().boot, boot + 1);
}

#[test]
fn the_group_that_keeps_old_segments_is_named() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    for group in [1, 2] {
        submit(&log, key(group), vec![Record::Created]).unwrap();
    }
    submit(&log, key(1), vec![append(1, 0, b"old")]).unwrap();
    for index in 0..300 {
        submit(&log, key(2), vec![append(1, index, &[3; 100])]).unwrap();
        let upto = LogMark { term: 1, index };
        submit(&log, key(2), vec![Record::Purge { upto }]).unwrap();
    }
    assert!(log.segment_count() > 4);
    assert_eq!(log.pinning(4), [key(1)]);
    assert!(log.pinning(1000).is_empty());
    submit(&log, key(1), vec![Record::Removed]).unwrap();
    assert!(log.segment_count() <= 2);
    drop(log);
    assert_eq!(open(&disk).groups(), [key(2)]);
}

#[test]
fn the_committed_mark_needs_no_sync_of_its_own() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    submit(
        &log,
        key(1),
        vec![Record::Created, append(1, 0, b"x"), append(1, 1, b"y")],
    )
    .unwrap();
    disk.start_trace();
    let mark = LogMark { term: 1, index: 1 };
    log.note_committed(key(1), mark).unwrap();
    assert!(disk.trace().is_empty());
    assert_eq!(log.state(key(1)).unwrap().committed, Some(mark));
    submit(&log, key(1), vec![append(1, 2, b"z")]).unwrap();
    drop(log);
    disk.crash_strictly();
    assert_eq!(open(&disk).state(key(1)).unwrap().committed, Some(mark));
}

#[test]
fn the_position_grows_over_batches_and_starts() {
    let disk = FaultyDisk::new();
    let log = open(&disk);
    let mut positions = vec![log.position()];
    submit(&log, key(1), vec![Record::Created]).unwrap();
    positions.push(log.position());
    drop(log);
    disk.crash_strictly();
    let log = open(&disk);
    positions.push(log.position());
    submit(&log, key(1), vec![append(1, 0, b"x")]).unwrap();
    positions.push(log.position());
    assert!(
        positions.is_sorted_by(|a, b| (a.boot, a.seq) < (b.boot, b.seq)),
        "{positions:?}"
    );
}

#[test]
fn the_log_of_another_node_and_one_of_another_version_are_refused() {
    let disk = FaultyDisk::new();
    drop(open(&disk));
    let other = LogConfig {
        node: NodeId(2),
        ..config()
    };
    let refused = SharedLog::open(
        Arc::new(disk.clone()),
        Arc::new(InlinePool),
        &SeededEntropy::new(5),
        other,
    );
    assert!(matches!(refused, Err(LogError::WrongNode { found: NodeId(1), .. })));
    let file = disk.open(&newest(&disk), OpenMode::Write).unwrap();
    let mut header = vec![0; 76];
    file.read_exact_at(0, &mut header).unwrap();
    header[0] = 9;
    let crc = crc32c::crc32c(&header[..72]);
    header[72..].copy_from_slice(&crc.to_le_bytes());
    file.write_at(0, &header).unwrap();
    assert!(matches!(
        try_open(&disk),
        Err(LogError::UnknownVersion { found: 9, .. })
    ));
}
