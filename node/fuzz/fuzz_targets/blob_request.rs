//! Requests and answers about blobs: `cargo fuzz run -s none blob_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blobstore::fuzzing::request(data));
