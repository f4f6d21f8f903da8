//! `everpost recover mail --from-blobs`: mailboxes from a stopped node's blobs and manifests, when everything else is gone.
