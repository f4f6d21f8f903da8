//! Many workers make operations until the time or the count is used up; each operation's latency is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Amount {
    /// For so many seconds.
    Seconds(u64),
    /// So many operations over all workers.
    Count(u64),
}

/// One connection that makes operations.
pub(crate) trait Worker: Send + 'static {
    /// Opens the connection and prepares what the operations need.
    fn open(&mut self) -> impl Future<Output = Result<(), String>> + Send;
    /// One operation.
    fn operate(&mut self) -> impl Future<Output = Result<(), String>> + Send;
    /// Removes what was prepared.
    fn close(&mut self) -> impl Future<Output = Result<(), String>> + Send;
}

/// What was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Microseconds of each operation that succeeded, sorted.
    pub(crate) latencies: Vec<u64>,
    /// Operations and connections that failed.
    pub(crate) errors: u64,
    /// The first failure.
    pub(crate) first_error: Option<String>,
    /// From the first operation to the last.
    pub(crate) elapsed: Duration,
}

impl Outcome {
    /// The latency that this share (0..=100 percent) of the operations did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> u64 {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies
            .get(last.saturating_mul(percent) / 100)
            .copied()
            .unwrap_or(0)
    }

    pub(crate) fn failed(&mut self, error: String) {
        self.errors = self.errors.saturating_add(1);
        self.first_error.get_or_insert(error);
    }
}

/// Runs the workers. Connections are opened before the clock starts.
pub(crate) async fn run<W: Worker>(workers: Vec<W>, amount: Amount) -> Outcome {
    let left = Arc::new(AtomicU64::new(match amount {
        Amount::Seconds(_) => u64::MAX,
        Amount::Count(count) => count,
    }));
    let mut total = Outcome::default();
    let mut opening = JoinSet::new();
    for mut worker in workers {
        opening.spawn(async move { worker.open().await.map(|()| worker) });
    }
    let mut open = Vec::new();
    while let Some(joined) = opening.join_next().await {
        match joined.map_err(|error| error.to_string()).and_then(|opened| opened) {
            Ok(worker) => open.push(worker),
            Err(error) => total.failed(error),
        }
    }
    let begin = Instant::now();
    let deadline = match amount {
        Amount::Seconds(seconds) => Some(begin + Duration::from_secs(seconds)),
        Amount::Count(_) => None,
    };
    let mut running = JoinSet::new();
    for worker in open {
        running.spawn(work(worker, Arc::clone(&left), deadline));
    }
    let mut closing = JoinSet::new();
    while let Some(joined) = running.join_next().await {
        match joined {
            Ok((mut worker, part)) => {
                total.latencies.extend(part.latencies);
                total.errors = total.errors.saturating_add(part.errors);
                total.first_error = total.first_error.or(part.first_error);
                total.elapsed = begin.elapsed();
                closing.spawn(async move { worker.close().await });
            }
            Err(error) => total.failed(error.to_string()),
        }
    }
    // What cannot be cleared away is no part of what was measured.
    while closing.join_next().await.is_some() {}
    total.latencies.sort_unstable();
    total
}

async fn work<W: Worker>(mut worker: W, left: Arc<AtomicU64>, deadline: Option<Instant>) -> (W, Outcome) {
    let mut outcome = Outcome::default();
    let mut in_a_row = 0_u32;
    while in_a_row < ERRORS_IN_A_ROW_MAX {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        if left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_err()
        {
            break;
        }
        let begin = Instant::now();
        match worker.operate().await {
            Ok(()) => {
                in_a_row = 0;
                outcome
                    .latencies
                    .push(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            Err(error) => {
                in_a_row = in_a_row.saturating_add(1);
                outcome.failed(error);
                // The state of the connection is not known any more.
                tokio::time::sleep(RECONNECT_PAUSE).await;
                if let Err(error) = worker.open().await {
                    outcome.failed(error);
                }
            }
        }
    }
    (worker, outcome)
}

const ERRORS_IN_A_ROW_MAX: u32 = 20;
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    struct Failing {
        every: u64,
        done: u64,
    }

    impl Worker for Failing {
        async fn open(&mut self) -> Result<(), String> {
            Ok(())
        }

        async fn operate(&mut self) -> Result<(), String> {
            self.done += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
            if self.done.is_multiple_of(self.every) {
                Err("every so often".to_owned())
            } else {
                Ok(())
            }
        }

        async fn close(&mut self) -> Result<(), String> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_count_is_shared_by_all_workers_and_failures_are_counted() {
        let workers = (0..4).map(|_| Failing { every: 10, done: 0 }).collect();
        let outcome = run(workers, Amount::Count(100)).await;
        assert_eq!(outcome.latencies.len() as u64 + outcome.errors, 100);
        assert!(outcome.errors >= 8, "{}", outcome.errors);
        assert_eq!(outcome.first_error.as_deref(), Some("every so often"));
        assert!(outcome.percentile(50) <= outcome.percentile(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_ends_the_run_and_a_dead_server_ends_it_sooner() {
        let workers = vec![Failing {
            every: u64::MAX,
            done: 0,
        }];
        let outcome = run(workers, Amount::Seconds(2)).await;
        assert!(outcome.elapsed >= Duration::from_secs(2) && outcome.elapsed < Duration::from_secs(3));
        let outcome = run(vec![Failing { every: 1, done: 0 }], Amount::Seconds(3600)).await;
        assert_eq!(
            (outcome.errors, outcome.latencies.len()),
            (u64::from(ERRORS_IN_A_ROW_MAX), 0)
        );
    }
}
