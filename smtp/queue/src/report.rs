//! Sends reports to senders: into their mailbox here, or, for those elsewhere, into the queue, held.
//!
//! Invariant: nothing is ever reported to the null reverse-path, and a report has it itself, so that no report makes
//! another (RFC 5321 4.5.5). A crash between the report and the entry's change makes a second report, never none.

use core_types::limits::{QUEUE_RETURN_BYTES_MAX, QUEUE_RETURN_HEADER_BYTES_MAX};
use directory::Recipient;
use mailstore::{DeliverTo, EnvelopeFrom, Ingested, StoreError};
use state::rows::QueueEntry;

use crate::dsn::{Reported, Returned, StatusReport};
use crate::worker::Worker;

/// Why a report to a sender elsewhere is held.
const NO_RELAY_YET: &str = "waits until mail can be relayed";

/// Sends one report about these recipients to the entry's sender, if it has one. Durable when it returns `Ok`.
pub(crate) async fn send(worker: &Worker, entry: &QueueEntry, recipients: &[Reported<'_>]) -> Result<(), StoreError> {
    let Some(sender) = entry.reverse_path.as_ref().filter(|_| !recipients.is_empty()) else {
        return Ok(());
    };
    let store = &worker.store;
    let (accounts, elsewhere) = match store.directory().recipient(sender).await {
        Ok(Recipient::Known { accounts, foreign }) => (accounts, foreign),
        Ok(Recipient::NotLocal) => (Vec::new(), vec![sender.clone()]),
        Ok(Recipient::Unknown | Recipient::TooMany) => {
            tracing::warn!(entry = %entry.id, "the sender does not exist: no report");
            return Ok(());
        }
        Err(error) => return Err(StoreError::Unavailable(error.to_string())),
    };
    let message = write(worker, entry, recipients).await?;
    let from = EnvelopeFrom {
        smtputf8: entry.smtputf8,
        ..EnvelopeFrom::default()
    };
    if !accounts.is_empty() {
        let to = DeliverTo {
            address: sender.clone(),
            accounts,
            notify: 0,
            original: None,
        };
        match store.deliver(&message, &from, &[to], false).await.pop() {
            Some(Err(StoreError::Refused(refusal))) => {
                tracing::warn!(entry = %entry.id, %refusal, "the sender does not take the report");
            }
            Some(Err(error)) => return Err(error),
            Some(Ok(_)) | None => {}
        }
    }
    if !elsewhere.is_empty() {
        store.enqueue_held(&message, &from, &elsewhere, NO_RELAY_YET).await?;
    }
    tracing::info!(entry = %entry.id, recipients = recipients.len(), "report sent");
    Ok(())
}

async fn write(worker: &Worker, entry: &QueueEntry, recipients: &[Reported<'_>]) -> Result<Ingested, StoreError> {
    let store = &worker.store;
    let whole = entry.return_full && entry.size <= QUEUE_RETURN_BYTES_MAX;
    let returned = returned_bytes(worker, entry, whole).await;
    let report = StatusReport {
        hostname: &worker.hostname,
        id: &store.new_message_guid().to_string(),
        now: store.clock().now(),
        entry,
        recipients,
        returned: if whole {
            Returned::Message(&returned)
        } else {
            Returned::Header(&returned)
        },
    };
    let mut ingest = store.ingest();
    ingest.write(&report.to_message()).await?;
    store.finish_ingest(ingest).await
}

/// The message or its header; nothing, when its bytes cannot be had: the report is worth more than what it returns.
async fn returned_bytes(worker: &Worker, entry: &QueueEntry, whole: bool) -> Vec<u8> {
    let end = if whole {
        entry.size
    } else {
        QUEUE_RETURN_HEADER_BYTES_MAX
    };
    let bytes = match worker.store.open_blob(entry.blob).await {
        Ok(blob) => blob.read_all(0..end).await,
        Err(error) => Err(error),
    };
    let mut bytes = bytes.unwrap_or_else(|error| {
        tracing::warn!(entry = %entry.id, %error, "the report returns nothing of the message");
        Vec::new()
    });
    if !whole {
        let header = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .map(|at| at + 2);
        // A header that is cut ends with a whole line.
        let last_line = || {
            bytes
                .windows(2)
                .rposition(|window| window == b"\r\n")
                .map_or(0, |at| at + 2)
        };
        let length = header.unwrap_or_else(last_line);
        bytes.truncate(length);
    }
    bytes
}
