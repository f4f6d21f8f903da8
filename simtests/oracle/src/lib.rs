//! The pure parts of the simulation.

pub mod coverage;
pub mod rng;
pub mod schedule;
pub mod time;
