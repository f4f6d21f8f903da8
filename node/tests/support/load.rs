//! What clients of three nodes do at the same time, what they were told, and whether it holds afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blobstore::{Compared, Repair, RepairReport};
use core_types::{BlobId, Entropy, Flags, GroupId, MailboxGuid, MessageGuid, NodeId, Uid, UidValidity};
use directory::Account;
use mailstore::{DeliverTo, Delivered, EnvelopeFrom, StoreError};
use platform::SeededEntropy;
use state::command::FlagChange;
use state::rows::MessageRow;

use super::disk::{Event, Trace};
use super::site::{INLINE_BYTES_MAX, MAILBOX_GROUPS, NODES, Running, Site};

/// Where a client was told that a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) mailbox: MailboxGuid,
    pub(crate) uid_validity: UidValidity,
    pub(crate) uid: Uid,
}

/// One message for one account, as the client that sent it knows it.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) account: usize,
    pub(crate) blob: BlobId,
    pub(crate) bytes: Arc<Vec<u8>>,
    /// Whether it was said to be in the mailbox.
    pub(crate) is_placed: bool,
    /// Whether it was said to be in the queue.
    pub(crate) is_queued: bool,
    pub(crate) guid: Option<MessageGuid>,
    pub(crate) place: Option<Place>,
    /// Whether it has `\Flagged`; `None` when the last change's outcome is not known.
    pub(crate) is_flagged: Option<bool>,
}

/// What all clients know.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Vec<Sent>>>);

impl Ledger {
    pub(crate) fn acknowledged(&self) -> usize {
        let sent = self.0.lock().unwrap();
        sent.iter().filter(|sent| sent.is_placed || sent.is_queued).count()
    }

    pub(crate) fn flag_changes(&self) -> usize {
        let sent = self.0.lock().unwrap();
        sent.iter().filter(|sent| sent.is_flagged == Some(true)).count()
    }

    fn change<T>(&self, index: usize, change: impl FnOnce(&mut Sent) -> T) -> T {
        change(&mut self.0.lock().unwrap()[index])
    }
}

/// One client of one node. It believes what it is told while the node has power, and nothing afterwards.
pub(crate) struct Client {
    pub(crate) running: Running,
    pub(crate) accounts: Vec<Account>,
    pub(crate) ledger: Ledger,
    pub(crate) entropy: SeededEntropy,
    pub(crate) trace: Option<Trace>,
}

impl Client {
    fn below(&self, bound: usize) -> usize {
        let entropy: &dyn Entropy = &self.entropy;
        usize::try_from(entropy.below(bound as u64)).unwrap()
    }

    /// Until it is aborted, or for this many steps.
    pub(crate) async fn work(self, steps: usize) {
        let mut mine = Vec::new();
        for _ in 0..steps {
            match self.below(10) {
                0..=3 => mine.extend(self.deliver(1).await),
                4 => mine.extend(self.deliver(2).await),
                5..=6 => mine.extend(self.append().await),
                _ if mine.is_empty() => {}
                _ => self.flag(mine[self.below(mine.len())]).await,
            }
            tokio::time::sleep(Duration::from_millis(self.below(10) as u64)).await;
        }
    }

    fn message(&self) -> Arc<Vec<u8>> {
        let entropy: &dyn Entropy = &self.entropy;
        let id: [u8; 16] = entropy.bytes();
        let mut bytes = format!("From: a@example.test\r\nSubject: {}\r\n\r\n", MessageGuid(id)).into_bytes();
        // Some are too large for the blob journal, and do not compress.
        let length = if self.below(8) == 0 {
            INLINE_BYTES_MAX + self.below(30_000)
        } else {
            self.below(2000)
        };
        let mut noise = vec![0; length];
        entropy.fill(&mut noise);
        for piece in noise.chunks(60) {
            bytes.extend(piece.iter().map(|byte| b'0' + byte % 64));
            bytes.extend_from_slice(b"\r\n");
        }
        Arc::new(bytes)
    }

    async fn ingest(&self, bytes: &[u8]) -> Result<mailstore::Ingested, StoreError> {
        let mut ingest = self.running.store.ingest();
        ingest.write(bytes).await?;
        self.running.store.finish_ingest(ingest).await
    }

    fn enter(&self, account: usize, blob: BlobId, bytes: &Arc<Vec<u8>>) -> usize {
        let mut sent = self.ledger.0.lock().unwrap();
        sent.push(Sent {
            account,
            blob,
            bytes: Arc::clone(bytes),
            is_placed: false,
            is_queued: false,
            guid: None,
            place: None,
            is_flagged: Some(false),
        });
        sent.len() - 1
    }

    async fn deliver(&self, accounts: usize) -> Vec<usize> {
        let bytes = self.message();
        let Ok(message) = self.ingest(&bytes).await else {
            return Vec::new();
        };
        let first = self.below(self.accounts.len());
        let chosen: Vec<usize> = (0..accounts).map(|next| (first + next) % self.accounts.len()).collect();
        let entries: Vec<usize> = chosen
            .iter()
            .map(|account| self.enter(*account, message.blob(), &bytes))
            .collect();
        let to: Vec<DeliverTo> = chosen
            .iter()
            .map(|account| DeliverTo {
                address: self.accounts[*account].address.clone(),
                accounts: vec![self.accounts[*account].clone()],
                notify: 0,
                original: None,
            })
            .collect();
        let results = self
            .running
            .store
            .deliver(&message, &EnvelopeFrom::default(), &to, false)
            .await;
        if !self.running.is_on() {
            return Vec::new();
        }
        let mut placed = Vec::new();
        for ((entry, account), result) in entries.iter().zip(&chosen).zip(results) {
            match result {
                Ok(Delivered::Placed(guids)) => {
                    self.acknowledge(*entry, guids[0], message.blob());
                    let account = self.running.store.account(&self.accounts[*account]);
                    if let Some(place) = self.place_of(&account, guids[0]).await {
                        self.ledger.change(*entry, |sent| sent.place = Some(place));
                    }
                    placed.push(*entry);
                }
                Ok(Delivered::Queued(_)) => self.ledger.change(*entry, |sent| sent.is_queued = true),
                Err(_) => {}
            }
        }
        placed
    }

    fn acknowledge(&self, entry: usize, guid: MessageGuid, blob: BlobId) {
        if let Some(trace) = &self.trace {
            trace.note(self.running.node, Event::Acked { guid: guid.0, blob });
        }
        self.ledger.change(entry, |sent| {
            sent.is_placed = true;
            sent.guid = Some(guid);
        });
    }

    async fn place_of(&self, account: &mailstore::AccountMail, guid: MessageGuid) -> Option<Place> {
        let (mailbox, row) = account.message_by_guid(guid).await.ok()??;
        let uid_validity = account.mailbox(mailbox).await.ok()??.uid_validity;
        self.running.is_on().then_some(Place {
            mailbox,
            uid_validity,
            uid: row.uid,
        })
    }

    async fn append(&self) -> Option<usize> {
        let bytes = self.message();
        let message = self.ingest(&bytes).await.ok()?;
        let index = self.below(self.accounts.len());
        let account = self.running.store.account(&self.accounts[index]);
        let mailboxes = account.mailboxes().await.ok()?;
        let mailbox = mailboxes.get(self.below(mailboxes.len()))?.guid;
        let entry = self.enter(index, message.blob(), &bytes);
        let flags = Flags::system(Flags::SEEN);
        let placed = account.append(mailbox, &message, flags, None).await;
        if !self.running.is_on() {
            return None;
        }
        let placed = placed.ok()?;
        assert!(!placed.repeated);
        let place = Place {
            mailbox: placed.mailbox,
            uid_validity: placed.uid_validity,
            uid: placed.uid,
        };
        let row = account
            .messages(place.mailbox, place.uid, 1)
            .await
            .ok()?
            .into_iter()
            .next();
        self.ledger.change(entry, |sent| {
            sent.is_placed = true;
            sent.place = Some(place);
            sent.guid = row.filter(|row| row.uid == place.uid).map(|row| row.guid);
        });
        Some(entry)
    }

    async fn flag(&self, entry: usize) {
        let (known, account) = self
            .ledger
            .change(entry, |sent| ((sent.guid, sent.place, sent.is_flagged), sent.account));
        let (Some(guid), Some(place), Some(is_flagged)) = known else {
            return;
        };
        // Not known until it is answered.
        self.ledger.change(entry, |sent| sent.is_flagged = None);
        let change = if is_flagged {
            FlagChange::Remove
        } else {
            FlagChange::Add
        };
        let account = self.running.store.account(&self.accounts[account]);
        let stored = account
            .store_flags(place.mailbox, &[guid], change, &Flags::system(Flags::FLAGGED))
            .await;
        if stored.is_ok_and(|stored| stored.missing.is_empty()) && self.running.is_on() {
            self.ledger.change(entry, |sent| sent.is_flagged = Some(!is_flagged));
        }
    }
}

/// Waits until all replicas have applied everything, and returns when their states are equal.
pub(crate) async fn settle(site: &Site) {
    for group in 0..=MAILBOX_GROUPS {
        let group = GroupId(group);
        let replica = |node: u64| site.running[&node].groups.group(group).unwrap();
        let mut statuses = Vec::new();
        let mut is_settled = false;
        for _ in 0..300 {
            for node in 1..=NODES {
                let _ = replica(node).read_barrier(Duration::from_secs(1)).await;
            }
            statuses = (1..=NODES).map(|node| replica(node).status()).collect();
            is_settled = statuses.iter().any(|status| status.leader.is_some())
                && statuses.iter().all(|status| {
                    status.applied.is_some()
                        && status.applied == statuses[0].applied
                        && status.applied == status.last_log
                });
            if is_settled {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(is_settled, "seed {}: {statuses:#?}", site.seed);
        let mut digests = Vec::new();
        for node in 1..=NODES {
            replica(node)
                .read(&mut |view| {
                    digests.push(state::digest::stored(view).unwrap());
                    digests.push(state::digest::recomputed(view).unwrap());
                })
                .await
                .unwrap();
        }
        assert!(
            digests.iter().all(|digest| *digest == digests[0]),
            "seed {}: {group}: {digests:?}",
            site.seed
        );
    }
}

/// Repairs what was lost while copies were made, and returns when every voter has every blob.
pub(crate) async fn repair(site: &Site) {
    let voters = site.running.values().map(|running| running.node).collect();
    for is_last in [false, true] {
        for running in site.running.values() {
            for group in 1..=MAILBOX_GROUPS {
                let report = repair_group(running, GroupId(group), &voters).await;
                let context = format!("seed {}: group {group} at {}", site.seed, running.node);
                assert_eq!(report.missing, 0, "{context}");
                assert!(!is_last || report == RepairReport::default(), "{context}: {report:?}");
            }
        }
    }
}

/// Fetches what one node lacks of one group, and compares everything with the others.
pub(crate) async fn repair_group(running: &Running, group: GroupId, voters: &BTreeSet<NodeId>) -> RepairReport {
    let references = mailstore::references_of(running.store.groups())(group);
    let mut repair = Repair::new(running.blobs.clone(), Arc::clone(&running.rpc), group);
    repair.set_members(voters, &BTreeSet::new());
    while repair.compare(references.as_ref()).await.unwrap() != Compared::End {}
    repair.mend(references.as_ref()).await.unwrap();
    repair.report()
}

/// Everything that a client was told holds on every node.
pub(crate) async fn verify(site: &Site, ledger: &Ledger) {
    settle(site).await;
    repair(site).await;
    for running in site.running.values() {
        verify_node(site, running, ledger).await;
    }
}

async fn verify_node(site: &Site, running: &Running, ledger: &Ledger) {
    let context = format!("seed {}, node {}", site.seed, running.node);
    running.blobs.flush().await.unwrap();
    let mut found: BTreeMap<(usize, BlobId), Vec<(Place, MessageRow)>> = BTreeMap::new();
    let mut queued: BTreeMap<BlobId, usize> = BTreeMap::new();
    for (index, account) in site.accounts.iter().enumerate() {
        let account = running.store.account(account);
        for mailbox in account.mailboxes().await.unwrap() {
            let rows = account.messages(mailbox.guid, Uid(1), usize::MAX).await.unwrap();
            assert!(rows.windows(2).all(|pair| pair[0].uid < pair[1].uid), "{context}");
            assert!(rows.iter().all(|row| row.uid < mailbox.uid_next), "{context}");
            for row in rows {
                let place = Place {
                    mailbox: mailbox.guid,
                    uid_validity: mailbox.uid_validity,
                    uid: row.uid,
                };
                found.entry((index, row.blob)).or_default().push((place, row));
            }
        }
    }
    for group in 1..=MAILBOX_GROUPS {
        let entries = running
            .store
            .groups()
            .query(GroupId(group), |view| {
                state::mailbox::Reader::new(view).queue(None, usize::MAX)
            })
            .await
            .unwrap();
        for entry in entries {
            *queued.entry(entry.blob).or_default() += 1;
        }
    }
    let sent = std::mem::take(&mut *ledger.0.lock().unwrap());
    for sent in &sent {
        let rows = found.remove(&(sent.account, sent.blob)).unwrap_or_default();
        assert!(rows.len() <= 1, "{context}: twice: {sent:?} {rows:?}");
        if sent.is_placed {
            assert_eq!(rows.len(), 1, "{context}: lost: {:?} {:?}", sent.guid, sent.place);
        }
        if sent.is_queued {
            assert!(
                rows.len() + queued.get(&sent.blob).copied().unwrap_or(0) >= 1,
                "{context}: lost from the queue"
            );
        }
        let Some((place, row)) = rows.first() else { continue };
        assert!(
            sent.place.is_none_or(|told| told == *place),
            "{context}: {:?} is at {place:?}",
            sent.place
        );
        if let Some(is_flagged) = sent.is_flagged.filter(|_| sent.is_placed) {
            assert_eq!(row.flags.has(Flags::FLAGGED), is_flagged, "{context}: {place:?}");
        }
        running
            .blobs
            .verify(sent.blob)
            .await
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        let reader = running.blobs.open_blob(sent.blob).await.unwrap();
        let bytes = reader.read(0..reader.len(), 1 << 20).await.unwrap();
        assert!(bytes == **sent.bytes, "{context}: the bytes of {place:?} differ");
    }
    *ledger.0.lock().unwrap() = sent;
    assert!(found.is_empty(), "{context}: messages that nobody sent: {found:?}");
}
