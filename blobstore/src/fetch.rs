//! Reading blobs of other nodes, and getting back what is missing or wrong here.
//!
//! Every frame is verified against the blob's name when it arrives; a peer that sends something else is passed over.
//! Memory: one frame at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use core_types::limits::BLOB_FETCH_TIMEOUT;
use core_types::{BlobId, NodeId};
use transport::{Class, Rpc, ServiceId};

use crate::BlobStore;
use crate::error::BlobError;
use crate::format::Outline;
use crate::reader::BlobReader;
use crate::receiving::Receiving;
use crate::run::run;
use crate::wire::{Answer, Request, decode_answer, encode_request};

/// Gets blobs from peers.
#[derive(Clone)]
pub struct Fetcher {
    store: BlobStore,
    rpc: Arc<dyn Rpc>,
}

/// A blob that is read from peers, frame by frame.
pub(crate) struct RemoteBlob {
    rpc: Arc<dyn Rpc>,
    class: Class,
    id: BlobId,
    outline: Outline,
    nodes: Vec<NodeId>,
}

/// Asks a peer one thing.
pub(crate) async fn ask(
    rpc: &Arc<dyn Rpc>,
    to: NodeId,
    class: Class,
    request: &Request,
    timeout: Duration,
) -> Result<Answer, BlobError> {
    let bytes = encode_request(request)?;
    let answer = rpc.call(to, class, ServiceId::BLOB, bytes, timeout).await;
    decode_answer(&answer.map_err(|error| BlobError::Peer(error.to_string()))?)
}

impl Fetcher {
    /// For this store, over these requests.
    #[must_use]
    pub fn new(store: BlobStore, rpc: Arc<dyn Rpc>) -> Self {
        Self { store, rpc }
    }

    /// Opens a blob here, or else at the first of these nodes that has it.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] when no node that can be reached has it: the message exists, and must be shown as one
    /// that cannot be read now, never as an empty one.
    pub async fn open_blob(&self, id: BlobId, nodes: &[NodeId]) -> Result<BlobReader, BlobError> {
        match self.store.open_blob(id).await {
            Ok(reader) => Ok(reader),
            Err(error) => {
                if !matches!(error, BlobError::NotFound(_)) {
                    tracing::warn!(blob = %id, %error, "read from a peer instead");
                }
                self.open_elsewhere(id, nodes).await
            }
        }
    }

    /// Opens a blob at the first of these nodes, other than this one, that has it: what is here cannot be read.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] when no node that can be reached has it.
    pub async fn open_elsewhere(&self, id: BlobId, nodes: &[NodeId]) -> Result<BlobReader, BlobError> {
        Ok(BlobReader::remote(self.remote(id, nodes, Class::Blob).await?))
    }

    /// Makes sure that a blob is whole and durable here, and gets it from the first of these nodes that has it.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`]; errors of the store.
    pub async fn fetch(&self, id: BlobId, nodes: &[NodeId]) -> Result<(), BlobError> {
        match self.store.verify(id).await {
            Ok(_) => return Ok(()),
            Err(BlobError::NotFound(_)) if self.store.is_in_journal(id) => return Ok(()),
            Err(BlobError::NotFound(_) | BlobError::Corrupt(_) | BlobError::Disk(_)) => {}
            Err(error) => return Err(error),
        }
        let remote = self.remote(id, nodes, Class::Bulk).await?;
        let (files, outline) = (Arc::clone(self.store.files()), remote.outline.clone());
        let mut receiving = run(self.store.pool(), move || Receiving::new(&files, id, outline)).await??;
        for index in 0..remote.outline.hashes.len() {
            let encoded = remote.encoded_frame(index).await?;
            receiving = run(self.store.pool(), move || {
                receiving.add(index, &encoded).map(|()| receiving)
            })
            .await??;
        }
        let sealed = run(self.store.pool(), move || receiving.finish()).await??;
        self.store.put(&sealed).await
    }

    async fn remote(&self, id: BlobId, nodes: &[NodeId], class: Class) -> Result<RemoteBlob, BlobError> {
        for (position, node) in nodes.iter().enumerate().filter(|(_, node)| **node != self.rpc.node()) {
            match ask(&self.rpc, *node, class, &Request::Describe { id }, BLOB_FETCH_TIMEOUT).await {
                Ok(Answer::Outline(outline)) if outline.verify(id).is_ok() => {
                    // The others are asked too when this one fails on the way.
                    let mut order = nodes.to_vec();
                    order.rotate_left(position);
                    order.retain(|node| *node != self.rpc.node());
                    return Ok(RemoteBlob {
                        rpc: Arc::clone(&self.rpc),
                        class,
                        id,
                        outline,
                        nodes: order,
                    });
                }
                Ok(answer) => tracing::debug!(blob = %id, %node, ?answer, "the peer does not have the blob"),
                Err(error) => tracing::debug!(blob = %id, %node, %error, "the peer was not asked with success"),
            }
        }
        Err(BlobError::Unavailable(id))
    }
}

impl RemoteBlob {
    pub(crate) fn id(&self) -> BlobId {
        self.id
    }

    pub(crate) fn raw_len(&self) -> u64 {
        self.outline.raw_len
    }

    /// A frame of the message, verified.
    pub(crate) async fn frame(&self, index: usize) -> Result<Bytes, BlobError> {
        self.first_good(index, |raw, _| raw).await
    }

    /// A frame as the peer sent it, verified.
    async fn encoded_frame(&self, index: usize) -> Result<Bytes, BlobError> {
        self.first_good(index, |_, encoded| encoded).await
    }

    /// The first peer's answer that is that frame.
    async fn first_good(&self, index: usize, pick: impl Fn(Bytes, Bytes) -> Bytes) -> Result<Bytes, BlobError> {
        let number = u32::try_from(index).map_err(|_| BlobError::OutOfRange)?;
        let request = Request::ReadFrame {
            id: self.id,
            index: number,
        };
        for node in &self.nodes {
            let answer = ask(&self.rpc, *node, self.class, &request, BLOB_FETCH_TIMEOUT).await;
            if let Ok(Answer::Frame(encoded)) = answer {
                // Some 2 ms at most, and at the pace of the network: not worth a thread's wake-up.
                match self.outline.decode_frame(index, &encoded) {
                    Ok(raw) => return Ok(pick(raw.into(), encoded)),
                    Err(error) => tracing::warn!(blob = %self.id, %node, %error, "the peer sent a wrong frame"),
                }
            }
        }
        Err(BlobError::Unavailable(self.id))
    }
}
