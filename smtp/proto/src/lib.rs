//! SMTP, submission and LMTP server machine: bytes in, actions out; sans-IO.
