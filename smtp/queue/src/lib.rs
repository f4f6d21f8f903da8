//! The queue's worker: retries, back-off, expiry, delivery status notifications.
