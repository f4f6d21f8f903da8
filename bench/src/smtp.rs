//! A client of SMTP and LMTP, as far as deliveries need it (RFC 5321, RFC 2033).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::stream::{Endpoint, Stream};
use crate::target::Account;

/// One session.
pub(crate) struct Smtp {
    stream: Stream,
    pipelining: bool,
}

impl Smtp {
    /// Connects, greets, and logs in where an account is given.
    pub(crate) async fn open(
        endpoint: &Endpoint,
        number: u32,
        lmtp: bool,
        login: Option<&Account>,
    ) -> Result<Self, String> {
        let mut smtp = Self {
            stream: Stream::connect(endpoint, number).await?,
            pipelining: false,
        };
        smtp.expect(220).await?;
        smtp.stream
            .send(if lmtp {
                b"LHLO bench.invalid\r\n"
            } else {
                b"EHLO bench.invalid\r\n"
            })
            .await?;
        let lines = smtp.expect(250).await?;
        smtp.pipelining = lines.iter().any(|line| line.eq_ignore_ascii_case("PIPELINING"));
        if let Some(account) = login {
            let secret = STANDARD.encode(format!("\0{}\0{}", account.address, account.password));
            smtp.stream.send(format!("AUTH PLAIN {secret}\r\n").as_bytes()).await?;
            smtp.expect(235).await?;
        }
        Ok(smtp)
    }

    /// Delivers one message, whose lines end in CRLF and hold no line that begins with a dot, to one recipient.
    pub(crate) async fn deliver(&mut self, from: &str, to: &str, message: &[u8]) -> Result<(), String> {
        let commands = [
            format!("MAIL FROM:<{from}>\r\n"),
            format!("RCPT TO:<{to}>\r\n"),
            "DATA\r\n".to_owned(),
        ];
        let codes = [250, 250, 354];
        if self.pipelining {
            self.stream.send(commands.concat().as_bytes()).await?;
            for code in codes {
                self.expect(code).await?;
            }
        } else {
            for (command, code) in commands.iter().zip(codes) {
                self.stream.send(command.as_bytes()).await?;
                self.expect(code).await?;
            }
        }
        let mut body = Vec::with_capacity(message.len().saturating_add(3));
        body.extend_from_slice(message);
        body.extend_from_slice(b".\r\n");
        self.stream.send(&body).await?;
        self.expect(250).await.map(|_| ())
    }

    /// Reads one answer, of several lines perhaps.
    async fn expect(&mut self, code: u32) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        loop {
            let line = self.stream.line().await?;
            let (digits, rest) = line
                .split_at_checked(3)
                .ok_or_else(|| format!("not an answer: {line}"))?;
            if digits.parse() != Ok(code) {
                return Err(line);
            }
            let (mark, text) = rest.split_at_checked(1).unwrap_or((" ", ""));
            lines.push(text.to_owned());
            if mark != "-" {
                return Ok(lines);
            }
        }
    }
}
