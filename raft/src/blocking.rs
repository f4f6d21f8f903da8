//! Awaiting work of the [`BlockingPool`].

use core_types::{BlockingPool, DiskError, DiskErrorKind};
use tokio::sync::oneshot;

/// Runs a job that makes disk calls and waits for what it gives.
///
/// # Errors
/// Those of the job; `Other` when the pool dropped it (it panicked, or the process ends).
pub(crate) async fn run<T: Send + 'static>(
    pool: &dyn BlockingPool,
    job: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    let (sender, receiver) = oneshot::channel();
    pool.execute(Box::new(move || {
        // Whoever waited may have gone; the work is done all the same.
        let _ = sender.send(job());
    }));
    receiver.await.unwrap_or_else(|_| {
        Err(DiskError::new(
            DiskErrorKind::Other,
            "",
            "the job was dropped before it ended",
        ))
    })
}
