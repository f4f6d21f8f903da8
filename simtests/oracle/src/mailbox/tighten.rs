//! Narrower times for changes of a mailbox, from what reads show: with them the search has little left to try.
//!
//! All of them are necessary, so that nothing explainable is lost. For a message that only one change adds:
//! a read that shows it came after that change, which therefore happened, by the read's end; a read that does not show it,
//! and ended before anybody could have removed it, came before. For one that also only one change removes, after it was
//! added: a read that shows it came before the removal; a read that does not, and began after it was added, came after.

use super::whole::{Kind, WholeOp};
use crate::linear::Timed;
use crate::time::Time;

/// Narrows the times of changes; `count` is the number of messages that are told apart.
pub(super) fn tighten(ops: &mut [Timed<WholeOp>], count: usize) {
    let (mut adders, mut removers) = (vec![Vec::new(); count], vec![Vec::new(); count]);
    let mut reads = Vec::new();
    for (place, op) in ops.iter().enumerate() {
        match &op.op.kind {
            Kind::Change { add, remove } => {
                for message in add.iter() {
                    push(&mut adders, message, place);
                }
                for message in remove.iter() {
                    push(&mut removers, message, place);
                }
            }
            Kind::See { .. } => reads.push(place),
        }
    }
    for message in 0..count {
        let (Some([adder]), Some(removers)) = (adders.get(message).map(Vec::as_slice), removers.get(message)) else {
            continue;
        };
        if !removers.contains(adder) {
            Message {
                number: message,
                adder: *adder,
                removers,
            }
            .tighten(ops, &reads);
        }
    }
}

fn push(lists: &mut [Vec<usize>], message: usize, place: usize) {
    if let Some(list) = lists.get_mut(message) {
        list.push(place);
    }
}

struct Message<'a> {
    number: usize,
    adder: usize,
    removers: &'a [usize],
}

impl Message<'_> {
    fn tighten(&self, ops: &mut [Timed<WholeOp>], reads: &[usize]) {
        // When it was seen, and when not: beginnings and ends of reads.
        let (mut seen, mut unseen) = (Vec::new(), Vec::new());
        for read in reads.iter().filter_map(|place| ops.get(*place)) {
            let Kind::See { exactly, at_least, .. } = &read.op.kind else {
                continue;
            };
            let Some(ended) = read.ended else { continue };
            let shown = at_least.has(self.number) || exactly.as_ref().is_some_and(|exactly| exactly.has(self.number));
            match (shown, exactly) {
                (true, _) => seen.push((read.invoked, ended)),
                (false, Some(_)) => unseen.push((read.invoked, ended)),
                (false, None) => {}
            }
        }
        let removable = self
            .removers
            .iter()
            .filter_map(|place| ops.get(*place))
            .map(|op| op.invoked)
            .min();
        let Some(adder) = ops.get_mut(self.adder) else { return };
        for (_, ended) in &seen {
            adder.ended = Some(adder.ended.map_or(*ended, |before| before.min(*ended)));
        }
        let before = unseen
            .iter()
            .filter(|(_, ended)| removable.is_none_or(|removable| *ended < removable));
        adder.invoked = before.map(|(invoked, _)| *invoked).fold(adder.invoked, Time::max);
        let (Some(added), [remover]) = (adder.ended, self.removers) else {
            return;
        };
        let Some(remover) = ops.get_mut(*remover).filter(|remover| added < remover.invoked) else {
            return;
        };
        let began = remover.invoked;
        remover.invoked = seen.iter().map(|(invoked, _)| *invoked).fold(began, Time::max);
        for (_, ended) in unseen.iter().filter(|(invoked, _)| *invoked > added) {
            remover.ended = Some(remover.ended.map_or(*ended, |before| before.min(*ended)));
        }
    }
}
