//! What stands behind the interfaces of core_types: the real disk, clock, randomness and threads, and a disk that fails on purpose.
