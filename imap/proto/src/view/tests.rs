//! The view against a naive client that only knows what it was told.

use proptest::prelude::*;

use super::*;

fn message(uid: u32, system: u8, modseq: u64) -> Message {
    let mut guid = [0; 16];
    guid[..4].copy_from_slice(&uid.to_be_bytes());
    Message {
        uid: Uid(uid),
        guid: MessageGuid(guid),
        flags: Flags::system(system),
        modseq: ModSeq(modseq),
    }
}

fn view(uids: &[u32]) -> SessionView {
    SessionView::new(uids.iter().map(|&uid| message(uid, 0, 1)), NEVER_RECENT).unwrap()
}

fn set(text: &str) -> SequenceSet {
    crate::parse::Parser::new(text.as_bytes()).parse_sequence_set().unwrap()
}

#[test]
fn expunge_waits_until_it_is_allowed_and_exists_does_not_shrink_before() {
    let mut view = view(&[2, 4, 6]);
    view.handle_vanished(Uid(4), ModSeq(2));
    view.handle_message(message(9, 0, 3)).unwrap();
    assert_eq!(view.take_updates(false), vec![Update::Exists(4)]);
    assert!(view.by_sequence_number(2).unwrap().gone && view.by_uid(Uid(9)).unwrap().sequence_number == 4);
    view.handle_vanished(Uid(2), ModSeq(4));
    assert_eq!(view.take_updates(true), vec![Update::Expunge(2), Update::Expunge(1)]);
    assert_eq!((view.exists(), view.by_uid(Uid(9)).unwrap().sequence_number), (2, 2));
    assert!(!view.has_updates() && view.highest_modseq() == ModSeq(4));
}

#[test]
fn a_message_that_comes_and_goes_unseen_is_never_told_of() {
    let mut view = view(&[2]);
    view.handle_message(message(3, 0, 2)).unwrap();
    assert_eq!(view.exists(), 1);
    assert!(view.by_uid(Uid(3)).is_none());
    view.handle_vanished(Uid(3), ModSeq(3));
    assert_eq!(view.take_updates(true), vec![]);
}

#[test]
fn flag_changes_are_told_once_and_own_silent_ones_never() {
    let mut view = view(&[2, 3]);
    view.handle_message(message(3, Flags::SEEN, 2)).unwrap();
    view.handle_message(message(3, Flags::SEEN | Flags::DRAFT, 3)).unwrap();
    view.handle_own_change(message(2, Flags::DELETED, 4)).unwrap();
    let updates = view.take_updates(false);
    assert!(
        matches!(&updates[..], [Update::Fetch { sequence_number: 2, flags, .. }] if flags.system == 17),
        "{updates:?}"
    );
    // An older state that arrives late changes nothing.
    view.handle_message(message(3, 0, 2)).unwrap();
    assert_eq!(view.take_updates(true), vec![]);
    assert!(view.by_uid(Uid(2)).unwrap().has(Flags::DELETED));
}

#[test]
fn what_no_client_could_be_told_is_an_error() {
    let mut view = view(&[5, 9]);
    assert_eq!(
        view.handle_message(message(7, 0, 2)),
        Err(ViewError::OutOfOrder(Uid(7)))
    );
    let mut other = message(5, 0, 2);
    other.guid.0[15] = 1;
    assert_eq!(view.handle_message(other), Err(ViewError::OtherMessage(Uid(5))));
    // Two that arrive together may come in any order.
    view.handle_message(message(12, 0, 3)).unwrap();
    view.handle_message(message(11, 0, 4)).unwrap();
    assert_eq!(view.take_updates(false), vec![Update::Exists(4)]);
    assert_eq!(
        view.iter().map(|shown| shown.uid.0).collect::<Vec<_>>(),
        vec![5, 9, 11, 12]
    );
}

#[test]
fn recent_counts_from_the_first_recent_message() {
    let mut view = SessionView::new([message(1, 1, 1), message(2, 0, 1)], Uid(2)).unwrap();
    assert_eq!((view.recent(), view.first_unseen()), (1, Some(2)));
    view.handle_message(message(3, 0, 2)).unwrap();
    assert_eq!(view.take_updates(false), vec![Update::Exists(3), Update::Recent(2)]);
}

#[test]
fn imap_seqset_star_empty() {
    let view = view(&[]);
    for text in ["*", "1:*", "1"] {
        assert_eq!(view.select(&set(text), false), Err(NoSuchMessage));
        assert_eq!(view.select(&set(text), true), Ok(vec![]));
    }
}

#[test]
fn imap_seqnum_gone() {
    let view = view(&[1, 2, 3, 4, 5, 6]);
    assert_eq!(view.select(&set("7"), false), Err(NoSuchMessage));
    assert_eq!(view.select(&set("2:7"), false), Err(NoSuchMessage));
    assert_eq!(view.select(&set("6"), false), Ok(std::iter::once(6..7).collect()));
}

#[test]
fn imap_seqset_max() {
    let view = view(&[3, 5, 4_000_000_000]);
    assert_eq!(
        view.select(&set("1:4294967295"), true),
        Ok(std::iter::once(1..4).collect())
    );
    assert_eq!(
        view.select(&set("4294967295:*"), true),
        Ok(std::iter::once(3..4).collect())
    );
    assert_eq!(view.select(&set("4,6:9"), true), Ok(vec![]));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive,
    Flag(prop::sample::Index, u8),
    Vanish(prop::sample::Index),
    Tell(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Arrive),
        (any::<prop::sample::Index>(), 0u8..4).prop_map(|(index, flags)| Step::Flag(index, flags)),
        any::<prop::sample::Index>().prop_map(Step::Vanish),
        any::<bool>().prop_map(Step::Tell),
    ]
}

proptest! {
    #[test]
    fn a_client_that_believes_what_it_is_told_ends_up_with_the_truth(
        start in 0u32..5,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut truth: Vec<(u32, u8)> = (1..=start).map(|uid| (uid, 0)).collect();
        let mut client: Vec<(Option<u32>, u8)> = truth.iter().map(|&(uid, flags)| (Some(uid), flags)).collect();
        let mut view = view(&(1..=start).collect::<Vec<_>>());
        let (mut next_uid, mut modseq) = (start + 1, 1);
        for step in steps.into_iter().chain([Step::Tell(true)]) {
            modseq += 1;
            match step {
                Step::Arrive => {
                    truth.push((next_uid, 0));
                    view.handle_message(message(next_uid, 0, modseq)).unwrap();
                    next_uid += 1;
                }
                Step::Flag(index, flags) if !truth.is_empty() => {
                    let at = index.index(truth.len());
                    truth[at].1 = flags;
                    view.handle_message(message(truth[at].0, flags, modseq)).unwrap();
                }
                Step::Vanish(index) if !truth.is_empty() => {
                    let (uid, _) = truth.remove(index.index(truth.len()));
                    view.handle_vanished(Uid(uid), ModSeq(modseq));
                }
                Step::Flag(..) | Step::Vanish(_) => {}
                Step::Tell(expunge) => {
                    for update in view.take_updates(expunge) {
                        match update {
                            Update::Expunge(number) => {
                                prop_assert!(expunge);
                                client.remove(number as usize - 1);
                            }
                            Update::Exists(count) => {
                                prop_assert!(count as usize > client.len());
                                client.resize(count as usize, (None, 0));
                            }
                            Update::Recent(_) => prop_assert!(false, "nothing is recent here"),
                            Update::Fetch { sequence_number, uid, flags, .. } => {
                                let known = &mut client[sequence_number as usize - 1];
                                prop_assert!(known.0.is_none_or(|known| known == uid.0));
                                *known = (Some(uid.0), flags.system);
                            }
                        }
                    }
                    // The client fetches what it does not know.
                    for (at, known) in client.iter_mut().enumerate() {
                        let shown = view.by_sequence_number(at as u32 + 1).unwrap();
                        prop_assert!(known.0.is_none_or(|known| known == shown.uid.0));
                        if known.0.is_none() {
                            *known = (Some(shown.uid.0), shown.flags().system);
                        }
                    }
                    prop_assert_eq!(view.exists() as usize, client.len());
                    if expunge {
                        let told: Vec<_> = client.iter().map(|&(uid, flags)| (uid.unwrap(), flags)).collect();
                        prop_assert_eq!(&told, &truth);
                        prop_assert!(!view.has_updates());
                    }
                }
            }
        }
    }
}

#[test]
fn a_set_of_uids_holds_both_its_ends_and_passes_over_what_is_not_there() {
    let view = view(&[2, 3, 5, 9]);
    let select = |text: &str| -> Vec<u32> {
        let ranges = view.select(&set(text), true).unwrap();
        ranges.into_iter().flatten().collect()
    };
    for (text, numbers) in [
        ("2:5", &[1, 2, 3][..]),
        ("3:9", &[2, 3, 4]),
        ("4:8", &[3]),
        ("1,3,6:7", &[2]),
        ("9", &[4]),
        ("*", &[4]),
        ("100:*", &[4]),
        ("10:11", &[]),
        ("4", &[]),
    ] {
        assert_eq!(select(text), numbers, "{text}");
    }
}

#[test]
fn a_message_is_recent_from_the_first_recent_uid_on() {
    let uids = [4, 5, 6];
    let view = SessionView::new(uids.map(|uid| message(uid, 0, 1)), Uid(5)).unwrap();
    assert_eq!(
        uids.map(|uid| view.by_uid(Uid(uid)).unwrap().recent),
        [false, true, true]
    );
    assert_eq!(view.recent(), 2);
}

#[test]
fn flags_of_a_message_that_is_gone_are_not_told() {
    let mut view = view(&[2, 3]);
    view.handle_message(message(3, Flags::SEEN, 2)).unwrap();
    view.handle_vanished(Uid(3), ModSeq(3));
    assert_eq!(view.take_updates(false), vec![]);
    assert_eq!(view.take_updates(true), vec![Update::Expunge(2)]);
}
