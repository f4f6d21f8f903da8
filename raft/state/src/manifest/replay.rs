//! Replaying the lines of one group: what is in its mailboxes when the last one was written.
//!
//! Invariants: a line that comes twice changes nothing the second time; a line of something that is not known is no error.
//! After damage inside a `resync` its end drops nothing: rather a message too many than one too few.

use std::collections::BTreeMap;

use core_types::{AccountId, BlobId, Flags, MailboxGuid, MessageGuid, Uid, UnixMillis};

use super::Line;

/// The mailboxes of one group, as far as its lines were replayed. Memory: some 200 octets for each message.
#[derive(Clone, Debug, Default)]
pub struct Replay {
    mailboxes: BTreeMap<(AccountId, MailboxGuid), (u32, String)>,
    messages: BTreeMap<(AccountId, MessageGuid), (u32, Kept)>,
    addresses: BTreeMap<AccountId, String>,
    /// Counts the `resync` lines; what is told is told in this round.
    round: u32,
    is_resyncing: bool,
    was_damaged: bool,
}

/// A message that is in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The mailbox.
    pub mailbox: MailboxGuid,
    /// Its UID there.
    pub uid: Uid,
    /// Its bytes' name.
    pub blob: BlobId,
    /// Their number.
    pub size: u64,
    /// Its flags.
    pub flags: Flags,
    /// RFC 9051 2.3.3
    pub internal_date: UnixMillis,
}

impl Replay {
    /// Takes the next line.
    pub fn take(&mut self, line: Line) {
        let round = self.round;
        match line {
            Line::Mailbox { account, mailbox, name } => {
                self.mailboxes.insert((account, mailbox), (round, name));
            }
            Line::MailboxGone { account, mailbox } => {
                self.mailboxes.remove(&(account, mailbox));
                let of_account = (account, MessageGuid([0; 16]))..=(account, MessageGuid([0xFF; 16]));
                let within: Vec<_> = self
                    .messages
                    .range(of_account)
                    .filter(|(_, (_, message))| message.mailbox == mailbox)
                    .map(|(key, _)| *key)
                    .collect();
                for key in within {
                    self.messages.remove(&key);
                }
            }
            Line::AccountGone { account } => {
                self.mailboxes.retain(|(owner, _), _| *owner != account);
                self.messages.retain(|(owner, _), _| *owner != account);
            }
            Line::Add {
                account,
                mailbox,
                name,
                message,
                uid,
                blob,
                size,
                flags,
                internal_date,
            } => {
                self.mailboxes.insert((account, mailbox), (round, name));
                let kept = Kept {
                    mailbox,
                    uid,
                    blob,
                    size,
                    flags,
                    internal_date,
                };
                self.messages.insert((account, message), (round, kept));
            }
            Line::Flags {
                account,
                message,
                flags,
            } => {
                if let Some((_, kept)) = self.messages.get_mut(&(account, message)) {
                    kept.flags = flags;
                }
            }
            Line::Gone { account, message } => {
                self.messages.remove(&(account, message));
            }
            Line::Address { account, address } => {
                self.addresses.insert(account, address);
            }
            Line::Resync => {
                self.round = self.round.saturating_add(1);
                self.is_resyncing = true;
                self.was_damaged = false;
            }
            Line::ResyncEnd => {
                if self.is_resyncing && !self.was_damaged {
                    self.mailboxes.retain(|_, (told, _)| *told == round);
                    self.messages.retain(|_, (told, _)| *told == round);
                }
                self.is_resyncing = false;
            }
            Line::Applied { .. } => {}
        }
    }

    /// Says that a line could not be read here.
    pub fn damage(&mut self) {
        self.was_damaged = true;
    }

    /// The mailboxes and their names, by account.
    pub fn mailboxes(&self) -> impl Iterator<Item = (AccountId, MailboxGuid, &str)> {
        self.mailboxes
            .iter()
            .map(|((account, mailbox), (_, name))| (*account, *mailbox, name.as_str()))
    }

    /// The messages, by account and GUID.
    pub fn messages(&self) -> impl Iterator<Item = (AccountId, MessageGuid, &Kept)> {
        self.messages
            .iter()
            .map(|((account, message), (_, kept))| (*account, *message, kept))
    }

    /// The addresses that accounts have or had.
    pub fn addresses(&self) -> impl Iterator<Item = (AccountId, &str)> {
        self.addresses
            .iter()
            .map(|(account, address)| (*account, address.as_str()))
    }
}
