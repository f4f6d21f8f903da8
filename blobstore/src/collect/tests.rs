//! Collection never takes what is referred to or was put lately; scrubbing finds what went bad.

use std::collections::BTreeSet;
use std::sync::Mutex;

use core_types::limits::BLOB_GRACE;
use platform::FaultyDisk;

use super::*;
use crate::files::{compressed_path, lock};
use crate::testing::{get, message, open, put, seal};

fn references(ids: &[BlobId]) -> (Arc<Mutex<BTreeSet<BlobId>>>, IsReferenced) {
    let set = Arc::new(Mutex::new(ids.iter().copied().collect::<BTreeSet<BlobId>>()));
    let asked = Arc::clone(&set);
    (
        set,
        Arc::new(move |id| {
            let referenced = lock(&asked).contains(&id);
            Box::pin(async move { Ok(referenced) })
        }),
    )
}

async fn pass_grace() {
    tokio::time::advance(BLOB_GRACE).await;
}

#[tokio::test(start_paused = true)]
async fn what_nothing_refers_to_goes_after_the_grace_time_and_nothing_else() {
    let store = open(&FaultyDisk::new()).await;
    let kept = put(&store, &message(100, 1)).await.unwrap();
    let gone = put(&store, &message(100, 2)).await.unwrap();
    store.flush().await.unwrap();
    let (_, referenced) = references(&[kept]);
    assert!(
        store.collect_pass(Arc::clone(&referenced), true).await.unwrap().held,
        "everything is pinned after the start"
    );
    pass_grace().await;
    assert!(
        store.collect_pass(Arc::clone(&referenced), false).await.unwrap().held,
        "not permitted"
    );
    let report = store.collect_pass(Arc::clone(&referenced), true).await.unwrap();
    assert_eq!(
        (report.checked, report.marked, report.removed),
        (2, 1, 0),
        "the first look only marks"
    );
    assert_eq!(
        store.collect_pass(Arc::clone(&referenced), true).await.unwrap().removed,
        0
    );
    pass_grace().await;
    let report = store.collect_pass(Arc::clone(&referenced), true).await.unwrap();
    assert_eq!((report.removed, report.marked), (1, 0));
    assert!(get(&store, kept).await.is_ok());
    assert!(matches!(get(&store, gone).await, Err(BlobError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_put_of_what_is_there_renews_its_pin() {
    let store = open(&FaultyDisk::new()).await;
    let raw = message(100, 1);
    let id = put(&store, &raw).await.unwrap();
    store.flush().await.unwrap();
    let (_, referenced) = references(&[]);
    pass_grace().await;
    store.collect_pass(Arc::clone(&referenced), true).await.unwrap();
    pass_grace().await;
    put(&store, &raw).await.unwrap();
    let report = store.collect_pass(Arc::clone(&referenced), true).await.unwrap();
    assert_eq!(
        (report.removed, report.marked),
        (0, 0),
        "an op that names it may be under way"
    );
    pass_grace().await;
    store.collect_pass(Arc::clone(&referenced), true).await.unwrap();
    assert!(store.has(id).await.unwrap());
    pass_grace().await;
    assert_eq!(store.collect_pass(referenced, true).await.unwrap().removed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_reference_that_comes_back_takes_the_mark_away() {
    let store = open(&FaultyDisk::new()).await;
    let id = put(&store, &message(100, 1)).await.unwrap();
    store.flush().await.unwrap();
    let (set, referenced) = references(&[]);
    pass_grace().await;
    store.collect_pass(Arc::clone(&referenced), true).await.unwrap();
    lock(&set).insert(id);
    store.collect_pass(Arc::clone(&referenced), true).await.unwrap();
    pass_grace().await;
    lock(&set).clear();
    assert_eq!(
        store.collect_pass(referenced, true).await.unwrap().removed,
        0,
        "the time begins anew"
    );
}

#[tokio::test(start_paused = true)]
async fn a_put_waits_for_a_removal_and_stores_the_blob_anew() {
    let store = open(&FaultyDisk::new()).await;
    let raw = message(100, 1);
    let sealed = seal(&store, &raw).await.unwrap();
    store.put(&sealed).await.unwrap();
    store.flush().await.unwrap();
    pass_grace().await;
    let id = sealed.id();
    store.pins().mark(id, 10);
    let removal = store.pins().begin_removal(id).unwrap();
    let putting = {
        let (store, sealed) = (store.clone(), sealed.clone());
        tokio::spawn(async move { store.put(&sealed).await })
    };
    tokio::task::yield_now().await;
    assert!(!putting.is_finished());
    store.files().remove(id).unwrap();
    drop(removal);
    putting.await.unwrap().unwrap();
    assert!(get(&store, id).await.unwrap() == raw);
    assert!(store.pins().begin_removal(id).is_none(), "pinned");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_fails_removes_nothing() {
    let store = open(&FaultyDisk::new()).await;
    let id = put(&store, &message(100, 1)).await.unwrap();
    store.flush().await.unwrap();
    let (_, none) = references(&[]);
    pass_grace().await;
    store.collect_pass(none, true).await.unwrap();
    pass_grace().await;
    let failing: IsReferenced = Arc::new(|_| Box::pin(async { Err(BlobError::Closed) }));
    assert!(store.collect_pass(failing, true).await.is_err());
    assert!(store.has(id).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn scrubbing_reads_everything_at_its_rate_and_sets_aside_what_is_wrong() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(put(&store, &message(10_000, number)).await.unwrap());
    }
    store.flush().await.unwrap();
    disk.flip_bit(&compressed_path(ids[7]), 500, 2);
    let start = tokio::time::Instant::now();
    let report = store.scrub_pass(10_000).await.unwrap();
    assert_eq!((report.checked, report.corrupt), (19, 1));
    let expected = Duration::from_millis(report.bytes / 10);
    assert!(
        start.elapsed() >= expected.mul_f32(0.9) && start.elapsed() <= expected.mul_f32(1.1) + Duration::from_secs(1)
    );
    let status = store.status();
    assert_eq!(
        (status.blobs, status.bytes, status.corrupt, status.scrubbed),
        (19, report.bytes, 1, 19)
    );
    assert!(matches!(get(&store, ids[7]).await, Err(BlobError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_does_not_read_in_two_scrubs_is_set_aside_and_told_of() {
    let disk = FaultyDisk::new();
    let store = open(&disk).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&told);
    store.set_corrupt_hook(Arc::new(move |id| lock(&hook).push(id)));
    let mut ids = Vec::new();
    for seed in 1..=3 {
        ids.push(put(&store, &message(3000, seed)).await.unwrap());
    }
    store.flush().await.unwrap();
    let path = compressed_path(ids[0]);
    disk.make_range_unreadable(&path, 100..101);
    let first = store.scrub_pass(0).await.unwrap();
    assert_eq!((first.failed, first.corrupt, first.checked), (1, 0, 2));
    assert!(lock(&told).is_empty() && disk.paths().contains(&path), "it may pass");
    let second = store.scrub_pass(0).await.unwrap();
    assert_eq!((second.failed, second.corrupt), (0, 1));
    assert_eq!(*lock(&told), [ids[0]]);
    assert!(!store.has(ids[0]).await.unwrap());
    assert!(disk.paths().iter().any(|path| path.starts_with("quarantine/")));
    put(&store, &message(3000, 1)).await.unwrap();
    store.flush().await.unwrap();
    assert!(get(&store, ids[0]).await.unwrap() == message(3000, 1));

    // What is put again meanwhile takes the place of what cannot be read.
    disk.make_range_unreadable(&compressed_path(ids[1]), 100..101);
    put(&store, &message(3000, 2)).await.unwrap();
    store.flush().await.unwrap();
    assert!(get(&store, ids[1]).await.unwrap() == message(3000, 2));

    // A disk that reads hardly anything says nothing about single blobs.
    for id in &ids {
        disk.make_range_unreadable(&compressed_path(*id), 100..101);
    }
    for _ in 0..3 {
        let report = store.scrub_pass(0).await.unwrap();
        assert_eq!((report.failed, report.corrupt), (3, 0));
    }
}
