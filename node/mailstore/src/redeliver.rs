//! What the queue's worker needs: a queued message taken in again from its blob, delivered under the GUIDs that it always
//! had, and messages that have to wait in the queue from the start.
//!
//! Not here: when to try, and what to tell senders (crate `queue`).

use core_types::{AccountId, Address, BlobId, GroupId, MessageGuid, QueueId, UnixMillis};
use state::outcome::Placed;
use state::rows::{QueuedRecipient, RecipientState};
use state::{MailboxOp, Outcome, Refusal};

use crate::deliver::{DELIVER_TIMEOUT, target};
use crate::{EnvelopeFrom, Ingested, MailStore, StoreError};

impl MailStore {
    /// Takes a message in again from its blob, wherever that is, so that it can be put on the voters of another group.
    ///
    /// # Errors
    /// As [`MailStore::open_blob`] and [`MailStore::finish_ingest`].
    pub async fn take_again(&self, blob: BlobId) -> Result<Ingested, StoreError> {
        let bytes = self.open_blob(blob).await?;
        let mut ingest = self.ingest();
        let mut start = 0;
        while start < bytes.size() {
            let piece = bytes.read(start..bytes.size()).await?;
            if piece.is_empty() {
                return Err(StoreError::BlobMissing(blob));
            }
            start += piece.len() as u64;
            ingest.write(&piece).await?;
        }
        self.finish_ingest(ingest).await
    }

    /// Delivers a queued message to accounts of one group. Who has it already by that GUID does not get it again; nobody
    /// is refused for a quota, since the message was accepted before. The results are in the order of `targets`.
    ///
    /// # Errors
    /// [`StoreError`]; then it is not known, or known not, that it was delivered, and it may be tried again.
    pub async fn redeliver(
        &self,
        group: GroupId,
        message: &Ingested,
        internal_date: UnixMillis,
        targets: &[(AccountId, MessageGuid)],
    ) -> Result<Vec<Result<Placed, Refusal>>, StoreError> {
        let targets = targets.iter().map(|(account, guid)| target(*account, *guid)).collect();
        self.deliver_to_group(group, message, internal_date, targets, false, DELIVER_TIMEOUT)
            .await
    }

    /// Puts a message for addresses elsewhere into the queue, held for a reason.
    ///
    /// # Errors
    /// As [`MailStore::enqueue_entry`].
    pub async fn enqueue_held(
        &self,
        message: &Ingested,
        from: &EnvelopeFrom,
        addresses: &[Address],
        reason: &str,
    ) -> Result<QueueId, StoreError> {
        let recipients = addresses
            .iter()
            .map(|address| QueuedRecipient {
                address: address.clone(),
                guid: self.new_message_guid(),
                account: None,
                notify: 0,
                original: None,
                state: RecipientState::Waiting(None),
            })
            .collect();
        self.enqueue(message, from, recipients, Some(reason.to_owned())).await
    }

    /// Has a group carry out an op on its queue; an entry that is not there any more is no error.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn propose_queue_op(&self, group: GroupId, op: MailboxOp) -> Result<Option<Outcome>, StoreError> {
        match self.propose(group, op).await {
            Ok(outcome) => Ok(Some(outcome)),
            Err(StoreError::Refused(Refusal::NoSuchObject(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
