//! I31: memory, tasks and files return to where they were.
//!
//! Of a node that was killed or stopped nothing is left in memory once it is started again.
//! A node that runs has, once its clients are gone, no more tasks and open files than when the cluster was founded.

use std::collections::{BTreeMap, BTreeSet};

use oracle::Violation;
use oracle::time::Time;

use crate::host::Host;

/// Tasks that may have come since the cluster was founded: sessions and requests between nodes that last a moment, connections that
/// were made anew.
const TASKS_MORE: usize = 40;

/// How many hold something.
pub type Count = Box<dyn Fn() -> usize + Send>;

/// What is left of a node's life, seen from outside: how many still hold each of the parts that it was given.
pub struct Remains {
    /// Which life.
    pub life: u64,
    /// The names of the parts, and who holds them.
    pub parts: Vec<(&'static str, Count)>,
}

impl Remains {
    /// How many still hold a part.
    #[must_use]
    pub fn held(&self) -> usize {
        self.parts.iter().map(|(_, count)| count()).sum()
    }
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
                // The life before the present one: what is left of a node that ended turmoil drops when it is started again.
                for life in remains
                    .iter()
                    .filter(|life| life.life < host.lives() && life.held() > 0)
                {
                    if self.told.insert((host.number(), life.life)) {
                        let (held, name) = (left(life), host.name());
                        let what = format!("life {} of {name} is over, and is still held: {held}", life.life);
                        found.push(Violation::at("I31", now, what));
                    }
                }
                remains.retain(|life| life.held() > 0);
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

/// What still holds parts of a life.
fn left(life: &Remains) -> String {
    let held = life.parts.iter().map(|(name, count)| (name, count()));
    let held: Vec<String> = held
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} ({count})"))
        .collect();
    held.join(", ")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_a_dead_node_leaves_is_seen() {
        let part = Arc::new(1);
        let weak = Arc::downgrade(&part);
        let life = Remains {
            life: 1,
            parts: vec![("disk", Box::new(move || weak.strong_count()))],
        };
        assert_eq!((life.held(), left(&life)), (1, "disk (1)".to_owned()));
        drop(part);
        assert_eq!((life.held(), left(&life)), (0, String::new()));
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
