//! The store of one node, on a disk that forgets what was not synced.

use std::collections::BTreeSet;
use std::sync::Mutex;

use platform::{CallClass, DiskCall, Effect, FaultRule, FaultyDisk, InlinePool, SeededEntropy};

use super::*;
use crate::files::{compressed_path, plain_path};
use crate::testing::{config, file_bytes, get, message, open, open_with, put, read_all, seal};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn messages_of_all_sizes_come_back_from_journal_and_file() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    for length in [
        0,
        1,
        16_383,
        16_384,
        16_385,
        40_000,
        MIB - 1,
        MIB,
        MIB + 1,
        2 * MIB,
        2 * MIB + 17,
    ] {
        let raw = message(length, length as u64);
        let sealed = seal(&store, &raw).await.unwrap();
        assert_eq!((sealed.id(), sealed.raw_len()), (BlobId::of(&raw), length as u64));
        assert!(
            read_all(&sealed.reader(&store)).await.unwrap() == raw,
            "{length}: before it is stored"
        );
        store.put(&sealed).await.unwrap();
        assert!(get(&store, sealed.id()).await.unwrap() == raw, "{length}: at once");
        store.flush().await.unwrap();
        assert!(
            get(&store, sealed.id()).await.unwrap() == raw,
            "{length}: from its file"
        );
        let file = file_bytes(&disk, &compressed_path(sealed.id()));
        assert!(
            zstd::stream::decode_all(file.as_ref()).unwrap() == raw,
            "{length}: any zstd decoder"
        );
    }
}

#[tokio::test]
async fn ranges_are_exact() {
    let store = open(&FaultyDisk::new()).await;
    let raw = message(2 * MIB + 500, 5);
    let id = put(&store, &raw).await.unwrap();
    let reader = store.open_blob(id).await.unwrap();
    let mib = MIB as u64;
    for (start, end) in [
        (0, 0),
        (0, 1),
        (mib - 1, mib + 1),
        (mib, 2 * mib),
        (5, 2 * mib + 5),
        (2 * mib + 499, 9 * mib),
        (9 * mib, 10 * mib),
    ] {
        let bytes = reader.read(start..end, 3 * MIB).await.unwrap();
        let clip = |position: u64| (position as usize).min(raw.len());
        assert!(bytes == raw[clip(start)..clip(end)], "{start}..{end}");
    }
    assert!(matches!(reader.read(0..100, 99).await, Err(BlobError::OutOfRange)));
    let mut chunks = reader.read_range(0..u64::MAX);
    while let Some(chunk) = chunks.next().await {
        assert!(chunk.unwrap().len() <= MIB);
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_never_served_and_the_file_is_set_aside() {
    for compress in [true, false] {
        let raw = message(3000, 1);
        let id = BlobId::of(&raw);
        let path = if compress { compressed_path(id) } else { plain_path(id) };
        let length = {
            let disk = FaultyDisk::new();
            let store = open_with(&disk, BlobConfig { compress, ..config() }).await;
            put(&store, &raw).await.unwrap();
            store.flush().await.unwrap();
            file_bytes(&disk, &path).len()
        };
        for offset in (0..length).step_by(37).chain(length - 40..length) {
            let disk = FaultyDisk::new();
            let store = open_with(&disk, BlobConfig { compress, ..config() }).await;
            put(&store, &raw).await.unwrap();
            store.flush().await.unwrap();
            let told = Arc::new(Mutex::new(Vec::new()));
            let hook = Arc::clone(&told);
            store.set_corrupt_hook(Arc::new(move |id| hook.lock().unwrap().push(id)));
            disk.flip_bit(&path, offset as u64, (offset % 8) as u8);
            match get(&store, id).await {
                // A bit of zstd's own header may be without meaning.
                Ok(bytes) => assert!(bytes == raw && compress && offset < 20, "{offset}"),
                Err(BlobError::Corrupt(wrong)) => {
                    assert_eq!(wrong, id);
                    assert!(matches!(get(&store, id).await, Err(BlobError::NotFound(_))));
                    assert!(disk.paths().iter().any(|path| path.starts_with("quarantine/")));
                    assert_eq!(
                        (store.status().corrupt, told.lock().unwrap().as_slice()),
                        (1, [id].as_slice())
                    );
                    put(&store, &raw).await.unwrap();
                    assert!(get(&store, id).await.unwrap() == raw, "a good copy may come again");
                }
                Err(error) => panic!("{offset}: {error}"),
            }
        }
    }
}

#[tokio::test]
async fn plain_files_are_the_message_itself_and_both_kinds_are_read() {
    let disk = FaultyDisk::new();
    let small = message(900, 1);
    let large = message(MIB + 9, 2);
    let compressed = put(&open(&disk).await, &message(50, 3)).await.unwrap();
    let store = open_with(
        &disk,
        BlobConfig {
            compress: false,
            ..config()
        },
    )
    .await;
    for raw in [&small, &large] {
        let id = put(&store, raw).await.unwrap();
        store.flush().await.unwrap();
        assert!(file_bytes(&disk, &plain_path(id)) == raw.as_slice());
        assert!(get(&store, id).await.unwrap() == *raw);
    }
    assert!(get(&store, compressed).await.is_ok());
}

#[tokio::test]
async fn an_acknowledged_blob_survives_any_crash() {
    for seed in 0..60 {
        let disk = FaultyDisk::new();
        let entropy: &dyn Entropy = &SeededEntropy::new(seed);
        let mut acknowledged: Vec<Vec<u8>> = Vec::new();
        for life in 0..4 {
            let store = open(&disk).await;
            assert_eq!(
                store.status().journal_damage,
                0,
                "seed {seed}: a torn tail is no damage"
            );
            for raw in &acknowledged {
                assert!(
                    get(&store, BlobId::of(raw)).await.unwrap() == *raw,
                    "seed {seed}, life {life}"
                );
            }
            // In half of the lives the files never get written, and the journal is all there is.
            let stalled = entropy.below(2) == 0;
            if stalled {
                store.flush().await.unwrap();
                store.0.filing.abort();
            }
            for number in 0..6 {
                let length = match entropy.below(8) {
                    _ if stalled => 700,
                    0 => MIB + 100,
                    1..3 => 30_000,
                    _ => 700,
                };
                let raw = message(length, seed * 1000 + life * 100 + number);
                let sealed = seal(&store, &raw).await.unwrap();
                store.put(&sealed).await.unwrap();
                acknowledged.push(raw);
                if !stalled && entropy.below(3) == 0 {
                    store.flush().await.unwrap();
                }
            }
            // The last one may or may not be acknowledged when the power goes.
            let sealed = seal(&store, &message(5000, seed + 77)).await.unwrap();
            let _ = futures_util::FutureExt::now_or_never(store.put(&sealed));
            drop((store, sealed));
            if seed % 5 == 0 {
                disk.crash_strictly()
            } else {
                disk.crash(seed * 10 + life)
            }
        }
    }
}

#[tokio::test]
async fn a_put_is_answered_only_after_the_sync_that_covers_it() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    let small = seal(&store, &message(300, 1)).await.unwrap();
    let large = seal(&store, &message(MIB, 2)).await.unwrap();
    disk.start_trace();
    store.put(&small).await.unwrap();
    disk.note("small");
    store.put(&large).await.unwrap();
    disk.note("large");
    let trace = disk.trace();
    let at = |wanted: &DiskCall| trace.iter().position(|call| call == wanted).unwrap();
    let record = trace
        .iter()
        .position(|call| matches!(call, DiskCall::Write(path, 4096, _) if path == "blobs.journal/0.segment"))
        .unwrap();
    let sync = record
        + trace[record..]
            .iter()
            .position(|call| *call == DiskCall::Sync("blobs.journal/0.segment".into()))
            .unwrap();
    assert!(record < sync && sync < at(&DiskCall::Note("small".into())));
    let path = compressed_path(large.id());
    let renamed = trace
        .iter()
        .position(|call| matches!(call, DiskCall::Rename(_, to) if *to == path))
        .unwrap();
    let DiskCall::Rename(temp, _) = &trace[renamed] else {
        unreachable!()
    };
    let directory = path.rsplit_once('/').unwrap().0.to_owned();
    let named = renamed
        + trace[renamed..]
            .iter()
            .position(|call| *call == DiskCall::SyncDir(directory.clone()))
            .unwrap();
    assert!(at(&DiskCall::Sync(temp.clone())) < renamed && named < at(&DiskCall::Note("large".into())));
}

#[tokio::test]
async fn many_puts_share_a_sync() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    put(&store, b"the first makes the segment").await.unwrap();
    store.flush().await.unwrap();
    let mut sealed = Vec::new();
    for number in 0..100 {
        sealed.push(seal(&store, &message(100, number)).await.unwrap());
    }
    disk.start_trace();
    let puts = sealed.iter().map(|sealed| store.put(sealed));
    for result in futures_util::future::join_all(puts).await {
        result.unwrap();
    }
    let syncs = disk
        .trace()
        .iter()
        .filter(|call| matches!(call, DiskCall::Sync(path) if path.ends_with("segment")))
        .count();
    assert!(syncs <= 3, "{syncs} syncs for 100 puts");
}

#[tokio::test]
async fn a_put_of_what_is_there_makes_no_second_copy() {
    let disk = FaultyDisk::new();
    let raw = message(500, 1);
    {
        let store = open(&disk).await;
        store.0.filing.abort();
        let sealed = seal(&store, &raw).await.unwrap();
        store.put(&sealed).await.unwrap();
        disk.start_trace();
        store.put(&sealed).await.unwrap();
        assert_eq!(disk.trace(), [], "still in the journal");
        assert!(get(&store, sealed.id()).await.unwrap() == raw);
    }
    let store = open(&disk).await;
    assert!(get(&store, BlobId::of(&raw)).await.unwrap() == raw);
    let sealed = seal(&store, &raw).await.unwrap();
    store.flush().await.unwrap();
    disk.start_trace();
    store.put(&sealed).await.unwrap();
    assert!(
        disk.trace().iter().all(|call| matches!(call, DiskCall::SyncDir(_))),
        "in its file"
    );
    disk.flip_bit(&compressed_path(sealed.id()), 60, 1);
    store.put(&sealed).await.unwrap();
    assert!(
        get(&store, sealed.id()).await.unwrap() == raw,
        "a wrong copy is replaced"
    );
}

#[tokio::test]
async fn a_large_blob_that_went_bad_is_replaced_by_the_next_put_of_the_same_bytes() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    let raw = message(MIB + 50, 1);
    let sealed = seal(&store, &raw).await.unwrap();
    store.put(&sealed).await.unwrap();
    let path = compressed_path(sealed.id());
    disk.flip_bit(&path, 1000, 1);
    let again = seal(&store, &raw).await.unwrap();
    store.put(&again).await.unwrap();
    assert!(get(&store, sealed.id()).await.unwrap() == raw);
}

/// smtp-disk-full-data: the store's side of it.
#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_puts_and_takes_them_again_when_there_is_space() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    let first = put(&store, &message(100, 1)).await.unwrap();
    store.flush().await.unwrap();
    disk.set_capacity(Some(0));
    let small = seal(&store, &message(100, 2)).await.unwrap();
    assert!(matches!(store.put(&small).await, Err(BlobError::Full)));
    assert!(matches!(put(&store, &message(MIB, 3)).await, Err(BlobError::Full)));
    assert!(get(&store, first).await.is_ok());
    disk.set_capacity(None);
    store.put(&small).await.unwrap();
    put(&store, &message(MIB, 3)).await.unwrap();
    store.flush().await.unwrap();
    assert!(!store.status().sync_failed);
    assert_eq!(
        disk.paths().iter().filter(|path| path.starts_with("tmp/")).count(),
        0,
        "nothing half stored"
    );
}

#[tokio::test(start_paused = true)]
async fn a_journal_without_room_waits_for_its_files() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    let mut ids = Vec::new();
    for number in 0..60 {
        // Twelve segments' worth of records through three segments.
        ids.push(put(&store, &message(14_000, number)).await.unwrap());
    }
    for id in ids {
        assert!(get(&store, id).await.is_ok());
    }
    let segments: BTreeSet<String> = disk
        .paths()
        .into_iter()
        .filter(|path| path.ends_with(".segment"))
        .collect();
    assert!(segments.len() <= 3);
}

#[tokio::test]
async fn a_failed_sync_ends_the_taking_of_blobs() {
    for large in [false, true] {
        let disk = FaultyDisk::new();
        let store = open(&disk).await;
        let before = put(&store, b"before").await.unwrap();
        store.flush().await.unwrap();
        let sealed = seal(&store, &message(if large { MIB } else { 10 }, 1)).await.unwrap();
        disk.fail_syncs(1);
        assert!(matches!(store.put(&sealed).await, Err(BlobError::SyncFailed(_))));
        assert!(
            matches!(store.put(&sealed).await, Err(BlobError::SyncFailed(_))),
            "for good"
        );
        assert!(store.status().sync_failed && store.sync_failed().await.contains("injected"));
        assert!(get(&store, before).await.is_ok());
    }
}

#[tokio::test]
async fn damage_of_an_acknowledged_record_is_reported_and_the_rest_is_kept() {
    let disk = FaultyDisk::new();
    let ids = {
        let store = open(&disk).await;
        store.0.filing.abort();
        let mut ids = Vec::new();
        for number in 0..3 {
            ids.push(put(&store, &message(600, number)).await.unwrap());
        }
        ids
    };
    let mark_off = disk
        .open("blobs.journal/0.segment", core_types::OpenMode::Write)
        .unwrap();
    mark_off.write_at(0, &[0; 64]).unwrap();
    disk.flip_bit("blobs.journal/0.segment", 4096 + 96 + 40, 3);
    let store = open(&disk).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&told);
    store.set_corrupt_hook(Arc::new(move |id| hook.lock().unwrap().push(id)));
    assert_eq!(store.status().journal_damage, 1);
    assert_eq!(*told.lock().unwrap(), [ids[0]]);
    assert!(matches!(get(&store, ids[0]).await, Err(BlobError::NotFound(_))));
    for id in &ids[1..] {
        assert!(get(&store, *id).await.is_ok());
    }
}

/// The record of a blob rots before its file is written, and the same message comes again: what the second put was promised
/// is what the file is made of.
#[tokio::test(start_paused = true)]
async fn a_put_of_what_rotted_in_the_journal_is_kept() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    let no_names = disk.add_rule(FaultRule::always(Effect::Eio).on(&[CallClass::Rename]));
    let raw = message(600, 1);
    let id = put(&store, &raw).await.unwrap();
    tokio::time::sleep(Duration::from_millis(10)).await;
    disk.flip_bit("blobs.journal/0.segment", 4096 + 96 + 40, 3);
    let stale = store.0.journal.next_to_file(1);
    put(&store, &raw).await.unwrap();
    // The filing task may have read the first record before the second was there.
    assert!(store.0.journal.filed(&[], &stale).is_empty());
    assert!(get(&store, id).await.unwrap() == raw);
    disk.remove_rule(no_names);
    tokio::time::sleep(Duration::from_secs(5)).await;
    store.flush().await.unwrap();
    assert!(get(&store, id).await.unwrap() == raw);
    assert!(disk.paths().contains(&compressed_path(id)));
    assert_eq!((store.status().corrupt, store.status().journal_blobs), (0, 0));
    for number in 10..70 {
        put(&store, &message(14_000, number)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_the_disk_does_not_read_any_more_is_damaged_and_holds_up_nothing() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&told);
    store.set_corrupt_hook(Arc::new(move |id| hook.lock().unwrap().push(id)));
    let no_names = disk.add_rule(FaultRule::always(Effect::Eio).on(&[CallClass::Rename]));
    let lost = put(&store, &message(600, 1)).await.unwrap();
    let kept = put(&store, &message(600, 2)).await.unwrap();
    disk.make_range_unreadable("blobs.journal/0.segment", 4096 + 96..4096 + 160);
    disk.remove_rule(no_names);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(disk.paths().contains(&compressed_path(kept)));
    assert!(told.lock().unwrap().is_empty(), "it may pass");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(*told.lock().unwrap(), [lost]);
    assert!(matches!(get(&store, lost).await, Err(BlobError::NotFound(_))));
    store.flush().await.unwrap();
    // The same message again, while the disk does not read what it wrote first.
    let no_names = disk.add_rule(FaultRule::always(Effect::Eio).on(&[CallClass::Rename]));
    let again = put(&store, &message(600, 3)).await.unwrap();
    let place = store.0.journal.place(again).unwrap();
    disk.make_range_unreadable("blobs.journal/0.segment", place.offset..place.offset + 8);
    assert_eq!(put(&store, &message(600, 3)).await.unwrap(), again);
    disk.remove_rule(no_names);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(get(&store, again).await.unwrap() == message(600, 3));
    assert_eq!(told.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn what_the_disk_does_not_read_of_the_journal_is_damage_and_the_rest_is_kept() {
    // A payload, a record with its header, room that was never used, the marks and keys.
    for (offset, readable) in [(22_000, 2), (4096 + 2, 2), (60_000, 3), (700, 0)] {
        let disk = FaultyDisk::new();
        let mut ids = Vec::new();
        {
            let store = open(&disk).await;
            store.0.filing.abort();
            for number in 0..3 {
                ids.push(put(&store, &message(14_000, number)).await.unwrap());
            }
        }
        disk.make_range_unreadable("blobs.journal/0.segment", offset..offset + 1);
        let store = open(&disk).await;
        assert!(store.status().journal_damage > 0, "{offset}");
        let mut good = 0;
        for id in &ids {
            good += usize::from(get(&store, *id).await.is_ok());
        }
        assert_eq!(good, readable, "{offset}");
        store.flush().await.unwrap();
        put(&store, &message(14_000, 9)).await.unwrap();
    }
    let disk = FaultyDisk::new();
    put(&open(&disk).await, &message(600, 1)).await.unwrap();
    disk.make_range_unreadable("blobs.journal/0.segment", 0..64 * 1024);
    let pool: Arc<dyn BlockingPool> = Arc::new(InlinePool);
    let opened = BlobStore::open(config(), Arc::new(disk), pool, Arc::new(SeededEntropy::new(1))).await;
    assert!(
        matches!(opened.err(), Some(BlobError::Disk(_))),
        "the disk reads nothing"
    );
}

#[tokio::test]
async fn fifty_megabytes_come_in_with_bounded_memory() {
    let disk = FaultyDisk::new();
    let store = open_with(
        &disk,
        BlobConfig {
            memory_bytes_max: 256 * 1024,
            ..config()
        },
    )
    .await;
    let mut writer = store.writer();
    let piece = message(64 * 1024, 1);
    let mut hasher = blake3::Hasher::new();
    for _ in 0..50 * 16 {
        writer.write(&piece).await.unwrap();
        hasher.update(&piece);
        assert!(writer.buffered_bytes() <= 256 * 1024);
    }
    let sealed = writer.finish().await.unwrap();
    assert_eq!(sealed.id().0, *hasher.finalize().as_bytes());
    assert!(matches!(sealed.encoded(), Encoded::TempFile(_)));
    store.put(&sealed).await.unwrap();
    let reader = store.open_blob(sealed.id()).await.unwrap();
    let mut chunks = reader.read_range(0..u64::MAX);
    let mut read = blake3::Hasher::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.unwrap();
        assert!(chunk.len() <= MIB);
        read.update(&chunk);
    }
    assert_eq!(read.finalize(), hasher.finalize());
}

#[tokio::test]
async fn messages_over_the_limit_are_refused() {
    let store = open(&FaultyDisk::new()).await;
    let mut writer = store.writer();
    let piece = vec![0; MIB];
    for _ in 0..core_types::limits::BLOB_BYTES_MAX / MIB as u64 {
        writer.write(&piece).await.unwrap();
    }
    assert!(matches!(writer.write(&[0]).await, Err(BlobError::TooLarge(_))));
    assert!(writer.write(&[0]).await.is_err());
}

/// imap-literal-cut: the store's side of it.
#[tokio::test]
async fn a_writer_that_is_dropped_leaves_nothing() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    let mut writer = store.writer();
    writer.write(&message(50_000, 1)).await.unwrap();
    assert!(disk.paths().iter().any(|path| path.starts_with("tmp/")));
    drop(writer);
    drop(seal(&store, &message(50_000, 2)).await.unwrap());
    assert!(!disk.paths().iter().any(|path| path.starts_with("tmp/")));
    std::mem::forget(seal(&store, &message(50_000, 3)).await.unwrap());
    drop(store);
    let _store = open(&disk).await;
    assert!(
        !disk.paths().iter().any(|path| path.starts_with("tmp/")),
        "what a crash left goes at the start"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_disk_and_threads_do_as_the_simulated_ones() {
    let directory = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(platform::RealDisk::open(directory.path()).unwrap());
    let open_real = async || {
        let disk = Arc::clone(&disk);
        let pool: Arc<dyn BlockingPool> = Arc::new(platform::TokioPool::new(tokio::runtime::Handle::current()));
        let entropy: Arc<dyn Entropy> = Arc::new(platform::SystemEntropy);
        let config = BlobConfig {
            journal_segment_bytes: 1 << 20,
            ..BlobConfig::default()
        };
        BlobStore::open(config, disk, pool, entropy).await.unwrap()
    };
    let store = open_real().await;
    let put_one = |number: u64| {
        let store = store.clone();
        async move {
            let length = if number.is_multiple_of(50) {
                2 * MIB
            } else {
                4000 + number as usize
            };
            let sealed = seal(&store, &message(length, number)).await.unwrap();
            store.put(&sealed).await.unwrap();
            get(&store, sealed.id()).await.unwrap();
            (sealed.id(), length, number)
        }
    };
    let put = futures_util::future::join_all((0..300).map(|number| tokio::spawn(put_one(number)))).await;
    store.flush().await.unwrap();
    drop(store);
    let store = open_real().await;
    assert_eq!(store.status().journal_damage, 0);
    for blob in put {
        let (id, length, number) = blob.unwrap();
        assert!(get(&store, id).await.unwrap() == message(length, number));
        store.verify(id).await.unwrap();
    }
}
