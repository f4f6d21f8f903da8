//! Delivery: one blob, one op for each group, and the queue for groups that cannot take it now.
//!
//! When [`MailStore::deliver`] says `Delivered` or `Queued`, that is durable. A recipient never gets a message twice by
//! it: whatever is repeated is repeated under the same [`MessageGuid`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use core_types::limits::{QUEUE_EXPIRY, QUEUE_FIRST_RETRY, SMTP_RECIPIENTS_MAX};
use core_types::{AccountId, Address, EmailId, Flags, GroupId, MessageGuid, NodeId, QueueId, UnixMillis};
use directory::Account;
use raft::consensus::ProposeError;
use state::command::{Delivery, DeliveryTarget, NewMessage, Receipts};
use state::outcome::Placed;
use state::rows::{QueueEntry, QueuedRecipient, RecipientState};
use state::{Command, MailboxOp, Op, Outcome, Refusal};
use tokio::time::Instant;

use crate::{Ingested, MailStore, StoreError};

/// One accepted recipient of a transaction.
#[derive(Clone, Debug)]
pub struct DeliverTo {
    /// RCPT TO.
    pub address: Address,
    /// The accounts of ours behind it.
    pub accounts: Vec<Account>,
    /// RFC 3461 NOTIFY, as bits of [`QueuedRecipient`]'s constants.
    pub notify: u8,
    /// RFC 3461 ORCPT, decoded, with its type.
    pub original: Option<String>,
}

/// Who sent it, and how.
#[derive(Clone, Debug, Default)]
pub struct EnvelopeFrom {
    /// MAIL FROM; `None` is the null reverse-path.
    pub reverse_path: Option<Address>,
    /// RFC 3461 RET=FULL.
    pub return_full: bool,
    /// RFC 3461 ENVID, decoded.
    pub envelope_id: Option<String>,
    /// Whether MAIL had SMTPUTF8.
    pub smtputf8: bool,
}

/// What became of one recipient. Durable, or an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// In the mailboxes of all its accounts.
    Placed(Vec<MessageGuid>),
    /// In the queue of a group, which tries on: at least one of its accounts' groups cannot take it now. One with very many
    /// accounts may be in several entries; this is one of them.
    Queued(QueueId),
}

impl MailStore {
    /// Delivers a message to all recipients of a transaction. The results are in the recipients' order.
    ///
    /// With `enforce_quota` (LMTP) an account that is full is an error of its recipient, unless other accounts of that
    /// recipient take the message; otherwise it gets the message, since its recipient was accepted before. Without, all
    /// recipients share one answer: one that its group refuses for good (its account is gone, or on its way to another group) is
    /// queued when others are served, so that the sender hears of it by a report and need not send the message to all again.
    pub async fn deliver(
        &self,
        message: &Ingested,
        from: &EnvelopeFrom,
        recipients: &[DeliverTo],
        enforce_quota: bool,
    ) -> Vec<Result<Delivered, StoreError>> {
        // One entry for each account, however many recipients lead to it.
        let mut guids: BTreeMap<AccountId, (GroupId, MessageGuid)> = BTreeMap::new();
        for account in recipients.iter().flat_map(|recipient| &recipient.accounts) {
            guids
                .entry(account.id)
                .or_insert_with(|| (account.group, self.new_message_guid()));
        }
        let mut placed = self.place(message, &guids, enforce_quota).await;
        let again: BTreeMap<_, _> = overrun(recipients, &placed)
            .into_iter()
            .filter_map(|account| Some((account, *guids.get(&account)?)))
            .collect();
        placed.extend(self.place(message, &again, false).await);

        let mut results: Vec<Option<Result<Delivered, StoreError>>> = Vec::with_capacity(recipients.len());
        let mut waiting = Vec::new();
        for (index, recipient) in recipients.iter().enumerate() {
            let (result, to_queue) = settle(recipient, &placed, &guids);
            results.push(result);
            waiting.extend(to_queue.into_iter().map(|queued| (index, queued)));
        }
        let is_refused = |result: &Option<_>| matches!(result, Some(Err(StoreError::Refused(_))));
        if !enforce_quota && !results.iter().all(is_refused) {
            for (index, (recipient, result)) in recipients.iter().zip(&mut results).enumerate() {
                if is_refused(result) {
                    let accounts = recipient
                        .accounts
                        .iter()
                        .filter_map(|account| Some((account.id, guids.get(&account.id)?)));
                    let queued = |(account, (_, guid)): (_, &(_, _))| queued_recipient(recipient, account, *guid);
                    waiting.extend(accounts.map(|account| (index, queued(account))));
                    *result = None;
                }
            }
        }
        for piece in waiting.chunks(SMTP_RECIPIENTS_MAX) {
            let entry = piece.iter().map(|(_, recipient)| recipient.clone()).collect();
            let queued = self.enqueue(message, from, entry, None).await.map(Delivered::Queued);
            for (index, _) in piece {
                // A recipient whose accounts are in two pieces has an error when one of them could not be queued.
                if let Some(result @ (None | Some(Ok(_)))) = results.get_mut(*index) {
                    *result = Some(queued.clone());
                }
            }
        }
        results.into_iter().flatten().collect()
    }

    /// Has each account's group take the message.
    async fn place(
        &self,
        message: &Ingested,
        guids: &BTreeMap<AccountId, (GroupId, MessageGuid)>,
        enforce_quota: bool,
    ) -> BTreeMap<AccountId, Result<Placed, StoreError>> {
        let mut groups: BTreeMap<GroupId, Vec<DeliveryTarget>> = BTreeMap::new();
        for (account, (group, guid)) in guids {
            groups.entry(*group).or_default().push(target(*account, *guid));
        }
        let date = message.received_at();
        // What one op may have.
        let pieces = groups.iter().flat_map(|(group, targets)| {
            let pieces = targets.chunks(SMTP_RECIPIENTS_MAX);
            pieces.map(|piece| (*group, piece.to_vec()))
        });
        let deliveries = pieces.map(|(group, targets)| async move {
            let accounts: Vec<AccountId> = targets.iter().map(|target| target.account).collect();
            let placed = self
                .deliver_to_group(group, message, date, targets, enforce_quota, DELIVER_TIMEOUT)
                .await;
            let each = match placed {
                Ok(placed) => placed
                    .into_iter()
                    .map(|placed| placed.map_err(StoreError::Refused))
                    .collect(),
                Err(error) => vec![Err(error); accounts.len()],
            };
            accounts.into_iter().zip(each).collect::<Vec<_>>()
        });
        let placed = futures_util::future::join_all(deliveries).await;
        placed.into_iter().flatten().collect()
    }

    /// Stores the blob on the group's voters and has the group take the message for these targets.
    pub(crate) async fn deliver_to_group(
        &self,
        group: GroupId,
        message: &Ingested,
        internal_date: UnixMillis,
        targets: Vec<DeliveryTarget>,
        enforce_quota: bool,
        timeout: Duration,
    ) -> Result<Vec<Result<Placed, Refusal>>, StoreError> {
        let email_id = targets
            .first()
            .map_or(EmailId([0; 16]), |target| EmailId(target.guid.0));
        let new_message = NewMessage {
            blob: message.blob(),
            size: message.size(),
            email_id,
            internal_date,
            structure: message.structure.clone(),
        };
        let outcome = self
            .propose_with_blob(group, message, timeout, |receipts| {
                MailboxOp::Deliver(Delivery {
                    message: new_message.clone(),
                    receipts,
                    targets: targets.clone(),
                    enforce_quota,
                })
            })
            .await?;
        match outcome {
            Outcome::Delivered(placed) => Ok(placed),
            outcome => Err(StoreError::unexpected(&outcome)),
        }
    }

    /// Puts the message into the queue of any group that can take it.
    pub(crate) async fn enqueue(
        &self,
        message: &Ingested,
        from: &EnvelopeFrom,
        recipients: Vec<QueuedRecipient>,
        held: Option<String>,
    ) -> Result<QueueId, StoreError> {
        let now = self.inner.clock.now();
        let entry = QueueEntry {
            id: QueueId(self.inner.entropy.bytes()),
            blob: message.blob(),
            size: message.size(),
            receipts: Receipts::default(),
            reverse_path: from.reverse_path.clone(),
            return_full: from.return_full,
            envelope_id: from.envelope_id.clone(),
            smtputf8: from.smtputf8,
            recipients,
            created: now,
            expires: now.saturating_add(millis(QUEUE_EXPIRY)),
            next_attempt: now.saturating_add(millis(QUEUE_FIRST_RETRY)),
            attempts: 0,
            held,
            attempt: None,
            structure: message.structure.clone(),
        };
        self.enqueue_entry(message, entry).await
    }

    /// Puts an entry, whose receipts are made here, into the queue of any group that can take it. The same entry in two
    /// groups does no harm: its recipients are delivered under the same GUIDs.
    ///
    /// # Errors
    /// The last group's [`StoreError`], when none can.
    pub async fn enqueue_entry(&self, message: &Ingested, entry: QueueEntry) -> Result<QueueId, StoreError> {
        let mut last = StoreError::Unavailable("no mailbox group on this node".to_owned());
        for group in self.inner.groups.groups() {
            if group == GroupId::DIRECTORY {
                continue;
            }
            let op = |receipts| {
                MailboxOp::Enqueue(Box::new(QueueEntry {
                    receipts,
                    ..entry.clone()
                }))
            };
            match self.propose_with_blob(group, message, ENQUEUE_TIMEOUT, op).await {
                Ok(_) => return Ok(entry.id),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Stores the blob on the group's voters, then proposes the op that `op` makes of the receipts, until the group has
    /// decided or the time is over. Every attempt after the first op reached a leader has the same op id and content.
    async fn propose_with_blob(
        &self,
        group: GroupId,
        message: &Ingested,
        timeout: Duration,
        op: impl Fn(Receipts) -> MailboxOp,
    ) -> Result<Outcome, StoreError> {
        let deadline = Instant::now() + timeout;
        loop {
            let receipts = self.store_blob(group, message).await?;
            let ticket = self.inner.op_ids.next(group);
            let command = Command {
                op_id: ticket.op_id(),
                settled_below: ticket.settled_below(),
                time: self.inner.clock.now(),
                op: Op::Mailbox(op(receipts)),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match self.inner.groups.propose(group, command, left).await {
                Ok(Outcome::Refused(refusal)) => return Err(refusal.into()),
                Ok(outcome) => return Ok(outcome),
                // Not committed, for sure: the membership moved on, or too few copies were made. Store it again.
                Err(ProposeError::StaleMembership | ProposeError::NotEnoughCopies { .. })
                    if Instant::now() + STORE_AGAIN_AFTER < deadline =>
                {
                    tokio::time::sleep(STORE_AGAIN_AFTER).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn store_blob(&self, group: GroupId, message: &Ingested) -> Result<Receipts, StoreError> {
        let membership = self.inner.groups.membership(group)?;
        let voters: &[NodeId] = &membership.voters;
        let receipts = self
            .inner
            .replicator
            .store(&message.sealed, group, membership.incarnation, membership.index, voters)
            .await?;
        Ok(receipts)
    }
}

/// The result of one recipient, or `None` with what is to be queued for it.
fn settle(
    recipient: &DeliverTo,
    placed: &BTreeMap<AccountId, Result<Placed, StoreError>>,
    guids: &BTreeMap<AccountId, (GroupId, MessageGuid)>,
) -> (Option<Result<Delivered, StoreError>>, Vec<QueuedRecipient>) {
    let mut done = Vec::new();
    let mut refused = None;
    let mut queued = false;
    let mut to_queue = Vec::new();
    for account in &recipient.accounts {
        let Some((_, guid)) = guids.get(&account.id) else {
            continue;
        };
        match placed.get(&account.id) {
            Some(Ok(_)) => {
                done.push(*guid);
                continue;
            }
            // When others of the recipient's accounts wait in the queue, this one does too: the queue enforces none.
            Some(Err(error @ StoreError::Refused(Refusal::OverQuota))) => refused = Some(error.clone()),
            Some(Err(error @ StoreError::Refused(Refusal::NoSuchAccount | Refusal::NoSuchMailbox))) => {
                refused = Some(error.clone());
                continue;
            }
            // Any other refusal is one of the op, and may pass: the group has too many ops in doubt, for one.
            Some(Err(_)) | None => queued = true,
        }
        to_queue.push(queued_recipient(recipient, account.id, *guid));
    }
    if queued {
        return (None, to_queue);
    }
    let result = match refused {
        // Part of an alias's accounts took it: the sender must not be told that it failed and send it again.
        Some(error) if done.is_empty() => Err(error),
        _ => Ok(Delivered::Placed(done)),
    };
    (Some(result), Vec::new())
}

/// The accounts refused for a quota although another account of the same recipient has the message: the sender is told
/// that the recipient has it and will not send it again, so these get it too, at the price of an overrun.
fn overrun(recipients: &[DeliverTo], placed: &BTreeMap<AccountId, Result<Placed, StoreError>>) -> BTreeSet<AccountId> {
    let is_placed = |account: &Account| matches!(placed.get(&account.id), Some(Ok(_)));
    let is_over_quota = |account: &&Account| {
        let result = placed.get(&account.id);
        matches!(result, Some(Err(StoreError::Refused(Refusal::OverQuota))))
    };
    recipients
        .iter()
        .filter(|recipient| recipient.accounts.iter().any(is_placed))
        .flat_map(|recipient| recipient.accounts.iter().filter(is_over_quota))
        .map(|account| account.id)
        .collect()
}

fn queued_recipient(recipient: &DeliverTo, account: AccountId, guid: MessageGuid) -> QueuedRecipient {
    QueuedRecipient {
        address: recipient.address.clone(),
        guid,
        account: Some(account),
        notify: recipient.notify,
        original: recipient.original.clone(),
        state: RecipientState::Waiting(None),
    }
}

pub(crate) fn target(account: AccountId, guid: MessageGuid) -> DeliveryTarget {
    DeliveryTarget {
        account,
        guid,
        mailbox: None,
        flags: Flags::default(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long a delivery waits for its group before it is queued elsewhere. Longer than a change of leader takes.
pub(crate) const DELIVER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one group is tried for a queue entry.
const ENQUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before a blob is stored again under a new membership.
const STORE_AGAIN_AFTER: Duration = Duration::from_millis(50);
