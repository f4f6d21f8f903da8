//! Messages: `cargo fuzz run -s none mime`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mime::fuzzing::run(data));
