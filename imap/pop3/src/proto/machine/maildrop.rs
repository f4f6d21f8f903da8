//! The maildrop of a session: what the server gave at login, and which messages are marked as deleted.
//!
//! Neither new mail nor another session changes it (RFC 1939 3). Messages count from 1 for the client, from 0 here.

use core_types::MessageGuid;

use super::Entry;

#[derive(Debug)]
pub(super) struct Maildrop {
    entries: Vec<(Entry, Mark)>,
    count: usize,
    size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    None,
    Deleted,
}

/// A LIST or UIDL without argument that is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    pub(super) kind: Kind,
    /// The next message, from 0.
    pub(super) next: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Uidl,
}

impl Maildrop {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        let size = entries.iter().fold(0_u64, |sum, entry| sum.saturating_add(entry.size));
        let count = entries.len();
        Self {
            entries: entries.into_iter().map(|entry| (entry, Mark::None)).collect(),
            count,
            size,
        }
    }

    /// Messages that are not deleted.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Octets of the messages that are not deleted.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Messages, the deleted ones too.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The message with this number of the client's, unless it is deleted.
    pub(super) fn find(&self, number: u32) -> Option<(usize, &Entry)> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.at(index).map(|entry| (index, entry))
    }

    /// The message at this place, unless it is deleted.
    pub(super) fn at(&self, index: usize) -> Option<&Entry> {
        self.entries
            .get(index)
            .filter(|(_, mark)| *mark == Mark::None)
            .map(|(entry, _)| entry)
    }

    /// The message at this place, deleted or not.
    pub(super) fn guid(&self, index: usize) -> Option<MessageGuid> {
        self.entries.get(index).map(|(entry, _)| entry.guid)
    }

    pub(super) fn delete(&mut self, index: usize) {
        if let Some((entry, mark @ Mark::None)) = self.entries.get_mut(index) {
            *mark = Mark::Deleted;
            self.count = self.count.saturating_sub(1);
            self.size = self.size.saturating_sub(entry.size);
        }
    }

    /// Takes all marks back.
    pub(super) fn reset(&mut self) {
        for (entry, mark) in &mut self.entries {
            if *mark == Mark::Deleted {
                *mark = Mark::None;
                self.count = self.count.saturating_add(1);
                self.size = self.size.saturating_add(entry.size);
            }
        }
    }

    /// The places of the deleted messages, ascending.
    pub(super) fn deleted(&self) -> Vec<usize> {
        let marked = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, (_, mark))| *mark == Mark::Deleted);
        marked.map(|(index, _)| index).collect()
    }
}
