//! Which UIDs and UIDVALIDITYs a slot may give.
//!
//! The space of UIDs is cut into absolute blocks of 2^12; block `b` belongs to slot `b mod 32`. Slot 0 is the trunk's, the
//! others belong to the islands of the replica that holds the slot. So no two sides of a partition ever give one number,
//! whatever each knows of the other. UIDVALIDITYs are kept apart in the same way, by their residue mod 32.
//!
//! Not here: how far an island begins above what it knows.

use core_types::limits::SLOTS_MAX;
use core_types::{Slot, Uid, UidValidity};

/// UIDs of one block.
pub const BLOCK_UIDS: u32 = 1 << 12;

/// Slots with the trunk's.
const SLOT_COUNT: u32 = SLOTS_MAX as u32 + 1;

/// The least UID that `slot` may give and that is not below `uid_next`. `None` when there is none left, and for a slot
/// that does not exist.
///
/// UID 0 does not exist (RFC 9051 nz-number): the first block begins at 1.
#[must_use]
pub fn next_uid(slot: Slot, uid_next: Uid) -> Option<Uid> {
    if slot.0 > SLOTS_MAX {
        return None;
    }
    let uid = uid_next.0.max(1);
    let block = uid / BLOCK_UIDS;
    let ahead = (u32::from(slot.0) + SLOT_COUNT - block % SLOT_COUNT) % SLOT_COUNT;
    if ahead == 0 {
        Some(Uid(uid))
    } else {
        (block + ahead).checked_mul(BLOCK_UIDS).map(Uid)
    }
}

/// The slot to which a UID's block belongs.
#[must_use]
pub fn slot_of(uid: Uid) -> Slot {
    // A remainder of 32 fits.
    Slot(u8::try_from(uid.0 / BLOCK_UIDS % SLOT_COUNT).unwrap_or(0))
}

/// The UIDVALIDITY of a mailbox made at `op_time_seconds` by `slot`, in an account whose last one was `last`. `None` when
/// none is left (the year 2106, or an account that made mailboxes faster than one each 32 s ever since).
#[must_use]
pub fn next_uid_validity(slot: Slot, op_time_seconds: u32, last: UidValidity) -> Option<UidValidity> {
    if slot.0 > SLOTS_MAX {
        return None;
    }
    let least = op_time_seconds.max(last.0.checked_add(1)?);
    let ahead = (u32::from(slot.0) + SLOT_COUNT - least % SLOT_COUNT) % SLOT_COUNT;
    least.checked_add(ahead).map(UidValidity)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_trunk_begins_at_one_and_jumps_over_the_islands_blocks() {
        assert_eq!(next_uid(Slot(0), Uid(0)), Some(Uid(1)));
        assert_eq!(next_uid(Slot(0), Uid(4095)), Some(Uid(4095)));
        assert_eq!(next_uid(Slot(0), Uid(4096)), Some(Uid(32 * 4096)));
        assert_eq!(next_uid(Slot(1), Uid(1)), Some(Uid(4096)));
        assert_eq!(next_uid(Slot(31), Uid(u32::MAX)), Some(Uid(u32::MAX)));
        assert_eq!(next_uid(Slot(0), Uid(u32::MAX)), None);
        assert_eq!(next_uid(Slot(32), Uid(1)), None);
    }

    #[test]
    fn a_mailbox_holds_2_to_the_27_messages_of_the_trunk() {
        let blocks = (0..=u32::MAX / BLOCK_UIDS)
            .filter(|block| slot_of(Uid(block * BLOCK_UIDS)) == Slot(0))
            .count();
        assert_eq!(blocks as u64 * u64::from(BLOCK_UIDS), 1 << 27);
    }

    proptest! {
        #[test]
        fn lanes_are_disjoint_and_no_number_of_a_lane_is_passed_over(slot in 0_u8..32, from: u32) {
            if let Some(uid) = next_uid(Slot(slot), Uid(from)) {
                prop_assert!(uid.0 >= from.max(1));
                prop_assert_eq!(slot_of(uid), Slot(slot));
                // Between there is no number of this slot: at most the blocks of the 31 others.
                prop_assert!(uid.0 - from.max(1) <= 31 * BLOCK_UIDS);
                prop_assert!(uid.0 == from.max(1) || uid.0 % BLOCK_UIDS == 0);
            } else {
                prop_assert!(from > u32::MAX - 32 * BLOCK_UIDS);
            }
        }

        #[test]
        fn uid_validities_rise_and_keep_their_residue(slot in 0_u8..32, seconds: u32, last: u32) {
            if let Some(next) = next_uid_validity(Slot(slot), seconds, UidValidity(last)) {
                prop_assert!(next.0 > last && next.0 >= seconds);
                prop_assert_eq!(next.0 % 32, u32::from(slot));
                prop_assert!(next.0 - seconds.max(last + 1) < 32);
            } else {
                prop_assert!(seconds.max(last) >= u32::MAX - 32);
            }
        }
    }
}
