//! The leader's check that a message's bytes are where they must be before the message exists.

use std::collections::BTreeSet;

use core_types::{Incarnation, NodeId, limits};
use state::command::Receipts;
use state::{Command, MailboxOp, Op};

use crate::config::GroupError;

/// The receipts that a command carries, if it is one that needs them.
pub(crate) fn of(command: &Command) -> Option<&Receipts> {
    match &command.op {
        Op::Mailbox(MailboxOp::Deliver(delivery)) => Some(&delivery.receipts),
        Op::Mailbox(MailboxOp::Enqueue(entry)) => Some(&entry.receipts),
        _ => None,
    }
}

/// Refuses receipts that do not cover `min(3, voters that take blobs)` of the present voters, and, where there are two
/// voters or more, at least two. A skipped voter is one that does not take blobs now.
pub(crate) fn check(
    receipts: &Receipts,
    incarnation: Incarnation,
    membership_index: u64,
    voters: &BTreeSet<NodeId>,
) -> Result<(), GroupError> {
    if receipts.incarnation != incarnation || receipts.membership_index != membership_index {
        return Err(GroupError::StaleMembership {
            incarnation,
            index: membership_index,
        });
    }
    let holders: BTreeSet<&NodeId> = receipts.nodes.iter().filter(|node| voters.contains(node)).collect();
    let taking = voters
        .iter()
        .filter(|node| holders.contains(node) || !receipts.skipped.contains(node))
        .count();
    let wanted = taking
        .min(limits::BLOB_COPIES)
        .max(Receipts::copies_least(voters.len()));
    if holders.len() < wanted {
        return Err(GroupError::NotEnoughCopies {
            wanted,
            have: holders.len(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(voters: &[u64], nodes: &[u64], skipped: &[u64]) -> Result<(), GroupError> {
        let ids = |list: &[u64]| list.iter().map(|id| NodeId(*id)).collect::<Vec<_>>();
        let receipts = Receipts {
            incarnation: Incarnation(2),
            membership_index: 9,
            nodes: ids(nodes),
            skipped: ids(skipped),
        };
        check(&receipts, Incarnation(2), 9, &ids(voters).into_iter().collect())
    }

    fn short(wanted: usize, have: usize) -> Result<(), GroupError> {
        Err(GroupError::NotEnoughCopies { wanted, have })
    }

    #[test]
    fn three_voters_need_all_three_unless_one_is_skipped() {
        assert_eq!(checked(&[1, 2, 3], &[1, 2, 3], &[]), Ok(()));
        assert_eq!(checked(&[1, 2, 3], &[1, 2], &[]), short(3, 2));
        assert_eq!(checked(&[1, 2, 3], &[1, 2], &[3]), Ok(()));
        assert_eq!(checked(&[1, 2, 3], &[1], &[2, 3]), short(2, 1));
        assert_eq!(checked(&[1, 2, 3], &[], &[1, 2, 3]), short(2, 0));
    }

    #[test]
    fn five_voters_need_three_copies_and_never_fewer_than_two() {
        assert_eq!(checked(&[1, 2, 3, 4, 5], &[1, 2, 4], &[]), Ok(()));
        assert_eq!(checked(&[1, 2, 3, 4, 5], &[1, 2], &[3]), short(3, 2));
        assert_eq!(checked(&[1, 2, 3, 4, 5], &[1, 2], &[3, 4, 5]), Ok(()));
        assert_eq!(checked(&[1, 2, 3, 4, 5], &[1], &[2, 3, 4, 5]), short(2, 1));
    }

    #[test]
    fn small_groups_need_what_they_have() {
        assert_eq!(checked(&[1], &[1], &[]), Ok(()));
        assert_eq!(checked(&[1], &[], &[1]), short(1, 0));
        assert_eq!(checked(&[1, 2], &[1], &[]), short(2, 1));
        assert_eq!(checked(&[1, 2], &[1], &[2]), short(2, 1));
        assert_eq!(checked(&[1, 2], &[1, 2], &[2]), Ok(()));
    }

    #[test]
    fn strangers_and_repetitions_count_for_nothing() {
        assert_eq!(checked(&[1, 2, 3], &[1, 1, 7], &[]), short(3, 1));
        assert_eq!(checked(&[1, 2, 3], &[1, 2], &[7]), short(3, 2));
        // Who answered takes blobs, whatever else is said of it.
        assert_eq!(checked(&[1, 2, 3], &[1, 2], &[2, 3]), Ok(()));
    }

    #[test]
    fn receipts_of_another_membership_or_incarnation_are_stale() {
        let receipts = Receipts {
            incarnation: Incarnation(2),
            membership_index: 9,
            nodes: vec![NodeId(1)],
            skipped: vec![],
        };
        let voters = [NodeId(1)].into();
        let stale = |incarnation, index| Err(GroupError::StaleMembership { incarnation, index });
        assert_eq!(check(&receipts, Incarnation(2), 10, &voters), stale(Incarnation(2), 10));
        assert_eq!(check(&receipts, Incarnation(3), 9, &voters), stale(Incarnation(3), 9));
        assert_eq!(check(&receipts, Incarnation(2), 9, &voters), Ok(()));
    }
}
