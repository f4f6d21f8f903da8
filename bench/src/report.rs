//! What is printed: a table for people, JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::idle::IdleOutcome;
use crate::load::Outcome;

/// One test's outcome.
#[derive(Debug)]
pub(crate) struct LoadResult {
    pub(crate) test: &'static str,
    pub(crate) connections: u32,
    pub(crate) size: u64,
    pub(crate) outcome: Outcome,
}

/// All that was measured.
#[derive(Debug)]
pub(crate) enum Report {
    Load(Vec<LoadResult>),
    Idle(IdleOutcome),
}

impl Report {
    /// Whether anything failed.
    pub(crate) fn failed(&self) -> bool {
        match self {
            Self::Load(results) => results.iter().any(|result| result.outcome.errors > 0),
            Self::Idle(outcome) => outcome.errors > 0,
        }
    }

    /// JSON, version 1 of the shape.
    pub(crate) fn json(&self) -> String {
        let value = match self {
            Self::Load(results) => json!({
                "version": 1,
                "results": results.iter().map(load_json).collect::<Vec<_>>(),
            }),
            Self::Idle(outcome) => json!({
                "version": 1,
                "idle": {
                    "connections": outcome.connections,
                    "open": outcome.open,
                    "alive": outcome.alive,
                    "errors": outcome.errors,
                    "first_error": outcome.first_error,
                    "opening_seconds": outcome.opening.as_secs_f64(),
                    "held_seconds": outcome.held.as_secs(),
                },
            }),
        };
        format!("{value:#}\n")
    }

    /// A table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        match self {
            Self::Load(results) => {
                let _ = writeln!(
                    text,
                    "{:<8} {:>5} {:>9} {:>7} {:>10} {:>10} {:>10} {:>10}",
                    "test", "conns", "done", "errors", "per second", "p50 ms", "p99 ms", "max ms"
                );
                for result in results {
                    let outcome = &result.outcome;
                    let _ = writeln!(
                        text,
                        "{:<8} {:>5} {:>9} {:>7} {:>10.1} {:>10.2} {:>10.2} {:>10.2}",
                        result.test,
                        result.connections,
                        outcome.latencies.len(),
                        outcome.errors,
                        per_second(outcome),
                        milliseconds(outcome.percentile(50)),
                        milliseconds(outcome.percentile(99)),
                        milliseconds(outcome.percentile(100)),
                    );
                }
                for result in results {
                    if let Some(error) = &result.outcome.first_error {
                        let _ = writeln!(text, "{}: first error: {error}", result.test);
                    }
                }
            }
            Self::Idle(outcome) => {
                let _ = writeln!(
                    text,
                    "{} of {} sessions open after {:.1} s, {} alive after {} s, {} errors",
                    outcome.open,
                    outcome.connections,
                    outcome.opening.as_secs_f64(),
                    outcome.alive,
                    outcome.held.as_secs(),
                    outcome.errors,
                );
                if let Some(error) = &outcome.first_error {
                    let _ = writeln!(text, "first error: {error}");
                }
            }
        }
        text
    }
}

fn load_json(result: &LoadResult) -> Value {
    let outcome = &result.outcome;
    json!({
        "test": result.test,
        "connections": result.connections,
        "size": result.size,
        "operations": outcome.latencies.len(),
        "errors": outcome.errors,
        "first_error": outcome.first_error,
        "seconds": outcome.elapsed.as_secs_f64(),
        "per_second": per_second(outcome),
        "p50_micros": outcome.percentile(50),
        "p99_micros": outcome.percentile(99),
        "max_micros": outcome.percentile(100),
    })
}

fn per_second(outcome: &Outcome) -> f64 {
    let seconds = outcome.elapsed.as_secs_f64();
    if seconds > 0.0 {
        outcome.latencies.len() as f64 / seconds
    } else {
        0.0
    }
}

fn milliseconds(micros: u64) -> f64 {
    micros as f64 / 1000.0
}
