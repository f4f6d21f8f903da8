//! A group's state as lines of its manifest, in pages: what a manifest that missed changes is made right with.

use core_types::{AccountId, MailboxGuid, Uid};

use crate::apply::MachineKind;
use crate::rows::MailboxRow;
use crate::store::ReadError;
use crate::{directory, mailbox};

/// Where a page begins. The default is the beginning of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(At);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    /// Behind this account of the directory.
    AfterAccount(AccountId),
    /// Within a mailbox, from this UID.
    In(MailboxGuid, Uid),
    /// Behind a mailbox.
    After(MailboxGuid),
}

/// Some lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The lines, in order.
    pub lines: Vec<String>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Place>,
}

/// The lines of a group's state from this place on, about `limit` of them. Between two pages the state may change: who tells
/// the changes too, each page's after the page, tells everything.
///
/// # Errors
/// [`ReadError`].
pub fn page(view: &dyn core_types::KvRead, kind: MachineKind, place: Place, limit: usize) -> Result<Page, ReadError> {
    let limit = limit.max(1);
    match kind {
        MachineKind::Directory => addresses(&directory::Reader::new(view), place, limit),
        MachineKind::Mailbox => messages(&mailbox::Reader::new(view), place, limit),
    }
}

fn addresses(reader: &directory::Reader<'_>, Place(at): Place, limit: usize) -> Result<Page, ReadError> {
    let after = match at {
        At::AfterAccount(account) => Some(account),
        _ => None,
    };
    let rows = reader.accounts(after, limit)?;
    let last = rows.last().filter(|_| rows.len() == limit);
    Ok(Page {
        next: last.map(|row| Place(At::AfterAccount(row.account))),
        lines: rows
            .iter()
            .map(|row| super::address(row.account, &row.address))
            .collect(),
    })
}

fn messages(reader: &mailbox::Reader<'_>, Place(mut at): Place, limit: usize) -> Result<Page, ReadError> {
    let mut lines = Vec::new();
    while lines.len() < limit {
        let (row, from) = match at {
            At::In(guid, uid) => (reader.mailbox(guid)?, uid),
            At::After(_) | At::Start | At::AfterAccount(_) => {
                let after = match at {
                    At::After(guid) => Some(guid),
                    _ => None,
                };
                let Some(row) = reader.all_mailboxes(after, 1)?.pop() else {
                    return Ok(Page { lines, next: None });
                };
                lines.push(super::mailbox(row.account, row.guid, &row.name));
                (Some(row), Uid(1))
            }
        };
        at = match row {
            Some(row) => add_messages(reader, &row, from, limit - lines.len().min(limit - 1), &mut lines)?,
            // It was deleted since the last page.
            None => match at {
                At::In(guid, _) => At::After(guid),
                other => other,
            },
        };
    }
    Ok(Page {
        lines,
        next: Some(Place(at)),
    })
}

fn add_messages(
    reader: &mailbox::Reader<'_>,
    row: &MailboxRow,
    from: Uid,
    limit: usize,
    lines: &mut Vec<String>,
) -> Result<At, ReadError> {
    let messages = reader.messages(row.guid, from, limit)?;
    lines.extend(
        messages
            .iter()
            .map(|message| super::add(row.account, row.guid, &row.name, message)),
    );
    Ok(match messages.last() {
        Some(last) if messages.len() == limit && last.uid.0 < u32::MAX => At::In(row.guid, Uid(last.uid.0 + 1)),
        _ => At::After(row.guid),
    })
}
