//! The IMAP server: sessions over the mail store.
