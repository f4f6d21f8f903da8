//! The admin API: what the command line asks a node, over HTTP on the unix socket in its data directory.
//!
//! The socket's permissions are the authority: whoever may open it is the node's administrator. Every answer is JSON; its
//! shapes ([`api`]) are documented and tested. Health is a list of coded checks, each with one sentence that says what to
//! do.
//!
//! Not here: a way around `mailstore` and `directory`; HTTPS and tokens for remote administration.

pub mod api;
mod error;
mod handlers;
mod nodes;
mod server;

pub use error::{AdminError, Kind};
pub use server::{Node, serve};
