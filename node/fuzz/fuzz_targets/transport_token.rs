//! Join tokens: `cargo fuzz run -s none transport_token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| transport::fuzzing::token(data));
