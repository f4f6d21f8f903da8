//! SMTP, submission and LMTP sessions: `cargo fuzz run -s none smtp_session`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| smtp_proto::fuzzing::fuzz_session(data));
