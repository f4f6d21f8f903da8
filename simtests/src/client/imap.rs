//! IMAP4rev1 (RFC 3501), as far as the workload needs it; keeps the session's view and checks that the server obeys its rules.

use std::net::IpAddr;
use std::time::Duration;

use super::stream::Stream;
use super::{Answer, Failure};
use crate::host::port;

/// A session.
pub struct Imap {
    stream: Stream,
    tag: u32,
    /// What the server has said of the selected mailbox.
    pub view: View,
}

/// A selected mailbox as this client knows it.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Its messages, by sequence number; `None` where the UID is not known yet.
    pub uids: Vec<Option<u32>>,
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT as last announced.
    pub uid_next: u32,
}

/// One untagged response: its text with literals cut out, and the literals.
#[derive(Clone, Debug)]
pub struct Response {
    /// `{}` stands for each literal.
    pub text: String,
    /// In order.
    pub literals: Vec<Vec<u8>>,
}

/// A message as FETCH shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// UID.
    pub uid: u32,
    /// Flags in order, without `\Recent`.
    pub flags: Vec<String>,
    /// INTERNALDATE as it was said.
    pub date: String,
    /// RFC822.SIZE
    pub size: u64,
    /// BODY[], where asked for.
    pub body: Vec<u8>,
}

impl Imap {
    /// Connects and logs in.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn login(node: IpAddr, user: &str, password: &str) -> Answer<Self> {
        let mut imap = Self {
            stream: Stream::connect(node, port::IMAP).await?,
            tag: 0,
            view: View::default(),
        };
        let greeting = imap.stream.text_line().await?;
        if !greeting.starts_with("* OK") {
            return Err(Failure::Refused(greeting));
        }
        imap.command(&format!("LOGIN {user} {password}")).await?;
        Ok(imap)
    }

    /// A command and everything untagged before its OK.
    ///
    /// # Errors
    /// [`Failure::Refused`] for NO; BAD is against the protocol.
    pub async fn command(&mut self, command: &str) -> Answer<Vec<Response>> {
        let tag = self.send(command).await?;
        self.finish(&tag, command).await
    }

    async fn send(&mut self, command: &str) -> Answer<String> {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        self.stream.send(format!("{tag} {command}\r\n").as_bytes()).await?;
        Ok(tag)
    }

    async fn finish(&mut self, tag: &str, command: &str) -> Answer<Vec<Response>> {
        let mut untagged = Vec::new();
        loop {
            let response = self.response().await?;
            if let Some(rest) = response.text.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                if rest.starts_with("OK") {
                    untagged.push(Response {
                        text: rest.to_owned(),
                        literals: Vec::new(),
                    });
                    return Ok(untagged);
                }
                let text = format!("{rest} (to {command})");
                // A majority that did not answer in time may still do what it was asked.
                return Err(match rest {
                    _ if rest.starts_with("NO [UNAVAILABLE]") => Failure::Unknown(text),
                    _ if rest.starts_with("NO") => Failure::Refused(text),
                    _ => Failure::Protocol(text),
                });
            }
            self.take(&response, command)?;
            untagged.push(response);
        }
    }

    async fn response(&mut self) -> Answer<Response> {
        let mut response = Response {
            text: String::new(),
            literals: Vec::new(),
        };
        loop {
            let line = self.stream.text_line().await?;
            if let Some(size) = literal(&line) {
                let cut = line.rfind('{').unwrap_or(0);
                response.text.push_str(line.get(..cut).unwrap_or_default());
                response.text.push_str("{}");
                response.literals.push(self.stream.octets(size).await?);
                continue;
            }
            response.text.push_str(&line);
            return Ok(response);
        }
    }

    /// Brings the view up to date and checks the rules of RFC 3501, sections 5.2, 7.4.1 and 5.5.
    fn take(&mut self, response: &Response, command: &str) -> Answer<()> {
        let text = response.text.as_str();
        let wrong = |what: &str| Err(Failure::Protocol(format!("{what}: {text} (during {command})")));
        let Some(rest) = text.strip_prefix("* ") else {
            return wrong("neither tagged nor untagged");
        };
        if rest.starts_with("BYE") {
            return Err(Failure::Unknown(rest.to_owned()));
        }
        if let Some(value) = rest.strip_prefix("OK [UIDVALIDITY ") {
            self.view.uid_validity = number(value);
        }
        if let Some(value) = rest.strip_prefix("OK [UIDNEXT ") {
            self.view.uid_next = number(value);
        }
        let mut words = rest.splitn(3, ' ');
        let (Some(Ok(sequence)), Some(kind)) = (words.next().map(str::parse::<usize>), words.next()) else {
            return Ok(());
        };
        match kind {
            "EXISTS" if command.starts_with("SELECT") || command.starts_with("EXAMINE") => {
                self.view.uids = vec![None; sequence];
            }
            "EXISTS" => {
                if sequence < self.view.uids.len() {
                    return wrong("EXISTS went down without EXPUNGE");
                }
                self.view.uids.resize(sequence, None);
            }
            "EXPUNGE" => {
                let quiet = ["FETCH", "STORE", "SEARCH"]
                    .iter()
                    .any(|name| command.starts_with(name));
                if quiet {
                    return wrong("EXPUNGE during FETCH, STORE or SEARCH");
                }
                if sequence == 0 || sequence > self.view.uids.len() {
                    return wrong("EXPUNGE of a message that is not there");
                }
                self.view.uids.remove(sequence - 1);
            }
            "FETCH" => {
                let Some(known) = sequence.checked_sub(1).and_then(|index| self.view.uids.get_mut(index)) else {
                    return wrong("FETCH of a message that is not there");
                };
                if let Some(uid) = after(rest, "UID ").map(number) {
                    if known.is_some_and(|known| known != uid) {
                        return wrong("a sequence number means another UID now");
                    }
                    *known = Some(uid);
                    let uids: Vec<u32> = self.view.uids.iter().flatten().copied().collect();
                    if !uids.is_sorted_by(|one, other| one < other) {
                        return wrong("UIDs do not ascend");
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Opens a mailbox.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn select(&mut self, mailbox: &str) -> Answer<()> {
        self.view = View::default();
        self.command(&format!("SELECT {mailbox}")).await.map(drop)
    }

    /// `UID FETCH set (UID FLAGS INTERNALDATE RFC822.SIZE)`, and the bytes where wanted.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn fetch(&mut self, set: &str, bodies: bool) -> Answer<Vec<Fetched>> {
        let body = if bodies { " BODY.PEEK[]" } else { "" };
        let command = format!("UID FETCH {set} (UID FLAGS INTERNALDATE RFC822.SIZE{body})");
        let responses = self.command(&command).await?;
        let mut messages = Vec::new();
        for response in responses {
            if !response.text.contains(" FETCH ") || !response.text.contains("INTERNALDATE") {
                continue;
            }
            let text = response.text.as_str();
            let flags = after(text, "FLAGS (")
                .and_then(|rest| rest.split(')').next())
                .unwrap_or_default();
            let mut flags: Vec<String> = flags
                .split(' ')
                .filter(|flag| !flag.is_empty() && *flag != "\\Recent")
                .map(str::to_owned)
                .collect();
            flags.sort();
            messages.push(Fetched {
                uid: after(text, "UID ").map_or(0, number),
                flags,
                date: after(text, "INTERNALDATE \"")
                    .and_then(|rest| rest.split('"').next())
                    .unwrap_or_default()
                    .to_owned(),
                size: after(text, "RFC822.SIZE ").map_or(0, number).into(),
                body: response.literals.into_iter().next().unwrap_or_default(),
            });
        }
        Ok(messages)
    }

    /// `APPEND`; gives UIDVALIDITY and UID.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn append(&mut self, mailbox: &str, flags: &str, message: &[u8]) -> Answer<(u32, u32)> {
        let command = format!("APPEND {mailbox} ({flags}) {{{}}}", message.len());
        let tag = self.send(&command).await?;
        loop {
            let response = self.response().await?;
            if response.text.starts_with('+') {
                break;
            }
            if response.text.starts_with(&tag) {
                return Err(Failure::Refused(response.text));
            }
            self.take(&response, &command)?;
        }
        self.stream.send(message).await?;
        self.stream.send(b"\r\n").await?;
        let responses = self.finish(&tag, "APPEND").await?;
        let last = responses
            .last()
            .map(|response| response.text.clone())
            .unwrap_or_default();
        let numbers: Vec<u32> = after(&last, "[APPENDUID ")
            .and_then(|rest| rest.split(']').next())
            .unwrap_or_default()
            .split(' ')
            .map(number)
            .collect();
        match numbers[..] {
            [validity, uid] => Ok((validity, uid)),
            _ => Err(Failure::Protocol(format!("no APPENDUID: {last}"))),
        }
    }

    /// Begins an APPEND and dies in the middle of it.
    pub async fn die_in_append(mut self, mailbox: &str, message: &[u8]) {
        let _ = self.send(&format!("APPEND {mailbox} {{{}}}", message.len())).await;
        let _ = self.response().await;
        let _ = self
            .stream
            .send(message.get(..message.len() / 2).unwrap_or_default())
            .await;
    }

    /// `UID SEARCH`
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn search(&mut self, keys: &str) -> Answer<Vec<u32>> {
        let responses = self.command(&format!("UID SEARCH {keys}")).await?;
        let found = responses
            .iter()
            .find_map(|response| response.text.strip_prefix("* SEARCH"));
        Ok(found.unwrap_or_default().split_ascii_whitespace().map(number).collect())
    }

    /// Idles for a time at most, until something was said; what was said is in the view.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn idle(&mut self, longest: Duration) -> Answer<()> {
        let tag = self.send("IDLE").await?;
        loop {
            let response = self.response().await?;
            if response.text.starts_with('+') {
                break;
            }
            if response.text.starts_with(&tag) {
                return Err(Failure::Refused(response.text));
            }
            self.take(&response, "IDLE")?;
        }
        // Cut off in the middle of a line, the rest of it would be lost; so only whole silence ends the wait.
        if let Ok(line) = self.stream.line_within(longest).await {
            let text = String::from_utf8_lossy(&line).into_owned();
            self.take(
                &Response {
                    text,
                    literals: Vec::new(),
                },
                "IDLE",
            )?;
        }
        self.stream.send(b"DONE\r\n").await?;
        self.finish(&tag, "IDLE").await.map(drop)
    }

    /// Ends the session.
    pub async fn logout(mut self) {
        let _ = self.send("LOGOUT").await;
        let _ = self.response().await;
    }
}

fn literal(line: &str) -> Option<usize> {
    let (_, size) = line.strip_suffix('}')?.rsplit_once('{')?;
    size.parse().ok()
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.find(mark).and_then(|at| text.get(at + mark.len()..))
}

fn number(text: &str) -> u32 {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}
