//! LIST, LSUB, STATUS (RFC 3501 6.3.8 to 6.3.10), with the extensions of RFC 5258, RFC 3348, RFC 6154 and RFC 5819.

use std::collections::BTreeMap;

use core_types::{MailboxName, Uid};
use imap_proto::command::{List, StatusItem};
use imap_proto::encode::ListAttributes;
use imap_proto::{Code, ListPattern};
use mailstore::AccountMail;
use state::rows::MailboxRow;

use crate::errors::{Answer, Failure};
use crate::mailboxes::shown_use;
use crate::session::Session;
use crate::shared::Shared;

/// A name that LIST may have something to say about.
#[derive(Default)]
struct Known {
    mailbox: Option<MailboxRow>,
    subscribed: bool,
    /// A mailbox lies below it.
    has_children: bool,
    /// A name that is subscribed to lies below it.
    child_subscribed: bool,
}

impl Session {
    pub(crate) async fn list(&mut self, list: &List) -> Result<Answer, Failure> {
        let mail = self.mail()?;
        if list.patterns.iter().all(ListPattern::is_separator_request) {
            self.client.say(|encoder| encoder.list_separator()).await?;
            return Ok(Answer::ok("LIST completed"));
        }
        mail.sync().await?;
        let shared = std::sync::Arc::clone(&self.context.shared);
        for (name, known) in known_names(&mail).await? {
            let Some(attributes) = known.attributes(list) else {
                continue;
            };
            if !list.patterns.iter().any(|pattern| pattern.matches(&name)) {
                continue;
            }
            self.client.say(|encoder| encoder.list(&name, &attributes)).await?;
            if let Some(row) = known.mailbox.filter(|_| !list.returns.status.is_empty()) {
                let values = status_values(&mail, &shared, &row, &list.returns.status).await?;
                self.client.say(|encoder| encoder.status(&name, &values)).await?;
            }
        }
        Ok(Answer::ok("LIST completed"))
    }

    /// RFC 3501 6.3.9: a name below one that `%` stops at makes that one appear, as `\Noselect`.
    pub(crate) async fn lsub(&mut self, pattern: &ListPattern) -> Result<Answer, Failure> {
        let mail = self.mail()?;
        for (name, known) in known_names(&mail).await? {
            let shown = known.subscribed || (known.child_subscribed && pattern.ends_with_level());
            if !shown || !pattern.matches(&name) {
                continue;
            }
            let attributes = ListAttributes {
                no_select: !known.subscribed,
                ..ListAttributes::default()
            };
            self.client.say(|encoder| encoder.lsub(&name, &attributes)).await?;
        }
        Ok(Answer::ok("LSUB completed"))
    }

    pub(crate) async fn status(&mut self, name: &MailboxName, items: &[StatusItem]) -> Result<Answer, Failure> {
        let mail = self.mail()?;
        mail.sync().await?;
        let row = mail.mailbox_by_name(name).await?;
        let row = row.ok_or_else(|| Answer::no(Code::NonExistent, "No such mailbox"))?;
        let values = status_values(&mail, &self.context.shared, &row, items).await?;
        self.client.say(|encoder| encoder.status(name, &values)).await?;
        Ok(Answer::ok("STATUS completed"))
    }
}

impl Known {
    /// What LIST says of it; `None` if nothing.
    fn attributes(&self, list: &List) -> Option<ListAttributes> {
        let selection = list.selection;
        let exists = self.mailbox.is_some();
        let special_use = self.mailbox.as_ref().and_then(|row| row.special_use).map(shown_use);
        if selection.special_use && special_use.is_none() {
            return None;
        }
        let child_info = selection.subscribed && selection.recursive_match && self.child_subscribed;
        let selected = if selection.subscribed {
            self.subscribed || child_info
        } else {
            exists || self.has_children
        };
        selected.then_some(ListAttributes {
            // RFC 5258 3: \NonExistent says \Noselect too, and only the extended form knows it.
            no_select: !exists && !list.extended,
            non_existent: !exists && list.extended,
            has_children: Some(self.has_children),
            subscribed: self.subscribed && (selection.subscribed || list.returns.subscribed),
            special_use,
            child_info_subscribed: child_info,
        })
    }
}

/// Mailboxes, subscriptions, and the names above them.
async fn known_names(mail: &AccountMail) -> Result<BTreeMap<MailboxName, Known>, Failure> {
    let mut names: BTreeMap<MailboxName, Known> = BTreeMap::new();
    for row in mail.mailboxes().await? {
        let mut above = row.name.parent();
        while let Some(name) = above {
            above = name.parent();
            names.entry(name).or_default().has_children = true;
        }
        let name = row.name.clone();
        names.entry(name).or_default().mailbox = Some(row);
    }
    for name in mail.subscriptions().await? {
        let mut above = name.parent();
        while let Some(name) = above {
            above = name.parent();
            names.entry(name).or_default().child_subscribed = true;
        }
        names.entry(name).or_default().subscribed = true;
    }
    Ok(names)
}

async fn status_values(
    mail: &AccountMail,
    shared: &Shared,
    row: &MailboxRow,
    items: &[StatusItem],
) -> Result<Vec<(StatusItem, u32)>, Failure> {
    let mut values = Vec::with_capacity(items.len());
    for &item in items {
        let value = match item {
            StatusItem::Messages => row.message_count,
            StatusItem::Recent => recent_count(mail, shared, row).await?,
            StatusItem::UidNext => row.uid_next.0,
            StatusItem::UidValidity => row.uid_validity.0,
            StatusItem::Unseen => row.unseen_count,
        };
        values.push((item, value));
    }
    Ok(values)
}

async fn recent_count(mail: &AccountMail, shared: &Shared, row: &MailboxRow) -> Result<u32, Failure> {
    let Some(mut from) = shared.recent_from(row.guid) else {
        return Ok(row.message_count);
    };
    let mut count: usize = 0;
    loop {
        let page = mail.messages(row.guid, from, PAGE).await?;
        let Some(last) = page.last() else { break };
        from = Uid(last.uid.0.saturating_add(1));
        count += page.len();
    }
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Rows that are read at once.
const PAGE: usize = 1000;
