//! Message blobs: BLAKE3 names, zstd frames, blob journal, replicas, repair, scrub, garbage collection.
