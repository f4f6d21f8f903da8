//! The nodes' processes: starting, finding, ending them. Only a process whose command line names the node's configuration is
//! ever signalled: a pid may have been given to somebody else since.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use ctl::{Exit, Failure};
use rustix::process::{Pid, Signal, kill_process};

use super::layout::{NodeEntry, config_path, log_path};

/// The processes that this one started.
#[derive(Default)]
pub(crate) struct Children(BTreeMap<u64, Child>);

impl Children {
    /// Starts a node. What it logs goes to `node-K.log`.
    pub(crate) fn start(&mut self, dir: &Path, node: u64) -> Result<(), Failure> {
        let failed =
            |error: std::io::Error| Failure::new(Exit::Failed, format!("node {node} was not started: {error}"));
        let binary = std::env::current_exe().map_err(failed)?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log_path(dir, node))
            .map_err(failed)?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(config_path(dir, node));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // A group of its own: Ctrl-C is for us, and we end the nodes in order.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.0.insert(node, command.spawn().map_err(failed)?);
        Ok(())
    }

    pub(crate) fn pid(&self, node: u64) -> u32 {
        self.0.get(&node).map_or(0, Child::id)
    }

    /// The processes as far as [`stop_all`] has to know them.
    pub(crate) fn entries(&self) -> Vec<NodeEntry> {
        let entry = |(node, child): (&u64, &Child)| NodeEntry {
            id: *node,
            pid: child.id(),
            ..NodeEntry::default()
        };
        self.0.iter().map(entry).collect()
    }

    /// Ends all of them, in order, and waits until the last thread of each is gone.
    pub(crate) async fn stop(&mut self, dir: &Path) {
        stop_all(dir, &self.entries()).await;
        for child in self.0.values_mut() {
            // They have ended or were killed: this does not take long.
            let _ = child.wait();
        }
    }

    /// The node's exit status, when this process started it and it has ended.
    pub(crate) fn exited(&mut self, node: u64) -> Option<ExitStatus> {
        self.0.get_mut(&node)?.try_wait().ok().flatten()
    }

    /// The nodes that ended since the last call.
    pub(crate) fn ended(&mut self) -> Vec<(u64, ExitStatus)> {
        let nodes: Vec<u64> = self.0.keys().copied().collect();
        let mut ended = Vec::new();
        for node in nodes {
            if let Some(status) = self.exited(node) {
                self.0.remove(&node);
                ended.push((node, status));
            }
        }
        ended
    }
}

/// Whether the node's process runs. A process that was killed does not, though its last threads may live, and hold the lock
/// of the data directory, for a moment: the node that is started next waits for that.
pub(crate) fn runs(dir: &Path, entry: &NodeEntry) -> bool {
    if entry.pid == 0 {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{}/stat", entry.pid)).unwrap_or_default();
    let dead = stat
        .rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with('Z') || rest.starts_with('X'));
    let command = fs::read(format!("/proc/{}/cmdline", entry.pid)).unwrap_or_default();
    let config = config_path(dir, entry.id);
    let config = fs::canonicalize(&config).unwrap_or(config);
    let ours = command.split(|byte| *byte == 0).any(|argument| {
        let argument = Path::new(std::str::from_utf8(argument).unwrap_or_default());
        fs::canonicalize(argument).is_ok_and(|argument| argument == config)
    });
    !dead && ours
}

/// Ends all nodes, one after the other, so that each hands over what it leads.
pub(crate) async fn stop_all(dir: &Path, nodes: &[NodeEntry]) {
    for entry in nodes {
        if !runs(dir, entry) {
            continue;
        }
        signal(entry, Signal::TERM);
        let mut waited = Duration::ZERO;
        while runs(dir, entry) && waited < STOP_PATIENCE {
            tokio::time::sleep(LOOK).await;
            waited += LOOK;
        }
        if runs(dir, entry) {
            ctl::output::note(&format!("node {} did not end in time and is killed", entry.id));
            signal(entry, Signal::KILL);
        }
    }
}

fn signal(entry: &NodeEntry, signal: Signal) {
    if let Some(pid) = i32::try_from(entry.pid).ok().and_then(Pid::from_raw) {
        // An error says that it is gone already.
        let _ = kill_process(pid, signal);
    }
}

/// How long a node may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
