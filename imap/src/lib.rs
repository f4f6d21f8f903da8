//! The IMAP4rev1 server (RFC 3501): sessions over the mail store.
//!
//! [`serve`] runs one connection to its end, in one task. What the client sends is read by [`imap_proto`], what it is
//! answered is written by it; this crate decides what a command does.
//!
//! - SELECT, EXAMINE, STATUS, LIST, NOOP, CHECK and the start of IDLE see everything that was acknowledged anywhere before
//!   they began. Other commands see the session's view of its mailbox and its own writes.
//! - What others changed is told at the end of a command, as far as that command allows it, and at once during IDLE. A
//!   change is noted by a counter only, so nothing piles up for a client that does not read.
//! - A body is streamed in pieces of a frame. If its bytes are on no node that can be reached, the command fails with
//!   `NO [UNAVAILABLE]`; a client is never shown an empty body in place of one that exists.
//! - `\Recent` is not replicated. A message is recent if it came since this node last announced the mailbox to a session
//!   that may write, as far as the node remembers: after its start everything is, as RFC 3501 2.3.2 has it for servers
//!   that cannot tell.
//!
//! Not here: the sockets, TLS certificates, what a mailbox is.

mod append;
mod client;
mod copy;
mod dispatch;
mod errors;
mod fetch;
mod idle;
mod list;
mod login;
mod mailboxes;
mod search;
mod select;
mod selected;
mod session;
mod shared;
mod store;

use std::sync::Arc;

use mailstore::MailStore;

/// What the sessions of a node have in common. Clones share everything.
#[derive(Clone)]
pub struct Context {
    mail: MailStore,
    shared: Arc<shared::Shared>,
}

impl Context {
    /// For sessions over this mail store.
    #[must_use]
    pub fn new(mail: MailStore) -> Self {
        Self {
            mail,
            shared: Arc::default(),
        }
    }
}

/// What a client is told for whom there is no room: see [`wire::serve_listener`].
pub const BUSY: &[u8] = b"* BYE [UNAVAILABLE] Too many connections, try again later\r\n";

/// Serves one connection until it ends.
pub async fn serve(connection: wire::Connection, context: Context) {
    let peer = connection.peer;
    let end = session::Session::new(connection, context).run().await;
    tracing::debug!(%peer, %end, "IMAP session over");
}
