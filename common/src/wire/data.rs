//! Chunks: what somebody who lacks some says to somebody who has some, and back.
//!
//! The opener of the link asks, the acceptor answers; two nodes that ask each other have a link each way,
//! on the same connection. Requests are numbered by the asker and answered in any order. Chunks and the
//! ids of a manifest are bulk: they never pass through the codec.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::bulk::{Bulk, Carries};
use crate::id::BlobId;
/// A set of chunks of one blob.
pub use crate::range::RangeSet as ChunkSet;
/// Neighbouring chunks of a blob: `start` is the first, `end` is behind the last.
pub use crate::range::TaskRange as ChunkRange;
use crate::role::Role;

/// Chunk ids in one [`Answer::Manifest`], at most: 1 MiB, enough for a blob of 32 GiB in one page.
pub const MANIFEST_PAGE_IDS_MAX: u32 = 1 << 15;

/// Runs in one [`Answer::Have`], at most: what is beyond it is in the next one. 4,096 runs are some 30 KiB.
pub const HAVE_RUNS_MAX: usize = 1 << 12;

/// Holders in one [`Answer::Have`], at most: more neighbours than anybody asks.
pub const HAVE_OTHERS_MAX: usize = 16;

/// Holders that one [`Ask::Chunk`] may call failed.
pub const FAILED_MAX: usize = 8;

/// Addresses of one node, at most.
pub const ADDRESSES_MAX: usize = 8;

/// Who somebody is, as the certificate says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node {
    /// What it is.
    pub role: Role,
    /// Its name, unique among those of its role.
    pub name: String,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// Somebody who has chunks, or will soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who.
    pub node: Node,
    /// Where its bulk endpoint may be dialled; the first that answers will do.
    pub addresses: Vec<SocketAddr>,
}

/// What an asker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// First on the link: where the asker itself may be dialled, so that others can be sent to it.
    /// Nothing: nowhere.
    Here {
        /// The addresses of its bulk endpoint.
        addresses: Vec<SocketAddr>,
    },
    /// The ids of a blob's chunks, from `first` on.
    Manifest {
        /// The asker's number for it.
        request: u64,
        /// Which blob.
        blob: BlobId,
        /// From which chunk on.
        first: u32,
    },
    /// One chunk.
    Chunk {
        /// The asker's number for it.
        request: u64,
        /// Of which blob.
        blob: BlobId,
        /// Which.
        chunk: u32,
        /// Who did not give it, so that the asker is not sent there again.
        failed: Vec<Node>,
    },
    /// This request needs no answer any more.
    Cancel {
        /// Its number.
        request: u64,
    },
    /// Say which chunks of a blob are there, now and whenever more have come, and who else wants it.
    Follow {
        /// Which blob.
        blob: BlobId,
    },
    /// Say no more about it.
    Unfollow {
        /// Which blob.
        blob: BlobId,
    },
}

/// What a holder answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Part of a manifest.
    Manifest {
        /// The asker's number.
        request: u64,
        /// How long the blob is, in bytes.
        bytes: u64,
        /// The first chunk whose id is here.
        first: u32,
        /// The ids, 32 bytes each.
        ids: Bulk,
    },
    /// A chunk.
    Chunk {
        /// The asker's number.
        request: u64,
        /// All of it.
        bytes: Bulk,
    },
    /// This holder has it, or will in a moment.
    Redirect {
        /// The asker's number.
        request: u64,
        /// Whom to ask instead.
        holder: Holder,
    },
    /// It is not here and is not about to come.
    NotHere {
        /// The asker's number.
        request: u64,
    },
    /// It may be here; too much is asked at the moment.
    Busy {
        /// The asker's number.
        request: u64,
    },
    /// These chunks are there too, and these nodes want the blob too. Only what was not said before.
    Have {
        /// Of which blob.
        blob: BlobId,
        /// Which.
        chunks: Vec<ChunkRange>,
        /// Who else.
        others: Vec<Holder>,
    },
}

impl Carries for Ask {
    fn each_bulk(&mut self, _visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::Here { .. }
            | Self::Manifest { .. }
            | Self::Chunk { .. }
            | Self::Cancel { .. }
            | Self::Follow { .. }
            | Self::Unfollow { .. } => {}
        }
    }
}

impl Carries for Answer {
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
        match self {
            Self::Manifest { ids, .. } => visit(ids),
            Self::Chunk { bytes, .. } => visit(bytes),
            Self::Redirect { .. }
            | Self::NotHere { .. }
            | Self::Busy { .. }
            | Self::Have { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use bytes::Bytes;

    use super::*;
    use crate::{bulk, codec};

    fn bytes_of<T: Serialize>(message: &T) -> Vec<u8> {
        let mut bytes = Vec::new();
        codec::encode(message, &mut bytes).unwrap();
        bytes
    }

    fn node(name: &str) -> Node {
        Node { role: Role::Worker, name: name.into() }
    }

    fn blob() -> BlobId {
        BlobId([7; 32])
    }

    /// These bytes are the protocol: a change here is a new `PROTOCOL_VERSION`.
    #[test]
    fn asks_keep_their_golden_bytes() {
        let seven = [7; 32];
        let golden = |head: &[u8], tail: &[u8]| [head, &seven, tail].concat();
        let here = Ask::Here { addresses: vec!["127.0.0.1:7100".parse().unwrap()] };
        assert_eq!(bytes_of(&here), [0, 1, 0, 127, 0, 0, 1, 251, 188, 27]);
        let manifest = Ask::Manifest { request: 1, blob: blob(), first: 2 };
        assert_eq!(bytes_of(&manifest), golden(&[1, 1], &[2]));
        let chunk = Ask::Chunk { request: 3, blob: blob(), chunk: 300, failed: vec![node("w")] };
        assert_eq!(bytes_of(&chunk), golden(&[2, 3], &[251, 44, 1, 1, 1, 1, b'w']));
        assert_eq!(bytes_of(&Ask::Cancel { request: 4 }), [3, 4]);
        assert_eq!(bytes_of(&Ask::Follow { blob: blob() }), golden(&[4], &[]));
        assert_eq!(bytes_of(&Ask::Unfollow { blob: blob() }), golden(&[5], &[]));
    }

    /// These bytes are the protocol: a change here is a new `PROTOCOL_VERSION`.
    #[test]
    fn answers_keep_their_golden_bytes() {
        let bulk = || Bulk::from(Bytes::from_static(b"abc"));
        let manifest = Answer::Manifest { request: 1, bytes: 9, first: 2, ids: bulk() };
        assert_eq!(bytes_of(&manifest), [0, 1, 9, 2, 3]);
        assert_eq!(bytes_of(&Answer::Chunk { request: 5, bytes: bulk() }), [1, 5, 3]);
        let holder = Holder { node: node("w"), addresses: vec!["[::1]:80".parse().unwrap()] };
        let mut sixteen = [0; 16];
        sixteen[15] = 1;
        let named = [&[1, 1, b'w', 1, 1][..], &sixteen, &[80]].concat();
        let redirect = Answer::Redirect { request: 6, holder: holder.clone() };
        assert_eq!(bytes_of(&redirect), [&[2, 6][..], &named].concat());
        assert_eq!(bytes_of(&Answer::NotHere { request: 7 }), [3, 7]);
        assert_eq!(bytes_of(&Answer::Busy { request: 8 }), [4, 8]);
        let have = Answer::Have {
            blob: blob(),
            chunks: vec![ChunkRange::new(0, 4), ChunkRange::new(9, 10)],
            others: vec![holder],
        };
        let golden = [&[5][..], &[7; 32], &[2, 0, 4, 9, 10, 1], &named].concat();
        assert_eq!(bytes_of(&have), golden);
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let mut sent =
            Answer::Chunk { request: 5, bytes: Bulk::from(Bytes::from_static(b"chunk")) };
        let carried = bulk::gather(&mut sent);
        let mut got: Answer = codec::decode(&bytes_of(&sent)).unwrap();
        bulk::attach(&mut got, carried).unwrap();
        let (Answer::Chunk { bytes: sent, .. }, Answer::Chunk { bytes: got, .. }) = (sent, got)
        else {
            panic!("another message");
        };
        assert_eq!(sent.bytes, got.bytes);
        assert!(codec::decode::<Answer>(&[6]).is_err());
        assert!(codec::decode::<Ask>(&[6]).is_err());
    }

    #[test]
    fn the_longest_messages_fit_a_frame() {
        use crate::frame::{Kind, Message};
        assert_eq!((Ask::KIND, Answer::KIND), (Kind::ChunkRequest, Kind::ChunkReply));
        let name = "n".repeat(255);
        let addresses = vec!["[ffff::ffff]:65535".parse().unwrap(); ADDRESSES_MAX];
        let holder = Holder { node: node(&name), addresses };
        let run = ChunkRange::new(u32::MAX - 1, u32::MAX);
        let have = Answer::Have {
            blob: blob(),
            chunks: vec![run; HAVE_RUNS_MAX],
            others: vec![holder; HAVE_OTHERS_MAX],
        };
        assert!(bytes_of(&have).len() <= Kind::ChunkReply.head_bytes_max() as usize);
        let page = MANIFEST_PAGE_IDS_MAX as usize * 32;
        assert!(page <= Kind::ChunkReply.bulk_bytes_max() as usize);
    }
}
