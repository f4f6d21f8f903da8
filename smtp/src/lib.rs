//! The SMTP, submission and LMTP server over the mail store.
