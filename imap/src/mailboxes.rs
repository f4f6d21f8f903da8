//! CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 3501 6.3.3 to 6.3.7; RFC 6154).

use core_types::MailboxName;
use imap_proto::Code;
use imap_proto::command::SpecialUse;
use state::rows;

use crate::errors::{Answer, Failure};
use crate::session::Session;

impl Session {
    pub(crate) async fn create(&mut self, name: MailboxName, special_use: &[SpecialUse]) -> Result<Answer, Failure> {
        let mail = self.mail()?;
        let special_use = match special_use {
            [] => None,
            [one] => Some(stored_use(*one).ok_or_else(no_such_use)?),
            _ => return Err(no_such_use().into()),
        };
        mail.create(name, special_use).await?;
        Ok(Answer::ok("CREATE completed"))
    }

    pub(crate) async fn delete(&mut self, name: &MailboxName) -> Result<Answer, Failure> {
        let mail = self.mail()?;
        let row = self.find(name).await?.ok_or_else(missing)?;
        mail.delete(row.guid).await?;
        let login = self.login()?;
        // Its own deletion is no surprise to this session; it has no mailbox selected now.
        if login.mailbox.as_ref().is_some_and(|mailbox| mailbox.guid == row.guid) {
            login.mailbox = None;
        }
        Ok(Answer::ok("DELETE completed"))
    }

    pub(crate) async fn rename(&mut self, from: &MailboxName, to: MailboxName) -> Result<Answer, Failure> {
        let mail = self.mail()?;
        let row = self.find(from).await?.ok_or_else(missing)?;
        mail.rename(row.guid, to).await?;
        Ok(Answer::ok("RENAME completed"))
    }

    pub(crate) async fn subscribe(&mut self, name: MailboxName, subscribed: bool) -> Result<Answer, Failure> {
        self.mail()?.subscribe(name, subscribed).await?;
        Ok(Answer::ok("Completed"))
    }
}

fn missing() -> Answer {
    Answer::no(Code::NonExistent, "No such mailbox")
}

fn no_such_use() -> Answer {
    Answer::no(Code::UseAttr, "No mailbox can have that use")
}

/// RFC 6154: `\All` and `\Flagged` would be views of other mailboxes, which are not offered.
fn stored_use(special_use: SpecialUse) -> Option<rows::SpecialUse> {
    Some(match special_use {
        SpecialUse::Archive => rows::SpecialUse::Archive,
        SpecialUse::Drafts => rows::SpecialUse::Drafts,
        SpecialUse::Junk => rows::SpecialUse::Junk,
        SpecialUse::Sent => rows::SpecialUse::Sent,
        SpecialUse::Trash => rows::SpecialUse::Trash,
        SpecialUse::All | SpecialUse::Flagged => return None,
    })
}

/// The other way round.
pub(crate) fn shown_use(special_use: rows::SpecialUse) -> SpecialUse {
    match special_use {
        rows::SpecialUse::Archive => SpecialUse::Archive,
        rows::SpecialUse::Drafts => SpecialUse::Drafts,
        rows::SpecialUse::Junk => SpecialUse::Junk,
        rows::SpecialUse::Sent => SpecialUse::Sent,
        rows::SpecialUse::Trash => SpecialUse::Trash,
    }
}
