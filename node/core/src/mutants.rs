//! Bugs that can be planted, to see that the simulation finds them: `docs/simulation.md`, "Planted bugs".
//!
//! Each has its place in the product, a line that asks [`is_planted`] beside the right code. Without the feature `mutants`
//! that is a constant `false`, and nothing of it is in the program. With it, one bug at most is planted in the whole process.
//!
//! Not here: how they are looked for (`simtests`).

/// What a programmer could get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mutant {
    /// The log says that a batch is durable before it is synced.
    AckBeforeSync = 1,
    /// A blob counts as copied as soon as it is sent, whatever the peers answer.
    ReceiptsNotChecked,
    /// A read does not ask the leader how far it has to wait.
    SkipReadIndex,
    /// What came of an op is not remembered: one that is repeated after a change of leader is done twice.
    ForgetIdempotency,
    /// A replica that starts makes UIDNEXT from the messages that are there.
    ReuseUid,
    /// A blob is collected although a message of another group refers to it.
    DeleteReferredBlob,
    /// Only half of the rows of each piece of a snapshot are applied.
    HalfSnapshot,
    /// The applied index is written before the rows that it covers, in a batch of its own.
    AppliedApart,
    /// The name of a new segment of the log is not synced.
    DirectoryNotSynced,
    /// Damage in the log is taken for a torn tail.
    DamageAsTornTail,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::AckBeforeSync,
        Self::ReceiptsNotChecked,
        Self::SkipReadIndex,
        Self::ForgetIdempotency,
        Self::ReuseUid,
        Self::DeleteReferredBlob,
        Self::HalfSnapshot,
        Self::AppliedApart,
        Self::DirectoryNotSynced,
        Self::DamageAsTornTail,
    ];

    /// What it is called on a command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::ReceiptsNotChecked => "receipts-not-checked",
            Self::SkipReadIndex => "skip-read-index",
            Self::ForgetIdempotency => "forget-idempotency",
            Self::ReuseUid => "reuse-uid",
            Self::DeleteReferredBlob => "delete-referred-blob",
            Self::HalfSnapshot => "half-snapshot",
            Self::AppliedApart => "applied-apart",
            Self::DirectoryNotSynced => "directory-not-synced",
            Self::DamageAsTornTail => "damage-as-torn-tail",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mutant| mutant.name() == name)
    }
}

/// Whether this bug is planted: never, in a product.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
#[must_use]
pub const fn is_planted(_mutant: Mutant) -> bool {
    false
}

#[cfg(feature = "mutants")]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Whether this bug is planted.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is_planted(mutant: Mutant) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == mutant as u8
}

/// Plants a bug in this process, in place of the one before.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Mutant) {
    PLANTED.store(mutant as u8, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_is_found_by_its_name() {
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::named(mutant.name()), Some(mutant));
        }
        assert_eq!(Mutant::named("none"), None);
    }

    #[test]
    fn nothing_is_planted_by_itself() {
        assert!(Mutant::ALL.into_iter().all(|mutant| !is_planted(mutant)));
    }
}
