//! One run: a cluster is founded, clients work while faults happen, everything is healed, and everything is checked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use core_types::Entropy;
use platform::SeededEntropy;

use crate::check;
use crate::client::{Answer, admin};
use crate::host::Host;
use crate::os::{EPOCH_SECONDS, Seeded};
use crate::trace::Trace;
use crate::workload::{Client, Ledger, MAILBOXES, PASSWORD, address};

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything else.
    pub seed: u64,
    /// Seconds of load and faults.
    pub seconds: u64,
    /// Users.
    pub users: usize,
    /// Clients.
    pub clients: usize,
    /// Mailbox groups.
    pub groups: u32,
    /// Faults, in order of their times.
    pub faults: Vec<Event>,
    /// Keep every line of the trace.
    pub keep_trace: bool,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds after the load began.
    pub at: u64,
    /// What.
    pub fault: Fault,
}

/// What can happen. Nodes count from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Processes die; with `power_loss` their disks lose what was not synced.
    Crash {
        /// Which.
        nodes: Vec<usize>,
        /// Whether the page cache is lost.
        power_loss: bool,
    },
    /// The power goes in the middle of the disk's work.
    PowerFailsAt {
        /// Which.
        node: usize,
        /// After this many more disk calls.
        calls: u32,
    },
    /// Dead ones come back.
    Restart {
        /// Which.
        nodes: Vec<usize>,
    },
    /// No datagram between two nodes; `both` ways, or from the first to the second only.
    Cut {
        /// From.
        from: usize,
        /// To.
        to: usize,
        /// Both ways.
        both: bool,
    },
    /// All cuts end.
    Heal,
    /// Thousandths of a node's datagrams that are lost or doubled.
    Weather {
        /// Whose.
        node: usize,
        /// Lost.
        loss: u32,
        /// Doubled.
        duplicates: u32,
    },
    /// The longest latency of all links, in milliseconds: more than the shortest means reordering.
    Latency {
        /// Milliseconds.
        longest: u64,
    },
    /// A disk that takes up to this long for everything.
    SlowDisk {
        /// Whose.
        node: usize,
        /// Microseconds.
        micros: u64,
    },
    /// A disk that does nothing for a time.
    FrozenDisk {
        /// Whose.
        node: usize,
        /// Milliseconds.
        millis: u64,
    },
    /// A wall clock that is off.
    Clock {
        /// Whose.
        node: usize,
        /// Milliseconds.
        millis: i64,
    },
    /// Only this much room on a disk; none: enough.
    DiskRoom {
        /// Whose.
        node: usize,
        /// Octets.
        octets: Option<u64>,
    },
}

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash of the trace, and its events.
    pub hash: String,
    /// Events.
    pub events: u64,
    /// What must never be.
    pub violations: Vec<String>,
    /// What clients did, and which faults happened.
    pub counts: BTreeMap<String, u64>,
    /// Seconds simulated, and real.
    pub simulated: f64,
    /// Real seconds.
    pub real: f64,
    /// Lines of the trace, where they were kept.
    pub lines: Vec<String>,
    /// Hashes along the way.
    pub checkpoints: Vec<(u64, [u8; 8])>,
}

/// Nodes of the site.
pub const NODES: usize = 3;

impl Plan {
    /// What a seed decides.
    #[must_use]
    pub fn of_seed(seed: u64, seconds: u64) -> Self {
        let entropy: &dyn Entropy = &SeededEntropy::new(seed ^ 0x70_6c61_6e);
        let below = |bound: u64| entropy.below(bound);
        let users = 2 + usize::try_from(below(2)).unwrap_or(0);
        let mut plan = Self {
            seed,
            seconds,
            users,
            clients: users * 2,
            groups: 2 + u32::try_from(below(3)).unwrap_or(0),
            faults: Vec::new(),
            keep_trace: false,
        };
        let mut faults = Vec::new();
        // A random subset of the kinds, for this run.
        let on: Vec<bool> = (0..9).map(|_| below(2) == 0).collect();
        let mut at = 1000 + below(4000);
        let mut down: Option<Vec<usize>> = None;
        while at + 8000 < seconds * 1000 {
            let node = usize::try_from(below(NODES as u64)).unwrap_or(0);
            let other = (node + 1 + usize::try_from(below(2)).unwrap_or(0)) % NODES;
            let kind = usize::try_from(below(9)).unwrap_or(0);
            if !on[kind] {
                at += 50;
                continue;
            }
            let mut push = |at: u64, fault: Fault| faults.push(Event { at, fault });
            match kind {
                0 | 1 if down.is_none() => {
                    let nodes = match below(6) {
                        0 => vec![0, 1, 2],
                        1 => vec![node, other],
                        _ => vec![node],
                    };
                    let back = at + 300 + below(6000);
                    if kind == 1 && nodes.len() == 1 {
                        let calls = u32::try_from(below(40)).unwrap_or(0);
                        push(at, Fault::PowerFailsAt { node, calls });
                    } else {
                        let power_loss = kind == 1 || below(2) == 0;
                        push(at, Fault::Crash { nodes: nodes.clone(), power_loss });
                    }
                    push(back, Fault::Restart { nodes: nodes.clone() });
                    down = Some(nodes);
                    at = back;
                    down = down.filter(|_| false);
                }
                2 => {
                    let until = at + 500 + below(7000);
                    match below(3) {
                        0 => push(at, Fault::Cut { from: node, to: other, both: true }),
                        1 => push(at, Fault::Cut { from: node, to: other, both: false }),
                        _ => {
                            for to in (0..NODES).filter(|to| *to != node) {
                                push(at, Fault::Cut { from: node, to, both: true });
                            }
                        }
                    }
                    push(until, Fault::Heal);
                }
                3 => {
                    let loss = u32::try_from(below(60)).unwrap_or(0);
                    let duplicates = u32::try_from(below(100)).unwrap_or(0);
                    push(at, Fault::Weather { node, loss, duplicates });
                    push(at + 1000 + below(8000), Fault::Weather { node, loss: 0, duplicates: 0 });
                }
                4 => {
                    push(at, Fault::Latency { longest: 2 + below(40) });
                    push(at + 1000 + below(8000), Fault::Latency { longest: 1 });
                }
                5 => {
                    push(at, Fault::SlowDisk { node, micros: 5000 + below(200_000) });
                    push(at + 1000 + below(6000), Fault::SlowDisk { node, micros: 2000 });
                }
                6 => push(at, Fault::FrozenDisk { node, millis: 500 + below(6000) }),
                7 => {
                    let day = 86_400_000;
                    let millis = i64::try_from(below(2 * day)).unwrap_or(0) - day as i64;
                    push(at, Fault::Clock { node, millis });
                }
                _ => {
                    push(at, Fault::DiskRoom { node, octets: Some(below(200_000)) });
                    push(at + 1000 + below(5000), Fault::DiskRoom { node, octets: None });
                }
            }
            at += 200 + below(6000);
        }
        faults.sort_by_key(|event| event.at);
        plan.faults = faults;
        plan
    }
}

/// Runs a plan, in a thread of its own.
#[must_use]
pub fn run(plan: Plan) -> Report {
    let seed = plan.seed;
    std::thread::Builder::new()
        .name(format!("seed {seed}"))
        .stack_size(16 << 20)
        .spawn(move || Run::new(plan).run())
        .ok()
        .and_then(|thread| thread.join().ok())
        .unwrap_or_else(|| Report {
            seed,
            violations: vec!["I34: the run panicked".to_owned()],
            ..Report::default()
        })
}

struct Run {
    plan: Plan,
    trace: Trace,
    ledger: Ledger,
    entropy: SeededEntropy,
    counts: BTreeMap<String, u64>,
}

/// How long the cluster may take to be founded.
const FOUNDED_WITHIN: Duration = Duration::from_secs(60);
/// How long clients may take to end.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(90);

impl Run {
    fn new(plan: Plan) -> Self {
        Self {
            trace: Trace::new(plan.keep_trace),
            ledger: Ledger::default(),
            entropy: SeededEntropy::new(plan.seed ^ 0x66_6175_6c74),
            counts: BTreeMap::new(),
            plan,
        }
    }

    fn run(mut self) -> Report {
        let begin = Instant::now();
        let _seeded = Seeded::begin(self.plan.seed);
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.plan.seed)
            .epoch(UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS.unsigned_abs()))
            .simulation_duration(Duration::from_secs(100_000))
            .tick_duration(Duration::from_millis(1))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(1))
            .udp_capacity(65_536)
            .tcp_capacity(65_536)
            .build();
        let hosts: Vec<Host> = (1..=NODES as u64)
            .map(|number| {
                let address = sim.lookup(format!("node-{number}"));
                Host::new(number, self.plan.seed, address, self.plan.groups, self.trace.clone())
            })
            .collect();
        for host in &hosts {
            let host = host.clone();
            sim.host(host.name(), move || host.clone().run());
        }
        if let Err(error) = self.phases(&mut sim, &hosts) {
            self.ledger.violation(error);
        }
        for host in &hosts {
            for reason in host.ended() {
                // A disk that is full or broken ends a node by design; anything else is a defect.
                if !reason.contains("disk") && !reason.contains("sync") && !reason.contains("space") {
                    self.ledger.violation(format!("{} ended: {reason}", host.name()));
                }
            }
        }
        if !self.ledger.violations().is_empty() {
            for line in index_differences(&hosts, self.plan.groups) {
                self.ledger.violation(line);
            }
        }
        let simulated = sim.elapsed().as_secs_f64();
        drop(sim);
        let (hash, events) = self.trace.hash();
        let mut counts = self.counts;
        for (name, count) in self.ledger.counts() {
            counts.insert(name.to_owned(), count);
        }
        Report {
            seed: self.plan.seed,
            hash,
            events,
            violations: self.ledger.violations(),
            counts,
            simulated,
            real: begin.elapsed().as_secs_f64(),
            lines: self.trace.lines(),
            checkpoints: self.trace.checkpoints(),
        }
    }

    fn phases(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host]) -> Result<(), String> {
        let addresses: Vec<IpAddr> = hosts.iter().map(Host::address).collect();
        // Founding.
        let outcome = Slot::default();
        let founding = found(addresses.clone(), hosts.to_vec(), self.plan.users, outcome.clone());
        sim.client("founder", founding);
        self.step_until(sim, FOUNDED_WITHIN, || outcome.is_set()).map_err(|error| format!("founding: {error}"))?;
        outcome.take()?;
        self.trace.note("run", "founded", "", &[]);
        // Load and faults.
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for number in 0..self.plan.clients {
            let client = Client {
                number,
                clients: self.plan.clients,
                users: self.plan.users,
                nodes: addresses.clone(),
                ledger: self.ledger.clone(),
                entropy: SeededEntropy::new(self.plan.seed.wrapping_mul(31).wrapping_add(number as u64 + 1)),
                trace: self.trace.clone(),
                stop: Arc::clone(&stop),
                made: 0,
            };
            let ended = Slot::default();
            clients.push(ended.clone());
            sim.client(format!("client-{number}"), async move {
                client.work().await;
                ended.set(Ok(()));
                Ok(())
            });
        }
        let begin = sim.elapsed();
        let mut faults = std::mem::take(&mut self.plan.faults).into_iter().peekable();
        let mut cuts = Vec::new();
        while sim.elapsed() - begin < Duration::from_secs(self.plan.seconds) {
            let now = u64::try_from((sim.elapsed() - begin).as_millis()).unwrap_or(u64::MAX);
            while let Some(event) = faults.next_if(|event| event.at <= now) {
                self.inject(sim, hosts, event.fault, &mut cuts);
            }
            self.bury(sim, hosts);
            self.step(sim)?;
        }
        // Healing.
        for fault in [Fault::Heal, Fault::Latency { longest: 1 }] {
            self.inject(sim, hosts, fault, &mut cuts);
        }
        for node in 0..hosts.len() {
            for fault in [
                Fault::Weather { node, loss: 0, duplicates: 0 },
                Fault::SlowDisk { node, micros: 2000 },
                Fault::DiskRoom { node, octets: None },
                Fault::Clock { node, millis: 0 },
            ] {
                self.inject(sim, hosts, fault, &mut cuts);
            }
            hosts[node].blow_after(u32::MAX);
        }
        self.bury(sim, hosts);
        self.inject(sim, hosts, Fault::Restart { nodes: (0..hosts.len()).collect() }, &mut cuts);
        self.trace.note("run", "healed", "", &[]);
        stop.store(true, Ordering::Relaxed);
        self.step_until(sim, CLIENTS_END_WITHIN, || clients.iter().all(Slot::is_set))
            .map_err(|error| format!("I33: a client's operation did not end: {error}"))?;
        // Quiet, and the last look.
        let outcome = Slot::default();
        let (ledger, users, result) = (self.ledger.clone(), self.plan.users, outcome.clone());
        let nodes = addresses.clone();
        sim.client("checker", async move {
            result.set(last_look(&nodes, users, &ledger).await);
            Ok(())
        });
        self.step_until(sim, check::QUIET_WITHIN * 2, || outcome.is_set()).map_err(|error| format!("I32: {error}"))?;
        outcome.take()
    }

    fn step(&self, sim: &mut turmoil::Sim<'_>) -> Result<(), String> {
        sim.step().map(drop).map_err(|error| error.to_string())
    }

    fn step_until(
        &mut self,
        sim: &mut turmoil::Sim<'_>,
        within: Duration,
        done: impl Fn() -> bool,
    ) -> Result<(), String> {
        let deadline = sim.elapsed() + within;
        while !done() {
            if sim.elapsed() > deadline {
                return Err(format!("not within {within:?}"));
            }
            self.step(sim)?;
        }
        Ok(())
    }

    /// Nodes whose power went by itself, or which stopped: their tasks are dropped, and their disks lose what they lose.
    fn bury(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host]) {
        for host in hosts {
            if !host.has_power() && sim.is_host_running(host.name()) {
                host.died(true, &self.entropy);
                sim.crash(host.name());
                self.trace.note(&host.name(), "buried", "", &[]);
                self.count("power failed in the middle of disk work");
            }
        }
    }

    fn count(&mut self, what: &str) {
        *self.counts.entry(format!("fault: {what}")).or_default() += 1;
    }

    fn inject(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], fault: Fault, cuts: &mut Vec<(usize, usize)>) {
        self.trace.note("run", "fault", &format!("{fault:?}"), &[]);
        match fault {
            Fault::Crash { nodes, power_loss } => {
                for host in nodes.iter().map(|node| &hosts[*node]) {
                    if sim.is_host_running(host.name()) {
                        host.died(power_loss, &self.entropy);
                        sim.crash(host.name());
                    }
                }
                self.count(match (nodes.len(), power_loss) {
                    (1, false) => "crash of one node",
                    (1, true) => "power loss of one node",
                    (NODES, false) => "crash of all nodes",
                    (NODES, true) => "power loss of all nodes",
                    (_, false) => "crash of two nodes",
                    (_, true) => "power loss of two nodes",
                });
            }
            Fault::PowerFailsAt { node, calls } => hosts[node].blow_after(calls),
            Fault::Restart { nodes } => {
                for host in nodes.iter().map(|node| &hosts[*node]) {
                    if !host.has_power() && sim.is_host_running(host.name()) {
                        host.died(true, &self.entropy);
                        sim.crash(host.name());
                    }
                    if !sim.is_host_running(host.name()) {
                        host.died(false, &self.entropy);
                        sim.bounce(host.name());
                    }
                }
            }
            Fault::Cut { from, to, both } => {
                let (one, other) = (hosts[from].name(), hosts[to].name());
                if both {
                    sim.partition(one, other);
                    self.count("cut both ways");
                } else {
                    sim.partition_oneway(one, other);
                    self.count("cut one way");
                }
                cuts.push((from, to));
            }
            Fault::Heal => {
                for (from, to) in cuts.drain(..) {
                    sim.repair(hosts[from].name(), hosts[to].name());
                }
            }
            Fault::Weather { node, loss, duplicates } => {
                hosts[node].weather().loss.store(loss, Ordering::Relaxed);
                hosts[node].weather().duplicates.store(duplicates, Ordering::Relaxed);
                if loss + duplicates > 0 {
                    self.count("loss and duplicates");
                }
            }
            Fault::Latency { longest } => {
                sim.set_max_message_latency(Duration::from_millis(longest));
                if longest > 1 {
                    self.count("delay and reordering");
                }
            }
            Fault::SlowDisk { node, micros } => {
                hosts[node].pace().job_micros.store(micros, Ordering::Relaxed);
                if micros > 2000 {
                    self.count("slow disk");
                }
            }
            Fault::FrozenDisk { node, millis } => {
                let until = u64::try_from(sim.elapsed().as_millis()).unwrap_or(0) + millis;
                hosts[node].pace().frozen_until_millis.store(until, Ordering::Relaxed);
                self.count("frozen disk");
            }
            Fault::Clock { node, millis } => {
                hosts[node].set_skew(millis);
                if millis != 0 {
                    self.count("clock jump");
                }
            }
            Fault::DiskRoom { node, octets } => {
                hosts[node].disk().set_capacity(octets);
                if octets.is_some() {
                    self.count("full disk");
                }
            }
        }
    }
}

/// Where the rows of a group differ between the nodes: for whoever looks for the reason of a failure.
fn index_differences(hosts: &[Host], groups: u32) -> Vec<String> {
    let mut lines = Vec::new();
    for group in 0..=groups {
        let all: Vec<_> = hosts.iter().map(|host| host.rows(group)).collect();
        let keys: std::collections::BTreeSet<&Vec<u8>> = all.iter().flat_map(BTreeMap::keys).collect();
        for key in keys {
            let values: Vec<Option<&Vec<u8>>> = all.iter().map(|rows| rows.get(key)).collect();
            if values.windows(2).any(|pair| pair[0] != pair[1]) {
                let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                let text: Vec<String> = values.iter().map(|value| value.map_or("-".to_owned(), |value| hex(value))).collect();
                lines.push(format!("index of group {group}: {} {}", hex(key), text.join(" | ")));
            }
        }
    }
    lines.truncate(40);
    lines
}

/// A result that a simulated host leaves for the run.
#[derive(Clone, Default)]
struct Slot(Arc<Mutex<Option<Result<(), String>>>>);

impl Slot {
    fn set(&self, result: Result<(), String>) {
        *self.0.lock().expect("no panic") = Some(result);
    }

    fn is_set(&self) -> bool {
        self.0.lock().expect("no panic").is_some()
    }

    fn take(&self) -> Result<(), String> {
        self.0.lock().expect("no panic").take().unwrap_or(Ok(()))
    }
}

/// Nodes join one after the other; then domain, accounts, mailboxes.
async fn found(nodes: Vec<IpAddr>, hosts: Vec<Host>, users: usize, outcome: Slot) -> turmoil::Result {
    outcome.set(founding(&nodes, &hosts, users).await.map_err(|failure| format!("founding: {failure}")));
    Ok(())
}

async fn founding(nodes: &[IpAddr], hosts: &[Host], users: usize) -> Answer<()> {
    for host in hosts.iter().skip(1) {
        let body = format!("{{\"name\":\"{}\"}}", host.name());
        let answer = patient(nodes[0], "POST", "/v1/nodes", &body).await?;
        let token = answer.split("\"token\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        host.set_token(token.to_owned());
        while host.running().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    patient(nodes[0], "POST", "/v1/domains", "{\"domain\":\"example.test\"}").await?;
    for user in 0..users {
        let body = format!("{{\"address\":\"{}\",\"password\":\"{PASSWORD}\"}}", address(user));
        patient(nodes[0], "POST", "/v1/accounts", &body).await?;
        let mut imap = crate::client::imap::Imap::login(nodes[0], &address(user), PASSWORD).await?;
        for mailbox in MAILBOXES.iter().filter(|name| **name != "INBOX") {
            // "Archive" may be one that every account has.
            let _ = imap.command(&format!("CREATE {mailbox}")).await;
        }
        imap.logout().await;
    }
    // Everything at full strength before the load begins.
    check::quiet(nodes).await.map_err(crate::client::Failure::Refused)?;
    Ok(())
}

async fn patient(node: IpAddr, method: &str, path: &str, body: &str) -> Answer<String> {
    let mut last = Ok(String::new());
    for _ in 0..40 {
        last = admin::request(node, method, path, body).await;
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    last
}

async fn last_look(nodes: &[IpAddr], users: usize, ledger: &Ledger) -> Result<(), String> {
    check::quiet(nodes).await.map_err(|wrong| format!("I32: still wrong after the last fault: {wrong}"))?;
    check::everything(nodes, users, ledger).await.map_err(|failure| format!("I32: reading: {failure}"))?;
    check::still_works(nodes).await.map_err(|failure| format!("I32: a new delivery: {failure}"))
}
