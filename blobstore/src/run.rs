//! Blocking work off the async threads.

use std::sync::Arc;

use core_types::BlockingPool;
use tokio::sync::oneshot;

use crate::error::BlobError;

/// Runs a job on the pool and waits for its result. A caller that stops waiting does not stop the job.
///
/// # Errors
/// [`BlobError::Closed`] when the pool dropped the job.
pub async fn run<T: Send + 'static>(
    pool: &Arc<dyn BlockingPool>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BlobError> {
    let (sender, receiver) = oneshot::channel();
    pool.execute(Box::new(move || {
        // Nobody waits any more: the job's own effects are all that it was for.
        let _ = sender.send(job());
    }));
    receiver.await.map_err(|_| BlobError::Closed)
}
