//! Files of blobs, segments of their journal, lines of manifests: `cargo fuzz run -s none blob_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    blobstore::fuzzing::file(data);
    blobstore::fuzzing::journal(data);
    blobstore::fuzzing::manifest(data);
});
