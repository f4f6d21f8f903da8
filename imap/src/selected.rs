//! The selected mailbox: the session's view of it, and how changes come into the view and to the client.
//!
//! Invariant: `pulled` is a MODSEQ up to which every change is in the view. Rows read for a FETCH never go into the view,
//! or a change between the two would be missed.
//! Not here: how sequence numbers work ([`SessionView`]).

use std::collections::{BTreeMap, BTreeSet};

use core_types::{Flags, Keyword, MailboxGuid, ModSeq, Uid};
use imap_proto::view::{Message, Update};
use imap_proto::{Code, SequenceSet, SessionView, Status};
use mailstore::{AccountMail, Watch};
use state::rows::{Change, MailboxRow, MessageRow};

use crate::client::Client;
use crate::errors::{Answer, End, Failure};
use crate::shared::Shared;

/// A selected mailbox.
pub(crate) struct Mailbox {
    pub(crate) guid: MailboxGuid,
    pub(crate) read_only: bool,
    pub(crate) view: SessionView,
    pub(crate) watch: Watch,
    pulled: ModSeq,
    keywords: BTreeSet<Keyword>,
    keywords_changed: bool,
}

/// What this session changed itself: the flags that its client expects to find, by UID. It is not told of a message that
/// has just these.
pub(crate) type Expected = BTreeMap<Uid, Flags>;

/// What a command's end may tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling {
    /// EXPUNGE is allowed (RFC 3501 7.4.1).
    pub(crate) expunge: bool,
    /// The client counts in UIDs.
    pub(crate) uid: bool,
}

impl Mailbox {
    /// Opens a mailbox for a session, with its row afterwards, whose `uid_next` is one that fits the view; `None` when
    /// there is none of that row any more.
    pub(crate) async fn open(
        mail: &AccountMail,
        row: &MailboxRow,
        read_only: bool,
        recent_from: Uid,
    ) -> Result<Option<(Self, MailboxRow)>, Failure> {
        // Watched first: what changes while it is read is told later, and harmless if it is known by then.
        let watch = mail.watch_mailbox(row.guid);
        let mut messages = Vec::new();
        let mut from = Uid(0);
        loop {
            let page = mail.messages(row.guid, from, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = Uid(last.uid.0.saturating_add(1));
            messages.extend(page.into_iter().map(shown));
            tokio::task::yield_now().await;
        }
        let Some(mut after) = mail.mailbox(row.guid).await? else {
            return Ok(None);
        };
        if after.uid_validity != row.uid_validity {
            return Err(cannot_show());
        }
        after.uid_next = uid_next(row, messages.last());
        let view = SessionView::new(messages, recent_from).map_err(|_| cannot_show())?;
        let mailbox = Self {
            guid: row.guid,
            read_only,
            view,
            watch,
            pulled: row.highest_modseq,
            keywords: after.keywords.iter().cloned().collect(),
            keywords_changed: false,
        };
        Ok(Some((mailbox, after)))
    }

    /// Takes what changed into the view.
    pub(crate) async fn pull(&mut self, mail: &AccountMail, expected: &Expected) -> Result<(), Failure> {
        self.watch.take_changed();
        let mut resynced = false;
        loop {
            let changes = mail.changes(self.guid, self.pulled, PAGE).await?;
            let Some(changes) = changes else {
                return Err(End::Bye("The selected mailbox was deleted").into());
            };
            if changes.forgotten && !resynced {
                resynced = true;
                self.drop_vanished(mail).await?;
            }
            for change in changes.changes {
                self.take_change(change, expected)?;
            }
            match changes.next {
                Some(next) => self.pulled = self.pulled.max(next),
                None => break,
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn take_change(&mut self, change: Change, expected: &Expected) -> Result<(), Failure> {
        match change {
            Change::Message(row) => {
                self.pulled = self.pulled.max(row.modseq);
                for keyword in &row.flags.keywords {
                    self.keywords_changed |= self.keywords.insert(keyword.clone());
                }
                let own = expected.get(&row.uid) == Some(&row.flags);
                let taken = if own {
                    self.view.handle_own_change(shown(row))
                } else {
                    self.view.handle_message(shown(row))
                };
                taken.map_err(|_| cannot_show())?;
            }
            Change::Vanished { uid, modseq, .. } => {
                self.pulled = self.pulled.max(modseq);
                self.view.handle_vanished(uid, modseq);
            }
        }
        Ok(())
    }

    /// The store does not remember any more what vanished since the view was last new: what is not there has.
    async fn drop_vanished(&mut self, mail: &AccountMail) -> Result<(), Failure> {
        let mut there = BTreeSet::new();
        let mut from = Uid(0);
        loop {
            let page = mail.messages(self.guid, from, PAGE).await?;
            let Some(last) = page.last() else { break };
            from = Uid(last.uid.0.saturating_add(1));
            there.extend(page.iter().map(|row| row.uid));
            tokio::task::yield_now().await;
        }
        let gone: Vec<Uid> = self
            .view
            .iter()
            .map(|message| message.uid)
            .filter(|uid| !there.contains(uid))
            .collect();
        for uid in gone {
            self.view.handle_vanished(uid, self.pulled);
        }
        Ok(())
    }

    /// Tells the client what it may be told.
    pub(crate) async fn tell(&mut self, client: &mut Client, shared: &Shared, telling: Telling) -> Result<(), End> {
        if std::mem::take(&mut self.keywords_changed) {
            let flags = self.flags();
            let code = Code::PermanentFlags(flags.clone(), true);
            let read_only = self.read_only;
            client
                .say(|encoder| {
                    encoder.flags(&flags);
                    if !read_only {
                        encoder.untagged(Status::Ok, Some(&code), "Flags that last");
                    }
                })
                .await?;
        }
        if !self.view.has_updates() {
            return Ok(());
        }
        let updates = self.view.take_updates(telling.expunge);
        if updates.iter().any(|update| matches!(update, Update::Exists(_))) {
            self.note_announced(shared);
        }
        for update in updates {
            client
                .say(|encoder| match update {
                    Update::Expunge(number) => encoder.expunge(number),
                    Update::Exists(count) => encoder.exists(count),
                    Update::Recent(count) => encoder.recent(count),
                    Update::Fetch { .. } => {}
                })
                .await?;
            if let Update::Fetch {
                sequence_number,
                uid,
                flags,
                recent,
                ..
            } = update
            {
                client
                    .say_flags(sequence_number, telling.uid.then_some(uid), &flags, recent)
                    .await?;
            }
        }
        Ok(())
    }

    /// The client was told of everything that the view holds; other sessions need not call it recent.
    pub(crate) fn note_announced(&self, shared: &Shared) {
        if self.read_only {
            return;
        }
        if let Some(last) = self.view.by_sequence_number(self.view.exists()) {
            shared.set_announced(self.guid, Uid(last.uid.0.saturating_add(1)));
        }
    }

    /// The flags that messages here have or may get.
    pub(crate) fn flags(&self) -> Flags {
        let mut flags = Flags::system(u8::MAX);
        flags.keywords.clone_from(&self.keywords);
        flags
    }

    /// The messages that a set names, as ranges of sequence numbers.
    pub(crate) fn numbers(&self, set: &SequenceSet, uid: bool) -> Result<Vec<std::ops::Range<u32>>, Failure> {
        self.view
            .select(set, uid)
            .map_err(|_| Answer::bad("There is no message of that number").into())
    }

    /// Refused where the mailbox may not be changed.
    pub(crate) fn check_writable(&self) -> Result<(), Failure> {
        if self.read_only {
            return Err(Answer::no(Code::ReadOnly, "The mailbox was opened to be read only").into());
        }
        Ok(())
    }
}

/// The UIDNEXT to announce with a view (rule U2): a message below it is in the view or is gone. What came after the last
/// page was read has a UID at or above it, and is told later.
fn uid_next(before: &MailboxRow, last: Option<&Message>) -> Uid {
    let behind = last.map_or(Uid(0), |last| Uid(last.uid.0.saturating_add(1)));
    before.uid_next.max(behind)
}

/// A row as the view wants it.
pub(crate) fn shown(row: MessageRow) -> Message {
    Message {
        uid: row.uid,
        guid: row.guid,
        flags: row.flags,
        modseq: row.modseq,
    }
}

/// RFC 3501 leaves no way to say that a UID denotes another message now, or that one came in between.
fn cannot_show() -> Failure {
    End::Bye("The mailbox changed in a way that needs a new session").into()
}

/// Rows that are read at once. Cost: some 300 octets each.
const PAGE: usize = 2000;

#[cfg(test)]
mod tests {
    use core_types::MessageGuid;
    use core_types::limits::{DELIVERY_MEMORY, OP_TIME_STEP_MAX};
    use mailstore::testing::TestStore;

    use super::*;

    #[tokio::test]
    async fn the_next_uid_that_is_announced_fits_the_messages_that_are_counted() {
        let message = |uid| Message {
            uid: Uid(uid),
            guid: MessageGuid([1; 16]),
            flags: Flags::default(),
            modseq: ModSeq(1),
        };
        let test = TestStore::new(1).await;
        let account = &test.accounts[0];
        let mail = test.store.account(account);
        let inbox = core_types::MailboxName::parse("INBOX").unwrap();
        let before = mail.mailbox_by_name(&inbox).await.unwrap().unwrap();
        assert_eq!(uid_next(&before, None), before.uid_next);
        test.deliver(account, b"Subject: x\r\n\r\nx\r\n").await;
        // It came after the row was read and before the messages were.
        let (mailbox, after) = Mailbox::open(&mail, &before, false, Uid(0)).await.unwrap().unwrap();
        assert_eq!((mailbox.view.exists(), after.uid_next), (1, Uid(2)));
        // It came after the messages were read: it is not counted, and so not below UIDNEXT.
        assert_eq!(uid_next(&before, None), Uid(1));
        // The last one went.
        let row = mail.mailbox_by_name(&inbox).await.unwrap().unwrap();
        assert_eq!(uid_next(&row, None), Uid(2));
        assert_eq!(uid_next(&before, Some(&message(9))), Uid(10));
    }

    #[tokio::test]
    async fn what_vanished_so_long_ago_that_it_is_forgotten_is_told_all_the_same() {
        let test = TestStore::new(1).await;
        let account = &test.accounts[0];
        let mail = test.store.account(account);
        test.deliver(account, b"Subject: x\r\n\r\nx\r\n").await;
        test.deliver(account, b"Subject: y\r\n\r\ny\r\n").await;
        let inbox = core_types::MailboxName::inbox();
        let row = mail.mailbox_by_name(&inbox).await.unwrap().unwrap();
        let (mut mailbox, _) = Mailbox::open(&mail, &row, false, Uid(9)).await.unwrap().unwrap();
        let gone = mailbox.view.by_uid(Uid(1)).unwrap().guid;
        mail.expunge(row.guid, &[gone], false).await.unwrap();
        let mut passed = std::time::Duration::ZERO;
        while passed <= DELIVERY_MEMORY {
            test.clock.advance(u64::try_from(OP_TIME_STEP_MAX.as_millis()).unwrap());
            let prune = state::MailboxOp::Prune { limit: 100 };
            test.store.propose(account.group, prune).await.unwrap();
            passed += OP_TIME_STEP_MAX;
        }
        mailbox.pull(&mail, &Expected::new()).await.unwrap();
        assert_eq!(mailbox.view.take_updates(true), [Update::Expunge(1)]);
        assert_eq!(mailbox.view.exists(), 1);
    }
}
