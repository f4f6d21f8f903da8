//! Every scenario that was written down is borne, with its own seed; and every file is one.

use simtests::run::{Plan, run};
use simtests::scenario::{ALL, named};

fn is_borne(name: &str) {
    let schedule = named(name).unwrap().schedule(None).unwrap();
    let report = run(Plan {
        schedule,
        keep_trace: false,
    });
    assert_eq!(report.violations, Vec::<String>::new());
}

macro_rules! each_is_borne {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                is_borne(stringify!($name));
            }
        )*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

each_is_borne! {
    all_lose_power,
    bit_flip_then_power_loss,
    clients_die,
    clock_jumps_a_day,
    drain_and_remove,
    follower_disk_put_back,
    full_disk_at_the_leader,
    grow_and_shrink,
    killed_in_a_snapshot,
    leader_cut_while_idle,
    leader_dies_after_receipts,
    node_replaced,
    paused_leader,
    replaced_by_a_spare,
    two_nodes_one_after_the_other,
}

#[test]
fn each_file_is_a_scenario_with_a_purpose_and_a_test() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut files: Vec<String> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let named: Vec<String> = ALL.iter().map(|scenario| format!("{}.txt", scenario.name)).collect();
    assert_eq!(files, named);
    let tested: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
    assert_eq!(tested, TESTED);
    for scenario in ALL {
        assert!(scenario.purpose().len() > 40, "{}", scenario.name);
        assert_eq!(scenario.schedule(Some(9)).unwrap().seed, 9);
    }
}
