//! The keys of the states: where each row stands.
//!
//! Keys are logical: the crate `raft` puts the group and its incarnation in front of them and keeps its own rows beside
//! them. Each begins with a byte that names its space; numbers are big-endian, so that the order of the bytes is the
//! order of the values; at most the last part has a variable length.
//!
//! | space | key behind it | row |
//! | --- | --- | --- |
//! | 01 | | [`crate::rows::GroupMetaRow`] |
//! | 02 | | the group's digest, [`crate::digest::Digest`]; the only row it does not cover |
//! | 03 | slot (1) | the replica that holds the slot, a node id |
//! | 04 | node (8) | [`crate::rows::ReplicaRow`] |
//! | 05 | node (8) boot (16) | [`crate::rows::OpWindowRow`] |
//! | 06 | node (8) boot (16) seq (8) | [`crate::rows::OpRow`] |
//! | 10 | account (16) | [`crate::rows::AccountRow`] |
//! | 11 | mailbox (16) | [`crate::rows::MailboxRow`] |
//! | 12 | account (16) name | the GUID of the mailbox of that name |
//! | 13 | account (16) name | a subscription |
//! | 14 | mailbox (16) uid (4) | [`crate::rows::MessageRow`] |
//! | 15 | mailbox (16) modseq (8) uid (4) | [`crate::rows::ChangeRow`]: what changed last at that MODSEQ |
//! | 16 | account (16) message (16) | [`crate::rows::GuidRow`]: where a message is, or that it was here |
//! | 17 | account (16) message (16) | [`crate::rows::RetainedRow`] |
//! | 18 | mailbox (16) | [`crate::rows::DeletedMailboxRow`]; its messages still stand in 14, 15 and 16 |
//! | 19 | blob (32) | how many rows of 14, 17 and 1B refer to the blob |
//! | 1A | blob (32) | the message's structure, for as long as the blob is referred to |
//! | 1B | queue id (16) | [`crate::rows::QueueEntry`] |
//! | 1C | due (8) queue id (16) | an entry that is not held, by when it is due |
//! | 1D | queue id (16) | an entry that was here |
//! | 1E | due (8) kind (1) and what it names | what `Prune` lets go of, and when: [`crate::rows::Doomed`] |
//! | 40 | | [`crate::rows::ClusterRow`] |
//! | 41 | site (2) | [`crate::rows::SiteRow`] |
//! | 42 | node (8) | [`crate::rows::NodeRow`] |
//! | 43 | group (4) | [`crate::rows::GroupRow`] |
//! | 44 | domain | [`crate::rows::DomainRow`] |
//! | 45 | account (16) | [`crate::rows::DirectoryAccountRow`] |
//! | 46 | domain 00 local part, folded | the account of that address |
//! | 47 | domain 00 local part, folded | [`crate::rows::AliasRow`] |
//! | 48 | token key (32) | [`crate::rows::JoinTokenRow`] |
//! | 49 | name | a setting's value |
//! | 4A | node (8) | [`crate::rows::NodeDuty`], where it is another than [`crate::rows::NodeDuty::Active`] |
//! | 4B | node (8) | [`crate::rows::RemovedNodeRow`] |
//! | 4C | group (4) | the group was placed by hand: a group id |
//!
//! Not here: what is in the rows ([`crate::rows`]).

use core_types::kv::prefix_end;
use core_types::{
    AccountId, Address, BlobId, Domain, GroupId, MailboxGuid, MailboxName, MessageGuid, ModSeq, NodeId, OpId, QueueId,
    SiteId, Slot, Uid, UnixMillis,
};

/// The spaces. See the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Space {
    Meta = 0x01,
    Digest = 0x02,
    Slot = 0x03,
    Replica = 0x04,
    OpWindow = 0x05,
    Op = 0x06,
    Account = 0x10,
    Mailbox = 0x11,
    MailboxName = 0x12,
    Subscription = 0x13,
    Message = 0x14,
    Change = 0x15,
    Guid = 0x16,
    Retained = 0x17,
    DeletedMailbox = 0x18,
    Blob = 0x19,
    Structure = 0x1A,
    Queue = 0x1B,
    QueueDue = 0x1C,
    QueueGone = 0x1D,
    Prune = 0x1E,
    Cluster = 0x40,
    Site = 0x41,
    Node = 0x42,
    Group = 0x43,
    Domain = 0x44,
    DirectoryAccount = 0x45,
    Address = 0x46,
    Alias = 0x47,
    JoinToken = 0x48,
    Setting = 0x49,
    NodeDuty = 0x4A,
    RemovedNode = 0x4B,
    Pinned = 0x4C,
}

impl Space {
    /// A key of this space from its parts.
    pub(crate) fn key(self, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
        key.push(self as u8);
        parts.iter().for_each(|part| key.extend_from_slice(part));
        key
    }

    /// All keys of this space that begin with these parts: from the first to the second, exclusively.
    pub(crate) fn range(self, parts: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        let from = self.key(parts);
        // No space is 0xFF, so every prefix has an end.
        let to = prefix_end(&from).unwrap_or_default();
        (from, to)
    }
}

pub(crate) fn meta() -> Vec<u8> {
    Space::Meta.key(&[])
}

pub(crate) fn digest() -> Vec<u8> {
    Space::Digest.key(&[])
}

pub(crate) fn slot(slot: Slot) -> Vec<u8> {
    Space::Slot.key(&[&[slot.0]])
}

pub(crate) fn replica(node: NodeId) -> Vec<u8> {
    Space::Replica.key(&[&node.0.to_be_bytes()])
}

pub(crate) fn op_window(id: OpId) -> Vec<u8> {
    Space::OpWindow.key(&[&id.node.0.to_be_bytes(), &id.boot.to_be_bytes()])
}

pub(crate) fn op(id: OpId) -> Vec<u8> {
    Space::Op.key(&[&id.node.0.to_be_bytes(), &id.boot.to_be_bytes(), &id.seq.to_be_bytes()])
}

pub(crate) fn account(account: AccountId) -> Vec<u8> {
    Space::Account.key(&[&account.0])
}

pub(crate) fn mailbox(mailbox: MailboxGuid) -> Vec<u8> {
    Space::Mailbox.key(&[&mailbox.0])
}

pub(crate) fn mailbox_name(account: AccountId, name: &MailboxName) -> Vec<u8> {
    Space::MailboxName.key(&[&account.0, name.as_str().as_bytes()])
}

pub(crate) fn subscription(account: AccountId, name: &MailboxName) -> Vec<u8> {
    Space::Subscription.key(&[&account.0, name.as_str().as_bytes()])
}

pub(crate) fn message(mailbox: MailboxGuid, uid: Uid) -> Vec<u8> {
    Space::Message.key(&[&mailbox.0, &uid.0.to_be_bytes()])
}

pub(crate) fn change(mailbox: MailboxGuid, modseq: ModSeq, uid: Uid) -> Vec<u8> {
    Space::Change.key(&[&mailbox.0, &modseq.0.to_be_bytes(), &uid.0.to_be_bytes()])
}

pub(crate) fn guid(account: AccountId, message: MessageGuid) -> Vec<u8> {
    Space::Guid.key(&[&account.0, &message.0])
}

pub(crate) fn retained(account: AccountId, message: MessageGuid) -> Vec<u8> {
    Space::Retained.key(&[&account.0, &message.0])
}

pub(crate) fn deleted_mailbox(mailbox: MailboxGuid) -> Vec<u8> {
    Space::DeletedMailbox.key(&[&mailbox.0])
}

pub(crate) fn blob(blob: BlobId) -> Vec<u8> {
    Space::Blob.key(&[&blob.0])
}

pub(crate) fn structure(blob: BlobId) -> Vec<u8> {
    Space::Structure.key(&[&blob.0])
}

pub(crate) fn queue(entry: QueueId) -> Vec<u8> {
    Space::Queue.key(&[&entry.0])
}

pub(crate) fn queue_due(due: UnixMillis, entry: QueueId) -> Vec<u8> {
    Space::QueueDue.key(&[&due.0.to_be_bytes(), &entry.0])
}

pub(crate) fn queue_gone(entry: QueueId) -> Vec<u8> {
    Space::QueueGone.key(&[&entry.0])
}

/// `kind` and `name` keep apart what is due at the same time.
pub(crate) fn prune(due: UnixMillis, kind: u8, name: &[u8]) -> Vec<u8> {
    Space::Prune.key(&[&due.0.to_be_bytes(), &[kind], name])
}

pub(crate) fn cluster() -> Vec<u8> {
    Space::Cluster.key(&[])
}

pub(crate) fn site(site: SiteId) -> Vec<u8> {
    Space::Site.key(&[&site.0.to_be_bytes()])
}

pub(crate) fn node(node: NodeId) -> Vec<u8> {
    Space::Node.key(&[&node.0.to_be_bytes()])
}

pub(crate) fn group(group: GroupId) -> Vec<u8> {
    Space::Group.key(&[&group.0.to_be_bytes()])
}

pub(crate) fn domain(domain: &Domain) -> Vec<u8> {
    Space::Domain.key(&[domain.as_str().as_bytes()])
}

pub(crate) fn directory_account(account: AccountId) -> Vec<u8> {
    Space::DirectoryAccount.key(&[&account.0])
}

/// The account or alias of an address, whatever its case. No domain holds a NUL, so no two addresses have one key.
pub(crate) fn by_address(space: Space, address: &Address) -> Vec<u8> {
    space.key(&[
        address.domain.as_str().as_bytes(),
        &[0],
        address.local_part.folded().as_bytes(),
    ])
}

pub(crate) fn join_token(token_key: &[u8; 32]) -> Vec<u8> {
    Space::JoinToken.key(&[token_key])
}

pub(crate) fn setting(name: &str) -> Vec<u8> {
    Space::Setting.key(&[name.as_bytes()])
}

pub(crate) fn node_duty(node: NodeId) -> Vec<u8> {
    Space::NodeDuty.key(&[&node.0.to_be_bytes()])
}

pub(crate) fn removed_node(node: NodeId) -> Vec<u8> {
    Space::RemovedNode.key(&[&node.0.to_be_bytes()])
}

pub(crate) fn pinned(group: GroupId) -> Vec<u8> {
    Space::Pinned.key(&[&group.0.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_keys_is_the_order_of_values() {
        let mailbox = MailboxGuid([7; 16]);
        assert!(message(mailbox, Uid(255)) < message(mailbox, Uid(256)));
        assert!(change(mailbox, ModSeq(1), Uid(9)) < change(mailbox, ModSeq(2), Uid(1)));
        assert!(queue_due(UnixMillis(255), QueueId([9; 16])) < queue_due(UnixMillis(256), QueueId([0; 16])));
    }

    #[test]
    fn addresses_are_one_key_in_every_case_and_never_anothers() {
        let key = |text: &str| by_address(Space::Address, &Address::parse(text).unwrap());
        assert_eq!(key("Ann@Our.example"), key("ann@our.example"));
        assert_ne!(key("ann@our.example"), key("ann@our.example.org"));
    }

    #[test]
    fn a_range_holds_its_prefix_and_nothing_else() {
        let (from, to) = Space::Message.range(&[&[0xFF; 16]]);
        assert!(from <= message(MailboxGuid([0xFF; 16]), Uid(u32::MAX)));
        assert!(to > message(MailboxGuid([0xFF; 16]), Uid(u32::MAX)));
        assert_eq!(to, vec![Space::Change as u8]);
    }
}
