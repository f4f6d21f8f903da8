//! What a run sees from outside of the protocols: replicas, disks, memory and time, as an operator with every key would.
//!
//! [`Inspect::look`] is called every few simulated milliseconds and at no time changes anything: it reads what nodes say of
//! themselves, what is in memory, and copies of disks. What it finds goes into the [`Book`]. Not here: what clients are told.

pub mod copies;
pub mod leaks;
pub mod replicas;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_types::{Entropy, GroupId};
use oracle::time::Time;
use platform::SeededEntropy;

use crate::book::Book;
use crate::host::Host;
use copies::{Disks, Harm};
use leaks::Leaks;
use replicas::Watch;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at a cluster that is to come to rest.
const SETTLE_EVERY: Duration = Duration::from_secs(1);
/// Of so many acknowledgements one is followed to the disks.
const SAMPLE: u64 = 20;
/// In one of so many runs what nothing refers to is waited for until it must be gone.
const ORPHANS_IN: u64 = 16;
/// After so long without a fault a message has to have all its copies when it is acknowledged.
const CALM: Duration = Duration::from_secs(15);
/// After the last fault every group has a leader again within this time.
const LEADERS_WITHIN: Duration = Duration::from_secs(30);
/// How long a quiet cluster may take to be equal everywhere.
const EQUAL_WITHIN: Duration = Duration::from_secs(5);
/// How long it may take then until each replica has fetched what it lacks: one that does not vote tries again after 30 s at most.
const COPIES_WITHIN: Duration = Duration::from_secs(60);
/// How long sessions and connections may take to end when their clients are gone.
const LEAKS_WITHIN: Duration = Duration::from_secs(60);

/// See the module. Clones are the same.
#[derive(Clone)]
pub struct Inspect(Arc<Mutex<Inner>>);

struct Inner {
    hosts: Vec<Host>,
    book: Book,
    seed: u64,
    entropy: SeededEntropy,
    looked: Duration,
    settle_looked: Option<Duration>,
    watch: Watch,
    disks: Disks,
    leaks: Leaks,
    harm: Harm,
    /// When something was last wrong by a fault's doing.
    faulty: Duration,
    active_faults: usize,
    healed: Option<Duration>,
    led_after_heal: BTreeMap<u32, Duration>,
    settling: Option<Duration>,
}

impl Inspect {
    /// Looks at these hosts, and is told of acknowledgements by the book.
    #[must_use]
    pub fn new(hosts: &[Host], book: &Book, seed: u64) -> Self {
        let inner = Inner {
            hosts: hosts.to_vec(),
            book: book.clone(),
            seed,
            entropy: SeededEntropy::new(seed ^ 0x696e_7370),
            looked: Duration::ZERO,
            settle_looked: None,
            watch: Watch::default(),
            disks: Disks::default(),
            leaks: Leaks::default(),
            harm: Harm::default(),
            faulty: Duration::ZERO,
            active_faults: 0,
            healed: None,
            led_after_heal: BTreeMap::new(),
            settling: None,
        };
        let inspect = Self(Arc::new(Mutex::new(inner)));
        let weak = Arc::downgrade(&inspect.0);
        book.on_acknowledged(Arc::new(move |began: Time, bytes: &[u8]| {
            if let Some(inner) = weak.upgrade() {
                Self(inner).acknowledged(began, bytes);
            }
        }));
        inspect
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A look, if it is time for one.
    pub fn look(&self, now: Duration) {
        let mut inner = self.lock();
        if now >= inner.looked + LOOK_EVERY {
            inner.looked = now;
            inner.look(now);
        }
    }

    /// The cluster is founded, and quiet: what it needs now it may need at the end.
    pub fn founded(&self) {
        let mut inner = self.lock();
        let Inner { leaks, hosts, .. } = &mut *inner;
        leaks.founded(hosts);
    }

    /// A fault began or ended; so many last.
    pub fn fault(&self, now: Duration, active: usize) {
        let mut inner = self.lock();
        inner.faulty = now;
        inner.active_faults = active;
    }

    /// The last fault is over.
    pub fn healed(&self, now: Duration) {
        self.lock().healed = Some(now);
    }

    /// A message was acknowledged as delivered or appended: it begins with whatever the server put in front and ends in these
    /// bytes. The operation began at `began`.
    fn acknowledged(&self, began: Time, bytes: &[u8]) {
        let mut inner = self.lock();
        let entropy: &dyn Entropy = &inner.entropy;
        if entropy.below(SAMPLE) == 0 {
            inner.follow_to_disks(began.since_start(), bytes);
        }
    }

    /// Whether the cluster, which clients have left, is at rest and everything is as it has to be; what is still wrong after its
    /// time is then in the book.
    #[must_use]
    pub fn is_settled(&self, now: Duration) -> bool {
        let mut inner = self.lock();
        if inner.settle_looked.is_some_and(|looked| now < looked + SETTLE_EVERY) {
            return false;
        }
        inner.settle_looked = Some(now);
        inner.settle(now)
    }
}

impl Inner {
    fn look(&mut self, now: Duration) {
        // A disk that failed a sync stops its node, which stays down until everything is healed.
        let is_down = |host: &Host| host.node_id().is_some() && host.running().is_none();
        if self.hosts.iter().any(is_down) {
            self.faulty = now;
        }
        self.harm.look(now, &self.hosts, &mut self.watch);
        let found = self.watch.look(Time::after(now), &self.hosts);
        self.book.found(found);
        let found = self.leaks.look(Time::after(now), &self.hosts);
        self.book.found(found);
        self.leaders(now);
    }

    /// I32: after the last fault each group has a leader within a bound.
    fn leaders(&mut self, now: Duration) {
        let Some(healed) = self.healed else { return };
        let groups = self.hosts.first().map_or(0, Host::groups);
        if self.led_after_heal.len() > groups as usize {
            return;
        }
        for group in (0..=groups)
            .filter(|group| !self.led_after_heal.contains_key(group))
            .collect::<Vec<_>>()
        {
            let leads = |host: &Host| {
                let running = host.running()?;
                Some(running.groups.group(GroupId(group))?.is_leader())
            };
            if self.hosts.iter().any(|host| leads(host) == Some(true)) {
                self.led_after_heal.insert(group, now - healed);
                let longest = self.led_after_heal.values().max().copied().unwrap_or_default();
                if self.led_after_heal.len() > groups as usize {
                    let millis = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
                    self.book.add("after_heal.leaders_ms", millis);
                }
            } else if now > healed + LEADERS_WITHIN {
                self.led_after_heal.insert(group, now - healed);
                let what = format!("group {group} has no leader {LEADERS_WITHIN:?} after the last fault");
                self.book.violation("I32", what);
            }
        }
    }

    fn follow_to_disks(&mut self, began: Duration, bytes: &[u8]) {
        let now = Book::now().since_start();
        self.harm.look(now, &self.hosts, &mut self.watch);
        let is_calm = self.active_faults == 0 && now >= self.faulty + CALM && began >= self.faulty;
        let voters = self.watch.voters(&self.hosts).min(self.hosts.len());
        let harmed = self.harm.since(began);
        let least = if is_calm { voters.min(3) } else { voters.min(2) };
        let seen = self.disks.copies(&self.hosts, bytes);
        self.book.count(if is_calm {
            "inspect.acknowledged.calm"
        } else {
            "inspect.acknowledged"
        });
        let whole = seen.blob.len() + harmed.iter().filter(|host| !seen.blob.contains(host)).count();
        if whole < least {
            let what = format!(
                "acknowledged, and its blob is durable on nodes {:?} only; {least} are wanted (damaged meanwhile: {harmed:?})",
                seen.blob
            );
            self.book.violation("I02", what);
        }
        // A bit that flipped long ago makes a log worthless when it is read: the others have to have the entry.
        let spoilt = self.harm.since(Duration::ZERO);
        let spoilt = seen.damaged.intersection(&spoilt).chain(&harmed);
        let logs = spoilt.chain(&seen.entry).collect::<BTreeSet<_>>().len();
        let majority = voters / 2 + 1;
        if logs < majority {
            let what = format!(
                "acknowledged, and its entry is durable in the logs of nodes {:?} only; {majority} are wanted (damaged meanwhile: \
                 {harmed:?})",
                seen.entry
            );
            self.book.violation("I02", what);
        }
    }

    fn settle(&mut self, now: Duration) -> bool {
        let begin = *self.settling.get_or_insert(now);
        let mut wrong: Vec<(&'static str, String, Duration)> = Vec::new();
        wrong.extend(
            replicas::differences(&self.hosts)
                .into_iter()
                .map(|what| ("I24", what, EQUAL_WITHIN)),
        );
        // Damage at rest is found by the next scrub, and mended then.
        let copies_within = if self.harm.is_any() {
            copies::SCRUBBED_WITHIN
        } else {
            COPIES_WITHIN
        };
        let look = self.disks.whole(&self.hosts);
        wrong.extend(look.lacking.into_iter().map(|what| ("I03", what, copies_within)));
        if self.seed % ORPHANS_IN == ORPHANS_IN - 1 {
            wrong.extend(
                look.orphans
                    .into_iter()
                    .map(|what| ("I28", what, copies::COLLECTED_WITHIN)),
            );
        }
        wrong.extend(
            self.leaks
                .remaining(&self.hosts)
                .into_iter()
                .map(|what| ("I31", what, LEAKS_WITHIN)),
        );
        let waited = now - begin;
        if waited.is_zero() {
            self.book.add("inspect.blobs", look.blobs);
            self.book.add("inspect.orphans", look.orphaned);
        }
        let late: Vec<_> = wrong.iter().filter(|(_, _, within)| waited > *within).collect();
        let is_settled = wrong.len() == late.len();
        if is_settled {
            for (id, what, within) in late {
                self.book
                    .violation(id, format!("{within:?} after everything was quiet: {what}"));
            }
            self.book.add(
                "inspect.settled_ms",
                u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
            );
        }
        is_settled
    }
}
