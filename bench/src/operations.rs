//! What is measured: one worker for each kind of operation.

use std::sync::Arc;

use clap::ValueEnum;

use crate::imap::Imap;
use crate::load::{self, Amount, Outcome, Worker};
use crate::pop3::Pop3;
use crate::report::LoadResult;
use crate::smtp::Smtp;
use crate::stream::Endpoint;
use crate::target::{Account, Target, pick};

/// One kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Test {
    /// One message over an SMTP session that stays open.
    Smtp,
    /// The same over LMTP.
    Lmtp,
    /// APPEND of one message.
    Append,
    /// FETCH BODY.PEEK[] of one message.
    Fetch,
    /// STORE of one flag of one message.
    Store,
    /// SEARCH by flag and subject.
    Search,
    /// A new IMAP connection, LOGIN and LOGOUT.
    Login,
    /// RETR of one message of the INBOX (filled if it is empty).
    Pop3,
}

impl Test {
    /// All tests that the target has addresses for.
    pub(crate) fn all_for(target: &Target) -> Vec<Self> {
        Self::value_variants()
            .iter()
            .copied()
            .filter(|test| !test.endpoints(target).is_empty())
            .collect()
    }

    /// Its name on the command line.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
            Self::Append => "append",
            Self::Fetch => "fetch",
            Self::Store => "store",
            Self::Search => "search",
            Self::Login => "login",
            Self::Pop3 => "pop3",
        }
    }

    fn endpoints(self, target: &Target) -> &[Endpoint] {
        match self {
            Self::Smtp => &target.smtp,
            Self::Lmtp => &target.lmtp,
            Self::Append | Self::Fetch | Self::Store | Self::Search | Self::Login => &target.imap,
            Self::Pop3 => &target.pop3,
        }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The target has no address for it.
    pub(crate) async fn run(
        self,
        target: &Target,
        connections: u32,
        amount: Amount,
        size: u64,
        messages: u32,
    ) -> Result<LoadResult, String> {
        // A maildrop is locked while a session has it (RFC 1939 8), so there is one session for each account.
        let accounts = u32::try_from(target.accounts.len()).unwrap_or(u32::MAX);
        let connections = if self == Self::Pop3 {
            connections.min(accounts)
        } else {
            connections
        };
        let message: Arc<[u8]> = message(size).into();
        let mut jobs = Vec::new();
        for number in 0..connections {
            let endpoint =
                pick(self.endpoints(target), number).ok_or_else(|| format!("no address for {}", self.name()))?;
            jobs.push(Job {
                endpoint: endpoint.clone(),
                imap: pick(&target.imap, number).cloned(),
                account: target.account(number)?.clone(),
                from: target.from.clone(),
                smtp_auth: target.smtp_auth,
                number,
                message: Arc::clone(&message),
                messages,
            });
        }
        let outcome = match self {
            Self::Smtp | Self::Lmtp => {
                let worker = |job| Delivery {
                    job,
                    lmtp: self == Self::Lmtp,
                    session: None,
                };
                load::run(jobs.into_iter().map(worker).collect(), amount).await
            }
            Self::Append | Self::Fetch | Self::Store | Self::Search => {
                let worker = |job| Mailbox {
                    job,
                    test: self,
                    session: None,
                    next: 0,
                };
                load::run(jobs.into_iter().map(worker).collect(), amount).await
            }
            Self::Login => load::run(jobs.into_iter().map(|job| Login { job }).collect(), amount).await,
            Self::Pop3 => {
                let worker = |job| Retrieve {
                    job,
                    session: None,
                    count: 0,
                    next: 0,
                };
                load::run(jobs.into_iter().map(worker).collect::<Vec<_>>(), amount).await
            }
        };
        Ok(LoadResult {
            test: self.name(),
            connections,
            size,
            outcome: nothing_done_is_an_error(outcome),
        })
    }
}

fn nothing_done_is_an_error(mut outcome: Outcome) -> Outcome {
    if outcome.latencies.is_empty() && outcome.errors == 0 {
        outcome.failed("nothing was done in the time".to_owned());
    }
    outcome
}

/// What every worker knows.
struct Job {
    endpoint: Endpoint,
    imap: Option<Endpoint>,
    account: Account,
    from: String,
    smtp_auth: bool,
    number: u32,
    message: Arc<[u8]>,
    messages: u32,
}

struct Delivery {
    job: Job,
    lmtp: bool,
    session: Option<Smtp>,
}

impl Worker for Delivery {
    async fn open(&mut self) -> Result<(), String> {
        let login = (self.job.smtp_auth && !self.lmtp).then_some(&self.job.account);
        self.session = None;
        self.session = Some(Smtp::open(&self.job.endpoint, self.job.number, self.lmtp, login).await?);
        Ok(())
    }

    async fn operate(&mut self) -> Result<(), String> {
        let address = &self.job.account.address;
        let from = if self.job.from.is_empty() {
            address
        } else {
            &self.job.from
        };
        session(self.session.as_mut())?
            .deliver(from, address, &self.job.message)
            .await
    }

    async fn close(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// APPEND, FETCH, STORE and SEARCH in a mailbox of the connection's own.
struct Mailbox {
    job: Job,
    test: Test,
    session: Option<Imap>,
    next: u32,
}

impl Mailbox {
    fn name(&self) -> String {
        format!("everpost-bench-{}", self.job.number)
    }
}

impl Worker for Mailbox {
    async fn open(&mut self) -> Result<(), String> {
        self.session = None;
        let name = self.name();
        let mut imap = Imap::open(&self.job.endpoint, self.job.number, &self.job.account).await?;
        // NO where an earlier run or an earlier connection made it.
        imap.try_command(&format!("CREATE {name}")).await?;
        if self.test != Test::Append {
            let exists = imap.select(&name).await?;
            for _ in exists..self.job.messages {
                imap.append(&name, &self.job.message).await?;
            }
            imap.select(&name).await?;
        }
        self.session = Some(imap);
        Ok(())
    }

    async fn operate(&mut self) -> Result<(), String> {
        let name = self.name();
        let imap = session(self.session.as_mut())?;
        let turn = self.next;
        self.next = self.next.wrapping_add(1);
        let message = turn.checked_rem(self.job.messages).unwrap_or(0).saturating_add(1);
        match self.test {
            Test::Fetch => {
                let answer = imap.command(&format!("FETCH {message} (UID BODY.PEEK[])")).await?;
                if answer.literal_bytes == 0 {
                    return Err("FETCH gave no message".to_owned());
                }
            }
            Test::Store => {
                let sign = if turn.checked_div(self.job.messages).unwrap_or(0).is_multiple_of(2) {
                    '+'
                } else {
                    '-'
                };
                imap.command(&format!("STORE {message} {sign}FLAGS (\\Flagged)"))
                    .await?;
            }
            Test::Search => {
                imap.command("SEARCH UNDELETED SUBJECT \"load\"").await?;
            }
            _ => {
                imap.append(&name, &self.job.message).await?;
            }
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), String> {
        let name = self.name();
        let imap = session(self.session.as_mut())?;
        if self.test != Test::Append {
            imap.command("CLOSE").await?;
        }
        imap.command(&format!("DELETE {name}")).await.map(|_| ())
    }
}

struct Login {
    job: Job,
}

impl Worker for Login {
    async fn open(&mut self) -> Result<(), String> {
        Ok(())
    }

    async fn operate(&mut self) -> Result<(), String> {
        let mut imap = Imap::open(&self.job.endpoint, self.job.number, &self.job.account).await?;
        imap.command("LOGOUT").await.map(|_| ())
    }

    async fn close(&mut self) -> Result<(), String> {
        Ok(())
    }
}

struct Retrieve {
    job: Job,
    session: Option<Pop3>,
    count: u32,
    next: u32,
}

impl Worker for Retrieve {
    async fn open(&mut self) -> Result<(), String> {
        self.session = None;
        let mut pop3 = Pop3::open(&self.job.endpoint, self.job.number, &self.job.account).await?;
        self.count = pop3.count().await?;
        if self.count == 0 {
            pop3.quit().await?;
            let endpoint = self
                .job
                .imap
                .as_ref()
                .ok_or("the INBOX is empty, and --imap is not given to fill it")?;
            let mut imap = Imap::open(endpoint, self.job.number, &self.job.account).await?;
            for _ in 0..INBOX_FILLED {
                imap.append("INBOX", &self.job.message).await?;
            }
            pop3 = Pop3::open(&self.job.endpoint, self.job.number, &self.job.account).await?;
            self.count = pop3.count().await?;
        }
        self.session = Some(pop3);
        Ok(())
    }

    async fn operate(&mut self) -> Result<(), String> {
        let message = self.next.checked_rem(self.count).unwrap_or(0).saturating_add(1);
        self.next = self.next.wrapping_add(1);
        session(self.session.as_mut())?.retrieve(message).await
    }

    async fn close(&mut self) -> Result<(), String> {
        session(self.session.as_mut())?.quit().await
    }
}

fn session<T>(session: Option<&mut T>) -> Result<&mut T, String> {
    session.ok_or_else(|| "not connected".to_owned())
}

/// A message of about this many octets: text as people write it, not one repeated line that compresses to nothing.
fn message(size: u64) -> Vec<u8> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let mut text = b"From: bench <bench@bench.invalid>\r\nTo: you\r\nSubject: load of the day\r\nMIME-Version: 1.0\r\n\
        Content-Type: text/plain; charset=us-ascii\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n\
        Message-ID: <load@bench.invalid>\r\n\r\n"
        .to_vec();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    while text.len() < size {
        let mut line = Vec::with_capacity(72);
        while line.len() < 70 && text.len().saturating_add(line.len()).saturating_add(2) < size {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let letter = b"etaoinshrdlu cmfwyp vbgk jqxz   e"
                .get(usize::try_from(seed >> 59).unwrap_or(0))
                .copied()
                .unwrap_or(b' ');
            line.push(letter);
        }
        line.extend_from_slice(b"\r\n");
        text.extend_from_slice(&line);
    }
    text
}

const INBOX_FILLED: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake;

    #[test]
    fn messages_have_the_wished_size_and_no_line_begins_with_a_dot() {
        for size in [1000, 10_240, 100_000] {
            let message = message(size);
            assert!(
                (size as usize..size as usize + 3).contains(&message.len()),
                "{}",
                message.len()
            );
            assert!(message.ends_with(b"\r\n") && !message.windows(3).any(|window| window == b"\r\n."));
        }
    }

    #[tokio::test]
    async fn every_test_runs_against_a_server() {
        let target = fake::target().await;
        for test in Test::all_for(&target) {
            let result = test.run(&target, 3, Amount::Count(30), 1000, 5).await.unwrap();
            assert_eq!(result.outcome.first_error, None, "{}", test.name());
            assert_eq!(result.outcome.latencies.len(), 30, "{}", test.name());
        }
    }

    #[tokio::test]
    async fn a_refusal_is_counted_and_shown() {
        let mut target = fake::target().await;
        target.accounts = vec![Account {
            address: "nobody@example.test".to_owned(),
            password: "x".to_owned(),
        }];
        let result = Test::Smtp.run(&target, 1, Amount::Count(1), 1000, 5).await.unwrap();
        assert_eq!((result.outcome.errors, result.outcome.latencies.len()), (1, 0));
        assert!(result.outcome.first_error.unwrap().contains("550"));
        let result = Test::Login.run(&target, 1, Amount::Count(1), 1000, 5).await.unwrap();
        assert!(result.outcome.first_error.unwrap().contains("NO"));
    }

    #[tokio::test]
    async fn idle_sessions_are_opened_held_and_asked() {
        let target = fake::target().await;
        let outcome = crate::idle::run(&target, 120, std::time::Duration::ZERO).await.unwrap();
        assert_eq!((outcome.open, outcome.alive, outcome.first_error), (120, 120, None));
    }
}
