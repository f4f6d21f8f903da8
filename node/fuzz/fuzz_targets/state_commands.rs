//! Commands, applied one after the other, and lines of a manifest: `cargo fuzz run -s none state_commands`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    state::fuzzing::commands(data);
    state::fuzzing::manifest_line(data);
});
