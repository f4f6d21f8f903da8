//! What is known of one other node: its connections, and how dialling it goes.
//!
//! There is one connection per pair of nodes. When both dial at once there are two for a moment: the one that the lower
//! id dialled is used by both sides, the other one still answers what is under way and is closed soon after.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use core_types::NodeId;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::link::{CloseCode, Link, PerClass};

/// One other node.
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    links: Mutex<Vec<Arc<Link>>>,
    dial: Mutex<Dial>,
    /// Wakes the task that dials.
    pub(crate) wake: Notify,
    /// This node's requests to the peer that are under way.
    pub(crate) calls: PerClass<AtomicU32>,
}

/// How dialling goes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dial {
    /// Until when somebody wants the connection.
    wanted_until: Option<Instant>,
    /// Whether the task that dials has been started.
    started: bool,
    /// Attempts that failed since the last success.
    pub(crate) failures: u32,
    /// Attempts that ended, in all.
    pub(crate) attempts: u64,
    /// Whether an attempt is under way.
    pub(crate) dialling: bool,
    /// Whether the peer's last word was that this node is no member.
    pub(crate) is_stranger: bool,
}

impl Peer {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            links: Mutex::default(),
            dial: Mutex::default(),
            wake: Notify::new(),
            calls: PerClass::default(),
        }
    }

    pub(crate) fn dial(&self) -> Dial {
        *self.dial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change_dial(&self, change: impl FnOnce(&mut Dial)) {
        change(&mut self.dial.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Somebody wants to reach this node; `true` when the task that dials has to be started.
    pub(crate) fn want(&self) -> bool {
        let now = Instant::now();
        let mut dial = self.dial.lock().unwrap_or_else(PoisonError::into_inner);
        let was_wanted = dial.wanted_until.is_some_and(|until| until > now);
        dial.wanted_until = Some(now + WANTED);
        let start = !std::mem::replace(&mut dial.started, true);
        drop(dial);
        if !was_wanted {
            self.wake.notify_one();
        }
        start
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.dial().wanted_until.is_some_and(|until| until > Instant::now())
    }

    /// The connection to use, even when it has been silent.
    pub(crate) fn link(&self, own: NodeId) -> Option<Arc<Link>> {
        best(&self.links(), |link| {
            (link.is_usable(), self.is_preferred(own, link), link.serial)
        })
    }

    /// A connection that has not been silent.
    pub(crate) fn usable(&self) -> Option<Arc<Link>> {
        self.links()
            .into_iter()
            .filter(|link| link.is_usable())
            .max_by_key(|link| link.serial)
    }

    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a new connection; connections of an earlier boot of the peer are over. `true` when there are several now.
    pub(crate) fn add(&self, link: &Arc<Link>) -> bool {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let (same, earlier): (Vec<_>, Vec<_>) = links.drain(..).partition(|other| other.boot == link.boot);
        *links = same;
        links.push(Arc::clone(link));
        let several = links.len() > 1;
        drop(links);
        for other in earlier {
            other.close(CloseCode::Duplicate);
        }
        several
    }

    pub(crate) fn remove(&self, link: &Link) {
        self.links
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|other| other.serial != link.serial);
    }

    /// Closes all connections but the one that both sides use.
    pub(crate) fn prune(&self, own: NodeId) {
        let links = self.links();
        // Not by silence: that may look different from the other side.
        let Some(kept) = best(&links, |link| (true, self.is_preferred(own, link), link.serial)) else {
            return;
        };
        for link in links.iter().filter(|link| link.serial != kept.serial) {
            link.close(CloseCode::Duplicate);
        }
    }

    fn is_preferred(&self, own: NodeId, link: &Link) -> bool {
        link.dialled == (own < self.node)
    }
}

fn best(links: &[Arc<Link>], rank: impl Fn(&Link) -> (bool, bool, u64)) -> Option<Arc<Link>> {
    links
        .iter()
        .filter(|link| link.is_open())
        .max_by_key(|link| rank(link))
        .cloned()
}

/// How long a connection is kept up after somebody last wanted it.
const WANTED: Duration = Duration::from_secs(60);
