//! What clients do, and what they must find.
//!
//! Every message carries a token. For each token and mailbox the [`Ledger`] knows between how many and how many copies there
//! must be: an operation widens the bounds when it begins and narrows them when its outcome is known; one whose outcome stays
//! unknown leaves them wide. A token is changed by one client only; everybody reads everything.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use core_types::Entropy;
use platform::SeededEntropy;

use crate::book::Book;
use crate::client::imap::{Fetched, Imap};
use crate::client::pop3::Pop3;
use crate::client::smtp::{Smtp, Taken};
use crate::client::{Answer, Failure};
use crate::host::INLINE_BYTES;
use crate::trace::Trace;

/// The mailboxes that every user has.
pub const MAILBOXES: [&str; 3] = ["INBOX", "Archive", "Work"];
/// Everybody's.
pub const PASSWORD: &str = "secret-of-the-simulation";

/// `user1@example.test`, ...
#[must_use]
pub fn address(user: usize) -> String {
    format!("user{}@example.test", user + 1)
}

/// Whether something is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// Nobody knows.
    Maybe,
}

/// How many copies there may be, and whether they have `\Flagged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// At least.
    pub least: i32,
    /// At most.
    pub most: i32,
    /// `\Flagged`
    pub flagged: Known,
}

const NONE: Bounds = Bounds {
    least: 0,
    most: 0,
    flagged: Known::No,
};

/// One message.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Whose.
    pub user: usize,
    /// What was sent: what the store keeps ends in this.
    pub bytes: Arc<Vec<u8>>,
    /// By mailbox.
    pub places: BTreeMap<&'static str, Bounds>,
    /// Copies over all mailboxes.
    pub total: (i32, i32),
}

impl Mail {
    fn place(&mut self, mailbox: &'static str) -> &mut Bounds {
        self.places.entry(mailbox).or_insert(NONE)
    }
}

/// What clients were told of numbers.
#[derive(Debug, Default)]
struct Numbers {
    /// What a UID means, for ever: by user, mailbox, UIDVALIDITY and UID.
    meaning: BTreeMap<(usize, &'static str, u32, u32), String>,
    /// By node, user, mailbox and UIDVALIDITY: the highest UIDNEXT announced, and the UIDs below it that were not there then.
    announced: BTreeMap<(usize, usize, &'static str, u32), (u32, BTreeSet<u32>)>,
    /// What a POP3 unique id means.
    uidl: BTreeMap<(usize, String), String>,
    validity: BTreeMap<(usize, &'static str), u32>,
}

#[derive(Default)]
struct Facts {
    mails: BTreeMap<String, Mail>,
    numbers: Numbers,
}

/// What all clients know together. Clones are the same.
#[derive(Clone, Default)]
pub struct Ledger {
    facts: Arc<Mutex<Facts>>,
    /// What is told of it.
    pub book: Book,
}

impl Ledger {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that must never be: its id, a colon, what.
    pub fn violation(&self, text: &str) {
        let (id, what) = text.split_once(": ").unwrap_or(("I34", text));
        self.book.violation(id.to_owned().leak(), what);
    }

    /// Every message.
    #[must_use]
    pub fn mails(&self) -> BTreeMap<String, Mail> {
        self.facts().mails.clone()
    }

    fn change<T>(&self, token: &str, change: impl FnOnce(&mut Mail) -> T) -> Option<T> {
        self.facts().mails.get_mut(token).map(change)
    }

    /// A message may come into being from now on.
    fn begin_arrival(&self, token: &str, user: usize, mailbox: &'static str, bytes: Arc<Vec<u8>>) {
        let mut book = self.facts();
        let mail = book.mails.entry(token.to_owned()).or_insert_with(|| Mail {
            user,
            bytes,
            places: BTreeMap::new(),
            total: (0, 0),
        });
        mail.place(mailbox).most += 1;
        mail.total.1 += 1;
    }

    fn end_arrival(&self, token: &str, mailbox: &'static str, outcome: &Answer<Taken>) {
        self.change(token, |mail| match outcome {
            Ok(Taken::Delivered) => {
                mail.place(mailbox).least += 1;
                mail.total.0 += 1;
            }
            Ok(Taken::Queued) => mail.total.0 += 1,
            Err(Failure::Refused(_)) => {
                mail.place(mailbox).most -= 1;
                mail.total.1 -= 1;
            }
            Err(_) => {}
        });
    }

    /// What a listing of a mailbox at a node must obey. `before` is [`Self::mails`] as it was when the command began.
    pub fn check_listing(
        &self,
        node: usize,
        user: usize,
        mailbox: &'static str,
        before: &BTreeMap<String, Mail>,
        listing: &Listing,
    ) {
        let mut wrong = Vec::new();
        let place = format!("{mailbox} of {} at node {}", address(user), node + 1);
        let mut found: BTreeMap<&str, i32> = BTreeMap::new();
        for (_, token) in &listing.messages {
            *found.entry(token).or_default() += 1;
        }
        let mut book = self.facts();
        let after = &book.mails;
        for (token, mail) in before.iter().filter(|(_, mail)| mail.user == user) {
            let least = |mail: &Mail| mail.places.get(mailbox).map_or(0, |bounds| bounds.least);
            let now = after.get(token).unwrap_or(mail);
            let needed = least(mail).min(least(now));
            let there = found.get(token.as_str()).copied().unwrap_or(0);
            if there < needed {
                wrong.push(format!(
                    "I01/I13: {token} is {there} times in {place}, acknowledged {needed} times"
                ));
            }
        }
        for (token, there) in &found {
            let most = |mails: &BTreeMap<String, Mail>| {
                mails
                    .get(*token)
                    .filter(|mail| mail.user == user)
                    .and_then(|mail| mail.places.get(mailbox))
                    .map_or(0, |bounds| bounds.most)
            };
            let allowed = most(before).max(most(after));
            if *there > allowed {
                wrong.push(format!(
                    "I04/I05: {token} is {there} times in {place}, at most {allowed} can be"
                ));
            }
        }
        let numbers = &mut book.numbers;
        let validity = listing.uid_validity;
        if let Some(known) = numbers.validity.insert((user, mailbox), validity)
            && known != validity
        {
            wrong.push(format!("U3: UIDVALIDITY of {place} was {known} and is {validity}"));
        }
        for (uid, token) in &listing.messages {
            let meaning = numbers
                .meaning
                .entry((user, mailbox, validity, *uid))
                .or_insert_with(|| token.clone());
            if meaning != token {
                wrong.push(format!("U1: UID {uid} in {place} was {meaning} and is {token}"));
            }
        }
        let uids: BTreeSet<u32> = listing.messages.iter().map(|(uid, _)| *uid).collect();
        let entry = numbers.announced.entry((node, user, mailbox, validity)).or_default();
        for uid in uids.iter().filter(|uid| **uid < entry.0 && entry.1.contains(uid)) {
            wrong.push(format!(
                "U2: UID {uid} became visible in {place} after UIDNEXT {} was announced",
                entry.0
            ));
        }
        if listing.uid_next > entry.0 {
            let absent = (entry.0.max(1)..listing.uid_next).filter(|uid| !uids.contains(uid));
            entry.1.extend(absent);
            entry.0 = listing.uid_next;
        }
        if let Some(uid) = uids.iter().next_back()
            && *uid >= listing.uid_next
        {
            wrong.push(format!(
                "I09: UID {uid} is not below UIDNEXT {} in {place}",
                listing.uid_next
            ));
        }
        drop(book);
        for text in wrong {
            self.violation(&text);
        }
    }

    fn check_uidl(&self, user: usize, id: &str, token: &str) {
        let known = self
            .facts()
            .numbers
            .uidl
            .entry((user, id.to_owned()))
            .or_insert_with(|| token.to_owned())
            .clone();
        if known != token {
            self.violation(&format!(
                "I11: unique id {id} of {} was {known} and is {token}",
                address(user)
            ));
        }
    }
}

/// A mailbox as one client saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// UIDVALIDITY
    pub uid_validity: u32,
    /// UIDNEXT
    pub uid_next: u32,
    /// UID and token.
    pub messages: Vec<(u32, String)>,
}

/// The token of a message.
#[must_use]
pub fn token_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .find_map(|line| line.strip_prefix("X-Token: "))
        .unwrap_or("no token")
        .to_owned()
}

/// Selects a mailbox and reads all of it.
///
/// # Errors
/// [`Failure`]
pub async fn list(imap: &mut Imap, mailbox: &str) -> Answer<(Listing, Vec<Fetched>)> {
    imap.select(mailbox).await?;
    let (uid_validity, uid_next) = (imap.view.uid_validity, imap.view.uid_next);
    let there = imap.view.uids.len();
    let fetched = if there == 0 {
        Vec::new()
    } else {
        imap.fetch("1:*", true).await?
    };
    let messages = fetched
        .iter()
        .map(|message| (message.uid, token_of(&message.body)))
        .collect();
    let listing = Listing {
        uid_validity,
        uid_next,
        messages,
    };
    Ok((listing, fetched))
}

/// One client. It goes from node to node.
pub struct Client {
    /// Its number, from 0.
    pub number: usize,
    /// How many there are.
    pub clients: usize,
    /// Users; this client changes the mail of `number % users`.
    pub users: usize,
    /// The nodes' addresses.
    pub nodes: Vec<IpAddr>,
    /// What everybody knows.
    pub ledger: Ledger,
    /// Its own choices.
    pub entropy: SeededEntropy,
    /// For the reader of a trace.
    pub trace: Trace,
    /// When to stop.
    pub stop: Arc<std::sync::atomic::AtomicBool>,
    /// Messages made.
    pub made: u32,
}

impl Client {
    fn below(&self, bound: usize) -> usize {
        let entropy: &dyn Entropy = &self.entropy;
        usize::try_from(entropy.below(bound as u64)).unwrap_or(0)
    }

    fn user(&self) -> usize {
        self.number % self.users
    }

    /// Until it is stopped.
    pub async fn work(mut self) {
        while !self.stop.load(std::sync::atomic::Ordering::Relaxed) {
            let node = self.below(self.nodes.len());
            let result = match self.below(20) {
                0..=4 => self.deliver(node).await,
                5..=7 => self.append(node).await,
                8..=10 => self.read(node).await,
                11..=12 => self.flag(node).await,
                13..=14 => self.transfer(node, true).await,
                15 => self.transfer(node, false).await,
                16 => self.expunge(node).await,
                17 => self.pop3(node).await,
                18 => self.idle(node).await,
                _ => self.die(node).await,
            };
            let (name, result) = result;
            let text = result.as_ref().map_or_else(ToString::to_string, |()| "ok".to_owned());
            self.trace.note(
                &format!("client-{}", self.number),
                name,
                &format!("node {} {text}", node + 1),
                &[],
            );
            match result {
                Ok(()) => self.ledger.book.count(name),
                Err(Failure::Protocol(text)) => self
                    .ledger
                    .violation(&format!("S00: {name} at node {}: {text}", node + 1)),
                Err(_) => self.ledger.book.count("failed"),
            }
            tokio::time::sleep(Duration::from_millis(self.below(150) as u64)).await;
        }
    }

    fn message(&mut self) -> (String, Arc<Vec<u8>>) {
        self.made += 1;
        let token = format!("m{}-{}", self.number, self.made);
        let mut bytes = format!("From: a@example.org\r\nSubject: {token}\r\nX-Token: {token}\r\n\r\n").into_bytes();
        // Some are too large for the blob journal, and do not compress.
        let length = if self.below(12) == 0 {
            INLINE_BYTES + self.below(20_000)
        } else {
            self.below(1500)
        };
        let mut noise = vec![0; length / 2];
        self.entropy.fill(&mut noise);
        for (index, byte) in noise.iter().enumerate() {
            bytes.extend_from_slice(format!("{byte:02x}").as_bytes());
            if index % 30 == 29 {
                bytes.extend_from_slice(b"\r\n");
            }
        }
        bytes.extend_from_slice(b"\r\n");
        (token, Arc::new(bytes))
    }

    async fn deliver(&mut self, node: usize) -> (&'static str, Answer<()>) {
        let (token, bytes) = self.message();
        let lmtp = self.below(2) == 0;
        let many = self.below(4) == 0;
        let first = self.below(self.users);
        let to: Vec<usize> = if many { (0..self.users).collect() } else { vec![first] };
        // One token for each recipient, so that each message has one owner; the bytes are the same.
        let tokens: Vec<String> = to.iter().map(|user| format!("{token}/{user}")).collect();
        let result = async {
            let mut smtp = Smtp::connect(self.nodes[node], lmtp)
                .await
                .map_err(|failure| Failure::Refused(failure.to_string()))?;
            for (user, token) in to.iter().zip(&tokens) {
                self.ledger.begin_arrival(token, *user, "INBOX", Arc::clone(&bytes));
            }
            let addresses: Vec<String> = to.iter().map(|user| address(*user)).collect();
            let began = Book::now();
            let outcomes = match smtp.deliver("a@example.org", &addresses, &bytes).await {
                Ok(outcomes) => outcomes,
                Err(failure) => vec![Err(failure); to.len()],
            };
            if outcomes.iter().any(|outcome| matches!(outcome, Ok(Taken::Delivered))) {
                self.ledger.book.acknowledged(began, &bytes);
            }
            for (token, outcome) in tokens.iter().zip(&outcomes) {
                self.ledger.end_arrival(token, "INBOX", outcome);
            }
            for outcome in outcomes {
                if outcome? == Taken::Queued {
                    self.ledger.book.count("queued");
                }
            }
            Ok(())
        };
        ("deliver", result.await)
    }

    async fn login(&self, node: usize) -> Answer<Imap> {
        Imap::login(self.nodes[node], &address(self.user()), PASSWORD).await
    }

    async fn append(&mut self, node: usize) -> (&'static str, Answer<()>) {
        let (token, bytes) = self.message();
        let token = format!("{token}/{}", self.user());
        let mailbox = MAILBOXES[self.below(MAILBOXES.len())];
        let result = async {
            let mut imap = self.login(node).await?;
            self.ledger
                .begin_arrival(&token, self.user(), mailbox, Arc::clone(&bytes));
            let began = Book::now();
            let answer = imap.append(mailbox, "", &bytes).await;
            if answer.is_ok() {
                self.ledger.book.acknowledged(began, &bytes);
            }
            let outcome = answer.map(|_| Taken::Delivered);
            self.ledger.end_arrival(&token, mailbox, &outcome);
            imap.logout().await;
            outcome.map(drop)
        };
        ("append", result.await)
    }

    async fn read(&self, node: usize) -> (&'static str, Answer<()>) {
        let result = async {
            let user = self.below(self.users);
            let mut imap = Imap::login(self.nodes[node], &address(user), PASSWORD).await?;
            let mailbox = MAILBOXES[self.below(MAILBOXES.len())];
            let before = self.ledger.mails();
            let (mut listing, fetched) = list(&mut imap, mailbox).await?;
            owned(&mut listing, user);
            self.ledger.check_listing(node, user, mailbox, &before, &listing);
            check_bytes(&self.ledger, &fetched, user);
            imap.logout().await;
            Ok(())
        };
        ("read", result.await)
    }

    /// A token that this client may change, and a mailbox where it may be.
    fn pick(&self) -> Option<(String, &'static str)> {
        let mails = self.ledger.mails();
        let mine: Vec<_> = mails
            .iter()
            .filter(|(token, mail)| mail.user == self.user() && owner(token, self.clients, self.users) == self.number)
            .flat_map(|(token, mail)| {
                mail.places
                    .iter()
                    .filter(|(_, bounds)| bounds.most > 0)
                    .map(|(mailbox, _)| (token.clone(), *mailbox))
            })
            .collect();
        (!mine.is_empty()).then(|| mine[self.below(mine.len())].clone())
    }

    /// The UIDs of a token in the selected mailbox.
    async fn find(&self, imap: &mut Imap, token: &str) -> Answer<Vec<u32>> {
        let bare = token.split('/').next().unwrap_or_default();
        imap.search(&format!("HEADER X-Token \"{bare}\"")).await
    }

    async fn flag(&self, node: usize) -> (&'static str, Answer<()>) {
        let result = async {
            let Some((token, mailbox)) = self.pick() else {
                return Ok(());
            };
            let mut imap = self.login(node).await?;
            imap.select(mailbox).await?;
            let uids = self.exact(&mut imap, &token).await?;
            if uids.is_empty() {
                return Ok(());
            }
            let set = self.below(3) > 0;
            self.ledger
                .change(&token, |mail| mail.place(mailbox).flagged = Known::Maybe);
            let sign = if set { '+' } else { '-' };
            imap.command(&format!("UID STORE {} {sign}FLAGS (\\Flagged)", join(&uids)))
                .await?;
            self.ledger.change(&token, |mail| {
                let place = mail.place(mailbox);
                // More may be there than were found: unknown arrivals.
                let all = i32::try_from(uids.len()).unwrap_or(0) == place.most;
                place.flagged = match (all, set) {
                    (false, _) => Known::Maybe,
                    (true, true) => Known::Yes,
                    (true, false) => Known::No,
                };
            });
            imap.logout().await;
            Ok(())
        };
        ("flag", result.await)
    }

    /// Tokens begin alike (`m1-1`, `m1-12`): the header's text decides.
    async fn exact(&self, imap: &mut Imap, token: &str) -> Answer<Vec<u32>> {
        let candidates = self.find(imap, token).await?;
        if candidates.is_empty() {
            return Ok(candidates);
        }
        let bare = token.split('/').next().unwrap_or_default();
        let fetched = imap.fetch(&join(&candidates), true).await?;
        Ok(fetched
            .iter()
            .filter(|message| token_of(&message.body) == bare)
            .map(|message| message.uid)
            .collect())
    }

    async fn transfer(&self, node: usize, moves: bool) -> (&'static str, Answer<()>) {
        let name = if moves { "move" } else { "copy" };
        let result = async {
            let Some((token, from)) = self.pick() else {
                return Ok(());
            };
            let to = MAILBOXES[self.below(MAILBOXES.len())];
            if from == to {
                return Ok(());
            }
            let mut imap = self.login(node).await?;
            imap.select(from).await?;
            let uids = self.exact(&mut imap, &token).await?;
            let Some(uid) = uids.first() else { return Ok(()) };
            self.ledger.change(&token, |mail| {
                let flagged = mail.place(from).flagged;
                let target = mail.place(to);
                target.flagged = if target.most == 0 || target.flagged == flagged {
                    flagged
                } else {
                    Known::Maybe
                };
                target.most += 1;
                if moves {
                    mail.place(from).least -= 1;
                } else {
                    mail.total.1 += 1;
                }
            });
            let verb = if moves { "MOVE" } else { "COPY" };
            let answer = imap.command(&format!("UID {verb} {uid} {to}")).await;
            self.ledger.change(&token, |mail| match &answer {
                Ok(_) => {
                    mail.place(to).least += 1;
                    if moves {
                        mail.place(from).most -= 1;
                    } else {
                        mail.total.0 += 1;
                    }
                }
                Err(Failure::Refused(_)) => {
                    mail.place(to).most -= 1;
                    if moves {
                        mail.place(from).least += 1;
                    } else {
                        mail.total.1 -= 1;
                    }
                }
                Err(_) => {}
            });
            answer?;
            imap.logout().await;
            Ok(())
        };
        (name, result.await)
    }

    async fn expunge(&self, node: usize) -> (&'static str, Answer<()>) {
        let result = async {
            let Some((token, mailbox)) = self.pick() else {
                return Ok(());
            };
            let mut imap = self.login(node).await?;
            imap.select(mailbox).await?;
            let uids = self.exact(&mut imap, &token).await?;
            let Some(uid) = uids.first() else { return Ok(()) };
            imap.command(&format!("UID STORE {uid} +FLAGS (\\Deleted)")).await?;
            self.ledger.change(&token, |mail| {
                mail.place(mailbox).least -= 1;
                mail.total.0 -= 1;
            });
            let answer = imap.command(&format!("UID EXPUNGE {uid}")).await;
            self.ledger.change(&token, |mail| match &answer {
                Ok(_) => {
                    mail.place(mailbox).most -= 1;
                    mail.total.1 -= 1;
                }
                Err(Failure::Refused(_)) => {
                    mail.place(mailbox).least += 1;
                    mail.total.0 += 1;
                }
                Err(_) => {}
            });
            answer?;
            imap.logout().await;
            Ok(())
        };
        ("expunge", result.await)
    }

    async fn pop3(&self, node: usize) -> (&'static str, Answer<()>) {
        let result = async {
            let user = self.user();
            let mut pop3 = Pop3::login(self.nodes[node], &address(user), PASSWORD).await?;
            let list = pop3.uidl().await?;
            for (number, id) in list.iter().rev().take(3) {
                let bytes = pop3.retrieve(*number).await?;
                self.ledger.check_uidl(user, id, &token_of(&bytes));
            }
            pop3.quit().await
        };
        ("pop3", result.await)
    }

    async fn idle(&self, node: usize) -> (&'static str, Answer<()>) {
        let result = async {
            let mut imap = self.login(node).await?;
            imap.select("INBOX").await?;
            imap.idle(Duration::from_secs(3)).await?;
            imap.command("NOOP").await?;
            if self.below(4) > 0 {
                imap.logout().await;
            }
            Ok(())
        };
        ("idle", result.await)
    }

    async fn die(&mut self, node: usize) -> (&'static str, Answer<()>) {
        let (_, bytes) = self.message();
        let result = async {
            if self.below(2) == 0 {
                let smtp = Smtp::connect(self.nodes[node], false).await?;
                let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
                smtp.die_in_data("a@example.org", &address(0), half).await;
            } else {
                self.login(node).await?.die_in_append("INBOX", &bytes).await;
            }
            Ok(())
        };
        ("die", result.await)
    }
}

/// The client that changes a token.
fn owner(token: &str, clients: usize, users: usize) -> usize {
    let user: usize = token.rsplit('/').next().and_then(|user| user.parse().ok()).unwrap_or(0);
    let number: usize = token
        .chars()
        .filter(char::is_ascii_digit)
        .fold(0, |sum, digit| sum * 7 + digit as usize);
    let mine: Vec<usize> = (0..clients).filter(|client| client % users == user).collect();
    mine.get(number % mine.len().max(1)).copied().unwrap_or(0)
}

/// Messages in the store know the bare token; the ledger's has the user behind it.
pub fn owned(listing: &mut Listing, user: usize) {
    for (_, token) in &mut listing.messages {
        *token = format!("{token}/{user}");
    }
}

/// What is read is what was sent, behind what the server put in front.
pub fn check_bytes(ledger: &Ledger, fetched: &[Fetched], user: usize) {
    for message in fetched {
        let token = format!("{}/{user}", token_of(&message.body));
        let mails = ledger.mails();
        let Some(mail) = mails.get(&token) else {
            ledger.violation(&format!("I04: a message with the token {token} was never sent"));
            continue;
        };
        if !message.body.ends_with(&mail.bytes) {
            ledger.violation(&format!("I06: the bytes of {token} are not what was sent"));
        }
        if message.size != message.body.len() as u64 {
            ledger.violation(&format!(
                "I06: RFC822.SIZE of {token} is {}, its bytes are {}",
                message.size,
                message.body.len()
            ));
        }
    }
}

fn join(uids: &[u32]) -> String {
    let texts: Vec<String> = uids.iter().map(ToString::to_string).collect();
    texts.join(",")
}
