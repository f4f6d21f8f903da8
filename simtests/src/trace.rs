//! Everything that happens in a run, hashed in order: two runs of a seed must come to the same hash.

use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The history of one run. Clones write into the same one.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Inner>>);

struct Inner {
    hasher: blake3::Hasher,
    events: u64,
    /// Each event as a line, where somebody wants to read them.
    lines: Option<Vec<String>>,
    checkpoints: Vec<(u64, [u8; 8])>,
    /// The time of the last event: events of the run itself have no clock of their own.
    now: Duration,
}

/// Between two remembered hashes, so that two runs that differ can be compared by halves.
const CHECKPOINT_EVENTS: u64 = 1000;

impl Trace {
    /// An empty one. `keep` keeps every line.
    #[must_use]
    pub fn new(keep: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            hasher: blake3::Hasher::new(),
            events: 0,
            lines: keep.then(Vec::new),
            checkpoints: Vec::new(),
            now: Duration::ZERO,
        })))
    }

    /// Something happened: `kind` at `who`, with bytes that count.
    pub fn note(&self, who: &str, kind: &str, what: &str, bytes: &[u8]) {
        let mut inner = self.0.lock().expect("nobody panics with the trace");
        let at = turmoil::sim_elapsed().unwrap_or(inner.now);
        inner.now = at;
        inner.events += 1;
        let head = format!("{:>10.3} {who} {kind} {what}", at.as_secs_f64());
        inner.hasher.update(head.as_bytes());
        inner.hasher.update(bytes);
        if inner.events.is_multiple_of(CHECKPOINT_EVENTS) {
            let hash = inner.hasher.finalize();
            let mut short = [0; 8];
            short.copy_from_slice(&hash.as_bytes()[..8]);
            let events = inner.events;
            inner.checkpoints.push((events, short));
        }
        if let Some(lines) = &mut inner.lines {
            let hash = blake3::hash(bytes).to_hex();
            lines.push(format!("{head} [{}] {}", bytes.len(), &hash[..8]));
        }
    }

    /// Hash of everything so far, and how much it was.
    #[must_use]
    pub fn hash(&self) -> (String, u64) {
        let inner = self.0.lock().expect("nobody panics with the trace");
        (inner.hasher.finalize().to_hex()[..16].to_owned(), inner.events)
    }

    /// The lines that were kept.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let inner = self.0.lock().expect("nobody panics with the trace");
        inner.lines.clone().unwrap_or_default()
    }

    /// Hashes along the way: after how many events, and which.
    #[must_use]
    pub fn checkpoints(&self) -> Vec<(u64, [u8; 8])> {
        self.0.lock().expect("nobody panics with the trace").checkpoints.clone()
    }
}
