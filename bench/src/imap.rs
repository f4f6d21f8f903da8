//! A client of IMAP, as far as the load needs it (RFC 3501, RFC 7888, RFC 2177).

use crate::stream::{Endpoint, Stream};
use crate::target::Account;

/// One session.
pub(crate) struct Imap {
    stream: Stream,
    tag: u32,
}

/// What came before the tagged OK.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Untagged lines, without the literals in them.
    pub(crate) untagged: Vec<String>,
    /// Octets of all literals.
    pub(crate) literal_bytes: u64,
}

impl Imap {
    /// Connects and logs in.
    pub(crate) async fn open(endpoint: &Endpoint, number: u32, account: &Account) -> Result<Self, String> {
        let mut imap = Self {
            stream: Stream::connect(endpoint, number).await?,
            tag: 0,
        };
        let greeting = imap.stream.line().await?;
        if !greeting.starts_with("* OK") {
            return Err(greeting);
        }
        imap.command(&format!(
            "LOGIN {} {}",
            quoted(&account.address),
            quoted(&account.password)
        ))
        .await?;
        Ok(imap)
    }

    /// One command and its answer.
    ///
    /// # Errors
    /// The tagged NO or BAD, or a broken connection.
    pub(crate) async fn command(&mut self, command: &str) -> Result<Answer, String> {
        let tag = self.next_tag();
        self.stream.send(format!("{tag} {command}\r\n").as_bytes()).await?;
        self.answer(&tag).await
    }

    /// The same, whether it is refused or not: for mailboxes that may exist or not.
    pub(crate) async fn try_command(&mut self, command: &str) -> Result<bool, String> {
        match self.command(command).await {
            Ok(_) => Ok(true),
            Err(line) if line.contains(" NO ") => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Appends one message.
    pub(crate) async fn append(&mut self, mailbox: &str, message: &[u8]) -> Result<Answer, String> {
        let tag = self.next_tag();
        self.stream
            .send(format!("{tag} APPEND {} {{{}}}\r\n", quoted(mailbox), message.len()).as_bytes())
            .await?;
        loop {
            let line = self.stream.line().await?;
            if line.starts_with('+') {
                break;
            }
            if line.starts_with(&tag) {
                return Err(line);
            }
        }
        self.stream.send(message).await?;
        self.stream.send(b"\r\n").await?;
        self.answer(&tag).await
    }

    /// How many messages the mailbox has, and opens it.
    pub(crate) async fn select(&mut self, mailbox: &str) -> Result<u32, String> {
        let answer = self.command(&format!("SELECT {}", quoted(mailbox))).await?;
        let exists = answer
            .untagged
            .iter()
            .rev()
            .find_map(|line| line.strip_suffix(" EXISTS"));
        exists
            .and_then(|number| number.parse().ok())
            .ok_or_else(|| "SELECT said no EXISTS".to_owned())
    }

    /// Begins IDLE and waits until the server does it.
    pub(crate) async fn idle(&mut self) -> Result<String, String> {
        let tag = self.next_tag();
        self.stream.send(format!("{tag} IDLE\r\n").as_bytes()).await?;
        loop {
            let line = self.stream.line().await?;
            if line.starts_with('+') {
                return Ok(tag);
            }
            if line.starts_with(&tag) {
                return Err(line);
            }
        }
    }

    /// Ends an IDLE.
    pub(crate) async fn done(&mut self, tag: &str) -> Result<(), String> {
        self.stream.send(b"DONE\r\n").await?;
        self.answer(tag).await.map(|_| ())
    }

    fn next_tag(&mut self) -> String {
        self.tag = self.tag.wrapping_add(1);
        format!("b{}", self.tag)
    }

    async fn answer(&mut self, tag: &str) -> Result<Answer, String> {
        let mut answer = Answer::default();
        let mut response = String::new();
        loop {
            let line = self.stream.line().await?;
            if let Some(bytes) = literal(&line) {
                self.stream.skip(bytes).await?;
                answer.literal_bytes = answer.literal_bytes.saturating_add(bytes);
                response.push_str(&line);
                continue;
            }
            if response.is_empty()
                && let Some(rest) = line.strip_prefix(tag)
                && let Some(rest) = rest.strip_prefix(' ')
            {
                return if rest.starts_with("OK") { Ok(answer) } else { Err(line) };
            }
            response.push_str(&line);
            if let Some(untagged) = response.strip_prefix("* ") {
                answer.untagged.push(untagged.to_owned());
            }
            response.clear();
        }
    }
}

/// The size of the literal that a line announces.
fn literal(line: &str) -> Option<u64> {
    let (_, size) = line.strip_suffix('}')?.rsplit_once('{')?;
    size.parse().ok()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_found_at_the_end_of_a_line_only() {
        assert_eq!(literal("* 1 FETCH (BODY[] {12}"), Some(12));
        assert_eq!(literal("* 1 FETCH ({12} x"), None);
        assert_eq!(literal("* OK {x}"), None);
    }

    #[test]
    fn quotes_in_a_password_are_escaped() {
        assert_eq!(quoted(r#"a"b\c"#), r#""a\"b\\c""#);
    }
}
