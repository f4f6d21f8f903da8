//! How everything learns that the node stops.

use tokio::sync::watch;

/// Tells when the node stops. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Stops everything that holds a [`Shutdown`] of it. Dropping it does too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// A stopper and what it stops.
    #[must_use]
    pub fn new() -> (Self, Shutdown) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Shutdown(receiver))
    }

    /// Stops.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// One that never comes: for tests.
    #[must_use]
    pub fn never() -> Self {
        let (sender, receiver) = watch::channel(false);
        // The sender is to live as long as the process: a dropped one means stop.
        std::mem::forget(sender);
        Self(receiver)
    }

    /// Waits until the node stops.
    pub async fn stopped(&self) {
        let _ = self.0.clone().wait_for(|stopped| *stopped).await;
    }

    /// Whether the node stops.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}
