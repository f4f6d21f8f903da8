//! Clients that read: SELECT, NOOP, STATUS, LIST, SEARCH, bodies by UID and by sequence number.

use oracle::history::{Action, Outcome};

use super::{Client, outcome_of};
use crate::client::{Answer, Failure};

impl Client {
    pub(super) async fn read_something(&mut self) -> (&'static str, Answer<()>) {
        match self.below(16) {
            0..=4 => ("select", self.open_some().await.map(drop)),
            5..=9 => ("noop", self.look_again().await),
            10..=11 => ("by-number", self.read_by_number().await),
            12 => ("search", self.search().await),
            13 => ("status", self.status().await),
            14 => ("list", self.list().await),
            _ => ("disconnect", self.disconnect().await),
        }
    }

    /// A mailbox's name, most often of one where there is something.
    pub(super) fn some_name(&self) -> String {
        let mut names = self.world.names(self.user);
        if !self.chance(4) {
            let is_empty = |name: &String| {
                let key = self.key(&self.world.label(self.user, name));
                self.world.size(&key) == 0
            };
            names.retain(|name| !is_empty(name));
        }
        let name = self.pick(&names).cloned();
        name.unwrap_or_else(|| "INBOX".to_owned())
    }

    pub(super) async fn open_some(&mut self) -> Answer<()> {
        let name = self.some_name();
        self.look(Some(&name)).await.map(drop)
    }

    pub(super) fn has_selected(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.mailbox.is_some())
    }

    pub(super) async fn look_again(&mut self) -> Answer<()> {
        if self.has_selected() {
            self.look(None).await.map(drop)
        } else {
            self.open_some().await
        }
    }

    /// A body by sequence number, without asking for what is new.
    async fn read_by_number(&mut self) -> Answer<()> {
        if !self.has_selected() {
            return self.open_some().await;
        }
        let session = self.session().await?;
        let (uids, key) = (session.imap.uids(), session.mailbox.clone());
        let (Some((number, uid)), Some(key)) = (self.pick(&uids).copied(), key) else {
            return Ok(());
        };
        let op = self.invoke(Action::Fetch {
            mailbox: key.clone(),
            uid: Some(uid),
            token: None,
            digest: [0; 32],
        });
        let command = format!("FETCH {number} (UID FLAGS BODY.PEEK[])");
        let fetched = match self.session().await {
            Ok(session) => session.imap.fetch(&command).await,
            Err(failure) => Err(failure),
        };
        let found = fetched.as_ref().ok().and_then(|fetched| {
            let mut with_body = fetched.iter().filter(|message| !message.body.is_empty());
            with_body.find(|message| message.uid == uid)
        });
        let Some(message) = found else {
            self.end(op, Outcome::Failed, |_| {});
            return fetched.map(drop);
        };
        let token = self.end_body(op, &message.body);
        self.known.insert((key, uid), token);
        self.book().count("op.fetch-by-number");
        Ok(())
    }

    async fn search(&mut self) -> Answer<()> {
        if !self.has_selected() {
            return self.open_some().await;
        }
        let keys = [
            "ALL",
            "UNSEEN",
            "1:* FLAGGED",
            "NOT DELETED",
            "KEYWORD Later",
            "UID 1:*",
        ];
        let keys = self.pick(&keys).copied().unwrap_or("ALL");
        let form = if self.chance(2) { "UID SEARCH" } else { "SEARCH" };
        let imap = &mut self.session().await?.imap;
        if imap.exists() == 0 {
            return Ok(());
        }
        imap.search(&format!("{form} {keys}")).await?;
        self.book().count("op.search");
        Ok(())
    }

    /// The number of messages, without a look into them.
    async fn status(&mut self) -> Answer<()> {
        let name = self.some_name();
        self.session().await?;
        let op = self.invoke(Action::Read {
            mailbox: self.key(&self.world.label(self.user, &name)),
            messages: None,
            some: Vec::new(),
            count: None,
        });
        let command = format!("STATUS {name} (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)");
        let responses = match self.session().await {
            Ok(session) => session.imap.command(&command).await,
            Err(failure) => Err(failure),
        };
        let told = responses.as_ref().ok().and_then(|responses| {
            let status = responses
                .iter()
                .find(|response| response.text.starts_with("* STATUS"))?;
            let value = status.text.split("(MESSAGES ").nth(1)?.split(' ').next()?;
            value.parse::<u32>().ok()
        });
        match (&responses, told) {
            (Err(failure), _) => self.end(op, outcome_of(failure), |_| {}),
            (Ok(_), None) => {
                self.end(op, Outcome::Unknown, |_| {});
                return Err(Failure::Protocol(format!("{command} told no number")));
            }
            (Ok(_), Some(told)) => {
                self.end(op, Outcome::Ok, |action| {
                    if let Action::Read { count, .. } = action {
                        *count = Some(told);
                    }
                });
                self.book().count("op.status");
            }
        }
        responses.map(drop)
    }

    pub(super) async fn list(&mut self) -> Answer<()> {
        self.session().await?;
        let op = self.invoke(Action::List {
            account: self.user,
            names: Vec::new(),
        });
        let responses = match self.session().await {
            Ok(session) => session.imap.command("LIST \"\" *").await,
            Err(failure) => Err(failure),
        };
        let responses = match responses {
            Ok(responses) => responses,
            Err(failure) => {
                self.end(op, outcome_of(&failure), |_| {});
                return Err(failure);
            }
        };
        let mut listed: Vec<String> = responses
            .iter()
            .filter_map(|response| listed_name(&response.text))
            .collect();
        listed.sort();
        for name in &listed {
            self.world.set_there(self.user, name, true);
        }
        self.end(op, Outcome::Ok, |action| {
            if let Action::List { names, .. } = action {
                *names = listed;
            }
        });
        Ok(())
    }

    async fn disconnect(&mut self) -> Answer<()> {
        if let Some(session) = self.session.take() {
            // Some leave without a word.
            if !self.chance(3) {
                session.imap.logout().await;
            }
        }
        self.move_on();
        Ok(())
    }
}

/// The name in a LIST response, if that is a mailbox.
pub(crate) fn listed_name(text: &str) -> Option<String> {
    let rest = text.strip_prefix("* LIST (")?;
    let (attributes, rest) = rest.split_once(") ")?;
    let is_mailbox = !["\\Noselect", "\\NonExistent"]
        .iter()
        .any(|word| attributes.contains(word));
    let name = rest.split_once(' ')?.1;
    is_mailbox.then(|| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::listed_name;

    #[test]
    fn a_list_names_the_mailboxes_and_nothing_else() {
        let name = |text| listed_name(text);
        assert_eq!(name("* LIST (\\HasNoChildren) \"/\" INBOX"), Some("INBOX".to_owned()));
        assert_eq!(name("* LIST () \"/\" \"a/b\""), Some("a/b".to_owned()));
        assert_eq!(name("* LIST (\\Noselect \\HasChildren) \"/\" a"), None);
        assert_eq!(name("* 3 EXISTS"), None);
    }
}
