//! What a run tells, and how a process hands it to the one that started it.

use std::collections::BTreeMap;

use oracle::coverage::Coverage;

use crate::host::Host;

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash of the trace, and its events.
    pub hash: String,
    /// Events.
    pub events: u64,
    /// What must never be.
    pub violations: Vec<String>,
    /// What clients did, which faults happened, which branches were taken.
    pub coverage: Coverage,
    /// Seconds simulated, and real.
    pub simulated: f64,
    /// Real seconds.
    pub real: f64,
    /// Lines of the trace, where they were kept.
    pub lines: Vec<String>,
    /// Hashes along the way.
    pub checkpoints: Vec<(u64, [u8; 8])>,
}

impl Report {
    /// Lines for [`Self::parse`]; without what was kept of the trace.
    #[must_use]
    pub fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for violation in &self.violations {
            let _ = writeln!(text, "@violation\t{}", violation.replace('\n', " / "));
        }
        for line in self.coverage.to_text().lines() {
            let _ = writeln!(text, "@coverage\t{line}");
        }
        let (seed, hash, events) = (self.seed, &self.hash, self.events);
        let _ = writeln!(
            text,
            "@run\t{seed}\t{hash}\t{events}\t{}\t{}",
            self.simulated, self.real
        );
        text
    }

    /// What [`Self::to_text`] wrote; `None` where the run did not come to its end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut report = Self::default();
        let mut coverage = String::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["@violation", text] => report.violations.push(text.to_owned()),
                ["@coverage", line] => {
                    coverage.push_str(line);
                    coverage.push('\n');
                }
                ["@run", seed, hash, events, simulated, real] => {
                    return Some(Self {
                        seed: seed.parse().ok()?,
                        hash: hash.to_owned(),
                        events: events.parse().ok()?,
                        simulated: simulated.parse().ok()?,
                        real: real.parse().ok()?,
                        coverage: Coverage::parse(&coverage)?,
                        ..report
                    });
                }
                _ => {}
            }
        }
        None
    }
}

/// A disk that is full or broken ends a node by design.
pub(super) fn is_of_the_disk(reason: &str) -> bool {
    ["disk", "sync", "space", "injected", "i/o", "I/O", "room"]
        .iter()
        .any(|word| reason.contains(word))
}

/// Where the rows of a group differ between the nodes: for whoever looks for the reason of a failure.
pub(super) fn index_differences(hosts: &[Host], groups: u32) -> Vec<String> {
    let mut lines = Vec::new();
    for group in 0..=groups {
        let all: Vec<_> = hosts.iter().map(|host| host.rows(group)).collect();
        let keys: std::collections::BTreeSet<&Vec<u8>> = all.iter().flat_map(BTreeMap::keys).collect();
        for key in keys {
            let values: Vec<Option<&Vec<u8>>> = all.iter().map(|rows| rows.get(key)).collect();
            if values.windows(2).any(|pair| pair[0] != pair[1]) {
                let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                let text: Vec<String> = values
                    .iter()
                    .map(|value| value.map_or("-".to_owned(), |value| hex(value)))
                    .collect();
                lines.push(format!("index of group {group}: {} {}", hex(key), text.join(" | ")));
            }
        }
    }
    lines.truncate(40);
    lines
}
