//! The POP3 server: protocol machine and sessions over the mail store.

pub mod proto;
