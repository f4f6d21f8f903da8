//! Randomness that a seed decides (splitmix64). Streams that are forked by name do not disturb each other, so that a new
//! kind of fault leaves the other faults of a seed as they were.

use std::time::Duration;

/// See the module.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own for a purpose: a function of the seed and the name, not of what was drawn before.
    #[must_use]
    pub fn named(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(name.as_bytes());
        let mut bytes = [0; 8];
        hasher.finalize_xof().fill(&mut bytes);
        Self(u64::from_le_bytes(bytes))
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.word() % bound.max(1)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high.max(low) - low).saturating_add(1))
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// One of the items; `None` when there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(usize::try_from(self.below(items.len() as u64)).unwrap_or(0))
    }

    /// Shuffles.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            items.swap(last, other);
        }
    }

    /// Some of the items, at least one and at most `count_max`, in their order.
    pub fn some_of<T: Clone + Ord>(&mut self, items: &[T], count_max: usize) -> Vec<T> {
        let count = self.between(1, count_max.min(items.len()).max(1) as u64);
        let mut all = items.to_vec();
        self.shuffle(&mut all);
        all.truncate(usize::try_from(count).unwrap_or(1));
        all.sort();
        all
    }

    /// A duration between two, each order of magnitude about equally likely.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let low = u64::try_from(low.as_micros()).unwrap_or(u64::MAX).max(1);
        let high = u64::try_from(high.as_micros()).unwrap_or(u64::MAX).max(low);
        let doublings = u64::from((high / low).ilog2());
        let from = low << self.below(doublings + 1);
        Duration::from_micros(self.between(from, from.saturating_mul(2).min(high)))
    }
}
