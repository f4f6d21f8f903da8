//! Which calls fail, and how long calls take. Drawn from the disk's own seed; nothing sleeps here.

use std::collections::BTreeMap;
use std::time::Duration;

use core_types::Entropy;

use super::call::CallClass;
use crate::system::SeededEntropy;

/// What a [`FaultRule`] does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// EIO. On a sync: `SyncFailed`, and what that file (or directory) had not synced is kept, dropped or torn at random,
    /// for good: a later sync that works does not write it.
    Eio,
    /// ENOSPC, on what needs room.
    Full,
    /// A read gives fewer bytes than asked for (at least one).
    ShortRead,
    /// A bit of what is read flips on its way.
    FlippedRead,
    /// A bit of what is written flips on its way.
    FlippedWrite,
    /// A write that goes elsewhere in the same file, some sectors off, and is reported as done.
    Misdirected,
    /// A write that is reported as done and is not.
    LostWrite,
    /// A sync that is reported as done and is not: for planting bugs (a real disk that does it bears no database).
    IgnoredSync,
}

impl Effect {
    /// A short name, for counters and traces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Eio => "eio",
            Self::Full => "full",
            Self::ShortRead => "short_read",
            Self::FlippedRead => "flipped_read",
            Self::FlippedWrite => "flipped_write",
            Self::Misdirected => "misdirected",
            Self::LostWrite => "lost_write",
            Self::IgnoredSync => "ignored_sync",
        }
    }

    /// Whether it means anything for such a call; a rule passes over the others.
    fn concerns(self, class: CallClass) -> bool {
        use CallClass::{Create, CreateDir, Read, Rename, SetLen, Sync, SyncDir, Write};
        match self {
            Self::Eio => true,
            Self::Full => matches!(class, Create | CreateDir | Rename | Write | SetLen),
            Self::ShortRead | Self::FlippedRead => class == Read,
            Self::FlippedWrite | Self::Misdirected | Self::LostWrite => class == Write,
            Self::IgnoredSync => matches!(class, Sync | SyncDir),
        }
    }
}

/// Which calls are hit by which fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// The paths: those that begin so; empty for all.
    pub path_prefix: String,
    /// The classes; empty for all that the effect concerns.
    pub classes: Vec<CallClass>,
    /// How many of a thousand such calls are hit.
    pub permille: u16,
    /// How often at most; `None` for no bound.
    pub times: Option<u32>,
    /// What happens to them.
    pub effect: Effect,
}

impl FaultRule {
    /// Every call that the effect concerns, on every path.
    #[must_use]
    pub fn always(effect: Effect) -> Self {
        Self {
            path_prefix: String::new(),
            classes: Vec::new(),
            permille: 1000,
            times: None,
            effect,
        }
    }

    /// Only paths that begin so.
    #[must_use]
    pub fn under(mut self, path_prefix: &str) -> Self {
        path_prefix.clone_into(&mut self.path_prefix);
        self
    }

    /// Only these classes.
    #[must_use]
    pub fn on(mut self, classes: &[CallClass]) -> Self {
        self.classes = classes.to_vec();
        self
    }

    /// Only so many of a thousand calls.
    #[must_use]
    pub fn permille(mut self, permille: u16) -> Self {
        self.permille = permille;
        self
    }

    /// At most so often.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

/// Names a rule, to end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(u64);

/// How long a call takes: at least `min`, at most `max`, any value between equally likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// The least.
    pub min: Duration,
    /// The most.
    pub max: Duration,
}

/// The faults that are on.
#[derive(Debug)]
pub(super) struct Faults {
    entropy: SeededEntropy,
    rules: BTreeMap<u64, FaultRule>,
    next_rule: u64,
    delays: BTreeMap<CallClass, Delay>,
    /// What the calls since the last [`Faults::begin_job`] took beyond what was waited for before.
    debt: Duration,
    /// Waited for already, and not used up by calls yet.
    prepaid: Duration,
    pub(super) frozen: bool,
    /// Calls until the power fails.
    pub(super) power_fails_in: Option<u64>,
    pub(super) powered_off: bool,
    /// How often each fault hit, by name.
    pub(super) fired: BTreeMap<String, u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            entropy: SeededEntropy::new(0),
            rules: BTreeMap::new(),
            next_rule: 0,
            delays: BTreeMap::new(),
            debt: Duration::ZERO,
            prepaid: Duration::ZERO,
            frozen: false,
            power_fails_in: None,
            powered_off: false,
            fired: BTreeMap::new(),
        }
    }
}

impl Faults {
    pub(super) fn reseed(&mut self, seed: u64) {
        self.entropy = SeededEntropy::new(seed);
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        (&self.entropy as &dyn Entropy).below(bound)
    }

    pub(super) fn entropy(&self) -> &dyn Entropy {
        &self.entropy
    }

    pub(super) fn add(&mut self, rule: FaultRule) -> RuleId {
        let id = self.next_rule;
        self.next_rule += 1;
        self.rules.insert(id, rule);
        RuleId(id)
    }

    pub(super) fn remove(&mut self, rule: RuleId) {
        self.rules.remove(&rule.0);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
        self.delays.clear();
        self.debt = Duration::ZERO;
        self.prepaid = Duration::ZERO;
        self.frozen = false;
        self.power_fails_in = None;
    }

    pub(super) fn fire(&mut self, name: impl Into<String>) {
        *self.fired.entry(name.into()).or_insert(0) += 1;
    }

    /// The fault that hits this call, if one does: that of the oldest rule.
    pub(super) fn draw(&mut self, class: CallClass, path: &str) -> Option<Effect> {
        let mut hit = None;
        for (id, rule) in &mut self.rules {
            let concerned = rule.effect.concerns(class)
                && (rule.classes.is_empty() || rule.classes.contains(&class))
                && path.starts_with(&rule.path_prefix)
                && rule.times != Some(0);
            if concerned
                && (rule.permille >= 1000 || (&self.entropy as &dyn Entropy).below(1000) < u64::from(rule.permille))
            {
                if let Some(times) = &mut rule.times {
                    *times -= 1;
                }
                hit = Some((*id, rule.effect, rule.times == Some(0)));
                break;
            }
        }
        let (id, effect, spent) = hit?;
        if spent {
            self.rules.remove(&id);
        }
        self.fire(format!("disk.{}.{}", effect.name(), class.name()));
        Some(effect)
    }

    pub(super) fn set_delay(&mut self, class: CallClass, delay: Option<Delay>) {
        match delay {
            Some(delay) => self.delays.insert(class, delay),
            None => self.delays.remove(&class),
        };
    }

    pub(super) fn delay_of(&self, class: CallClass) -> Duration {
        let Some(delay) = self.delays.get(&class) else {
            return Duration::ZERO;
        };
        let range = u64::try_from(delay.max.saturating_sub(delay.min).as_micros()).unwrap_or(u64::MAX - 1);
        delay.min + Duration::from_micros(self.below(range + 1))
    }

    /// Notes what a call takes.
    pub(super) fn charge(&mut self, class: CallClass) {
        let mut delay = self.delay_of(class);
        let paid = delay.min(self.prepaid);
        self.prepaid -= paid;
        delay -= paid;
        self.debt += delay;
    }

    pub(super) fn take_delay(&mut self) -> Duration {
        std::mem::take(&mut self.debt)
    }

    pub(super) fn begin_job(&mut self) -> Option<Duration> {
        if self.frozen {
            return None;
        }
        self.prepaid = self.delay_of(CallClass::Sync);
        Some(self.take_delay() + self.prepaid)
    }
}
