//! Counters that say how often each kind of fault and each rare branch was really hit, over all seeds.

use std::collections::BTreeMap;
use std::fmt;

/// Named counters of one run, or of many runs merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    runs: u64,
    counters: BTreeMap<String, Counter>,
}

/// What a counter says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Hits in all runs.
    pub hits: u64,
    /// Runs with at least one hit.
    pub runs: u64,
    /// The most hits in one run.
    pub most: u64,
}

impl Coverage {
    /// No run at all: what runs are merged into.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The counters of one run, all at nought.
    #[must_use]
    pub fn of_one_run() -> Self {
        Self {
            runs: 1,
            counters: BTreeMap::new(),
        }
    }

    /// Counts, within one run.
    pub fn add(&mut self, name: &str, hits: u64) {
        if hits == 0 {
            return;
        }
        let counter = self.counters.entry(name.to_owned()).or_default();
        counter.hits += hits;
        counter.runs = 1;
        counter.most = counter.hits;
    }

    /// Counts one, within one run.
    pub fn hit(&mut self, name: &str) {
        self.add(name, 1);
    }

    /// Adds the runs of another.
    pub fn merge(&mut self, other: &Self) {
        self.runs += other.runs;
        for (name, theirs) in &other.counters {
            let ours = self.counters.entry(name.clone()).or_default();
            ours.hits += theirs.hits;
            ours.runs += theirs.runs;
            ours.most = ours.most.max(theirs.most);
        }
    }

    /// Number of runs.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// A counter; nought when it was never hit.
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        self.counters.get(name).copied().unwrap_or_default()
    }

    /// All counters that were hit, by name.
    pub fn counters(&self) -> impl Iterator<Item = (&str, Counter)> {
        self.counters.iter().map(|(name, counter)| (name.as_str(), *counter))
    }

    /// Which of these were never hit: what the runs do not test, whatever they say.
    #[must_use]
    pub fn missing<'a>(&self, expected: &[&'a str]) -> Vec<&'a str> {
        let never = |name: &&&str| self.counter(name).hits == 0;
        expected.iter().filter(never).copied().collect()
    }

    /// The counters as lines of `name hits runs most`, after a first line with the number of runs; [`Coverage::parse`]
    /// reads it, so that processes can hand theirs to one that merges.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("runs {}\n", self.runs);
        for (name, counter) in &self.counters {
            text.push_str(&format!("{name} {} {} {}\n", counter.hits, counter.runs, counter.most));
        }
        text
    }

    /// Reads [`Coverage::to_text`]. `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let runs = lines.next()?.strip_prefix("runs ")?.parse().ok()?;
        let mut counters = BTreeMap::new();
        for line in lines {
            let mut fields = line.rsplitn(4, ' ');
            let mut number = || fields.next()?.parse().ok();
            let (most, runs, hits) = (number()?, number()?, number()?);
            counters.insert(fields.next()?.to_owned(), Counter { hits, runs, most });
        }
        Some(Self { runs, counters })
    }
}

/// A table: name, hits, share of runs with a hit, most hits in one run.
impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.counters.keys().map(String::len).max().unwrap_or(0).max(8);
        writeln!(
            f,
            "{:width$}  {:>12}  {:>7}  {:>9}",
            "counter", "hits", "runs", "most/run"
        )?;
        for (name, counter) in &self.counters {
            let share = counter.runs as f64 * 100.0 / self.runs.max(1) as f64;
            writeln!(
                f,
                "{name:width$}  {:>12}  {share:>6.1}%  {:>9}",
                counter.hits, counter.most
            )?;
        }
        write!(f, "{} runs", self.runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_add_up_and_what_was_never_hit_is_named() {
        let mut all = Coverage::new();
        for hits in [3, 0, 5] {
            let mut run = Coverage::of_one_run();
            run.add("fault.crash", hits);
            run.hit("raft.leader_change");
            run.hit("raft.leader_change");
            all.merge(&run);
        }
        let expected = Counter {
            hits: 8,
            runs: 2,
            most: 5,
        };
        assert_eq!(all.counter("fault.crash"), expected);
        assert_eq!(all.missing(&["fault.crash", "repair"]), ["repair"]);
        assert_eq!(Coverage::parse(&all.to_text()), Some(all.clone()));
        assert_eq!(Coverage::parse("nonsense"), None);
        let table = all.to_string();
        assert!(table.contains("66.7%") && table.ends_with("3 runs"), "{table}");
    }
}
