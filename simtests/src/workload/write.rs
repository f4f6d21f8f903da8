//! Clients that change: APPEND, STORE, COPY, MOVE, EXPUNGE and CLOSE, and the tree of mailboxes.

use std::collections::BTreeSet;

use oracle::history::{Action, FlagChange, FlagSet, MailboxKey, OpRef, Outcome};
use oracle::message::digest;
use oracle::schedule::During;

use super::world::Sweep;
use super::{Client, MAILBOXES, outcome_of};
use crate::book::Book;
use crate::client::imap::{Imap, flag_list};
use crate::client::{Answer, Failure};

/// With so many messages in a mailbox there is more expunged than added: what is judged has to stay small.
const MESSAGES_MAX: usize = 16;
/// Mailboxes of a user, with those that stay.
const NAMES_MAX: usize = 7;

/// UIDs as a set.
pub(super) fn join(uids: &[u32]) -> String {
    let texts: Vec<String> = uids.iter().map(ToString::to_string).collect();
    texts.join(",")
}

impl Client {
    pub(super) async fn write_something(&mut self) -> (&'static str, Answer<()>) {
        if self.world.is_doomed(self.plan.id, During::Append) {
            return ("die-in-append", self.die_in_append().await);
        }
        if !self.has_selected() || self.chance(8) {
            return ("select", self.open_some().await.map(drop));
        }
        let exists = self
            .session
            .as_ref()
            .map_or(0, |session| session.imap.exists() as usize);
        if exists > MESSAGES_MAX && self.chance(2) {
            return ("expunge", self.expunge().await);
        }
        match self.below(24) {
            0..=3 => ("append", self.append().await),
            4..=9 => ("store", self.store().await),
            10..=11 => ("copy", self.transfer(false).await),
            12..=14 => ("move", self.transfer(true).await),
            15..=16 => ("expunge", self.expunge().await),
            17 => ("sweep", self.sweep().await),
            18 => ("create", self.create().await),
            19 => ("rename", self.rename().await),
            20 => ("delete", self.delete().await),
            21 => ("list", self.list().await),
            22 => ("noop", self.look_again().await),
            _ => match self.below(3) {
                0 => ("die-in-append", self.die_in_append().await),
                _ => ("noop", self.look_again().await),
            },
        }
    }

    fn some_flags(&self) -> FlagSet {
        let bits = [1, 2, 4, 16, 32, 64];
        let mut flags = bits[self.below(bits.len())];
        if self.chance(3) {
            flags |= bits[self.below(bits.len())];
        }
        FlagSet(flags)
    }

    /// Up to so many messages that the session shows, with their numbers, by UID.
    fn some_messages(&self, most: usize) -> Vec<(u32, u32)> {
        let mut known = self
            .session
            .as_ref()
            .map(|session| session.imap.uids())
            .unwrap_or_default();
        let wanted = 1 + self.below(most);
        let mut chosen = Vec::new();
        while chosen.len() < wanted && !known.is_empty() {
            chosen.push(known.swap_remove(self.below(known.len())));
        }
        chosen.sort_by_key(|(_, uid)| *uid);
        chosen
    }

    fn selected(&self) -> Answer<MailboxKey> {
        let key = self.session.as_ref().and_then(|session| session.mailbox.clone());
        key.ok_or_else(|| Failure::Unknown("nothing is selected".to_owned()))
    }

    async fn imap(&mut self) -> Answer<&mut Imap> {
        Ok(&mut self.session().await?.imap)
    }

    async fn append(&mut self) -> Answer<()> {
        let name = self.some_name();
        let to = self.key(&self.world.label(self.user, &name));
        if self.world.size(&to) > MESSAGES_MAX * 2 {
            return Ok(());
        }
        let (token, bytes) = self.message();
        let flags = if self.chance(2) { FlagSet(0) } else { self.some_flags() };
        self.imap().await?;
        let op = self.invoke(Action::Append {
            to,
            token,
            digest: digest(&bytes),
            flags,
            uid: None,
        });
        let began = Book::now();
        let answer = match self.imap().await {
            Ok(imap) => imap.append(&name, flags, &bytes).await,
            Err(failure) => Err(failure),
        };
        if answer.is_ok() {
            self.book().acknowledged(began, &bytes);
        }
        match &answer {
            Ok((_, told)) => self.end(op, Outcome::Ok, |action| {
                if let Action::Append { uid, .. } = action {
                    *uid = Some(*told);
                }
            }),
            Err(failure) => self.end_refused(op, failure, &name),
        }
        answer.map(drop)
    }

    /// It failed; perhaps since there is no mailbox of that name any more.
    fn end_refused(&self, op: OpRef, failure: &Failure, name: &str) {
        self.end(op, outcome_of(failure), |_| {});
        if let Failure::Refused(text) = failure
            && (text.contains("TRYCREATE") || text.contains("NONEXISTENT"))
            && name != "INBOX"
        {
            self.world.set_there(self.user, name, false);
        }
    }

    async fn store(&mut self) -> Answer<()> {
        let flags = match self.chance(8) {
            true => FlagSet::DELETED,
            false => self.some_flags(),
        };
        let change = match self.below(5) {
            0 => FlagChange::Replace,
            1..=2 => FlagChange::Add,
            _ => FlagChange::Remove,
        };
        let messages = self.some_messages(3);
        let by_number = self.chance(2);
        self.store_on(&messages, change, flags, by_number).await
    }

    async fn store_on(
        &mut self,
        messages: &[(u32, u32)],
        change: FlagChange,
        flags: FlagSet,
        by_number: bool,
    ) -> Answer<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let uids: Vec<u32> = messages.iter().map(|(_, uid)| *uid).collect();
        let op = self.invoke(Action::Store {
            mailbox: self.selected()?,
            uids: uids.clone(),
            change,
            flags,
        });
        let silent = if self.chance(2) { ".SILENT" } else { "" };
        let item = match change {
            FlagChange::Replace => "FLAGS",
            FlagChange::Add => "+FLAGS",
            FlagChange::Remove => "-FLAGS",
        };
        let list = flag_list(flags);
        let numbers: Vec<u32> = messages.iter().map(|(number, _)| *number).collect();
        let command = match by_number {
            true => format!("STORE {} {item}{silent} {list}", join(&numbers)),
            false => format!("UID STORE {} {item}{silent} {list}", join(&uids)),
        };
        let mut answer = match self.imap().await {
            Ok(imap) => imap.command(&command).await.map(drop),
            Err(failure) => Err(failure),
        };
        if let Err(Failure::Refused(text)) = &answer
            && text.contains("EXPUNGEISSUED")
        {
            // Some of them are gone, which is no failure: the others have it.
            answer = Ok(());
            self.book().count("op.store-expunge-issued");
        }
        let outcome = answer.as_ref().err().map_or(Outcome::Ok, outcome_of);
        self.end(op, outcome, |_| {});
        if by_number && outcome == Outcome::Ok {
            self.book().count("op.store-by-number");
        }
        answer
    }

    async fn transfer(&mut self, moves: bool) -> Answer<()> {
        let from = self.selected()?;
        let names = self.world.names(self.user).into_iter().filter_map(|name| {
            let to = self.key(&self.world.label(self.user, &name));
            // QUIT of POP3 deletes what has that UIDL wherever in INBOX it is: what left INBOX does not come back as it was.
            let may_be = !moves || (from != to && name != "INBOX");
            (may_be && self.world.size(&to) <= MESSAGES_MAX * 2).then_some((name, to))
        });
        let Some((name, to)) = self.pick(&names.collect::<Vec<_>>()).cloned() else {
            return Ok(());
        };
        let messages = self.some_messages(2);
        if messages.is_empty() {
            return Ok(());
        }
        let pairs: Vec<(u32, Option<u32>)> = messages.iter().map(|(_, uid)| (*uid, None)).collect();
        let op = self.invoke(match moves {
            true => Action::Move { from, to, pairs },
            false => Action::Copy { from, to, pairs },
        });
        let by_number = self.chance(3);
        let set: Vec<u32> = messages
            .iter()
            .map(|(number, uid)| if by_number { *number } else { *uid })
            .collect();
        let verb = if moves { "MOVE" } else { "COPY" };
        let uid = if by_number { "" } else { "UID " };
        let command = format!("{uid}{verb} {} {name}", join(&set));
        let answer = match self.imap().await {
            Ok(imap) => imap.command(&command).await,
            Err(failure) => Err(failure),
        };
        match &answer {
            Ok(responses) => {
                let told = Imap::copy_uid(responses).map(|(_, pairs)| pairs).unwrap_or_default();
                self.end(op, Outcome::Ok, |action| {
                    if let Action::Copy { pairs, .. } | Action::Move { pairs, .. } = action {
                        *pairs = told
                            .into_iter()
                            .map(|(source, target)| (source, Some(target)))
                            .collect();
                        pairs.sort_unstable();
                    }
                });
            }
            Err(failure) => self.end_refused(op, failure, &name),
        }
        answer.map(drop)
    }

    /// Each of these messages may go.
    fn invoke_expunge(&self, mailbox: &MailboxKey, uids: &[u32]) -> Vec<(u32, OpRef)> {
        let expunge = |uid: &u32| {
            let action = Action::Expunge {
                mailbox: mailbox.clone(),
                uids: vec![*uid],
            };
            (*uid, self.invoke(action))
        };
        uids.iter().map(expunge).collect()
    }

    fn end_expunge(&self, ops: Vec<(u32, OpRef)>, outcome: Outcome, gone: &BTreeSet<u32>) {
        for (uid, op) in ops {
            // What is there still was not touched: the flag was taken away before.
            let of_this = match outcome {
                Outcome::Ok if !gone.contains(&uid) => Outcome::Failed,
                outcome => outcome,
            };
            self.end(op, of_this, |_| {});
        }
    }

    /// Some messages, by UID.
    async fn expunge(&mut self) -> Answer<()> {
        let messages = self.some_messages(5);
        if messages.is_empty() {
            return Ok(());
        }
        let by_number = self.chance(3);
        self.store_on(&messages, FlagChange::Add, FlagSet::DELETED, by_number)
            .await?;
        let uids: Vec<u32> = messages.iter().map(|(_, uid)| *uid).collect();
        let there: BTreeSet<u32> = self.imap().await?.uids().into_iter().map(|(_, uid)| uid).collect();
        let uids: Vec<u32> = uids.into_iter().filter(|uid| there.contains(uid)).collect();
        if uids.is_empty() {
            return Ok(());
        }
        self.imap().await?.take_expunged();
        let ops = self.invoke_expunge(&self.selected()?, &uids);
        let answer = match self.imap().await {
            Ok(imap) => imap.command(&format!("UID EXPUNGE {}", join(&uids))).await.map(drop),
            Err(failure) => Err(failure),
        };
        let gone = self.expunged();
        let outcome = answer.as_ref().err().map_or(Outcome::Ok, outcome_of);
        self.end_expunge(ops, outcome, &gone);
        answer
    }

    fn expunged(&mut self) -> BTreeSet<u32> {
        let expunged = self.session.as_mut().map(|session| session.imap.take_expunged());
        expunged.into_iter().flatten().flatten().collect()
    }

    /// Everything with `\Deleted`, by EXPUNGE or CLOSE.
    async fn sweep(&mut self) -> Answer<()> {
        let (began, mailbox) = (Book::now(), self.selected()?);
        let session = self.session().await?;
        let (node, name) = (session.node, session.name.clone());
        let known: Vec<u32> = session.imap.uids().into_iter().map(|(_, uid)| uid).collect();
        session.imap.take_expunged();
        let begun = self.begun(node);
        let ops = self.invoke_expunge(&mailbox, &known);
        let mut sweep = Sweep {
            client: self.plan.id,
            node: node as u64 + 1,
            began,
            mailbox: mailbox.clone(),
            known: known.iter().copied().collect(),
            below: None,
        };
        let close = self.chance(2);
        let command = if close { "CLOSE" } else { "EXPUNGE" };
        let answer = match self.imap().await {
            Ok(imap) => imap.command(command).await.map(drop),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = answer {
            self.end_expunge(ops, outcome_of(&failure), &BTreeSet::new());
            if !matches!(failure, Failure::Refused(_)) {
                self.world.swept(sweep);
            }
            return Err(failure);
        }
        self.book().count(if close { "op.close" } else { "op.expunge-all" });
        let gone = if close {
            let session = self.session().await?;
            session.imap.unselect();
            session.mailbox = None;
            // Nobody says what went: a look does.
            self.look(Some(&name)).await.map(|fetched| {
                let there: BTreeSet<u32> = fetched.iter().map(|message| message.uid).collect();
                known.iter().copied().filter(|uid| !there.contains(uid)).collect()
            })
        } else {
            Ok(self.expunged())
        };
        let same = self.session.as_ref().and_then(|session| session.mailbox.as_ref()) == Some(&mailbox);
        if same && let Some(view) = self.look_at_state(&begun, &mailbox).await {
            sweep.below = Some(view.uid_next);
        }
        self.world.swept(sweep);
        match gone {
            Ok(gone) => self.end_expunge(ops, Outcome::Ok, &gone),
            Err(failure) => {
                self.end_expunge(ops, Outcome::Unknown, &BTreeSet::new());
                return Err(failure);
            }
        }
        Ok(())
    }

    async fn die_in_append(&mut self) -> Answer<()> {
        let (_, bytes) = self.message();
        self.session().await?;
        if let Some(session) = self.session.take() {
            session.imap.die_in_append("INBOX", &bytes).await;
        }
        self.move_on();
        Ok(())
    }

    /// A name that nobody ever used, some below a new one.
    fn new_name(&mut self, kind: char) -> String {
        self.made += 1;
        let top = format!("{kind}{}x{}", self.plan.id, self.made);
        self.world.name(self.user, &top, &top);
        if self.chance(3) {
            return format!("{top}/in");
        }
        top
    }

    /// Something that changes the tree.
    async fn change_tree(&mut self, action: Action, command: &str) -> Answer<()> {
        self.session().await?;
        let op = self.invoke(action);
        let answer = match self.imap().await {
            Ok(imap) => imap.command(command).await.map(drop),
            Err(failure) => Err(failure),
        };
        let outcome = answer.as_ref().err().map_or(Outcome::Ok, outcome_of);
        self.end(op, outcome, |_| {});
        answer
    }

    async fn create(&mut self) -> Answer<()> {
        if self.world.names(self.user).len() >= NAMES_MAX {
            return Ok(());
        }
        let name = self.new_name('b');
        self.world.name(self.user, &name, &name);
        let action = Action::Create {
            account: self.user,
            name: name.clone(),
        };
        let answer = self.change_tree(action, &format!("CREATE {name}")).await;
        if answer.is_ok() {
            self.world.set_there(self.user, &name, true);
        }
        answer
    }

    fn some_passing_name(&self) -> Option<String> {
        let mut names = self.world.names(self.user);
        names.retain(|name| !MAILBOXES.contains(&name.as_str()));
        self.pick(&names).cloned()
    }

    async fn rename(&mut self) -> Answer<()> {
        let Some(from) = self.some_passing_name() else {
            return Ok(());
        };
        let to = self.new_name('r');
        for old in self.world.names_at(self.user, &from) {
            let new = format!("{to}{}", old.get(from.len()..).unwrap_or_default());
            let label = self.world.label(self.user, &old);
            self.world.name(self.user, &new, &label);
        }
        let action = Action::Rename {
            account: self.user,
            from: from.clone(),
            to: to.clone(),
        };
        let answer = self.change_tree(action, &format!("RENAME {from} {to}")).await;
        if answer.is_ok() {
            for old in self.world.names_at(self.user, &from) {
                self.world.set_there(self.user, &old, false);
            }
            self.world.set_there(self.user, &to, true);
        }
        answer
    }

    async fn delete(&mut self) -> Answer<()> {
        let Some(name) = self.some_passing_name() else {
            return Ok(());
        };
        let mailbox = self.key(&self.world.label(self.user, &name));
        let action = Action::Delete {
            mailbox: mailbox.clone(),
            name: name.clone(),
        };
        let answer = self.change_tree(action, &format!("DELETE {name}")).await;
        if answer.is_ok() {
            self.world.set_there(self.user, &name, false);
            if let Some(session) = self.session.as_mut()
                && session.mailbox.as_ref() == Some(&mailbox)
            {
                session.imap.unselect();
                session.mailbox = None;
            }
        }
        answer
    }
}
