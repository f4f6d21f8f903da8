//! Idle IMAP sessions: opened, put into IDLE, held, and asked at the end whether they still live.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::imap::Imap;
use crate::target::{Target, pick};

/// What became of the sessions.
#[derive(Debug, Default)]
pub(crate) struct IdleOutcome {
    pub(crate) connections: u32,
    pub(crate) open: u32,
    pub(crate) alive: u32,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) opening: Duration,
    pub(crate) held: Duration,
}

/// Opens this many sessions and holds them for a time.
pub(crate) async fn run(target: &Target, connections: u32, hold: Duration) -> Result<IdleOutcome, String> {
    let mut outcome = IdleOutcome {
        connections,
        held: hold,
        ..IdleOutcome::default()
    };
    let slots = Arc::new(Semaphore::new(OPENING_AT_ONCE));
    let begin = Instant::now();
    let mut opening = JoinSet::new();
    for number in 0..connections {
        let endpoint = pick(&target.imap, number)
            .ok_or("no IMAP address: give --imap or --quickstart")?
            .clone();
        // Neighbours share a source address, so the accounts have to go round faster than the addresses do.
        let account = target.account(number)?.clone();
        let slots = Arc::clone(&slots);
        opening.spawn(async move {
            let _slot = slots.acquire().await.map_err(|error| error.to_string())?;
            let mut imap = Imap::open(&endpoint, number, &account).await?;
            imap.select("INBOX").await?;
            let tag = imap.idle().await?;
            Ok::<_, String>((imap, tag))
        });
    }
    let mut sessions = Vec::new();
    while let Some(joined) = opening.join_next().await {
        match joined.map_err(|error| error.to_string()).and_then(|opened| opened) {
            Ok(session) => sessions.push(session),
            Err(error) => {
                outcome.errors = outcome.errors.saturating_add(1);
                outcome.first_error.get_or_insert(error);
            }
        }
    }
    outcome.opening = begin.elapsed();
    outcome.open = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
    tokio::time::sleep(hold).await;
    let mut ending = JoinSet::new();
    for (mut imap, tag) in sessions {
        ending.spawn(async move { imap.done(&tag).await });
    }
    while let Some(joined) = ending.join_next().await {
        match joined.map_err(|error| error.to_string()).and_then(|ended| ended) {
            Ok(()) => outcome.alive = outcome.alive.saturating_add(1),
            Err(error) => {
                outcome.errors = outcome.errors.saturating_add(1);
                outcome.first_error.get_or_insert(error);
            }
        }
    }
    Ok(outcome)
}

const OPENING_AT_ONCE: usize = 32;
