//! What a segment tells after damage.

use proptest::prelude::*;

use super::*;

const KEY: Key = [7; 32];

/// A segment with batches of records with these payload lengths.
fn segment(batches: &[&[usize]]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let mut bytes = vec![0; RECORDS_START as usize];
    for offset in KEY_OFFSETS {
        bytes[offset as usize..][..KEY_BYTES].copy_from_slice(&encode_key(&KEY));
    }
    let mut places = Vec::new();
    for (batch, lengths) in batches.iter().enumerate() {
        let batch_start = bytes.len() as u32;
        for length in *lengths {
            let payload = vec![places.len() as u8; *length];
            let header = Header {
                seq: 3,
                batch: batch as u64 + 1,
                batch_start,
                prior_end: RECORDS_START,
                id: BlobId([places.len() as u8; 32]),
                payload_len: *length as u32,
                payload_crc: crc32c::crc32c(&payload),
            };
            let start = bytes.len();
            places.push((start, record_len(*length)));
            bytes.extend(header.encode(&KEY));
            bytes.extend(payload);
            bytes.resize(start + record_len(*length), 0);
        }
    }
    bytes.resize(bytes.len() + 500, 0);
    (bytes, places)
}

#[test]
fn a_whole_segment_has_all_its_records_and_no_damage() {
    let (bytes, places) = segment(&[&[10, 0, 300], &[8]]);
    let scan = scan(&bytes);
    assert_eq!((scan.seq, scan.records.len(), scan.released), (3, 4, false));
    assert!(scan.records.iter().all(|found| found.payload_good));
    assert_eq!(
        scan.safe_end as usize, places[3].0,
        "the last batch may never have been acknowledged"
    );
    assert_eq!(scan.damage(), Damage::default());
}

#[test]
fn damage_before_the_last_batch_is_reported_and_in_it_is_a_torn_tail() {
    let (bytes, places) = segment(&[&[100], &[100, 100], &[100, 100]]);
    for (record, (start, length)) in places.iter().enumerate() {
        for offset in [0, 50, HEADER_BYTES + 5] {
            let mut damaged = bytes.clone();
            damaged[start + offset] ^= 4;
            let damage = scan(&damaged).damage();
            let reported = damage.holes as usize + damage.blobs.len();
            assert_eq!(
                reported,
                usize::from(record < 3),
                "record {record} of {length} at {offset}"
            );
        }
    }
}

#[test]
fn the_mark_extends_what_is_known_to_be_durable() {
    let (mut bytes, places) = segment(&[&[100], &[100]]);
    let end = (places[1].0 + places[1].1) as u32;
    let mark = Mark {
        seq: 3,
        durable_end: end,
        released: false,
    };
    bytes[..MARK_BYTES].copy_from_slice(&mark.encode());
    assert_eq!(scan(&bytes).damage(), Damage::default());
    bytes[places[1].0 + HEADER_BYTES] ^= 1;
    assert_eq!(scan(&bytes).damage().blobs, [BlobId([1; 32])]);
    bytes[places[1].0] ^= 1;
    assert_eq!(scan(&bytes).damage().holes, 1);
    let other_life = Mark { seq: 2, ..mark };
    bytes[..MARK_BYTES].copy_from_slice(&other_life.encode());
    assert_eq!(
        scan(&bytes).damage(),
        Damage::default(),
        "a mark of an earlier life says nothing"
    );
}

#[test]
fn one_copy_of_the_key_is_enough() {
    let (mut bytes, _) = segment(&[&[1]]);
    bytes[KEY_OFFSETS[0] as usize + 9] ^= 1;
    assert_eq!(scan(&bytes).records.len(), 1);
    bytes[KEY_OFFSETS[1] as usize + 9] ^= 1;
    assert!(scan(&bytes).unreadable);
}

#[test]
fn mail_cannot_forge_a_record() {
    let forged = Header {
        seq: u64::MAX,
        batch: 1,
        batch_start: 0,
        prior_end: 0,
        id: BlobId([9; 32]),
        payload_len: 0,
        payload_crc: 0,
    };
    let (mut bytes, places) = segment(&[&[400], &[1]]);
    let start = places[0].0 + HEADER_BYTES + 8;
    bytes[start..start + HEADER_BYTES].copy_from_slice(&forged.encode(&[1; 32]));
    assert_eq!(scan(&bytes).seq, 3);
}

#[test]
fn records_of_an_earlier_life_are_not_taken_for_this_one() {
    let (mut bytes, places) = segment(&[&[100], &[100], &[100]]);
    let mut header = Header::decode(&bytes[places[0].0..], &KEY).unwrap();
    header.seq = 4;
    bytes[places[0].0..places[0].0 + HEADER_BYTES].copy_from_slice(&header.encode(&KEY));
    let scan = scan(&bytes);
    assert_eq!((scan.seq, scan.records.len()), (4, 1));
    assert_eq!(scan.damage(), Damage::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_bytes_make_the_scan_panic(mut noise in prop::collection::vec(any::<u8>(), 0..6000), keyed in any::<bool>()) {
        if keyed && noise.len() > 2000 {
            noise[512..512 + KEY_BYTES].copy_from_slice(&encode_key(&KEY));
        }
        let _ = scan(&noise).damage();
    }
}
