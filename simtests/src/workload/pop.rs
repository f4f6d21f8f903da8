//! Clients of POP3: they list, retrieve, delete, and go.

use std::collections::BTreeMap;

use core_types::MessageGuid;
use oracle::history::{Action, MailboxKey, Outcome, Seen};
use oracle::numbering::MailboxView;

use super::look::{Begun, in_state, state_view};
use super::{Client, PASSWORD, address, outcome_of};
use crate::client::pop3::Pop3;
use crate::client::{Answer, Failure};

/// With so many messages more than one is deleted at a time.
const INBOX_MAX: usize = 10;

impl Client {
    pub(super) async fn pop_something(&mut self) -> (&'static str, Answer<()>) {
        ("pop3", self.pop().await)
    }

    async fn pop(&mut self) -> Answer<()> {
        if self.roams {
            self.move_on();
        }
        let inbox = self.key("INBOX");
        let begun = self.begun(self.node);
        let before = self.inbox_in_state(&inbox).await;
        let op = self.invoke(Action::Read {
            mailbox: inbox.clone(),
            messages: None,
            some: Vec::new(),
            count: None,
        });
        let (mut pop3, list) = match self.log_in().await {
            Ok(listed) => listed,
            Err(failure) => {
                self.end(op, outcome_of(&failure), |_| {});
                return Err(failure);
            }
        };
        let after = self.inbox_in_state(&inbox).await.filter(|_| self.is_same_life(&begun));
        let uids = after.as_ref().map(uids_by_identity).unwrap_or_default();
        let uid_of = |uidl: &str| {
            let guid = MessageGuid::parse_hex(uidl)?;
            uids.get(&u128::from_be_bytes(guid.0)).copied()
        };
        let mut found: Vec<(u32, Seen)> = list
            .iter()
            .filter_map(|(_, uidl)| Some((uid_of(uidl)?, Seen::default())))
            .collect();
        found.sort_by_key(|(uid, _)| *uid);
        let told = u32::try_from(list.len()).unwrap_or(0);
        self.end(op, Outcome::Ok, |action| {
            if let Action::Read {
                messages, some, count, ..
            } = action
            {
                *count = Some(told);
                match found.len() == list.len() {
                    true => *messages = Some(found),
                    false => *some = found,
                }
            }
        });
        self.world.set_size(&inbox, list.len());
        self.book().count("op.pop3-login");
        if let (Some(before), Some(after)) = (before, after) {
            self.tell_uidls(&begun, before, after, &list);
        }
        let mine: Vec<(u32, Option<u32>)> = list.iter().map(|(number, uidl)| (*number, uid_of(uidl))).collect();
        self.retrieve(&mut pop3, &inbox, &mine).await?;
        self.delete_some(pop3, &inbox, &mine).await
    }

    async fn log_in(&self) -> Answer<(Pop3, Vec<(u32, String)>)> {
        let node = self.world.hosts[self.node].address();
        let login = Pop3::login(node, &address(self.user), PASSWORD).await;
        let mut pop3 = login.map_err(|failure| Failure::Unknown(failure.to_string()))?;
        let list = pop3.uidl().await?;
        if pop3.list().await?.len() != list.len() {
            return Err(Failure::Protocol("LIST and UIDL differ".to_owned()));
        }
        Ok((pop3, list))
    }

    async fn inbox_in_state(&self, key: &MailboxKey) -> Option<MailboxView> {
        let (account, group) = self.world.account(self.user)?;
        let view = in_state(&self.world.hosts[self.node], group, |view| {
            let rows = state::mailbox::Reader::new(view).mailboxes(account)?;
            let inbox = rows.iter().find(|row| row.name.as_str() == "INBOX");
            inbox.map(|row| state_view(view, key, row)).transpose()
        });
        view.await.flatten()
    }

    /// What was there before the login and after it was there all the time: then each message's UIDL is known by its place.
    fn tell_uidls(&self, begun: &Begun, before: MailboxView, mut after: MailboxView, list: &[(u32, String)]) {
        let ids = |view: &MailboxView| -> Vec<u128> { view.messages.iter().map(|message| message.identity).collect() };
        if ids(&before) != ids(&after) || after.messages.len() != list.len() {
            return;
        }
        for (message, (_, uidl)) in after.messages.iter_mut().zip(list) {
            message.uidl = Some(uidl.clone());
        }
        after.mailbox.label.push_str(" by POP3");
        self.tell(begun, &after, "look.pop3");
    }

    async fn retrieve(&mut self, pop3: &mut Pop3, inbox: &MailboxKey, mine: &[(u32, Option<u32>)]) -> Answer<()> {
        for _ in 0..self.below(4) {
            let Some((number, uid)) = self.pick(mine).copied() else {
                break;
            };
            let op = self.invoke(Action::Fetch {
                mailbox: inbox.clone(),
                uid,
                token: None,
                digest: [0; 32],
            });
            match pop3.retrieve(number).await {
                Ok(bytes) => {
                    self.end_body(op, &bytes);
                    self.book().count("op.pop3-retr");
                }
                Err(failure) => {
                    self.end(op, outcome_of(&failure), |_| {});
                    if !matches!(failure, Failure::Refused(_)) {
                        return Err(failure);
                    }
                }
            }
        }
        Ok(())
    }

    async fn delete_some(&mut self, mut pop3: Pop3, inbox: &MailboxKey, mine: &[(u32, Option<u32>)]) -> Answer<()> {
        let most = if mine.len() > INBOX_MAX { 5 } else { 2 };
        let mut chosen = BTreeMap::new();
        for _ in 0..self.below(most + 1) {
            if let Some((number, Some(uid))) = self.pick(mine) {
                chosen.insert(*number, *uid);
            }
        }
        for number in chosen.keys() {
            pop3.delete(*number).await?;
        }
        // Who goes without QUIT deletes nothing.
        if self.chance(6) {
            self.book().count("op.pop3-drop");
            return Ok(());
        }
        let ops: Vec<_> = chosen
            .values()
            .map(|uid| {
                self.invoke(Action::Expunge {
                    mailbox: inbox.clone(),
                    uids: vec![*uid],
                })
            })
            .collect();
        let answer = pop3.quit().await;
        let outcome = match &answer {
            Ok(()) => Outcome::Ok,
            Err(_) => Outcome::Unknown,
        };
        for op in ops {
            self.end(op, outcome, |_| {});
        }
        answer
    }
}

fn uids_by_identity(view: &MailboxView) -> BTreeMap<u128, u32> {
    view.messages
        .iter()
        .map(|message| (message.identity, message.uid))
        .collect()
}
