//! Without this no seed is worth anything: one seed is one history, to the last datagram and disk call.

use std::process::Command;

use simtests::run::{Plan, Report, run, schedule};

const SECONDS: u64 = 12;

fn history(seed: u64) -> Report {
    run(Plan {
        schedule: schedule(seed, SECONDS),
        keep_trace: false,
    })
}

/// The seed in another process, whose addresses in memory are others.
fn history_elsewhere(seed: u64) -> Report {
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args([
            "--child",
            "--seed",
            &seed.to_string(),
            "--seconds",
            &SECONDS.to_string(),
        ])
        .output()
        .expect("the program of this package");
    Report::parse(&String::from_utf8_lossy(&output.stdout)).expect("a report")
}

#[test]
fn one_seed_is_one_history() {
    for seed in [3, 5] {
        let (one, other) = (history(seed), history(seed));
        assert_eq!((&one.hash, one.events), (&other.hash, other.events), "seed {seed}");
        assert!(one.events > 5000, "seed {seed}: only {} events", one.events);
        assert_eq!(one.violations, Vec::<String>::new(), "seed {seed}");
    }
}

#[test]
fn one_seed_is_one_history_in_any_process() {
    let (one, other) = (history(7), history_elsewhere(7));
    assert_eq!((&one.hash, one.events), (&other.hash, other.events));
}

#[test]
fn another_seed_is_another_history() {
    assert_ne!(history(3).hash, history(4).hash);
}
