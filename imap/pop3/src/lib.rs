//! The POP3 server: protocol machine and sessions over the mail store.
//!
//! [`serve`] runs one connection; [`proto`] decides what is said in it. A maildrop is the INBOX of an account, as it was
//! when the login was answered. Any number of sessions, up to [`core_types::limits::SESSIONS_PER_ACCOUNT_MAX`], may have
//! it open together, and IMAP and delivery go on: RFC 1939 4 asks for an exclusive lock so that numbers stay valid, and
//! here they are valid because a session never looks at the INBOX again. A lock over several nodes would make a crashed
//! phone keep everybody else out. What another session deleted is refused by RETR and counts as deleted at QUIT.
//!
//! Not here: listening, TLS settings, who may log in, storage.

pub mod proto;

mod context;
mod refusal;
mod session;

pub use context::Context;
pub use session::serve;
