//! Without this no seed is worth anything: one seed is one history, to the last datagram and disk call.

use simtests::run::{Plan, Report, run, schedule};

fn history(seed: u64) -> Report {
    run(Plan {
        schedule: schedule(seed, 12),
        keep_trace: false,
    })
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
fn another_seed_is_another_history() {
    assert_ne!(history(3).hash, history(4).hash);
}
