//! What all clients of a run share: the nodes, the judge's book, and which mailboxes there were ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_types::{AccountId, GroupId};
use oracle::history::{Action, MailboxKey, OpRef, Outcome};
use oracle::schedule::During;
use oracle::time::Time;

use crate::book::Book;
use crate::host::Host;
use crate::site::Site;

/// See the module. Clones are the same.
#[derive(Clone)]
pub struct World {
    /// Where everything is written down.
    pub book: Book,
    /// The machines, those that are no members too.
    pub hosts: Arc<Vec<Host>>,
    /// Which of them are members.
    pub site: Site,
    /// Users, counted from 1.
    pub users: u32,
    facts: Arc<Mutex<Facts>>,
}

#[derive(Default)]
struct Facts {
    accounts: BTreeMap<u32, (AccountId, GroupId)>,
    /// Which mailbox a name means. A name is never used a second time, so it means one for ever; a renamed mailbox has
    /// several names.
    labels: BTreeMap<(u32, String), String>,
    /// The names that are worth a try.
    names: BTreeSet<(u32, String)>,
    sizes: BTreeMap<MailboxKey, usize>,
    sweeps: Vec<Sweep>,
    doomed: BTreeSet<(u32, During)>,
}

/// An EXPUNGE or CLOSE takes what has `\Deleted` at the server, also what the client never heard of. What that was is found
/// out at the end.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// Who.
    pub client: u32,
    /// Where; from 1.
    pub node: u64,
    /// When it began.
    pub began: Time,
    /// Where.
    pub mailbox: MailboxKey,
    /// What the client did know of, and has recorded itself.
    pub known: BTreeSet<u32>,
    /// The first UID that it cannot have taken; `None` where that is not known.
    pub below: Option<u32>,
}

impl World {
    /// A run's.
    #[must_use]
    pub fn new(book: Book, hosts: &[Host], site: Site, users: u32) -> Self {
        Self {
            book,
            hosts: Arc::new(hosts.to_vec()),
            site,
            users: users.max(1),
            facts: Arc::default(),
        }
    }

    /// A client is to vanish in the middle of such a thing, the next time it does it.
    pub fn doom(&self, client: u32, during: During) {
        self.facts().doomed.insert((client, during));
    }

    /// Whether a client is to vanish now.
    #[must_use]
    pub fn is_doomed(&self, client: u32, during: During) -> bool {
        self.facts().doomed.remove(&(client, during))
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The places of the machines that are members.
    #[must_use]
    pub fn members(&self) -> Vec<usize> {
        let members = self.site.members();
        let places = self.hosts.iter().enumerate();
        places
            .filter(|(_, host)| members.contains(&host.address()))
            .map(|(place, _)| place)
            .collect()
    }

    /// Something begins at a node.
    pub fn invoke(&self, client: u32, node: usize, action: Action) -> OpRef {
        self.book
            .judge(|judge| judge.history.invoke(client, node as u64 + 1, Book::now(), action))
    }

    /// It ended. What succeeded is counted.
    pub fn end(&self, op: OpRef, outcome: Outcome, fill: impl FnOnce(&mut Action)) {
        let mut name = "";
        let filled = |action: &mut Action| {
            fill(action);
            name = kind(action);
        };
        self.book
            .judge(|judge| judge.history.end(op, Book::now(), outcome, filled));
        match outcome {
            Outcome::Ok | Outcome::Later => self.book.count(&format!("op.{name}")),
            Outcome::Unknown => self.book.count("unknown.ops"),
            Outcome::Failed => {}
        }
    }

    /// Where a user's mail is.
    #[must_use]
    pub fn account(&self, user: u32) -> Option<(AccountId, GroupId)> {
        self.facts().accounts.get(&user).copied()
    }

    /// Where a user's mail is, for all time.
    pub fn set_account(&self, user: u32, account: AccountId, group: GroupId) {
        self.facts().accounts.insert(user, (account, group));
    }

    /// A name that may come to be from now on, of a new mailbox or of one that there is.
    pub fn name(&self, user: u32, name: &str, label: &str) {
        self.facts().labels.insert((user, name.to_owned()), label.to_owned());
    }

    /// The mailbox of a name.
    #[must_use]
    pub fn label(&self, user: u32, name: &str) -> String {
        let known = self.facts().labels.get(&(user, name.to_owned())).cloned();
        known.unwrap_or_else(|| name.to_owned())
    }

    /// Whether a name is worth a try from now on.
    pub fn set_there(&self, user: u32, name: &str, there: bool) {
        let name = (user, name.to_owned());
        if there {
            self.facts().names.insert(name);
        } else {
            self.facts().names.remove(&name);
        }
    }

    /// The names that are worth a try.
    #[must_use]
    pub fn names(&self, user: u32) -> Vec<String> {
        let facts = self.facts();
        let own = facts.names.iter().filter(|(owner, _)| *owner == user);
        own.map(|(_, name)| name.clone()).collect()
    }

    /// The names at and below one that were ever given.
    #[must_use]
    pub fn names_at(&self, user: u32, name: &str) -> Vec<String> {
        let below = format!("{name}/");
        let facts = self.facts();
        let own = facts.labels.keys().filter(|(owner, _)| *owner == user);
        own.filter(|(_, known)| known == name || known.starts_with(&below))
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// So many messages were last seen in a mailbox.
    pub fn set_size(&self, mailbox: &MailboxKey, messages: usize) {
        self.facts().sizes.insert(mailbox.clone(), messages);
    }

    /// How many were last seen.
    #[must_use]
    pub fn size(&self, mailbox: &MailboxKey) -> usize {
        self.facts().sizes.get(mailbox).copied().unwrap_or(0)
    }

    /// An EXPUNGE or CLOSE that was not refused.
    pub fn swept(&self, sweep: Sweep) {
        self.facts().sweeps.push(sweep);
    }

    /// All of them.
    #[must_use]
    pub fn sweeps(&self) -> Vec<Sweep> {
        self.facts().sweeps.clone()
    }
}

/// What an action is called among the counters.
fn kind(action: &Action) -> &'static str {
    match action {
        Action::Deliver { .. } => "deliver",
        Action::Append { .. } => "append",
        Action::Store { .. } => "store",
        Action::Copy { .. } => "copy",
        Action::Move { .. } => "move",
        Action::Expunge { .. } => "expunge",
        Action::Create { .. } => "create",
        Action::Delete { .. } => "delete",
        Action::Rename { .. } => "rename",
        Action::List { .. } => "list",
        Action::Read { .. } => "read",
        Action::Fetch { .. } => "fetch",
    }
}
