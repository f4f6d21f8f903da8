//! The file format: round trips, and what damage does.

use std::io::Read;

use proptest::prelude::*;

use super::*;

const MIB: usize = BLOB_FRAME_BYTES;

fn message(length: usize, seed: u64) -> Vec<u8> {
    // Half text, half noise: neither all compressible nor all incompressible.
    let mut state = seed | 1;
    (0..length)
        .map(|index| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            if index % 2048 < 1024 {
                b"From: a@example.org\r\n"[index % 21]
            } else {
                (state >> 33) as u8
            }
        })
        .collect()
}

fn decode_file(id: BlobId, file: &[u8]) -> Result<Vec<u8>, BlobError> {
    let tail = &file[file.len().saturating_sub(TABLE_BYTES_MAX)..];
    let table = Table::decode_tail(id, tail, file.len() as u64)?;
    let outline = table.outline();
    let mut raw = Vec::new();
    for index in 0..table.frames.len() {
        let (offset, length) = table.place(index).unwrap();
        raw.extend(outline.decode_frame(index, &file[offset as usize..offset as usize + length])?);
    }
    Ok(raw)
}

#[test]
fn a_file_gives_the_message_back_at_every_size_around_the_frames() {
    for length in [
        0,
        1,
        63,
        64,
        1023,
        1024,
        1025,
        65_536,
        MIB - 1,
        MIB,
        MIB + 1,
        2 * MIB - 1,
        2 * MIB,
        2 * MIB + 1,
        3 * MIB,
        5 * MIB + 7,
    ] {
        let raw = message(length, length as u64);
        let (id, table, file) = encode(&raw).unwrap();
        assert_eq!(
            id,
            BlobId::of(&raw),
            "{length}: the tree's root is the hash of the whole"
        );
        assert_eq!(table.raw_len, length as u64);
        assert!(decode_file(id, &file).unwrap() == raw, "{length}");
    }
}

#[test]
fn any_zstd_decoder_gives_the_exact_message() {
    for length in [0, 100, MIB, 2 * MIB + 300] {
        let raw = message(length, 3);
        let (_, _, file) = encode(&raw).unwrap();
        let mut decoded = Vec::new();
        zstd::stream::read::Decoder::new(file.as_slice())
            .unwrap()
            .read_to_end(&mut decoded)
            .unwrap();
        assert!(decoded == raw, "{length}: zstd's streaming decoder");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("m.eml.zst");
        std::fs::write(&path, &file).unwrap();
        if let Ok(output) = std::process::Command::new("zstd").arg("-dc").arg(&path).output() {
            assert!(
                output.status.success() && output.stdout == raw,
                "{length}: the program zstd"
            );
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_file_gives_no_byte_of_its_frame() {
    let raw = message(3000, 9);
    let (id, _, file) = encode(&raw).unwrap();
    for offset in 0..file.len() {
        let mut damaged = file.clone();
        damaged[offset] ^= 1 << (offset % 8);
        // A bit of zstd's frame header may be without meaning; then the message is still the exact one.
        assert!(
            decode_file(id, &damaged).is_err() || decode_file(id, &damaged).unwrap() == raw,
            "{offset}"
        );
    }
}

#[test]
fn a_cut_file_is_refused() {
    let (id, _, file) = encode(&message(5000, 1)).unwrap();
    for length in 0..file.len() {
        assert!(decode_file(id, &file[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_table_of_another_blob_is_refused() {
    let (_, _, file) = encode(&message(2 * MIB, 1)).unwrap();
    let (other, _, _) = encode(&message(2 * MIB, 2)).unwrap();
    assert!(matches!(decode_file(other, &file), Err(BlobError::WrongHash(_))));
}

// Snapshots are not compressed: the frames of blobs are the only zstd that a peer can send.
#[test]
fn quic_snapshot_zstd_bomb() {
    let bomb = compress(&vec![0; 8 * MIB]).unwrap();
    assert!(bomb.len() < 2000);
    let raw = vec![0; 1000];
    let (id, table, _) = encode(&raw).unwrap();
    table.outline().verify(id).unwrap();
    assert!(table.outline().decode_frame(0, &bomb).is_err());
    assert!(table.outline().decode_frame(1, &bomb).is_err(), "no such frame");
}

#[test]
fn a_plain_file_has_its_table_beside_it() {
    let raw = message(MIB + 5, 4);
    let (id, table, _) = encode(&raw).unwrap();
    let beside = plain_table(&table.outline()).encode();
    let decoded = Table::decode_beside(id, &beside, raw.len() as u64).unwrap();
    assert_eq!(decoded.outline(), table.outline());
    assert!(decoded.outline().frame_fits(1, &raw[MIB..]));
    assert!(Table::decode_beside(id, &beside, raw.len() as u64 + 1).is_err());
}

#[test]
fn lengths_over_the_limit_are_refused() {
    for (raw_len, fits) in [
        (BLOB_BYTES_MAX - 1, true),
        (BLOB_BYTES_MAX, true),
        (BLOB_BYTES_MAX + 1, false),
    ] {
        let hashes = vec![[1; 32]; usize::try_from(frame_count(raw_len)).unwrap()];
        let id = BlobId(root(&hashes, raw_len));
        assert_eq!(Outline { raw_len, hashes }.verify(id).is_ok(), fits);
    }
}

#[test]
fn the_table_of_the_largest_blob_lies_within_the_tail() {
    let hashes = vec![[1; 32]; usize::try_from(frame_count(BLOB_BYTES_MAX)).unwrap()];
    let outline = Outline {
        raw_len: BLOB_BYTES_MAX,
        hashes,
    };
    assert!(plain_table(&outline).encode_skippable().len() <= TABLE_BYTES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn small_messages_round_trip(raw in prop::collection::vec(any::<u8>(), 0..5000)) {
        let (id, _, file) = encode(&raw).unwrap();
        prop_assert_eq!(id, BlobId::of(&raw));
        prop_assert_eq!(decode_file(id, &file).unwrap(), raw);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), id in any::<[u8; 32]>()) {
        prop_assert!(decode_file(BlobId(id), &bytes).is_err());
    }
}
