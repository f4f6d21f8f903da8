//! COPY and MOVE (RFC 3501 6.4.7, RFC 6851), with COPYUID (RFC 4315 3).

use core_types::limits::MESSAGES_PER_OP_MAX;
use core_types::{MailboxName, MessageGuid};
use imap_proto::{Code, SequenceSet, Status};
use state::rows::MailboxRow;

use crate::errors::{Answer, Failure};
use crate::selected::Expected;
use crate::session::Session;

impl Session {
    pub(crate) async fn copy(
        &mut self,
        uid: bool,
        set: &SequenceSet,
        name: &MailboxName,
        move_them: bool,
    ) -> Result<Answer, Failure> {
        let (_, _, mailbox) = self.selected()?;
        if move_them {
            mailbox.check_writable()?;
        }
        let mut messages: Vec<MessageGuid> = Vec::new();
        for number in mailbox.numbers(set, uid)?.into_iter().flatten() {
            match mailbox.view.by_sequence_number(number) {
                Some(message) if !message.gone => messages.push(message.guid),
                // RFC 2180 4.4.1: a copy is of all of them or none.
                _ if !uid => return Err(Answer::no(Code::ExpungeIssued, "Some of the messages are gone").into()),
                _ => {}
            }
            if messages.len() > MESSAGES_PER_OP_MAX {
                return Err(Answer::no(Code::Limit, "Too many messages at once").into());
            }
        }
        let target = self.target(name).await?;
        if messages.is_empty() {
            return Ok(Answer::ok("No messages"));
        }
        let (client, mail, mailbox) = self.selected()?;
        let copied = if move_them {
            mail.move_messages(mailbox.guid, target.guid, messages).await?
        } else {
            mail.copy(mailbox.guid, target.guid, messages).await?
        };
        mailbox.pull(mail, &Expected::new()).await?;
        if copied.uids.is_empty() {
            return Ok(Answer::ok("The messages are gone"));
        }
        let (from, to) = copied.uids.into_iter().unzip();
        let code = Code::CopyUid(copied.uid_validity, from, to);
        if !move_them {
            return Ok(Answer::ok_with(code, "COPY completed"));
        }
        // RFC 6851 4.3: before the EXPUNGEs, so not in the tagged response.
        client
            .say(|encoder| encoder.untagged(Status::Ok, Some(&code), "Moved"))
            .await?;
        Ok(Answer::ok("MOVE completed"))
    }

    /// The mailbox that messages are to go to. That there is none is said only if there is none anywhere.
    pub(crate) async fn target(&mut self, name: &MailboxName) -> Result<MailboxRow, Failure> {
        let found = self.find(name).await?;
        Ok(found.ok_or_else(|| Answer::no(Code::TryCreate, "No such mailbox"))?)
    }

    /// The mailbox of a name, looked for at the majority if it is not known here.
    pub(crate) async fn find(&mut self, name: &MailboxName) -> Result<Option<MailboxRow>, Failure> {
        let mail = self.mail()?;
        if let Some(row) = mail.mailbox_by_name(name).await? {
            return Ok(Some(row));
        }
        mail.sync().await?;
        Ok(mail.mailbox_by_name(name).await?)
    }
}
