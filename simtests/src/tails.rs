//! I27: damage in a log that was durable is found out, and is never taken for the torn end of it.
//!
//! What a power loss would leave of a disk is opened as a node would open it, before and after a bit of it is flipped. The last
//! batch alone has no later one that proves it durable, and may be cut off as torn; and with it what was written without a sync
//! before it, which is one batch at most (the mark of a log at rest).

use std::sync::Arc;

use core_types::{BlockingPool, Disk, Entropy, NodeId};
use oracle::Violation;
use platform::{DiskImage, FaultyDisk, SeededEntropy};
use raft::log::{LogConfig, LogError, SharedLog};

use crate::book::Book;

/// Octets of a segment that is begun here.
const SEGMENT_BYTES: u64 = 128 * 1024;

/// Batches at the end of a log that nothing behind them proves to be durable.
const UNPROVEN: u64 = 2;

/// Whether a log lost more than its end between the two images without saying so. The node's id is the host's number,
/// unless the log says that it is another.
#[must_use]
pub fn lost(host: u64, before: &DiskImage, after: &DiskImage) -> Option<Violation> {
    let (before, _) = open(before, NodeId(host))?;
    let (after, is_damaged) = open(after, NodeId(host))?;
    (!is_damaged && after + UNPROVEN < before).then(|| {
        let what = format!(
            "the log of node-{host} ended with batch {before}; after one bit of it was flipped it ends with {after}"
        );
        Violation::at("I27", Book::now(), what)
    })
}

/// The last batch of a log, and whether the log is known to be damaged. `None` where it cannot be opened at all.
fn open(image: &DiskImage, node: NodeId) -> Option<(u64, bool)> {
    let copy = FaultyDisk::new();
    copy.restore(image);
    let disk: Arc<dyn Disk> = Arc::new(copy);
    let entropy: &dyn Entropy = &SeededEntropy::new(1);
    let open = |node| {
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            ..LogConfig::new(node)
        };
        SharedLog::open(Arc::clone(&disk), Arc::new(NoPool), entropy, config)
    };
    let log = match open(node) {
        Err(LogError::WrongNode { found, .. }) => open(found),
        opened => opened,
    };
    let log = log.ok()?;
    Some((log.found().seq, log.is_lost() || !log.damages().is_empty()))
}

/// Jobs of a copy of a disk, which nobody waits for.
struct NoPool;

impl BlockingPool for NoPool {
    fn execute(&self, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(disk: &FaultyDisk) {
        let entropy: &dyn Entropy = &SeededEntropy::new(3);
        SharedLog::open(
            Arc::new(disk.clone()),
            Arc::new(NoPool),
            entropy,
            LogConfig {
                segment_bytes: SEGMENT_BYTES,
                ..LogConfig::new(NodeId(1))
            },
        )
        .unwrap();
    }

    #[test]
    fn a_flipped_bit_is_found_out_and_a_log_that_is_cut_is_a_violation() {
        let disk = FaultyDisk::new();
        // Each start is a batch.
        (0..3).for_each(|_| boot(&disk));
        let early = disk.image();
        (0..3).for_each(|_| boot(&disk));
        let late = disk.image();
        assert_eq!(lost(1, &late, &late), None);
        assert_eq!(lost(1, &late, &early).unwrap().id, "I27");
        for seed in 0..40 {
            let flipped = FaultyDisk::new();
            flipped.restore(&late);
            flipped.flip_bit_under("log/", seed).unwrap();
            assert_eq!(lost(1, &late, &flipped.image()), None, "seed {seed}");
        }
    }
}
