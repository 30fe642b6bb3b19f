//! What this process keeps for a cluster's tasks to map.

use std::io::Read;
use std::sync::Arc;

use allhands_common::blob::BlobId;
use allhands_common::id::{BatchId, ClusterId};
use allhands_store::blobs::Blob;
#[cfg(feature = "embedded")]
use allhands_worker::blobs::Blobs;
use bytemuck::Pod;

use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::shared::Shared;
use crate::shared::whole::{Origin, Whole};

/// The data of one session.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// In the store of the embedded cluster's worker, in this process.
    #[cfg(feature = "embedded")]
    Embedded(ClusterId, Blobs),
    /// Of a cluster elsewhere.
    Remote,
}

impl Data {
    /// Whose data it is.
    pub(crate) const fn cluster(&self) -> ClusterId {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(cluster, _) => *cluster,
            Self::Remote => ClusterId([0; 16]),
        }
    }

    pub(crate) fn put_bytes(&self, bytes: &[u8]) -> Result<Arc<Whole>> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(cluster, blobs) => {
                let store = blobs.store().map_err(Error::data)?;
                Whole::put(*cluster, store.put_bytes(bytes).map_err(Error::data)?)
            }
            Self::Remote => Err(Error::new(ErrorKind::RemoteData)),
        }
    }

    fn put_reader(&self, reader: impl Read + Send) -> Result<Arc<Whole>> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(cluster, blobs) => {
                let store = blobs.store().map_err(Error::data)?;
                Whole::put(*cluster, store.put(reader).map_err(Error::data)?)
            }
            Self::Remote => Err(Error::new(ErrorKind::RemoteData)),
        }
    }

    /// Takes over the long result that a task of `batch` has left, if it is there.
    pub(crate) fn claim(&self, batch: BatchId, id: &BlobId) -> Option<Blob> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(_, blobs) => blobs.claim(batch, id),
            Self::Remote => None,
        }
    }

    /// Has the cluster provide what a call names.
    ///
    /// # Errors
    /// It is in another cluster.
    pub(crate) fn provide(&self, whole: &Whole) -> Result<()> {
        match (self, whole.origin()) {
            #[cfg(feature = "embedded")]
            (Self::Embedded(cluster, _), Origin::Put(owner, _)) if cluster != owner => {
                Err(Error::new(ErrorKind::OtherCluster))
            }
            #[cfg(feature = "embedded")]
            (Self::Embedded(_, blobs), Origin::InPlace(file)) => {
                blobs.register(file);
                Ok(())
            }
            #[cfg(feature = "embedded")]
            (Self::Embedded(..), Origin::Put(..) | Origin::Lent(..)) => Ok(()),
            (Self::Remote, _) => Err(Error::new(ErrorKind::RemoteData)),
        }
    }
}

impl Cluster {
    /// Copies an array into the cluster, once; tasks that are given the handle, or a part of it, read it
    /// where it lies. It stays for as long as somebody has a handle on it.
    ///
    /// # Errors
    /// There is no room for it, or the disk fails.
    pub fn put<T: Pod>(&self, elements: &[T]) -> Result<Shared<[T]>> {
        let whole = self.data().put_bytes(bytemuck::cast_slice(elements))?;
        Shared::new(whole, 0, &[elements.len() as u64])
    }

    /// [`put`](Self::put)s all that `reader` gives, which may be more than fits the memory.
    ///
    /// # Errors
    /// As [`put`](Self::put); also if `reader` fails.
    pub fn put_reader(&self, reader: impl Read + Send) -> Result<Shared<[u8]>> {
        let whole = self.data().put_reader(reader)?;
        let bytes = whole.content().bytes();
        Shared::new(whole, 0, &[bytes])
    }
}
