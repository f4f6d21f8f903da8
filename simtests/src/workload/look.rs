//! Looks at mailboxes: through a session, and in the state of the replica beside it.
//!
//! The state is read right after the session's node confirmed a read: then it is at least as new as what the session
//! showed. It tells what IMAP does not yet: MODSEQs, GUIDs, what vanished.

use std::time::Duration;

use core_types::{AccountId, Address, Flags, GroupId, KvRead, ModSeq, Uid};
use oracle::history::{Action, FlagSet, MailboxKey, Outcome, Seen, Token};
use oracle::message::read as read_body;
use oracle::numbering::{MailboxView, ViewMessage};
use oracle::time::Time;
use state::ReadError;
use state::rows::{Change, MailboxRow};
use tokio::time::timeout;

use super::world::World;
use super::{Client, outcome_of};
use crate::book::Book;
use crate::client::imap::{Fetched, KEYWORDS};
use crate::client::{Answer, Failure};
use crate::host::Host;

/// Bodies that are read in one look.
const BODIES_MAX: usize = 12;
/// How long a look at a state may wait.
const STATE_WITHIN: Duration = Duration::from_secs(5);

/// What a look began with.
pub(super) struct Begun {
    pub(super) at: Time,
    pub(super) node: usize,
    pub(super) lives: u64,
}

impl Client {
    pub(super) fn begun(&self, node: usize) -> Begun {
        Begun {
            at: Book::now(),
            node,
            lives: self.world.hosts[node].lives(),
        }
    }

    /// Opens a mailbox by this name, or asks for what is new in the one that is open, and lists all of it.
    pub(super) async fn look(&mut self, open: Option<&str>) -> Answer<Vec<Fetched>> {
        let session = self.session().await?;
        let (node, selected) = (session.node, session.mailbox.take());
        let key = match open {
            Some(name) => Some(self.key(&self.world.label(self.user, name))),
            None => selected,
        };
        let Some(key) = key else {
            return Err(Failure::Refused("nothing is selected".to_owned()));
        };
        let begun = self.begun(node);
        let op = self.invoke(Action::Read {
            mailbox: key.clone(),
            messages: None,
            some: Vec::new(),
            count: None,
        });
        let shown = self.show(open).await;
        let (fetched, count) = match shown {
            Ok(shown) => shown,
            Err(failure) => {
                self.end(op, outcome_of(&failure), |_| {});
                if let (Failure::Refused(_), Some(name)) = (&failure, open.filter(|name| *name != "INBOX")) {
                    self.world.set_there(self.user, name, false);
                }
                return Err(failure);
            }
        };
        if let Some(session) = &mut self.session {
            session.mailbox = Some(key.clone());
            if let Some(name) = open {
                name.clone_into(&mut session.name);
            }
        }
        self.world.set_size(&key, count as usize);
        let bodies = self.read_unknown(&key, &fetched).await;
        let list = self.listing(&key, &fetched);
        let whole = fetched.len() == count as usize;
        self.end(op, Outcome::Ok, |action| {
            if let Action::Read {
                messages,
                some,
                count: told,
                ..
            } = action
            {
                *told = Some(count);
                match whole {
                    true => *messages = Some(list),
                    false => *some = list,
                }
            }
        });
        if whole && open.is_some() {
            self.tell_view(&begun, &key, &fetched);
        }
        bodies?;
        if self.chance(2) {
            self.look_at_state(&begun, &key).await;
        }
        Ok(fetched)
    }

    /// The command that confirms the state, and the list of what it showed.
    async fn show(&mut self, open: Option<&str>) -> Answer<(Vec<Fetched>, u32)> {
        let imap = &mut self.session().await?.imap;
        match open {
            Some(name) => imap.select(name).await.map(drop)?,
            None => imap.command("NOOP").await.map(drop)?,
        }
        let count = imap.exists();
        if count == 0 {
            return Ok((Vec::new(), 0));
        }
        let mut fetched = imap.fetch(&format!("FETCH 1:{count} (UID FLAGS)")).await?;
        fetched.retain(|message| message.sequence <= count);
        fetched.sort_by_key(|message| message.sequence);
        fetched.dedup_by_key(|message| message.sequence);
        Ok((fetched, count))
    }

    fn listing(&self, key: &MailboxKey, fetched: &[Fetched]) -> Vec<(u32, Seen)> {
        let seen = |message: &Fetched| {
            let token = self.known.get(&(key.clone(), message.uid)).copied().flatten();
            let flags = Some(message.flags);
            (message.uid, Seen { token, flags })
        };
        fetched.iter().map(seen).collect()
    }

    /// Reads the bodies of messages that this client does not know yet.
    async fn read_unknown(&mut self, key: &MailboxKey, fetched: &[Fetched]) -> Answer<()> {
        let unknown = fetched
            .iter()
            .map(|message| message.uid)
            .filter(|uid| !self.known.contains_key(&(key.clone(), *uid)));
        let mut uids: Vec<u32> = unknown.take(BODIES_MAX).collect();
        // Now and then one that it has read before, perhaps through another node.
        if let Some(again) = self.pick(fetched).filter(|_| self.chance(4)) {
            uids.push(again.uid);
        }
        uids.sort_unstable();
        uids.dedup();
        self.read_bodies(key, &uids).await
    }

    /// Reads bodies by UID, in one command.
    pub(super) async fn read_bodies(&mut self, key: &MailboxKey, uids: &[u32]) -> Answer<()> {
        if uids.is_empty() {
            return Ok(());
        }
        let fetch = |uid: &u32| Action::Fetch {
            mailbox: key.clone(),
            uid: Some(*uid),
            token: None,
            digest: [0; 32],
        };
        let ops: Vec<_> = uids.iter().map(|uid| self.invoke(fetch(uid))).collect();
        let command = format!("UID FETCH {} (UID RFC822.SIZE BODY.PEEK[])", super::write::join(uids));
        let result = match self.session().await {
            Ok(session) => session.imap.fetch(&command).await,
            Err(failure) => Err(failure),
        };
        for (uid, op) in uids.iter().zip(ops) {
            let found = result.as_ref().ok().and_then(|fetched| {
                let has_body = |message: &&Fetched| message.uid == *uid && !message.body.is_empty();
                fetched.iter().find(has_body)
            });
            let Some(message) = found else {
                self.end(op, Outcome::Failed, |_| {});
                continue;
            };
            if message.size != message.body.len() as u64 {
                let (size, length) = (message.size, message.body.len());
                let what = format!("{key} UID {uid}: RFC822.SIZE is {size}, of {length} octets");
                self.book().violation("I06", what);
            }
            let token = self.end_body(op, &message.body);
            self.known.insert((key.clone(), *uid), token);
        }
        result.map(drop)
    }

    /// A body was read.
    pub(super) fn end_body(&self, op: oracle::history::OpRef, bytes: &[u8]) -> Option<Token> {
        let body = read_body(bytes);
        self.end(op, Outcome::Ok, |action| {
            if let Action::Fetch { token, digest, .. } = action {
                *token = body.token;
                *digest = body.digest;
            }
        });
        body.token
    }

    /// A SELECT and a list of all are what clients sync by.
    fn tell_view(&self, begun: &Begun, key: &MailboxKey, fetched: &[Fetched]) {
        let Some(told) = self.session.as_ref().and_then(|session| session.imap.selected()) else {
            return;
        };
        let message = |message: &Fetched| {
            let token = self.known.get(&(key.clone(), message.uid)).copied().flatten()?;
            Some(ViewMessage {
                uid: message.uid,
                identity: u128::from(token.0),
                flags: message.flags,
                modseq: 0,
                uidl: None,
            })
        };
        let Some(messages) = fetched.iter().map(message).collect::<Option<Vec<_>>>() else {
            return;
        };
        let view = MailboxView {
            // Here a message is known by its token, in states by its GUID: they are looked at as different mailboxes.
            mailbox: MailboxKey::new(key.account, &format!("{} by IMAP", key.label)),
            uid_validity: told.uid_validity,
            uid_next: told.uid_next,
            highest_modseq: 0,
            messages,
            vanished: None,
            forgotten_modseq: 0,
        };
        self.tell(begun, &view, "look.imap");
    }

    /// Looks at the state beside the session, which confirmed a read since `begun`.
    pub(super) async fn look_at_state(&self, begun: &Begun, key: &MailboxKey) -> Option<MailboxView> {
        let (account, group) = self.world.account(self.user)?;
        let validity = self.session.as_ref()?.imap.selected()?.uid_validity;
        let view = view_in_state(&self.world.hosts[begun.node], account, group, key, validity).await?;
        self.is_same_life(begun).then(|| {
            self.tell(begun, &view, "look.replica");
            view
        })
    }

    /// A process that began anew meanwhile confirmed nothing.
    pub(super) fn is_same_life(&self, begun: &Begun) -> bool {
        self.world.hosts[begun.node].lives() == begun.lives
    }

    pub(super) fn tell(&self, begun: &Begun, view: &MailboxView, counter: &str) {
        let node = begun.node as u64 + 1;
        self.book().judge(|judge| judge.look(node, begun.at, Book::now(), view));
        self.book().count(counter);
    }
}

/// Reads the state of a group at a node, of one moment. `None` where it cannot be read now.
pub async fn in_state<T: Send>(
    host: &Host,
    group: GroupId,
    read: impl Fn(&dyn KvRead) -> Result<T, ReadError> + Send + Sync,
) -> Option<T> {
    let group = host.running()?.groups.group(group)?;
    let mut found = None;
    let mut reader = |view: &dyn KvRead| found = read(view).ok();
    timeout(STATE_WITHIN, group.read(&mut reader)).await.ok()?.ok()?;
    found
}

/// The account of an address, by the directory as a node has it.
pub async fn account_of(host: &Host, address: &str) -> Option<(AccountId, GroupId)> {
    let address = Address::parse(address).ok()?;
    let row = in_state(host, GroupId::DIRECTORY, |view| {
        state::directory::Reader::new(view).account_by_address(&address)
    });
    row.await.flatten().map(|row| (row.account, row.group))
}

/// A mailbox in the state of a node.
async fn view_in_state(
    host: &Host,
    account: AccountId,
    group: GroupId,
    key: &MailboxKey,
    uid_validity: u32,
) -> Option<MailboxView> {
    in_state(host, group, |view| {
        let mailboxes = state::mailbox::Reader::new(view).mailboxes(account)?;
        let row = mailboxes.iter().find(|row| row.uid_validity.0 == uid_validity);
        row.map(|row| state_view(view, key, row)).transpose()
    })
    .await
    .flatten()
}

/// A mailbox as a state has it.
pub(crate) fn state_view(view: &dyn KvRead, key: &MailboxKey, row: &MailboxRow) -> Result<MailboxView, ReadError> {
    let reader = state::mailbox::Reader::new(view);
    let messages = reader.messages(row.guid, Uid(0), usize::MAX)?;
    let messages = messages.into_iter().map(|message| ViewMessage {
        uid: message.uid.0,
        identity: u128::from_be_bytes(message.guid.0),
        flags: flag_set(&message.flags),
        modseq: message.modseq.0,
        uidl: None,
    });
    let changes = reader.changes_since(row.guid, ModSeq(0), usize::MAX)?;
    let vanished = changes.map(|changes| {
        let gone = changes.changes.iter().filter_map(|change| match change {
            Change::Vanished { uid, modseq, .. } => Some((uid.0, modseq.0)),
            Change::Message(_) => None,
        });
        gone.collect()
    });
    Ok(MailboxView {
        mailbox: key.clone(),
        uid_validity: row.uid_validity.0,
        uid_next: row.uid_next.0,
        highest_modseq: row.highest_modseq.0,
        messages: messages.collect(),
        vanished,
        forgotten_modseq: row.forgotten_modseq.0,
    })
}

/// Flags as the judge counts them.
pub(crate) fn flag_set(flags: &Flags) -> FlagSet {
    let mut bits = u32::from(flags.system);
    for keyword in &flags.keywords {
        let known = KEYWORDS.iter().position(|known| *known == keyword.as_str());
        bits |= known.map_or(1 << 31, |place| FlagSet::KEYWORD.0 << place);
    }
    FlagSet(bits)
}

impl World {
    /// Learns where the users' mail is.
    pub async fn learn_accounts(&self) {
        for user in 1..=self.users {
            if let Some((account, group)) = account_of(&self.hosts[0], &super::address(user)).await {
                self.set_account(user, account, group);
            }
        }
    }
}
