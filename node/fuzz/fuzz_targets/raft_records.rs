//! Headers, markers and records of the log: `cargo fuzz run -s none raft_records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raft::log::fuzz_records(data));
