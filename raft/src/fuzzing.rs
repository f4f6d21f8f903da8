//! Entry points for fuzz targets: everything of this crate that reads another node's octets, without a network.

use std::sync::Arc;

use core_types::{File, codec, limits};

use crate::frame::{self, Frame, Reply};
use crate::snapshot::RowReader;
use crate::types::Entry;

/// As entries stand in the log.
const ENTRY_VERSION: u8 = 1;
/// Rows that are read of a snapshot at once.
const ROWS_BYTES: usize = 64 * 1024;

/// Reads the octets as a request, as an answer, and as an entry of the log; what is read can be written and read again.
///
/// # Panics
/// When it cannot.
pub fn messages(bytes: &[u8]) {
    if let Ok(read) = frame::decode::<Frame>(bytes) {
        let again = frame::encode(&read).and_then(|again| frame::decode::<Frame>(&again));
        assert!(again.is_ok(), "{read:?}");
        if let frame::Request::Propose { command, .. } = &read.request {
            let _ = command.decode();
        }
    }
    if let Ok(read) = frame::decode::<Reply>(bytes) {
        let again = frame::encode(&read).and_then(|again| frame::decode::<Reply>(&again));
        assert!(again.is_ok(), "{read:?}");
    }
    let _ = codec::decode::<Entry>(ENTRY_VERSION, bytes, limits::ENTRY_BYTES_MAX);
}

/// Reads a snapshot's file to its end or to the first octet that is wrong; how many rows it gave.
pub fn snapshot(file: Arc<dyn File>) -> usize {
    let mut count = 0;
    if let Ok(mut reader) = RowReader::open("snapshot", file) {
        while let Ok(rows) = reader.next_rows(ROWS_BYTES) {
            if rows.is_empty() {
                break;
            }
            count += rows.len();
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use core_types::{Disk, GroupId, Incarnation};
    use platform::{FaultyDisk, SeededEntropy};

    use super::*;
    use crate::frame::{Answer, Attempt, Change, Request};

    #[test]
    fn changed_octets_make_no_reader_panic() {
        let frame = |request| {
            frame::encode(&Frame {
                group: GroupId(1),
                incarnation: Incarnation(1),
                request,
            })
            .unwrap()
            .to_vec()
        };
        let reply = |answer: Reply| frame::encode(&answer).unwrap().to_vec();
        let seeds = [
            frame(Request::ReadIndex { patience: 5 }),
            frame(Request::Change {
                change: Change::Voters([1, 2, 3].into()),
                patience: 5,
            }),
            frame(Request::Digests),
            reply(Ok(Answer::ReadIndex(Attempt::Done(7)))),
            reply(Ok(Answer::Changed(Attempt::NotLeader(Some(2))))),
            reply(Err(frame::Rejection::Closed("x".to_owned()))),
            Vec::new(),
        ];
        let entropy = SeededEntropy::new(3);
        let entropy: &dyn core_types::Entropy = &entropy;
        let below = |bound: usize| usize::try_from(entropy.below(bound as u64)).unwrap();
        let disk = FaultyDisk::new();
        for round in 0..5000 {
            let mut bytes = seeds[round % seeds.len()].clone();
            for _ in 0..=below(4) {
                let at = below(bytes.len() + 1);
                match below(3) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at, u8::try_from(below(256)).unwrap()),
                    _ if at < bytes.len() => bytes[at] = u8::try_from(below(6)).unwrap(),
                    _ => {}
                }
            }
            messages(&bytes);
            if round % 50 == 0 {
                let file = disk
                    .open(&format!("s{round}"), core_types::OpenMode::CreateNew)
                    .unwrap();
                file.write_at(0, &bytes).unwrap();
                assert_eq!(snapshot(file), 0);
            }
        }
    }
}
