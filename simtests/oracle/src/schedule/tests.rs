//! Tests of schedules: one seed is one schedule, all are survivable, text round-trips, shrinking ends at the minimum.

use std::collections::BTreeMap;

use super::*;

fn atlas() -> Atlas {
    let mut atlas = Atlas::site(3);
    atlas.spares = vec![4, 5];
    atlas.knobs = vec![("groups".to_owned(), 2, 4)];
    atlas
}

#[test]
fn one_seed_is_one_schedule() {
    let mut different = 0;
    for seed in 0..50 {
        assert_eq!(atlas().schedule(seed), atlas().schedule(seed));
        different += u32::from(atlas().schedule(seed).events != atlas().schedule(seed + 1).events);
    }
    assert!(different >= 48);
}

#[test]
fn every_schedule_is_survivable_and_every_kind_comes_up() {
    let mut seen: BTreeMap<FaultKind, u32> = BTreeMap::new();
    let (mut none, mut most) = (0, 0);
    for seed in 0..600 {
        let schedule = atlas().schedule(seed);
        atlas().check(&schedule).unwrap();
        none += u32::from(schedule.events.is_empty());
        most = most.max(schedule.events.len());
        for kind in schedule.events.iter().map(|event| event.fault.kind()) {
            *seen.entry(kind).or_insert(0) += 1;
        }
        assert!(!schedule.clients.is_empty());
        assert!((2..=4).contains(&schedule.knob("groups", 0)));
        assert!(schedule.events.is_sorted_by_key(|event| event.at));
        assert!(
            schedule
                .events
                .iter()
                .all(|event| event.at >= Time::after(atlas().warm_up))
        );
    }
    for kind in FaultKind::ALL {
        assert!(seen.get(kind).is_some_and(|count| *count > 20), "{kind}: {seen:?}");
    }
    assert!((15..100).contains(&none), "{none}");
    assert!(most > 20, "{most}");
}

#[test]
fn damage_stays_on_a_minority_until_it_is_repaired() {
    let mut atlas = Atlas::site(5);
    for (repair, nodes_max) in [(None, 2), (Some(Duration::from_secs(5)), 5)] {
        atlas.repair = repair;
        let mut most = 0;
        for seed in 0..300 {
            let schedule = atlas.schedule(seed);
            let damaged: BTreeSet<u64> = schedule
                .events
                .iter()
                .filter_map(|event| event.fault.damaged())
                .collect();
            most = most.max(damaged.len());
        }
        assert!(most <= nodes_max && most > nodes_max / 2, "{repair:?} {most}");
    }
    let flip = |node, at| Event {
        at: Time::after(Duration::from_secs(at)),
        lasts: Duration::ZERO,
        fault: Fault::BitFlip {
            node,
            what: Stored::Log,
        },
    };
    let atlas = Atlas::site(3);
    let mut schedule = Schedule {
        heal: atlas.heal(),
        events: vec![flip(1, 5), flip(1, 6)],
        ..Schedule::default()
    };
    assert_eq!(atlas.check(&schedule), Ok(()));
    schedule.events.push(flip(2, 7));
    assert!(atlas.check(&schedule).unwrap_err().contains("one node too many"));
    schedule.events.pop();
    schedule.events.push(flip(1, 59));
    assert!(atlas.check(&schedule).unwrap_err().contains("does not end"));
}

#[test]
fn a_kind_that_is_off_leaves_the_others_as_they_were() {
    let (mut all, mut fewer) = (Atlas::site(3), Atlas::site(3));
    all = all.only(&[FaultKind::Crash, FaultKind::Loss]);
    fewer = fewer.only(&[FaultKind::Loss]);
    for seed in 0..100 {
        let losses = |atlas: &Atlas| -> Vec<Event> {
            let events = atlas.schedule(seed).events.into_iter();
            events.filter(|event| event.fault.kind() == FaultKind::Loss).collect()
        };
        let (with, without) = (losses(&all), losses(&fewer));
        if !with.is_empty() {
            assert_eq!(with, without[..with.len()]);
        }
    }
}

#[test]
fn schedules_are_read_back_from_their_text() {
    for seed in 0..200 {
        let schedule = atlas().schedule(seed);
        let text = schedule.to_string();
        assert_eq!(Schedule::parse(&text).as_ref(), Ok(&schedule), "{text}");
    }
    let parsed = Schedule::parse("# by hand\n\nat 1.500000 for 2.000000 crash nodes=1,3 power_loss=true\n").unwrap();
    assert_eq!(
        parsed.events[0].fault,
        Fault::Crash {
            nodes: vec![1, 3],
            power_loss: true
        }
    );
    for (text, line) in [
        ("seed x", 1),
        ("seed 1\nat 1.000000 for 2.000000 explode", 2),
        ("at 1.0 for 2.000000 pause node=1", 1),
        ("at 1.000000 for 2.000000 pause", 1),
        ("client id=1", 1),
    ] {
        assert_eq!(Schedule::parse(text).unwrap_err().line, line, "{text}");
    }
}

#[test]
fn steps_come_in_order_and_heal_after_all() {
    for seed in 0..100 {
        let schedule = atlas().schedule(seed);
        let steps = schedule.steps();
        assert!(steps.is_sorted());
        assert_eq!(steps.last(), Some(&(schedule.heal, Step::Heal)));
        let begun = steps.iter().filter(|(_, step)| matches!(step, Step::Begin(_))).count();
        assert_eq!(begun, schedule.events.len());
    }
}

#[test]
fn faults_of_links_add_up() {
    let faults = [
        Fault::Bridge {
            left: vec![1],
            right: vec![3],
        },
        Fault::OneWay {
            from: vec![2],
            to: vec![4],
        },
        Fault::Loss {
            links: Links::Of(2),
            permille: 10,
        },
        Fault::Loss {
            links: Links::Between(1, 2),
            permille: 50,
        },
        Fault::SlowNode {
            node: 2,
            by: Duration::from_millis(7),
        },
    ];
    let cut = |from, to| Link::under(&faults, from, to).cut;
    assert!(cut(1, 3) && cut(3, 1) && cut(2, 4));
    assert!(!cut(1, 2) && !cut(2, 3) && !cut(4, 2));
    let link = Link::under(&faults, 1, 2);
    assert_eq!((link.loss_permille, link.delay_min), (50, Duration::from_millis(7)));
    assert_eq!(Link::under(&faults, 2, 1).loss_permille, 10);
    let apart = [Fault::Partition {
        groups: vec![vec![1, 2], vec![3]],
    }];
    assert!(Link::under(&apart, 1, 3).cut && !Link::under(&apart, 1, 2).cut);
    assert!(!Link::under(&apart, 100, 3).cut, "who is in no group reaches all");
}

/// The failing schedule with the most events among these seeds.
fn busy() -> Schedule {
    let schedules = (0..100).map(|seed| atlas().schedule(seed));
    schedules
        .max_by_key(|schedule| (schedule.events.len(), schedule.clients.len()))
        .unwrap()
}

#[test]
fn shrinking_finds_the_two_events_and_the_client_that_matter() {
    let schedule = busy();
    let (first, last) = (schedule.events[3].fault.kind(), schedule.events[17].fault.kind());
    let client = schedule.clients.last().unwrap().id;
    let mut runs = 0;
    let shrunk = shrink(&schedule, 1000, |candidate| {
        runs += 1;
        let has = |kind| candidate.events.iter().any(|event| event.fault.kind() == kind);
        has(first) && has(last) && candidate.clients.iter().any(|plan| plan.id == client)
    });
    assert!(shrunk.minimal);
    assert_eq!(shrunk.runs, runs);
    assert_eq!(shrunk.schedule.clients.len(), 1);
    let kinds: BTreeSet<FaultKind> = shrunk.schedule.events.iter().map(|event| event.fault.kind()).collect();
    assert_eq!(shrunk.schedule.events.len(), kinds.len());
    assert_eq!(kinds, BTreeSet::from([first, last]));
}

#[test]
fn shrinking_makes_settings_smaller() {
    let mut schedule = busy();
    schedule.knobs = [("groups".to_owned(), 4), ("users".to_owned(), 3)].into();
    let shrunk = shrink(&schedule, 1000, |candidate| candidate.knob("groups", 0) >= 2);
    assert_eq!(
        shrunk.schedule.knobs,
        [("groups".to_owned(), 2), ("users".to_owned(), 1)].into()
    );
    assert!(shrunk.minimal);
}

#[test]
fn shrinking_makes_faults_lesser_and_stops_when_told() {
    let mut schedule = busy();
    schedule.events = vec![Event {
        at: Time::after(Duration::from_secs(5)),
        lasts: Duration::from_secs(8),
        fault: Fault::Crash {
            nodes: vec![1, 2, 3],
            power_loss: true,
        },
    }];
    let fails = |candidate: &Schedule| {
        let event = candidate.events.first();
        event.is_some_and(|event| {
            event.lasts >= Duration::from_secs(1)
                && matches!(&event.fault, Fault::Crash { nodes, .. } if nodes.contains(&2))
        })
    };
    let shrunk = shrink(&schedule, 1000, fails);
    assert_eq!(
        shrunk.schedule.events[0].fault,
        Fault::Crash {
            nodes: vec![2],
            power_loss: false
        }
    );
    assert_eq!(shrunk.schedule.events[0].lasts, Duration::from_secs(1));
    let stopped = shrink(&busy(), 5, |_| true);
    assert_eq!((stopped.runs, stopped.minimal), (5, false));
    // A failure that needs nothing shrinks to nothing.
    // What is shrunk is text and back, too.
    let mut calls = 0;
    let any = shrink(&busy(), 300, |_| {
        calls += 1;
        calls % 3 == 0
    });
    assert_eq!(Schedule::parse(&any.schedule.to_string()), Ok(any.schedule));
    let bare = shrink(&busy(), 1000, |_| true);
    assert!(bare.schedule.events.is_empty() && bare.schedule.clients.len() == 1);
}
