//! The protocol-independent mailbox interface: what SMTP, LMTP, IMAP, POP3 and administration know of mail.
//!
//! A change is durable where the design says before its call returns. Reads come from the replica on this node;
//! [`AccountMail::sync`] first makes it as new as everything that was acknowledged anywhere.
//!
//! Not here: any protocol's words, sequence numbers, sockets. The front ends know no Raft, no index engine and no QUIC:
//! they know this.

mod account;
mod deliver;
mod error;
mod ingest;
mod message;
mod redeliver;
mod references;
#[cfg(feature = "testing")]
pub mod testing;
mod watch;

pub use account::{AccountMail, Selected};
pub use deliver::{DeliverTo, Delivered, EnvelopeFrom};
pub use error::StoreError;
pub use ingest::{Ingest, Ingested};
pub use message::MessageBytes;
pub use references::{is_referenced, references_of};
pub use watch::Watch;

use std::sync::Arc;
use std::time::Duration;

use blobstore::{BlobStore, Fetcher, Replicator};
use core_types::{Clock, Entropy, GroupId, MessageGuid};
use directory::{Account, Directory, OpIds};
use raft::consensus::Consensus;
use state::{Command, Effect, GroupOp, MailboxOp, Op, Outcome, Refusal};
use tokio::sync::broadcast::error::RecvError;

/// The mail store as this node sees it. Clones share everything.
#[derive(Clone)]
pub struct MailStore {
    inner: Arc<Inner>,
}

struct Inner {
    groups: Arc<dyn Consensus>,
    directory: Directory,
    blobs: BlobStore,
    replicator: Replicator,
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    op_ids: Arc<OpIds>,
    watchers: Arc<watch::Watchers>,
}

/// What a [`MailStore`] is made of.
pub struct Dependencies {
    /// The groups of this node.
    pub groups: Arc<dyn Consensus>,
    /// Accounts and addresses.
    pub directory: Directory,
    /// The blobs on this node.
    pub blobs: BlobStore,
    /// Blobs on other nodes.
    pub replicator: Replicator,
    /// Blobs that this node lacks.
    pub fetcher: Fetcher,
    /// Wall clock for op times and dates.
    pub clock: Arc<dyn Clock>,
    /// For GUIDs.
    pub entropy: Arc<dyn Entropy>,
    /// The node's op ids.
    pub op_ids: Arc<OpIds>,
}

impl MailStore {
    /// The mail store over these parts. [`MailStore::follow`] is to be called for each group whose changes are to be
    /// heard of.
    #[must_use]
    pub fn new(dependencies: Dependencies) -> Self {
        let Dependencies {
            groups,
            directory,
            blobs,
            replicator,
            fetcher,
            clock,
            entropy,
            op_ids,
        } = dependencies;
        let watchers = Arc::default();
        let inner = Inner {
            groups,
            directory,
            blobs,
            replicator,
            fetcher,
            clock,
            entropy,
            op_ids,
            watchers,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Passes a group's changes on to those who watch, until the group is gone. Runs for the life of the group's replica.
    pub async fn follow(&self, group: GroupId) {
        let Ok(mut effects) = self.inner.groups.effects(group) else {
            return;
        };
        loop {
            match effects.recv().await {
                Ok(effects) if effects.contains(&Effect::Replaced) => self.inner.watchers.publish_all(),
                Ok(effects) => self.inner.watchers.publish(&effects),
                Err(RecvError::Lagged(_)) => self.inner.watchers.publish_all(),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// Accounts, addresses, logging in.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// The blobs on this node.
    #[must_use]
    pub fn blobs(&self) -> &BlobStore {
        &self.inner.blobs
    }

    /// The groups of this node.
    #[must_use]
    pub fn groups(&self) -> &Arc<dyn Consensus> {
        &self.inner.groups
    }

    /// The wall clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// Randomness.
    #[must_use]
    pub fn entropy(&self) -> &Arc<dyn Entropy> {
        &self.inner.entropy
    }

    /// An account's mailboxes.
    #[must_use]
    pub fn account(&self, account: &Account) -> AccountMail {
        AccountMail::new(self.clone(), account.clone())
    }

    /// Watches the queue of the groups here.
    #[must_use]
    pub fn watch_queue(&self) -> Watch {
        self.inner.watchers.watch(watch::Topic::Queue)
    }

    /// Has a mailbox group carry out an op; a refusal is an error.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn propose(&self, group: GroupId, op: MailboxOp) -> Result<Outcome, StoreError> {
        self.propose_within(group, Op::Mailbox(op), PROPOSE_TIMEOUT).await
    }

    /// Writes an entry that a group makes about itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn propose_group_op(&self, group: GroupId, op: GroupOp) -> Result<Outcome, StoreError> {
        self.propose_within(group, Op::Group(op), PROPOSE_TIMEOUT).await
    }

    async fn propose_within(&self, group: GroupId, op: Op, timeout: Duration) -> Result<Outcome, StoreError> {
        let ticket = self.inner.op_ids.next(group);
        let command = Command {
            op_id: ticket.op_id(),
            settled_below: ticket.settled_below(),
            time: self.inner.clock.now(),
            op,
        };
        match self.inner.groups.propose(group, command, timeout).await? {
            Outcome::Refused(refusal) => Err(refusal.into()),
            outcome => Ok(outcome),
        }
    }

    /// Makes an account with its mailboxes, and only then lets it take mail. Can be repeated until it succeeds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create_account_mail(&self, account: &Account, quota_bytes: Option<u64>) -> Result<(), StoreError> {
        let op = account::new_account_op(account.id, quota_bytes, self.inner.entropy.as_ref());
        match self.propose(account.group, op).await {
            Ok(_) | Err(StoreError::Refused(Refusal::AlreadyExists)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// A GUID that nobody has.
    #[must_use]
    pub fn new_message_guid(&self) -> MessageGuid {
        MessageGuid(self.inner.entropy.bytes())
    }
}

/// How long a client's change may take before its outcome is called unknown. A change of leader takes less.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(10);
