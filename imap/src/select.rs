//! SELECT, EXAMINE, CLOSE, UNSELECT (RFC 3501 6.3.1, 6.3.2, 6.4.2; RFC 3691).

use std::sync::Arc;

use core_types::{Flags, MailboxName, MessageGuid, Uid};
use imap_proto::{Code, Status};
use state::rows::MailboxRow;

use crate::errors::{Answer, Failure};
use crate::selected::Mailbox;
use crate::session::Session;

impl Session {
    pub(crate) async fn select(&mut self, name: &MailboxName, read_only: bool) -> Result<Answer, Failure> {
        // RFC 3501 6.3.1: also a SELECT that fails ends the selection before it.
        self.login()?.mailbox = None;
        let mail = self.mail()?;
        mail.sync().await?;
        let missing = || Answer::no(Code::NonExistent, "No such mailbox");
        let row = mail.mailbox_by_name(name).await?.ok_or_else(missing)?;
        let shared = Arc::clone(&self.context.shared);
        let recent_from = shared.recent_from(row.guid).unwrap_or(Uid(0));
        let opened = Mailbox::open(&mail, &row, read_only, recent_from).await?;
        let (mailbox, row) = opened.ok_or_else(missing)?;
        mailbox.note_announced(&shared);
        self.describe(&mailbox, &row).await?;
        self.login()?.mailbox = Some(mailbox);
        Ok(if read_only {
            Answer::ok_with(Code::ReadOnly, "EXAMINE completed")
        } else {
            Answer::ok_with(Code::ReadWrite, "SELECT completed")
        })
    }

    async fn describe(&mut self, mailbox: &Mailbox, row: &MailboxRow) -> Result<(), Failure> {
        let flags = mailbox.flags();
        let permanent = if mailbox.read_only {
            Code::PermanentFlags(Flags::default(), false)
        } else {
            Code::PermanentFlags(flags.clone(), true)
        };
        let view = &mailbox.view;
        self.client
            .say(|encoder| {
                encoder.flags(&flags);
                encoder.untagged(Status::Ok, Some(&permanent), "Flags that last");
                encoder.exists(view.exists());
                encoder.recent(view.recent());
                if let Some(unseen) = view.first_unseen() {
                    encoder.untagged(Status::Ok, Some(&Code::Unseen(unseen)), "First unseen");
                }
                encoder.untagged(Status::Ok, Some(&Code::UidValidity(row.uid_validity)), "UIDs valid");
                encoder.untagged(Status::Ok, Some(&Code::UidNext(row.uid_next)), "Next UID");
            })
            .await?;
        Ok(())
    }

    /// Without EXPUNGE responses (RFC 3501 6.4.2).
    pub(crate) async fn close(&mut self) -> Result<Answer, Failure> {
        let (_, mail, mailbox) = self.selected()?;
        if !mailbox.read_only {
            let deleted = deleted_messages(mailbox);
            if !deleted.is_empty() {
                let (mail, guid) = (mail.clone(), mailbox.guid);
                mail.expunge(guid, &deleted, true).await?;
            }
        }
        self.login()?.mailbox = None;
        Ok(Answer::ok("CLOSE completed"))
    }

    pub(crate) fn unselect(&mut self) -> Result<Answer, Failure> {
        self.selected()?;
        self.login()?.mailbox = None;
        Ok(Answer::ok("UNSELECT completed"))
    }
}

/// The messages with `\Deleted` that the session knows of.
pub(crate) fn deleted_messages(mailbox: &Mailbox) -> Vec<MessageGuid> {
    mailbox
        .view
        .iter()
        .filter(|message| message.has(Flags::DELETED) && !message.gone)
        .map(|message| message.guid)
        .collect()
}
