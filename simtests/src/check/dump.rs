//! Everything that the nodes hold, row by row, and the counters of accounts beside what they count.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use core_types::codec;
use core_types::{AccountId, GroupId, KvRead, Uid};
use oracle::dump::{AccountCounts, Dump, MailboxCounts, MessageCounts};
use serde::de::DeserializeOwned;
use state::ReadError;
use state::mailbox::Reader;
use state::rows::{AccountRow, MailboxRow, MessageRow};

use crate::workload::address;
use crate::workload::look::{flag_set, in_state};
use crate::workload::world::World;

/// Every row of every group, by node.
pub(super) async fn all(world: &World) -> BTreeMap<u64, Dump> {
    let mut dumps = BTreeMap::new();
    for place in world.members() {
        let host = &world.hosts[place];
        let mut dump = Dump::new();
        let groups = host.running().map(|running| running.groups.list()).unwrap_or_default();
        for group in groups.iter().map(raft::Group::group) {
            let Some(rows) = in_state(host, group, |view| rows(view)).await else {
                continue;
            };
            for (key, value) in rows {
                put(&mut dump, group, &key, &value);
            }
        }
        dumps.insert(place as u64 + 1, dump);
    }
    dumps
}

type Row = (Vec<u8>, Vec<u8>);

fn rows(view: &dyn KvRead) -> Result<Vec<Row>, ReadError> {
    let mut rows = Vec::new();
    view.scan(&[], &[0xFF], &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        true
    })?;
    Ok(rows)
}

/// A row with its fields, where they have names; its bytes in any case.
fn put(dump: &mut Dump, group: GroupId, key: &[u8], value: &[u8]) {
    let path = format!("group {group} row {}", hex(key));
    let fields = match key.first() {
        Some(0x10) => text::<AccountRow>(value),
        Some(0x11) => text::<MailboxRow>(value),
        Some(0x14) => text::<MessageRow>(value),
        _ => None,
    };
    dump.put(&path, "row", fields.unwrap_or_else(|| hex(value)));
}

/// `None` for what is no such row, or not all of it.
fn text<T: DeserializeOwned + Debug>(value: &[u8]) -> Option<String> {
    let row: T = codec::decode(1, value, u64::MAX).ok()?;
    Some(format!("{row:?}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The counters of all users, from the first node.
pub(super) async fn accounts(world: &World) -> Vec<AccountCounts> {
    let mut accounts = Vec::new();
    let Some(node) = world.members().first().copied() else {
        return accounts;
    };
    for user in 1..=world.users {
        if let Some((account, group)) = world.account(user) {
            let counts = in_state(&world.hosts[node], group, |view| counts(view, account)).await;
            let named = counts.flatten().map(|counts| AccountCounts {
                name: address(user),
                ..counts
            });
            accounts.extend(named);
        }
    }
    accounts
}

fn counts(view: &dyn KvRead, account: AccountId) -> Result<Option<AccountCounts>, ReadError> {
    let reader = Reader::new(view);
    let Some(row) = reader.account(account)? else {
        return Ok(None);
    };
    let mut mailboxes = Vec::new();
    for mailbox in reader.mailboxes(account)? {
        let messages = reader.messages(mailbox.guid, Uid(0), usize::MAX)?;
        mailboxes.push(MailboxCounts {
            name: mailbox.name.as_str().to_owned(),
            guid: mailbox.guid.to_string(),
            uid_next: mailbox.uid_next.0,
            highest_modseq: mailbox.highest_modseq.0,
            message_count: mailbox.message_count.into(),
            unseen_count: mailbox.unseen_count.into(),
            deleted_count: mailbox.deleted_count.into(),
            size_bytes: mailbox.size_bytes,
            messages: messages.iter().map(message_counts).collect(),
        });
    }
    Ok(Some(AccountCounts {
        name: String::new(),
        used_bytes: row.used_bytes,
        message_count: row.message_count,
        mailbox_count: row.mailbox_count.into(),
        mailboxes,
    }))
}

fn message_counts(row: &MessageRow) -> MessageCounts {
    MessageCounts {
        uid: row.uid.0,
        size: row.size,
        flags: flag_set(&row.flags),
        modseq: row.modseq.0,
    }
}
