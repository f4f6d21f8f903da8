//! Sends reports to senders: into their mailbox here, or, for those elsewhere, into the queue, held.
//!
//! Invariant: nothing is ever reported to the null reverse-path, and a report has it itself, so that no report makes
//! another (RFC 5321 4.5.5). A crash between the report and the entry's change makes a second report, never none.

use core_types::Address;
use core_types::limits::{QUEUE_RETURN_BYTES_MAX, QUEUE_RETURN_HEADER_BYTES_MAX};
use directory::{Account, Recipient};
use mailstore::{DeliverTo, EnvelopeFrom, Ingested, MailStore, StoreError};

use crate::dsn::{Origin, Reported, Returned, StatusReport};

/// Why a report to a sender elsewhere is held.
const NO_RELAY_YET: &str = "waits until mail can be relayed";

/// Who reports.
#[derive(Clone, Copy)]
pub struct Reporter<'a> {
    /// Where reports are delivered.
    pub store: &'a MailStore,
    /// The name under which is reported.
    pub hostname: &'a str,
}

/// What becomes of a report whose sender is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// It is held in the queue until mail can be relayed.
    Hold,
    /// It is not made: a sender can be forged, and what anybody can order must not fill the queue.
    Omit,
}

impl Reporter<'_> {
    /// Sends one report about these recipients to the message's sender, if it has one.
    ///
    /// # Errors
    /// [`StoreError`]; then the report is not durable.
    pub async fn send(
        &self,
        origin: &Origin<'_>,
        recipients: &[Reported<'_>],
        elsewhere: Elsewhere,
    ) -> Result<(), StoreError> {
        let Some(sender) = origin.sender.filter(|_| !recipients.is_empty()) else {
            return Ok(());
        };
        let (accounts, foreign) = match self.store.directory().recipient(sender).await {
            Ok(Recipient::Known { accounts, foreign }) => (accounts, foreign),
            Ok(Recipient::NotLocal) => (Vec::new(), vec![sender.clone()]),
            Ok(Recipient::Unknown | Recipient::TooMany) => {
                tracing::warn!(blob = %origin.blob, "the sender does not exist: no report");
                return Ok(());
            }
            Err(error) => return Err(StoreError::Unavailable(error.to_string())),
        };
        let foreign = if elsewhere == Elsewhere::Hold {
            foreign
        } else {
            Vec::new()
        };
        if accounts.is_empty() && foreign.is_empty() {
            return Ok(());
        }
        let message = self.write(origin, recipients).await?;
        let from = EnvelopeFrom {
            smtputf8: origin.smtputf8,
            ..EnvelopeFrom::default()
        };
        self.deliver(&message, &from, sender, accounts).await?;
        if !foreign.is_empty() {
            self.store.enqueue_held(&message, &from, &foreign, NO_RELAY_YET).await?;
        }
        tracing::info!(blob = %origin.blob, recipients = recipients.len(), "report sent");
        Ok(())
    }

    async fn deliver(
        &self,
        message: &Ingested,
        from: &EnvelopeFrom,
        sender: &Address,
        accounts: Vec<Account>,
    ) -> Result<(), StoreError> {
        if accounts.is_empty() {
            return Ok(());
        }
        let to = DeliverTo {
            address: sender.clone(),
            accounts,
            notify: 0,
            original: None,
        };
        match self.store.deliver(message, from, &[to], false).await.pop() {
            Some(Err(StoreError::Refused(refusal))) => {
                tracing::warn!(%refusal, "the sender does not take the report");
                Ok(())
            }
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    async fn write(&self, origin: &Origin<'_>, recipients: &[Reported<'_>]) -> Result<Ingested, StoreError> {
        let whole = origin.return_full && origin.size <= QUEUE_RETURN_BYTES_MAX;
        let returned = self.returned_bytes(origin, whole).await;
        let report = StatusReport {
            hostname: self.hostname,
            id: &self.store.new_message_guid().to_string(),
            now: self.store.clock().now(),
            origin: *origin,
            recipients,
            returned: if whole {
                Returned::Message(&returned)
            } else {
                Returned::Header(&returned)
            },
        };
        let mut ingest = self.store.ingest();
        ingest.write(&report.to_message()).await?;
        self.store.finish_ingest(ingest).await
    }

    /// The message or its header; nothing, when its bytes cannot be had: the report is worth more than what it returns.
    async fn returned_bytes(&self, origin: &Origin<'_>, whole: bool) -> Vec<u8> {
        let end = if whole {
            origin.size
        } else {
            QUEUE_RETURN_HEADER_BYTES_MAX
        };
        let bytes = match self.store.open_blob(origin.blob).await {
            Ok(blob) => blob.read_all(0..end).await,
            Err(error) => Err(error),
        };
        let mut bytes = bytes.unwrap_or_else(|error| {
            tracing::warn!(blob = %origin.blob, %error, "the report returns nothing of the message");
            Vec::new()
        });
        if !whole {
            bytes.truncate(header_length(&bytes));
        }
        bytes
    }
}

/// Octets of the header block without its empty line; of one that is cut, whole lines.
fn header_length(bytes: &[u8]) -> usize {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let last_line = || bytes.windows(2).rposition(|window| window == b"\r\n");
    end.or_else(last_line).map_or(0, |at| at + 2)
}
