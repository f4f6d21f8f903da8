//! The streaming MIME scanner: part tree, envelope, preview of a message, with limits; pure.
