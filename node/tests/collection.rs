//! Two months of three nodes, in a few seconds: what is delivered, copied, expunged and given up half-way comes and goes, and
//! collection takes what nothing refers to, and nothing else.
//!
//! The nodes are of the real parts (`support/site.rs`); what they do by themselves is done here, less often: pruning, repair
//! and collection. One node is cut off on some days, another loses its power.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]
#![allow(dead_code, reason = "the support is shared with tests that use more of it")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/load.rs"]
mod load;
#[path = "support/site.rs"]
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use blobstore::CollectReport;
use core_types::limits::BLOB_GRACE;
use core_types::{BlobId, Entropy, GroupId, MailboxGuid, MailboxName, MessageGuid, NodeId};
use mailstore::{DeliverTo, Delivered, EnvelopeFrom};
use platform::SeededEntropy;
use site::{MAILBOX_GROUPS, NODES, Pace, Running, Site};
use state::{MailboxOp, Outcome};
use tokio::time::Instant;

const DAYS: u64 = 60;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Nodes that are away while mail comes in, on these days. Only for minutes: who leads tries to reach them all the time.
const CUT_OFF: (u64, std::ops::Range<u64>) = (3, 20..25);
const WITHOUT_POWER: (u64, std::ops::Range<u64>) = (2, 40..42);

/// A message that is in a mailbox.
struct Live {
    account: usize,
    mailbox: MailboxGuid,
    guid: MessageGuid,
    blob: BlobId,
}

struct Weeks {
    site: Site,
    entropy: SeededEntropy,
    archives: Vec<MailboxGuid>,
    live: Vec<Live>,
    /// Each blob that was in a mailbox, and when it was there last.
    last_seen: BTreeMap<BlobId, u64>,
    /// Blobs that were stored and never referred to.
    orphans: BTreeMap<BlobId, u64>,
    texts: u64,
    collected: u64,
    day: u64,
}

impl Weeks {
    async fn begin(seed: u64) -> Self {
        let site = Site::start_at(Pace::Weeks, seed, Duration::ZERO, None).await;
        let mut archives = Vec::new();
        for account in &site.accounts {
            let mail = site.running[&1].store.account(account);
            archives.push(mail.create(MailboxName::parse("Old").unwrap(), None).await.unwrap());
        }
        Self {
            site,
            entropy: SeededEntropy::new(seed),
            archives,
            live: Vec::new(),
            last_seen: BTreeMap::new(),
            orphans: BTreeMap::new(),
            texts: 0,
            collected: 0,
            day: 0,
        }
    }

    fn below(&self, bound: usize) -> usize {
        let entropy: &dyn Entropy = &self.entropy;
        usize::try_from(entropy.below(bound as u64)).unwrap()
    }

    /// A node that has power and the others.
    fn any(&self) -> Running {
        let is_cut = |node: u64| node == CUT_OFF.0 && CUT_OFF.1.contains(&self.day);
        let up: Vec<&Running> = self
            .site
            .running
            .iter()
            .filter(|(node, _)| !is_cut(**node))
            .map(|(_, up)| up)
            .collect();
        up[self.below(up.len())].clone()
    }

    /// New words, or, now and then, those of an earlier message.
    fn text(&mut self) -> Vec<u8> {
        let number = if self.texts > 0 && self.below(5) == 0 {
            self.below(usize::try_from(self.texts).unwrap()) as u64
        } else {
            self.texts += 1;
            self.texts
        };
        let large = if number.is_multiple_of(9) { 20_000 } else { 100 };
        format!("Subject: {number}\r\n\r\n{}", "x".repeat(large)).into_bytes()
    }

    async fn deliver(&mut self) {
        let running = self.any();
        let mut ingest = running.store.ingest();
        ingest.write(&self.text()).await.unwrap();
        let message = running.store.finish_ingest(ingest).await.unwrap();
        let first = self.below(self.site.accounts.len());
        let chosen = [first, (first + 1) % self.site.accounts.len()];
        let to: Vec<DeliverTo> = chosen[..=self.below(2)]
            .iter()
            .map(|account| &self.site.accounts[*account])
            .map(|account| DeliverTo {
                address: account.address.clone(),
                accounts: vec![account.clone()],
                notify: 0,
                original: None,
            })
            .collect();
        let results = running
            .store
            .deliver(&message, &EnvelopeFrom::default(), &to, false)
            .await;
        // All replicas apply it meanwhile.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (account, result) in chosen.into_iter().zip(results) {
            let Ok(Delivered::Placed(guids)) = result else {
                panic!("day {}: {result:?}", self.day)
            };
            let mail = running.store.account(&self.site.accounts[account]);
            let (mailbox, row) = mail.message_by_guid(guids[0]).await.unwrap().unwrap();
            self.orphans.remove(&row.blob);
            self.live.push(Live {
                account,
                mailbox,
                guid: row.guid,
                blob: row.blob,
            });
        }
    }

    /// A message of which no op is ever made.
    async fn give_up(&mut self) {
        let running = self.any();
        let mut ingest = running.store.ingest();
        self.texts += 1;
        ingest
            .write(format!("Subject: {}\r\n\r\n", self.texts).as_bytes())
            .await
            .unwrap();
        running.store.finish_ingest(ingest).await.unwrap();
        let mut writer = running.blobs.writer();
        writer
            .write(format!("Subject: {}\r\n\r\nhalf-way", self.texts).as_bytes())
            .await
            .unwrap();
        let sealed = writer.finish().await.unwrap();
        running.blobs.put(&sealed).await.unwrap();
        self.orphans.insert(sealed.id(), self.day);
    }

    async fn expunge(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let gone = self.live.swap_remove(self.below(self.live.len()));
        let mail = self.any().store.account(&self.site.accounts[gone.account]);
        mail.expunge(gone.mailbox, &[gone.guid], false).await.unwrap();
        self.last_seen.insert(gone.blob, self.day);
    }

    async fn copy(&mut self) {
        if self.live.is_empty() {
            return;
        }
        let Live {
            account, mailbox, guid, ..
        } = self.live[self.below(self.live.len())];
        let to = self.archives[account];
        let mail = self.any().store.account(&self.site.accounts[account]);
        if mailbox != to {
            mail.copy(mailbox, to, vec![guid]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let known: BTreeSet<MessageGuid> = self.live.iter().map(|live| live.guid).collect();
            for row in mail.messages(to, core_types::Uid(1), usize::MAX).await.unwrap() {
                if !known.contains(&row.guid) {
                    self.live.push(Live {
                        account,
                        mailbox: to,
                        guid: row.guid,
                        blob: row.blob,
                    });
                }
            }
        }
    }

    async fn prune(&self) {
        for group in (1..=MAILBOX_GROUPS).map(GroupId) {
            let op = || MailboxOp::Prune { limit: 1000 };
            while let Outcome::Pruned { more: true, .. } = self.any().store.propose(group, op()).await.unwrap() {}
        }
    }

    /// As the node does it: only while every group is open, without alarm, and as new as the majority.
    async fn collect(&mut self, cut_off: u64) {
        for running in self.site.running.values() {
            let mut is_permitted = true;
            for group in running.groups.list() {
                let status = group.status();
                is_permitted &= status.closed.is_none() && status.alarm.is_none();
                is_permitted &= group.read_barrier(Duration::from_secs(5)).await.is_ok();
            }
            let asked = (1..=MAILBOX_GROUPS).map(GroupId).collect();
            let is_referenced = mailstore::is_referenced(running.store.groups(), asked);
            let CollectReport { removed, held, .. } =
                running.blobs.collect_pass(is_referenced, is_permitted).await.unwrap();
            assert!(held || is_permitted);
            assert_eq!(is_permitted, running.node.0 != cut_off, "day {}", self.day);
            self.collected += removed;
        }
    }

    async fn repair(&self) {
        let voters: BTreeSet<NodeId> = (1..=NODES).map(NodeId).collect();
        for running in self.site.running.values() {
            for group in (1..=MAILBOX_GROUPS).map(GroupId) {
                load::repair_group(running, group, &voters).await;
            }
        }
    }

    /// An election takes more than a day here.
    async fn hand_over(&self, node: u64) {
        for group in self.site.running[&node].groups.list() {
            if group.is_leader() {
                group.transfer_leader(NodeId(1)).await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
    }

    async fn live_a_day(&mut self) {
        let began = Instant::now();
        let is_cut_off = CUT_OFF.1.contains(&self.day);
        let has_no_power = WITHOUT_POWER.1.contains(&self.day);
        if is_cut_off {
            self.hand_over(CUT_OFF.0).await;
            self.site.net.cut_off(CUT_OFF.0);
        }
        if has_no_power {
            self.hand_over(WITHOUT_POWER.0).await;
            let entropy: &dyn Entropy = &self.entropy;
            self.site.lose_power(&[WITHOUT_POWER.0], entropy).await;
        }
        for _ in 0..2 {
            self.deliver().await;
            // The number of messages comes to rest.
            for _ in 0..self.below(2 + self.live.len() / 20) {
                self.expunge().await;
            }
        }
        match self.day % 4 {
            0 => self.copy().await,
            1 => self.give_up().await,
            2 => self.prune().await,
            _ => {}
        }
        if is_cut_off {
            self.collect(CUT_OFF.0).await;
            self.site.net.heal();
        }
        if has_no_power {
            self.site.boot(WITHOUT_POWER.0).await;
        }
        if is_cut_off || has_no_power {
            tokio::time::sleep(DAY / 2).await;
            self.repair().await;
        }
        // What is marked today goes tomorrow.
        tokio::time::sleep(BLOB_GRACE).await;
        self.collect(0).await;
        for live in &self.live {
            self.last_seen.insert(live.blob, self.day);
        }
        tokio::time::sleep_until(began + DAY).await;
        self.day += 1;
    }

    /// What a node has, against what its groups refer to, and both against what was done.
    async fn verify(&self) {
        let live: BTreeSet<BlobId> = self.live.iter().map(|live| live.blob).collect();
        for running in self.site.running.values() {
            running.blobs.flush().await.unwrap();
            let mut referenced = BTreeSet::new();
            for group in (1..=MAILBOX_GROUPS).map(GroupId) {
                let all = running.store.groups().query(group, |view| {
                    state::mailbox::Reader::new(view).all_blobs(None, usize::MAX)
                });
                referenced.extend(all.await.unwrap());
            }
            let mut there = BTreeSet::new();
            let mut walk = running.blobs.walk();
            while let Some(ids) = walk.next().await.unwrap() {
                there.extend(ids);
            }
            let node = running.node;
            let lost: Vec<_> = referenced.difference(&there).collect();
            assert!(lost.is_empty(), "{node}: referred to and not there: {lost:?}");
            let orphans: Vec<_> = there.difference(&referenced).collect();
            assert!(orphans.is_empty(), "{node}: there and not referred to: {orphans:?}");
            assert!(live.is_subset(&there), "{node}");
            for id in &there {
                running.blobs.verify(*id).await.unwrap();
            }
            // Expunged messages are kept for thirty days, and pruned once a day.
            for (blob, day) in &self.last_seen {
                let age = self.day - day;
                let is_there = there.contains(blob);
                assert!(is_there || age >= 30, "{node}: {blob} went after {age} days");
                assert!(
                    !is_there || age <= 31 || live.contains(blob),
                    "{node}: {blob} is kept for {age} days"
                );
            }
            assert!(self.orphans.keys().all(|orphan| !there.contains(orphan)), "{node}");
        }
    }
}

async fn two_months(seed: u64) {
    let mut weeks = Weeks::begin(seed).await;
    while weeks.day < DAYS {
        weeks.live_a_day().await;
    }
    weeks.prune().await;
    for _ in 0..2 {
        weeks.collect(0).await;
        tokio::time::sleep(BLOB_GRACE + Duration::from_secs(60)).await;
    }
    weeks.collect(0).await;
    weeks.verify().await;
    assert!(weeks.collected > 60, "{} collected", weeks.collected);
    let expunged = weeks.last_seen.len();
    assert!(
        expunged > 100 && weeks.live.len() > 10,
        "{expunged}, {}",
        weeks.live.len()
    );
}

#[test]
fn after_two_months_nothing_is_missing_and_nothing_is_left_over() {
    let seed = std::env::var("COLLECTION_SEED").map_or(1, |seed| seed.parse().unwrap());
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(two_months(seed));
}
