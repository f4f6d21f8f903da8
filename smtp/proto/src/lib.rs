//! SMTP, submission and LMTP server machine: bytes in, actions out; sans-IO.
//!
//! [`Machine`] is one session: the server hands it what it read and what it decided, and carries out the [`Action`]s in
//! their order. Invariants: whatever a client sends, the machine never panics, holds a bounded number of octets, asks
//! one question at a time, and takes no command from octets that belong to a message or were sent before TLS.
//!
//! Not here: sockets, TLS, time, the decision who may send what to whom, storing, the client side (except
//! [`dot`], which tests and the relay client share).

mod command;
mod content;
pub mod dot;
pub mod fuzzing;
mod header;
mod line;
mod machine;
mod parameters;
mod path;
mod reply;

pub use machine::{Action, Config, Input, Machine, Password, Phase, Role, Tls, Verdict};
pub use parameters::{BodyType, Notify, OriginalRecipient, Ret};
pub use path::{ForwardPath, ReversePath};
pub use reply::{Enhanced, Reply};

pub use crate::machine::transaction::{Recipient, Transaction};
