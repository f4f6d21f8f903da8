//! Counting names that are read page by page while they come and go.
//!
//! Changes are heard of later than they happen, so a page may show one already that is heard of after it was read. Invariant: once
//! everything is heard of, the count is the number of names, if between two pages everything was heard of that the earlier
//! one shows.

use std::collections::BTreeSet;

use core_types::BlobId;

/// See the module.
#[derive(Debug)]
pub(crate) struct Count {
    total: u64,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    /// Pages are read. What lies beyond the last one will be seen.
    Reading { last: Page },
    /// The last page was empty. What came after it may still be heard of.
    Ended { last: Page },
    /// Everything that is heard of happened since.
    Settled,
}

/// The page that was read last.
#[derive(Debug, Default)]
struct Page {
    /// It has the names above this one.
    above: Option<BlobId>,
    /// Up to this one, or all of them when it was the empty one.
    through: Option<BlobId>,
    /// As far as was heard of.
    names: BTreeSet<BlobId>,
}

impl Count {
    /// A count that begins now.
    pub(crate) fn begin() -> Self {
        let last = Page::default();
        Self {
            total: 0,
            progress: Progress::Reading { last },
        }
    }

    /// Nothing was counted; only what is heard of counts.
    pub(crate) fn unknown() -> Self {
        Self {
            total: 0,
            progress: Progress::Settled,
        }
    }

    /// The name after which the next page begins.
    pub(crate) fn after(&self) -> Option<BlobId> {
        match &self.progress {
            Progress::Reading { last } => last.through,
            Progress::Ended { .. } | Progress::Settled => None,
        }
    }

    /// The next page was read; an empty one is the end.
    pub(crate) fn page(&mut self, names: &[BlobId]) {
        let above = self.after();
        self.total += names.len() as u64;
        let last = Page {
            above,
            through: names.last().copied(),
            names: names.iter().copied().collect(),
        };
        self.progress = match names.is_empty() {
            true => Progress::Ended { last },
            false => Progress::Reading { last },
        };
    }

    /// Everything that the last page shows was heard of.
    pub(crate) fn settle(&mut self) {
        if matches!(self.progress, Progress::Ended { .. }) {
            self.progress = Progress::Settled;
        }
    }

    /// A name came.
    pub(crate) fn added(&mut self, name: BlobId) {
        let is_news = match &mut self.progress {
            Progress::Reading { last } if Some(name) > last.through => false,
            Progress::Reading { last } | Progress::Ended { last } if Some(name) > last.above => last.names.insert(name),
            _ => true,
        };
        self.total += u64::from(is_news);
    }

    /// A name went.
    pub(crate) fn released(&mut self, name: BlobId) {
        let is_news = match &mut self.progress {
            Progress::Reading { last } if Some(name) > last.through => false,
            Progress::Reading { last } | Progress::Ended { last } if Some(name) > last.above => {
                last.names.remove(&name)
            }
            _ => true,
        };
        self.total = self.total.saturating_sub(u64::from(is_news));
    }

    /// The names counted.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use core_types::Entropy;
    use platform::SeededEntropy;

    use super::*;

    /// Names come and go, and are heard of later; pages are read in between.
    #[test]
    fn what_is_counted_is_what_is_there_whatever_came_and_went_meanwhile() {
        for seed in 0..2000 {
            let entropy: &dyn Entropy = &SeededEntropy::new(seed);
            let mut names: BTreeSet<BlobId> = BTreeSet::new();
            let mut unheard: Vec<(BlobId, bool)> = Vec::new();
            let mut count = Count::begin();
            let mut is_ended = false;
            for _ in 0..60 {
                for _ in 0..entropy.below(4) {
                    let name = BlobId([entropy.below(12) as u8; 32]);
                    let came = names.insert(name);
                    if !came {
                        names.remove(&name);
                    }
                    unheard.push((name, came));
                }
                if entropy.below(2) == 0 {
                    for (name, came) in unheard.drain(..) {
                        match came {
                            true => count.added(name),
                            false => count.released(name),
                        }
                    }
                    if is_ended {
                        count.settle();
                        assert_eq!(count.total(), names.len() as u64, "seed {seed}");
                    }
                    // Something may happen between what was heard of and the page.
                    let name = BlobId([entropy.below(12) as u8; 32]);
                    if names.insert(name) {
                        unheard.push((name, true));
                    }
                    if !is_ended {
                        let after = count.after();
                        let page: Vec<_> = names
                            .iter()
                            .copied()
                            .filter(|name| Some(*name) > after)
                            .take(3)
                            .collect();
                        count.page(&page);
                        is_ended = page.is_empty();
                    }
                }
            }
            assert!(is_ended, "seed {seed}");
        }
    }
}
