//! I31: memory, tasks and files return to where they were.
//!
//! A node whose process was killed leaves nothing of itself in memory; one that stopped in order leaves nothing either, soon.
//! A node that runs has, once its clients are gone, no more tasks and open files than when the cluster was founded.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use oracle::Violation;
use oracle::time::Time;

use crate::host::Host;

/// How long after it stopped in order a node's last task may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Tasks that may have come since the cluster was founded: sessions and requests between nodes that last a moment, connections that
/// were made anew.
const TASKS_MORE: usize = 40;

/// What is left of a node's life, seen from outside: how many still hold each of the parts that it was given.
pub struct Remains {
    /// Which life.
    pub life: u64,
    /// The names of the parts, and who holds them.
    pub parts: Vec<(&'static str, Box<dyn Fn() -> usize + Send>)>,
    /// How it ended; `None` while it goes on.
    pub ended: Option<Ended>,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its process was killed.
    Killed,
    /// It stopped by itself, then.
    Stopped(Duration),
}

/// What nodes had when all was quiet at first, and who was told of already.
#[derive(Default)]
pub struct Leaks {
    tasks: BTreeMap<u64, usize>,
    told: BTreeSet<(u64, u64)>,
}

impl Leaks {
    /// The cluster is founded and quiet.
    pub fn founded(&mut self, hosts: &[Host]) {
        for host in hosts {
            if let Some(running) = host.running() {
                let tasks = running.runtime.metrics().num_alive_tasks();
                self.tasks.insert(host.number(), tasks);
            }
        }
    }

    /// Looks at what dead nodes left.
    pub fn look(&mut self, now: Time, hosts: &[Host]) -> Vec<Violation> {
        let mut found = Vec::new();
        for host in hosts {
            host.remains(|remains| {
                remains.retain(|life| {
                    let (is_over, is_gone, what) = left(life, now);
                    if is_over && !is_gone && self.told.insert((host.number(), life.life)) {
                        let what = format!(
                            "life {} of {} is over, and is still held: {what}",
                            life.life,
                            host.name()
                        );
                        found.push(Violation::at("I31", now, what));
                    }
                    !is_gone || !is_over
                });
            });
        }
        found
    }

    /// What running nodes hold that they should not when their clients are gone.
    #[must_use]
    pub fn remaining(&self, hosts: &[Host]) -> Vec<String> {
        let mut found = Vec::new();
        for host in hosts {
            let Some(running) = host.running() else { continue };
            let tasks = running.runtime.metrics().num_alive_tasks();
            let most = self.tasks.get(&host.number()).copied().unwrap_or(tasks) + TASKS_MORE;
            found.extend(too_many_tasks(&host.name(), tasks, most));
            found.extend(open_in_vain(&host.name(), &host.disk().open_files()));
        }
        found
    }
}

fn too_many_tasks(node: &str, tasks: usize, most: usize) -> Option<String> {
    (tasks > most).then(|| format!("{tasks} tasks are alive on {node}, and {most} may be"))
}

/// Files that nobody has open who has nothing to do: those of blobs, temporary ones, those that have no name any more.
fn open_in_vain(node: &str, open: &BTreeMap<String, usize>) -> Option<String> {
    let is_in_vain = |path: &&String| path.is_empty() || path.starts_with("blobs/") || path.starts_with("tmp/");
    let paths: Vec<&String> = open.keys().filter(is_in_vain).collect();
    (!paths.is_empty()).then(|| format!("open on {node}: {paths:?}"))
}

/// Whether a life is over, whether nothing of it is left, and what is.
fn left(life: &Remains, now: Time) -> (bool, bool, String) {
    let is_over = match life.ended {
        None => false,
        Some(Ended::Killed) => true,
        Some(Ended::Stopped(at)) => now.since_start() > at + ENDS_WITHIN,
    };
    let held: Vec<String> = life
        .parts
        .iter()
        .map(|(name, count)| (name, count()))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} ({count})"))
        .collect();
    (is_over, held.is_empty(), held.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_a_dead_node_leaves_is_seen() {
        let part = Arc::new(1);
        let weak = Arc::downgrade(&part);
        let mut life = Remains {
            life: 1,
            parts: vec![("disk", Box::new(move || weak.strong_count()))],
            ended: None,
        };
        assert!(!left(&life, Time(1)).0, "it lives");
        life.ended = Some(Ended::Killed);
        assert_eq!(left(&life, Time(1)), (true, false, "disk (1)".to_owned()));
        life.ended = Some(Ended::Stopped(Duration::ZERO));
        assert!(!left(&life, Time(1)).0, "it may take a moment");
        drop(part);
        assert_eq!(left(&life, Time(60_000_000)), (true, true, String::new()));
    }

    #[test]
    fn a_task_that_never_ends_is_seen() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let before = runtime.metrics().num_alive_tasks();
        assert_eq!(
            too_many_tasks("node-1", runtime.metrics().num_alive_tasks(), before),
            None
        );
        runtime.spawn(std::future::pending::<()>());
        assert!(too_many_tasks("node-1", runtime.metrics().num_alive_tasks(), before).is_some());
    }

    #[test]
    fn a_file_that_stays_open_is_seen() {
        use core_types::{Disk, OpenMode};
        let disk = platform::FaultyDisk::new();
        disk.create_dir_all("blobs/ab").unwrap();
        disk.create_dir_all("log").unwrap();
        let _log = disk.open("log/1", OpenMode::CreateNew).unwrap();
        assert_eq!(open_in_vain("node-1", &disk.open_files()), None);
        let blob = disk.open("blobs/ab/c", OpenMode::CreateNew).unwrap();
        assert!(open_in_vain("node-1", &disk.open_files()).is_some());
        drop(blob);
        assert_eq!(open_in_vain("node-1", &disk.open_files()), None);
        let gone = disk.open("log/2", OpenMode::CreateNew).unwrap();
        disk.remove("log/2").unwrap();
        assert!(
            open_in_vain("node-1", &disk.open_files()).is_some(),
            "it has no name any more"
        );
        drop(gone);
    }
}
