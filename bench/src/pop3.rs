//! A client of POP3, as far as RETR needs it (RFC 1939).

use crate::stream::{Endpoint, Stream};
use crate::target::Account;

/// One session.
pub(crate) struct Pop3 {
    stream: Stream,
}

impl Pop3 {
    /// Connects and logs in.
    pub(crate) async fn open(endpoint: &Endpoint, number: u32, account: &Account) -> Result<Self, String> {
        let mut pop3 = Self {
            stream: Stream::connect(endpoint, number).await?,
        };
        pop3.ok().await?;
        pop3.command(&format!("USER {}", account.address)).await?;
        pop3.command(&format!("PASS {}", account.password)).await?;
        Ok(pop3)
    }

    /// How many messages there are.
    pub(crate) async fn count(&mut self) -> Result<u32, String> {
        let line = self.command("STAT").await?;
        line.split(' ').nth(1).and_then(|count| count.parse().ok()).ok_or(line)
    }

    /// Reads one message and forgets it.
    pub(crate) async fn retrieve(&mut self, message: u32) -> Result<(), String> {
        self.command(&format!("RETR {message}")).await?;
        while self.stream.line().await? != "." {}
        Ok(())
    }

    /// Ends the session, so that the maildrop is free at once.
    pub(crate) async fn quit(&mut self) -> Result<(), String> {
        self.command("QUIT").await.map(|_| ())
    }

    async fn command(&mut self, command: &str) -> Result<String, String> {
        self.stream.send(format!("{command}\r\n").as_bytes()).await?;
        self.ok().await
    }

    async fn ok(&mut self) -> Result<String, String> {
        let line = self.stream.line().await?;
        if line.starts_with("+OK") { Ok(line) } else { Err(line) }
    }
}
