//! Clean histories pass; each planted bug is seen under its id.

use super::*;
use crate::naive::{Bug, digest, run};
use crate::time::Time;

#[test]
fn clean_histories_pass() {
    for seed in 0..200 {
        let run = run(seed, 200, None);
        assert_eq!(judge(&run.history, &run.last), [], "seed {seed}");
    }
}

#[test]
fn planted_bugs_are_found() {
    for (bug, id) in [
        (Bug::LosesAcknowledged, "I01"),
        (Bug::DeliversTwice, "I05"),
        (Bug::DeliversRefused, "I04"),
        (Bug::ChangesBytes, "I06"),
        (Bug::InventsMail, "I04"),
        (Bug::ForgetsExpunge, "I09"),
        (Bug::MoveLosesCopy, "I01"),
        (Bug::ReusesUid, "I01"),
    ] {
        let found = (0..100).any(|seed| {
            let run = run(seed, 120, Some(bug));
            let violations = judge(&run.history, &run.last);
            violations.iter().any(|violation| violation.id == id)
        });
        assert!(found, "{bug:?}");
    }
}

#[test]
fn mail_that_was_queued_has_to_be_there_at_the_end_and_uncertain_mail_may() {
    let inbox = MailboxKey::new(1, "INBOX");
    for (outcome, there, expected) in [
        (Outcome::Later, 0, vec!["I01"]),
        (Outcome::Later, 1, vec![]),
        (Outcome::Unknown, 0, vec![]),
        (Outcome::Unknown, 1, vec![]),
        (Outcome::Unknown, 2, vec!["I05"]),
        (Outcome::Failed, 1, vec!["I04", "I05"]),
        (Outcome::Ok, 1, vec![]),
        (Outcome::Ok, 0, vec!["I01"]),
    ] {
        let token = Token(1);
        let mut history = History::new();
        let op = history.invoke(
            1,
            1,
            Time(1),
            Action::Deliver {
                to: inbox.clone(),
                token,
                digest: digest(token),
            },
        );
        history.end(op, Time(2), outcome, |_| {});
        let last: Vec<FinalMessage> = (0..there)
            .map(|place| FinalMessage {
                mailbox: inbox.clone(),
                uid: place + 1,
                token: Some(token),
                digest: digest(token),
                flags: FlagSet::default(),
            })
            .collect();
        let ids: Vec<&str> = judge(&history, &last).iter().map(|violation| violation.id).collect();
        assert_eq!(ids, expected, "{outcome:?} {there}");
    }
}
