//! The SMTP, submission and LMTP server over the mail store.
//!
//! [`serve`] carries out what [`smtp_proto::Machine`] says on one connection, and answers its questions from the
//! directory and the mail store. One function (`finish_data`) writes the 250 after a message; nothing else can
//! say that mail was taken.
//!
//! Not here: the grammar and the order of commands (crate `smtp_proto`), sockets (crate `wire`), retries (crate `queue`),
//! sending to other servers.

mod finish;
mod header;
mod message;
mod policy;
mod session;

pub use session::{BUSY, Context, serve};
pub use smtp_proto::Role;
