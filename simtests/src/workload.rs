//! What clients do, and what of it they tell the judge.
//!
//! Each client is one of its schedule's ([`ClientPlan`]): it draws from its own seed, works on its user's mail, and keeps a
//! session open as long as it lasts. Every operation is in the judge's history before its first byte leaves, and again at
//! its end. Anybody may change anything: what fits together the judge decides.
//!
//! Not here: what is right and wrong (`oracle`).

mod deliver;
mod idle;
pub mod look;
mod pop;
mod read;
pub mod world;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use core_types::Entropy;
use oracle::history::{Action, MailboxKey, OpRef, Outcome, Token};
use oracle::message::{compose, compose_dense};
use oracle::schedule::{ClientPlan, ClientRole};
use platform::SeededEntropy;

use crate::book::Book;
use crate::client::imap::Imap;
use crate::client::{Answer, Failure};
use crate::host::INLINE_BYTES;
use crate::trace::Trace;
use world::World;

pub(crate) use read::listed_name;

/// The mailboxes that every user has.
pub const MAILBOXES: [&str; 3] = ["INBOX", "Archive", "Work"];
/// Everybody's.
pub const PASSWORD: &str = "secret-of-the-simulation";

/// `user1@example.test`, ...: users count from 1.
#[must_use]
pub fn address(user: u32) -> String {
    format!("user{user}@example.test")
}

/// How an operation that failed like this is recorded.
#[must_use]
pub fn outcome_of(failure: &Failure) -> Outcome {
    match failure {
        Failure::Refused(_) => Outcome::Failed,
        Failure::Unknown(_) | Failure::Protocol(_) => Outcome::Unknown,
    }
}

/// A session with a node, as long as it lasts.
pub(crate) struct Session {
    pub(crate) imap: Imap,
    /// The node's place.
    pub(crate) node: usize,
    /// By which name a mailbox was selected last.
    pub(crate) name: String,
    /// Which mailbox is selected.
    pub(crate) mailbox: Option<MailboxKey>,
}

/// One client.
pub struct Client {
    plan: ClientPlan,
    user: u32,
    world: World,
    entropy: SeededEntropy,
    trace: Trace,
    stop: Arc<AtomicBool>,
    /// The node it is, or will be, connected to.
    node: usize,
    /// Whether it takes another node when it connects again.
    roams: bool,
    session: Option<Session>,
    sessions: u32,
    made: u64,
    /// The messages whose bodies it has read.
    known: BTreeMap<(MailboxKey, u32), Option<Token>>,
}

impl Client {
    /// A client of a schedule.
    #[must_use]
    pub fn new(plan: ClientPlan, world: World, trace: Trace, stop: Arc<AtomicBool>) -> Self {
        let entropy = SeededEntropy::new(plan.seed);
        let chooser: &dyn Entropy = &entropy;
        let roams = chooser.below(3) > 0;
        let nodes = world.hosts.len() as u64;
        Self {
            user: (plan.user.max(1) - 1) % world.users + 1,
            node: usize::try_from((plan.node.max(1) - 1) % nodes).unwrap_or(0),
            plan,
            world,
            entropy,
            trace,
            stop,
            roams,
            session: None,
            sessions: 0,
            made: 0,
            known: BTreeMap::new(),
        }
    }

    fn below(&self, bound: usize) -> usize {
        let entropy: &dyn Entropy = &self.entropy;
        usize::try_from(entropy.below(bound.max(1) as u64)).unwrap_or(0)
    }

    fn chance(&self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len()))
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Until it is stopped.
    pub async fn work(mut self) {
        while !self.is_stopped() {
            let (name, result) = match self.plan.role {
                ClientRole::Deliver => self.deliver_something().await,
                ClientRole::Write => self.write_something().await,
                ClientRole::Read => self.read_something().await,
                ClientRole::Idle => self.idle_a_while().await,
                ClientRole::Pop => self.pop_something().await,
            };
            let text = result.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned());
            let what = format!("node {} {text}", self.node + 1);
            self.trace.note(&format!("client-{}", self.plan.id), name, &what, &[]);
            match result {
                Ok(()) => self.book().count(&format!("client.{name}")),
                Err(Failure::Refused(_)) => self.book().count("client.refused"),
                Err(failure) => {
                    self.book().count("client.failed");
                    if let Failure::Protocol(text) = failure {
                        let what = format!("client {} {name} at node {}: {text}", self.plan.id, self.node + 1);
                        self.book().violation("S00", what);
                    }
                    self.lose_session();
                }
            }
            self.pause().await;
        }
        if let Some(session) = self.session.take() {
            session.imap.logout().await;
        }
    }

    async fn pause(&self) {
        let longest = match self.plan.role {
            ClientRole::Deliver => 500,
            ClientRole::Read => 400,
            _ => 300,
        };
        tokio::time::sleep(Duration::from_millis(20 + self.below(longest) as u64)).await;
    }

    fn book(&self) -> &Book {
        &self.world.book
    }

    /// The session is of no use any more; the next one may be with another node.
    fn lose_session(&mut self) {
        self.session = None;
        self.move_on();
    }

    fn move_on(&mut self) {
        let members = self.world.members();
        if (self.roams || !members.contains(&self.node))
            && let Some(node) = self.pick(&members)
        {
            self.node = *node;
        }
    }

    /// The session, a new one where there is none.
    async fn session(&mut self) -> Answer<&mut Session> {
        if self.session.is_none() {
            self.sessions += 1;
            let name = format!("client {} session {}", self.plan.id, self.sessions);
            let host = self.world.hosts[self.node].address();
            let book = self.world.book.clone();
            let imap = Imap::login(host, &address(self.user), PASSWORD, &book, &name).await;
            let imap = imap.map_err(|failure| Failure::Unknown(format!("login: {failure}")))?;
            self.session = Some(Session {
                imap,
                node: self.node,
                name: "INBOX".to_owned(),
                mailbox: None,
            });
        }
        self.session
            .as_mut()
            .ok_or_else(|| Failure::Unknown("no session".to_owned()))
    }

    fn key(&self, label: &str) -> MailboxKey {
        MailboxKey::new(self.user, label)
    }

    /// Something begins: call before its first byte leaves.
    fn invoke(&self, action: Action) -> OpRef {
        self.world.invoke(self.plan.id, self.node, action)
    }

    fn end(&self, op: OpRef, outcome: Outcome, fill: impl FnOnce(&mut Action)) {
        self.world.end(op, outcome, fill);
    }

    /// A message of its own: some are too large for the blob journal, and do not compress.
    fn message(&mut self) -> (Token, Vec<u8>) {
        self.made += 1;
        let token = Token(u64::from(self.plan.id) << 32 | self.made);
        let bytes = if self.chance(12) {
            compose_dense(token, INLINE_BYTES * 3 / 2 + self.below(16_000))
        } else {
            compose(token, self.below(1800))
        };
        (token, bytes)
    }
}
