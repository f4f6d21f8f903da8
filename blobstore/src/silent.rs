//! The voters that left a put unanswered.
//!
//! Nobody waits for them for [`BLOB_SILENT_FOR`]; meanwhile one put at a time tries them, so that what waits for a hung node is
//! bounded, and the first answer makes them voters like the others again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use core_types::NodeId;
use core_types::limits::BLOB_SILENT_FOR;
use tokio::time::Instant;

use crate::files::lock;

/// See the module.
#[derive(Default)]
pub(crate) struct SilentVoters(Mutex<BTreeMap<NodeId, Silence>>);

struct Silence {
    until: Instant,
    /// A put is on its way there.
    is_tried: bool,
}

impl SilentVoters {
    /// Those of these voters that are not waited for.
    pub(crate) fn among(&self, voters: &[NodeId]) -> BTreeSet<NodeId> {
        let mut silent = lock(&self.0);
        let now = Instant::now();
        silent.retain(|_, silence| silence.until > now);
        voters
            .iter()
            .copied()
            .filter(|voter| silent.contains_key(voter))
            .collect()
    }

    /// Whether a put may try this voter, in the background.
    pub(crate) fn begin_to_try(&self, voter: NodeId) -> bool {
        let mut silent = lock(&self.0);
        silent
            .get_mut(&voter)
            .is_none_or(|silence| !std::mem::replace(&mut silence.is_tried, true))
    }

    /// It left a request unanswered for as long as it may.
    pub(crate) fn left_unanswered(&self, voter: NodeId) {
        let silence = Silence {
            until: Instant::now() + BLOB_SILENT_FOR,
            is_tried: false,
        };
        lock(&self.0).insert(voter, silence);
    }

    /// It answered a request.
    pub(crate) fn answered(&self, voter: NodeId) {
        lock(&self.0).remove(&voter);
    }

    /// A request was not sent: that says nothing new.
    pub(crate) fn not_asked(&self, voter: NodeId) {
        if let Some(silence) = lock(&self.0).get_mut(&voter) {
            silence.is_tried = false;
        }
    }
}
