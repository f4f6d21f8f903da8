//! The pure parts of the simulation.

pub mod coverage;
pub mod history;
pub mod linear;
pub mod mail;
pub mod mailbox;
#[cfg(test)]
mod naive;
pub mod rng;
pub mod schedule;
pub mod time;
mod violation;

pub use violation::Violation;
