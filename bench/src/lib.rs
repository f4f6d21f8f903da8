//! The load generator: rates and latencies of any mail server, by host and port.
