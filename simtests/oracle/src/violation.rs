//! What a check found: the invariant's id and a sentence that a person can act on.

use std::fmt;

use crate::time::Time;

/// A broken invariant. Ids: `I01`... are those of `docs/invariants.md` and the project's list of simulation invariants;
/// `U1`...`U4` the rules of numbering; `S01`... the rules of a session's view (see [`crate::session`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub id: &'static str,
    /// When it showed, where that is known.
    pub at: Option<Time>,
    /// What was seen and what was to be.
    pub what: String,
}

impl Violation {
    /// One without a time.
    #[must_use]
    pub fn new(id: &'static str, what: impl Into<String>) -> Self {
        Self {
            id,
            at: None,
            what: what.into(),
        }
    }

    /// One that showed at a time.
    #[must_use]
    pub fn at(id: &'static str, at: Time, what: impl Into<String>) -> Self {
        Self {
            id,
            at: Some(at),
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} at {at}: {}", self.id, self.what),
            None => write!(f, "{}: {}", self.id, self.what),
        }
    }
}
