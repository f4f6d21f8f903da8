//! The admin API on the node's unix socket: requests, answers, checks.
