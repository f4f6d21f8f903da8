//! What the transport asks of the rest of the system: who the members are, where they are, and names' addresses.

use std::io;
use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use core_types::NodeId;

use crate::rpc::Refused;

/// The members as the directory knows them. Answers at once, from a snapshot in memory.
pub trait Peers: Send + Sync + 'static {
    /// Where the node's cluster port is reached, `host:port`; `None` when it is no member or nobody knows.
    fn address(&self, node: NodeId) -> Option<String>;

    /// The Ed25519 public key of a member; `None` for everybody else. A certificate of another key is refused.
    fn member_key(&self, node: NodeId) -> Option<[u8; 32]>;

    /// Whether this is the key of a join token that is neither spent nor expired.
    fn is_pending_token(&self, key: &[u8; 32]) -> bool;
}

/// Turns `host:port` into addresses.
#[async_trait]
pub trait Resolver: Send + Sync + 'static {
    /// All addresses of the name, best first.
    ///
    /// # Errors
    /// When the name has none or nobody answers.
    async fn resolve(&self, host_port: &str) -> io::Result<Vec<SocketAddr>>;
}

/// The operating system's resolver; literal addresses need none.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host_port.parse() {
            return Ok(vec![address]);
        }
        let addresses: Vec<SocketAddr> = tokio::net::lookup_host(host_port).await?.take(ADDRESSES_MAX).collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(addresses)
    }
}

/// Answers requests of those who hold a join token.
#[async_trait]
pub trait JoinService: Send + Sync + 'static {
    /// Lets the holder of the token's key join. The token was pending when the handshake was made; that it is spent
    /// once only is decided here, by the directory.
    ///
    /// # Errors
    /// [`Refused`] goes back to the joiner.
    async fn join(&self, token_key: [u8; 32], request: Bytes) -> Result<Bytes, Refused>;
}

const ADDRESSES_MAX: usize = 8;
