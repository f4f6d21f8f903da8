//! The lines of a group's plain-text manifest, from which mailboxes can be rebuilt when everything else is gone.
//!
//! A line is a verb and its values, with a tab between; in values a backslash is `\\`, a tab `\t`, a line feed `\n` and a
//! carriage return `\r`. Ids are lower-case hexadecimal, dates milliseconds since 1970 UTC, flags `\Seen`-like words with
//! a space between (their backslashes doubled, as everywhere) or `-` for none. Later lines win.
//!
//! | verb | values | meaning |
//! | --- | --- | --- |
//! | `mailbox` | account, mailbox, name | it was made, or has that name now |
//! | `mailbox-gone` | account, mailbox | it was deleted with what is in it |
//! | `account-gone` | account | the account went with all its mailboxes |
//! | `add` | account, mailbox, mailbox name, message, uid, blob, size, flags, internal date | the message is in that mailbox now, and, if it had been in another, not there |
//! | `flags` | account, message, flags | its flags now |
//! | `gone` | account, message | it was expunged |
//! | `address` | account, address | the account's address; in the manifest of the directory group |
//! | `resync` | | what follows, up to `resync-end`, tells everything anew, in between changes that happen meanwhile |
//! | `resync-end` | | what was not told since `resync` is gone |
//! | `applied` | incarnation, index | every change up to this entry of the group's log stands before |
//!
//! Lines may come again after a crash, in their order. Not here: files.

mod dump;
mod parse;
mod replay;

use core_types::{AccountId, Address, Flags, Incarnation, MailboxGuid, MailboxName, MessageGuid};

pub use dump::{Page, Place, page};
pub use parse::{Line, parse};
pub use replay::{Kept, Replay};

use crate::rows::MessageRow;

/// The line that begins to tell everything anew.
#[must_use]
pub fn resync() -> String {
    line(&["resync"])
}

/// The line that ends it.
#[must_use]
pub fn resync_end() -> String {
    line(&["resync-end"])
}

/// The line that says up to which entry of the log the manifest is whole.
#[must_use]
pub fn applied(incarnation: Incarnation, index: u64) -> String {
    line(&["applied", &incarnation.to_string(), &index.to_string()])
}

pub(crate) fn address(account: AccountId, address: &Address) -> String {
    line(&["address", &account.to_string(), &address.to_string()])
}

pub(crate) fn mailbox(account: AccountId, mailbox: MailboxGuid, name: &MailboxName) -> String {
    line(&["mailbox", &account.to_string(), &mailbox.to_string(), name.as_str()])
}

pub(crate) fn mailbox_gone(account: AccountId, mailbox: MailboxGuid) -> String {
    line(&["mailbox-gone", &account.to_string(), &mailbox.to_string()])
}

pub(crate) fn account_gone(account: AccountId) -> String {
    line(&["account-gone", &account.to_string()])
}

pub(crate) fn add(account: AccountId, mailbox: MailboxGuid, name: &MailboxName, message: &MessageRow) -> String {
    line(&[
        "add",
        &account.to_string(),
        &mailbox.to_string(),
        name.as_str(),
        &message.guid.to_string(),
        &message.uid.to_string(),
        &message.blob.to_string(),
        &message.size.to_string(),
        &flag_words(&message.flags),
        &message.internal_date.to_string(),
    ])
}

pub(crate) fn flags(account: AccountId, message: &MessageRow) -> String {
    line(&[
        "flags",
        &account.to_string(),
        &message.guid.to_string(),
        &flag_words(&message.flags),
    ])
}

pub(crate) fn gone(account: AccountId, message: MessageGuid) -> String {
    line(&["gone", &account.to_string(), &message.to_string()])
}

const SYSTEM: [(u8, &str); 5] = [
    (Flags::SEEN, "\\Seen"),
    (Flags::ANSWERED, "\\Answered"),
    (Flags::FLAGGED, "\\Flagged"),
    (Flags::DELETED, "\\Deleted"),
    (Flags::DRAFT, "\\Draft"),
];

fn flag_words(flags: &Flags) -> String {
    let system = SYSTEM.iter().filter(|(bit, _)| flags.has(*bit)).map(|(_, word)| *word);
    let words: Vec<&str> = system
        .chain(flags.keywords.iter().map(core_types::Keyword::as_str))
        .collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(" ")
    }
}

fn line(values: &[&str]) -> String {
    let mut line = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            line.push('\t');
        }
        for c in value.chars() {
            match c {
                '\\' => line.push_str("\\\\"),
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                c => line.push(c),
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_never_breaks_its_line() {
        assert_eq!(line(&["a\tb", "c\\\r\n"]), "a\\tb\tc\\\\\\r\\n");
    }

    #[test]
    fn flags_are_words() {
        let mut flags = Flags::system(Flags::SEEN | Flags::DRAFT);
        flags.keywords.extend(core_types::Keyword::parse("$Junk"));
        assert_eq!(flag_words(&flags), "\\Seen \\Draft $Junk");
        assert_eq!(flag_words(&Flags::default()), "-");
    }
}
