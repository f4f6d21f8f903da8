//! What openraft is told of our types. Nothing in this file leaves the crate.
//!
//! A log entry's data is an *encoded* command ([`EncodedCommand`]): it is encoded once, where it is proposed, and goes through
//! the network and the log as it is. A replica whose program is too old to decode it therefore still stores and votes for it
//! correctly, and stops when it would have to apply it.

#![allow(deprecated)] // openraft::TokioRuntime: the successor is another crate, which would only be a second pin.

use std::fmt;

use bytes::Bytes;
use core_types::codec::{self, CodecError};
use core_types::limits;
use openraft::type_config::alias;
use serde::{Deserialize, Serialize};
use state::{Command, Outcome};

openraft::declare_raft_types!(
    /// Our choice of openraft's types.
    pub(crate) TypeConfig:
        D = EncodedCommand,
        R = Applied,
        NodeId = u64,
        Node = openraft::EmptyNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = openraft::TokioRuntime,
);

pub(crate) type Entry = alias::EntryOf<TypeConfig>;
pub(crate) type LogId = alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = alias::VoteOf<TypeConfig>;
pub(crate) type StoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;

/// A log id of a term.
#[cfg(test)]
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    use openraft::vote::RaftLeaderId;
    // The node is not part of a committed leader's id: there is one leader per term.
    openraft::LogId::new(
        openraft::impls::leader_id_std::LeaderId { term, voted_for: 0 }.to_committed(),
        index,
    )
}

/// The version of an encoded command in the log and in requests to propose one.
pub(crate) const COMMAND_VERSION: u8 = 1;

/// A command as it stands in the log: its version byte, then its encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EncodedCommand(pub(crate) Bytes);

impl EncodedCommand {
    /// # Errors
    /// [`CodecError::TooLarge`] above [`limits::ENTRY_BYTES_MAX`].
    pub(crate) fn encode(command: &Command) -> Result<Self, CodecError> {
        codec::encode(COMMAND_VERSION, command, limits::ENTRY_BYTES_MAX).map(|bytes| Self(Bytes::from(bytes)))
    }

    /// # Errors
    /// Any [`CodecError`]; for an operation that this program does not know, `Malformed` or `UnknownVersion`.
    pub(crate) fn decode(&self) -> Result<Command, CodecError> {
        codec::decode(COMMAND_VERSION, &self.0, limits::ENTRY_BYTES_MAX)
    }
}

impl fmt::Display for EncodedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

/// What applying an entry answers: the outcome of a command, nothing for a blank or a membership entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied(pub(crate) Option<Outcome>);

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::{NodeId, OpId, UnixMillis};
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;

    #[test]
    fn an_entry_survives_its_encoding() {
        let command = Command {
            op_id: OpId {
                node: NodeId(1),
                boot: 2,
                seq: 3,
            },
            settled_below: 1,
            time: UnixMillis(5),
            op: state::Op::Group(state::GroupOp::FeatureLevel { level: 1 }),
        };
        let data = EncodedCommand::encode(&command).unwrap();
        assert_eq!(data.decode().unwrap(), command);
        let membership = openraft::Membership::new_with_defaults(vec![[1, 2, 3].into()], [4]);
        for payload in [
            EntryPayload::Normal(data),
            EntryPayload::Blank,
            EntryPayload::Membership(membership),
        ] {
            let entry = Entry::new(log_id(3, 7), payload);
            let bytes = codec::encode(1, &entry, 1 << 20).unwrap();
            assert_eq!(codec::decode::<Entry>(1, &bytes, 1 << 20).unwrap(), entry);
        }
    }
}
