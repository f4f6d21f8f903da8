//! The engines behind [`core_types::KvEngine`]. The one in memory belongs to the crate `state`.

mod sled_engine;
#[cfg(test)]
mod sled_pages;
mod verify;

#[cfg(test)]
pub(crate) use sled_engine::reopen;
pub use sled_engine::{SetAside, SledEngine};
