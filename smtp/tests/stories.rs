//! Sessions over the real mail store, told in the words that go over the wire.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]

#[path = "stories/abuse.rs"]
mod abuse;
#[path = "stories/delivery.rs"]
mod delivery;
#[path = "stories/lmtp.rs"]
mod lmtp;
#[path = "stories/submission.rs"]
mod submission;
#[path = "stories/support.rs"]
mod support;
#[path = "stories/tls.rs"]
mod tls;
