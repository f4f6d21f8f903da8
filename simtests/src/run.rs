//! One run: a cluster is founded, clients work while faults happen, everything is healed, and everything is checked.

mod administrator;
mod atlas;
mod branches;
mod faults;
mod found;
mod links;
mod report;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use oracle::Violation;
use oracle::schedule::{Fault, Schedule, Step};
use oracle::time::Time;
use platform::{RuleId, SeededEntropy};

use crate::book::Book;
use crate::check;
use crate::host::Host;
use crate::inspect::Inspect;
use crate::net::Weather;
use crate::os::{EPOCH_SECONDS, Seeded};
use crate::site::{Site, Standing};
use crate::trace::Trace;
use crate::workload::Client;
use crate::workload::world::World;

pub use atlas::{NODES, schedule};
pub use branches::EXPECTED;
use found::{Slot, found, last_look};
use links::Links;
pub use report::Report;
use report::{index_differences, is_of_the_disk};
use watch::Watch;

/// What a run is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which faults happen when; its seed decides everything else.
    pub schedule: Schedule,
    /// Keep every line of the trace.
    pub keep_trace: bool,
}

/// Runs a plan, in a thread of its own.
#[must_use]
pub fn run(plan: Plan) -> Report {
    let (seed, begin) = (plan.schedule.seed, Instant::now());
    let report = std::thread::Builder::new()
        .name(format!("seed {seed}"))
        .stack_size(16 << 20)
        .spawn(move || Run::new(plan).run())
        .ok()
        .and_then(|thread| thread.join().ok())
        .unwrap_or_else(|| Report {
            seed,
            violations: vec!["I34: the run panicked".to_owned()],
            ..Report::default()
        });
    Report {
        // In the thread of the run the clocks stand still.
        real: begin.elapsed().as_secs_f64(),
        ..report
    }
}

struct Run {
    plan: Plan,
    trace: Trace,
    book: Book,
    entropy: SeededEntropy,
    users: u32,
    groups: u32,
    weather: Weather,
    /// The faults that last just now, by their place in the schedule, and the rules of disks that go with them.
    active: BTreeMap<usize, (Fault, Option<RuleId>)>,
    /// Who is to be a member.
    site: Site,
    links: Links,
    /// The clients' names in the simulated network.
    names: Vec<String>,
    /// What administrators were asked to do.
    admins: Vec<Slot>,
    /// Leaders that are to die, by the places of their events; how many receipts each machine had then.
    doomed: BTreeMap<usize, Vec<u64>>,
    /// Whose death an event was.
    victims: BTreeMap<usize, u64>,
    /// The clients' world, once there are clients.
    world: Option<World>,
    watch: Watch,
    inspect: Option<Inspect>,
}

/// How long the cluster may take to be founded.
const FOUNDED_WITHIN: Duration = Duration::from_secs(60);
/// How long clients may take to end.
const CLIENTS_END_WITHIN: Duration = Duration::from_secs(90);
/// How long a change of the members may take after the last fault.
const ADMINS_END_WITHIN: Duration = Duration::from_secs(180);

impl Run {
    fn new(plan: Plan) -> Self {
        let schedule = &plan.schedule;
        let knob = |name, default| usize::try_from(schedule.knob(name, default)).unwrap_or(2);
        Self {
            trace: Trace::new(plan.keep_trace),
            book: Book::default(),
            entropy: SeededEntropy::new(schedule.seed ^ 0x66_6175_6c74),
            users: u32::try_from(knob("users", 2)).unwrap_or(2),
            groups: u32::try_from(knob("groups", 2)).unwrap_or(2),
            weather: Weather::default(),
            active: BTreeMap::new(),
            site: Site::default(),
            links: Links::default(),
            names: Vec::new(),
            admins: Vec::new(),
            doomed: BTreeMap::new(),
            victims: BTreeMap::new(),
            world: None,
            watch: Watch::default(),
            inspect: None,
            plan,
        }
    }

    fn run(mut self) -> Report {
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
        let members = self.plan.schedule.nodes.clone();
        let hosts: Vec<Host> = (1..=atlas::machines(&self.plan.schedule))
            .map(|number| {
                let address = sim.lookup(format!("node-{number}"));
                let standing = if members.contains(&number) {
                    Standing::Member
                } else {
                    Standing::Spare
                };
                self.site.place(number, address, standing);
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
        let book = self.book.clone();
        let _branches = branches::count(&book);
        if let Err(error) = self.phases(&mut sim, &hosts) {
            let (id, what) = error.split_once(": ").unwrap_or(("I34", &error));
            let at = Time::after(sim.elapsed());
            book.found([Violation::at(id.to_owned().leak(), at, what)]);
        }
        for host in &hosts {
            let is_gone = self.site.standing(host.number()) == Some(Standing::Gone);
            for reason in host.ended() {
                // A disk that is full or broken ends a node by design, and so does its removal; anything else is a defect.
                if !is_of_the_disk(&reason) && !is_gone {
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
            lines: self.trace.lines(),
            checkpoints: self.trace.checkpoints(),
            real: 0.0,
        }
    }

    fn phases(&mut self, sim: &mut turmoil::Sim<'_>, hosts: &[Host]) -> Result<(), String> {
        let addresses = self.site.members();
        self.inspect = Some(Inspect::new(
            hosts,
            self.site.clone(),
            &self.book,
            self.plan.schedule.seed,
        ));
        // Founding.
        let outcome = Slot::default();
        let first = hosts.get(..addresses.len()).unwrap_or(hosts).to_vec();
        let world = World::new(self.book.clone(), hosts, self.site.clone(), self.users);
        let replace_after = self.plan.schedule.knob("replace_after", 0);
        let founding = found(world.clone(), first, replace_after, outcome.clone());
        sim.client("founder", founding);
        self.step_until(sim, hosts, FOUNDED_WITHIN, || outcome.is_set())
            .map_err(|error| format!("founding: {error}"))?;
        outcome.take()?;
        self.trace.note("run", "founded", "", &[]);
        self.inspect(|inspect| inspect.founded());
        self.world = Some(world.clone());
        // Load and faults.
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for plan in &self.plan.schedule.clients {
            let number = plan.id;
            let client = Client::new(plan.clone(), world.clone(), self.trace.clone(), Arc::clone(&stop));
            let ended = Slot::default();
            clients.push(ended.clone());
            self.names.push(format!("client-{number}"));
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
            self.doom(sim, hosts);
            self.watch.look(sim.elapsed(), hosts, &self.book, &self.trace);
            self.step(sim)?;
        }
        self.trace.note("run", "healed", "", &[]);
        self.inspect(|inspect| inspect.healed(sim.elapsed()));
        stop.store(true, Ordering::Relaxed);
        self.step_until(sim, hosts, CLIENTS_END_WITHIN, || clients.iter().all(Slot::is_set))
            .map_err(|error| format!("I33: a client's operation did not end: {error}"))?;
        let admins = std::mem::take(&mut self.admins);
        self.step_until(sim, hosts, ADMINS_END_WITHIN, || admins.iter().all(Slot::is_set))
            .map_err(|error| format!("I33: a change of the members did not end: {error}"))?;
        // Quiet, and the last look.
        let outcome = Slot::default();
        let result = outcome.clone();
        sim.client("checker", async move {
            result.set(last_look(&world).await);
            Ok(())
        });
        self.step_until(sim, hosts, check::QUIET_WITHIN * 2, || outcome.is_set())
            .map_err(|error| format!("I32: {error}"))?;
        outcome.take()?;
        // At rest, seen from outside.
        let inspect = self.inspect.clone();
        while inspect
            .as_ref()
            .is_some_and(|inspect| !inspect.is_settled(sim.elapsed()))
        {
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
            self.watch.look(sim.elapsed(), hosts, &self.book, &self.trace);
            self.step(sim)?;
        }
        Ok(())
    }
}

/// Between two images of the disks.
const IMAGES_EVERY: Duration = Duration::from_secs(2);
