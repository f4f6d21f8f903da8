//! IMAP4rev1 (RFC 3501), as far as the workload needs it. What the server says of the selected mailbox goes to the oracle's
//! view of the session, which judges it.

use std::net::IpAddr;
use std::time::Duration;

use oracle::history::FlagSet;
use oracle::session::{CommandKind, SessionView};

use super::stream::Stream;
use super::{Answer, Failure};
use crate::book::Book;
use crate::host::port;

/// The keywords that clients use; they are numbered from [`FlagSet::KEYWORD`] on.
pub const KEYWORDS: [&str; 2] = ["$Important", "Later"];
const SYSTEM: [&str; 5] = ["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"];

/// A session.
pub struct Imap {
    stream: Stream,
    tag: u32,
    book: Book,
    view: SessionView,
    selected: Option<Selected>,
    opening: Option<Opening>,
    expunged: Vec<Option<u32>>,
    news: u64,
}

/// What a SELECT told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// UIDVALIDITY.
    pub uid_validity: u32,
    /// UIDNEXT.
    pub uid_next: u32,
}

/// A SELECT under way.
#[derive(Default)]
struct Opening {
    exists: u32,
    told: Selected,
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
    /// Its sequence number then.
    pub sequence: u32,
    /// UID.
    pub uid: u32,
    /// Flags, without `\Recent`.
    pub flags: FlagSet,
    /// INTERNALDATE as it was said, where asked for.
    pub date: String,
    /// RFC822.SIZE, where asked for.
    pub size: u64,
    /// BODY[], where asked for.
    pub body: Vec<u8>,
}

/// Flags as a command writes them.
#[must_use]
pub fn flag_list(flags: FlagSet) -> String {
    let named = SYSTEM.iter().chain(&KEYWORDS).enumerate();
    let names: Vec<&str> = named
        .filter(|(bit, _)| flags.0 & (1 << bit) != 0)
        .map(|(_, name)| *name)
        .collect();
    format!("({})", names.join(" "))
}

/// The flags of a list in parentheses; what nobody ever set is the last bit.
fn parse_flags(list: &str) -> FlagSet {
    let mut flags = 0;
    for name in list.split(' ').filter(|name| !name.is_empty() && *name != "\\Recent") {
        let known = SYSTEM.iter().chain(&KEYWORDS).position(|known| *known == name);
        flags |= 1 << known.unwrap_or(31);
    }
    FlagSet(flags)
}

fn kind(command: &str) -> CommandKind {
    match command.split(' ').next() {
        Some("FETCH") => CommandKind::Fetch,
        Some("STORE") => CommandKind::Store,
        Some("SEARCH") => CommandKind::Search,
        _ => CommandKind::Other,
    }
}

impl Imap {
    /// Connects and logs in. What is against the rules goes into the book under this name.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn login(node: IpAddr, user: &str, password: &str, book: &Book, name: &str) -> Answer<Self> {
        let mut imap = Self {
            stream: Stream::connect(node, port::IMAP).await?,
            tag: 0,
            book: book.clone(),
            view: SessionView::new(name),
            selected: None,
            opening: None,
            expunged: Vec::new(),
            news: 0,
        };
        let greeting = imap.stream.text_line().await?;
        if !greeting.starts_with("* OK") {
            return Err(Failure::Refused(greeting));
        }
        imap.command(&format!("LOGIN {user} {password}")).await?;
        book.count("session.begun");
        Ok(imap)
    }

    /// What the SELECT told, while a mailbox is selected.
    #[must_use]
    pub fn selected(&self) -> Option<Selected> {
        self.selected
    }

    /// Number of messages in the view.
    #[must_use]
    pub fn exists(&self) -> u32 {
        self.view.count()
    }

    /// The UID of a sequence number, where it is known.
    #[must_use]
    pub fn uid(&self, sequence: u32) -> Option<u32> {
        self.view.uid(sequence)
    }

    /// The UIDs that are known, by sequence number.
    #[must_use]
    pub fn uids(&self) -> Vec<(u32, u32)> {
        let numbers = 1..=self.view.count();
        numbers
            .filter_map(|number| Some((number, self.view.uid(number)?)))
            .collect()
    }

    /// How often messages came or went in the view.
    #[must_use]
    pub fn news(&self) -> u64 {
        self.news
    }

    /// The UIDs of the messages that EXPUNGE was said of since the last time; `None` for one whose UID was not known.
    pub fn take_expunged(&mut self) -> Vec<Option<u32>> {
        std::mem::take(&mut self.expunged)
    }

    /// A command and everything untagged before its OK, which comes last.
    ///
    /// # Errors
    /// [`Failure::Refused`] for NO where it means that nothing happened; BAD is against the protocol.
    pub async fn command(&mut self, command: &str) -> Answer<Vec<Response>> {
        let tag = self.send(command).await?;
        self.finish(&tag, command).await
    }

    async fn send(&mut self, command: &str) -> Answer<String> {
        self.tag += 1;
        let tag = format!("t{}", self.tag);
        self.view.begin(kind(command));
        self.stream.send(format!("{tag} {command}\r\n").as_bytes()).await?;
        Ok(tag)
    }

    async fn finish(&mut self, tag: &str, command: &str) -> Answer<Vec<Response>> {
        let mut untagged = Vec::new();
        loop {
            let response = self.response().await?;
            if let Some(rest) = response.text.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                self.view.end();
                if rest.starts_with("OK") {
                    untagged.push(Response {
                        text: rest.to_owned(),
                        literals: Vec::new(),
                    });
                    return Ok(untagged);
                }
                return Err(refusal(rest, command));
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

    /// Tells the view.
    fn take(&mut self, response: &Response, command: &str) -> Answer<()> {
        let text = response.text.as_str();
        let Some(rest) = text.strip_prefix("* ") else {
            let what = format!("neither tagged nor untagged: {text} (during {command})");
            return Err(Failure::Protocol(what));
        };
        if rest.starts_with("BYE") && command != "LOGOUT" {
            return Err(Failure::Unknown(rest.to_owned()));
        }
        if let Some(opening) = &mut self.opening {
            if let Some(value) = rest.strip_prefix("OK [UIDVALIDITY ") {
                opening.told.uid_validity = number(value);
            }
            if let Some(value) = rest.strip_prefix("OK [UIDNEXT ") {
                opening.told.uid_next = number(value);
            }
        }
        let mut words = rest.splitn(3, ' ');
        let (Some(Ok(sequence)), Some(kind)) = (words.next().map(str::parse::<u32>), words.next()) else {
            return Ok(());
        };
        let now = Book::now();
        match (kind, &mut self.opening) {
            ("EXISTS", Some(opening)) => opening.exists = sequence,
            ("EXISTS", None) => {
                self.news += u64::from(sequence != self.view.count());
                self.view.exists(now, sequence);
                self.book.count("session.exists");
            }
            ("EXPUNGE", _) => {
                let uid = self.view.expunge(now, sequence);
                self.expunged.push(uid);
                self.news += 1;
                self.book.count("session.expunge");
            }
            ("FETCH", _) => {
                self.view.fetch(now, sequence, after(rest, "UID ").map(number));
                self.book.count("session.fetch");
            }
            _ => {}
        }
        self.book.found(self.view.take_violations());
        Ok(())
    }

    /// Opens a mailbox.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn select(&mut self, mailbox: &str) -> Answer<Selected> {
        self.view.unselect();
        self.selected = None;
        self.opening = Some(Opening::default());
        let result = self.command(&format!("SELECT {mailbox}")).await;
        let opening = self.opening.take().unwrap_or_default();
        result?;
        self.view.select(opening.exists, opening.told.uid_next);
        self.selected = Some(opening.told);
        self.expunged.clear();
        Ok(opening.told)
    }

    /// The mailbox is closed on the server's side: after CLOSE, or when this session deleted it.
    pub fn unselect(&mut self) {
        self.view.unselect();
        self.selected = None;
    }

    /// A command of the kind `FETCH set items`; gives the messages whose UID it told.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn fetch(&mut self, command: &str) -> Answer<Vec<Fetched>> {
        let responses = self.command(command).await?;
        let mut messages = Vec::new();
        for response in responses {
            let text = response.text.as_str();
            let Some(uid) = after(text, " FETCH ").and_then(|rest| after(rest, "UID ")).map(number) else {
                continue;
            };
            messages.push(Fetched {
                sequence: after(text, "* ").map_or(0, number),
                uid,
                flags: after(text, "FLAGS (")
                    .and_then(|rest| rest.split(')').next())
                    .map(parse_flags)
                    .unwrap_or_default(),
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
    pub async fn append(&mut self, mailbox: &str, flags: FlagSet, message: &[u8]) -> Answer<(u32, u32)> {
        let command = format!("APPEND {mailbox} {} {{{}}}", flag_list(flags), message.len());
        let tag = self.send(&command).await?;
        loop {
            let response = self.response().await?;
            if response.text.starts_with('+') {
                break;
            }
            if let Some(rest) = response.text.strip_prefix(&tag) {
                self.view.end();
                // The message was not sent: nothing can come of it.
                return Err(Failure::Refused(rest.trim_start().to_owned()));
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
        let part = message.get(..message.len() / 2).unwrap_or_default();
        let _ = self.stream.send(part).await;
    }

    /// Sequence numbers, or with `UID SEARCH` UIDs.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn search(&mut self, command: &str) -> Answer<Vec<u32>> {
        let responses = self.command(command).await?;
        let found = responses
            .iter()
            .find_map(|response| response.text.strip_prefix("* SEARCH"));
        let found: Vec<u32> = found.unwrap_or_default().split_ascii_whitespace().map(number).collect();
        if command.starts_with("SEARCH") {
            self.view.search(Book::now(), &found);
            self.book.found(self.view.take_violations());
        }
        Ok(found)
    }

    /// UIDs and their copies, from the COPYUID among these responses; nothing when there is none.
    #[must_use]
    pub fn copy_uid(responses: &[Response]) -> Option<(u32, Vec<(u32, u32)>)> {
        let text = responses
            .iter()
            .find_map(|response| after(&response.text, "[COPYUID "))?;
        let mut words = text.split(']').next()?.split(' ');
        let validity = number(words.next()?);
        let (from, to) = (uid_set(words.next()?), uid_set(words.next()?));
        Some((validity, from.into_iter().zip(to).collect()))
    }

    /// Begins to idle.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn begin_idle(&mut self) -> Answer<Idling> {
        let tag = self.send("IDLE").await?;
        loop {
            let response = self.response().await?;
            if response.text.starts_with('+') {
                return Ok(Idling(tag));
            }
            if let Some(rest) = response.text.strip_prefix(&tag) {
                self.view.end();
                return Err(refusal(rest.trim_start(), "IDLE"));
            }
            self.take(&response, "IDLE")?;
        }
    }

    /// Waits so long until something is said, and hears it; whether there was something.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn hear(&mut self, longest: Duration) -> Answer<bool> {
        if !self.stream.ready_within(longest).await {
            return Ok(false);
        }
        let response = self.response().await?;
        self.take(&response, "IDLE")?;
        Ok(true)
    }

    /// Ends what [`Self::begin_idle`] began.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn end_idle(&mut self, idling: Idling) -> Answer<()> {
        self.stream.send(b"DONE\r\n").await?;
        self.finish(&idling.0, "IDLE").await.map(drop)
    }

    /// Ends the session.
    pub async fn logout(mut self) {
        let _ = self.command("LOGOUT").await;
    }
}

/// An IDLE under way.
pub struct Idling(String);

/// What a tagged answer other than OK means.
fn refusal(answer: &str, command: &str) -> Failure {
    let text = format!("{answer} (to {command})");
    // A majority that did not answer in time may still do what it was asked.
    match answer {
        _ if answer.starts_with("NO [UNAVAILABLE]") || answer.starts_with("NO [SERVERBUG]") => Failure::Unknown(text),
        _ if answer.starts_with("NO") => Failure::Refused(text),
        _ => Failure::Protocol(text),
    }
}

/// `1:3,5`
fn uid_set(text: &str) -> Vec<u32> {
    let mut uids = Vec::new();
    for part in text.split(',') {
        match part.split_once(':') {
            Some((from, to)) => uids.extend(number(from)..=number(to)),
            None => uids.push(number(part)),
        }
    }
    uids
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_say_is_understood() {
        assert_eq!(uid_set("1:3,7"), [1, 2, 3, 7]);
        let flags = FlagSet(FlagSet::SEEN.0 | (FlagSet::KEYWORD.0 * 2));
        assert_eq!(flag_list(flags), "(\\Seen Later)");
        assert_eq!(parse_flags("\\Recent \\Seen Later"), flags);
        assert_eq!(parse_flags("never"), FlagSet(1 << 31));
        let response = |text: &str| Response {
            text: text.to_owned(),
            literals: Vec::new(),
        };
        let told = Imap::copy_uid(&[response("* 1 EXISTS"), response("* OK [COPYUID 9 4:5 1,3] Moved")]);
        assert_eq!(told, Some((9, vec![(4, 1), (5, 3)])));
        assert_eq!(Imap::copy_uid(&[response("OK done")]), None);
        assert!(matches!(refusal("NO [UNAVAILABLE] x", ""), Failure::Unknown(_)));
        assert!(matches!(refusal("NO [NONEXISTENT] x", ""), Failure::Refused(_)));
        assert!(matches!(refusal("BAD x", ""), Failure::Protocol(_)));
    }
}
