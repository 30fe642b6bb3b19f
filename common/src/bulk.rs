//! Bulk bytes of a message: segments, contexts, chunks. They ride behind the encoded message and
//! never pass through the codec, which only sees their length.
//!
//! A type that has [`Bulk`] fields says where they are ([`Carries`]); [`gather`] collects their bytes
//! for the frame in that order and [`attach`] hands them out again on the other side.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that travel outside the codec. Encodes as its length alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bulk {
    announced: u32,
    /// The bytes; empty between decoding and [`attach`].
    pub bytes: Bytes,
}

impl From<Bytes> for Bulk {
    fn from(bytes: Bytes) -> Self {
        Self { announced: 0, bytes }
    }
}

impl Serialize for Bulk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let length = u32::try_from(self.bytes.len()).map_err(serde::ser::Error::custom)?;
        serializer.serialize_u32(length)
    }
}

impl<'de> Deserialize<'de> for Bulk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { announced: u32::deserialize(deserializer)?, bytes: Bytes::new() })
    }
}

/// A message that knows its bulk.
pub trait Carries {
    /// Visits every [`Bulk`] of the value, always in the same order.
    fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk));
}

/// Announced and carried bytes differ: the message was damaged or forged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message announces {announced} bulk bytes and {carried} came with it")]
pub struct BulkMismatch {
    announced: usize,
    carried: usize,
}

/// All bulk of `message`, one after the other. Copies only where there is more than one.
pub fn gather<T: Carries>(message: &mut T) -> Bytes {
    let mut parts: Vec<Bytes> = Vec::new();
    message.each_bulk(&mut |bulk| {
        if !bulk.bytes.is_empty() {
            parts.push(bulk.bytes.clone());
        }
    });
    if parts.len() < 2 {
        return parts.pop().unwrap_or_default();
    }
    let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| whole.extend_from_slice(part));
    whole.freeze()
}

/// Hands `bulk` out to the fields of a decoded `message`.
///
/// # Errors
/// When the announced lengths do not add up to the bytes that came.
pub fn attach<T: Carries>(message: &mut T, mut bulk: Bytes) -> Result<(), BulkMismatch> {
    let (mut announced, carried) = (0usize, bulk.len());
    message.each_bulk(&mut |field| {
        let length = field.announced as usize;
        announced = announced.saturating_add(length);
        if length <= bulk.len() {
            field.bytes = bulk.split_to(length);
        }
    });
    if announced != carried {
        return Err(BulkMismatch { announced, carried });
    }
    Ok(())
}

/// Whether a decoded `message` announces the `carried` bytes that came with it, before they are handed out.
///
/// # Errors
/// When it does not.
pub fn check<T: Carries>(message: &mut T, carried: usize) -> Result<(), BulkMismatch> {
    let mut announced = 0usize;
    message.each_bulk(&mut |field| announced = announced.saturating_add(field.announced as usize));
    if announced == carried { Ok(()) } else { Err(BulkMismatch { announced, carried }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Two(Bulk, u8, Bulk);

    impl Carries for Two {
        fn each_bulk(&mut self, visit: &mut dyn FnMut(&mut Bulk)) {
            visit(&mut self.0);
            visit(&mut self.2);
        }
    }

    #[test]
    fn bulk_rides_behind_the_message() {
        let mut sent = Two(Bytes::from_static(b"abc").into(), 7, Bytes::from_static(b"de").into());
        let bulk = gather(&mut sent);
        let mut head = Vec::new();
        codec::encode(&sent, &mut head).unwrap();
        assert_eq!((head.as_slice(), bulk.as_ref()), (&[3, 7, 2][..], &b"abcde"[..]));
        let mut got: Two = codec::decode(&head).unwrap();
        attach(&mut got, bulk.clone()).unwrap();
        assert_eq!((got.0.bytes, got.2.bytes), (sent.0.bytes, sent.2.bytes));
        let mut short: Two = codec::decode(&head).unwrap();
        assert!(attach(&mut short, bulk.slice(1..)).is_err());
        assert!(check(&mut short, 5).is_ok());
        assert!(check(&mut short, 4).is_err());
    }
}
