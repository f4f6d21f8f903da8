//! Tests of the disk: what survives, what fails when asked to, and that one seed is one history.

use core_types::WatchedDisk;

use super::*;

fn read(disk: &FaultyDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(0, &mut bytes).unwrap();
    Some(bytes)
}

#[test]
fn what_is_synced_with_its_name_survives_and_nothing_else_does() {
    let disk = FaultyDisk::new();
    disk.create_dir_all("d").unwrap();
    for (name, sync_file, sync_dir) in [("both", true, true), ("file", true, false)] {
        let file = disk.open(&format!("d/{name}"), OpenMode::CreateNew).unwrap();
        file.write_at(0, b"durable").unwrap();
        if sync_file {
            file.sync_data().unwrap();
        }
        if sync_dir {
            disk.sync_dir("d").unwrap();
        }
        file.write_at(0, b"newer..").unwrap();
    }
    disk.crash_strictly();
    assert_eq!(read(&disk, "d/both").as_deref(), Some(&b"durable"[..]));
    assert_eq!(read(&disk, "d/file"), None);
}

#[test]
fn a_rename_without_a_sync_of_the_directory_may_be_undone() {
    let (mut undone, mut done) = (false, false);
    for seed in 0..50 {
        let disk = FaultyDisk::new();
        let file = disk.open("tmp", OpenMode::CreateNew).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("").unwrap();
        disk.rename("tmp", "final").unwrap();
        disk.crash(seed);
        let paths = disk.paths();
        assert_eq!(paths.len(), 1);
        undone |= paths == ["tmp"];
        done |= paths == ["final"];
    }
    assert!(undone && done);
}

#[test]
fn writes_tear_at_sectors() {
    let mut torn = false;
    for seed in 0..50 {
        let disk = FaultyDisk::new();
        let file = disk.open("f", OpenMode::CreateNew).unwrap();
        file.set_len(2048).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(100, &[7; 1500]).unwrap();
        disk.crash(seed);
        let bytes = read(&disk, "f").unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0 || *byte == 7));
        let sevens = bytes.iter().filter(|byte| **byte == 7).count();
        torn |= sevens != 0 && sevens != 1500;
        assert!(file.read_at(0, &mut [0]).is_err(), "handles die with the crash");
    }
    assert!(torn);
}

#[test]
fn a_removed_file_gives_its_room_back_with_its_last_handle() {
    let disk = FaultyDisk::new();
    disk.set_capacity(Some(10));
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write_at(0, &[1; 10]).unwrap();
    let again = disk.open("f", OpenMode::Read).unwrap();
    disk.remove("f").unwrap();
    drop(file);
    assert_eq!(disk.free_bytes().unwrap(), 0, "it is open");
    drop(again);
    assert_eq!(disk.free_bytes().unwrap(), 10);
    // Another file takes its place.
    for name in ["a", "b"] {
        disk.open(name, OpenMode::CreateNew)
            .unwrap()
            .write_at(0, &[1; 5])
            .unwrap();
    }
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.free_bytes().unwrap(), 5);
}

#[test]
fn faults_come_when_asked_for() {
    let disk = FaultyDisk::new();
    disk.start_trace();
    disk.set_capacity(Some(10));
    let file = disk.open("f", OpenMode::CreateOrOpen).unwrap();
    assert_eq!(file.write_at(0, &[1; 11]).unwrap_err().kind, DiskErrorKind::Full);
    file.write_at(0, &[1; 10]).unwrap();
    disk.fail_syncs(1);
    assert_eq!(file.sync_data().unwrap_err().kind, DiskErrorKind::SyncFailed);
    file.sync_data().unwrap();
    disk.flip_bit("f", 3, 0);
    assert_eq!(read(&disk, "f").unwrap()[3], 0);
    disk.make_unreadable("f");
    assert!(file.read_at(0, &mut [0]).is_err());
    assert_eq!(
        disk.trace(),
        [
            DiskCall::Create("f".into()),
            DiskCall::Write("f".into(), 0, 10),
            DiskCall::Sync("f".into())
        ]
    );
}

#[test]
fn on_a_watched_disk_no_sync_works_after_one_that_failed() {
    let disk = FaultyDisk::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&told);
    let tell = Box::new(move |error: &DiskError| hook.lock().unwrap().push(error.to_string()));
    let watched = WatchedDisk::new(Arc::new(disk.clone()), tell);
    watched.create_dir_all("d").unwrap();
    let (one, other) = (
        watched.open("d/1", OpenMode::CreateNew).unwrap(),
        watched.open("d/2", OpenMode::CreateNew).unwrap(),
    );
    one.sync_data().unwrap();
    disk.fail_syncs(1);
    one.sync_data().unwrap_err();
    for result in [one.sync_data(), other.sync_data(), watched.sync_dir("d")] {
        assert_eq!(result.unwrap_err().kind, DiskErrorKind::SyncFailed);
    }
    assert_eq!(*told.lock().unwrap(), ["d/1: sync failed (injected)"]);
    other.write_at(0, b"x").unwrap();
    assert_eq!(watched.list("d").unwrap(), ["1", "2"]);
}

fn filled(length: usize) -> (FaultyDisk, Arc<dyn File>) {
    let disk = FaultyDisk::new();
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write_at(0, &vec![1; length]).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    (disk, file)
}

#[test]
fn rules_hit_their_paths_and_classes_as_often_as_they_say() {
    let disk = FaultyDisk::new();
    disk.create_dir_all("log").unwrap();
    let log = disk.open("log/1", OpenMode::CreateNew).unwrap();
    let other = disk.open("other", OpenMode::CreateNew).unwrap();
    disk.add_rule(
        FaultRule::always(Effect::Eio)
            .under("log/")
            .on(&[CallClass::Write])
            .times(2),
    );
    for _ in 0..2 {
        assert_eq!(log.write_at(0, b"x").unwrap_err().kind, DiskErrorKind::Other);
        other.write_at(0, b"x").unwrap();
    }
    log.write_at(0, b"x").unwrap();
    assert_eq!(disk.fired(), BTreeMap::from([("disk.eio.write".to_owned(), 2)]));

    let half = disk.add_rule(FaultRule::always(Effect::Full).permille(500));
    let failed = (0..200).filter(|_| other.write_at(0, b"x").is_err()).count();
    assert!((50..150).contains(&failed), "{failed}");
    assert!(other.read_at(0, &mut [0]).is_ok(), "a read needs no room");
    disk.remove_rule(half);
    assert!((0..200).all(|_| other.write_at(0, b"x").is_ok()));
}

#[test]
fn a_failed_sync_leaves_what_was_written_unknown_for_good() {
    let (mut kept, mut lost) = (false, false);
    for seed in 0..40 {
        let (disk, file) = filled(4);
        disk.reseed(seed);
        file.write_at(0, &[2; 4]).unwrap();
        disk.add_rule(FaultRule::always(Effect::Eio).on(&[CallClass::Sync]).times(1));
        assert_eq!(file.sync_data().unwrap_err().kind, DiskErrorKind::SyncFailed);
        assert_eq!(read(&disk, "f").unwrap(), [2; 4], "the cache still shows it");
        file.sync_data().unwrap();
        disk.crash_strictly();
        let bytes = read(&disk, "f").unwrap();
        kept |= bytes == [2; 4];
        lost |= bytes == [1; 4];
    }
    assert!(kept && lost, "a later sync that works proves nothing");
}

#[test]
fn a_sync_that_is_ignored_is_found_by_a_crash() {
    let (disk, file) = filled(4);
    disk.add_rule(FaultRule::always(Effect::IgnoredSync));
    file.write_at(0, &[2; 4]).unwrap();
    file.sync_data().unwrap();
    disk.rename("f", "g").unwrap();
    disk.sync_dir("").unwrap();
    disk.crash_strictly();
    assert_eq!(read(&disk, "f").unwrap(), [1; 4]);
}

#[test]
fn a_full_disk_takes_the_sectors_that_fit_and_no_new_file() {
    let (disk, file) = filled(512);
    disk.set_capacity(Some(2000));
    assert_eq!(file.write_at(512, &[2; 4000]).unwrap_err().kind, DiskErrorKind::Full);
    assert_eq!(file.len().unwrap(), 1536);
    assert_eq!(file.set_len(3000).unwrap_err().kind, DiskErrorKind::Full);
    disk.set_capacity(Some(1536));
    assert_eq!(
        disk.open("new", OpenMode::CreateOrOpen).unwrap_err().kind,
        DiskErrorKind::Full
    );
    file.write_at(0, &[3; 1536]).unwrap();
    disk.heal();
    file.write_at(512, &[2; 4000]).unwrap();
}

#[test]
fn writes_go_astray_or_get_lost_and_reads_come_short_or_flipped() {
    let (disk, file) = filled(100 * 512);
    let rule = disk.add_rule(FaultRule::always(Effect::Misdirected));
    file.write_at(50 * 512, &[2; 512]).unwrap();
    disk.remove_rule(rule);
    let bytes = read(&disk, "f").unwrap();
    assert_eq!(bytes.len(), 100 * 512, "within the file");
    assert_eq!(bytes.iter().filter(|byte| **byte == 2).count(), 512);
    assert_eq!(bytes[50 * 512], 1);

    disk.add_rule(FaultRule::always(Effect::LostWrite).times(1));
    file.write_at(0, &[3; 8]).unwrap();
    assert_eq!(read(&disk, "f").unwrap()[0], 1);

    disk.add_rule(FaultRule::always(Effect::FlippedWrite).times(1));
    file.write_at(0, &[0; 8]).unwrap();
    let ones: u32 = read(&disk, "f").unwrap()[..8]
        .iter()
        .map(|byte| byte.count_ones())
        .sum();
    assert_eq!(ones, 1);

    disk.add_rule(FaultRule::always(Effect::ShortRead));
    let count = file.read_at(0, &mut [0; 100]).unwrap();
    assert!((1..100).contains(&count));
    let mut all = [9; 100];
    file.read_exact_at(600, &mut all).unwrap();
    assert_eq!(all, [1; 100], "a reader that goes on gets everything");
    disk.heal();

    disk.add_rule(FaultRule::always(Effect::FlippedRead).times(1));
    file.read_exact_at(600, &mut all).unwrap();
    assert_eq!(all.iter().filter(|byte| **byte != 1).count(), 1);
}

#[test]
fn bits_flip_in_written_parts_of_the_files_named() {
    let (disk, file) = filled(700);
    file.set_len(1 << 20).unwrap();
    disk.create_dir_all("d").unwrap();
    disk.open("d/g", OpenMode::CreateNew)
        .unwrap()
        .write_at(0, &[1; 5000])
        .unwrap();
    let flip = disk.flip_bit_under("d/", 3).unwrap();
    assert_eq!(flip.path, "d/g");
    assert_ne!(read(&disk, "d/g").unwrap()[usize::try_from(flip.offset).unwrap()], 1);
    for seed in 0..20 {
        assert!(disk.flip_bit_under("f", seed).is_none_or(|flip| flip.offset < 1024));
    }
    assert_eq!(disk.flip_bit_under("nothing", 1), None);
    disk.truncate_at_rest("d/g", 10);
    assert_eq!(read(&disk, "d/g").unwrap().len(), 10);
    assert_eq!(disk.remove_at_rest("d/"), ["d/g"]);
    disk.crash(1);
    assert_eq!(disk.paths(), ["f"]);
}

#[test]
fn an_image_brings_back_what_was_durable_then() {
    let (disk, file) = filled(10_000);
    file.write_at(0, b"not synced").unwrap();
    disk.create_dir_all("d").unwrap();
    let image = disk.image();
    assert_eq!(image.files(), [("f".to_owned(), 10_000)]);
    disk.open("d/g", OpenMode::CreateNew).unwrap();
    disk.remove("f").unwrap();
    disk.sync_dir("").unwrap();
    disk.sync_dir("d").unwrap();
    disk.restore(&image);
    assert_eq!(disk.paths(), ["f"]);
    assert_eq!(read(&disk, "f").unwrap(), vec![1; 10_000]);
    assert!(file.len().is_err(), "handles die");
    disk.crash_strictly();
    assert_eq!(disk.paths(), ["f"], "and it is durable");
    // Another disk takes it too; the two share nothing afterwards.
    let twin = FaultyDisk::new();
    twin.restore(&image);
    twin.flip_bit("f", 0, 0);
    assert_eq!(read(&disk, "f").unwrap()[0], 1);
    twin.wipe();
    assert!(twin.paths().is_empty() && twin.list("").unwrap().is_empty());
}

#[test]
fn a_killed_process_loses_nothing_until_the_power_fails() {
    let (disk, file) = filled(4);
    file.write_at(0, &[2; 4]).unwrap();
    disk.open("g", OpenMode::CreateNew).unwrap();
    disk.kill();
    assert!(file.write_at(0, &[3; 4]).is_err());
    assert_eq!(disk.paths(), ["f", "g"]);
    assert_eq!(read(&disk, "f").unwrap(), [2; 4]);
    disk.crash_strictly();
    assert_eq!(disk.paths(), ["f"]);
    assert_eq!(read(&disk, "f").unwrap(), [1; 4]);
}

#[test]
fn the_power_fails_between_two_calls() {
    let (disk, file) = filled(4);
    disk.power_off_after(1);
    file.write_at(0, &[2; 4]).unwrap();
    assert!(!disk.is_powered_off());
    assert!(file.sync_data().is_err());
    assert!(disk.is_powered_off() && disk.list("").is_err());
    disk.crash_strictly();
    assert!(!disk.is_powered_off());
    assert_eq!(read(&disk, "f").unwrap(), [1; 4]);
}

#[test]
fn calls_take_the_time_that_they_are_given() {
    let (disk, file) = filled(4);
    assert_eq!(disk.begin_job(), Some(Duration::ZERO));
    let (min, max) = (Duration::from_millis(10), Duration::from_millis(30));
    disk.set_delay(CallClass::Sync, Some(Delay { min, max }));
    let paid = disk.begin_job().unwrap();
    assert!((min..=max).contains(&paid));
    for _ in 0..3 {
        file.sync_data().unwrap();
    }
    let owed = disk.take_delay();
    assert!((min * 3..=max * 3).contains(&(owed + paid)), "{owed:?} {paid:?}");
    assert_eq!(disk.take_delay(), Duration::ZERO);
    disk.freeze();
    assert_eq!(disk.begin_job(), None);
    disk.thaw();
    assert!(disk.begin_job().is_some());
    disk.heal();
    disk.set_delays(Some(Delay { min, max: min }));
    assert_eq!(disk.delay_of(CallClass::Rename), min);
}

#[test]
fn one_seed_is_one_history_and_the_hook_sees_all_of_it() {
    let run = |seed| {
        let (disk, file) = filled(5000);
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        disk.set_hook(Some(Arc::new(move |event: &CallEvent<'_>| {
            sink.lock().unwrap().push(event.line());
        })));
        disk.reseed(seed);
        for effect in [Effect::Eio, Effect::FlippedRead, Effect::Misdirected, Effect::LostWrite] {
            disk.add_rule(FaultRule::always(effect).permille(300));
        }
        for round in 0..50_u64 {
            let _ = file.write_at(round * 100, &[7; 700]);
            let _ = file.read_at(round * 90, &mut [0; 300]);
            let _ = file.sync_data();
        }
        let _ = disk.rename("f", "g");
        let _ = disk.list("");
        lines.lock().unwrap().clone()
    };
    let lines = run(1);
    assert_eq!(lines, run(1));
    assert_ne!(lines, run(2));
    assert_eq!(lines.len(), 152);
    assert!(lines.iter().any(|line| line.ends_with("failed:SyncFailed fault:eio")));
    assert!(lines[0].starts_with("write f "), "{}", lines[0]);
}
