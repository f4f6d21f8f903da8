//! POP3 sessions: `cargo fuzz run -s none pop3_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| pop3::proto::fuzzing::fuzz_session(data));
