//! What clients and nodes, and nodes among themselves, can exchange over turmoil's links: free, held back, or cut.
//!
//! Cuts between nodes are not made here but datagram by datagram (`net.rs`). turmoil's TCP does not send again: a connection that
//! was cut stays dead, and its ends find out by their own time limits.

use std::collections::BTreeMap;

use oracle::schedule::Fault;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Tie {
    #[default]
    Free,
    Held,
    Cut,
}

/// The links that are not free now.
#[derive(Debug, Default)]
pub(super) struct Links(BTreeMap<(String, String), Tie>);

impl Links {
    /// Makes the links what these faults want. `clients` are those that are registered.
    pub(super) fn set<'a>(
        &mut self,
        sim: &turmoil::Sim<'_>,
        faults: impl IntoIterator<Item = &'a Fault>,
        machines: &[u64],
        clients: &[String],
    ) {
        let node = |number: u64| format!("node-{number}");
        let mut wanted: BTreeMap<(String, String), Tie> = BTreeMap::new();
        for fault in faults {
            match fault {
                Fault::Pause { node: paused } => {
                    let others = machines
                        .iter()
                        .filter(|other| *other != paused)
                        .map(|other| node(*other));
                    for other in others.chain(clients.iter().cloned()) {
                        wanted.entry(pair(node(*paused), other)).or_insert(Tie::Held);
                    }
                }
                Fault::ClientCut { clients: cut, nodes } => {
                    let is_cut = |name: &&String| cut.iter().any(|number| **name == format!("client-{number}"));
                    for client in clients.iter().filter(is_cut) {
                        for number in nodes.iter().filter(|number| machines.contains(number)) {
                            wanted.insert(pair(node(*number), client.clone()), Tie::Cut);
                        }
                    }
                }
                _ => {}
            }
        }
        let all: Vec<(String, String)> = self.0.keys().chain(wanted.keys()).cloned().collect();
        for both in all {
            let was = self.0.get(&both).copied().unwrap_or_default();
            let is = wanted.get(&both).copied().unwrap_or_default();
            let (one, other) = (both.0.as_str(), both.1.as_str());
            match (was, is) {
                (Tie::Held, Tie::Free) => sim.release(one, other),
                (Tie::Held, Tie::Cut) => {
                    sim.release(one, other);
                    sim.partition(one, other);
                }
                (Tie::Cut, Tie::Free) => sim.repair(one, other),
                (Tie::Free, Tie::Cut) => sim.partition(one, other),
                (Tie::Cut, Tie::Held) => {
                    sim.repair(one, other);
                    sim.hold(one, other);
                }
                (Tie::Free, Tie::Held) => sim.hold(one, other),
                _ => {}
            }
            if is == Tie::Free {
                self.0.remove(&both);
            } else {
                self.0.insert(both, is);
            }
        }
    }
}

fn pair(one: String, other: String) -> (String, String) {
    if one < other { (one, other) } else { (other, one) }
}
