//! One connection: carries out what the machine asks for.
//!
//! Invariants: one task; answers in the order of the commands; nothing is deleted but by [`Action::Commit`]; a message
//! is in memory only piece by piece; what an idle session holds is its maildrop's list and a few KiB.
//!
//! Not here: what is answered to which command ([`crate::proto`]).

mod maildrop;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use core_types::limits::POP3_IDLE_TIMEOUT;
use directory::Account;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;
use wire::{BoxStream, Connection, Output, OutputError, Permit, ServerTls, Shutdown, TlsError};

use self::maildrop::{MaildropSource, OpenMessage, PIECE_BYTES};
use crate::Context;
use crate::proto::{Action, Config, Input, Machine, MessageEncoder, Password, Refusal, Tls, Verdict};
use crate::refusal;

/// Serves a connection until it ends. Neither answers nor panics tell why it ended; the log does.
pub async fn serve(connection: Connection, context: Context) {
    let peer = connection.peer;
    match Session::new(connection, context).run().await {
        Ok(()) => tracing::debug!(%peer, "POP3 session ended"),
        Err(error) => tracing::info!(%peer, %error, "POP3 session failed"),
    }
}

struct Session {
    context: Context,
    machine: Machine,
    stream: BoxStream,
    output: Output,
    peer: SocketAddr,
    /// For STLS.
    tls: Option<Arc<ServerTls>>,
    shutdown: Shutdown,
    /// Who is logged in.
    account: Option<Account>,
    maildrop: Option<MaildropSource>,
    /// Opened for RETR or TOP, until it is sent.
    message: Option<OpenMessage>,
    /// Counts the connection.
    _permit: Permit,
}

/// Why a session ended before its time.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error("reading: {0}")]
    Read(#[source] std::io::Error),
    #[error("writing: {0}")]
    Write(#[from] OutputError),
    #[error("STLS: {0}")]
    Tls(#[from] TlsError),
    #[error("STLS where there is no certificate")]
    NoTls,
}

/// What comes of an action.
enum Step {
    /// On to the next.
    Done,
    /// Tell the machine.
    Answer(Input<'static>),
    /// The session is over.
    Close,
}

impl Step {
    fn verdict(result: Result<Verdict, Refusal>) -> Self {
        Self::Answer(Input::Verdict(result.unwrap_or_else(Verdict::Refused)))
    }
}

impl Session {
    fn new(connection: Connection, context: Context) -> Self {
        let Connection {
            stream,
            peer,
            secure,
            tls,
            plain_login,
            shutdown,
            permit,
        } = connection;
        let config = Config {
            host: context.host().to_owned(),
            plain_login,
        };
        let tls_state = match &tls {
            _ if secure => Tls::Active,
            Some(_) => Tls::Available,
            None => Tls::Unavailable,
        };
        Self {
            context,
            machine: Machine::new(config, tls_state),
            stream,
            output: Output::default(),
            peer,
            tls,
            shutdown,
            account: None,
            maildrop: None,
            message: None,
            _permit: permit,
        }
    }

    async fn run(mut self) -> Result<(), SessionError> {
        let mut buffer = vec![0_u8; READ_BYTES];
        let mut actions = Vec::new();
        let mut input = Input::Connected;
        let mut deadline = Instant::now() + POP3_IDLE_TIMEOUT;
        loop {
            self.machine.handle(input, &mut actions);
            // Only a whole command makes the machine act: octets that trickle in do not keep a session alive.
            let acted = !actions.is_empty();
            let mut answer = None;
            for action in actions.drain(..) {
                // Boxed, so that an idle session does not carry the futures of the store around.
                match Box::pin(self.carry_out(action)).await? {
                    Step::Done => {}
                    Step::Answer(input) => answer = Some(input),
                    Step::Close => return self.close().await,
                }
            }
            if acted {
                deadline = Instant::now() + POP3_IDLE_TIMEOUT;
            }
            if self.machine.is_closed() {
                return Ok(());
            }
            input = match answer {
                Some(input) => input,
                None => self.read(&mut buffer, deadline).await?,
            };
        }
    }

    async fn read<'b>(&mut self, buffer: &'b mut [u8], deadline: Instant) -> Result<Input<'b>, SessionError> {
        self.output.flush(&mut self.stream).await?;
        let count = tokio::select! {
            biased;
            () = self.shutdown.stopped() => return Ok(Input::Timeout),
            read = tokio::time::timeout_at(deadline, self.stream.read(buffer)) => match read {
                Ok(read) => read.map_err(SessionError::Read)?,
                Err(_) => return Ok(Input::Timeout),
            },
        };
        Ok(match buffer.get(..count) {
            Some(bytes) if count > 0 => Input::Bytes(bytes),
            _ => Input::Disconnected,
        })
    }

    async fn carry_out(&mut self, action: Action) -> Result<Step, SessionError> {
        Ok(match action {
            Action::Reply(bytes) => {
                self.output.add(&mut self.stream, &bytes).await?;
                Step::Done
            }
            Action::Resume => {
                self.output.flush(&mut self.stream).await?;
                Step::Answer(Input::Resume)
            }
            Action::StartTls => {
                self.start_tls().await?;
                Step::Answer(Input::TlsDone)
            }
            Action::Authenticate { identity, password } => self.authenticate(&identity, &password).await,
            Action::OpenMaildrop => self.open_maildrop().await,
            Action::Retrieve { index } | Action::Top { index, .. } => Step::verdict(self.open_message(index).await),
            Action::SendMessage { encoder, .. } => self.send_message(encoder).await?,
            Action::Commit { deleted } => Step::verdict(self.commit(&deleted).await),
            Action::Close => Step::Close,
        })
    }

    async fn start_tls(&mut self) -> Result<(), SessionError> {
        self.output.flush(&mut self.stream).await?;
        let tls = self.tls.take().ok_or(SessionError::NoTls)?;
        let clear = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        self.stream = tls.accept(clear).await?;
        Ok(())
    }

    async fn authenticate(&mut self, identity: &str, password: &Password) -> Step {
        let directory = self.context.store().directory();
        let login = tokio::select! {
            biased;
            () = self.shutdown.stopped() => return Step::Answer(Input::Timeout),
            login = directory.authenticate(identity, password.expose().as_bytes(), self.peer.ip()) => login,
        };
        Step::verdict(match login {
            Ok(account) => {
                self.account = Some(account);
                Ok(Verdict::Accepted)
            }
            Err(error) => {
                tracing::info!(peer = %self.peer, %error, "POP3 login refused");
                Err(refusal::of_login(&error))
            }
        })
    }

    async fn open_maildrop(&mut self) -> Step {
        let Some(account) = self.account.take() else {
            return Step::verdict(Err(Refusal::Temporary));
        };
        let opened = tokio::select! {
            biased;
            () = self.shutdown.stopped() => return Step::Answer(Input::Timeout),
            opened = MaildropSource::open(&self.context, &account) => opened,
        };
        Step::verdict(opened.map(|(source, entries)| {
            tracing::info!(peer = %self.peer, account = %account.address, messages = entries.len(), "POP3 login");
            self.maildrop = Some(source);
            Verdict::Maildrop(entries)
        }))
    }

    async fn open_message(&mut self, index: usize) -> Result<Verdict, Refusal> {
        let (Some(maildrop), Some(guid)) = (&self.maildrop, self.machine.guid(index)) else {
            return Err(Refusal::Temporary);
        };
        self.message = Some(maildrop.open_message(guid).await?);
        Ok(Verdict::Accepted)
    }

    /// Sends the open message, as much of it as the encoder wants; reads no more.
    async fn send_message(&mut self, mut encoder: MessageEncoder) -> Result<Step, SessionError> {
        let Some(mut message) = self.message.take() else {
            return Ok(Step::verdict(Err(Refusal::Temporary)));
        };
        let mut encoded = Vec::with_capacity(PIECE_BYTES);
        while !encoder.is_done() {
            let piece = match message.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                // Too late for an answer: the machine closes without the line that ends a message.
                Err(refusal) => return Ok(Step::verdict(Err(refusal))),
            };
            encoded.clear();
            encoder.encode(&piece, &mut encoded);
            self.output.add(&mut self.stream, &encoded).await?;
        }
        encoded.clear();
        encoder.finish(&mut encoded);
        self.output.add(&mut self.stream, &encoded).await?;
        Ok(Step::verdict(Ok(Verdict::Sent)))
    }

    /// Not ended by a shutdown: the client is to be told what became of its deletes.
    async fn commit(&mut self, deleted: &[usize]) -> Result<Verdict, Refusal> {
        let Some(maildrop) = &self.maildrop else {
            return Err(Refusal::Temporary);
        };
        let guids: Vec<_> = deleted.iter().filter_map(|index| self.machine.guid(*index)).collect();
        maildrop.delete(&guids).await.map(|()| Verdict::Accepted)
    }

    async fn close(mut self) -> Result<(), SessionError> {
        self.output.flush(&mut self.stream).await?;
        // The client may be gone already, and what it was to know has been sent.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.stream.shutdown()).await;
        Ok(())
    }
}

/// What is read at once. Cost: this much per session, once more for a line that is not whole yet.
const READ_BYTES: usize = 1024;
/// How long a client may take to take note of the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
