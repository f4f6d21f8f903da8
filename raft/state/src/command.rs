//! What can be asked of a group: commands, as they stand in the log.

use core_types::{
    AccountId, Address, BlobId, Domain, EmailId, Flags, GroupId, Incarnation, MailboxGuid, MailboxName, MessageGuid,
    ModSeq, NodeId, OpId, QueueId, SiteId, UnixMillis,
};
use serde::{Deserialize, Serialize};

use crate::rows::{Credential, NodeDuty, QueueEntry, RecipientState, SpecialUse};

/// One entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Which attempt this is: a repeat with the same content is answered with the first one's outcome, and one with other
    /// content is refused.
    pub op_id: OpId,
    /// Every op of the same (node, boot) below this number is settled: its maker will never ask for it again, so its
    /// outcome may be forgotten.
    pub settled_below: u64,
    /// When the op was made, by its maker's clock. The state machine's time is the greatest it has seen, and never steps
    /// further than [`core_types::limits::OP_TIME_STEP_MAX`] at once.
    pub time: UnixMillis,
    /// What to do.
    pub op: Op,
}

/// A deterministic change of a group's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// For mailbox groups.
    Mailbox(MailboxOp),
    /// For the directory group.
    Directory(DirectoryOp),
    /// For every group: what it says of its own replicas.
    Group(GroupOp),
}

/// Entries that a group writes about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupOp {
    /// The leader had no round trip with this replica for a third of `survivor_after`; stands in the log before anything
    /// that was proposed or answered since.
    ReplicaLost {
        /// Which replica.
        replica: NodeId,
        /// Counts the losses of this replica; a successful append ends an episode.
        episode: u64,
    },
    /// The replica has applied everything up to an index and verified every blob that it refers to.
    CaughtUp {
        /// Which replica.
        replica: NodeId,
        /// The log index.
        index: u64,
    },
    /// From here on `apply` works at this level. Proposed once all replicas know it.
    FeatureLevel {
        /// The level, 1 for the first.
        level: u32,
    },
    /// Gives the replica the lowest free slot, if it has none.
    AssignSlot {
        /// Which replica.
        replica: NodeId,
    },
    /// Frees the slot of a replica that was removed and whose islands are merged.
    FreeSlot {
        /// Which replica.
        replica: NodeId,
    },
}

/// What can be asked of a mailbox group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailboxOp {
    /// Makes an account's mailboxes. `AlreadyExists` if the account is there.
    CreateAccount {
        /// The account.
        account: AccountId,
        /// The GUID of its INBOX.
        inbox: MailboxGuid,
        /// Further mailboxes to begin with; the account is subscribed to them and to INBOX.
        mailboxes: Vec<(MailboxName, MailboxGuid, Option<SpecialUse>)>,
        /// Octets it may keep; `None` for no limit.
        quota_bytes: Option<u64>,
    },
    /// Removes an account with everything in it. Its messages are retained as expunged ones are.
    RemoveAccount {
        /// The account.
        account: AccountId,
    },
    /// Sets or lifts an account's quota.
    SetQuota {
        /// The account.
        account: AccountId,
        /// Octets; `None` for no limit.
        quota_bytes: Option<u64>,
    },
    /// Adds one message to mailboxes of one or several accounts: a delivery or an APPEND.
    Deliver(Delivery),
    /// Changes flags. Messages that are not in the mailbox (any more) are passed over.
    StoreFlags {
        /// The account.
        account: AccountId,
        /// The mailbox.
        mailbox: MailboxGuid,
        /// Which messages.
        messages: Vec<MessageGuid>,
        /// How `flags` is meant.
        change: FlagChange,
        /// The flags.
        flags: Flags,
        /// RFC 7162: leave out messages whose MODSEQ is above this.
        unchanged_since: Option<ModSeq>,
    },
    /// Copies messages within the account, all or none. The copies keep flags, internal date and EmailId.
    Copy {
        /// The account.
        account: AccountId,
        /// The mailbox they are in.
        from: MailboxGuid,
        /// The mailbox they go to.
        to: MailboxGuid,
        /// Which messages, in the order in which they get their UIDs.
        messages: Vec<MessageGuid>,
        /// The copies' GUIDs are [`MessageGuid::derive`]d with this.
        seed: [u8; 16],
    },
    /// Moves messages within the account (RFC 6851), all or none; they keep their GUIDs.
    Move {
        /// The account.
        account: AccountId,
        /// The mailbox they are in.
        from: MailboxGuid,
        /// The mailbox they go to.
        to: MailboxGuid,
        /// Which messages, in the order in which they get their UIDs.
        messages: Vec<MessageGuid>,
    },
    /// Expunges messages; those that are not in the mailbox (any more) are passed over.
    Expunge {
        /// The account.
        account: AccountId,
        /// The mailbox.
        mailbox: MailboxGuid,
        /// Which messages.
        messages: Vec<MessageGuid>,
        /// Only those that have `\Deleted` when the op is applied.
        only_deleted: bool,
    },
    /// Makes a mailbox, and its superiors where they are missing (RFC 9051 6.3.4).
    CreateMailbox {
        /// The account.
        account: AccountId,
        /// Its name.
        name: MailboxName,
        /// Its GUID; those of missing superiors are derived from it.
        guid: MailboxGuid,
        /// RFC 6154.
        special_use: Option<SpecialUse>,
    },
    /// Deletes a mailbox with its messages; not INBOX. Mailboxes below it stay.
    DeleteMailbox {
        /// The account.
        account: AccountId,
        /// The mailbox.
        mailbox: MailboxGuid,
    },
    /// Renames a mailbox and all below it. For INBOX: moves its messages into a new mailbox (RFC 9051 6.3.6).
    RenameMailbox {
        /// The account.
        account: AccountId,
        /// The mailbox.
        mailbox: MailboxGuid,
        /// Its new name; superiors that are missing are made.
        to: MailboxName,
        /// The GUID of the new mailbox when INBOX is renamed; those of missing superiors are derived from it.
        new_guid: MailboxGuid,
    },
    /// Subscribes to a name, which need not exist, or ends it.
    Subscribe {
        /// The account.
        account: AccountId,
        /// The name.
        name: MailboxName,
        /// `false` ends it.
        subscribed: bool,
    },
    /// Takes a message into the queue. Idempotent by its id.
    Enqueue(Box<QueueEntry>),
    /// A node is about to try the recipients of an entry that are due.
    AttemptStarted {
        /// The entry.
        entry: QueueId,
        /// The node that tries.
        node: NodeId,
        /// Until when nobody else may try.
        deadline: UnixMillis,
    },
    /// What came of an attempt. An entry whose recipients are all settled is removed.
    AttemptFinished {
        /// The entry.
        entry: QueueId,
        /// The new state of recipients, by their index in the entry.
        results: Vec<(u32, RecipientState)>,
        /// When to try the rest again.
        next_attempt: UnixMillis,
    },
    /// An administrator's word on an entry.
    QueueControl {
        /// The entry.
        entry: QueueId,
        /// What to do with it.
        action: QueueAction,
    },
    /// Lets go of what is past its time: retained messages, tombstones, memories of deliveries. At most `limit` rows, so
    /// that one op stays short; repeated until nothing is left.
    Prune {
        /// Rows at most.
        limit: u32,
    },
}

/// What to do with flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlagChange {
    /// `FLAGS`
    Replace,
    /// `+FLAGS`
    Add,
    /// `-FLAGS`
    Remove,
}

/// An administrator's word on a queue entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueAction {
    /// Do not try until released.
    Hold,
    /// Try again as if it had just come.
    Release,
    /// Forget it, without a notice to anybody.
    Drop,
}

/// One message for one or several mailboxes of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// The message.
    pub message: NewMessage,
    /// Where its bytes are.
    pub receipts: Receipts,
    /// Who gets it. Each is applied or refused by itself.
    pub targets: Vec<DeliveryTarget>,
    /// Whether a target over its quota is refused (APPEND, LMTP) or gets it all the same (SMTP, whose recipient was
    /// accepted at RCPT).
    pub enforce_quota: bool,
}

/// A message that is about to become an entry of mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    /// Its bytes' name.
    pub blob: BlobId,
    /// Their number.
    pub size: u64,
    /// What all its copies share.
    pub email_id: EmailId,
    /// RFC 9051 2.3.3.
    pub internal_date: UnixMillis,
    /// Envelope, part tree, preview: made by the crate `mime`, opaque here, a versioned cache. Empty when it would be
    /// larger than [`core_types::limits::STRUCTURE_BYTES_MAX`]; it is then made from the blob when asked for.
    #[serde(with = "serde_bytes")]
    pub structure: Vec<u8>,
}

/// One mailbox that a message goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryTarget {
    /// The account.
    pub account: AccountId,
    /// The entry's GUID, made at the end of data: the same GUID is delivered once, however often it is asked for.
    pub guid: MessageGuid,
    /// The mailbox; `None` for INBOX.
    pub mailbox: Option<MailboxGuid>,
    /// Its first flags.
    pub flags: Flags,
}

/// Which replicas hold a blob durably, as its maker knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipts {
    /// Under which incarnation of the group the blob was put.
    pub incarnation: Incarnation,
    /// The log index of the membership that the putter saw. Another one at the leader: `StaleMembership`.
    pub membership_index: u64,
    /// The voters that made it durable.
    pub nodes: Vec<NodeId>,
    /// The voters that refused or did not answer within [`core_types::limits::BLOB_PUT_TIMEOUT`], this put or one shortly before
    /// it.
    pub skipped: Vec<NodeId>,
}

impl Receipts {
    /// Of a group with so many voters this many have to hold a blob, whatever the others do: never fewer than two, where there
    /// are two. Two voters commit nothing without each other, so that this refuses nothing that could be acknowledged.
    #[must_use]
    pub const fn copies_least(voters: usize) -> usize {
        if voters >= 2 { 2 } else { 1 }
    }
}

/// What can be asked of the directory group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryOp {
    /// The first entry of a cluster's life.
    FoundCluster {
        /// 128 random bits.
        cluster: u128,
        /// The certificate authority's certificate (DER).
        #[serde(with = "serde_bytes")]
        ca_certificate: Vec<u8>,
        /// Its private key (PKCS#8 DER); whoever has the directory can certify nodes.
        #[serde(with = "serde_bytes")]
        ca_key: Vec<u8>,
        /// The first site.
        site: SiteId,
        /// The site's name.
        site_name: String,
        /// How many mailbox groups the site gets; their ids are 1 to this number.
        mailbox_groups: u32,
    },
    /// Announces a node that may join with a token.
    AddJoinToken {
        /// The public key that the token's secret gives (Ed25519, 32 octets).
        token_key: [u8; 32],
        /// The site that the node joins.
        site: SiteId,
        /// The name that the node will have.
        name: String,
        /// Until when the token is good.
        expires: UnixMillis,
    },
    /// Spends a token: gives the next node id to the key that came with it. The same key again gets the same answer,
    /// another is refused.
    JoinNode {
        /// The token's public key.
        token_key: [u8; 32],
        /// The node's own public key (Ed25519).
        node_key: [u8; 32],
        /// Where its cluster port is reached, `host:port`.
        address: String,
    },
    /// Adds the first node, without a token. Only while there is none.
    AddFirstNode {
        /// The site.
        site: SiteId,
        /// Its name.
        name: String,
        /// Its public key (Ed25519).
        node_key: [u8; 32],
        /// Where its cluster port is reached, `host:port`.
        address: String,
    },
    /// A node's cluster port is reached elsewhere now.
    SetNodeAddress {
        /// The node.
        node: NodeId,
        /// `host:port`
        address: String,
    },
    /// Sets which nodes hold replicas of a group; the group's leader brings its membership there.
    SetPlacement {
        /// The group.
        group: GroupId,
        /// Those that vote.
        voters: Vec<NodeId>,
        /// Those that only follow.
        learners: Vec<NodeId>,
    },
    /// Adds a domain of ours.
    AddDomain {
        /// The domain.
        domain: Domain,
    },
    /// Removes a domain. Refused while an account or alias is in it.
    RemoveDomain {
        /// The domain.
        domain: Domain,
    },
    /// Adds an account; its mailboxes are made in its group afterwards.
    AddAccount {
        /// Its id.
        account: AccountId,
        /// Its address, which is also its login name.
        address: Address,
        /// The mailbox group it lives in; `None`: the one of the first site with the fewest accounts.
        group: Option<GroupId>,
        /// How it logs in.
        credential: Credential,
        /// Octets it may keep; `None` for no limit.
        quota_bytes: Option<u64>,
    },
    /// The account's mailboxes are there: from now on it takes mail and logs in.
    ActivateAccount {
        /// The account.
        account: AccountId,
    },
    /// Sets how an account logs in.
    SetCredential {
        /// The account.
        account: AccountId,
        /// The new credential.
        credential: Credential,
    },
    /// Removes an account's entry: it takes no mail and does not log in from now on.
    RemoveAccount {
        /// The account.
        account: AccountId,
    },
    /// Sets an alias: mail to `address` goes to all targets.
    SetAlias {
        /// The alias; no account has it.
        address: Address,
        /// Where its mail goes, at least one.
        targets: Vec<Address>,
    },
    /// Removes an alias.
    RemoveAlias {
        /// The alias.
        address: Address,
    },
    /// Sets or (with `None`) clears a cluster-wide setting.
    SetSetting {
        /// Its name.
        name: String,
        /// Its value.
        value: Option<String>,
    },
    /// Says what a node's replicas are for. Refused when too few other nodes could take its places, unless forced.
    SetNodeDuty {
        /// The node.
        node: NodeId,
        /// Its duty from now on.
        duty: NodeDuty,
    },
    /// Removes a node: its certificate is refused from now on, and its id never used again. Refused while it is to vote
    /// anywhere, or is not leaving; when forced, only where it is the last voter.
    RemoveNode {
        /// The node.
        node: NodeId,
        /// Remove it from the groups in which it votes, too.
        forced: bool,
    },
    /// [`DirectoryOp::SetPlacement`], if the voters that are to be are still these.
    ChangePlacement {
        /// The group.
        group: GroupId,
        /// Those that were to vote when the plan was made.
        expected: Vec<NodeId>,
        /// Those that are to vote.
        voters: Vec<NodeId>,
        /// Those that are only to follow.
        learners: Vec<NodeId>,
    },
    /// Has a voter give its place to another node, by an administrator's wish: the group is pinned.
    MoveVoter {
        /// The group.
        group: GroupId,
        /// It votes, and is only to follow.
        from: NodeId,
        /// It is to vote.
        to: NodeId,
    },
    /// Says whether a group stays where it is while the others are spread evenly.
    PinGroup {
        /// The group.
        group: GroupId,
        /// Whether it stays.
        pinned: bool,
    },
}
