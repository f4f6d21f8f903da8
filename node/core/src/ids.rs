//! Identities. Each is a type of its own, so that none can be taken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident($length:literal)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// Parses the lower-case hexadecimal form that [`fmt::Display`] writes. `None` for anything else.
            #[must_use]
            pub fn parse_hex(text: &str) -> Option<Self> {
                parse_hex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

number_id! {
    /// One `everpost` process with its own data directory and identity. Never used again, not even by a wiped node.
    NodeId(u64)
}
number_id! {
    /// A place with a LAN.
    SiteId(u16)
}
number_id! {
    /// One Raft group. [`GroupId::DIRECTORY`] is the cluster-wide directory group; all others are mailbox groups.
    GroupId(u32)
}
number_id! {
    /// Counts the lives of a group: a forced recovery starts a new one, and the members of an older one are fenced.
    Incarnation(u32)
}
number_id! {
    /// A replica's place in its group, 1 to 31; 0 is the trunk's. Decides which blocks of UIDs its islands may use.
    Slot(u8)
}

bytes_id! {
    /// An account, for ever: a renamed account keeps it.
    AccountId(16)
}
bytes_id! {
    /// One entry of a mailbox. MOVE keeps it, COPY makes a new one.
    MessageGuid(16)
}
bytes_id! {
    /// One mailbox, for ever: RENAME keeps it.
    MailboxGuid(16)
}
bytes_id! {
    /// What copies of one message share (RFC 8474 EMAILID).
    EmailId(16)
}
bytes_id! {
    /// The BLAKE3 hash of a message's bytes.
    BlobId(32)
}
bytes_id! {
    /// One entry of the queue.
    QueueId(16)
}

impl GroupId {
    /// The cluster-wide group of sites, nodes, domains, accounts and settings.
    pub const DIRECTORY: Self = Self(0);
}

impl MessageGuid {
    /// The GUID of a copy: a function of the original's and of a seed that the op carries, since `apply` draws nothing.
    #[must_use]
    pub fn derive(self, seed: &[u8; 16]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"everpost message copy 1");
        hasher.update(seed);
        hasher.update(&self.0);
        let mut guid = [0; 16];
        hasher.finalize_xof().fill(&mut guid);
        Self(guid)
    }
}

impl BlobId {
    /// The name of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// Names one attempt to change a group's state, so that a repeat of it is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpId {
    /// Where the op was made.
    pub node: NodeId,
    /// 128 random bits that this start of the node drew: a node that lost its memory makes no old id again.
    pub boot: u128,
    /// Counts the ops of this boot, from 1.
    pub seq: u64,
}

fn parse_hex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let digits = text.as_bytes();
    if digits.len() != LENGTH * 2 || digits.iter().any(|digit| !matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut bytes = [0; LENGTH];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_everything_else() {
        let id = BlobId::of(b"x");
        assert_eq!(BlobId::parse_hex(&id.to_string()), Some(id));
        for wrong in [
            "",
            "00",
            &id.to_string().to_uppercase(),
            &format!("{id}0"),
            "\u{e9}".repeat(32).as_str(),
        ] {
            assert_eq!(BlobId::parse_hex(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_copy_has_another_guid_and_always_the_same_one() {
        let guid = MessageGuid([7; 16]);
        assert_ne!(guid.derive(&[1; 16]), guid);
        assert_eq!(guid.derive(&[1; 16]), guid.derive(&[1; 16]));
        assert_ne!(guid.derive(&[1; 16]), guid.derive(&[2; 16]));
    }
}
