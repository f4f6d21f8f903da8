//! The judge can only find what it is told: a run tells it of operations of every kind, of looks of every kind, and of all
//! that sessions show.

use oracle::coverage::Coverage;
use oracle::schedule::{ClientPlan, ClientRole};
use simtests::run::{Plan, run, schedule};

/// Each at least so often in two runs of half a minute without faults.
const EXPECTED: &[(&str, u64)] = &[
    ("linear.decided", 200),
    ("look.dumped-rows", 1000),
    ("look.imap", 30),
    ("look.last", 30),
    ("look.pop3", 10),
    ("look.replica", 30),
    ("op.append", 10),
    ("op.close", 2),
    ("op.copy", 5),
    ("op.create", 5),
    ("op.delete", 2),
    ("op.deliver", 50),
    ("op.deliver-lmtp", 10),
    ("op.deliver-many", 5),
    ("op.deliver-smtp", 10),
    ("op.expunge", 20),
    ("op.expunge-all", 2),
    ("op.fetch", 50),
    ("op.fetch-by-number", 5),
    ("op.idle", 5),
    ("op.idle-heard", 5),
    ("op.list", 10),
    ("op.move", 5),
    ("op.pop3-login", 10),
    ("op.pop3-retr", 10),
    ("op.read", 100),
    ("op.rename", 2),
    ("op.search", 2),
    ("op.status", 2),
    ("op.store", 20),
    ("op.store-by-number", 5),
    ("session.begun", 10),
    ("session.exists", 20),
    ("session.expunge", 20),
    ("session.fetch", 200),
];

#[test]
fn the_judge_is_told_of_everything() {
    let mut coverage = Coverage::new();
    for seed in [1, 2] {
        let mut schedule = schedule(seed, 30);
        schedule.events.clear();
        let roles = ClientRole::ALL.iter().chain([&ClientRole::Write]);
        let client = |(place, role): (usize, &ClientRole)| ClientPlan {
            id: place as u32 + 1,
            seed: seed * 100 + place as u64,
            user: 1 + u32::from(place == 5),
            node: 1 + place as u64 % 3,
            role: *role,
        };
        schedule.clients = roles.enumerate().map(client).collect();
        let report = run(Plan {
            schedule,
            keep_trace: false,
        });
        assert_eq!(report.violations, Vec::<String>::new(), "seed {seed}");
        coverage.merge(&report.coverage);
    }
    let names: Vec<&str> = EXPECTED.iter().map(|(name, _)| *name).collect();
    assert_eq!(coverage.missing(&names), Vec::<&str>::new());
    for (name, least) in EXPECTED {
        let hits = coverage.counter(name).hits;
        assert!(hits >= *least, "{name} only {hits} times");
    }
    assert_eq!(coverage.counter("linear.gave_up").hits, 0);
    assert_eq!(
        coverage.counter("unknown.ops").hits,
        0,
        "without faults every outcome is known"
    );
}
