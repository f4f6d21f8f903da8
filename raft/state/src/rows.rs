//! The rows of the states, as they are stored and as readers get them. Every stored row begins with a version byte.

use core_types::{
    AccountId, Address, BlobId, Domain, EmailId, Flags, GroupId, Incarnation, Keyword, MailboxGuid, MailboxName,
    MessageGuid, ModSeq, NodeId, QueueId, SiteId, Uid, UidValidity, UnixMillis,
};
use serde::{Deserialize, Serialize};

use crate::command::Receipts;
use crate::outcome::Outcome;

/// RFC 6154. `\All` and `\Flagged` are virtual mailboxes, which are not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SpecialUse {
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

/// An account as its mailbox group knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    /// The INBOX.
    pub inbox: MailboxGuid,
    /// The last UIDVALIDITY that was given to one of its mailboxes.
    pub uid_validity_last: UidValidity,
    /// Octets it may keep; `None` for no limit.
    pub quota_bytes: Option<u64>,
    /// Octets of its messages, retained ones not counted.
    pub used_bytes: u64,
    /// Number of its messages, retained ones not counted.
    pub message_count: u64,
    /// Number of its mailboxes.
    pub mailbox_count: u32,
    /// Number of names it is subscribed to.
    pub subscription_count: u32,
}

/// A mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxRow {
    /// Its identity.
    pub guid: MailboxGuid,
    /// Whose it is.
    pub account: AccountId,
    /// Its name now.
    pub name: MailboxName,
    /// RFC 6154.
    pub special_use: Option<SpecialUse>,
    /// RFC 9051 2.3.1.1
    pub uid_validity: UidValidity,
    /// The UID that the next message gets at least.
    pub uid_next: Uid,
    /// RFC 7162
    pub highest_modseq: ModSeq,
    /// Number of messages.
    pub message_count: u32,
    /// Number of messages without `\Seen`.
    pub unseen_count: u32,
    /// Number of messages with `\Deleted`.
    pub deleted_count: u32,
    /// Octets of its messages.
    pub size_bytes: u64,
    /// Every keyword that one of its messages ever had, in order.
    pub keywords: Vec<Keyword>,
    /// The greatest MODSEQ at which a message vanished that is not remembered any more; 0 when all are. Who asks for the
    /// changes since an older one has to take every UID that is not there for vanished.
    pub forgotten_modseq: ModSeq,
    /// The digest of its messages: a sum over them that does not depend on their order.
    pub digest: [u64; 4],
}

/// A message of a mailbox, without its structure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    /// Its number in the mailbox. (Part of the key.)
    pub uid: Uid,
    /// Its identity.
    pub guid: MessageGuid,
    /// What its copies share.
    pub email_id: EmailId,
    /// Its bytes' name.
    pub blob: BlobId,
    /// Their number.
    pub size: u64,
    /// RFC 9051 2.3.3
    pub internal_date: UnixMillis,
    /// When it came into this mailbox (RFC 8514).
    pub save_date: UnixMillis,
    /// Its flags.
    pub flags: Flags,
    /// The last change's MODSEQ.
    pub modseq: ModSeq,
}

/// A change of a mailbox since some MODSEQ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The message came or its flags changed; the row as it is now.
    Message(MessageRow),
    /// The message left the mailbox.
    Vanished {
        /// Its UID.
        uid: Uid,
        /// Its identity.
        guid: MessageGuid,
        /// When, in changes.
        modseq: ModSeq,
    },
}

/// One message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its identity.
    pub id: QueueId,
    /// Its bytes' name.
    pub blob: BlobId,
    /// Their number.
    pub size: u64,
    /// Where its bytes are.
    pub receipts: Receipts,
    /// MAIL FROM; `None` is the null reverse-path.
    pub reverse_path: Option<Address>,
    /// RFC 3461 RET=FULL.
    pub return_full: bool,
    /// RFC 3461 ENVID, decoded.
    pub envelope_id: Option<String>,
    /// Whether MAIL had SMTPUTF8.
    pub smtputf8: bool,
    /// Its recipients, at least one.
    pub recipients: Vec<QueuedRecipient>,
    /// When it came, by the clock of the node that took it.
    pub created: UnixMillis,
    /// When it is given up, by the group's time.
    pub expires: UnixMillis,
    /// When to try next, by the group's time.
    pub next_attempt: UnixMillis,
    /// How often it was tried.
    pub attempts: u32,
    /// Waits for an administrator, or for a part of the system that is not there yet; the reason.
    pub held: Option<String>,
    /// The attempt under way: who, and until when, by the group's time, nobody else may try.
    pub attempt: Option<(NodeId, UnixMillis)>,
    /// The structure of the message, for a delivery into a mailbox here; see [`crate::command::NewMessage::structure`].
    #[serde(with = "serde_bytes")]
    pub structure: Vec<u8>,
}

/// One recipient of a queue entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedRecipient {
    /// RCPT TO.
    pub address: Address,
    /// The GUID under which it is delivered, if it is one of ours: made once, at the end of data.
    pub guid: MessageGuid,
    /// The account, when the address is one of ours.
    pub account: Option<AccountId>,
    /// RFC 3461 NOTIFY, as bits of [`QueuedRecipient::NOTIFY_SUCCESS`] and its siblings; 0 is NEVER.
    pub notify: u8,
    /// RFC 3461 ORCPT, decoded, with its type: `rfc822;a@b`.
    pub original: Option<String>,
    /// Where it stands.
    pub state: RecipientState,
}

impl QueuedRecipient {
    /// NOTIFY=SUCCESS
    pub const NOTIFY_SUCCESS: u8 = 1;
    /// NOTIFY=FAILURE
    pub const NOTIFY_FAILURE: u8 = 2;
    /// NOTIFY=DELAY
    pub const NOTIFY_DELAY: u8 = 4;
}

/// Where a recipient of a queue entry stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// Not done; the last reply, if there was one.
    Waiting(Option<String>),
    /// Delivered.
    Done,
    /// Given up, and the sender was told, or need not be.
    Failed(String),
}

/// How an account logs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// A PHC string of argon2id.
    Password(String),
    /// It does not.
    None,
}

/// The cluster as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// 128 random bits.
    pub cluster: u128,
    /// The certificate authority's certificate (DER).
    #[serde(with = "serde_bytes")]
    pub ca_certificate: Vec<u8>,
    /// Its private key (PKCS#8 DER).
    #[serde(with = "serde_bytes")]
    pub ca_key: Vec<u8>,
    /// The id that the next node gets: ids are never used again.
    pub next_node: NodeId,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRow {
    /// Its id.
    pub site: SiteId,
    /// Its name.
    pub name: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRow {
    /// Its id.
    pub node: NodeId,
    /// Where it stands.
    pub site: SiteId,
    /// Its name.
    pub name: String,
    /// Its public key (Ed25519).
    pub key: [u8; 32],
    /// Where its cluster port is reached, `host:port`.
    pub address: String,
}

/// What a node's replicas are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeDuty {
    /// It votes where the plan wants it to.
    #[default]
    Active,
    /// It is to vote nowhere: others take its places. It follows all groups, and serves, until it is removed.
    Leaving {
        /// The node that takes its places where it can; any otherwise.
        heir: Option<NodeId>,
        /// Where nobody can take a place, the group goes on with fewer voters.
        forced: bool,
    },
}

/// A node that was removed. The row stays for ever: its id is never used again, nor its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedNodeRow {
    /// The node.
    pub node: NodeId,
    /// Where it stood.
    pub site: SiteId,
    /// Its name; another node may have it now.
    pub name: String,
    /// Its public key (Ed25519), by which it is known when it hands in an island.
    pub key: [u8; 32],
    /// When it was removed, in op time.
    pub removed: UnixMillis,
    /// Whether it may still hand in what it accepted while it was cut off.
    pub may_hand_in_islands: bool,
}

/// Where a group's replicas are to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// The group.
    pub group: GroupId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The site it belongs to; `None` for the directory group.
    pub site: Option<SiteId>,
    /// Those that are to vote.
    pub voters: Vec<NodeId>,
    /// Those that are only to follow.
    pub learners: Vec<NodeId>,
    /// How many accounts live in it.
    pub account_count: u64,
}

/// A token with which a node may join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRow {
    /// The public key that its secret gives.
    pub token_key: [u8; 32],
    /// The site that the node joins.
    pub site: SiteId,
    /// The name that the node will have.
    pub name: String,
    /// Until when it is good.
    pub expires: UnixMillis,
    /// Who spent it: the node's key and the id it got.
    pub spent: Option<([u8; 32], NodeId)>,
}

/// A domain of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRow {
    /// The domain.
    pub domain: Domain,
    /// Accounts and aliases in it.
    pub address_count: u64,
}

/// An account as the directory knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryAccountRow {
    /// Its id.
    pub account: AccountId,
    /// Its address as it was written.
    pub address: Address,
    /// The group that holds its mailboxes.
    pub group: GroupId,
    /// How it logs in.
    pub credential: Credential,
    /// Octets it may keep; `None` for no limit.
    pub quota_bytes: Option<u64>,
    /// Its mailboxes are there.
    pub active: bool,
}

/// An alias.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasRow {
    /// The alias.
    pub address: Address,
    /// Where its mail goes.
    pub targets: Vec<Address>,
}

// What follows is the state's own memory; readers of mail see little of it.

/// What a group knows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMetaRow {
    /// The greatest op time so far; `None` before the first op.
    pub time: Option<UnixMillis>,
    /// The level at which `apply` works; 0 is the first format's, before any entry said so.
    pub feature_level: u32,
}

/// What the log says of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRow {
    /// The last episode in which it was lost; 0 for none.
    pub lost_episode: u64,
    /// Up to which log index it has applied everything and verified every blob; 0 for never.
    pub caught_up: u64,
}

/// The ops of one boot of one node that are not settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpWindowRow {
    /// Everything below is settled: never asked for again.
    pub settled_below: u64,
    /// How many outcomes are remembered.
    pub remembered: u32,
    /// The greatest seq among them.
    pub greatest: u64,
    /// The op time of the last one.
    pub time: UnixMillis,
}

/// An op that was applied, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpRow {
    /// The hash of the op.
    pub digest: [u8; 32],
    /// Its outcome.
    pub outcome: Outcome,
}

/// An entry of a mailbox's change index, at (MODSEQ, UID).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeRow {
    /// The message is there, and that was its last change.
    Live,
    /// The message left.
    Vanished(MessageGuid),
}

/// Where a message of an account is, or where it was: a GUID is delivered once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuidRow {
    /// It is there; or that mailbox was deleted with it.
    Live {
        /// The mailbox.
        mailbox: MailboxGuid,
        /// Its UID there.
        uid: Uid,
    },
    /// It was expunged.
    Gone {
        /// The mailbox.
        mailbox: MailboxGuid,
        /// That mailbox's UIDVALIDITY.
        uid_validity: UidValidity,
        /// Its UID there.
        uid: Uid,
        /// When, in changes of the mailbox.
        modseq: ModSeq,
    },
}

/// An expunged message whose bytes are kept for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetainedRow {
    /// The account it belonged to.
    pub account: AccountId,
    /// The mailbox it was in.
    pub mailbox: MailboxGuid,
    /// When it was expunged, in op time.
    pub expunged: UnixMillis,
    /// The message as it was.
    pub message: MessageRow,
}

/// A mailbox that was deleted: the tombstone. Its messages still stand where they stood, and are let go with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedMailboxRow {
    /// The mailbox as it was, with its UIDNEXT and HIGHESTMODSEQ.
    pub mailbox: MailboxRow,
    /// When it was deleted, in op time.
    pub deleted: UnixMillis,
}

/// What `Prune` lets go of once it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doomed {
    /// The bytes of an expunged message.
    Retained(AccountId, MessageGuid),
    /// The memory that a message was delivered.
    Guid(AccountId, MessageGuid),
    /// The memory that a message left a mailbox.
    Vanished(MailboxGuid, ModSeq, Uid),
    /// A deleted mailbox with its messages.
    Mailbox(MailboxGuid),
    /// The memory that a queue entry was here.
    QueueGone(QueueId),
}
