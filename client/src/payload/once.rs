//! Values that are one and the same whoever holds them, because they are behind an [`Arc`]: written once and
//! read once, however many calls carry them.
//!
//! Only arrays of numbers and texts are looked at. They are what is long, and nothing in them can change while
//! somebody holds the `Arc`.

use std::any::{Any, TypeId};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use allhands_common::blob::Content;
use allhands_common::id::ClusterId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Codec, DecodeError, EncodeError, decode, encode};
use crate::shared::task::lent_at;
use crate::shared::whole::Stored;

/// Shorter values are written each time: as quick as to look whether they were.
const BYTES_MIN: usize = 64 << 10;

/// Values that an executor keeps decoded: the most recently read ones.
const READ_MAX: usize = 4;

/// A long value, and all that was made of it.
pub(crate) struct Once {
    bytes: Vec<u8>,
    /// What it was stored as, and where.
    stored: Mutex<Option<Weak<Stored>>>,
    /// The `Arc`: as long as it is there, its address means this value.
    _value: Box<dyn Any + Send + Sync>,
}

impl Once {
    /// The value, encoded.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it is as a blob of `cluster`, stored with `store` unless it is; and whether it was stored now.
    pub(crate) fn stored<E>(
        &self,
        cluster: ClusterId,
        store: impl FnOnce(&[u8]) -> Result<Arc<Stored>, E>,
    ) -> Result<(Arc<Stored>, bool), E> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = stored.as_ref().and_then(Weak::upgrade)
            && known.cluster() == cluster
        {
            return Ok((known, false));
        }
        let new = store(&self.bytes)?;
        *stored = Some(Arc::downgrade(&new));
        Ok((new, true))
    }
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Once({} bytes)", self.bytes.len())
    }
}

/// An `Arc` that was recognised.
struct Known {
    address: usize,
    bytes: usize,
    clone: Box<dyn Any + Send + Sync>,
}

fn known<T: 'static>(value: &T) -> Option<Known> {
    macro_rules! arcs {
        ($value:ident: $($arc:ty),*) => {$(
            if let Some(arc) = $value.downcast_ref::<$arc>() {
                let (address, bytes) = (Arc::as_ptr(arc).cast::<()>().addr(), size_of_val(&arc[..]));
                return Some(Known { address, bytes, clone: Box::new(Arc::clone(arc)) });
            }
        )*};
    }
    macro_rules! arrays {
        ($value:ident: $($element:ty),*) => {$(
            arcs!($value: Arc<Vec<$element>>, Arc<[$element]>);
        )*};
    }
    let value: &dyn Any = value;
    arrays!(value: u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char);
    arcs!(value: Arc<String>, Arc<str>);
    None
}

/// Which value: its `Arc`'s address and type, and the codec.
type Key = (usize, TypeId, Codec);

/// What was written and is still held.
static WRITTEN: Mutex<Vec<(Key, Weak<Once>)>> = Mutex::new(Vec::new());

/// `value` as it was written before, or is now; `None` if it is to be written as any other.
pub(super) fn write<T: Serialize + 'static>(
    codec: Codec,
    value: &T,
) -> Result<Option<Arc<Once>>, EncodeError> {
    let Some(known) = known(value).filter(|known| known.bytes >= BYTES_MIN) else {
        return Ok(None);
    };
    let key = (known.address, TypeId::of::<T>(), codec);
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    written.retain(|(_, once)| once.strong_count() > 0);
    let found = written.iter().find(|(other, _)| *other == key);
    if let Some(once) = found.and_then(|(_, once)| once.upgrade()) {
        return Ok(Some(once));
    }
    drop(written);
    let mut bytes = Vec::with_capacity(known.bytes + 16);
    encode(codec, value, &mut bytes)?;
    let once = Arc::new(Once { bytes, stored: Mutex::default(), _value: known.clone });
    let mut written = WRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    written.push((key, Arc::downgrade(&once)));
    Ok(Some(once))
}

/// A value that was read, of which content.
struct Read {
    content: Content,
    codec: Codec,
    value: Box<dyn Any + Send + Sync>,
}

/// What was read last, the latest behind.
static READ: Mutex<Vec<Read>> = Mutex::new(Vec::new());

/// The value in `bytes`, which are those of an argument. An `Arc` of a blob is the same for all calls that
/// carry it.
#[inline]
pub(crate) fn read<T: DeserializeOwned + 'static>(
    codec: Codec,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    match lent_at(bytes) {
        Some(content) => read_lent(content, codec, bytes),
        None => decode(codec, bytes),
    }
}

#[cold]
fn read_lent<T: DeserializeOwned + 'static>(
    content: Content,
    codec: Codec,
    bytes: &[u8],
) -> Result<T, DecodeError> {
    let clone_of = |value: &T| known(value)?.clone.downcast::<T>().ok();
    let mut all = READ.lock().unwrap_or_else(PoisonError::into_inner);
    let is_it = |read: &Read| read.content == content && read.codec == codec;
    if let Some(at) = all.iter().position(|read| is_it(read) && read.value.is::<T>()) {
        let read = all.remove(at);
        let value = read.value.downcast_ref::<T>().and_then(clone_of);
        all.push(read);
        if let Some(value) = value {
            return Ok(*value);
        }
    }
    drop(all);
    let value = decode::<T>(codec, bytes)?;
    if let Some(known) = known(&value) {
        let mut all = READ.lock().unwrap_or_else(PoisonError::into_inner);
        // Another lane may have read it meanwhile.
        let there = all.iter().any(|read| is_it(read) && read.value.is::<T>());
        let oldest = (!there && all.len() >= READ_MAX).then(|| all.remove(0));
        if !there {
            all.push(Read { content, codec, value: known.clone });
        }
        drop(all);
        drop(oldest);
    }
    Ok(value)
}

/// A batch is over, and with it most likely what was read for it.
pub(crate) fn forget_what_was_read() {
    let forgotten = std::mem::take(&mut *READ.lock().unwrap_or_else(PoisonError::into_inner));
    drop(forgotten);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_written_once_while_it_is_held() {
        let array = Arc::new(vec![7u64; 10_000]);
        let first = write(Codec::Bincode, &array).unwrap().unwrap();
        let again = write(Codec::Bincode, &Arc::clone(&array)).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(decode::<Vec<u64>>(Codec::Bincode, first.bytes()).unwrap(), *array);
        let other = write(Codec::Cbor, &array).unwrap().unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        let equal = write(Codec::Bincode, &Arc::new(vec![7u64; 10_000])).unwrap().unwrap();
        assert!(!Arc::ptr_eq(&first, &equal), "equal is not the same");
    }

    #[test]
    fn it_is_stored_once_a_cluster_while_somebody_holds_it() {
        let array = Arc::new(vec![7u8; BYTES_MIN]);
        let once = write(Codec::Bincode, &array).unwrap().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = [1, 2].map(|name| ClusterId([name; 16]));
        let store = allhands_store::blobs::Store::open(dir.path(), one, 16 << 20).unwrap();
        let times = std::cell::Cell::new(0);
        let stored = |cluster: ClusterId| {
            let put = |bytes: &[u8]| {
                times.set(times.get() + 1);
                let blob = store.put_bytes(bytes).unwrap();
                Ok::<_, std::convert::Infallible>(Arc::new(Stored::here(cluster, blob)))
            };
            once.stored(cluster, put).unwrap().0
        };
        let (first, again) = (stored(one), stored(one));
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!((first.reference().bytes, times.get()), (once.bytes().len() as u64, 1));
        stored(other);
        assert_eq!(times.get(), 2, "another cluster has its own");
    }

    #[test]
    fn an_address_that_is_used_again_is_another_value() {
        let mut last = None;
        for number in 0..50u64 {
            // As a rule the allocator gives the address that was just freed.
            let array: Arc<[u64]> = vec![number; 10_000].into();
            let once = write(Codec::Bincode, &array).unwrap().unwrap();
            drop(array);
            let read = decode::<Vec<u64>>(Codec::Bincode, once.bytes()).unwrap();
            assert_eq!(read[9_999], number);
            last = (number % 3 == 0).then_some(once);
        }
        drop(last);
    }

    #[test]
    fn what_is_short_or_may_change_is_written_as_ever() {
        assert!(write(Codec::Bincode, &Arc::new(vec![1u8; 100])).unwrap().is_none());
        let inner = Arc::new(Mutex::new(vec![1u8; 100_000]));
        assert!(write(Codec::Bincode, &inner).unwrap().is_none());
        assert!(write(Codec::Bincode, &vec![1u8; 100_000]).unwrap().is_none());
    }
}
