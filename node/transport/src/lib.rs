//! QUIC between nodes: identity, mutual TLS 1.3, join tokens, and requests by class.
//!
//! Knows peers and frames, not what they mean. One connection per pair of nodes; each request is a stream of its own
//! with its class's priority, so that a large blob never delays a heartbeat. A request may take one hop through another
//! node when the direct way is cut.
//!
//! Not here: Raft, blobs, mail; the list of members (asked through [`Peers`]); sockets' creation (handed in by `node`).

pub mod rpc;

pub use rpc::{CallError, Class, Refused, Rpc, Service, ServiceId};
