//! What the tests of this crate share: small stores on a disk that forgets, messages, and a pool.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use bytes::Bytes;
use core_types::{BlobId, BlockingPool, Disk, Entropy};
use platform::{FaultyDisk, InlinePool, SeededEntropy};

use crate::{BlobConfig, BlobError, BlobReader, BlobStore, Sealed};

/// Small segments and little memory, so that limits are reached soon.
pub(crate) fn config() -> BlobConfig {
    BlobConfig {
        journal_segment_bytes: 64 * 1024,
        journal_segments: 3,
        inline_bytes_max: 32 * 1024,
        memory_bytes_max: 16 * 1024,
        batch_bytes_max: 48 * 1024,
        reserve_bytes: 0,
        ..BlobConfig::default()
    }
}

pub(crate) async fn open_with(disk: &FaultyDisk, config: BlobConfig) -> BlobStore {
    let pool: Arc<dyn BlockingPool> = Arc::new(InlinePool);
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    BlobStore::open(config, disk, pool, entropy).await.unwrap()
}

pub(crate) async fn open(disk: &FaultyDisk) -> BlobStore {
    open_with(disk, config()).await
}

/// Half text, half noise: neither all compressible nor all incompressible.
pub(crate) fn message(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = |index: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if index % 2048 < 1024 {
            b"From: a@example.org\r\n"[index % 21]
        } else {
            (state >> 33) as u8
        }
    };
    let mut bytes: Vec<u8> = (0..length).map(&mut next).collect();
    for (byte, mark) in bytes.iter_mut().zip(seed.to_le_bytes()) {
        *byte = mark;
    }
    bytes
}

pub(crate) async fn seal(store: &BlobStore, raw: &[u8]) -> Result<Sealed, BlobError> {
    let mut writer = store.writer();
    for piece in raw.chunks(7001) {
        writer.write(piece).await?;
    }
    writer.finish().await
}

pub(crate) async fn put(store: &BlobStore, raw: &[u8]) -> Result<BlobId, BlobError> {
    let sealed = seal(store, raw).await?;
    store.put(&sealed).await?;
    Ok(sealed.id())
}

pub(crate) async fn read_all(reader: &BlobReader) -> Result<Vec<u8>, BlobError> {
    let mut chunks = reader.read_range(0..u64::MAX);
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

pub(crate) async fn get(store: &BlobStore, id: BlobId) -> Result<Vec<u8>, BlobError> {
    read_all(&store.open_blob(id).await?).await
}

pub(crate) fn file_bytes(disk: &FaultyDisk, path: &str) -> Bytes {
    let file = disk.open(path, core_types::OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(0, &mut bytes).unwrap();
    bytes.into()
}
