//! The directory group's state: reading it ([`Reader`]) and finding out who gets a message ([`Resolution`]).
//!
//! Not here: verifying passwords, asking the majority before a negative answer.

mod accounts;
pub(crate) mod apply;
mod nodes;
mod reader;
mod resolve;

pub use reader::Reader;
pub use resolve::{POSTMASTER_SETTING, Recipients, Resolution};
