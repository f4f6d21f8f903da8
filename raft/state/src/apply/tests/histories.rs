//! Random histories: after each op the state shows what the naive model shows, and what must never happen did not.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::model::{Box_, Model};
use super::*;
use crate::manifest::{self, Kept, Place, Replay};
use crate::rows::{Change, MailboxRow, MessageRow};

const BOB: AccountId = AccountId([2; 16]);
const ALL: usize = usize::MAX;

/// An op by numbers: which of the mailboxes and messages that there are when it is its turn.
#[derive(Clone, Debug)]
struct Draft {
    kind: u8,
    bob: bool,
    mailboxes: (u8, u8),
    messages: Vec<u8>,
    name: u8,
    flags: u8,
    choice: u8,
    millis: u32,
}

fn draft() -> impl Strategy<Value = Draft> {
    let numbers = (
        0_u8..100,
        prop::bool::weighted(0.2),
        (0_u8..8, 0_u8..8),
        prop::collection::vec(0_u8..24, 0..6),
    );
    (numbers, 0_u8..12, 0_u8..64, any::<u8>(), 0_u32..40_000).prop_map(
        |((kind, bob, mailboxes, messages), name, flags, choice, millis)| Draft {
            kind,
            bob,
            mailboxes,
            messages,
            name,
            flags,
            choice,
            millis,
        },
    )
}

fn flags(bits: u8) -> Flags {
    let mut flags = Flags::system(bits & (Flags::SEEN | Flags::DELETED | Flags::FLAGGED));
    for (bit, keyword) in [(16, "one"), (32, "two")] {
        if bits & bit != 0 {
            flags.keywords.extend(Keyword::parse(keyword));
        }
    }
    flags
}

const NAMES: [&str; 12] = [
    "INBOX", "a", "b", "c", "a/b", "a/b/c", "b/a", "INBOX/x", "ab", "c/d/e", "a/x", "b/a/b/c",
];

impl Draft {
    fn account(&self) -> AccountId {
        if self.bob { BOB } else { ANN }
    }

    /// A mailbox that is there, or now and then one that is not.
    fn mailbox(&self, model: &Model, which: u8) -> MailboxGuid {
        let boxes = model
            .accounts
            .get(&self.account())
            .map_or(&[][..], |owner| &owner.boxes);
        match boxes.len() {
            0 => mailbox(99),
            _ if which == 7 => mailbox(99),
            length => boxes[usize::from(which) % length].guid,
        }
    }

    /// Messages that are in the mailbox, and some that may be elsewhere.
    fn messages(&self, model: &Model, from: MailboxGuid) -> Vec<MessageGuid> {
        let boxes = model
            .accounts
            .get(&self.account())
            .map_or(&[][..], |owner| &owner.boxes);
        let there: Vec<MessageGuid> = boxes
            .iter()
            .filter(|each| each.guid == from)
            .flat_map(|each| each.messages.iter().map(|row| row.guid))
            .collect();
        let pick = |number: &u8| match there.len() {
            0 => message(*number),
            _ if number % 8 == 7 => message(*number),
            length => there[usize::from(*number) % length],
        };
        self.messages.iter().map(pick).collect()
    }

    fn op(&self, model: &Model, turn: u16) -> MailboxOp {
        let account = self.account();
        let (from, to) = (
            self.mailbox(model, self.mailboxes.0),
            self.mailbox(model, self.mailboxes.1),
        );
        let messages = self.messages(model, from);
        let fresh = |salt: u8| {
            let [high, low] = turn.to_be_bytes();
            let mut guid = [salt; 16];
            guid[14..].copy_from_slice(&[high, low]);
            guid
        };
        let name = name_of(NAMES[usize::from(self.name)]);
        match self.kind {
            0..36 => self.deliver(from),
            36..54 => MailboxOp::StoreFlags {
                account,
                mailbox: from,
                messages,
                change: [FlagChange::Add, FlagChange::Remove, FlagChange::Replace][usize::from(self.choice % 3)],
                flags: flags(self.flags),
                unchanged_since: (self.choice > 200).then_some(ModSeq(u64::from(self.choice.saturating_sub(200)))),
            },
            54..62 => MailboxOp::Copy {
                account,
                from,
                to,
                messages,
                seed: fresh(if self.choice < 9 { 0 } else { 200 }),
            },
            62..72 => MailboxOp::Move {
                account,
                from,
                to,
                messages,
            },
            72..80 => MailboxOp::Expunge {
                account,
                mailbox: from,
                messages,
                only_deleted: self.choice < 128,
            },
            80..87 => {
                let guid = if self.choice < 10 {
                    from
                } else {
                    MailboxGuid(fresh(201))
                };
                MailboxOp::CreateMailbox {
                    account,
                    name,
                    guid,
                    special_use: None,
                }
            }
            87..89 => MailboxOp::DeleteMailbox { account, mailbox: from },
            89..94 => MailboxOp::RenameMailbox {
                account,
                mailbox: from,
                to: name,
                new_guid: MailboxGuid(fresh(202)),
            },
            94..96 => MailboxOp::Subscribe {
                account,
                name,
                subscribed: self.choice < 160,
            },
            96..97 => MailboxOp::SetQuota {
                account,
                quota_bytes: (self.choice < 128).then_some(u64::from(self.choice) * 50),
            },
            97..99 => MailboxOp::CreateAccount {
                account,
                inbox: MailboxGuid(fresh(203)),
                mailboxes: vec![],
                quota_bytes: (self.choice < 64).then_some(4000),
            },
            _ if self.choice < 80 => MailboxOp::RemoveAccount { account },
            _ => self.deliver(to),
        }
    }

    fn deliver(&self, mailbox: MailboxGuid) -> MailboxOp {
        let targets = self.messages.iter().map(|number| DeliveryTarget {
            account: if *number == 5 { BOB } else { self.account() },
            guid: message(self.choice.wrapping_add(*number) % 120),
            mailbox: (number % 3 > 0).then_some(mailbox),
            flags: flags(self.flags),
        });
        let targets: Vec<_> = targets.collect();
        let MailboxOp::Deliver(mut delivery) = delivery(self.choice, mailbox) else {
            panic!()
        };
        delivery.message.size = u64::from(self.choice);
        delivery.enforce_quota = self.flags < 32;
        if targets.is_empty() {
            return MailboxOp::Deliver(delivery);
        }
        MailboxOp::Deliver(Delivery { targets, ..delivery })
    }
}

/// What one client of a mailbox has seen, and what it was told last.
#[derive(Default)]
struct Client {
    modseq: ModSeq,
    view: BTreeMap<Uid, MessageRow>,
}

/// Everything that must hold over a whole history.
#[derive(Default)]
struct Watch {
    /// U1: which message each UID is.
    uids: BTreeMap<(MailboxGuid, u32, Uid), MessageGuid>,
    /// U4, and that UIDNEXT never falls.
    highest: BTreeMap<MailboxGuid, (ModSeq, Uid)>,
    clients: BTreeMap<MailboxGuid, Client>,
}

impl Watch {
    fn look(&mut self, row: &MailboxRow, messages: &[MessageRow]) -> TestCaseResult {
        let (modseq, uid_next) = self.highest.entry(row.guid).or_default();
        let announced = *uid_next;
        prop_assert!(row.highest_modseq >= *modseq && row.uid_next >= *uid_next);
        (*modseq, *uid_next) = (row.highest_modseq, row.uid_next);
        for message in messages {
            let key = (row.guid, row.uid_validity.0, message.uid);
            if let Some(known) = self.uids.insert(key, message.guid) {
                prop_assert_eq!(known, message.guid, "U1");
            } else {
                prop_assert!(message.uid >= announced, "a new message below UIDNEXT");
            }
            prop_assert!(message.uid < row.uid_next && message.modseq <= row.highest_modseq);
        }
        Ok(())
    }

    /// A client that follows the changes, in pages of `limit`, sees the mailbox.
    fn follow(
        &mut self,
        reader: &Reader<'_>,
        row: &MailboxRow,
        messages: &[MessageRow],
        limit: usize,
    ) -> TestCaseResult {
        let client = self.clients.entry(row.guid).or_default();
        loop {
            let changes = reader.changes_since(row.guid, client.modseq, limit).unwrap().unwrap();
            prop_assert!(!changes.forgotten);
            for change in changes.changes {
                let modseq = match change {
                    Change::Message(message) => {
                        let modseq = message.modseq;
                        client.view.insert(message.uid, message);
                        modseq
                    }
                    Change::Vanished { uid, modseq, .. } => {
                        client.view.remove(&uid);
                        modseq
                    }
                };
                prop_assert!(modseq > client.modseq, "U4: a change at a MODSEQ that was announced");
            }
            match changes.next {
                Some(next) => client.modseq = next,
                None => break,
            }
        }
        client.modseq = row.highest_modseq;
        let view: Vec<MessageRow> = client.view.values().cloned().collect();
        prop_assert_eq!(view, messages);
        Ok(())
    }
}

fn adopt_superiors(reader: &Reader<'_>, model: &mut Model) {
    for account in [ANN, BOB] {
        let made: Vec<String> = model.accounts.get(&account).map_or(vec![], |owner| {
            owner
                .boxes
                .iter()
                .filter(|each| each.guid == MailboxGuid([0; 16]))
                .map(|each| each.name.clone())
                .collect()
        });
        for name in made {
            let row = reader.mailbox_by_name(account, &name_of(&name)).unwrap().unwrap();
            model.adopt(account, &name, row.guid);
        }
    }
}

fn compare_mailbox(reader: &Reader<'_>, row: &MailboxRow, expected: &Box_) -> Result<Vec<MessageRow>, TestCaseError> {
    let messages = reader.messages(row.guid, Uid(0), ALL).unwrap();
    let mut wanted = expected.messages.clone();
    wanted.sort_by_key(|message| message.uid);
    prop_assert_eq!(&messages, &wanted);
    let count = |test: fn(&MessageRow) -> bool| wanted.iter().filter(|message| test(message)).count() as u32;
    prop_assert_eq!(row.guid, expected.guid);
    prop_assert_eq!(row.uid_validity.0, expected.uid_validity);
    prop_assert_eq!(row.uid_next.0, expected.uid_next);
    prop_assert_eq!(row.highest_modseq.0, expected.modseq);
    prop_assert_eq!(row.message_count, count(|_| true));
    prop_assert_eq!(row.unseen_count, count(|message| !message.flags.has(Flags::SEEN)));
    prop_assert_eq!(row.deleted_count, count(|message| message.flags.has(Flags::DELETED)));
    prop_assert_eq!(row.size_bytes, wanted.iter().map(|message| message.size).sum::<u64>());
    prop_assert!(
        wanted
            .iter()
            .all(|message| message.flags.keywords.iter().all(|word| row.keywords.contains(word)))
    );
    let mut sum = digest::Digest::default();
    for message in &wanted {
        digest::add(
            &mut sum,
            &keys::message(row.guid, message.uid),
            &store::encode(message).unwrap(),
        );
    }
    prop_assert_eq!(row.digest, sum);
    let changes = reader.changes_since(row.guid, ModSeq(0), ALL).unwrap().unwrap().changes;
    let vanished: BTreeSet<_> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Vanished { uid, guid, modseq } => Some((modseq.0, uid.0, *guid)),
            Change::Message(_) => None,
        })
        .collect();
    prop_assert_eq!(vanished, expected.vanished.iter().copied().collect::<BTreeSet<_>>());
    Ok(messages)
}

fn compare(group: &Group, model: &Model, watch: &mut Watch, limit: usize) -> TestCaseResult {
    let reader = group.reader();
    for account in [ANN, BOB] {
        let row = reader.account(account).unwrap();
        let rows = reader.mailboxes(account).unwrap();
        let Some(owner) = model.accounts.get(&account) else {
            prop_assert!(row.is_none() && rows.is_empty());
            continue;
        };
        let row = row.unwrap();
        prop_assert_eq!(
            (row.inbox, row.quota_bytes, row.used_bytes),
            (owner.inbox, owner.quota, owner.used())
        );
        prop_assert_eq!(
            row.message_count,
            owner.boxes.iter().map(|each| each.messages.len() as u64).sum::<u64>()
        );
        prop_assert_eq!(
            (row.mailbox_count as usize, row.uid_validity_last.0),
            (owner.boxes.len(), owner.last_validity)
        );
        let subscriptions: Vec<String> = reader
            .subscriptions(account)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        prop_assert_eq!(row.subscription_count as usize, subscriptions.len());
        prop_assert_eq!(subscriptions, owner.subscriptions.iter().cloned().collect::<Vec<_>>());
        let mut boxes: Vec<&Box_> = owner.boxes.iter().collect();
        boxes.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        prop_assert_eq!(names, boxes.iter().map(|each| each.name.as_str()).collect::<Vec<_>>());
        for (row, expected) in rows.iter().zip(boxes) {
            let messages = compare_mailbox(&reader, row, expected)?;
            watch.look(row, &messages)?;
            watch.follow(&reader, row, &messages, limit)?;
            for message in &messages {
                let found = reader.message_by_guid(account, message.guid).unwrap();
                prop_assert_eq!(found, Some((row.guid, message.clone())));
            }
        }
    }
    Ok(())
}

/// Each blob is counted as often as a message, retained or not, or a deleted mailbox's message refers to it.
fn compare_blobs(group: &Group) -> TestCaseResult {
    let mut counted: BTreeMap<BlobId, u64> = BTreeMap::new();
    for (key, value) in group.engine.entries() {
        let blob = match key[0] {
            space if space == keys::Space::Message as u8 => store::decode::<MessageRow>(&key, &value).unwrap().blob,
            space if space == keys::Space::Retained as u8 => {
                store::decode::<crate::rows::RetainedRow>(&key, &value)
                    .unwrap()
                    .message
                    .blob
            }
            _ => continue,
        };
        *counted.entry(blob).or_default() += 1;
    }
    let mut stored = BTreeMap::new();
    for blob in group.reader().all_blobs(None, ALL).unwrap() {
        stored.insert(
            blob,
            store::load::<u64>(&group.engine, &keys::blob(blob)).unwrap().unwrap(),
        );
    }
    prop_assert_eq!(stored, counted);
    Ok(())
}

/// A manifest that is written beside a history, with gaps that a resync closes while the history goes on.
#[derive(Default)]
struct Manifest {
    replay: Replay,
    resync: Option<Place>,
}

impl Manifest {
    fn take(&mut self, line: &str) {
        // Twice: whoever starts anew may say again what was said.
        for _ in 0..2 {
            self.replay.take(manifest::parse(line).unwrap());
        }
    }

    fn take_all(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Manifest(entry) = effect {
                self.take(&entry.line);
            }
        }
    }

    fn begin_resync(&mut self) {
        self.replay.take(manifest::parse(&manifest::resync()).unwrap());
        self.resync = Some(Place::default());
    }

    fn step_resync(&mut self, group: &Group) {
        if let Some(place) = self.resync {
            let page = manifest::page(&group.engine, group.kind, place, 3).unwrap();
            page.lines.iter().for_each(|line| self.take(line));
            self.resync = page.next;
            if self.resync.is_none() {
                self.take(&manifest::resync_end());
            }
        }
    }

    fn compare(&self, group: &Group) -> TestCaseResult {
        let (mut mailboxes, mut messages) = (Vec::new(), Vec::new());
        for row in group.reader().all_mailboxes(None, ALL).unwrap() {
            for message in group.reader().messages(row.guid, Uid(1), ALL).unwrap() {
                let kept = Kept {
                    mailbox: row.guid,
                    uid: message.uid,
                    blob: message.blob,
                    size: message.size,
                    flags: message.flags,
                    internal_date: message.internal_date,
                };
                messages.push((row.account, message.guid, kept));
            }
            mailboxes.push((row.account, row.guid, row.name.as_str().to_owned()));
        }
        mailboxes.sort();
        messages.sort_by_key(|(account, message, _)| (*account, *message));
        let told = self
            .replay
            .mailboxes()
            .map(|(account, guid, name)| (account, guid, name.to_owned()));
        prop_assert_eq!(told.collect::<Vec<_>>(), mailboxes);
        let told = self
            .replay
            .messages()
            .map(|(account, guid, kept)| (account, guid, kept.clone()));
        prop_assert_eq!(told.collect::<Vec<_>>(), messages);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_show_what_the_model_shows(drafts in prop::collection::vec(draft(), 100..300)) {
        let mut group = Group::with_ann();
        let mut model = Model { time: START.0, ..Model::default() };
        model.apply(&MailboxOp::CreateAccount { account: ANN, inbox: INBOX, mailboxes: vec![], quota_bytes: None });
        let mut watch = Watch::default();
        for (turn, draft) in drafts.iter().enumerate() {
            group.wait(Duration::from_millis(u64::from(draft.millis)));
            model.time = group.now.0;
            let op = draft.op(&model, u16::try_from(turn).unwrap());
            let expected = model.apply(&op);
            let command = group.command(Op::Mailbox(op.clone()));
            let twin = apply(&group.engine, group.kind, &command).unwrap();
            let applied = group.run(&command);
            prop_assert_eq!(&applied, &twin);
            prop_assert_eq!(&applied.outcome, &expected, "{:?}", op);
            adopt_superiors(&group.reader(), &mut model);
            compare(&group, &model, &mut watch, 1 + turn % 5)?;
            if draft.choice < 20 {
                // The answer was lost and the op is asked for again.
                let before = group.engine.entries();
                prop_assert_eq!(group.run(&command).outcome, expected);
                prop_assert_eq!(group.engine.entries(), before);
            }
            if turn % 16 == 0 {
                prop_assert_eq!(digest::stored(&group.engine).unwrap(), digest::recomputed(&group.engine).unwrap());
                compare_blobs(&group)?;
            }
        }
        prop_assert_eq!(digest::stored(&group.engine).unwrap(), digest::recomputed(&group.engine).unwrap());
        compare_blobs(&group)?;
        // Prune lets go of everything once everything is gone.
        for account in [ANN, BOB] {
            group.ask(MailboxOp::RemoveAccount { account });
        }
        group.wait_and_tick(DELIVERY_MEMORY);
        while let Outcome::Pruned { more: true, .. } = group.ask(MailboxOp::Prune { limit: 37 }) {}
        let left: BTreeSet<u8> = group.engine.entries().keys().map(|key| key[0]).collect();
        prop_assert!(left.iter().all(|space| *space < 0x10), "{:?}", left);
        prop_assert_eq!(digest::stored(&group.engine).unwrap(), digest::recomputed(&group.engine).unwrap());
    }

    #[test]
    fn several_commands_on_an_overlay_come_to_the_same_as_one_by_one(drafts in prop::collection::vec(draft(), 1..60)) {
        let mut one_by_one = Group::with_ann();
        let together = Group::with_ann();
        let mut model = Model { time: START.0, ..Model::default() };
        model.apply(&MailboxOp::CreateAccount { account: ANN, inbox: INBOX, mailboxes: vec![], quota_bytes: None });
        let mut overlay = Overlay::new(&together.engine);
        for (turn, draft) in drafts.iter().enumerate() {
            let op = draft.op(&model, u16::try_from(turn).unwrap());
            model.apply(&op);
            let command = one_by_one.command(Op::Mailbox(op));
            let alone = one_by_one.run(&command);
            adopt_superiors(&one_by_one.reader(), &mut model);
            let applied = apply(&overlay, MachineKind::Mailbox, &command).unwrap();
            prop_assert_eq!(&alone, &applied);
            overlay.add(&applied.batch);
        }
        let batch = overlay.into_batch();
        together.engine.write(&batch).unwrap();
        prop_assert_eq!(together.engine.entries(), one_by_one.engine.entries());
    }

    #[test]
    fn a_manifest_replays_to_the_state_whatever_it_missed_before_a_resync(drafts in prop::collection::vec(draft(), 50..200)) {
        let mut group = Group::with_ann();
        let mut model = Model { time: START.0, ..Model::default() };
        model.apply(&MailboxOp::CreateAccount { account: ANN, inbox: INBOX, mailboxes: vec![], quota_bytes: None });
        let mut manifest = Manifest::default();
        manifest.begin_resync();
        let mut missing = 0;
        for (turn, draft) in drafts.iter().enumerate() {
            let op = draft.op(&model, u16::try_from(turn).unwrap());
            model.apply(&op);
            let applied = group.applied(Op::Mailbox(op));
            adopt_superiors(&group.reader(), &mut model);
            if missing > 0 {
                missing -= 1;
                if missing == 0 {
                    manifest.begin_resync();
                }
                continue;
            }
            if draft.flags % 2 == 0 {
                manifest.step_resync(&group);
            }
            manifest.take_all(&applied.effects);
            if draft.choice >= 248 {
                missing = usize::from(draft.flags) / 4;
            } else if draft.flags % 2 == 1 {
                manifest.step_resync(&group);
            }
            if missing == 0 && manifest.resync.is_none() {
                manifest.compare(&group)?;
            }
        }
        if missing > 0 {
            manifest.begin_resync();
        }
        while manifest.resync.is_some() {
            manifest.step_resync(&group);
        }
        manifest.compare(&group)?;
    }
}
