//! One command's changes while they are made: rows that are read and changed several times are held here and written once
//! at the end, and the MODSEQ of each mailbox rises once.
//!
//! A command that is refused drops its [`Tx`], and with it all changes.

use std::collections::{BTreeMap, BTreeSet};

use core_types::codec::CodecError;
use core_types::{AccountId, KvError, KvRead, MailboxGuid, MessageGuid, ModSeq, UnixMillis};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::apply::ApplyError;
use crate::keys;
use crate::outcome::{Effect, ManifestEntry, Refusal};
use crate::overlay::Overlay;
use crate::rows::{AccountRow, Doomed, GuidRow, MailboxRow, MessageRow};
use crate::store::{self, ReadError};

/// Why a command ends before its end.
#[derive(Debug)]
pub(crate) enum Halt {
    /// It does not fit: a fact of the state.
    Refused(Refusal),
    /// This replica cannot go on.
    Failed(ApplyError),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ApplyError> for Halt {
    fn from(error: ApplyError) -> Self {
        Self::Failed(error)
    }
}

impl From<ReadError> for Halt {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<KvError> for Halt {
    fn from(error: KvError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<CodecError> for ApplyError {
    fn from(error: CodecError) -> Self {
        Self::Corrupt(format!("a row cannot be encoded: {error}"))
    }
}

pub(crate) fn refuse<T>(refusal: Refusal) -> Result<T, Halt> {
    Err(Halt::Refused(refusal))
}

pub(crate) fn encoded<T: Serialize + ?Sized>(row: &T) -> Result<Vec<u8>, ApplyError> {
    Ok(store::encode(row)?)
}

/// A mailbox that the command touches.
struct Edited {
    row: MailboxRow,
    /// Its MODSEQ was raised.
    changed: bool,
    /// Those who watch must look, though no message changed.
    announced: bool,
}

/// One command's changes. See the module.
pub(crate) struct Tx<'a> {
    rows: Overlay<'a>,
    /// The group's time at this op.
    pub(crate) time: UnixMillis,
    /// The time that the op's maker gave; may be ahead of `time`.
    pub(crate) claimed_time: UnixMillis,
    accounts: BTreeMap<AccountId, AccountRow>,
    mailboxes: BTreeMap<MailboxGuid, Edited>,
    lists: BTreeSet<AccountId>,
    effects: Vec<Effect>,
}

impl<'a> Tx<'a> {
    pub(crate) fn new(base: &'a dyn KvRead, time: UnixMillis, claimed_time: UnixMillis) -> Self {
        Self {
            rows: Overlay::new(base),
            time,
            claimed_time,
            accounts: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            lists: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    /// The rows as the command left them so far; accounts and mailboxes that it holds are not up to date there.
    pub(crate) fn view(&self) -> &dyn KvRead {
        &self.rows
    }

    pub(crate) fn load<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, ReadError> {
        store::load(&self.rows, key)
    }

    pub(crate) fn exists(&self, key: &[u8]) -> Result<bool, KvError> {
        Ok(self.rows.get(key)?.is_some())
    }

    pub(crate) fn put<T: Serialize + ?Sized>(&mut self, key: Vec<u8>, row: &T) -> Result<(), ApplyError> {
        self.rows.put(key, encoded(row)?);
        Ok(())
    }

    pub(crate) fn put_bytes(&mut self, key: Vec<u8>, bytes: Vec<u8>) {
        self.rows.put(key, bytes);
    }

    pub(crate) fn delete(&mut self, key: Vec<u8>) {
        self.rows.delete(key);
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn manifest(&mut self, line: String) {
        self.effects.push(Effect::Manifest(ManifestEntry { line }));
    }

    /// Remembers to let go of something.
    pub(crate) fn doom(&mut self, due: UnixMillis, doomed: Doomed) -> Result<(), ApplyError> {
        let (kind, name) = doomed.key();
        self.put(keys::prune(due, kind, &name), &doomed)
    }

    /// An account of this group.
    pub(crate) fn account(&mut self, account: AccountId) -> Result<&mut AccountRow, Halt> {
        use std::collections::btree_map::Entry;
        match self.accounts.entry(account) {
            Entry::Occupied(held) => Ok(held.into_mut()),
            Entry::Vacant(free) => {
                let row = store::load(&self.rows, &keys::account(account))?.ok_or(Refusal::NoSuchAccount)?;
                Ok(free.insert(row))
            }
        }
    }

    pub(crate) fn add_account(&mut self, account: AccountId, row: AccountRow) {
        self.accounts.insert(account, row);
    }

    pub(crate) fn remove_account(&mut self, account: AccountId) {
        self.accounts.remove(&account);
        self.delete(keys::account(account));
    }

    /// A mailbox of the account.
    pub(crate) fn mailbox(&mut self, account: AccountId, mailbox: MailboxGuid) -> Result<&mut MailboxRow, Halt> {
        let row = self.any_mailbox(mailbox)?.ok_or(Refusal::NoSuchMailbox)?;
        if row.account == account {
            Ok(row)
        } else {
            refuse(Refusal::NoSuchMailbox)
        }
    }

    /// A mailbox, whosesoever it is.
    pub(crate) fn any_mailbox(&mut self, mailbox: MailboxGuid) -> Result<Option<&mut MailboxRow>, Halt> {
        use std::collections::btree_map::Entry;
        match self.mailboxes.entry(mailbox) {
            Entry::Occupied(held) => Ok(Some(&mut held.into_mut().row)),
            Entry::Vacant(free) => {
                let row: Option<MailboxRow> = store::load(&self.rows, &keys::mailbox(mailbox))?;
                Ok(row.map(|row| {
                    &mut free
                        .insert(Edited {
                            row,
                            changed: false,
                            announced: false,
                        })
                        .row
                }))
            }
        }
    }

    pub(crate) fn add_mailbox(&mut self, row: MailboxRow) {
        self.lists.insert(row.account);
        self.mailboxes.insert(
            row.guid,
            Edited {
                row,
                changed: false,
                announced: true,
            },
        );
    }

    /// Takes a mailbox's row away; what is in it stays.
    pub(crate) fn remove_mailbox(&mut self, row: &MailboxRow) {
        self.mailboxes.remove(&row.guid);
        self.delete(keys::mailbox(row.guid));
        self.lists.insert(row.account);
        let (account, mailbox) = (row.account, row.guid);
        self.effect(Effect::Mailbox {
            account,
            mailbox,
            highest_modseq: row.highest_modseq,
        });
    }

    /// The MODSEQ of this op's changes in a mailbox: one above the last, the same for all of them.
    pub(crate) fn modseq(&mut self, account: AccountId, mailbox: MailboxGuid) -> Result<ModSeq, Halt> {
        self.mailbox(account, mailbox)?;
        let edited = self.mailboxes.get_mut(&mailbox).ok_or(Refusal::NoSuchMailbox)?;
        if !edited.changed {
            edited.changed = true;
            edited.row.highest_modseq = ModSeq(edited.row.highest_modseq.0.saturating_add(1));
        }
        Ok(edited.row.highest_modseq)
    }

    /// Tells those who watch that the mailbox is not what it was, though no message changed.
    pub(crate) fn announce(&mut self, mailbox: MailboxGuid) {
        if let Some(edited) = self.mailboxes.get_mut(&mailbox) {
            edited.announced = true;
        }
    }

    /// Tells those who watch that the account's list of mailboxes or subscriptions changed.
    pub(crate) fn announce_list(&mut self, account: AccountId) {
        self.lists.insert(account);
    }

    /// A message, if it is in this mailbox.
    pub(crate) fn message(
        &self,
        account: AccountId,
        mailbox: MailboxGuid,
        message: MessageGuid,
    ) -> Result<Option<MessageRow>, Halt> {
        match self.load(&keys::guid(account, message))? {
            Some(GuidRow::Live { mailbox: place, uid }) if place == mailbox => {
                let key = keys::message(mailbox, uid);
                let row = self.load(&key)?;
                Ok(Some(row.ok_or_else(|| {
                    store::corrupt(&key, "a GUID of a message that is not there")
                })?))
            }
            _ => Ok(None),
        }
    }

    /// All changes, and what they cause.
    pub(crate) fn finish(mut self) -> Result<(core_types::Batch, Vec<Effect>), ApplyError> {
        for (account, row) in std::mem::take(&mut self.accounts) {
            self.put_if_new(keys::account(account), &row)?;
        }
        for (guid, edited) in std::mem::take(&mut self.mailboxes) {
            self.put_if_new(keys::mailbox(guid), &edited.row)?;
            if edited.changed || edited.announced {
                let (account, highest_modseq) = (edited.row.account, edited.row.highest_modseq);
                self.effects.push(Effect::Mailbox {
                    account,
                    mailbox: guid,
                    highest_modseq,
                });
            }
        }
        self.effects.extend(
            self.lists
                .iter()
                .map(|account| Effect::MailboxList { account: *account }),
        );
        Ok((self.rows.into_batch(), self.effects))
    }

    fn put_if_new<T: Serialize>(&mut self, key: Vec<u8>, row: &T) -> Result<(), ApplyError> {
        let bytes = encoded(row)?;
        if self.rows.get(&key)?.as_deref() != Some(bytes.as_slice()) {
            self.rows.put(key, bytes);
        }
        Ok(())
    }
}

impl Doomed {
    /// What keeps it apart from others that are due at the same time.
    fn key(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Retained(account, message) => (0, [account.0, message.0].concat()),
            Self::Guid(account, message) => (1, [account.0, message.0].concat()),
            Self::Vanished(mailbox, modseq, uid) => (
                2,
                [mailbox.0.as_slice(), &modseq.0.to_be_bytes(), &uid.0.to_be_bytes()].concat(),
            ),
            Self::Mailbox(mailbox) => (3, mailbox.0.to_vec()),
            Self::QueueGone(entry) => (4, entry.0.to_vec()),
        }
    }
}
