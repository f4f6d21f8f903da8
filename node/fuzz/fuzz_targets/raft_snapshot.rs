//! Files of snapshots: `cargo fuzz run -s none raft_snapshot`.
#![no_main]

use core_types::Disk;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let disk = platform::FaultyDisk::new();
    let Ok(file) = disk.open("snapshot", core_types::OpenMode::CreateNew) else {
        return;
    };
    if file.write_at(0, data).is_ok() {
        raft::fuzzing::snapshot(file);
    }
});
