//! POP3 (RFC 1939), as far as the workload needs it.

use std::net::IpAddr;

use super::stream::Stream;
use super::{Answer, Failure};
use crate::host::port;

/// A session in the transaction state.
pub struct Pop3(Stream);

impl Pop3 {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn login(node: IpAddr, user: &str, password: &str) -> Answer<Self> {
        let mut pop3 = Self(Stream::connect(node, port::POP3).await?);
        pop3.status().await?;
        pop3.command(&format!("USER {user}")).await?;
        pop3.command(&format!("PASS {password}")).await?;
        Ok(pop3)
    }

    async fn status(&mut self) -> Answer<String> {
        let line = self.0.text_line().await?;
        if line.starts_with("+OK") {
            Ok(line)
        } else {
            Err(Failure::Refused(line))
        }
    }

    async fn command(&mut self, command: &str) -> Answer<String> {
        self.0.send(format!("{command}\r\n").as_bytes()).await?;
        self.status().await
    }

    /// Number and unique id of every message.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn uidl(&mut self) -> Answer<Vec<(u32, String)>> {
        self.listing("UIDL").await
    }

    async fn listing(&mut self, command: &str) -> Answer<Vec<(u32, String)>> {
        self.command(command).await?;
        let mut list = Vec::new();
        loop {
            let line = self.0.text_line().await?;
            if line == "." {
                return Ok(list);
            }
            let (number, id) = line.split_once(' ').ok_or_else(|| Failure::Protocol(line.clone()))?;
            let number = number.parse().map_err(|_| Failure::Protocol(line.clone()))?;
            list.push((number, id.to_owned()));
        }
    }

    /// The bytes of a message.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn retrieve(&mut self, number: u32) -> Answer<Vec<u8>> {
        self.command(&format!("RETR {number}")).await?;
        let mut bytes = Vec::new();
        loop {
            let line = self.0.line().await?;
            if line == b"." {
                return Ok(bytes);
            }
            bytes.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            bytes.extend_from_slice(b"\r\n");
        }
    }

    /// Marks a message to be deleted by QUIT.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn delete(&mut self, number: u32) -> Answer<()> {
        self.command(&format!("DELE {number}")).await.map(drop)
    }

    /// Numbers and sizes.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn list(&mut self) -> Answer<Vec<(u32, u64)>> {
        let list = self.listing("LIST").await?;
        let sizes = list
            .into_iter()
            .map(|(number, size)| Some((number, size.parse().ok()?)));
        sizes
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| Failure::Protocol("LIST tells no sizes".to_owned()))
    }

    /// Ends the session.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn quit(mut self) -> Answer<()> {
        self.command("QUIT").await.map(drop)
    }
}
