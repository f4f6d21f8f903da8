//! Shrinking: the fewest faults and clients, and the smallest settings, under which a run still fails (Zeller's delta debugging).

use std::time::Duration;

use super::{Event, Schedule};
use crate::time::Time;

/// What a shrinker found.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest schedule that failed.
    pub schedule: Schedule,
    /// How many runs it took.
    pub runs: usize,
    /// Whether nothing more can be taken away; `false` when the runs ran out.
    pub minimal: bool,
}

/// Takes away events and clients, then makes what is left lesser and shorter, and settings smaller, as long as `fails` says that the run still
/// fails; at most `runs_max` runs. The schedule given must fail: it is not tried.
pub fn shrink(schedule: &Schedule, runs_max: usize, fails: impl FnMut(&Schedule) -> bool) -> Shrunk {
    let mut search = Search {
        best: schedule.clone(),
        runs: 0,
        runs_max,
        fails,
    };
    loop {
        let before = search.best.clone();
        search.reduce(
            |schedule| schedule.events.len(),
            0,
            |schedule, keep| {
                let mut place = 0..;
                schedule.events.retain(|_| place.next().is_some_and(keep));
            },
        );
        search.reduce(
            |schedule| schedule.clients.len(),
            1,
            |schedule, keep| {
                let mut place = 0..;
                schedule.clients.retain(|_| place.next().is_some_and(keep));
            },
        );
        search.simplify();
        search.lower_knobs();
        if search.best == before || search.is_over() {
            break;
        }
    }
    Shrunk {
        minimal: !search.is_over(),
        schedule: search.best,
        runs: search.runs,
    }
}

struct Search<F> {
    best: Schedule,
    runs: usize,
    runs_max: usize,
    fails: F,
}

impl<F: FnMut(&Schedule) -> bool> Search<F> {
    fn is_over(&self) -> bool {
        self.runs >= self.runs_max
    }

    /// Keeps the candidate when it fails.
    fn accept(&mut self, candidate: Schedule) -> bool {
        if self.is_over() || candidate == self.best {
            return false;
        }
        self.runs += 1;
        let failed = (self.fails)(&candidate);
        if failed {
            self.best = candidate;
        }
        failed
    }

    /// Takes away parts of a list, halves first, then ever smaller ones, until no single item can go.
    fn reduce(
        &mut self,
        length: impl Fn(&Schedule) -> usize,
        length_min: usize,
        retain: impl Fn(&mut Schedule, &dyn Fn(usize) -> bool),
    ) {
        let mut size = length(&self.best).div_ceil(2).max(1);
        loop {
            let (mut start, mut went) = (0, false);
            while start < length(&self.best) && !self.is_over() {
                let mut candidate = self.best.clone();
                retain(&mut candidate, &|place| place < start || place >= start + size);
                if length(&candidate) >= length_min && self.accept(candidate) {
                    went = true;
                } else {
                    start += size;
                }
            }
            if self.is_over() || (size == 1 && !went) {
                return;
            }
            if !went {
                size = (size / 2).max(1);
            }
        }
    }

    /// Smaller settings: half of what they are, as long as that is something.
    fn lower_knobs(&mut self) {
        let names: Vec<String> = self.best.knobs.keys().cloned().collect();
        for name in names {
            while let Some(value) = self.best.knobs.get(&name).copied().filter(|value| *value > 1) {
                let mut candidate = self.best.clone();
                candidate.knobs.insert(name.clone(), value / 2);
                if !self.accept(candidate) {
                    break;
                }
            }
        }
    }

    /// Lesser faults, and shorter ones.
    fn simplify(&mut self) {
        let mut place = 0;
        while let Some(event) = self.best.events.get(place).cloned() {
            let lesser = event
                .fault
                .simpler()
                .into_iter()
                .map(|fault| Event { fault, ..event.clone() });
            let shorter = (event.lasts > SHORT).then(|| Event {
                // Whole microseconds, as the text has them.
                lasts: Time(Time::after(event.lasts).0 / 2).since_start(),
                ..event.clone()
            });
            let mut improved = false;
            for simpler in lesser.chain(shorter) {
                let mut candidate = self.best.clone();
                if let Some(slot) = candidate.events.get_mut(place) {
                    *slot = simpler;
                }
                if self.accept(candidate) {
                    improved = true;
                    break;
                }
            }
            if !improved {
                place += 1;
            }
        }
    }
}

/// Shorter than this nobody can tell.
const SHORT: Duration = Duration::from_millis(20);
