//! Arbitrary octets as an IMAP connection; what must hold is in `imap_proto::fuzzing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| imap_proto::fuzzing::fuzz_commands(data));
