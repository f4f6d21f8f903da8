//! A naive mailbox, looked at through several nodes, passes; each broken rule is seen by the client that relies on it.

use super::clients::Clients;
use super::*;
use crate::rng::Rng;

fn message(uid: u32, modseq: u64) -> ViewMessage {
    ViewMessage {
        uid,
        identity: u128::from(uid) + 1000,
        flags: FlagSet::default(),
        modseq,
        uidl: Some(format!("u{uid}")),
    }
}

fn view(uid_next: u32, highest_modseq: u64, messages: Vec<ViewMessage>) -> MailboxView {
    MailboxView {
        mailbox: MailboxKey::new(1, "INBOX"),
        uid_validity: 7,
        uid_next,
        highest_modseq,
        messages,
        vanished: Some(Vec::new()),
        forgotten_modseq: 0,
    }
}

fn ids(violations: &[Violation]) -> Vec<&'static str> {
    violations.iter().map(|violation| violation.id).collect()
}

/// What the announcements and the clients say to two views of one node.
fn judge(first: &MailboxView, second: &MailboxView) -> (Vec<&'static str>, Vec<&'static str>) {
    let (mut announcements, mut clients) = (Announcements::new(), Clients::new());
    assert_eq!(announcements.observe(1, Time(1), Time(1), first), []);
    assert_eq!(clients.sync(1, Time(1), first), []);
    let announced = announcements.observe(1, Time(2), Time(2), second);
    let synced = clients.sync(1, Time(2), second);
    (ids(&announced), ids(&synced))
}

#[test]
fn a_naive_mailbox_passes_through_all_nodes() {
    for seed in 0..100 {
        let mut rng = Rng::new(seed);
        let (mut announcements, mut clients) = (Announcements::new(), Clients::new());
        let mut now = view(1, 1, Vec::new());
        for step in 0..200 {
            now.highest_modseq += 1;
            let modseq = now.highest_modseq;
            let place = usize::try_from(rng.below(now.messages.len() as u64)).unwrap();
            match rng.below(4) {
                0 | 1 => {
                    let uid = now.uid_next + u32::try_from(rng.below(3)).unwrap();
                    now.uid_next = uid + 1;
                    now.messages.push(message(uid, modseq));
                    assert_eq!(announcements.assigned(Time(step), &now.mailbox, 7, uid), []);
                }
                2 if !now.messages.is_empty() => {
                    let gone = now.messages.remove(place);
                    now.vanished.as_mut().unwrap().push((gone.uid, modseq));
                }
                _ => {
                    if let Some(message) = now.messages.get_mut(place) {
                        message.flags.0 ^= 1 << rng.below(5);
                        message.modseq = modseq;
                    }
                }
            }
            if rng.chance(30) {
                // The server forgets what vanished long ago.
                let vanished = now.vanished.as_mut().unwrap();
                let forgotten = vanished.drain(..vanished.len() / 2).map(|(_, modseq)| modseq).max();
                now.forgotten_modseq = now.forgotten_modseq.max(forgotten.unwrap_or(0));
            }
            if rng.chance(400) {
                let node = rng.between(1, 3);
                assert_eq!(
                    announcements.observe(node, Time(step), Time(step), &now),
                    [],
                    "seed {seed}"
                );
            }
            if rng.chance(200) {
                assert_eq!(clients.sync(rng.between(1, 3), Time(step), &now), [], "seed {seed}");
            }
        }
    }
}

#[test]
fn a_uid_that_is_used_again_is_seen() {
    let first = view(3, 5, vec![message(1, 4), message(2, 5)]);
    let mut second = first.clone();
    second.highest_modseq = 6;
    second.messages[1].identity = 9;
    second.messages[1].modseq = 6;
    let (announced, synced) = judge(&first, &second);
    assert_eq!(announced, ["U1"]);
    assert_eq!(synced, ["U1", "U1", "U1", "I11"]);
    // By another node too, and long after it was gone.
    let mut announcements = Announcements::new();
    announcements.observe(1, Time(1), Time(1), &first);
    announcements.observe(2, Time(2), Time(2), &view(3, 7, vec![message(1, 4)]));
    assert_eq!(ids(&announcements.observe(3, Time(3), Time(3), &second)), ["U1"]);
}

#[test]
fn mail_that_shows_up_below_uidnext_is_seen() {
    let first = view(10, 5, vec![message(1, 4)]);
    let second = view(11, 6, vec![message(1, 4), message(5, 6)]);
    assert_eq!(judge(&first, &second), (vec!["U2"], vec!["U2"]));
}

#[test]
fn a_new_uid_validity_is_seen_and_clients_start_afresh() {
    let first = view(10, 5, vec![message(1, 4)]);
    let mut second = view(2, 1, vec![message(1, 1)]);
    second.uid_validity = 8;
    second.messages[0].identity = 1;
    second.messages[0].uidl = Some("other".to_owned());
    assert_eq!(judge(&first, &second), (vec!["U3"], vec![]));
}

#[test]
fn changes_that_hide_from_a_changedsince_are_seen() {
    let first = view(3, 5, vec![message(1, 4), message(2, 5)]);
    let mut changed = first.clone();
    changed.highest_modseq = 6;
    changed.messages[0].flags = FlagSet::SEEN;
    assert_eq!(judge(&first, &changed), (vec!["U4"], vec!["U4"]));
    let mut came = first.clone();
    came.uid_next = 4;
    came.messages.push(message(3, 5));
    assert_eq!(judge(&first, &came), (vec!["U4"], vec!["U4"]));
    let mut vanished = first.clone();
    vanished.messages.remove(0);
    vanished.vanished = Some(vec![(1, 5)]);
    assert_eq!(judge(&first, &vanished), (vec!["U4"], vec!["U4"]));
    vanished.highest_modseq = 6;
    vanished.vanished = Some(vec![(1, 6)]);
    assert_eq!(judge(&first, &vanished), (vec![], vec![]));
}

#[test]
fn numbers_that_fall_are_seen() {
    let first = view(10, 50, vec![message(1, 40)]);
    assert_eq!(judge(&first, &view(9, 50, vec![message(1, 40)])).0, ["I09"]);
    assert_eq!(judge(&first, &view(10, 49, vec![message(1, 40)])).0, ["U4"]);
    assert_eq!(judge(&first, &view(10, 50, vec![message(1, 39)])).0, ["I10"]);
    let bad = view(2, 5, vec![message(1, 6), message(3, 5), message(3, 5)]);
    assert_eq!(ids(&bad.check(Time(0))), ["I10", "I09", "I07", "I09"]);
    let mut announcements = Announcements::new();
    assert_eq!(announcements.assigned(Time(0), &bad.mailbox, 1, 5), []);
    assert_eq!(ids(&announcements.assigned(Time(0), &bad.mailbox, 1, 5)), ["I07"]);
    assert_eq!(announcements.assigned(Time(0), &bad.mailbox, 2, 1), []);
    // A node that was replaced owes nothing.
    announcements.observe(1, Time(0), Time(0), &first);
    announcements.forget_node(1);
    assert_eq!(
        announcements.observe(1, Time(0), Time(0), &view(9, 50, vec![message(1, 40)])),
        []
    );
}

#[test]
fn a_uidl_names_one_message_and_a_message_has_one_uidl() {
    let first = view(3, 5, vec![message(1, 4), message(2, 5)]);
    let mut renamed = first.clone();
    renamed.messages[0].uidl = Some("new".to_owned());
    assert_eq!(judge(&first, &renamed).1, ["I11"]);
    let mut doubled = first.clone();
    doubled.messages[0].uidl = Some("u2".to_owned());
    assert_eq!(judge(&first, &doubled).1, ["I11"; 3]);
}
