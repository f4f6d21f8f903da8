//! What the log should hold, naively.

use std::collections::BTreeMap;

use core_types::Entropy;

use super::super::*;
use super::append;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ModelGroup {
    pub(super) vote: Option<Bytes>,
    pub(super) purged: Option<LogMark>,
    pub(super) entries: BTreeMap<u64, (u64, Bytes)>,
}

impl ModelGroup {
    pub(super) fn next(&self) -> u64 {
        let last = self.entries.keys().next_back().copied();
        last.or_else(|| self.purged.map(|purged| purged.index))
            .map_or(0, |last| last + 1)
    }
}

pub(super) type Model = BTreeMap<GroupKey, ModelGroup>;

pub(super) fn apply(model: &mut Model, key: GroupKey, record: &Record) {
    if let Record::Removed = record {
        model.remove(&key);
        return;
    }
    let group = model.entry(key).or_default();
    match record {
        Record::Append(entry) => {
            group
                .entries
                .insert(entry.mark.index, (entry.mark.term, entry.body.clone()));
        }
        Record::Vote(vote) => group.vote = Some(vote.clone()),
        Record::Truncate { from } => group.entries.retain(|index, _| index < from),
        Record::Purge { upto } => {
            group.purged = group.purged.max(Some(*upto));
            group.entries.retain(|index, _| *index > upto.index);
        }
        Record::Created => *group = ModelGroup::default(),
        Record::Committed(_) | Record::Removed => {}
    }
}

/// What a log holds, damaged groups left out.
pub(super) fn read(log: &SharedLog) -> Model {
    let group = |key: GroupKey| {
        let state = log.state(key).unwrap();
        if state.damage.is_some() {
            return None;
        }
        let entries = log.read(key, 0..u64::MAX, usize::MAX).unwrap();
        let group = ModelGroup {
            vote: state.vote,
            purged: state.purged,
            entries: entries
                .into_iter()
                .map(|entry| (entry.mark.index, (entry.mark.term, entry.body)))
                .collect(),
        };
        let last = group.entries.iter().next_back();
        let last = last.map(|(index, (term, _))| LogMark {
            term: *term,
            index: *index,
        });
        assert_eq!(state.last, last.or(group.purged));
        assert!(state.committed.map(|mark| mark.index) <= state.last.map(|mark| mark.index));
        Some((key, group))
    };
    log.groups().into_iter().filter_map(group).collect()
}

/// A request that fits the model, as a random number generator wants it.
pub(super) fn request(model: &Model, key: GroupKey, entropy: &dyn Entropy) -> Vec<Record> {
    let Some(group) = model.get(&key) else {
        return vec![Record::Created];
    };
    let next = group.next();
    let body = |salt: u64| vec![u8::try_from(salt % 251).unwrap(); usize::try_from(entropy.below(300)).unwrap()];
    match entropy.below(20) {
        0..=10 => (0..=entropy.below(4))
            .map(|step| append(entropy.below(5), next + step, &body(next + step)))
            .collect(),
        11..=13 => vec![Record::Vote(Bytes::from(body(next)))],
        14..=15 => {
            let from = next
                .saturating_sub(entropy.below(6))
                .max(group.purged.map_or(0, |mark| mark.index + 1));
            vec![Record::Truncate { from }, append(9, from, b"instead")]
        }
        16..=18 => {
            let ahead = if entropy.below(10) == 0 { 5 } else { 0 };
            let index = (next + ahead).saturating_sub(entropy.below(8));
            if group.purged.is_some_and(|purged| purged.index >= index) {
                return vec![Record::Vote(Bytes::from_static(b"v"))];
            }
            vec![Record::Purge {
                upto: LogMark { term: 1, index },
            }]
        }
        _ => vec![Record::Removed],
    }
}
