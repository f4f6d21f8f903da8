//! The command line: speaks the admin API and starts nodes.
