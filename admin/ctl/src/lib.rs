//! The command line of `everpost`: what a person types, and what they get to see.
//!
//! Commands that ask a node go over its admin API ([`client`]); those that start nodes or work on a stopped node's data
//! are handed back to the binary as [`Local`].
//!
//! Not here: what a command does; that is the admin API's and the crate `node`'s.

pub mod cli;
pub mod client;
pub mod exit;
pub mod output;

mod ask;

pub use cli::{Cli, Local};
pub use exit::{Exit, Failure};

/// Carries out a command that asks a node. A command that is not of that kind is handed back.
///
/// # Errors
/// [`Failure`], with the exit code.
pub async fn run(cli: Cli) -> Result<Option<Local>, Failure> {
    ask::run(cli).await
}
