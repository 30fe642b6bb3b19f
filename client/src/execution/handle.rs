//! How an execution travels: as a handle on its task.
//!
//! ```text
//! version u8 | flags u8 | task 20 bytes | cluster 16 bytes
//! ```
//! It is one string of bytes behind a newtype of this name, by which a result that *is* an execution is known
//! ([`payload::status`](crate::payload)).

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use allhands_common::execution::{Awaited, TASK_ID_BYTES};
use allhands_common::id::{ClusterId, TaskId};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::home::{self, Ties};
use super::slot::{Beginning, Slot};
use super::{Execution, named};

/// The newtype's name in serde.
pub(crate) const NAME: &str = "allhands::Execution";

const VERSION: u8 = 1;
/// Flag: forwarded ones are followed to where they lead.
const FOLLOW: u8 = 1;
const HANDLE_BYTES: usize = 2 + TASK_ID_BYTES + 16;

/// The task that the bytes of a handle name.
pub(crate) fn task_of(bytes: &[u8]) -> Option<TaskId> {
    read(bytes).map(|(of, _)| of.task)
}

fn write(slot: &Slot) -> [u8; HANDLE_BYTES] {
    let mut bytes = [0; HANDLE_BYTES];
    bytes[0] = VERSION;
    bytes[1] = if slot.of().follow { FOLLOW } else { 0 };
    bytes[2..2 + TASK_ID_BYTES].copy_from_slice(&slot.of().task.to_bytes());
    bytes[2 + TASK_ID_BYTES..].copy_from_slice(&slot.cluster().0);
    bytes
}

fn read(bytes: &[u8]) -> Option<(Awaited, ClusterId)> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    let (task, rest) = rest.split_first_chunk::<TASK_ID_BYTES>()?;
    let cluster = <[u8; 16]>::try_from(rest).ok()?;
    let follow = match head {
        [VERSION, 0] => false,
        [VERSION, FOLLOW] => true,
        _ => return None,
    };
    Some((Awaited { task: TaskId::from_bytes(*task), follow }, ClusterId(cluster)))
}

/// A byte string as serde has it.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<R> Serialize for Execution<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        named::note(&self.slot);
        serializer.serialize_newtype_struct(NAME, &Bytes(&write(&self.slot)))
    }
}

impl<'de, R> Deserialize<'de> for Execution<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (of, cluster) = deserializer.deserialize_newtype_struct(NAME, Handle)?;
        let (slot, ties) = find(of, cluster);
        Ok(Self::new(slot, ties))
    }
}

/// Reads a handle, out of whatever a format makes of a string of bytes.
struct Handle;

impl<'de> Visitor<'de> for Handle {
    type Value = (Awaited, ClusterId);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {HANDLE_BYTES} bytes of an execution's handle")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        inner.deserialize_bytes(self)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        read(bytes).ok_or_else(|| {
            E::custom(
                "these bytes are no execution's handle, or that of another release of allhands",
            )
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::with_capacity(HANDLE_BYTES);
        while let Some(byte) = bytes.next_element()? {
            if all.len() > HANDLE_BYTES {
                return Err(A::Error::invalid_length(all.len(), &self));
            }
            all.push(byte);
        }
        self.visit_bytes(&all)
    }
}

/// What is being read: the result of an execution.
#[derive(Debug, Clone)]
struct Origin {
    slot: Arc<Slot>,
    ties: Ties,
}

thread_local! {
    static ORIGIN: RefCell<Option<Origin>> = const { RefCell::new(None) };
}

/// Runs `read`, which reads the result of the execution in `slot`: those that are found in it keep that one, and
/// have their home where it has its own.
pub(super) fn reading<R>(slot: &Arc<Slot>, ties: &Ties, read: impl FnOnce() -> R) -> R {
    if !named::is_needed() {
        return read();
    }
    let origin = Origin { slot: Arc::clone(slot), ties: ties.clone() };
    let _before = Before(ORIGIN.replace(Some(origin)));
    read()
}

/// What was being read before, also after a panic of a user's `Deserialize`.
struct Before(Option<Origin>);

impl Drop for Before {
    fn drop(&mut self) {
        ORIGIN.replace(self.0.take());
    }
}

/// The slot for an outcome of which a handle was read.
fn find(of: Awaited, cluster: ClusterId) -> (Arc<Slot>, Ties) {
    named::begin();
    let origin = ORIGIN.with_borrow(Clone::clone);
    // One that was made where the cluster has no name is of that in which it is read.
    let near = |origin: &Origin| {
        let its = origin.slot.cluster();
        cluster == its || cluster == ClusterId::default() || its == ClusterId::default()
    };
    let (home, ties, origin) = match origin.filter(near) {
        Some(Origin { slot, ties }) => (slot.home().clone(), ties, Some(slot)),
        None => {
            let (home, ties) = home::of_read(cluster);
            (home, ties, None)
        }
    };
    let cluster = match &origin {
        Some(origin) if cluster == ClusterId::default() => origin.cluster(),
        _ => cluster,
    };
    let slot = home.find(of).unwrap_or_else(|counted| {
        let (function, flattens, comes) = (None, false, false);
        let home = home.clone();
        let returns = None;
        Slot::new(Beginning {
            of,
            cluster,
            home,
            function,
            returns,
            origin,
            flattens,
            counted,
            comes,
        })
    });
    (slot, ties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_these() {
        let task = TaskId { batch: allhands_common::id::BatchId([7; 16]), index: 0x0102 };
        let of = Awaited { task, follow: true };
        let slot = Slot::new(Beginning {
            of,
            cluster: ClusterId([9; 16]),
            home: home::Home::Nowhere,
            function: None,
            returns: None,
            origin: None,
            flattens: false,
            counted: false,
            comes: false,
        });
        let bytes = write(&slot);
        assert_eq!((bytes[..2].to_vec(), &bytes[18..22]), (vec![1, 1], &[2, 1, 0, 0][..]));
        assert_eq!(read(&bytes), Some((of, ClusterId([9; 16]))));
        assert_eq!(task_of(&bytes), Some(task));
        for wrong in [&bytes[1..], &bytes[..37], &[bytes.as_slice(), &[0]].concat()] {
            assert_eq!(read(wrong), None);
        }
    }
}
