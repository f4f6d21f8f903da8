//! Scenarios: schedules that people wrote down, each for one thing that must be borne. `scenarios/NAME.txt`; the comment at
//! the top says what it is for.

use oracle::schedule::Schedule;

use crate::tool::Job;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name: that of the file.
    pub name: &'static str,
    text: &'static str,
}

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        /// All of them.
        pub const ALL: &[Scenario] = &[$(Scenario {
            name: $name,
            text: include_str!(concat!("../scenarios/", $name, ".txt")),
        }),*];
    };
}

scenarios! {
    "all_lose_power",
    "bit_flip_then_power_loss",
    "clients_die",
    "clock_jumps_a_day",
    "drain_and_remove",
    "follower_disk_put_back",
    "full_disk_at_the_leader",
    "grow_and_shrink",
    "killed_in_a_snapshot",
    "leader_cut_while_idle",
    "leader_dies_after_receipts",
    "node_replaced",
    "paused_leader",
    "replaced_by_a_spare",
    "two_nodes_one_after_the_other",
}

/// The one of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

impl Scenario {
    /// What it is for: the comment at its top.
    #[must_use]
    pub fn purpose(&self) -> String {
        let lines = self.text.lines().map_while(|line| line.strip_prefix("# "));
        lines.collect::<Vec<_>>().join(" ")
    }

    /// Its schedule, with its own seed or another one.
    ///
    /// # Errors
    /// The file is no schedule.
    pub fn schedule(&self, seed: Option<u64>) -> Result<Schedule, String> {
        let schedule = Schedule::parse(self.text).map_err(|error| format!("{}: {error}", self.name));
        let mut schedule = schedule?;
        if let Some(seed) = seed
            && seed != schedule.seed
        {
            for client in &mut schedule.clients {
                client.seed = client.seed.wrapping_add(seed.wrapping_mul(1009));
            }
            schedule.seed = seed;
        }
        Ok(schedule)
    }

    /// The run of it.
    #[must_use]
    pub fn job(&self, seed: Option<u64>) -> Job {
        let own = || self.schedule(None).map_or(0, |schedule| schedule.seed);
        let seed = seed.unwrap_or_else(own);
        let arguments = ["--scenario", self.name, "--seed", &seed.to_string()];
        Job {
            seed,
            arguments: arguments.map(str::to_owned).to_vec(),
        }
    }
}
