//! Entry points for fuzzing: whatever the bytes, no panic, and no more memory than the formats' limits.

use core_types::BlobId;

use crate::format::{TABLE_BYTES_MAX, Table};

/// A blob's file.
pub fn file(bytes: &[u8]) {
    let id = BlobId::of(bytes);
    let tail = bytes
        .get(bytes.len().saturating_sub(TABLE_BYTES_MAX)..)
        .unwrap_or_default();
    let _ = Table::decode_tail(id, tail, bytes.len() as u64);
    let _ = Table::decode_beside(id, tail, bytes.len() as u64);
    let outline = crate::format::Outline {
        raw_len: bytes.len() as u64,
        hashes: vec![id.0],
    };
    let _ = outline.decode_frame(0, bytes);
}

/// A segment of the journal.
pub fn journal(bytes: &[u8]) {
    let _ = crate::journal::scan(bytes).damage();
}

/// A request of a peer, and an answer.
pub fn request(bytes: &[u8]) {
    let _ = crate::wire::decode_request(bytes);
    let _ = crate::wire::decode_answer(bytes);
}

/// A line of a manifest.
pub fn manifest(bytes: &[u8]) {
    let _ = crate::manifest::parse_line(bytes);
}

#[cfg(test)]
mod tests {
    use core_types::Entropy;
    use platform::SeededEntropy;

    use super::*;
    use crate::wire::{Request, encode_request};

    /// Seeds, and each of them with some bytes changed, cut or doubled.
    fn mutations(seed: &[u8], count: u64) -> Vec<Vec<u8>> {
        let entropy: &dyn Entropy = &SeededEntropy::new(seed.len() as u64);
        let mut all = vec![seed.to_vec(), Vec::new()];
        for _ in 0..count {
            let mut bytes = seed.to_vec();
            for _ in 0..=entropy.below(4) {
                let place = entropy.below(bytes.len() as u64) as usize;
                match entropy.below(4) {
                    0 => bytes.truncate(place),
                    1 => bytes.extend_from_within(place..),
                    _ => {
                        if let Some(byte) = bytes.get_mut(place) {
                            *byte = entropy.below(256) as u8;
                        }
                    }
                }
            }
            all.push(bytes);
        }
        all
    }

    #[test]
    fn changed_bytes_make_no_decoder_panic() {
        let (id, table, encoded) = crate::format::encode(&crate::testing::message(3000, 1)).unwrap();
        let begin = Request::Begin {
            transfer: 1,
            id,
            outline: table.outline(),
        };
        let has = Request::Has { ids: vec![id; 3] };
        let put = Request::Put {
            id,
            file: encoded.clone().into(),
        };
        for seed in [begin, has, put].iter().map(|request| encode_request(request).unwrap()) {
            mutations(&seed, 400).iter().for_each(|bytes| request(bytes));
        }
        mutations(&encoded, 400).iter().for_each(|bytes| file(bytes));
        mutations(b"deliver\tx\t#00000000", 200)
            .iter()
            .for_each(|bytes| manifest(bytes));
        let mut segment = vec![0; 512];
        segment.extend(crate::journal::encode_key(&[1; 32]));
        segment.resize(6000, 0);
        mutations(&segment, 200).iter().for_each(|bytes| journal(bytes));
    }
}
