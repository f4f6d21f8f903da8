//! What seeded tests and fuzz targets of all crates share: numbers at random, and octets that are a little wrong.
//!
//! Not here: randomness of the product ([`crate::Entropy`]).

/// A small generator (SplitMix64), for tests only: the same numbers in every run.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number below `bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(word.checked_rem(bound).unwrap_or(0)).unwrap_or(0)
    }

    /// The next octet.
    pub fn octet(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap_or(0)
    }

    /// One of these; `None` of none.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// Makes the octets a little wrong: one of them changed, taken out or put in, the end cut off, a part doubled, or one of
    /// these pieces put in somewhere, up to 100 times in a row.
    pub fn mutate(&mut self, octets: &mut Vec<u8>, pieces: &[&[u8]]) {
        let at = self.below(octets.len().saturating_add(1));
        match self.below(8) {
            0 | 1 => {
                let octet = self.octet();
                if let Some(place) = octets.get_mut(at) {
                    *place = octet;
                }
            }
            2 if at < octets.len() => drop(octets.remove(at)),
            3 => octets.insert(at, self.octet()),
            4 => octets.truncate(at),
            5 => {
                let end = at.saturating_add(self.below(40)).min(octets.len());
                let part = octets.get(at..end).unwrap_or_default().to_vec();
                octets.splice(at..at, part);
            }
            6 => {
                let count = self.below(100).saturating_add(1);
                let piece = self.one(pieces).copied().unwrap_or_default().repeat(count);
                octets.splice(at..at, piece);
            }
            _ => {
                let piece = self.one(pieces).copied().unwrap_or_default().to_vec();
                octets.splice(at..at, piece);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_sequence_and_mutations_of_all_kinds() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        let mut lengths = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let (mut left, mut right) = (b"0123456789".to_vec(), b"0123456789".to_vec());
            one.mutate(&mut left, &[b"xy"]);
            other.mutate(&mut right, &[b"xy"]);
            assert_eq!(left, right);
            lengths.insert(left.len());
        }
        assert!(lengths.contains(&0) && lengths.contains(&9) && lengths.contains(&12) && lengths.contains(&210));
        assert_eq!(one.below(0), 0);
        let mut nothing = Vec::new();
        one.mutate(&mut nothing, &[]);
    }
}
