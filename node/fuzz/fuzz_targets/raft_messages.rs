//! Requests and answers between replicas, and entries of the log: `cargo fuzz run -s none raft_messages`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raft::fuzzing::messages(data));
