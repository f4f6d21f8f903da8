//! STORE, EXPUNGE, UID EXPUNGE (RFC 3501 6.4.6, 6.4.3; RFC 4315 2.1).

use core_types::{Flags, MessageGuid};
use imap_proto::command::StoreOp;
use imap_proto::{Code, SequenceSet};
use state::command::FlagChange;

use crate::errors::{Answer, Failure};
use crate::select::deleted_messages;
use crate::selected::{Expected, Mailbox};
use crate::session::Session;

impl Session {
    pub(crate) async fn store(
        &mut self,
        uid: bool,
        set: &SequenceSet,
        op: StoreOp,
        silent: bool,
        flags: Flags,
    ) -> Result<Answer, Failure> {
        let (client, mail, mailbox) = self.selected()?;
        mailbox.check_writable()?;
        let ranges = mailbox.numbers(set, uid)?;
        let mut messages: Vec<MessageGuid> = Vec::new();
        let mut expected = Expected::new();
        let mut some_gone = false;
        for number in ranges.iter().cloned().flatten() {
            let Some(message) = mailbox.view.by_sequence_number(number) else {
                continue;
            };
            if message.gone {
                some_gone = true;
                continue;
            }
            messages.push(message.guid);
            expected.insert(message.uid, changed(message.flags(), op, &flags));
        }
        if !messages.is_empty() {
            let stored = mail.store_flags(mailbox.guid, &messages, change(op), &flags).await?;
            some_gone |= !stored.missing.is_empty();
            mailbox.pull(mail, &expected).await?;
        }
        if !silent {
            for number in ranges.into_iter().flatten() {
                let Some(message) = mailbox.view.by_sequence_number(number) else {
                    continue;
                };
                if !message.gone {
                    client
                        .say_flags(number, uid.then_some(message.uid), &message.flags(), message.recent)
                        .await?;
                }
            }
        }
        // RFC 2180 4.2.2: whoever counts in sequence numbers does not know yet that some are gone.
        if some_gone && !uid && !silent {
            return Err(Answer::no(Code::ExpungeIssued, "Some of the messages are gone").into());
        }
        Ok(Answer::ok("STORE completed"))
    }

    /// `set`: of these UIDs only.
    pub(crate) async fn expunge(&mut self, set: Option<&SequenceSet>) -> Result<Answer, Failure> {
        let (_, mail, mailbox) = self.selected()?;
        mailbox.check_writable()?;
        mailbox.pull(mail, &Expected::new()).await?;
        let messages = match set {
            None => deleted_messages(mailbox),
            Some(set) => deleted_of(mailbox, set)?,
        };
        if !messages.is_empty() {
            mail.expunge(mailbox.guid, &messages, true).await?;
            mailbox.pull(mail, &Expected::new()).await?;
        }
        Ok(Answer::ok("EXPUNGE completed"))
    }
}

fn deleted_of(mailbox: &Mailbox, set: &SequenceSet) -> Result<Vec<MessageGuid>, Failure> {
    let numbers = mailbox.numbers(set, true)?.into_iter().flatten();
    Ok(numbers
        .filter_map(|number| mailbox.view.by_sequence_number(number))
        .filter(|message| message.has(Flags::DELETED) && !message.gone)
        .map(|message| message.guid)
        .collect())
}

fn change(op: StoreOp) -> FlagChange {
    match op {
        StoreOp::Replace => FlagChange::Replace,
        StoreOp::Add => FlagChange::Add,
        StoreOp::Remove => FlagChange::Remove,
    }
}

/// What the client expects a message's flags to be afterwards.
fn changed(mut before: Flags, op: StoreOp, flags: &Flags) -> Flags {
    match op {
        StoreOp::Replace => return flags.clone(),
        StoreOp::Add => before.add(flags),
        StoreOp::Remove => before.remove(flags),
    }
    before
}
