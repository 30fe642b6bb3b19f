//! What this process keeps for a cluster's tasks to map.

use std::io::Read;
use std::sync::Arc;

use allhands_common::blob::BlobId;
use allhands_common::id::{ClusterId, TaskId};
use allhands_store::blobs::Blob;
#[cfg(feature = "embedded")]
use allhands_worker::blobs::Blobs;
use bytemuck::Pod;

use crate::cluster::Cluster;
use crate::error::{Error, ErrorKind, Result};
use crate::session::data::Giving;
use crate::session::holdings::Offered;
use crate::shared::Shared;
use crate::shared::whole::{Origin, Stored, Whole};

/// The data of one session.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// In the store of the embedded cluster's worker, in this process.
    #[cfg(feature = "embedded")]
    Embedded(ClusterId, Blobs),
    /// In a store of this process, from which the workers of a cluster elsewhere fetch it.
    Elsewhere(Arc<Giving>),
    /// A test plays the coordinator, and there is no worker.
    #[cfg(test)]
    Nowhere(ClusterId),
}

impl Data {
    /// Whose it is.
    pub(crate) fn cluster(&self) -> ClusterId {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(cluster, _) => *cluster,
            Self::Elsewhere(giving) => giving.cluster(),
            #[cfg(test)]
            Self::Nowhere(cluster) => *cluster,
        }
    }

    /// Stores bytes for tasks to map.
    pub(crate) fn put_bytes(&self, bytes: &[u8]) -> Result<Stored> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(cluster, blobs) => {
                let store = blobs.store().map_err(Error::data)?;
                Ok(Stored::here(*cluster, store.put_bytes(bytes).map_err(Error::data)?))
            }
            Self::Elsewhere(giving) => {
                let offered = giving.holdings()?.put_bytes(bytes).map_err(Error::data)?;
                stored(giving, offered)
            }
            #[cfg(test)]
            Self::Nowhere(_) => Err(Error::new(ErrorKind::OtherCluster)),
        }
    }

    pub(crate) fn put_reader(&self, reader: impl Read + Send) -> Result<Stored> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(cluster, blobs) => {
                let store = blobs.store().map_err(Error::data)?;
                Ok(Stored::here(*cluster, store.put(reader).map_err(Error::data)?))
            }
            Self::Elsewhere(giving) => {
                let offered = giving.holdings()?.put_reader(reader).map_err(Error::data)?;
                stored(giving, offered)
            }
            #[cfg(test)]
            Self::Nowhere(_) => Err(Error::new(ErrorKind::OtherCluster)),
        }
    }

    /// Takes over the long result that `task` has left, if it is there.
    #[cfg_attr(
        not(feature = "embedded"),
        expect(unused_variables, reason = "only an embedded one has it")
    )]
    pub(crate) fn claim(&self, task: TaskId, id: &BlobId) -> Option<Blob> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(_, blobs) => blobs.claim(task.batch, task.index, id),
            // What workers elsewhere have left is fetched first.
            Self::Elsewhere(_) => None,
            #[cfg(test)]
            Self::Nowhere(_) => None,
        }
    }

    /// The long result of this name, if a worker in this process keeps it.
    #[cfg_attr(
        not(feature = "embedded"),
        expect(unused_variables, reason = "only an embedded one has it")
    )]
    pub(crate) fn result(&self, id: &BlobId) -> Option<Blob> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(_, blobs) => blobs.store().ok()?.get(id),
            Self::Elsewhere(_) => None,
            #[cfg(test)]
            Self::Nowhere(_) => None,
        }
    }

    /// What `task` has left in this process, or what is there of the same bytes.
    #[cfg_attr(
        not(feature = "embedded"),
        expect(unused_variables, reason = "only an embedded one has it")
    )]
    pub(crate) fn adopt(&self, task: TaskId, id: &BlobId) -> Option<Arc<Whole>> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(cluster, blobs) => {
                let there = || blobs.store().ok()?.get(id);
                let blob = blobs.claim(task.batch, task.index, id).or_else(there)?;
                Some(Whole::claimed(Stored::here(*cluster, blob)))
            }
            Self::Elsewhere(_) => None,
            #[cfg(test)]
            Self::Nowhere(_) => None,
        }
    }

    /// What gives to and fetches from workers, if they are not in this process.
    pub(crate) const fn giving(&self) -> Option<&Arc<Giving>> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(..) => None,
            Self::Elsewhere(giving) => Some(giving),
            #[cfg(test)]
            Self::Nowhere(_) => None,
        }
    }

    /// Whoever fetches long results, if they are not in this process.
    pub(crate) fn elsewhere(&self) -> Option<&Giving> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(..) => None,
            Self::Elsewhere(giving) => Some(giving),
            #[cfg(test)]
            Self::Nowhere(_) => None,
        }
    }

    /// Has the cluster provide what a call names.
    ///
    /// # Errors
    /// It is in another cluster, or a file in place cannot be read.
    pub(crate) fn provide(&self, whole: &Whole) -> Result<()> {
        match (whole.origin(), self) {
            (Origin::Put(stored), _) if stored.cluster() != self.cluster() => {
                Err(Error::new(ErrorKind::OtherCluster))
            }
            (Origin::Left(left), _) if left.cluster() != self.cluster() => {
                Err(Error::new(ErrorKind::OtherCluster))
            }
            (Origin::Put(_) | Origin::Left(_) | Origin::Lent(..), _) => Ok(()),
            #[cfg(feature = "embedded")]
            (Origin::InPlace { file, .. }, Self::Embedded(_, blobs)) => {
                blobs.register(file, whole.known_blob());
                Ok(())
            }
            (Origin::InPlace { .. }, Self::Elsewhere(_)) if whole.known_blob().is_none() => {
                Err(Error::new(ErrorKind::Early))
            }
            (Origin::InPlace { file, offers }, Self::Elsewhere(giving)) => offers
                .offer(giving.cluster(), || {
                    giving.holdings()?.add_file(Arc::clone(file)).map_err(Error::data)
                }),
            #[cfg(test)]
            (Origin::InPlace { .. }, Self::Nowhere(_)) => Err(Error::new(ErrorKind::OtherCluster)),
        }
    }

    /// Nobody is given anything any more.
    pub(crate) fn end(&self) {
        match self {
            #[cfg(feature = "embedded")]
            Self::Embedded(..) => {}
            Self::Elsewhere(giving) => giving.end(),
            #[cfg(test)]
            Self::Nowhere(_) => {}
        }
    }
}

fn stored(giving: &Giving, offered: Offered) -> Result<Stored> {
    // What was put is in the store of this process.
    Stored::offered(giving.cluster(), offered).ok_or_else(|| Error::new(ErrorKind::Data))
}

impl Cluster {
    /// Copies an array into the cluster, once; tasks that are given the handle, or a part of it, read it
    /// where it lies. It stays for as long as somebody has a handle on it.
    ///
    /// On an embedded cluster that is the store of its worker. On a cluster of other machines it is a store of
    /// this process, in the directory of temporary files; a worker fetches what its tasks need of it, once, from
    /// here or from another worker.
    ///
    /// # Errors
    /// There is no room for it, or the disk fails.
    pub fn put<T: Pod>(&self, elements: &[T]) -> Result<Shared<[T]>> {
        let whole = Whole::put(self.data().put_bytes(bytemuck::cast_slice(elements))?)?;
        Shared::new(whole, 0, &[elements.len() as u64])
    }

    /// [`put`](Self::put)s all that `reader` gives, which may be more than fits the memory.
    ///
    /// # Errors
    /// As [`put`](Self::put); also if `reader` fails.
    pub fn put_reader(&self, reader: impl Read + Send) -> Result<Shared<[u8]>> {
        let whole = Whole::put(self.data().put_reader(reader)?)?;
        let bytes = whole.content().bytes();
        Shared::new(whole, 0, &[bytes])
    }
}
