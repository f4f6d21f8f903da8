//! How far the runs are, on stderr: on a terminal a line that is written over, elsewhere a line now and then.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Totals;

/// Between two lines where stderr is no terminal.
const EVERY: Duration = Duration::from_secs(30);
/// What is over sooner needs no progress.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) struct Progress {
    begin: Instant,
    runs: usize,
    until: Option<Duration>,
    is_terminal: bool,
    shown: Mutex<Option<Instant>>,
}

impl Progress {
    pub(super) fn begin(runs: usize, until: Option<Duration>) -> Self {
        Self {
            begin: Instant::now(),
            runs,
            until,
            is_terminal: std::io::stderr().is_terminal(),
            shown: Mutex::new(None),
        }
    }

    /// Takes the line away, so that another can be written.
    pub(super) fn clear(&self) {
        if self.is_terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    pub(super) fn show(&self, totals: &Totals) {
        let elapsed = self.begin.elapsed();
        if elapsed < PATIENCE {
            return;
        }
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_terminal && shown.is_some_and(|shown| shown.elapsed() < EVERY) {
            return;
        }
        *shown = Some(Instant::now());
        let line = line(totals, self.runs, elapsed, self.until);
        let end = if self.is_terminal { "" } else { "\n" };
        let _ = write!(std::io::stderr(), "{line}{end}");
        let _ = std::io::stderr().flush();
    }
}

fn line(totals: &Totals, runs: usize, elapsed: Duration, until: Option<Duration>) -> String {
    let done = totals.seeds;
    let left = elapsed.as_secs_f64() / (done.max(1) as f64) * (runs as f64 - done as f64).max(0.0);
    let left = until.map_or(left, |until| left.min(until.saturating_sub(elapsed).as_secs_f64()));
    format!(
        "{done} of {runs} seeds, {} failed, {:.1} simulated seconds per second, about {} left",
        totals.failed.len(),
        totals.simulated / elapsed.as_secs_f64().max(0.001),
        duration(left)
    )
}

fn duration(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{:.0} min", seconds / 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_how_far_it_is_and_how_long_it_takes_yet() {
        let totals = Totals {
            seeds: 25,
            simulated: 1000.0,
            ..Totals::default()
        };
        let shown = |until| line(&totals, 100, Duration::from_secs(100), until);
        let text = "25 of 100 seeds, 0 failed, 10.0 simulated seconds per second, about";
        assert_eq!(shown(None), format!("{text} 5 min left"));
        assert_eq!(shown(Some(Duration::from_secs(130))), format!("{text} 30 s left"));
    }
}
