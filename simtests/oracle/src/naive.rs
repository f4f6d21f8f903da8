//! A mail store without faults, worked on by concurrent clients whose answers get lost: what the checks must pass, and,
//! with a planted bug, what they must not.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Action, FlagChange, FlagSet, History, MailboxKey, OpRef, Outcome, Seen, Token};
use crate::mail::FinalMessage;
use crate::rng::Rng;
use crate::time::Time;

/// What the store does wrong, now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    LosesAcknowledged,
    DeliversTwice,
    DeliversRefused,
    ReadsOldState,
    ReusesUid,
    ChangesBytes,
    ForgetsExpunge,
    ForgetsStore,
    InventsMail,
    MoveLosesCopy,
    ListsOldNames,
    ReadsAreTorn,
}

#[derive(Clone, Default)]
struct Mailbox {
    uid_next: u32,
    messages: BTreeMap<u32, (Token, [u8; 32], FlagSet)>,
}

#[derive(Clone, Default)]
struct Store {
    mailboxes: BTreeMap<MailboxKey, Mailbox>,
    names: BTreeSet<String>,
}

/// What happens next, and when.
enum Step {
    Begin(u32),
    Effect(OpRef, Action, Option<u32>),
    Answer(OpRef, u32, Box<Action>),
    GiveUp(OpRef, u32),
}

pub(crate) struct Run {
    pub(crate) history: History,
    pub(crate) last: Vec<FinalMessage>,
}

pub(crate) fn digest(token: Token) -> [u8; 32] {
    *blake3::hash(&token.0.to_le_bytes()).as_bytes()
}

pub(crate) fn run(seed: u64, ops: u32, bug: Option<Bug>) -> Run {
    Naive::new(seed, bug).run(ops)
}

struct Naive {
    rng: Rng,
    bug: Option<Bug>,
    store: Store,
    earlier: Vec<Store>,
    history: History,
    /// The UIDs that some client was told of.
    known: BTreeMap<MailboxKey, BTreeSet<u32>>,
    steps: BTreeMap<(Time, u64), Step>,
    number: u64,
    now: Time,
    token: u64,
}

impl Naive {
    fn new(seed: u64, bug: Option<Bug>) -> Self {
        let mut store = Store::default();
        for label in ["INBOX", "a", "b"] {
            store.mailboxes.insert(
                MailboxKey::new(1, label),
                Mailbox {
                    uid_next: 1,
                    ..Mailbox::default()
                },
            );
        }
        store.names = BTreeSet::from(["INBOX".to_owned()]);
        Self {
            rng: Rng::new(seed),
            bug,
            store,
            earlier: Vec::new(),
            history: History::new(),
            known: BTreeMap::new(),
            steps: BTreeMap::new(),
            number: 0,
            now: Time(0),
            token: 0,
        }
    }

    fn run(mut self, ops: u32) -> Run {
        for client in 0..4 {
            self.soon(Step::Begin(client), 50);
        }
        let mut begun = 0;
        while let Some(((now, _), step)) = self.steps.pop_first() {
            self.now = now;
            match step {
                Step::Begin(client) if begun < ops => {
                    begun += 1;
                    self.begin(client);
                }
                Step::Begin(_) => {}
                Step::Effect(op, action, client) => self.effect(op, action, client),
                Step::Answer(op, client, action) => {
                    self.learn(&action);
                    self.history.end(op, now, Outcome::Ok, |slot| *slot = *action);
                    self.soon(Step::Begin(client), 30);
                }
                Step::GiveUp(op, client) => {
                    self.history.end(op, now, Outcome::Unknown, |_| {});
                    self.soon(Step::Begin(client), 30);
                }
            }
        }
        let mut last = Vec::new();
        for (key, mailbox) in &self.store.mailboxes {
            for (uid, (token, digest, flags)) in &mailbox.messages {
                last.push(FinalMessage {
                    mailbox: key.clone(),
                    uid: *uid,
                    token: Some(*token),
                    digest: *digest,
                    flags: *flags,
                });
            }
        }
        Run {
            history: self.history,
            last,
        }
    }

    fn soon(&mut self, step: Step, within: u64) {
        self.number += 1;
        let at = Time(self.now.0 + 1 + self.rng.below(within));
        self.steps.insert((at, self.number), step);
    }

    fn begin(&mut self, client: u32) {
        let action = self.draw();
        let op = self.history.invoke(client, 1, self.now, action.clone());
        if self.rng.chance(30) && matches!(action, Action::Deliver { .. } | Action::Append { .. }) {
            // Refused: nothing happens.
            let now = Time(self.now.0 + 1);
            self.history.end(op, now, Outcome::Failed, |_| {});
            if self.bug == Some(Bug::DeliversRefused) {
                self.effect(op, action, None);
            }
            self.soon(Step::Begin(client), 30);
        } else if self.rng.chance(100) {
            self.soon(Step::GiveUp(op, client), 100);
            if self.rng.chance(600) {
                // Early, or long after the client gave up.
                let within = if self.rng.chance(500) { 50 } else { 3000 };
                self.soon(Step::Effect(op, action, None), within);
            }
        } else {
            self.soon(Step::Effect(op, action, Some(client)), 50);
        }
    }

    fn any_mailbox(&mut self) -> MailboxKey {
        let keys: Vec<MailboxKey> = self.store.mailboxes.keys().cloned().collect();
        self.rng.pick(&keys).cloned().unwrap()
    }

    fn learn(&mut self, action: &Action) {
        let (mailbox, uids): (_, Vec<u32>) = match action {
            Action::Append { to, uid, .. } => (to, uid.iter().copied().collect()),
            Action::Copy { to, pairs, .. } | Action::Move { to, pairs, .. } => {
                (to, pairs.iter().filter_map(|(_, target)| *target).collect())
            }
            Action::Read { mailbox, messages, .. } => {
                (mailbox, messages.iter().flatten().map(|(uid, _)| *uid).collect())
            }
            _ => return,
        };
        self.known.entry(mailbox.clone()).or_default().extend(uids);
    }

    fn some_uids(&mut self, mailbox: &MailboxKey) -> Option<Vec<u32>> {
        let uids: Vec<u32> = self.known.get(mailbox)?.iter().copied().collect();
        (!uids.is_empty()).then(|| self.rng.some_of(&uids, 3))
    }

    fn draw(&mut self) -> Action {
        let mailbox = self.any_mailbox();
        self.token += 1;
        let token = Token(self.token);
        let flags = FlagSet(1 << self.rng.below(5));
        let Some(uids) = self.some_uids(&mailbox) else {
            return self.draw_read(mailbox);
        };
        match self.rng.below(14) {
            0 | 1 => Action::Deliver {
                to: MailboxKey::new(1, "INBOX"),
                token,
                digest: digest(token),
            },
            2 => Action::Append {
                to: mailbox,
                token,
                digest: digest(token),
                flags,
                uid: None,
            },
            3 | 4 => Action::Store {
                uids,
                mailbox,
                change: *self
                    .rng
                    .pick(&[FlagChange::Add, FlagChange::Remove, FlagChange::Replace])
                    .unwrap(),
                flags,
            },
            number @ 5..=6 => {
                let pairs = uids.into_iter().map(|uid| (uid, None)).collect();
                let to = self.any_mailbox();
                if number == 5 || to == mailbox {
                    Action::Copy {
                        from: mailbox,
                        to,
                        pairs,
                    }
                } else {
                    Action::Move {
                        from: mailbox,
                        to,
                        pairs,
                    }
                }
            }
            7 => Action::Expunge { uids, mailbox },
            8 => {
                let name = format!("box{}", self.token);
                let name = if self.rng.chance(300) {
                    format!("{name}/sub")
                } else {
                    name
                };
                Action::Create { account: 1, name }
            }
            9 => Action::List {
                account: 1,
                names: Vec::new(),
            },
            _ => self.draw_read(mailbox),
        }
    }

    fn draw_read(&mut self, mailbox: MailboxKey) -> Action {
        if self.rng.chance(200) {
            self.token += 1;
            let token = Token(self.token);
            return Action::Deliver {
                to: MailboxKey::new(1, "INBOX"),
                token,
                digest: digest(token),
            };
        }
        Action::Read {
            mailbox,
            messages: None,
            some: Vec::new(),
            count: self.rng.chance(300).then_some(0),
        }
    }

    fn bug(&mut self, bug: Bug) -> bool {
        self.bug == Some(bug) && self.rng.chance(200)
    }

    /// The moment at which an operation takes effect.
    fn effect(&mut self, op: OpRef, mut action: Action, client: Option<u32>) {
        self.earlier.push(self.store.clone());
        let done = self.apply(&mut action);
        let Some(client) = client else { return };
        if done {
            self.soon(Step::Answer(op, client, Box::new(action)), 30);
        } else {
            self.history.end(op, self.now, Outcome::Failed, |_| {});
            self.soon(Step::Begin(client), 30);
        }
    }

    fn add(&mut self, to: &MailboxKey, message: (Token, [u8; 32], FlagSet)) -> u32 {
        let reuses = self.bug(Bug::ReusesUid);
        let mailbox = self.store.mailboxes.get_mut(to).unwrap();
        let mut uid = mailbox.uid_next;
        if reuses && uid > 1 {
            uid -= 1;
        }
        mailbox.uid_next = uid + 1;
        mailbox.messages.insert(uid, message);
        uid
    }

    fn apply(&mut self, action: &mut Action) -> bool {
        match action {
            Action::Deliver { to, token, digest } => {
                if self.bug(Bug::LosesAcknowledged) {
                    return true;
                }
                if self.bug(Bug::ChangesBytes) {
                    self.add(to, (*token, [9; 32], FlagSet::default()));
                    return true;
                }
                if self.bug(Bug::InventsMail) {
                    self.add(to, (Token(1 << 40), [9; 32], FlagSet::default()));
                }
                if self.bug(Bug::DeliversTwice) {
                    self.add(to, (*token, *digest, FlagSet::default()));
                }
                self.add(to, (*token, *digest, FlagSet::default()));
            }
            Action::Append {
                to,
                token,
                digest,
                flags,
                uid,
            } => *uid = Some(self.add(to, (*token, *digest, *flags))),
            Action::Store {
                mailbox,
                uids,
                change,
                flags,
            } => {
                if self.bug(Bug::ForgetsStore) {
                    return true;
                }
                let mailbox = self.store.mailboxes.get_mut(mailbox).unwrap();
                for uid in uids {
                    if let Some((_, _, now)) = mailbox.messages.get_mut(uid) {
                        match change {
                            FlagChange::Replace => *now = *flags,
                            FlagChange::Add => now.0 |= flags.0,
                            FlagChange::Remove => now.0 &= !flags.0,
                        }
                    }
                }
            }
            Action::Copy { from, to, pairs } => self.copy(from, to, pairs, true),
            Action::Move { from, to, pairs } => self.copy(from, to, pairs, false),
            Action::Expunge { mailbox, uids } => {
                if self.bug(Bug::ForgetsExpunge) {
                    return true;
                }
                let mailbox = self.store.mailboxes.get_mut(mailbox).unwrap();
                mailbox.messages.retain(|uid, _| !uids.contains(uid));
            }
            Action::Create { name, .. } => {
                if !self.store.names.insert(name.clone()) {
                    return false;
                }
                if let Some((superior, _)) = name.rsplit_once('/') {
                    self.store.names.insert(superior.to_owned());
                }
            }
            Action::List { names, .. } => {
                let old = self.bug(Bug::ListsOldNames);
                *names = self.view(old).names.iter().cloned().collect();
            }
            Action::Read {
                mailbox,
                messages,
                count,
                ..
            } => {
                let old = self.bug(Bug::ReadsOldState);
                let torn = self.bug(Bug::ReadsAreTorn);
                let view = &self.view(old).mailboxes[mailbox];
                let mut all: Vec<(u32, Seen)> = view
                    .messages
                    .iter()
                    .map(|(uid, (token, _, flags))| {
                        let seen = Seen {
                            token: Some(*token),
                            flags: Some(*flags),
                        };
                        (*uid, seen)
                    })
                    .collect();
                if torn {
                    all.pop();
                }
                match count {
                    Some(count) => *count = u32::try_from(all.len()).unwrap(),
                    None => *messages = Some(all),
                }
            }
            Action::Delete { .. } | Action::Rename { .. } | Action::Fetch { .. } => {}
        }
        true
    }

    fn view(&self, old: bool) -> &Store {
        let back = self.earlier.len().checked_sub(15).filter(|_| old);
        back.and_then(|back| self.earlier.get(back)).unwrap_or(&self.store)
    }

    fn copy(&mut self, from: &MailboxKey, to: &MailboxKey, pairs: &mut Vec<(u32, Option<u32>)>, keeps: bool) {
        pairs.retain(|(source, _)| self.store.mailboxes[from].messages.contains_key(source));
        for (source, target) in pairs {
            let message = self.store.mailboxes[from].messages[source];
            if !keeps {
                self.store.mailboxes.get_mut(from).unwrap().messages.remove(source);
                if self.bug(Bug::MoveLosesCopy) {
                    *target = Some(self.store.mailboxes[to].uid_next);
                    continue;
                }
            }
            *target = Some(self.add(to, message));
        }
    }
}
