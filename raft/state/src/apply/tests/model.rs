//! What mailboxes are, told as plainly as possible: lists of messages, counted and searched whenever somebody asks.
//!
//! Nothing here is shared with `apply` but the rules for UIDs, which are written out again.

use std::collections::{BTreeMap, BTreeSet};

use core_types::{AccountId, Flags, MailboxGuid, MailboxName, MessageGuid, ModSeq, Uid, UidValidity, UnixMillis};

use crate::command::{Delivery, FlagChange, MailboxOp};
use crate::outcome::{Outcome, Placed, Refusal};
use crate::rows::MessageRow;

#[derive(Clone, Debug)]
pub(super) struct Box_ {
    pub(super) guid: MailboxGuid,
    pub(super) name: String,
    pub(super) uid_validity: u32,
    pub(super) uid_next: u32,
    pub(super) modseq: u64,
    pub(super) messages: Vec<MessageRow>,
    /// (MODSEQ, UID, GUID) of each that left.
    pub(super) vanished: Vec<(u64, u32, MessageGuid)>,
}

#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) inbox: MailboxGuid,
    pub(super) quota: Option<u64>,
    pub(super) last_validity: u32,
    pub(super) boxes: Vec<Box_>,
    pub(super) subscriptions: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) time: u64,
    pub(super) accounts: BTreeMap<AccountId, Account>,
    pub(super) used_mailbox_guids: BTreeSet<MailboxGuid>,
    /// Where each message that is in no mailbox any more was at last.
    pub(super) gone: BTreeMap<(AccountId, MessageGuid), Placed>,
}

type Answer = Result<Outcome, Refusal>;

impl Box_ {
    fn add(&mut self, mut row: MessageRow, time: u64) -> Uid {
        let mut uid = self.uid_next.max(1);
        while !(uid / 4096).is_multiple_of(32) {
            uid += 1;
        }
        self.uid_next = uid + 1;
        row.uid = Uid(uid);
        row.modseq = ModSeq(self.modseq);
        row.save_date = UnixMillis(time);
        self.messages.push(row);
        Uid(uid)
    }

    fn take(&mut self, guid: MessageGuid) -> Option<MessageRow> {
        let place = self.messages.iter().position(|row| row.guid == guid)?;
        let row = self.messages.remove(place);
        self.vanished.push((self.modseq, row.uid.0, guid));
        Some(row)
    }

    fn has(&self, guid: MessageGuid) -> bool {
        self.messages.iter().any(|row| row.guid == guid)
    }
}

impl Account {
    pub(super) fn used(&self) -> u64 {
        self.boxes
            .iter()
            .flat_map(|each| &each.messages)
            .map(|row| row.size)
            .sum()
    }

    fn place(&self, guid: MailboxGuid) -> Result<usize, Refusal> {
        self.boxes
            .iter()
            .position(|each| each.guid == guid)
            .ok_or(Refusal::NoSuchMailbox)
    }

    fn has_name(&self, name: &str) -> bool {
        self.boxes.iter().any(|each| each.name == name)
    }

    fn create_one(&mut self, time: u64, name: &str, guid: MailboxGuid) {
        let mut uid_validity = (time / 1000) as u32;
        uid_validity = uid_validity.max(self.last_validity + 1);
        while !uid_validity.is_multiple_of(32) {
            uid_validity += 1;
        }
        self.last_validity = uid_validity;
        let name = name.to_owned();
        self.boxes.push(Box_ {
            guid,
            name,
            uid_validity,
            uid_next: 1,
            modseq: 1,
            messages: vec![],
            vanished: vec![],
        });
    }
}

impl Model {
    pub(super) fn apply(&mut self, op: &MailboxOp) -> Outcome {
        let before = self.clone();
        self.try_apply(op).unwrap_or_else(|refusal| {
            *self = before;
            Outcome::Refused(refusal)
        })
    }

    fn account(&mut self, account: AccountId) -> Result<&mut Account, Refusal> {
        self.accounts.get_mut(&account).ok_or(Refusal::NoSuchAccount)
    }

    fn try_apply(&mut self, op: &MailboxOp) -> Answer {
        let time = self.time;
        match op {
            MailboxOp::CreateAccount {
                account,
                inbox,
                quota_bytes,
                ..
            } => {
                if self.accounts.contains_key(account) || !self.used_mailbox_guids.insert(*inbox) {
                    return Err(Refusal::AlreadyExists);
                }
                let mut made = Account {
                    inbox: *inbox,
                    quota: *quota_bytes,
                    last_validity: 0,
                    boxes: vec![],
                    subscriptions: BTreeSet::from(["INBOX".to_owned()]),
                };
                made.create_one(time, "INBOX", *inbox);
                self.accounts.insert(*account, made);
                Ok(Outcome::Done)
            }
            MailboxOp::RemoveAccount { account } => {
                self.account(*account)?;
                let removed = self.accounts.remove(account).unwrap();
                removed.boxes.iter().for_each(|each| self.bury(*account, each));
                Ok(Outcome::Done)
            }
            MailboxOp::SetQuota { account, quota_bytes } => {
                self.account(*account)?.quota = *quota_bytes;
                Ok(Outcome::Done)
            }
            MailboxOp::Deliver(delivery) => Ok(self.deliver(delivery)),
            MailboxOp::StoreFlags {
                account,
                mailbox,
                messages,
                change,
                flags,
                unchanged_since,
            } => {
                let owner = self.account(*account)?;
                let place = owner.place(*mailbox)?;
                Ok(store(
                    &mut owner.boxes[place],
                    messages,
                    *change,
                    flags,
                    *unchanged_since,
                ))
            }
            MailboxOp::Copy {
                account,
                from,
                to,
                messages,
                seed,
            } => self.copy(*account, (*from, *to), messages, Some(seed)),
            MailboxOp::Move {
                account,
                from,
                to,
                messages,
            } => self.copy(*account, (*from, *to), messages, None),
            MailboxOp::Expunge {
                account,
                mailbox,
                messages,
                only_deleted,
            } => self.expunge(*account, *mailbox, messages, *only_deleted),
            MailboxOp::CreateMailbox {
                account, name, guid, ..
            } => {
                self.account(*account)?;
                self.create(*account, name, *guid)
            }
            MailboxOp::DeleteMailbox { account, mailbox } => {
                let owner = self.account(*account)?;
                if owner.inbox == *mailbox {
                    return Err(Refusal::InboxStays);
                }
                let place = owner.place(*mailbox)?;
                let removed = owner.boxes.remove(place);
                self.bury(*account, &removed);
                Ok(Outcome::Done)
            }
            MailboxOp::RenameMailbox {
                account,
                mailbox,
                to,
                new_guid,
            } => self.rename(*account, *mailbox, to, *new_guid),
            MailboxOp::Subscribe {
                account,
                name,
                subscribed,
            } => {
                let owner = self.account(*account)?;
                if *subscribed {
                    owner.subscriptions.insert(name.to_string());
                } else {
                    owner.subscriptions.remove(name.as_str());
                }
                Ok(Outcome::Done)
            }
            other => panic!("not modelled: {other:?}"),
        }
    }

    /// Remembers where the messages of a mailbox were that is gone.
    fn bury(&mut self, account: AccountId, removed: &Box_) {
        for row in &removed.messages {
            let placed = Placed {
                mailbox: removed.guid,
                uid_validity: UidValidity(removed.uid_validity),
                uid: row.uid,
                modseq: ModSeq(removed.modseq),
                repeated: true,
            };
            self.gone.insert((account, row.guid), placed);
        }
    }

    fn deliver(&mut self, delivery: &Delivery) -> Outcome {
        let time = self.time;
        let mut raised = BTreeSet::new();
        let results = delivery.targets.iter().map(|target| {
            if let Some(placed) = self.gone.get(&(target.account, target.guid)) {
                return Ok(*placed);
            }
            let owner = self.accounts.get_mut(&target.account).ok_or(Refusal::NoSuchAccount)?;
            if let Some(each) = owner.boxes.iter().find(|each| each.has(target.guid)) {
                let uid = each.messages.iter().find(|row| row.guid == target.guid).unwrap().uid;
                let (uid_validity, modseq) = (UidValidity(each.uid_validity), ModSeq(each.modseq));
                return Ok(Placed {
                    mailbox: each.guid,
                    uid_validity,
                    uid,
                    modseq,
                    repeated: true,
                });
            }
            let place = owner.place(target.mailbox.unwrap_or(owner.inbox))?;
            let size = delivery.message.size;
            if delivery.enforce_quota && owner.quota.is_some_and(|quota| owner.used() + size > quota) {
                return Err(Refusal::OverQuota);
            }
            let each = &mut owner.boxes[place];
            each.modseq += u64::from(raised.insert(each.guid));
            let row = MessageRow {
                uid: Uid(0),
                guid: target.guid,
                email_id: delivery.message.email_id,
                blob: delivery.message.blob,
                size,
                internal_date: delivery.message.internal_date,
                save_date: UnixMillis(time),
                flags: target.flags.clone(),
                modseq: ModSeq(0),
            };
            let uid = each.add(row, time);
            let (uid_validity, modseq) = (UidValidity(each.uid_validity), ModSeq(each.modseq));
            Ok(Placed {
                mailbox: each.guid,
                uid_validity,
                uid,
                modseq,
                repeated: false,
            })
        });
        Outcome::Delivered(results.collect())
    }

    fn copy(
        &mut self,
        account: AccountId,
        (from, to): (MailboxGuid, MailboxGuid),
        messages: &[MessageGuid],
        seed: Option<&[u8; 16]>,
    ) -> Answer {
        let time = self.time;
        let gone = self.gone.clone();
        let owner = self.account(account)?;
        let (source, target) = (owner.place(from)?, owner.place(to)?);
        let mut rows: Vec<MessageRow> = Vec::new();
        for guid in messages {
            if let Some(row) = owner.boxes[source].messages.iter().find(|row| row.guid == *guid)
                && !rows.contains(row)
            {
                rows.push(row.clone());
            }
        }
        if let Some(seed) = seed {
            let more: u64 = rows.iter().map(|row| row.size).sum();
            if !rows.is_empty() && owner.quota.is_some_and(|quota| owner.used() + more > quota) {
                return Err(Refusal::OverQuota);
            }
            let is_used = |guid| owner.boxes.iter().any(|each| each.has(guid)) || gone.contains_key(&(account, guid));
            if rows.iter().any(|row| is_used(row.guid.derive(seed))) {
                return Err(Refusal::AlreadyExists);
            }
        }
        if !rows.is_empty() {
            owner.boxes[target].modseq += 1;
            if seed.is_none() && source != target {
                owner.boxes[source].modseq += 1;
            }
        }
        let mut uids = Vec::new();
        for mut row in rows {
            let old = row.uid;
            match seed {
                Some(seed) => row.guid = row.guid.derive(seed),
                None => drop(owner.boxes[source].take(row.guid)),
            }
            uids.push((old, owner.boxes[target].add(row, time)));
        }
        let uid_validity = UidValidity(owner.boxes[target].uid_validity);
        Ok(Outcome::Copied {
            uid_validity,
            uids,
            source_modseq: ModSeq(owner.boxes[source].modseq),
        })
    }

    fn expunge(
        &mut self,
        account: AccountId,
        mailbox: MailboxGuid,
        messages: &[MessageGuid],
        only_deleted: bool,
    ) -> Answer {
        let owner = self.account(account)?;
        let place = owner.place(mailbox)?;
        let each = &mut owner.boxes[place];
        let goes = |row: &&MessageRow| messages.contains(&row.guid) && (!only_deleted || row.flags.has(Flags::DELETED));
        let going: Vec<MessageRow> = each.messages.iter().filter(goes).cloned().collect();
        if !going.is_empty() {
            each.modseq += 1;
        }
        let (uid_validity, modseq) = (UidValidity(each.uid_validity), ModSeq(each.modseq));
        for row in &going {
            each.take(row.guid);
        }
        for row in &going {
            let placed = Placed {
                mailbox,
                uid_validity,
                uid: row.uid,
                modseq,
                repeated: true,
            };
            self.gone.insert((account, row.guid), placed);
        }
        let mut uids: Vec<Uid> = going.iter().map(|row| row.uid).collect();
        uids.sort();
        Ok(Outcome::Expunged {
            uids,
            highest_modseq: modseq,
        })
    }

    /// Makes a mailbox. The GUIDs of those made above it are a matter of `apply`: here they are zero until
    /// [`Model::adopt`] takes them over.
    fn create(&mut self, account: AccountId, name: &MailboxName, guid: MailboxGuid) -> Answer {
        let time = self.time;
        let is_fresh = self.used_mailbox_guids.insert(guid);
        let owner = self.account(account)?;
        if owner.has_name(name.as_str()) || !is_fresh {
            return Err(Refusal::AlreadyExists);
        }
        self.create_above(account, name);
        let owner = self.account(account)?;
        owner.create_one(time, name.as_str(), guid);
        let uid_validity = UidValidity(owner.last_validity);
        Ok(Outcome::MailboxCreated {
            mailbox: guid,
            uid_validity,
        })
    }

    fn create_above(&mut self, account: AccountId, name: &MailboxName) {
        let time = self.time;
        let owner = self.accounts.get_mut(&account).unwrap();
        let text = name.as_str();
        for (end, _) in text.match_indices('/') {
            if !owner.has_name(&text[..end]) {
                owner.create_one(time, &text[..end], MailboxGuid([0; 16]));
            }
        }
    }

    fn rename(&mut self, account: AccountId, mailbox: MailboxGuid, to: &MailboxName, new_guid: MailboxGuid) -> Answer {
        let owner = self.account(account)?;
        let place = owner.place(mailbox)?;
        if owner.has_name(to.as_str()) {
            return Err(Refusal::AlreadyExists);
        }
        if owner.inbox == mailbox {
            let created = self.create(account, to, new_guid)?;
            let owner = self.account(account)?;
            let all: Vec<MessageGuid> = owner.boxes[place].messages.iter().map(|row| row.guid).collect();
            self.copy(account, (mailbox, new_guid), &all, None)?;
            return Ok(created);
        }
        let from = owner.boxes[place].name.clone();
        let below = format!("{from}/");
        if to.as_str().starts_with(&below) {
            return Err(Refusal::IntoItself);
        }
        let mut moved = Vec::new();
        for each in &mut owner.boxes {
            if each.name == from || each.name.starts_with(&below) {
                moved.push((each.guid, format!("{to}{}", &each.name[from.len()..])));
                each.name = String::new();
            }
        }
        self.create_above(account, to);
        let owner = self.account(account)?;
        for (guid, name) in moved {
            if owner.has_name(&name) {
                return Err(Refusal::AlreadyExists);
            }
            let place = owner.place(guid)?;
            owner.boxes[place].name = name;
        }
        Ok(Outcome::Done)
    }

    /// Takes over the GUID of a mailbox that was made above another.
    pub(super) fn adopt(&mut self, account: AccountId, name: &str, guid: MailboxGuid) {
        let owner = self.accounts.get_mut(&account).unwrap();
        let each = owner.boxes.iter_mut().find(|each| each.name == name).unwrap();
        if each.guid == MailboxGuid([0; 16]) {
            assert!(self.used_mailbox_guids.insert(guid));
            each.guid = guid;
        }
    }
}

fn store(
    each: &mut Box_,
    messages: &[MessageGuid],
    change: FlagChange,
    flags: &Flags,
    unchanged_since: Option<ModSeq>,
) -> Outcome {
    let (mut modified, mut missing) = (Vec::new(), Vec::new());
    let next = each.modseq + 1;
    let mut seen = BTreeSet::new();
    for guid in messages.iter().filter(|guid| seen.insert(**guid)) {
        let Some(row) = each.messages.iter_mut().find(|row| row.guid == *guid) else {
            missing.push(*guid);
            continue;
        };
        if unchanged_since.is_some_and(|since| row.modseq.0 > since.0) {
            modified.push(row.uid);
            continue;
        }
        let mut wanted = row.flags.clone();
        match change {
            FlagChange::Replace => wanted = flags.clone(),
            FlagChange::Add => wanted.add(flags),
            FlagChange::Remove => wanted.remove(flags),
        }
        if wanted != row.flags {
            row.flags = wanted;
            row.modseq = ModSeq(next);
            each.modseq = next;
        }
    }
    modified.sort();
    Outcome::Stored {
        highest_modseq: ModSeq(each.modseq),
        modified,
        missing,
    }
}
