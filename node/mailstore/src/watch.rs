//! Who is told when a mailbox changes: sessions watch a mailbox, or an account's list of mailboxes.
//!
//! A watcher is told *that* something changed, never what: it asks for the changes since the MODSEQ that it knows. So
//! nothing queues up for a session that does not look, however many changes there are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use core_types::{AccountId, MailboxGuid};
use state::Effect;
use tokio::sync::watch;

/// What can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Topic {
    /// Messages of a mailbox, its name, its end.
    Mailbox(MailboxGuid),
    /// Mailboxes and subscriptions of an account.
    Account(AccountId),
    /// The queue of the groups here.
    Queue,
}

/// The watchers of this node.
#[derive(Default)]
pub(crate) struct Watchers {
    topics: Mutex<BTreeMap<Topic, watch::Sender<u64>>>,
}

/// Tells when something changed. Dropping it ends the watching.
pub struct Watch {
    topic: Topic,
    receiver: Option<watch::Receiver<u64>>,
    watchers: Arc<Watchers>,
}

impl Watchers {
    pub(crate) fn watch(self: &Arc<Self>, topic: Topic) -> Watch {
        let receiver = self
            .lock()
            .entry(topic)
            .or_insert_with(|| watch::channel(0).0)
            .subscribe();
        Watch {
            topic,
            receiver: Some(receiver),
            watchers: Arc::clone(self),
        }
    }

    pub(crate) fn publish(&self, effects: &[Effect]) {
        let topics = self.lock();
        for effect in effects {
            let topic = match effect {
                Effect::Mailbox { mailbox, .. } => Topic::Mailbox(*mailbox),
                Effect::MailboxList { account } => Topic::Account(*account),
                Effect::Queue => Topic::Queue,
                _ => continue,
            };
            if let Some(sender) = topics.get(&topic) {
                sender.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }

    /// Something was missed: everybody looks anew.
    pub(crate) fn publish_all(&self) {
        for sender in self.lock().values() {
            sender.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Topic, watch::Sender<u64>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// Waits for a change since the last call, or since the watching began.
    pub async fn changed(&mut self) {
        let changed = match &mut self.receiver {
            Some(receiver) => receiver.changed().await.is_ok(),
            None => false,
        };
        if !changed {
            // The sender lives as long as a watcher does; should it be gone, there is nothing to wait for.
            std::future::pending().await
        }
    }

    /// Makes the next look find a change: the last one came to nothing.
    pub fn note_change(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            receiver.mark_changed();
        }
    }

    /// Whether there was a change since the last look; this is one.
    pub fn take_changed(&mut self) -> bool {
        match &mut self.receiver {
            Some(receiver) => {
                let changed = receiver.has_changed().unwrap_or(false);
                receiver.mark_unchanged();
                changed
            }
            None => false,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut topics = self.watchers.lock();
        self.receiver = None;
        if topics
            .get(&self.topic)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            topics.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core_types::ModSeq;

    #[tokio::test]
    async fn a_watcher_is_told_of_its_topic_and_leaves_nothing_behind() {
        let watchers = Arc::new(Watchers::default());
        let guid = MailboxGuid([1; 16]);
        let mut watch = watchers.watch(Topic::Mailbox(guid));
        assert!(!watch.take_changed());
        let effect = |mailbox| {
            [Effect::Mailbox {
                account: AccountId([0; 16]),
                mailbox,
                highest_modseq: ModSeq(1),
            }]
        };
        watchers.publish(&effect(MailboxGuid([2; 16])));
        assert!(!watch.take_changed());
        watchers.publish(&effect(guid));
        watch.changed().await;
        assert!(!watch.take_changed());
        watchers.publish_all();
        assert!(watch.take_changed());
        drop(watch);
        assert!(watchers.lock().is_empty());
    }
}
