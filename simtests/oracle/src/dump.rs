//! I12, I15, I16 when everything is quiet: all nodes hold the same, to the last field, and counters equal the sums.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::Violation;
use crate::history::FlagSet;

/// Everything that one node holds of something (a mailbox, a group), as records with named fields. What a path looks like
/// is the harness's matter: `user1/INBOX`, `user1/INBOX/7`, `group 2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    records: BTreeMap<String, BTreeMap<String, String>>,
}

impl Dump {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a field of a record.
    pub fn put(&mut self, path: &str, field: &str, value: impl ToString) {
        let record = self.records.entry(path.to_owned()).or_default();
        record.insert(field.to_owned(), value.to_string());
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

/// Compares what nodes hold (I12). One violation with a readable list of at most `differences_max` differences.
#[must_use]
pub fn compare(dumps: &BTreeMap<u64, Dump>, differences_max: usize) -> Vec<Violation> {
    let paths: BTreeSet<&String> = dumps.values().flat_map(|dump| dump.records.keys()).collect();
    let mut differences = Vec::new();
    for path in paths {
        let records: Vec<(u64, Option<&BTreeMap<String, String>>)> = dumps
            .iter()
            .map(|(node, dump)| (*node, dump.records.get(path)))
            .collect();
        if records.iter().any(|(_, record)| record.is_none()) {
            let there = |record: &Option<&BTreeMap<String, String>>| match record {
                Some(_) => "there".to_owned(),
                None => "missing".to_owned(),
            };
            differences.push(difference(
                path,
                records.iter().map(|(node, record)| (*node, there(record))),
            ));
        }
        let held = || records.iter().filter_map(|(node, record)| Some((*node, (*record)?)));
        let fields: BTreeSet<&String> = held().flat_map(|(_, record)| record.keys()).collect();
        for field in fields {
            let value =
                |record: &BTreeMap<String, String>| record.get(field).map_or("nothing", |value| value).to_owned();
            let values: BTreeSet<String> = held().map(|(_, record)| value(record)).collect();
            if values.len() > 1 {
                let what = format!("{path} {field}");
                differences.push(difference(&what, held().map(|(node, record)| (node, value(record)))));
            }
        }
    }
    if differences.is_empty() {
        return Vec::new();
    }
    let mut what = format!("nodes differ in {} places", differences.len());
    for difference in differences.iter().take(differences_max) {
        let _ = write!(what, "\n    {difference}");
    }
    if differences.len() > differences_max {
        let _ = write!(what, "\n    and {} more", differences.len() - differences_max);
    }
    vec![Violation::new("I12", what)]
}

/// `what: 7 at nodes 1 and 2, 8 at node 3`, the most frequent first.
fn difference(what: &str, values: impl Iterator<Item = (u64, String)>) -> String {
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (node, value) in values {
        nodes.entry(value).or_default().push(node.to_string());
    }
    let mut parts: Vec<(String, Vec<String>)> = nodes.into_iter().collect();
    parts.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    let part = |(value, nodes): &(String, Vec<String>)| {
        let word = if nodes.len() == 1 { "node" } else { "nodes" };
        format!("{value} at {word} {}", nodes.join(" and "))
    };
    let parts: Vec<String> = parts.iter().map(part).collect();
    format!("{what}: {}", parts.join(", "))
}

/// An account's counters, and what is there.
#[derive(Clone, Debug, Default)]
pub struct AccountCounts {
    /// Its name.
    pub name: String,
    /// Octets that it is said to use.
    pub used_bytes: u64,
    /// Messages that it is said to have.
    pub message_count: u64,
    /// Mailboxes that it is said to have.
    pub mailbox_count: u64,
    /// Its mailboxes.
    pub mailboxes: Vec<MailboxCounts>,
}

/// A mailbox's counters, and what is there.
#[derive(Clone, Debug, Default)]
pub struct MailboxCounts {
    /// Its full name.
    pub name: String,
    /// Its identity, as text.
    pub guid: String,
    /// UIDNEXT.
    pub uid_next: u32,
    /// HIGHESTMODSEQ.
    pub highest_modseq: u64,
    /// Messages that it is said to have.
    pub message_count: u64,
    /// Of them without `\Seen`.
    pub unseen_count: u64,
    /// Of them with `\Deleted`.
    pub deleted_count: u64,
    /// Octets that they are said to have.
    pub size_bytes: u64,
    /// What is there, in the order of the rows.
    pub messages: Vec<MessageCounts>,
}

/// A message, as far as it is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessageCounts {
    /// Its UID.
    pub uid: u32,
    /// Its octets.
    pub size: u64,
    /// Its flags.
    pub flags: FlagSet,
    /// Its MODSEQ.
    pub modseq: u64,
}

/// Whether counters equal sums (I15), numbers are below their bounds (I09, I10), and the tree of mailboxes is sound (I16).
#[must_use]
pub fn check_counts(account: &AccountCounts) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut equal = |place: &str, what: &str, said: u64, sum: u64| {
        if said != sum {
            let what = format!("{place}: {what} is said to be {said} and is {sum}");
            violations.push(Violation::new("I15", what));
        }
    };
    let mailboxes = &account.mailboxes;
    let all = || mailboxes.iter().flat_map(|mailbox| &mailbox.messages);
    equal(
        &account.name,
        "used_bytes",
        account.used_bytes,
        all().map(|message| message.size).sum(),
    );
    equal(
        &account.name,
        "message_count",
        account.message_count,
        all().count() as u64,
    );
    equal(
        &account.name,
        "mailbox_count",
        account.mailbox_count,
        mailboxes.len() as u64,
    );
    for mailbox in mailboxes {
        let place = format!("{}/{}", account.name, mailbox.name);
        let with = |flag: FlagSet| {
            let has = |message: &&MessageCounts| message.flags.0 & flag.0 != 0;
            mailbox.messages.iter().filter(has).count() as u64
        };
        let count = mailbox.messages.len() as u64;
        equal(&place, "message_count", mailbox.message_count, count);
        equal(
            &place,
            "unseen_count",
            mailbox.unseen_count,
            count - with(FlagSet::SEEN),
        );
        equal(&place, "deleted_count", mailbox.deleted_count, with(FlagSet::DELETED));
        let size = mailbox.messages.iter().map(|message| message.size).sum();
        equal(&place, "size_bytes", mailbox.size_bytes, size);
    }
    violations.extend(check_numbers(account));
    violations.extend(check_tree(account));
    violations
}

fn check_numbers(account: &AccountCounts) -> Vec<Violation> {
    let mut violations = Vec::new();
    for mailbox in &account.mailboxes {
        let place = format!("{}/{}", account.name, mailbox.name);
        for message in &mailbox.messages {
            if message.uid >= mailbox.uid_next {
                let what = format!("{place}: UID {} is there, UIDNEXT is {}", message.uid, mailbox.uid_next);
                violations.push(Violation::new("I09", what));
            }
            if message.modseq > mailbox.highest_modseq {
                let (modseq, highest) = (message.modseq, mailbox.highest_modseq);
                let what = format!(
                    "{place}: UID {} has MODSEQ {modseq}, the highest is {highest}",
                    message.uid
                );
                violations.push(Violation::new("I10", what));
            }
        }
        if !mailbox.messages.is_sorted_by(|one, next| one.uid < next.uid) {
            violations.push(Violation::new("I07", format!("{place}: UIDs do not ascend")));
        }
    }
    violations
}

fn check_tree(account: &AccountCounts) -> Vec<Violation> {
    let mut violations = Vec::new();
    let (mut names, mut guids) = (BTreeSet::new(), BTreeSet::new());
    for mailbox in &account.mailboxes {
        if !names.insert(&mailbox.name) || !guids.insert(&mailbox.guid) {
            let what = format!("{}: {} ({}) is there twice", account.name, mailbox.name, mailbox.guid);
            violations.push(Violation::new("I16", what));
        }
    }
    if !account.mailboxes.iter().any(|mailbox| mailbox.name == "INBOX") {
        violations.push(Violation::new("I16", format!("{} has no INBOX", account.name)));
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_with_nodes_and_values() {
        let mut dump = Dump::new();
        dump.put("user1/INBOX", "uid_next", 8);
        dump.put("user1/INBOX/7", "flags", "(\\Seen)");
        dump.put("user1/INBOX/7", "modseq", 12);
        let mut dumps: BTreeMap<u64, Dump> = (1..=3).map(|node| (node, dump.clone())).collect();
        assert_eq!(compare(&dumps, 10), []);
        assert_eq!((dump.len(), dump.is_empty()), (2, false));
        dumps.get_mut(&3).unwrap().put("user1/INBOX/7", "flags", "()");
        dumps.get_mut(&2).unwrap().put("user1/Sent", "uid_next", 1);
        dumps.get_mut(&1).unwrap().put("user1/INBOX", "extra", 1);
        let violations = compare(&dumps, 10);
        assert_eq!(violations[0].id, "I12");
        let expected = "nodes differ in 3 places\n    user1/INBOX extra: nothing at nodes 2 and 3, 1 at node 1\n    \
                        user1/INBOX/7 flags: (\\Seen) at nodes 1 and 2, () at node 3\n    \
                        user1/Sent: missing at nodes 1 and 3, there at node 2";
        assert_eq!(violations[0].what, expected);
        assert!(compare(&dumps, 1)[0].what.ends_with("and 2 more"));
    }

    fn account() -> AccountCounts {
        let message = |uid, size, flags, modseq| MessageCounts {
            uid,
            size,
            flags,
            modseq,
        };
        let inbox = MailboxCounts {
            name: "INBOX".to_owned(),
            guid: "g1".to_owned(),
            uid_next: 6,
            highest_modseq: 9,
            message_count: 3,
            unseen_count: 2,
            deleted_count: 1,
            size_bytes: 60,
            messages: vec![
                message(1, 10, FlagSet(0), 1),
                message(3, 20, FlagSet::SEEN, 9),
                message(5, 30, FlagSet::DELETED, 4),
            ],
        };
        let empty = MailboxCounts {
            name: "a".to_owned(),
            guid: "g2".to_owned(),
            uid_next: 1,
            ..MailboxCounts::default()
        };
        AccountCounts {
            name: "user1".to_owned(),
            used_bytes: 60,
            message_count: 3,
            mailbox_count: 2,
            mailboxes: vec![inbox, empty],
        }
    }

    #[test]
    fn counters_that_are_off_are_told() {
        assert_eq!(check_counts(&account()), []);
        type Break = fn(&mut AccountCounts);
        let breaks: [(&str, Break); 12] = [
            ("I15", |account| account.used_bytes += 1),
            ("I15", |account| account.message_count -= 1),
            ("I15", |account| account.mailbox_count += 1),
            ("I15", |account| account.mailboxes[0].message_count += 1),
            ("I15", |account| account.mailboxes[0].unseen_count += 1),
            ("I15", |account| account.mailboxes[0].deleted_count -= 1),
            ("I15", |account| account.mailboxes[1].size_bytes += 1),
            ("I09", |account| account.mailboxes[0].uid_next = 5),
            ("I10", |account| account.mailboxes[0].highest_modseq = 8),
            ("I07", |account| account.mailboxes[0].messages.reverse()),
            ("I16", |account| account.mailboxes[1].name = "INBOX".to_owned()),
            ("I16", |account| account.mailboxes[0].name = "b".to_owned()),
        ];
        for (place, (id, break_it)) in breaks.into_iter().enumerate() {
            let mut account = account();
            break_it(&mut account);
            let ids: Vec<&str> = check_counts(&account).iter().map(|violation| violation.id).collect();
            assert_eq!(ids, [id], "{place}");
        }
    }
}
