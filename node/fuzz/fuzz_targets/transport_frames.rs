//! Frames and certificates of the transport: `cargo fuzz run -s none transport_frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    transport::fuzzing::frames(data);
    transport::fuzzing::identities(data);
});
