//! QUIC between nodes: identity, mutual TLS 1.3, join tokens, and requests by class.
//!
//! Knows peers and frames, not what they mean. One connection per pair of nodes; each request is a stream of its own
//! with its class's priority, so that a large blob never delays a heartbeat. A request may take one hop through another
//! node when the direct way is cut.
//!
//! Not here: Raft, blobs, mail; the list of members (asked through [`Peers`]); sockets' creation (handed in by `node`).

mod accept;
mod dial;
mod endpoint;
pub mod frame;
pub mod fuzzing;
pub mod identity;
mod join;
mod link;
mod peer;
mod peers;
mod refusals;
pub mod rpc;
mod serve;
#[cfg(test)]
mod testing;
mod tls;
pub mod token;
mod transport;

pub use endpoint::{Socket, Tuning};
pub use identity::{Authority, IdentityError, NodeIdentity, NodeKey, Validity};
pub use join::{JoinError, Joiner, join};
pub use peers::{JoinService, Peers, Resolver, SystemResolver};
pub use rpc::{CallError, Class, Refused, Rpc, Service, ServiceId};
pub use token::{JoinToken, TokenError};
pub use transport::{Config, PeerStatus, StartError, Transport};
