//! What one session knows of its selected mailbox: sequence numbers, and what the client is still to be told.
//!
//! Invariants (RFC 3501 7.4.1, 5.2, 5.5): a sequence number denotes the same message until an EXPUNGE was sent; the
//! number of messages announced goes down by EXPUNGE only; a message whose flags changed is told of by FETCH. UIDs
//! ascend with sequence numbers, so a message can only arrive behind all that were announced.
//! A pure value: changes in, [`Update`]s out. Its memory is bounded by the mailbox, whatever happens while the client
//! is silent, since changes of one message are one. Not here: rows, bodies, the wire ([`crate::Encoder`]).

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;

use core_types::{Flags, Keyword, MessageGuid, ModSeq, Uid};

use crate::sequence_set::SequenceSet;

/// One message as the view needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its UID.
    pub uid: Uid,
    /// Its identity, by which the store is asked for it.
    pub guid: MessageGuid,
    /// Its flags.
    pub flags: Flags,
    /// The last change's MODSEQ.
    pub modseq: ModSeq,
}

/// A message of the view.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its sequence number, from 1.
    pub sequence_number: u32,
    /// Its UID.
    pub uid: Uid,
    /// Its identity.
    pub guid: MessageGuid,
    /// The last change's MODSEQ that the view knows.
    pub modseq: ModSeq,
    /// Whether it is `\Recent` in this session.
    pub recent: bool,
    /// Whether it is expunged already, which the client does not know yet.
    pub gone: bool,
    entry: &'a Entry,
}

/// What the client is to be told, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// `* n EXPUNGE`
    Expunge(u32),
    /// `* n EXISTS`
    Exists(u32),
    /// `* n RECENT`
    Recent(u32),
    /// `* n FETCH (FLAGS (...))`, with the UID where the command asks for it.
    Fetch {
        /// Its sequence number.
        sequence_number: u32,
        /// Its UID.
        uid: Uid,
        /// Its flags now.
        flags: Flags,
        /// Whether it is `\Recent` in this session.
        recent: bool,
        /// The last change's MODSEQ.
        modseq: ModSeq,
    },
}

/// Why a change cannot be shown to this client. The session has to end, and the client selects the mailbox anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewError {
    /// A message came with a UID below one that was announced.
    OutOfOrder(Uid),
    /// Another message has this UID (rule U1).
    OtherMessage(Uid),
    /// More messages than sequence numbers.
    TooMany,
}

/// A sequence number that denotes no message: BAD (RFC 3501 9 `seq-number`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchMessage;

/// One session's view. Cost: some 40 octets for each message, and its keywords.
#[derive(Clone, Debug)]
pub struct SessionView {
    entries: Vec<Entry>,
    /// Messages that the client knows of: `entries[..announced]`.
    announced: usize,
    /// Messages from here on are `\Recent` in this session.
    recent_from: Uid,
    /// Announced messages that are expunged, not yet told.
    gone: BTreeSet<Uid>,
    /// Announced messages whose flags changed, not yet told.
    changed: BTreeSet<Uid>,
    highest_modseq: ModSeq,
}

#[derive(Clone, Debug)]
struct Entry {
    uid: Uid,
    guid: MessageGuid,
    modseq: ModSeq,
    system: u8,
    #[expect(
        clippy::box_collection,
        reason = "most messages have none, and a pointer is a third of a set's size"
    )]
    keywords: Option<Box<BTreeSet<Keyword>>>,
}

impl SessionView {
    /// The mailbox as SELECT finds it, all of it announced by SELECT's own EXISTS. Messages from `recent_from` on are
    /// `\Recent` in this session; pass [`NEVER_RECENT`] for none. The messages may come in any order.
    ///
    /// # Errors
    /// [`ViewError`] when two have one UID, or there are too many.
    pub fn new(messages: impl IntoIterator<Item = Message>, recent_from: Uid) -> Result<Self, ViewError> {
        let mut highest_modseq = ModSeq(0);
        let mut entries = Vec::new();
        for message in messages {
            highest_modseq = highest_modseq.max(message.modseq);
            entries.push(Entry::of(message));
        }
        entries.sort_unstable_by_key(|entry| entry.uid);
        if let Some((first, _)) = entries.iter().zip(entries.iter().skip(1)).find(|(a, b)| a.uid == b.uid) {
            return Err(ViewError::OtherMessage(first.uid));
        }
        u32::try_from(entries.len()).map_err(|_| ViewError::TooMany)?;
        let announced = entries.len();
        let (gone, changed) = (BTreeSet::new(), BTreeSet::new());
        Ok(Self {
            entries,
            announced,
            recent_from,
            gone,
            changed,
            highest_modseq,
        })
    }

    /// Messages that the client knows of: its EXISTS.
    #[must_use]
    pub fn exists(&self) -> u32 {
        u32::try_from(self.announced).unwrap_or(u32::MAX)
    }

    /// Those of them that are `\Recent` in this session.
    #[must_use]
    pub fn recent(&self) -> u32 {
        let first = self
            .announced_entries()
            .partition_point(|entry| entry.uid < self.recent_from);
        u32::try_from(self.announced - first).unwrap_or(u32::MAX)
    }

    /// The sequence number of the first message without `\Seen`.
    #[must_use]
    pub fn first_unseen(&self) -> Option<u32> {
        let at = self
            .announced_entries()
            .iter()
            .position(|entry| entry.system & Flags::SEEN == 0)?;
        u32::try_from(at + 1).ok()
    }

    /// The highest MODSEQ of any change that the view knows; changes above it are news.
    #[must_use]
    pub fn highest_modseq(&self) -> ModSeq {
        self.highest_modseq
    }

    /// The view has seen all changes up to here, also those that left no trace in it.
    pub fn advance_modseq(&mut self, modseq: ModSeq) {
        self.highest_modseq = self.highest_modseq.max(modseq);
    }

    /// Whether there is anything to tell, if EXPUNGE is allowed.
    #[must_use]
    pub fn has_updates(&self) -> bool {
        self.announced < self.entries.len() || !self.gone.is_empty() || !self.changed.is_empty()
    }

    /// A message came, or its flags changed. An older state than the one known is ignored.
    ///
    /// # Errors
    /// [`ViewError`]: the session has to end.
    pub fn handle_message(&mut self, message: Message) -> Result<(), ViewError> {
        self.update(message, true)
    }

    /// As [`SessionView::handle_message`] for a change that this client made and need not be told of (STORE with
    /// `.SILENT`, or what a FETCH response told it already). A change by others that is still to be told stays so.
    ///
    /// # Errors
    /// [`ViewError`]: the session has to end.
    pub fn handle_own_change(&mut self, message: Message) -> Result<(), ViewError> {
        self.update(message, false)
    }

    /// A message left the mailbox. Its number stays taken until the client may be told.
    pub fn handle_vanished(&mut self, uid: Uid, modseq: ModSeq) {
        self.advance_modseq(modseq);
        let Ok(at) = self.position(uid) else { return };
        if at < self.announced {
            self.changed.remove(&uid);
            self.gone.insert(uid);
        } else {
            self.entries.remove(at);
        }
    }

    /// What the client is to be told now; it counts as told. `expunge`: whether EXPUNGE is allowed, which it is not
    /// during FETCH, STORE and SEARCH nor without a command under way (RFC 3501 7.4.1; during IDLE it is, RFC 2177).
    pub fn take_updates(&mut self, expunge: bool) -> Vec<Update> {
        let mut updates = Vec::new();
        if expunge && !self.gone.is_empty() {
            self.take_expunges(&mut updates);
        }
        if self.announced < self.entries.len() {
            let recent_before = self.recent();
            self.announced = self.entries.len();
            updates.push(Update::Exists(self.exists()));
            if self.recent() != recent_before {
                updates.push(Update::Recent(self.recent()));
            }
        }
        for uid in std::mem::take(&mut self.changed) {
            if let Some(shown) = self.by_uid(uid) {
                updates.push(Update::Fetch {
                    sequence_number: shown.sequence_number,
                    uid,
                    flags: shown.flags(),
                    recent: shown.recent,
                    modseq: shown.modseq,
                });
            }
        }
        updates
    }

    /// The message with this sequence number.
    #[must_use]
    pub fn by_sequence_number(&self, sequence_number: u32) -> Option<Shown<'_>> {
        let at = usize::try_from(sequence_number).ok()?.checked_sub(1)?;
        self.shown(at)
    }

    /// The announced message with this UID.
    #[must_use]
    pub fn by_uid(&self, uid: Uid) -> Option<Shown<'_>> {
        self.shown(self.position(uid).ok()?)
    }

    /// All messages that the client knows of, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Shown<'_>> {
        (0..self.announced).filter_map(|at| self.shown(at))
    }

    /// The messages that a command's set names, ascending, as ranges of sequence numbers, and so bounded by what
    /// exists. UIDs that denote no message are passed over (RFC 3501 6.4.8).
    ///
    /// # Errors
    /// [`NoSuchMessage`] for a sequence number that denotes none, and for `*` in an empty mailbox.
    pub fn select(&self, set: &SequenceSet, uid: bool) -> Result<Vec<Range<u32>>, NoSuchMessage> {
        if uid {
            return Ok(self.select_uids(set));
        }
        let exists = self.exists();
        if set.largest_number().is_some_and(|largest| largest > exists) || (set.has_star() && exists == 0) {
            return Err(NoSuchMessage);
        }
        let largest = (exists > 0).then_some(exists);
        Ok(set
            .resolve(largest)
            .into_iter()
            .map(|range| *range.start()..range.end().saturating_add(1))
            .collect())
    }

    fn select_uids(&self, set: &SequenceSet) -> Vec<Range<u32>> {
        let entries = self.announced_entries();
        let largest = entries.last().map(|entry| entry.uid.0);
        let mut selected = Vec::new();
        for range in set.resolve(largest) {
            let first = entries.partition_point(|entry| entry.uid.0 < *range.start());
            let end = entries.partition_point(|entry| entry.uid.0 <= *range.end());
            let number = |at: usize| u32::try_from(at + 1).unwrap_or(u32::MAX);
            if first < end {
                selected.push(number(first)..number(end));
            }
            // The set's other ranges lie behind all messages.
            if end == entries.len() {
                break;
            }
        }
        selected
    }

    fn update(&mut self, message: Message, tell: bool) -> Result<(), ViewError> {
        self.advance_modseq(message.modseq);
        let uid = message.uid;
        match self.position(uid) {
            Ok(at) => {
                let announced = at < self.announced;
                let Some(entry) = self.entries.get_mut(at) else {
                    return Ok(());
                };
                if entry.guid != message.guid {
                    return Err(ViewError::OtherMessage(uid));
                }
                if message.modseq < entry.modseq {
                    return Ok(());
                }
                let new = Entry::of(message);
                let differs = new.system != entry.system || new.keywords != entry.keywords;
                *entry = new;
                if tell && differs && announced && !self.gone.contains(&uid) {
                    self.changed.insert(uid);
                }
            }
            Err(at) if at < self.announced => return Err(ViewError::OutOfOrder(uid)),
            Err(_) if u32::try_from(self.entries.len() + 1).is_err() => return Err(ViewError::TooMany),
            Err(at) => self.entries.insert(at, Entry::of(message)),
        }
        Ok(())
    }

    /// From the highest number to the lowest, so that none of them changes another.
    fn take_expunges(&mut self, updates: &mut Vec<Update>) {
        let gone = std::mem::take(&mut self.gone);
        for &uid in gone.iter().rev() {
            if let Ok(at) = self.position(uid) {
                updates.push(Update::Expunge(u32::try_from(at + 1).unwrap_or(u32::MAX)));
            }
        }
        self.announced -= updates.len();
        self.entries.retain(|entry| !gone.contains(&entry.uid));
    }

    fn announced_entries(&self) -> &[Entry] {
        self.entries.get(..self.announced).unwrap_or(&self.entries)
    }

    fn position(&self, uid: Uid) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&uid, |entry| entry.uid)
    }

    fn shown(&self, at: usize) -> Option<Shown<'_>> {
        let entry = self.announced_entries().get(at)?;
        Some(Shown {
            sequence_number: u32::try_from(at + 1).ok()?,
            uid: entry.uid,
            guid: entry.guid,
            modseq: entry.modseq,
            recent: entry.uid >= self.recent_from,
            gone: self.gone.contains(&entry.uid),
            entry,
        })
    }
}

impl Shown<'_> {
    /// Its flags as the view knows them.
    #[must_use]
    pub fn flags(&self) -> Flags {
        Flags {
            system: self.entry.system,
            keywords: self.entry.keywords.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// Whether all of these system flags are set; see [`Flags`] for the bits.
    #[must_use]
    pub fn has(&self, bits: u8) -> bool {
        self.entry.system & bits == bits
    }

    /// Whether this keyword is set.
    #[must_use]
    pub fn has_keyword(&self, keyword: &Keyword) -> bool {
        self.entry
            .keywords
            .as_ref()
            .is_some_and(|keywords| keywords.contains(keyword))
    }
}

impl Entry {
    fn of(message: Message) -> Self {
        let Message {
            uid,
            guid,
            flags,
            modseq,
        } = message;
        let keywords = (!flags.keywords.is_empty()).then(|| Box::new(flags.keywords));
        Self {
            uid,
            guid,
            modseq,
            system: flags.system,
            keywords,
        }
    }
}

/// For [`SessionView::new`]: no message is `\Recent`, since no message has a UID of 2^32 - 1 and one that had would do
/// no harm.
pub const NEVER_RECENT: Uid = Uid(u32::MAX);
