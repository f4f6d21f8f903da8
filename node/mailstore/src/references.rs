//! Which blobs the groups of this node refer to: what the blob store asks before it repairs, compares or removes one.
//!
//! The answers are the replica's of this node at this moment. Whether it is as new as it has to be is for whoever asks to
//! find out.

use std::sync::Arc;

use async_trait::async_trait;
use blobstore::{BlobError, IsReferenced, References, ReferencesOf};
use core_types::mutants::{self, Mutant};
use core_types::{BlobId, GroupId};
use raft::consensus::{Consensus, QueryError};
use state::mailbox::Reader;

/// One group's.
struct GroupReferences {
    groups: Arc<dyn Consensus>,
    group: GroupId,
}

#[async_trait]
impl References for GroupReferences {
    async fn page(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>, BlobError> {
        let read = self
            .groups
            .query(self.group, |view| Reader::new(view).all_blobs(after, limit));
        read.await.map_err(|error| unreadable(&error))
    }

    async fn are_referenced(&self, ids: &[BlobId]) -> Result<Vec<bool>, BlobError> {
        let read = self.groups.query(self.group, |view| {
            let reader = Reader::new(view);
            ids.iter().map(|id| reader.references_blob(*id)).collect()
        });
        read.await.map_err(|error| unreadable(&error))
    }
}

/// The blobs to which each of these groups refers.
#[must_use]
pub fn references_of(groups: &Arc<dyn Consensus>) -> ReferencesOf {
    let groups = Arc::clone(groups);
    Arc::new(move |group| {
        let groups = Arc::clone(&groups);
        Arc::new(GroupReferences { groups, group })
    })
}

/// Whether any of these mailbox groups refers to a blob. A group that cannot be asked is an error, so that nothing is removed.
#[must_use]
pub fn is_referenced(groups: &Arc<dyn Consensus>, asked: Vec<GroupId>) -> IsReferenced {
    let (groups, asked) = (Arc::clone(groups), Arc::new(asked));
    Arc::new(move |blob| {
        let (groups, asked) = (Arc::clone(&groups), Arc::clone(&asked));
        Box::pin(async move {
            for group in asked.iter() {
                let read = groups.query(*group, |view| Reader::new(view).references_blob(blob));
                if read.await.map_err(|error| unreadable(&error))? {
                    return Ok(true);
                }
                if mutants::is_planted(Mutant::DeleteReferredBlob) {
                    break;
                }
            }
            Ok(false)
        })
    })
}

fn unreadable(error: &QueryError) -> BlobError {
    BlobError::Peer(error.to_string())
}
