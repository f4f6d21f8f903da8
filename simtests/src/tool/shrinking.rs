//! Shrinking of a failing schedule; each attempt is a process of its own, since a run may panic.

use std::path::Path;
use std::time::{Duration, Instant};

use oracle::schedule::{Schedule, Shrunk, shrink};

use crate::child;
use crate::run::Report;

/// Attempts, at most.
const RUNS_MAX: usize = 200;

/// Looks for the smallest schedule that fails in the same way: with a violation of the same id. `tell` hears of each attempt.
///
/// # Errors
/// The schedule does not fail, or cannot be run.
pub fn shrink_in_children(
    program: &Path,
    schedule: &Schedule,
    within: Duration,
    mut tell: impl FnMut(&str),
) -> Result<Shrunk, String> {
    let begin = Instant::now();
    let file = std::env::temp_dir().join(format!("everpost-shrink-{}.txt", std::process::id()));
    let ids = |schedule: &Schedule| -> Result<Vec<String>, String> {
        std::fs::write(&file, schedule.to_string()).map_err(|error| error.to_string())?;
        let seed = schedule.seed.to_string();
        let arguments = ["--seed", &seed, "--schedule", &file.to_string_lossy()].map(str::to_owned);
        let report = child::report_of(program, &arguments).unwrap_or_else(|error| Report {
            violations: vec![format!("I34: {error}")],
            ..Report::default()
        });
        Ok(report.violations.iter().map(|text| id(text)).collect())
    };
    let first = ids(schedule);
    let wanted = first.and_then(|ids| ids.first().cloned().ok_or_else(|| "the seed does not fail".to_owned()));
    let shrunk = wanted.map(|wanted| {
        tell(&format!("it fails with {wanted}; looking for less that does"));
        let mut runs = 0;
        let mut shrunk = shrink(schedule, RUNS_MAX, |candidate| {
            if begin.elapsed() > within {
                return false;
            }
            runs += 1;
            let fails = ids(candidate).is_ok_and(|ids| ids.contains(&wanted));
            tell(&format!(
                "run {runs}, {:.0} s: {} faults, {} clients: {}",
                begin.elapsed().as_secs_f64(),
                candidate.events.len(),
                candidate.clients.len(),
                if fails { "fails" } else { "does not" }
            ));
            fails
        });
        shrunk.minimal &= begin.elapsed() <= within;
        shrunk
    });
    let _ = std::fs::remove_file(&file);
    shrunk
}

/// The invariant that a violation is about.
fn id(violation: &str) -> String {
    violation.split([' ', ':']).next().unwrap_or_default().to_owned()
}
