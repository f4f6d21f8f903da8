//! `sequence-set` of RFC 3501 9: a set of sequence numbers or UIDs, normalised, with `*` kept open until it is known
//! what the largest number is.
//!
//! Invariant: the ranges are ascending, disjoint and not adjacent, so work over a set is bounded by the numbers that
//! exist and not by what the client wrote. Not here: which numbers exist ([`crate::SessionView`]).

use std::ops::RangeInclusive;

/// A normalised set of numbers from 1 to 2^32 - 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SequenceSet {
    ranges: Vec<(u32, u32)>,
    /// The lowest and the highest `n` of all `n:*`.
    open: Option<(u32, u32)>,
    /// `*` by itself, or `*:*`.
    star: bool,
}

/// One end of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Number(u32),
    Star,
}

impl SequenceSet {
    /// A set of these numbers; 0 is left out.
    #[must_use]
    pub fn from_numbers(numbers: impl IntoIterator<Item = u32>) -> Self {
        let ranges = numbers
            .into_iter()
            .filter(|&number| number > 0)
            .map(|number| (number, number))
            .collect();
        Self {
            ranges: normalise(ranges),
            open: None,
            star: false,
        }
    }

    /// Whether `*` is in it.
    #[must_use]
    pub fn has_star(&self) -> bool {
        self.star || self.open.is_some()
    }

    /// The largest number written in it, `*` apart.
    #[must_use]
    pub fn largest_number(&self) -> Option<u32> {
        let open = self.open.map(|(_, highest)| highest);
        self.ranges.last().map(|&(_, last)| last).max(open)
    }

    /// The set's ranges once the largest number in use is known: ascending, disjoint, not adjacent. With `None` (an
    /// empty mailbox) whatever holds `*` is left out.
    ///
    /// RFC 3501 9 `seq-range`: 2:4 and 4:2 are equal, and `n:*` holds the largest number also when `n` is above it.
    #[must_use]
    pub fn resolve(&self, largest: Option<u32>) -> Vec<RangeInclusive<u32>> {
        let mut ranges = self.ranges.clone();
        if let Some(largest) = largest {
            // All n:* have the largest number in common, so their union is one range.
            if let Some((lowest, highest)) = self.open {
                ranges.push((lowest.min(largest), highest.max(largest)));
            }
            if self.star {
                ranges.push((largest, largest));
            }
        }
        normalise(ranges)
            .into_iter()
            .map(|(first, last)| first..=last)
            .collect()
    }

    pub(crate) fn builder() -> SequenceSetBuilder {
        SequenceSetBuilder(Self::default())
    }
}

/// Collects a set while it is parsed.
pub(crate) struct SequenceSetBuilder(SequenceSet);

impl SequenceSetBuilder {
    pub(crate) fn add(&mut self, first: Bound, last: Bound) {
        match (first, last) {
            (Bound::Number(first), Bound::Number(last)) => self.0.ranges.push((first.min(last), first.max(last))),
            (Bound::Number(number), Bound::Star) | (Bound::Star, Bound::Number(number)) => {
                let (lowest, highest) = self.0.open.unwrap_or((number, number));
                self.0.open = Some((lowest.min(number), highest.max(number)));
            }
            (Bound::Star, Bound::Star) => self.0.star = true,
        }
    }

    pub(crate) fn finish(mut self) -> SequenceSet {
        self.0.ranges = normalise(self.0.ranges);
        self.0
    }
}

fn normalise(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len().min(1024));
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn build(parts: &[(Option<u32>, Option<u32>)]) -> SequenceSet {
        let bound = |part: Option<u32>| part.map_or(Bound::Star, Bound::Number);
        let mut builder = SequenceSet::builder();
        for &(first, last) in parts {
            builder.add(bound(first), bound(last));
        }
        builder.finish()
    }

    #[test]
    fn ranges_are_sorted_and_merged() {
        let set = build(&[
            (Some(9), Some(7)),
            (Some(1), Some(1)),
            (Some(2), Some(3)),
            (Some(8), Some(12)),
        ]);
        assert_eq!(set.resolve(None), vec![1..=3, 7..=12]);
        assert_eq!(set.largest_number(), Some(12));
    }

    #[test]
    fn star_is_the_largest_number_and_open_ranges_turn_round() {
        assert_eq!(build(&[(None, None)]).resolve(Some(5)), vec![5..=5]);
        assert_eq!(build(&[(Some(7), None)]).resolve(Some(5)), vec![5..=7]);
        assert_eq!(build(&[(Some(2), None), (None, Some(9))]).resolve(Some(5)), vec![2..=9]);
        assert_eq!(build(&[(Some(2), None), (None, None)]).resolve(None), vec![]);
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        let set = build(&[
            (Some(u32::MAX), Some(u32::MAX)),
            (Some(1), Some(u32::MAX)),
            (Some(u32::MAX), None),
        ]);
        assert_eq!(set.resolve(Some(u32::MAX)), vec![1..=u32::MAX]);
    }

    proptest! {
        #[test]
        fn a_set_holds_what_was_written(
            parts in prop::collection::vec((prop::option::weighted(0.8, 1u32..40), prop::option::weighted(0.8, 1u32..40)), 1..8),
            largest in 1u32..40,
        ) {
            let mut naive = BTreeSet::new();
            for &(first, last) in &parts {
                let (first, last) = (first.unwrap_or(largest), last.unwrap_or(largest));
                naive.extend(first.min(last)..=first.max(last));
            }
            let resolved = build(&parts).resolve(Some(largest));
            prop_assert_eq!(resolved.iter().cloned().flatten().collect::<BTreeSet<_>>(), naive);
            prop_assert!(resolved.windows(2).all(|pair| *pair[0].end() + 1 < *pair[1].start()));
        }
    }
}
