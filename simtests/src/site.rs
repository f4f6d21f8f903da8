//! Which machines are to be members, as an administrator was told: what the site has to come to after the last fault.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a machine is to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It waits to be added.
    Spare,
    /// It is a member and may vote.
    Member,
    /// It is a member that votes nowhere.
    Drained,
    /// It was removed.
    Gone,
}

/// Voters of a group, where there are so many members.
const VOTERS: usize = 3;

/// The machines. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Site(Arc<Mutex<BTreeMap<u64, Machine>>>);

#[derive(Clone, Copy, Debug)]
struct Machine {
    address: IpAddr,
    standing: Standing,
    /// Somebody is about to change its standing.
    busy: bool,
}

impl Site {
    fn machines(&self) -> MutexGuard<'_, BTreeMap<u64, Machine>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more machine.
    pub fn place(&self, number: u64, address: IpAddr, standing: Standing) {
        let machine = Machine {
            address,
            standing,
            busy: false,
        };
        self.machines().insert(number, machine);
    }

    /// What the cluster says now.
    pub fn set(&self, number: u64, standing: Standing) {
        if let Some(machine) = self.machines().get_mut(&number) {
            machine.standing = standing;
        }
    }

    /// What a machine is.
    #[must_use]
    pub fn standing(&self, number: u64) -> Option<Standing> {
        self.machines().get(&number).map(|machine| machine.standing)
    }

    /// Whether the machine's standing can be changed; if so, nobody else can until [`Self::free`].
    #[must_use]
    pub fn claim(&self, number: u64) -> bool {
        match self.machines().get_mut(&number) {
            Some(machine) if !machine.busy => {
                machine.busy = true;
                true
            }
            _ => false,
        }
    }

    /// The change is over.
    pub fn free(&self, number: u64) {
        if let Some(machine) = self.machines().get_mut(&number) {
            machine.busy = false;
        }
    }

    /// The members' addresses, by their numbers.
    #[must_use]
    pub fn members(&self) -> Vec<IpAddr> {
        let machines = self.machines();
        let members = machines
            .values()
            .filter(|machine| matches!(machine.standing, Standing::Member | Standing::Drained));
        members.map(|machine| machine.address).collect()
    }

    /// How many voters each group has in the end.
    #[must_use]
    pub fn voters(&self) -> usize {
        let machines = self.machines();
        let active = machines.values().filter(|machine| machine.standing == Standing::Member);
        active.count().min(VOTERS)
    }
}
