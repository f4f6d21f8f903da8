//! IMAP4rev1: command parser, response encoder, session view; sans-IO.
