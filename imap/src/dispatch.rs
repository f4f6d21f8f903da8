//! Which command is carried out by what, and what its end tells of other changes.

use imap_proto::{Command, CommandBody, Tag};

use crate::errors::{Answer, End, Failure};
use crate::selected::{Expected, Telling};
use crate::session::Session;

impl Session {
    /// Carries out a command and writes its end.
    pub(crate) async fn handle_command(&mut self, command: Command, nothing_follows: bool) -> Result<(), End> {
        let Command { tag, body } = command;
        let telling = telling(&body);
        let outcome = self.carry_out(&tag, body, nothing_follows).await;
        if matches!(outcome, Err(Failure::End(_) | Failure::Done)) {
            return self.end_command(&tag, outcome).await;
        }
        if let Some(telling) = telling {
            self.tell_news(telling).await?;
        }
        self.end_command(&tag, outcome).await
    }

    /// Tells the client what changed in its mailbox, as far as it may be told now.
    pub(crate) async fn tell_news(&mut self, telling: Telling) -> Result<(), End> {
        let shared = std::sync::Arc::clone(&self.context.shared);
        let Ok((client, mail, mailbox)) = self.selected() else {
            return Ok(());
        };
        if mailbox.watch.take_changed() {
            match mailbox.pull(mail, &Expected::new()).await {
                Err(Failure::End(end)) => return Err(end),
                // It cannot be read now; the next command looks again.
                Err(_) => mailbox.watch.note_change(),
                Ok(()) => {}
            }
        }
        mailbox.tell(client, &shared, telling).await
    }

    async fn carry_out(&mut self, tag: &Tag, body: CommandBody, nothing_follows: bool) -> Result<Answer, Failure> {
        match body {
            CommandBody::Capability => {
                let capabilities = self.capabilities();
                self.client.say(|encoder| encoder.capability(&capabilities)).await?;
                Ok(Answer::ok("CAPABILITY completed"))
            }
            CommandBody::Noop => self.noop().await,
            CommandBody::Logout => self.logout(tag).await,
            CommandBody::Id(_) => self.id().await,
            CommandBody::StartTls => self.starttls(tag, nothing_follows).await,
            CommandBody::Authenticate { mechanism, initial } => self.authenticate(tag, &mechanism, initial).await,
            CommandBody::Login { username, password } => self.log_in(&username, &password).await,
            CommandBody::Namespace => {
                self.login()?;
                self.client.say(|encoder| encoder.namespace()).await?;
                Ok(Answer::ok("NAMESPACE completed"))
            }
            CommandBody::Select(name) => self.select(&name, false).await,
            CommandBody::Examine(name) => self.select(&name, true).await,
            CommandBody::Create { mailbox, special_use } => self.create(mailbox, &special_use).await,
            CommandBody::Delete(name) => self.delete(&name).await,
            CommandBody::Rename { from, to } => self.rename(&from, to).await,
            CommandBody::Subscribe(name) => self.subscribe(name, true).await,
            CommandBody::Unsubscribe(name) => self.subscribe(name, false).await,
            CommandBody::List(list) => self.list(&list).await,
            CommandBody::Lsub(pattern) => self.lsub(&pattern).await,
            CommandBody::Status { mailbox, items } => self.status(&mailbox, &items).await,
            CommandBody::Check => {
                self.selected()?;
                self.noop().await
            }
            CommandBody::Close => self.close().await,
            CommandBody::Unselect => self.unselect(),
            CommandBody::Expunge => self.expunge(None).await,
            CommandBody::UidExpunge(set) => self.expunge(Some(&set)).await,
            CommandBody::Search { uid, key } => self.search(uid, key).await,
            CommandBody::Fetch { uid, set, items } => self.fetch(uid, &set, &items).await,
            CommandBody::Store {
                uid,
                set,
                op,
                silent,
                flags,
            } => self.store(uid, &set, op, silent, flags).await,
            CommandBody::Copy { uid, set, mailbox } => self.copy(uid, &set, &mailbox, false).await,
            CommandBody::Move { uid, set, mailbox } => self.copy(uid, &set, &mailbox, true).await,
            CommandBody::Idle => self.begin_idle(tag).await,
        }
    }

    async fn noop(&mut self) -> Result<Answer, Failure> {
        if let Some(login) = &mut self.login {
            login.mail.sync().await?;
            if let Some(mailbox) = &mut login.mailbox {
                mailbox.pull(&login.mail, &Expected::new()).await?;
            }
        }
        Ok(Answer::ok("Completed"))
    }

    async fn logout(&mut self, tag: &Tag) -> Result<Answer, Failure> {
        self.client
            .say(|encoder| encoder.untagged(imap_proto::Status::Bye, None, "Logging out"))
            .await?;
        self.client.answer(tag, &Answer::ok("LOGOUT completed")).await?;
        Err(End::Logout.into())
    }

    async fn id(&mut self) -> Result<Answer, Failure> {
        self.client.say(|encoder| encoder.id(&[("name", "Everpost")])).await?;
        Ok(Answer::ok("ID completed"))
    }
}

/// What a command's end may tell. RFC 3501 7.4.1: no EXPUNGE in FETCH, STORE and SEARCH, or the client would take its
/// sequence numbers for others'; their UID forms are other commands. `None`: nothing, since the mailbox is another then.
fn telling(body: &CommandBody) -> Option<Telling> {
    let uid = match body {
        CommandBody::Search { uid, .. } | CommandBody::Fetch { uid, .. } | CommandBody::Store { uid, .. } => *uid,
        CommandBody::Select(_) | CommandBody::Examine(_) | CommandBody::Close | CommandBody::Unselect => return None,
        CommandBody::Copy { uid, .. } | CommandBody::Move { uid, .. } => {
            return Some(Telling {
                expunge: true,
                uid: *uid,
            });
        }
        _ => {
            return Some(Telling {
                expunge: true,
                uid: false,
            });
        }
    };
    Some(Telling { expunge: uid, uid })
}
