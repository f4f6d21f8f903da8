//! Clean histories pass; planted bugs and hand-made violations are seen, under their ids.

use std::time::Duration;

use super::*;
use crate::history::{FlagChange, FlagSet, Outcome, Seen, Token};
use crate::naive::{Bug, run};
use crate::time::Time;

fn found(bug: Bug, id: &str) -> bool {
    (0..200).any(|seed| {
        let judgement = judge(&run(seed, 120, Some(bug)).history, 20_000);
        judgement.violations.iter().any(|violation| violation.id == id)
    })
}

#[test]
fn clean_histories_are_linearizable() {
    let (mut decided, mut gave_up) = (0, 0);
    for seed in 0..60 {
        let judgement = judge(&run(seed, 150, None).history, 20_000);
        assert_eq!(judgement.violations, [], "seed {seed}");
        decided += judgement.decided;
        gave_up += judgement.gave_up.len();
    }
    assert!(decided > 1000 && gave_up * 100 < decided, "{decided} {gave_up}");
}

/// What narrows times says the same as a search without it, wherever that comes to an end.
#[test]
fn narrowed_times_change_no_verdict() {
    let bugs = [
        None,
        Some(Bug::LosesAcknowledged),
        Some(Bug::ReadsOldState),
        Some(Bug::ForgetsExpunge),
    ];
    let (mut violated, mut fine) = (0, 0);
    for seed in 0..40 {
        for bug in bugs {
            let history = run(seed, 60, bug).history;
            let (tokens, _) = Tokens::of(&history);
            for mailbox in mailboxes(&history) {
                let (model, ops) = whole::of(&history, &tokens, &mailbox);
                let mut narrowed = ops.clone();
                tighten(&mut narrowed, model.count());
                let is_fine = |ops: &[Timed<_>]| match check(&model, ops, 20_000) {
                    Verdict::GaveUp => None,
                    verdict => Some(verdict == Verdict::Linearizable),
                };
                let (plain, narrowed) = (is_fine(&ops), is_fine(&narrowed));
                if plain.is_some() && narrowed.is_some() {
                    assert_eq!(plain, narrowed, "seed {seed} {bug:?} {mailbox}");
                    *(if plain == Some(true) { &mut fine } else { &mut violated }) += 1;
                }
            }
        }
    }
    assert!(violated > 10 && fine > 200, "{violated} {fine}");
}

/// For a person who changed the checks: many more, and longer ones.
#[test]
#[ignore = "takes minutes"]
fn many_long_clean_histories_are_linearizable() {
    let (mut decided, mut gave_up) = (0, 0);
    for seed in 0..2000 {
        let run = run(seed, 400, None);
        let judgement = judge(&run.history, 50_000);
        assert_eq!(judgement.violations, [], "seed {seed}");
        assert_eq!(crate::mail::judge(&run.history, &run.last), [], "seed {seed}");
        decided += judgement.decided;
        gave_up += judgement.gave_up.len();
    }
    assert!(gave_up * 100 < decided, "{decided} {gave_up}");
}

#[test]
fn planted_bugs_are_found() {
    for (bug, id) in [
        (Bug::LosesAcknowledged, "I13"),
        (Bug::ReadsOldState, "I13"),
        (Bug::ReadsAreTorn, "I13"),
        (Bug::ForgetsExpunge, "I13"),
        (Bug::ForgetsStore, "I12"),
        (Bug::ReusesUid, "I08"),
        (Bug::MoveLosesCopy, "I13"),
        (Bug::ListsOldNames, "I16"),
    ] {
        assert!(found(bug, id), "{bug:?}");
    }
}

/// One operation of a client of its own.
fn op(history: &mut History, times: (u64, u64), outcome: Outcome, action: Action) {
    let op = history.invoke(0, 1, Time(times.0), action);
    if times.1 != 0 {
        history.end(op, Time(times.1), outcome, |_| {});
    }
}

fn inbox() -> MailboxKey {
    MailboxKey::new(1, "INBOX")
}

fn append(token: u64, uid: u32) -> Action {
    Action::Append {
        to: inbox(),
        token: Token(token),
        digest: [0; 32],
        flags: FlagSet::default(),
        uid: Some(uid),
    }
}

fn read(uids: &[(u32, FlagSet)]) -> Action {
    let seen = |(uid, flags): &(u32, FlagSet)| {
        let seen = Seen {
            token: None,
            flags: Some(*flags),
        };
        (*uid, seen)
    };
    Action::Read {
        mailbox: inbox(),
        messages: Some(uids.iter().map(seen).collect()),
        some: Vec::new(),
        count: None,
    }
}

fn ids(history: &History) -> Vec<&'static str> {
    judge(history, 10_000)
        .violations
        .iter()
        .map(|violation| violation.id)
        .collect()
}

#[test]
fn a_read_that_misses_an_acknowledged_append_says_which() {
    let mut history = History::new();
    op(&mut history, (1, 2), Outcome::Ok, append(1, 1));
    op(&mut history, (3, 4), Outcome::Ok, append(2, 2));
    op(&mut history, (5, 6), Outcome::Ok, read(&[(1, FlagSet::default())]));
    let judgement = judge(&history, 10_000);
    let whole = judgement
        .violations
        .iter()
        .find(|violation| violation.id == "I13")
        .unwrap();
    assert!(whole.what.contains("not seen: 2;"), "{whole}");
    assert!(whole.what.contains("the state is UIDs 1,2"), "{whole}");
}

#[test]
fn two_reads_that_see_two_writes_in_opposite_orders_are_a_violation() {
    // Each message by itself is in order; only together they are not.
    let mut history = History::new();
    let nothing = FlagSet::default();
    op(&mut history, (1, 20), Outcome::Ok, append(1, 1));
    op(&mut history, (1, 20), Outcome::Ok, append(2, 2));
    op(&mut history, (2, 3), Outcome::Ok, read(&[(1, nothing)]));
    op(&mut history, (2, 3), Outcome::Ok, read(&[(2, nothing)]));
    assert_eq!(ids(&history), ["I13"]);
}

#[test]
fn an_uncertain_append_may_show_late_but_not_vanish_again() {
    let nothing = FlagSet::default();
    let token = |uid| Action::Fetch {
        mailbox: inbox(),
        uid: Some(uid),
        token: Some(Token(7)),
        digest: [0; 32],
    };
    let mut history = History::new();
    op(&mut history, (1, 2), Outcome::Unknown, append(7, 0));
    op(&mut history, (3, 4), Outcome::Ok, read(&[]));
    op(&mut history, (50, 51), Outcome::Ok, read(&[(1, nothing)]));
    op(&mut history, (52, 53), Outcome::Ok, token(1));
    assert_eq!(ids(&history), [""; 0]);
    op(&mut history, (60, 61), Outcome::Ok, read(&[]));
    assert_eq!(ids(&history), ["I13", "I12"]);
}

#[test]
fn counts_are_judged_where_only_counts_are_seen() {
    let count = |count| Action::Read {
        mailbox: inbox(),
        messages: None,
        some: Vec::new(),
        count: Some(count),
    };
    for (seen, expected) in [(1, vec!["I13"]), (2, vec![]), (3, vec![])] {
        let mut history = History::new();
        op(&mut history, (1, 2), Outcome::Ok, append(1, 1));
        let deliver = |token| Action::Deliver {
            to: inbox(),
            token: Token(token),
            digest: [0; 32],
        };
        op(&mut history, (3, 4), Outcome::Ok, deliver(2));
        op(&mut history, (3, 0), Outcome::Unknown, deliver(3));
        op(&mut history, (5, 6), Outcome::Ok, count(seen));
        assert_eq!(ids(&history), expected, "{seen}");
    }
}

#[test]
fn a_flag_that_comes_back_is_a_violation() {
    let store = |change| Action::Store {
        mailbox: inbox(),
        uids: vec![1],
        change,
        flags: FlagSet::SEEN,
    };
    let mut history = History::new();
    op(&mut history, (1, 2), Outcome::Ok, append(1, 1));
    op(&mut history, (3, 4), Outcome::Ok, store(FlagChange::Add));
    op(&mut history, (5, 6), Outcome::Ok, read(&[(1, FlagSet::SEEN)]));
    op(&mut history, (7, 8), Outcome::Ok, store(FlagChange::Remove));
    op(&mut history, (9, 10), Outcome::Ok, read(&[(1, FlagSet::default())]));
    assert_eq!(ids(&history), [""; 0]);
    op(&mut history, (11, 12), Outcome::Ok, read(&[(1, FlagSet::SEEN)]));
    assert_eq!(ids(&history), ["I12"]);
}

#[test]
fn names_follow_create_rename_and_delete() {
    let create = |name: &str| Action::Create {
        account: 1,
        name: name.to_owned(),
    };
    let rename = Action::Rename {
        account: 1,
        from: "a".to_owned(),
        to: "z/c".to_owned(),
    };
    let delete = Action::Delete {
        mailbox: MailboxKey::new(1, "1"),
        name: "z/c".to_owned(),
    };
    let list = |names: &[&str]| Action::List {
        account: 1,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let mut history = History::new();
    op(&mut history, (1, 2), Outcome::Ok, create("a/b"));
    op(&mut history, (3, 4), Outcome::Ok, list(&["INBOX", "a", "a/b"]));
    op(&mut history, (5, 6), Outcome::Ok, rename);
    op(&mut history, (7, 8), Outcome::Ok, list(&["INBOX", "z", "z/c", "z/c/b"]));
    op(&mut history, (9, 10), Outcome::Ok, delete);
    op(&mut history, (11, 12), Outcome::Ok, list(&["INBOX", "z", "z/c/b"]));
    assert_eq!(ids(&history), [""; 0]);
    op(
        &mut history,
        (13, 14),
        Outcome::Ok,
        list(&["INBOX", "z", "z/c", "z/c/b"]),
    );
    assert_eq!(ids(&history), ["I16"]);
}

#[test]
fn a_copy_that_became_another_message_is_a_violation() {
    let mut history = History::new();
    op(&mut history, (1, 2), Outcome::Ok, append(1, 1));
    op(&mut history, (3, 4), Outcome::Ok, append(2, 2));
    let copy = Action::Copy {
        from: inbox(),
        to: inbox(),
        pairs: vec![(1, Some(2))],
    };
    op(&mut history, (5, 6), Outcome::Ok, copy);
    assert!(ids(&history).contains(&"I08"));
}

#[test]
fn operations_that_do_not_end_are_named() {
    let mut history = History::new();
    op(&mut history, (1, 0), Outcome::Unknown, append(1, 1));
    op(&mut history, (1, 5_000_000), Outcome::Ok, append(2, 2));
    assert_eq!(history.overdue(Time(2_000_000), Duration::from_secs(4)).len(), 1);
    assert_eq!(history.overdue(Time(9_000_000), Duration::from_secs(4)).len(), 2);
    assert_eq!(history.overdue(Time(9_000_000), Duration::from_secs(9)), []);
}
