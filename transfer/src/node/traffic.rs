//! How many bytes of chunks and manifests have gone over this node's links.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use allhands_common::wire::data::Answer;

/// What a node has sent and received of blobs, since its start. Headers, requests and the transport's own
/// bytes are not counted; what was received twice, or in vain, is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of chunks and manifests that were sent.
    pub sent_bytes: u64,
    /// Bytes of chunks and manifests that have come.
    pub received_bytes: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Counter(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Counter {
    pub(super) fn sent(&self, answer: &Answer) {
        let bytes = match answer {
            Answer::Manifest { ids, .. } => ids.bytes.len(),
            Answer::Chunk { bytes, .. } => bytes.bytes.len(),
            Answer::Redirect { .. }
            | Answer::NotHere { .. }
            | Answer::Busy { .. }
            | Answer::Have { .. } => 0,
        };
        self.0.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.0.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            sent_bytes: self.0.sent.load(Ordering::Relaxed),
            received_bytes: self.0.received.load(Ordering::Relaxed),
        }
    }
}
