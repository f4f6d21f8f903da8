//! The POP3 server machine (RFC 1939): bytes in, actions out; sans-IO.
//!
//! With CAPA, RESP-CODES and PIPELINING (RFC 2449), AUTH-RESP-CODE (RFC 3206), STLS (RFC 2595), AUTH PLAIN (RFC 5034).
//! [`Machine`] is one session: the server hands it what it read and what it decided, and carries out the [`Action`]s in
//! their order. Invariants: whatever a client sends, the machine never panics, holds a bounded number of octets besides
//! the maildrop, asks one question at a time, answers in order, deletes nothing without QUIT, and takes no command from
//! octets that were sent before TLS.
//!
//! Not here: sockets, TLS, time, who may log in, where messages come from. Never offered: APOP, which needs passwords in
//! clear on the server, and UTF8 (RFC 6856).

mod command;
mod encoder;
pub mod fuzzing;
mod line;
mod machine;

pub use encoder::MessageEncoder;
pub use machine::{Action, Config, Entry, Input, Machine, Password, Refusal, Tls, Verdict, uidl};
