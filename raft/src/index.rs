//! The engines behind [`core_types::KvEngine`]. The one in memory belongs to the crate `state`.

mod sled_engine;

pub use sled_engine::{SetAside, SledEngine};
