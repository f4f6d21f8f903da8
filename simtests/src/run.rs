//! One run: a cluster is founded, clients work while faults happen, everything is healed, and everything is checked.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use core_types::{Entropy, GroupId, NodeId};
use oracle::coverage::Coverage;
use oracle::schedule::{Atlas, DiskOp, Event, Fault, FaultKind, Schedule, Step, Stored};
use platform::{CallClass, Delay, Effect, FaultRule, RuleId, SeededEntropy};

use crate::check;
use crate::client::{Answer, admin};
use crate::host::{Control, Host};
use crate::inspect::Inspect;
use crate::net::Weather;
use crate::os::{EPOCH_SECONDS, Seeded};
use crate::trace::Trace;
use crate::workload::{Client, Ledger, MAILBOXES, PASSWORD, address};

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which faults happen when; its seed decides everything else.
    pub schedule: Schedule,
    /// Keep every line of the trace.
    pub keep_trace: bool,
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
    /// What clients did, which faults happened, which branches were taken.
    pub coverage: Coverage,
    /// Seconds simulated, and real.
    pub simulated: f64,
    /// Real seconds.
    pub real: f64,
    /// Lines of the trace, where they were kept.
    pub lines: Vec<String>,
    /// Hashes along the way.
    pub checkpoints: Vec<(u64, [u8; 8])>,
}

/// The schedule of a seed.
#[must_use]
pub fn schedule(seed: u64, seconds: u64) -> Schedule {
    let mut schedule = atlas(seconds).schedule(seed);
    let is_restored = |event: &Event| event.fault.kind() == FaultKind::RestoreImage;
    if schedule.events.iter().any(is_restored) {
        // A disk that is put back is known by what the others remember of it: they have to be there, and to have heard of it.
        // Two acknowledgements of which one is taken back and the other is behind a cut are more than three nodes bear.
        schedule.events.retain(|event| !silences(event.fault.kind()));
    }
    schedule
}

/// Whether a fault keeps a node from hearing of others, or others from hearing of it.
fn silences(kind: FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::Crash
            | FaultKind::PowerOffAfter
            | FaultKind::Restart
            | FaultKind::Partition
            | FaultKind::OneWay
            | FaultKind::Bridge
            | FaultKind::Loss
            | FaultKind::Delay
            | FaultKind::SlowNode
            | FaultKind::DiskFrozen
            | FaultKind::DiskSlow
            | FaultKind::DiskEio
            | FaultKind::DiskFull
            | FaultKind::FileLost
            | FaultKind::IndexLost
            | FaultKind::BitFlip
            | FaultKind::Misdirected
    )
}

impl Report {
    /// Lines for [`Self::parse`]; without what was kept of the trace.
    #[must_use]
    pub fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for violation in &self.violations {
            let _ = writeln!(text, "@violation\t{}", violation.replace('\n', " / "));
        }
        for line in self.coverage.to_text().lines() {
            let _ = writeln!(text, "@coverage\t{line}");
        }
        let (seed, hash, events) = (self.seed, &self.hash, self.events);
        let _ = writeln!(
            text,
            "@run\t{seed}\t{hash}\t{events}\t{}\t{}",
            self.simulated, self.real
        );
        text
    }

    /// What [`Self::to_text`] wrote; `None` where the run did not come to its end.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut report = Self::default();
        let mut coverage = String::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["@violation", text] => report.violations.push(text.to_owned()),
                ["@coverage", line] => {
                    coverage.push_str(line);
                    coverage.push('\n');
                }
                ["@run", seed, hash, events, simulated, real] => {
                    return Some(Self {
                        seed: seed.parse().ok()?,
                        hash: hash.to_owned(),
                        events: events.parse().ok()?,
                        simulated: simulated.parse().ok()?,
                        real: real.parse().ok()?,
                        coverage: Coverage::parse(&coverage)?,
                        ..report
                    });
                }
                _ => {}
            }
        }
        None
    }
}

/// Nodes of the site.
pub const NODES: usize = 3;

/// What can happen to a site of three nodes in so many seconds.
fn atlas(seconds: u64) -> Atlas {
    let mut atlas = Atlas::site(NODES as u64).without(&[
        // Not in the simulation yet: see `docs/simulation.md`.
        FaultKind::Membership,
        FaultKind::ReplaceNode,
        FaultKind::Pause,
        // The workload's clients do it by themselves.
        FaultKind::ClientDies,
    ]);
    atlas.duration = Duration::from_secs(seconds);
    atlas.calm = Duration::from_secs(1);
    atlas.warm_up = Duration::from_secs(1);
    atlas.groups = 2;
    atlas.knobs = vec![
        ("groups".to_owned(), 2, 4),
        ("users".to_owned(), 2, 3),
        ("clients".to_owned(), 2, 6),
    ];
    atlas
}

/// Runs a plan, in a thread of its own.
#[must_use]
pub fn run(plan: Plan) -> Report {
    let seed = plan.schedule.seed;
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
    users: usize,
    clients: usize,
    groups: u32,
    weather: Weather,
    /// The faults that last just now, by their place in the schedule, and the rules of disks that go with them.
    active: BTreeMap<usize, (Fault, Option<RuleId>)>,
    inspect: Option<Inspect>,
}

/// How long the cluster may take to be founded.
const FOUNDED_WITHIN: Duration = Duration::from_secs(60);
/// How long clients may take to end.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(90);

impl Run {
    fn new(plan: Plan) -> Self {
        let schedule = &plan.schedule;
        let knob = |name, default| usize::try_from(schedule.knob(name, default)).unwrap_or(2);
        Self {
            trace: Trace::new(plan.keep_trace),
            ledger: Ledger::default(),
            entropy: SeededEntropy::new(schedule.seed ^ 0x66_6175_6c74),
            users: knob("users", 2),
            clients: knob("clients", 4).max(2),
            groups: u32::try_from(knob("groups", 2)).unwrap_or(2),
            weather: Weather::default(),
            active: BTreeMap::new(),
            inspect: None,
            plan,
        }
    }

    fn run(mut self) -> Report {
        let begin = Instant::now();
        let seed = self.plan.schedule.seed;
        let _seeded = Seeded::begin(seed);
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
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
                Host::new(
                    number,
                    seed,
                    address,
                    self.groups,
                    self.weather.clone(),
                    self.trace.clone(),
                )
            })
            .collect();
        for host in &hosts {
            let host = host.clone();
            sim.host(host.name(), move || host.clone().run());
        }
        let book = self.ledger.book.clone();
        if let Err(error) = self.phases(&mut sim, &hosts) {
            self.ledger.violation(&error);
        }
        for host in &hosts {
            for reason in host.ended() {
                // A disk that is full or broken ends a node by design; anything else is a defect.
                if !is_of_the_disk(&reason) {
                    book.violation("I34", format!("{} ended: {reason}", host.name()));
                }
            }
            for (name, count) in host.disk().fired() {
                book.add(&format!("disk.{name}"), count);
            }
        }
        let mut violations: Vec<String> = book.violations().iter().map(ToString::to_string).collect();
        if !violations.is_empty() {
            violations.extend(index_differences(&hosts, self.groups));
        }
        let simulated = sim.elapsed().as_secs_f64();
        drop(sim);
        let (hash, events) = self.trace.hash();
        Report {
            seed,
            hash,
            events,
            violations,
            coverage: book.coverage(),
            simulated,
            real: begin.elapsed().as_secs_f64(),
            lines: self.trace.lines(),
            checkpoints: self.trace.checkpoints(),
        }
    }

    fn phases(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host]) -> Result<(), String> {
        let addresses: Vec<IpAddr> = hosts.iter().map(Host::address).collect();
        self.inspect = Some(Inspect::new(hosts, &self.ledger.book, self.plan.schedule.seed));
        // Founding.
        let outcome = Slot::default();
        let founding = found(addresses.clone(), hosts.to_vec(), self.users, outcome.clone());
        sim.client("founder", founding);
        self.step_until(sim, hosts, FOUNDED_WITHIN, || outcome.is_set())
            .map_err(|error| format!("founding: {error}"))?;
        outcome.take()?;
        self.trace.note("run", "founded", "", &[]);
        self.inspect(|inspect| inspect.founded());
        // Load and faults.
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for number in 0..self.clients {
            let client = Client {
                number,
                clients: self.clients,
                users: self.users,
                nodes: addresses.clone(),
                ledger: self.ledger.clone(),
                entropy: SeededEntropy::new(self.plan.schedule.seed.wrapping_mul(31).wrapping_add(number as u64 + 1)),
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
        let steps = self.plan.schedule.steps();
        let mut steps = steps.into_iter().peekable();
        let mut image_at = Duration::ZERO;
        let mut healed = false;
        while !healed {
            let now = sim.elapsed() - begin;
            while let Some((_, step)) = steps.next_if(|(at, _)| at.since_start() <= now) {
                healed |= step == Step::Heal;
                self.take(sim, hosts, step);
            }
            if now >= image_at {
                image_at = now + IMAGES_EVERY;
                for host in hosts.iter().filter(|host| host.running().is_some()) {
                    host.take_image(sim.elapsed());
                }
            }
            self.bury(sim, hosts);
            self.step(sim)?;
        }
        self.trace.note("run", "healed", "", &[]);
        self.inspect(|inspect| inspect.healed(sim.elapsed()));
        stop.store(true, Ordering::Relaxed);
        self.step_until(sim, hosts, CLIENTS_END_WITHIN, || clients.iter().all(Slot::is_set))
            .map_err(|error| format!("I33: a client's operation did not end: {error}"))?;
        // Quiet, and the last look.
        let outcome = Slot::default();
        let (ledger, users, result) = (self.ledger.clone(), self.users, outcome.clone());
        let nodes = addresses.clone();
        sim.client("checker", async move {
            result.set(last_look(&nodes, users, &ledger).await);
            Ok(())
        });
        self.step_until(sim, hosts, check::QUIET_WITHIN * 2, || outcome.is_set())
            .map_err(|error| format!("I32: {error}"))?;
        outcome.take()?;
        // At rest, seen from outside.
        let inspect = self.inspect.clone();
        let settled = |now| inspect.as_ref().is_none_or(|inspect| inspect.is_settled(now));
        while !settled(sim.elapsed()) {
            self.step(sim)?;
        }
        Ok(())
    }

    fn inspect(&self, look: impl FnOnce(&Inspect)) {
        if let Some(inspect) = &self.inspect {
            look(inspect);
        }
    }

    fn step(&self, sim: &mut turmoil::Sim<'_>) -> Result<(), String> {
        sim.step().map_err(|error| error.to_string())?;
        self.inspect(|inspect| inspect.look(sim.elapsed()));
        Ok(())
    }

    fn step_until(
        &mut self,
        sim: &mut turmoil::Sim<'_>,
        hosts: &[Host],
        within: Duration,
        done: impl Fn() -> bool,
    ) -> Result<(), String> {
        let deadline = sim.elapsed() + within;
        while !done() {
            // A node that a fault made stop only now is started again, as whatever supervises it would.
            if sim.elapsed().subsec_millis() % 500 == 0 {
                hosts.iter().for_each(|host| self.start(sim, host));
            }
            if sim.elapsed() > deadline {
                return Err(format!("not within {within:?}"));
            }
            self.step(sim)?;
        }
        Ok(())
    }

    /// Nodes whose power went by itself: their tasks are dropped, and their disks lose what they lose.
    fn bury(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host]) {
        for host in hosts {
            if host.disk().is_powered_off() && sim.is_host_running(host.name()) {
                self.kill(sim, host, true);
                self.trace.note(&host.name(), "buried", "", &[]);
            }
        }
    }

    /// The machine's process ends at once, if there is one.
    fn kill(&self, sim: &mut turmoil::Sim<'_>, host: &Host, power_loss: bool) {
        host.died(power_loss, &self.entropy);
        if sim.is_host_running(host.name()) {
            sim.crash(host.name());
        }
    }

    fn start(&self, sim: &mut turmoil::Sim<'_>, host: &Host) {
        if !sim.is_host_running(host.name()) {
            host.died(false, &self.entropy);
            sim.bounce(host.name());
        }
    }

    fn take(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], step: Step) {
        let event = |place: usize| self.plan.schedule.events.get(place).cloned();
        match step {
            Step::Begin(place) => {
                let Some(event) = event(place) else { return };
                self.trace.note("run", "begins", &event.to_string(), &[]);
                self.ledger.book.count(&format!("fault.{}", event.fault.kind()));
                let rule = self.begin(sim, hosts, &event.fault);
                if !event.lasts.is_zero() {
                    self.active.insert(place, (event.fault, rule));
                }
            }
            Step::End(place) => {
                if let Some((fault, rule)) = self.active.remove(&place) {
                    self.trace.note("run", "ends", fault.kind().name(), &[]);
                    self.end(sim, hosts, &fault, rule);
                }
            }
            Step::Heal => {
                for (_, (fault, rule)) in std::mem::take(&mut self.active) {
                    self.end(sim, hosts, &fault, rule);
                }
                for host in hosts {
                    host.disk().heal();
                    self.start(sim, host);
                }
            }
        }
        self.inspect(|inspect| inspect.fault(sim.elapsed(), self.active.len()));
        self.weather
            .set(self.active.values().map(|(fault, _)| fault.clone()).collect());
    }

    fn begin(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], fault: &Fault) -> Option<RuleId> {
        let host = |node: &u64| &hosts[usize::try_from(node - 1).unwrap_or(0)];
        match fault {
            Fault::Crash { nodes, power_loss } => {
                for node in nodes {
                    self.kill(sim, host(node), *power_loss);
                }
            }
            Fault::PowerOffAfter { node, calls } => host(node).disk().power_off_after(*calls),
            Fault::Restart { node } => host(node).control(Control::Stop),
            Fault::ClockJump { node, millis } => host(node).set_skew(*millis),
            Fault::ClockDrift { node, ppm } => host(node).set_drift(*ppm, sim.elapsed()),
            Fault::DiskSlow { node, max } => host(node).disk().set_delays(Some(Delay {
                min: Duration::ZERO,
                max: *max,
            })),
            Fault::DiskFrozen { node } => host(node).disk().freeze(),
            Fault::DiskFull { node } => {
                let disk = host(node).disk();
                let entropy: &dyn Entropy = &self.entropy;
                disk.set_capacity(Some(disk.used_bytes() + entropy.below(100_000)));
            }
            Fault::DiskEio { node, op, permille } => {
                let classes: &[CallClass] = match op {
                    DiskOp::Read => &[CallClass::Read],
                    DiskOp::Write => &[CallClass::Write],
                    DiskOp::Sync => &[CallClass::Sync, CallClass::SyncDir],
                };
                let rule = FaultRule::always(Effect::Eio).on(classes).permille(*permille);
                return Some(host(node).disk().add_rule(rule));
            }
            Fault::ShortRead { node } => {
                return Some(
                    host(node)
                        .disk()
                        .add_rule(FaultRule::always(Effect::ShortRead).permille(300)),
                );
            }
            Fault::BitFlip { node, what } => {
                let entropy: &dyn Entropy = &self.entropy;
                let flipped = host(node).disk().flip_bit_under(prefix(*what), entropy.below(u64::MAX));
                self.trace.note("run", "flipped", &format!("{flipped:?}"), &[]);
            }
            Fault::Misdirected { node, what } => {
                let rule = FaultRule::always(Effect::Misdirected).under(prefix(*what)).times(1);
                return Some(host(node).disk().add_rule(rule));
            }
            Fault::FileLost { node, what, cut } => {
                let host = host(node);
                self.kill(sim, host, false);
                self.lose_file(host, *what, *cut);
            }
            Fault::IndexLost { node, broken } => {
                self.kill(sim, host(node), false);
                host(node).lose_index(*broken, &self.entropy);
            }
            Fault::RestoreImage { node, age } => {
                self.kill(sim, host(node), false);
                host(node).restore(sim.elapsed(), *age);
            }
            Fault::LeaderTransfer { group, to } => {
                for host in hosts {
                    let group = GroupId(*group);
                    let leads = |running: &crate::host::Running| {
                        running.groups.group(group).is_some_and(|group| group.is_leader())
                    };
                    if host.running().is_some_and(|running| leads(&running)) {
                        host.control(Control::Transfer(group, NodeId(*to)));
                    }
                }
            }
            Fault::SnapshotNow { node } => host(node).control(Control::Snapshot),
            // The network looks at the active faults by itself; the rest is not in the atlas.
            _ => {}
        }
        None
    }

    fn lose_file(&self, host: &Host, what: Stored, cut: bool) {
        let entropy: &dyn Entropy = &self.entropy;
        let paths: Vec<String> = host
            .disk()
            .paths()
            .into_iter()
            .filter(|path| path.starts_with(prefix(what)))
            .collect();
        let Some(path) = paths.get(usize::try_from(entropy.below(paths.len() as u64)).unwrap_or(0)) else {
            return;
        };
        self.trace.note("run", "lost file", path, &[]);
        if cut {
            host.disk().truncate_at_rest(path, entropy.below(4096));
        } else {
            host.disk().remove_at_rest(path);
        }
    }

    fn end(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host], fault: &Fault, rule: Option<RuleId>) {
        let host = |node: &u64| &hosts[usize::try_from(node - 1).unwrap_or(0)];
        for node in fault.down() {
            let host = host(&node);
            // The power is on again, whether it went off meanwhile or not; and who stops for too long is killed.
            let power_loss = matches!(fault, Fault::PowerOffAfter { .. });
            if (power_loss || matches!(fault, Fault::Restart { .. })) && sim.is_host_running(host.name()) {
                self.kill(sim, host, power_loss);
            }
            self.start(sim, host);
        }
        match fault {
            Fault::ClockJump { node, .. } => host(node).set_skew(0),
            Fault::ClockDrift { node, .. } => host(node).set_drift(0, sim.elapsed()),
            Fault::DiskSlow { node, .. } => host(node).disk().set_delays(None),
            Fault::DiskFrozen { node } => host(node).disk().thaw(),
            Fault::DiskFull { node } => host(node).disk().set_capacity(None),
            Fault::DiskEio { node, .. } | Fault::ShortRead { node } | Fault::Misdirected { node, .. } => {
                if let Some(rule) = rule {
                    host(node).disk().remove_rule(rule);
                }
            }
            _ => {}
        }
    }
}

/// Where such data is. The node's own few files (its key, its members) have no copies: a node without them is a new one.
fn prefix(what: Stored) -> &'static str {
    match what {
        Stored::Any => "blobs/",
        other => other.path_prefix(),
    }
}

/// A disk that is full or broken ends a node by design.
fn is_of_the_disk(reason: &str) -> bool {
    ["disk", "sync", "space", "injected", "i/o", "I/O", "room"]
        .iter()
        .any(|word| reason.contains(word))
}

/// Between two images of the disks.
const IMAGES_EVERY: Duration = Duration::from_secs(2);

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
                let text: Vec<String> = values
                    .iter()
                    .map(|value| value.map_or("-".to_owned(), |value| hex(value)))
                    .collect();
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
    outcome.set(
        founding(&nodes, &hosts, users)
            .await
            .map_err(|failure| format!("founding: {failure}")),
    );
    Ok(())
}

async fn founding(nodes: &[IpAddr], hosts: &[Host], users: usize) -> Answer<()> {
    for host in hosts.iter().skip(1) {
        let body = format!("{{\"name\":\"{}\"}}", host.name());
        let answer = patient(nodes[0], "POST", "/v1/nodes", &body).await?;
        let token = answer
            .split("\"token\":\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap_or_default();
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
    check::quiet(nodes)
        .await
        .map_err(|wrong| format!("I32: still wrong after the last fault: {wrong}"))?;
    check::everything(nodes, users, ledger)
        .await
        .map_err(|failure| format!("I32: reading: {failure}"))?;
    check::still_works(nodes)
        .await
        .map_err(|failure| format!("I32: a new delivery: {failure}"))
}
