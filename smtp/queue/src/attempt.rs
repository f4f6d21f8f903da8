//! One attempt at one entry: announced, tried, reported, written down.
//!
//! Invariants: nothing is tried before `AttemptStarted` is committed, nor beyond its deadline; a recipient is called done
//! or failed only when that, and the report about it, is durable. Whatever breaks in between leaves the recipient
//! waiting, and the next attempt repeats the same GUIDs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use core_types::limits::{QUEUE_ATTEMPT_TIME, QUEUE_EXPIRY_ATTEMPTS_MIN};
use core_types::{AccountId, GroupId, MessageGuid, UnixMillis};
use directory::LookupError;
use mailstore::{Ingested, StoreError};
use state::rows::{QueueEntry, QueuedRecipient, RecipientState};
use state::{MailboxOp, Refusal};

use crate::dsn::{Action, Origin, Reported, Status};
use crate::report::{Elsewhere, Reporter};
use crate::schedule::{millis, next_attempt};
use crate::worker::Worker;

/// What came of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Delivered,
    /// Not now; why.
    Later(String),
    /// Never; why.
    Never(Status, String),
}

/// Tries an entry of a group once.
///
/// # Errors
/// [`StoreError`] when the group cannot be told: nothing is lost, and the entry is tried again after its deadline.
pub(crate) async fn attempt(worker: &Worker, group: GroupId, entry: &QueueEntry) -> Result<(), StoreError> {
    let started = MailboxOp::AttemptStarted {
        entry: entry.id,
        node: worker.node,
        deadline: worker.store.clock().now().saturating_add(millis(QUEUE_ATTEMPT_TIME)),
    };
    match worker.store.propose_queue_op(group, started).await {
        Ok(Some(_)) => {}
        // Dropped, held, or tried by another node meanwhile.
        Ok(None) | Err(StoreError::Refused(Refusal::InUse(_))) => return Ok(()),
        Err(error) => return Err(error),
    }
    let waiting: Vec<(u32, &QueuedRecipient)> = (0..)
        .zip(&entry.recipients)
        .filter(|(_, recipient)| matches!(recipient.state, RecipientState::Waiting(_)))
        .collect();
    let tried = tokio::time::timeout(QUEUE_ATTEMPT_TIME - MARGIN, deliver(worker, entry, &waiting)).await;
    let mut fates = tried.unwrap_or_else(|_| vec![Fate::Later("the attempt took too long".to_owned()); waiting.len()]);
    let attempts = entry.attempts.saturating_add(1);
    if attempts >= QUEUE_EXPIRY_ATTEMPTS_MIN && group_time(worker, group).await? >= entry.expires {
        fates.iter_mut().for_each(give_up);
    }
    if let Err(error) = tell_sender(worker, group, entry, &waiting, &fates).await {
        tracing::warn!(entry = %entry.id, %error, "no report could be sent; to be tried again");
        fates = vec![Fate::Later(format!("no report could be sent: {error}")); waiting.len()];
    }
    let results = waiting
        .iter()
        .zip(&fates)
        .map(|((index, _), fate)| (*index, state_of(fate)));
    let finished = MailboxOp::AttemptFinished {
        entry: entry.id,
        results: results.collect(),
        next_attempt: next_attempt(worker.store.clock().now(), attempts, worker.store.entropy().as_ref()),
    };
    worker.store.propose_queue_op(group, finished).await?;
    let count = |wanted: fn(&Fate) -> bool| fates.iter().filter(|fate| wanted(fate)).count();
    tracing::info!(
        %group,
        entry = %entry.id,
        delivered = count(|fate| matches!(fate, Fate::Delivered)),
        waiting = count(|fate| matches!(fate, Fate::Later(_))),
        failed = count(|fate| matches!(fate, Fate::Never(..))),
        "attempt finished"
    );
    Ok(())
}

/// The group's own time, in which an entry expires: this node's clock may be wrong.
async fn group_time(worker: &Worker, group: GroupId) -> Result<UnixMillis, StoreError> {
    let groups = worker.store.groups();
    let time = groups
        .query(group, |view| state::group::Reader::new(view).time())
        .await?;
    Ok(time.unwrap_or_default())
}

fn state_of(fate: &Fate) -> RecipientState {
    match fate {
        Fate::Delivered => RecipientState::Done,
        Fate::Later(reason) => RecipientState::Waiting(Some(reason.clone())),
        Fate::Never(_, reason) => RecipientState::Failed(reason.clone()),
    }
}

fn give_up(fate: &mut Fate) {
    if let Fate::Later(reason) = fate {
        *fate = Fate::Never(EXPIRED, format!("not delivered in time; last: {reason}"));
    }
}

/// Delivers to the recipients that are ours; the fates are in the recipients' order.
async fn deliver(worker: &Worker, entry: &QueueEntry, waiting: &[(u32, &QueuedRecipient)]) -> Vec<Fate> {
    let mut groups: BTreeMap<GroupId, BTreeSet<(AccountId, MessageGuid)>> = BTreeMap::new();
    let mut places = Vec::with_capacity(waiting.len());
    for (_, recipient) in waiting {
        let place = find(worker, recipient).await;
        if let Ok((group, account)) = place {
            groups.entry(group).or_default().insert((account, recipient.guid));
        }
        places.push(place);
    }
    let mut fates = BTreeMap::new();
    if !groups.is_empty() {
        let message = worker.store.take_again(entry.blob).await;
        let each = groups
            .into_iter()
            .map(|(group, targets)| deliver_to_group(worker, entry, &message, group, targets));
        fates = futures_util::future::join_all(each)
            .await
            .into_iter()
            .flatten()
            .collect();
    }
    let mut all = Vec::with_capacity(waiting.len());
    for (place, (_, recipient)) in places.into_iter().zip(waiting) {
        all.push(match place {
            Ok((_, account)) => fates
                .get(&(account, recipient.guid))
                .cloned()
                .unwrap_or_else(|| Fate::Later("not tried".to_owned())),
            Err(fate) => fate,
        });
    }
    all
}

/// The group in which a recipient's account lives now.
async fn find(worker: &Worker, recipient: &QueuedRecipient) -> Result<(GroupId, AccountId), Fate> {
    let Some(account) = recipient.account else {
        return Err(Fate::Later("mail cannot be relayed yet".to_owned()));
    };
    let directory = worker.store.directory();
    let row = async {
        let row = directory.query(|reader| reader.account(account)).await?;
        if row.is_some() {
            return Ok(row);
        }
        // A "no" of this replica alone may be an old one.
        directory.confirm().await?;
        directory.query(|reader| reader.account(account)).await
    };
    match row.await {
        Ok(Some(row)) => Ok((row.group, account)),
        Ok(None) => Err(Fate::Never(
            NO_SUCH_USER,
            "the mailbox does not exist any more".to_owned(),
        )),
        Err(error @ LookupError(_)) => Err(Fate::Later(error.to_string())),
    }
}

async fn deliver_to_group(
    worker: &Worker,
    entry: &QueueEntry,
    message: &Result<Ingested, StoreError>,
    group: GroupId,
    targets: BTreeSet<(AccountId, MessageGuid)>,
) -> Vec<((AccountId, MessageGuid), Fate)> {
    let targets: Vec<_> = targets.into_iter().collect();
    let placed = match message {
        Ok(message) => worker.store.redeliver(group, message, entry.created, &targets).await,
        Err(error) => Err(error.clone()),
    };
    match placed {
        Ok(placed) => targets
            .into_iter()
            .zip(placed)
            .map(|(target, placed)| match placed {
                Ok(_) => (target, Fate::Delivered),
                // The directory says that the account is there: it is on its way from one group to another.
                Err(refusal) => (target, Fate::Later(refusal.to_string())),
            })
            .collect(),
        Err(error) => targets
            .into_iter()
            .map(|target| (target, Fate::Later(error.to_string())))
            .collect(),
    }
}

/// Reports what the sender wants to know (RFC 3461 4.1). Only the group's leader does: two would say it twice.
async fn tell_sender(
    worker: &Worker,
    group: GroupId,
    entry: &QueueEntry,
    waiting: &[(u32, &QueuedRecipient)],
    fates: &[Fate],
) -> Result<(), StoreError> {
    let reported: Vec<Reported<'_>> = waiting
        .iter()
        .zip(fates)
        .filter_map(|((_, recipient), fate)| {
            let wants = |bit: u8| recipient.notify & bit != 0;
            let (action, status, reason) = match fate {
                Fate::Delivered if wants(QueuedRecipient::NOTIFY_SUCCESS) => (Action::Delivered, DELIVERED, ""),
                Fate::Never(status, reason) if wants(QueuedRecipient::NOTIFY_FAILURE) => {
                    (Action::Failed, *status, reason.as_str())
                }
                Fate::Delivered | Fate::Later(_) | Fate::Never(..) => return None,
            };
            Some(Reported {
                address: &recipient.address,
                original: recipient.original.as_deref(),
                action,
                status,
                reason,
            })
        })
        .collect();
    if reported.is_empty() {
        return Ok(());
    }
    worker.store.groups().read_barrier(group, MARGIN / 2).await?;
    if !(worker.leads)(group) {
        return Err(StoreError::Unavailable("another node leads the group now".to_owned()));
    }
    let reporter = Reporter {
        store: &worker.store,
        hostname: &worker.hostname,
    };
    let failed = reported.iter().any(|reported| reported.action == Action::Failed);
    let elsewhere = if failed { Elsewhere::Hold } else { Elsewhere::Omit };
    reporter.send(&Origin::from(entry), &reported, elsewhere).await
}

/// What an attempt leaves of its time for the report and the word to the group.
const MARGIN: Duration = Duration::from_secs(40);

const DELIVERED: Status = Status(2, 0, 0);
const NO_SUCH_USER: Status = Status(5, 1, 1);
const EXPIRED: Status = Status(4, 4, 7);
