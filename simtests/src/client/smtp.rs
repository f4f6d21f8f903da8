//! SMTP and LMTP (RFC 5321, RFC 2033), without pipelining.

use std::net::IpAddr;

use super::stream::Stream;
use super::{Answer, Failure};
use crate::host::port;

/// What a 250 at the end of data means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is in the mailbox.
    Delivered,
    /// It will be.
    Queued,
}

/// A session.
pub struct Smtp {
    stream: Stream,
    lmtp: bool,
}

impl Smtp {
    /// Connects and says hello, over SMTP or LMTP.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn connect(node: IpAddr, lmtp: bool) -> Answer<Self> {
        let stream = Stream::connect(node, if lmtp { port::LMTP } else { port::SMTP }).await?;
        let mut smtp = Self { stream, lmtp };
        smtp.expect(220).await?;
        let hello = if lmtp {
            "LHLO client.example.org\r\n"
        } else {
            "EHLO client.example.org\r\n"
        };
        smtp.stream.send(hello.as_bytes()).await?;
        smtp.expect(250).await?;
        Ok(smtp)
    }

    async fn reply(&mut self) -> Answer<(u16, String)> {
        loop {
            let line = self.stream.text_line().await?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| Failure::Protocol(line.clone()))?;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok((code, line));
            }
        }
    }

    async fn expect(&mut self, wanted: u16) -> Answer<()> {
        match self.reply().await? {
            (code, _) if code == wanted => Ok(()),
            (_, line) => Err(Failure::Refused(line)),
        }
    }

    /// One message to these recipients; an outcome for each. A recipient that was refused got nothing.
    ///
    /// # Errors
    /// [`Failure`] for all of them.
    pub async fn deliver(&mut self, from: &str, to: &[String], message: &[u8]) -> Answer<Vec<Answer<Taken>>> {
        self.stream
            .send(format!("MAIL FROM:<{from}>\r\n").as_bytes())
            .await
            .map_err(nothing)?;
        self.expect(250).await.map_err(nothing)?;
        let mut outcomes = Vec::new();
        for recipient in to {
            self.stream
                .send(format!("RCPT TO:<{recipient}>\r\n").as_bytes())
                .await
                .map_err(nothing)?;
            outcomes.push(match self.reply().await.map_err(nothing)? {
                (250, _) => Ok(Taken::Queued),
                (_, line) => Err(Failure::Refused(line)),
            });
        }
        if outcomes.iter().all(Result::is_err) {
            return Ok(outcomes);
        }
        self.stream.send(b"DATA\r\n").await.map_err(nothing)?;
        self.expect(354).await.map_err(nothing)?;
        self.stream.send(&stuffed(message)).await.map_err(nothing)?;
        // From here on it may be delivered, whatever we hear.
        self.stream.send(b".\r\n").await?;
        let replies = if self.lmtp {
            outcomes.iter().filter(|outcome| outcome.is_ok()).count()
        } else {
            1
        };
        let mut said = Vec::new();
        for _ in 0..replies {
            said.push(match self.reply().await {
                Ok((250, line)) if line.contains("delivered") => Ok(Taken::Delivered),
                Ok((250, _)) => Ok(Taken::Queued),
                // A majority that did not answer in time may still do what it was asked.
                Ok((400..=499, line)) => Err(Failure::Unknown(line)),
                Ok((_, line)) => Err(Failure::Refused(line)),
                Err(failure) => Err(failure),
            });
        }
        let mut said = said.into_iter();
        let mut last = Ok(Taken::Queued);
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.is_ok()) {
            if let Some(reply) = said.next() {
                last = reply;
            }
            outcome.clone_from(&last);
            // One reply for several recipients names the first only: the others may be queued.
            if !self.lmtp && to.len() > 1 && *outcome == Ok(Taken::Delivered) {
                *outcome = Ok(Taken::Queued);
            }
            // A refusal over SMTP of several recipients may come after some of them were served.
            if !self.lmtp
                && to.len() > 1
                && let Err(Failure::Refused(line)) = outcome
            {
                *outcome = Err(Failure::Unknown(line.clone()));
            }
        }
        Ok(outcomes)
    }

    /// Dies in the middle of the message.
    pub async fn die_in_data(mut self, from: &str, to: &str, part: &[u8]) {
        let _ = self
            .stream
            .send(format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\n").as_bytes())
            .await;
        let _ = self.reply().await;
        let _ = self.reply().await;
        let _ = self.stream.send(b"DATA\r\n").await;
        let _ = self.reply().await;
        let _ = self.stream.send(&stuffed(part)).await;
    }
}

/// Lines that begin with a dot get another one (RFC 5321 4.5.2).
fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out
}

/// A connection that breaks before the end of the message delivers nothing.
fn nothing(failure: Failure) -> Failure {
    match failure {
        Failure::Unknown(text) => Failure::Refused(format!("before the end of data: {text}")),
        other => other,
    }
}
