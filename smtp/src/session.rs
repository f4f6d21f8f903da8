//! One connection: reads, hands octets to the machine, carries out its actions in their order.
//!
//! Invariants: nothing is read while a question is open, so that a client that sends without waiting is slowed down by
//! its own connection; what was read before TLS is never used inside it (the machine has closed the connection if there
//! was any); an idle session holds a few KiB. Not here: what is answered (`policy`, `finish`).

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use core_types::limits::{
    MESSAGE_BYTES_MAX, SMTP_COMMAND_TIMEOUT, SMTP_DATA_RATE_MIN, SMTP_DATA_RATE_WINDOW, SMTP_EARLY_TALKER_WAIT,
    SMTP_LINGER, SMTP_READ_BYTES_MAX,
};
use directory::Account;
use mailstore::MailStore;
use smtp_proto::{Action, Config, Input, Machine, Phase, Role, Tls, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, Instant};
use wire::{BoxStream, Connection, Output, OutputError, ServerTls, Shutdown, TlsError};

use crate::message::Message;
use crate::policy::Resolved;
use crate::{finish, policy};

/// What all connections of a listener share.
#[derive(Clone)]
pub struct Context {
    /// Where mail goes, and who may send it.
    pub store: MailStore,
    /// The server's own name, for the greeting and the trace.
    pub hostname: Arc<str>,
    /// The dialect.
    pub role: Role,
}

/// Serves a connection until it ends.
pub async fn serve(connection: Connection, context: Context) {
    let peer = connection.peer;
    let mut session = Session::new(connection, context);
    match session.run().await {
        Ok(()) => {}
        // The client's doing, and nothing that an administrator could mend.
        Err(error) => tracing::debug!(%peer, %error, "connection ended"),
    }
    session.hang_up().await;
}

/// Why a session ended otherwise than by its own last word.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    #[error("STARTTLS without a certificate")]
    NoTls,
}

struct Session {
    context: Context,
    machine: Machine,
    stream: BoxStream,
    output: Output,
    /// What the last read brought. Large only while a message comes.
    input: Vec<u8>,
    peer: IpAddr,
    tls: Option<Arc<ServerTls>>,
    shutdown: Shutdown,
    account: Option<Account>,
    /// The accepted recipients of the transaction, in the order in which the machine has them.
    recipients: Vec<Resolved>,
    message: Option<Box<Message>>,
    /// When the command that is awaited has to be complete.
    command_deadline: Instant,
    rate: Rate,
    _permit: wire::Permit,
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
        let tls_state = match (secure, &tls) {
            (true, _) => Tls::Active,
            (false, Some(_)) => Tls::Available,
            (false, None) => Tls::None,
        };
        let machine = Machine::new(Config {
            role: context.role,
            hostname: context.hostname.to_string(),
            tls: tls_state,
            plain_login,
            size_max: MESSAGE_BYTES_MAX,
        });
        Self {
            context,
            machine,
            stream,
            output: Output::default(),
            input: Vec::new(),
            peer: peer.ip(),
            tls,
            shutdown,
            account: None,
            recipients: Vec::new(),
            message: None,
            command_deadline: Instant::now() + SMTP_COMMAND_TIMEOUT,
            rate: Rate::default(),
            _permit: permit,
        }
    }

    async fn run(&mut self) -> Result<(), SessionError> {
        let first = self.wait_for_early_talker().await;
        self.feed(first).await?;
        while self.machine.phase() != Phase::Closed {
            let event = self.read().await;
            self.feed(event).await?;
        }
        Ok(())
    }

    /// RFC 5321 4.3.1: a client waits for the greeting. One that does not is a program that does not listen.
    async fn wait_for_early_talker(&mut self) -> Event {
        let wait = match self.context.role {
            Role::Relay => SMTP_EARLY_TALKER_WAIT,
            // Mail programs and our own mail system: whoever has spoken already is caught, nobody is kept waiting.
            Role::Submission | Role::Lmtp => Duration::ZERO,
        };
        let mut octet = [0_u8; 1];
        tokio::select! {
            biased;
            () = self.shutdown.stopped() => Event::Shutdown,
            early = tokio::time::timeout(wait, self.stream.read(&mut octet)) => match early {
                Err(_) => Event::Connected,
                Ok(Ok(1..)) => Event::Early,
                Ok(Ok(0) | Err(_)) => Event::Gone,
            },
        }
    }

    async fn read(&mut self) -> Event {
        let in_message = self.machine.phase() == Phase::Message;
        let capacity = if in_message {
            SMTP_READ_BYTES_MAX
        } else {
            COMMAND_READ_BYTES
        };
        if self.input.len() != capacity {
            self.input = vec![0; capacity];
        }
        let began = Instant::now();
        let deadline = if in_message {
            began + self.rate.left()
        } else {
            self.command_deadline
        };
        let event = tokio::select! {
            biased;
            () = self.shutdown.stopped() => Event::Shutdown,
            read = tokio::time::timeout_at(deadline, self.stream.read(&mut self.input)) => match read {
                Err(_) => Event::Timeout,
                Ok(Ok(0) | Err(_)) => Event::Gone,
                Ok(Ok(count)) => Event::Bytes(count),
            },
        };
        match event {
            // The end of the window: what came in it decides.
            Event::Timeout if in_message && self.rate.waited(began.elapsed(), 0) => Event::Bytes(0),
            Event::Bytes(count) if in_message && !self.rate.waited(began.elapsed(), count) => Event::Timeout,
            event => event,
        }
    }

    /// Hands an event to the machine and carries out what follows, to the last action.
    async fn feed(&mut self, event: Event) -> Result<(), SessionError> {
        let mut actions = Vec::new();
        let input = match event {
            Event::Connected => Input::Connected,
            Event::Early => Input::EarlyInput,
            Event::Bytes(count) => Input::Bytes(self.input.get(..count).unwrap_or_default()),
            Event::Timeout => Input::Timeout,
            Event::Shutdown => Input::Shutdown,
            Event::Gone => Input::Disconnected,
        };
        self.machine.handle(input, &mut actions);
        let mut todo = VecDeque::from(actions);
        while let Some(action) = todo.pop_front() {
            // Each of these futures is large, and most of the time a session is in none of them.
            Box::pin(self.carry_out(action, &mut todo)).await?;
        }
        self.output.flush(&mut self.stream).await?;
        if self.machine.phase() != Phase::Message {
            self.rate = Rate::default();
        }
        Ok(())
    }

    async fn carry_out(&mut self, action: Action, todo: &mut VecDeque<Action>) -> Result<(), SessionError> {
        match action {
            Action::Reply(bytes) => {
                self.output.add(&mut self.stream, &bytes).await?;
                self.command_deadline = Instant::now() + SMTP_COMMAND_TIMEOUT;
            }
            Action::StartTls => {
                self.start_tls().await?;
                self.answer(Input::TlsDone, todo);
            }
            Action::Authenticate { identity, password } => {
                let directory = self.context.store.directory();
                let login = directory
                    .authenticate(&identity, password.expose().as_bytes(), self.peer)
                    .await;
                self.login(login, todo);
            }
            Action::CheckSender { reverse_path, size } => {
                self.recipients.clear();
                // RFC 1870 6.1: without room for the announced size 452 here, and not after the message was sent.
                let verdict = match policy::check_room(&self.context, size).await {
                    Verdict::Accepted => {
                        policy::check_sender(&self.context, self.account.as_ref(), &reverse_path).await
                    }
                    refused => refused,
                };
                self.verdict(verdict, todo);
            }
            Action::CheckRoom { size } => {
                let verdict = policy::check_room(&self.context, size).await;
                self.verdict(verdict, todo);
            }
            Action::CheckRecipient { recipient, size } => {
                let verdict = match policy::check_recipient(&self.context, &recipient, size).await {
                    Ok(resolved) => {
                        self.recipients.push(resolved);
                        Verdict::Accepted
                    }
                    Err(reply) => Verdict::Refused(reply),
                };
                self.verdict(verdict, todo);
            }
            Action::DataBegin(transaction) => {
                let recipients = std::mem::take(&mut self.recipients);
                self.message = Some(Box::new(
                    Message::begin(&self.context, self.peer, *transaction, recipients).await,
                ));
            }
            Action::MessageBytes(bytes) => {
                if let Some(message) = &mut self.message {
                    message.write(&bytes).await;
                }
            }
            Action::EndOfData => {
                let replies = match self.message.take() {
                    Some(message) => finish::finish_data(&self.context, self.peer, *message).await,
                    None => Vec::new(),
                };
                self.verdict(Verdict::Data(replies), todo);
            }
            Action::AbortMessage => self.message = None,
            Action::Delay(delay) => {
                self.output.flush(&mut self.stream).await?;
                tokio::select! {
                    biased;
                    () = self.shutdown.stopped() => {}
                    () = tokio::time::sleep(delay) => {}
                }
            }
            // The loop in `run` sees that the machine is closed; what is unsent is flushed at the end of `feed`.
            Action::Close => {}
        }
        Ok(())
    }

    fn login(&mut self, login: Result<Account, directory::LoginError>, todo: &mut VecDeque<Action>) {
        let reply = match login {
            Ok(account) => {
                tracing::info!(peer = %self.peer, account = %account.id, "logged in");
                self.account = Some(account);
                return self.verdict(Verdict::Accepted, todo);
            }
            Err(error) => policy::login_refusal(&error),
        };
        tracing::info!(peer = %self.peer, code = reply.code, "login failed");
        self.verdict(Verdict::Refused(reply), todo);
    }

    fn verdict(&mut self, verdict: Verdict, todo: &mut VecDeque<Action>) {
        self.answer(Input::Verdict(verdict), todo);
    }

    fn answer(&mut self, input: Input<'_>, todo: &mut VecDeque<Action>) {
        let mut actions = Vec::new();
        self.machine.handle(input, &mut actions);
        todo.extend(actions);
    }

    async fn start_tls(&mut self) -> Result<(), SessionError> {
        self.output.flush(&mut self.stream).await?;
        let tls = self.tls.take().ok_or(SessionError::NoTls)?;
        // Whoever had logged in before has to do it again (RFC 3207 4.2).
        self.account = None;
        self.recipients.clear();
        let clear: BoxStream = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        self.stream = tls.accept(clear).await?;
        self.command_deadline = Instant::now() + SMTP_COMMAND_TIMEOUT;
        Ok(())
    }

    /// Closes in order: what is still under way from the client is read for a moment, lest a reset destroys our last
    /// reply before the client has read it.
    async fn hang_up(&mut self) {
        self.message = None;
        let stream = &mut self.stream;
        let close = async {
            let _ = self.output.flush(stream).await;
            let _ = stream.shutdown().await;
            let mut rest = [0_u8; 512];
            while matches!(stream.read(&mut rest).await, Ok(1..)) {}
        };
        let _ = tokio::time::timeout(SMTP_LINGER, close).await;
    }
}

/// What happened on the connection.
enum Event {
    Connected,
    Early,
    /// So many octets are in [`Session::input`].
    Bytes(usize),
    Timeout,
    Shutdown,
    Gone,
}

/// How fast a message comes, over the time that was spent waiting for it: a slow disk is not the client's fault.
#[derive(Debug, Default)]
struct Rate {
    waited: Duration,
    octets: u64,
}

impl Rate {
    /// How long the window still lasts.
    fn left(&self) -> Duration {
        SMTP_DATA_RATE_WINDOW.saturating_sub(self.waited)
    }

    /// Counts a wait and what it brought; `false` when the window is over and there was too little in it.
    fn waited(&mut self, time: Duration, octets: usize) -> bool {
        self.waited += time;
        self.octets += octets as u64;
        if self.waited < SMTP_DATA_RATE_WINDOW {
            return true;
        }
        let fast_enough = self.octets >= SMTP_DATA_RATE_MIN * SMTP_DATA_RATE_WINDOW.as_secs();
        *self = Self::default();
        fast_enough
    }
}

/// What a client is told for whom there is no room (`busy` of [`wire::serve_listener`]).
pub const BUSY: &[u8] = b"421 4.7.0 Too many connections, try again later\r\n";

/// Octets that are read at once outside messages. Cost: this much per idle session.
const COMMAND_READ_BYTES: usize = 2048;
