//! The protocol-independent mailbox interface: deliver, append, store, copy, move, expunge, search, changes.
