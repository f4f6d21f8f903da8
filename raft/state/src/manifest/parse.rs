//! Reading a line back.

use std::str::FromStr;

use core_types::{AccountId, BlobId, Flags, Incarnation, Keyword, MailboxGuid, MessageGuid, Uid, UnixMillis};

/// What a line says; see the table of [`crate::manifest`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the values are those of the table, in its order")]
pub enum Line {
    /// `mailbox`
    Mailbox {
        account: AccountId,
        mailbox: MailboxGuid,
        name: String,
    },
    /// `mailbox-gone`
    MailboxGone { account: AccountId, mailbox: MailboxGuid },
    /// `account-gone`
    AccountGone { account: AccountId },
    /// `add`
    Add {
        account: AccountId,
        mailbox: MailboxGuid,
        name: String,
        message: MessageGuid,
        uid: Uid,
        blob: BlobId,
        size: u64,
        flags: Flags,
        internal_date: UnixMillis,
    },
    /// `flags`
    Flags {
        account: AccountId,
        message: MessageGuid,
        flags: Flags,
    },
    /// `gone`
    Gone { account: AccountId, message: MessageGuid },
    /// `address`
    Address { account: AccountId, address: String },
    /// `resync`
    Resync,
    /// `resync-end`
    ResyncEnd,
    /// `applied`
    Applied { incarnation: Incarnation, index: u64 },
}

/// Reads a line. `None` for a verb or a number of values that is not known: a newer version's, or damage.
#[must_use]
pub fn parse(line: &str) -> Option<Line> {
    let values: Vec<String> = line.split('\t').map(unescape).collect::<Option<_>>()?;
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    Some(match *values.as_slice() {
        ["mailbox", account, mailbox, name] => Line::Mailbox {
            account: AccountId::parse_hex(account)?,
            mailbox: MailboxGuid::parse_hex(mailbox)?,
            name: name.to_owned(),
        },
        ["mailbox-gone", account, mailbox] => Line::MailboxGone {
            account: AccountId::parse_hex(account)?,
            mailbox: MailboxGuid::parse_hex(mailbox)?,
        },
        ["account-gone", account] => Line::AccountGone {
            account: AccountId::parse_hex(account)?,
        },
        ["add", account, mailbox, name, message, uid, blob, size, flags, date] => Line::Add {
            account: AccountId::parse_hex(account)?,
            mailbox: MailboxGuid::parse_hex(mailbox)?,
            name: name.to_owned(),
            message: MessageGuid::parse_hex(message)?,
            uid: Uid(number(uid)?),
            blob: BlobId::parse_hex(blob)?,
            size: number(size)?,
            flags: parse_flags(flags)?,
            internal_date: UnixMillis(number(date)?),
        },
        ["flags", account, message, flags] => Line::Flags {
            account: AccountId::parse_hex(account)?,
            message: MessageGuid::parse_hex(message)?,
            flags: parse_flags(flags)?,
        },
        ["gone", account, message] => Line::Gone {
            account: AccountId::parse_hex(account)?,
            message: MessageGuid::parse_hex(message)?,
        },
        ["address", account, address] => Line::Address {
            account: AccountId::parse_hex(account)?,
            address: address.to_owned(),
        },
        ["resync"] => Line::Resync,
        ["resync-end"] => Line::ResyncEnd,
        ["applied", incarnation, index] => Line::Applied {
            incarnation: Incarnation(number(incarnation)?),
            index: number(index)?,
        },
        _ => return None,
    })
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

fn parse_flags(text: &str) -> Option<Flags> {
    let mut flags = Flags::default();
    for word in text.split(' ').filter(|word| !matches!(*word, "-" | "")) {
        if let Some((bit, _)) = super::SYSTEM.iter().find(|(_, name)| *name == word) {
            flags.system |= bit;
        } else {
            flags.keywords.insert(Keyword::parse(word)?);
        }
    }
    Some(flags)
}

fn unescape(value: &str) -> Option<String> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        text.push(match c {
            '\\' => match chars.next()? {
                '\\' => '\\',
                't' => '\t',
                'n' => '\n',
                'r' => '\r',
                _ => return None,
            },
            c => c,
        });
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use core_types::MailboxName;

    use super::*;
    use crate::manifest;

    const ANN: AccountId = AccountId([1; 16]);
    const BOX: MailboxGuid = MailboxGuid([2; 16]);
    const MESSAGE: MessageGuid = MessageGuid([3; 16]);

    #[test]
    fn every_line_reads_back() {
        let name = MailboxName::parse("a\\b").unwrap();
        let mut flags = Flags::system(Flags::SEEN | Flags::FLAGGED);
        flags.keywords.extend(Keyword::parse("$Junk"));
        let row = crate::rows::MessageRow {
            uid: Uid(7),
            guid: MESSAGE,
            email_id: core_types::EmailId([0; 16]),
            blob: BlobId::of(b"x"),
            size: 1,
            internal_date: UnixMillis(12),
            save_date: UnixMillis(13),
            flags: flags.clone(),
            modseq: core_types::ModSeq(4),
        };
        let name_text = name.as_str().to_owned();
        let expected = [
            (
                manifest::mailbox(ANN, BOX, &name),
                Line::Mailbox {
                    account: ANN,
                    mailbox: BOX,
                    name: name_text.clone(),
                },
            ),
            (
                manifest::mailbox_gone(ANN, BOX),
                Line::MailboxGone {
                    account: ANN,
                    mailbox: BOX,
                },
            ),
            (manifest::account_gone(ANN), Line::AccountGone { account: ANN }),
            (
                manifest::add(ANN, BOX, &name, &row),
                Line::Add {
                    account: ANN,
                    mailbox: BOX,
                    name: name_text,
                    message: MESSAGE,
                    uid: Uid(7),
                    blob: row.blob,
                    size: 1,
                    flags: flags.clone(),
                    internal_date: UnixMillis(12),
                },
            ),
            (
                manifest::flags(ANN, &row),
                Line::Flags {
                    account: ANN,
                    message: MESSAGE,
                    flags,
                },
            ),
            (
                manifest::gone(ANN, MESSAGE),
                Line::Gone {
                    account: ANN,
                    message: MESSAGE,
                },
            ),
            (manifest::resync(), Line::Resync),
            (manifest::resync_end(), Line::ResyncEnd),
            (
                manifest::applied(Incarnation(2), 9),
                Line::Applied {
                    incarnation: Incarnation(2),
                    index: 9,
                },
            ),
        ];
        for (line, parsed) in expected {
            assert_eq!(parse(&line), Some(parsed), "{line}");
        }
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for line in [
            "",
            "add",
            "gone\t1\t2",
            "mailbox\tx",
            "later\tverb",
            "resync\t",
            "applied\t+1\t2",
            "a\\",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
