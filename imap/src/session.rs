//! One session: its states (RFC 3501 3), the loop that reads and answers, and the deadlines.
//!
//! Invariant: leaving a state drops what belongs to it. The selected mailbox is owned by the login, an APPEND's bytes by
//! the append under way; there is nothing to reset.

use std::net::IpAddr;
use std::sync::Arc;

use core_types::limits::{IMAP_ERRORS_BEFORE_LOGIN_MAX, IMAP_IDLE_TIMEOUT, IMAP_LOGIN_TIME_MAX, IMAP_LOGIN_TIMEOUT};
use imap_proto::{Code, CommandReader, Event, Status, Tag};
use mailstore::AccountMail;
use tokio::time::Instant;
use wire::{Connection, Permit, ServerTls};

use crate::Context;
use crate::append::Appending;
use crate::client::{Client, Read};
use crate::errors::{Answer, End, Failure};
use crate::selected::Mailbox;
use crate::shared::SessionPermit;

/// See the module.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) reader: CommandReader,
    pub(crate) context: Context,
    pub(crate) peer: IpAddr,
    pub(crate) secure: bool,
    pub(crate) tls: Option<Arc<ServerTls>>,
    pub(crate) plain_login: bool,
    pub(crate) login: Option<Login>,
    pub(crate) failed_logins: u32,
    errors: u32,
    pub(crate) under_way: UnderWay,
    deadline: Instant,
    /// When an idle session looks again for changes that could not be read.
    pub(crate) look_again: Option<Instant>,
    /// When it has to be logged in.
    login_deadline: Instant,
    _permit: Permit,
}

/// Who is logged in: the state "authenticated", or "selected" with a mailbox.
pub(crate) struct Login {
    pub(crate) mail: AccountMail,
    pub(crate) mailbox: Option<Mailbox>,
    pub(crate) _permit: SessionPermit,
}

/// A command that takes more than one step.
pub(crate) enum UnderWay {
    Nothing,
    Append(Box<Appending>),
    Authenticate(Tag),
    Idle(Tag),
}

impl Session {
    pub(crate) fn new(connection: Connection, context: Context) -> Self {
        let Connection {
            stream,
            peer,
            secure,
            tls,
            plain_login,
            shutdown,
            permit,
        } = connection;
        Self {
            client: Client::new(stream, shutdown),
            reader: CommandReader::new(false),
            context,
            peer: peer.ip(),
            secure,
            tls,
            plain_login,
            login: None,
            failed_logins: 0,
            errors: 0,
            under_way: UnderWay::Nothing,
            deadline: Instant::now() + IMAP_LOGIN_TIMEOUT,
            look_again: None,
            login_deadline: Instant::now() + IMAP_LOGIN_TIME_MAX,
            _permit: permit,
        }
    }

    /// Runs until the session ends.
    pub(crate) async fn run(mut self) -> End {
        let end = match self.work().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        match &end {
            End::Bye(text) => self.client.close(Some((None, text))).await,
            End::Inactive => {
                self.client
                    .close(Some((Some(Code::Inactive), "Idle for too long")))
                    .await
            }
            End::Logout => self.client.close(None).await,
            End::Gone | End::Output(_) | End::Abort(_) => {}
        }
        end
    }

    async fn work(&mut self) -> Result<std::convert::Infallible, End> {
        let greeting = Code::Capability(self.capabilities());
        self.client
            .say(|encoder| encoder.untagged(Status::Ok, Some(&greeting), "IMAP4rev1 server ready"))
            .await?;
        loop {
            self.client.flush().await?;
            let Some(octets) = self.next_octets().await? else {
                continue;
            };
            let mut rest = octets.as_slice();
            while let Some(event) = self.reader.poll(&mut rest) {
                // A client that is only asked for more has not done its part yet.
                let progress = !matches!(event, Event::Continue);
                // Boxed, so that an idle session holds no room for the largest command.
                Box::pin(self.handle_event(event, rest.is_empty())).await?;
                if progress {
                    self.deadline = Instant::now() + self.patience();
                }
            }
        }
    }

    /// What the client sends; `None` after a change of an idle session's mailbox was told, or while a message comes in.
    async fn next_octets(&mut self) -> Result<Option<Vec<u8>>, End> {
        if let UnderWay::Append(appending) = &mut self.under_way {
            return appending.pace.read(&mut self.client).await;
        }
        let mut deadline = self.deadline;
        if self.login.is_none() {
            // Also for whoever is never silent.
            if Instant::now() >= self.login_deadline {
                return Err(TOO_SLOW_TO_LOG_IN);
            }
            deadline = deadline.min(self.login_deadline);
        }
        let watch = match (&self.under_way, &mut self.login) {
            (UnderWay::Idle(_), Some(login)) => login.mailbox.as_mut().map(|mailbox| &mut mailbox.watch),
            _ => None,
        };
        let look_again = self.look_again;
        let changed = async {
            match (watch, look_again) {
                (Some(_), Some(at)) => tokio::time::sleep_until(at).await,
                (Some(watch), None) => watch.changed().await,
                (None, _) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            read = self.client.read(READ_BYTES, deadline) => match read? {
                Read::Octets(octets) => Ok(Some(octets)),
                Read::Late if self.login.is_none() => Err(TOO_SLOW_TO_LOG_IN),
                Read::Late => Err(End::Inactive),
            },
            () = changed => {
                Box::pin(self.push_changes()).await?;
                Ok(None)
            }
        }
    }

    async fn handle_event(&mut self, event: Event<'_>, nothing_follows: bool) -> Result<(), End> {
        match event {
            Event::Command(command) => self.handle_command(command, nothing_follows).await,
            Event::Continue => {
                self.client.say(|encoder| encoder.continuation("OK")).await?;
                self.client.flush().await
            }
            Event::Refused(refusal) => {
                self.under_way = UnderWay::Nothing;
                self.client.say(|encoder| encoder.refusal(&refusal)).await?;
                self.count_error()
            }
            Event::AppendStart(append) => self.begin_append(append).await,
            Event::AppendData(octets) => self.append_octets(octets).await,
            Event::AppendEnd => self.finish_append().await,
            Event::AuthenticateResponse(message) => {
                let UnderWay::Authenticate(tag) = std::mem::replace(&mut self.under_way, UnderWay::Nothing) else {
                    return Ok(());
                };
                let outcome = self.authenticate_plain(&message).await;
                self.end_command(&tag, outcome).await
            }
            Event::IdleDone => self.end_idle().await,
            Event::Fatal(fatal) => {
                self.client.say(|encoder| encoder.fatal(&fatal)).await?;
                Err(End::Logout)
            }
        }
    }

    /// Writes a command's end, whatever it came to.
    pub(crate) async fn end_command(&mut self, tag: &Tag, outcome: Result<Answer, Failure>) -> Result<(), End> {
        match outcome {
            Ok(answer) | Err(Failure::Answer(answer)) => {
                self.client.answer(tag, &answer).await?;
                if answer.status == Status::Bad {
                    self.count_error()?;
                }
                Ok(())
            }
            Err(Failure::Done) => Ok(()),
            Err(Failure::End(end)) => Err(end),
        }
    }

    /// Whoever cannot log in and sends what is no command is not a mail program.
    fn count_error(&mut self) -> Result<(), End> {
        if self.login.is_some() {
            return Ok(());
        }
        self.errors += 1;
        if self.errors >= IMAP_ERRORS_BEFORE_LOGIN_MAX {
            return Err(End::Bye("Too many errors"));
        }
        Ok(())
    }

    /// Who is logged in.
    pub(crate) fn login(&mut self) -> Result<&mut Login, Failure> {
        self.login.as_mut().ok_or_else(|| Answer::bad("Log in first").into())
    }

    /// The account's mail.
    pub(crate) fn mail(&mut self) -> Result<AccountMail, Failure> {
        Ok(self.login()?.mail.clone())
    }

    /// The selected mailbox, and what it is read with.
    pub(crate) fn selected(&mut self) -> Result<(&mut Client, &AccountMail, &mut Mailbox), Failure> {
        let Some(login) = &mut self.login else {
            return Err(Answer::bad("Log in first").into());
        };
        match &mut login.mailbox {
            Some(mailbox) => Ok((&mut self.client, &login.mail, mailbox)),
            None => Err(Answer::bad("No mailbox is selected").into()),
        }
    }

    fn patience(&self) -> std::time::Duration {
        if self.login.is_some() {
            IMAP_IDLE_TIMEOUT
        } else {
            IMAP_LOGIN_TIMEOUT
        }
    }
}

/// Octets that are read at once. Cost: this much for each idle session.
const READ_BYTES: usize = 1024;

const TOO_SLOW_TO_LOG_IN: End = End::Bye("Too slow to log in");
