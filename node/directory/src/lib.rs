//! Accounts, aliases and credentials as the front ends see them: look-up, argon2id, login cache, throttle.
