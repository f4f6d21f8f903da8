//! What comes of a command, for its maker ([`Outcome`]) and for everybody who watches ([`Effect`]).

use core_types::{AccountId, BlobId, GroupId, MailboxGuid, MessageGuid, ModSeq, NodeId, Uid, UidValidity};
use serde::{Deserialize, Serialize};

/// What came of a command. Kept with the [`core_types::OpId`] until it is settled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done; there is nothing more to say.
    Done,
    /// Not done, and nothing was changed.
    Refused(Refusal),
    /// Of `Deliver`: one for each target, in order.
    Delivered(Vec<Result<Placed, Refusal>>),
    /// Of `StoreFlags`.
    Stored {
        /// The mailbox's HIGHESTMODSEQ afterwards.
        highest_modseq: ModSeq,
        /// Messages that `unchanged_since` left out.
        modified: Vec<Uid>,
        /// Messages that are not in the mailbox.
        missing: Vec<MessageGuid>,
    },
    /// Of `Copy` and `Move`.
    Copied {
        /// The target's UIDVALIDITY.
        uid_validity: UidValidity,
        /// Source UID and target UID of each message, in the order of the target UIDs. Messages that had left the source
        /// are not among them.
        uids: Vec<(Uid, Uid)>,
        /// The source's HIGHESTMODSEQ afterwards.
        source_modseq: ModSeq,
    },
    /// Of `Expunge`.
    Expunged {
        /// What was removed.
        uids: Vec<Uid>,
        /// The mailbox's HIGHESTMODSEQ afterwards.
        highest_modseq: ModSeq,
    },
    /// Of `CreateMailbox`, and of `RenameMailbox` with INBOX.
    MailboxCreated {
        /// The mailbox.
        mailbox: MailboxGuid,
        /// Its UIDVALIDITY.
        uid_validity: UidValidity,
    },
    /// Of `JoinNode` and `AddFirstNode`.
    NodeAdded {
        /// The id that the node got.
        node: NodeId,
    },
    /// Of `AddAccount`.
    AccountAdded {
        /// The group it lives in.
        group: GroupId,
    },
    /// Of `Prune`.
    Pruned {
        /// Rows that went.
        rows: u32,
        /// Whether there is more.
        more: bool,
    },
}

/// Where a delivered message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// The mailbox it went to.
    pub mailbox: MailboxGuid,
    /// Its UIDVALIDITY.
    pub uid_validity: UidValidity,
    /// Its UID there.
    pub uid: Uid,
    /// The mailbox's HIGHESTMODSEQ after it.
    pub modseq: ModSeq,
    /// It had been delivered before, by the same GUID; nothing was added.
    pub repeated: bool,
}

/// Why a command was not done. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The account is not in this group (any more).
    #[error("no such account")]
    NoSuchAccount,
    /// There is no such mailbox (any more).
    #[error("no such mailbox")]
    NoSuchMailbox,
    /// The name, address or id is taken.
    #[error("already exists")]
    AlreadyExists,
    /// No such object (domain, alias, node, token, entry).
    #[error("no such object: {0}")]
    NoSuchObject(String),
    /// INBOX cannot be deleted.
    #[error("INBOX cannot be deleted")]
    InboxStays,
    /// A mailbox cannot be moved below itself.
    #[error("a mailbox cannot be renamed to below itself")]
    IntoItself,
    /// A new name would break the rules for names (too long, too deep).
    #[error("a mailbox name would break a limit: {0}")]
    BadName(String),
    /// The account is full.
    #[error("over quota")]
    OverQuota,
    /// A limit of [`core_types::limits`] would be passed; its name.
    #[error("limit reached: {0}")]
    Limit(String),
    /// The object is still in use; by what.
    #[error("in use: {0}")]
    InUse(String),
    /// The token is spent, expired or unknown.
    #[error("the token is spent, expired or unknown")]
    BadToken,
    /// The same op id came with another content: a defect of its maker.
    #[error("the same op id came with other content")]
    OpIdReused,
    /// The op's memory is gone: it was declared settled before.
    #[error("the op was declared settled before")]
    AlreadySettled,
    /// The op does not belong into this kind of group, or its values do not fit together.
    #[error("invalid op: {0}")]
    Invalid(String),
}

/// What changed, for those who watch. Not part of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A mailbox changed: messages, flags, or its name; or it is gone.
    Mailbox {
        /// Whose.
        account: AccountId,
        /// Which.
        mailbox: MailboxGuid,
        /// Its HIGHESTMODSEQ now.
        highest_modseq: ModSeq,
    },
    /// The account's list of mailboxes or subscriptions changed.
    MailboxList {
        /// Whose.
        account: AccountId,
    },
    /// A blob is referred to by this group, and was not before.
    BlobAdded {
        /// The blob.
        blob: BlobId,
        /// Who is said to hold it.
        holders: Vec<NodeId>,
    },
    /// No row of this group refers to the blob any more.
    BlobReleased(BlobId),
    /// A message for the manifest.
    Manifest(ManifestEntry),
    /// Something of the queue changed.
    Queue,
    /// Something of the directory changed.
    Directory,
    /// The state was replaced as a whole, by another replica's: whoever watches looks at everything anew. No command has it.
    Replaced,
}

/// One line of a group's plain-text manifest, from which mailboxes can be rebuilt when everything else is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// See [`crate::manifest`].
    pub line: String,
}
