//! What is durable of each group, as far as it decides which segments may go: the marks, and up to which index each segment
//! holds entries.
//!
//! A segment is needed while a group has an entry in it that is not purged (durably), and segments go oldest first, so the
//! log on the disk is always a suffix of what was written. Whatever else stood in a segment that goes (votes, marks) is
//! written again before.

use std::collections::BTreeMap;

use super::record::{Meta, Stored};
use super::{GroupKey, Record};

#[derive(Default)]
pub(crate) struct Written {
    groups: BTreeMap<GroupKey, Group>,
    /// Count and nonce of the latest start.
    pub(crate) boot: (u64, u64),
    /// Segments below this number may be missing.
    pub(crate) oldest: u64,
}

#[derive(Default)]
struct Group {
    meta: Meta,
    /// The segment from which on the marks can be read back completely.
    meta_segment: u64,
    /// The highest index in each segment; of entries that were truncated since, too, which only keeps a segment longer.
    entries: BTreeMap<u64, u64>,
}

impl Written {
    /// A record is durable in this segment.
    pub(crate) fn note(&mut self, stored: &Stored, segment: u64) {
        match stored {
            Stored::Boot { count, nonce } => self.boot = self.boot.max((*count, *nonce)),
            Stored::Oldest { segment } => self.oldest = self.oldest.max(*segment),
            Stored::Carry(key, meta) => {
                let group = self.groups.entry(*key).or_default();
                group.meta = meta.clone();
                group.meta_segment = segment;
                group.forget_purged();
            }
            Stored::Group(key, Record::Removed) => {
                self.groups.remove(key);
            }
            Stored::Group(key, Record::Created) => {
                let group = Group {
                    meta_segment: segment,
                    ..Group::default()
                };
                self.groups.insert(*key, group);
            }
            Stored::Group(key, record) => {
                let group = self.groups.entry(*key).or_insert_with(|| Group {
                    meta_segment: segment,
                    ..Group::default()
                });
                match record {
                    Record::Append(entry) => {
                        let highest = group.entries.entry(segment).or_default();
                        *highest = (*highest).max(entry.mark.index);
                    }
                    Record::Vote(vote) => group.meta.vote = Some(vote.clone()),
                    Record::Purge { upto } => {
                        if group.meta.purged.is_none_or(|purged| purged.index < upto.index) {
                            group.meta.purged = Some(*upto);
                        }
                        group.forget_purged();
                    }
                    Record::Committed(mark) => group.meta.committed = Some(*mark),
                    _ => {}
                }
            }
        }
    }

    /// The last segment, below `current`, up to which none holds an entry that is needed.
    pub(crate) fn last_unneeded(&self, current: u64) -> u64 {
        let first_needed = self.groups.values().filter_map(|group| group.entries.keys().next());
        first_needed
            .copied()
            .min()
            .unwrap_or(current)
            .min(current)
            .saturating_sub(1)
    }

    /// What must be written again before the segments up to `last` go.
    pub(crate) fn carry(&self, last: u64) -> Vec<Stored> {
        let metas = self.groups.iter().filter(|(_, group)| group.meta_segment <= last);
        let mut carried: Vec<Stored> = metas
            .map(|(key, group)| Stored::Carry(*key, group.meta.clone()))
            .collect();
        let (count, nonce) = self.boot;
        carried.push(Stored::Boot { count, nonce });
        carried.push(Stored::Oldest { segment: last + 1 });
        carried
    }
}

impl Group {
    fn forget_purged(&mut self) {
        if let Some(purged) = self.meta.purged {
            self.entries.retain(|_, highest| *highest > purged.index);
        }
    }
}
