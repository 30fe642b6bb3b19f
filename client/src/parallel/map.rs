//! `map_with`: the function of a task that is lent what all tasks share.
//!
//! The context travels once with the batch. Each thread of an executor decodes it once a batch and
//! lends it to every call.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;

use allhands_common::id::BatchId;
use bytes::Bytes;

use crate::delayed::Delayed;
use crate::entry::{self, NotATask};
use crate::executor::context::with_context;
use crate::function::{Arg, Args, Function, NoCapture, Ret};
use crate::payload::{Codec, EncodeError, check_round_trip, decode, encode, needs_names};
use crate::shared::mention;

/// A function `F` of a context `C` and an item, as a function of the item. As large as `F`: nothing.
struct Lent<C, F>(F, PhantomData<fn() -> C>);

impl<C, F: Copy> Clone for Lent<C, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, F: Copy> Copy for Lent<C, F> {}

impl<C, I, F, R> Function<(I,)> for Lent<C, F>
where
    C: Arg + 'static,
    F: Fn(&C, I) -> R + NoCapture,
{
    type Ret = R;
    type Call<V> = fn(I) -> Delayed<V>;

    fn invoke(&self, (item,): (I,)) -> R {
        let context = lend::<C>();
        (self.0)(&context, item)
    }

    fn into_call<K>(self) -> fn(I) -> Delayed<R::Value>
    where
        Self: NoCapture,
        (I,): Args,
        R: Ret<K>,
    {
        fn call<C, I, F, R, K>(item: I) -> Delayed<R::Value>
        where
            C: Arg + 'static,
            F: Fn(&C, I) -> R + NoCapture,
            (I,): Args,
            R: Ret<K>,
        {
            let args = (item,);
            let entry = entry::of_type::<Lent<C, F>, (I,), K, NotATask>();
            Delayed::new(entry, |writer| args.put(writer))
        }
        call::<C, I, F, R, K>
    }
}

/// The calls of `f` with each item.
pub(super) fn calls<C, I, F, R, K>(
    items: I,
    f: F,
) -> impl Iterator<Item = Delayed<R::Value>> + use<C, I, F, R, K>
where
    C: Arg + 'static,
    I: IntoIterator<Item: Arg>,
    F: Fn(&C, I::Item) -> R + NoCapture,
    R: Ret<K>,
{
    items.into_iter().map(Lent::<C, F>(f, PhantomData).into_call::<K>())
}

/// A context as it travels: the codec, then its bytes.
pub(super) fn encode_context<C: Arg>(context: &C) -> Result<Bytes, EncodeError> {
    let write = |codec: Codec| {
        let mut bytes = vec![codec.byte()];
        mention::during(|| encode(codec, context, &mut bytes)).map(|()| bytes)
    };
    if !needs_names::<C>()
        && let Ok(bytes) = write(Codec::Bincode)
        && check_round_trip::<C>(Codec::Bincode, &bytes[1..]).is_ok()
    {
        return Ok(bytes.into());
    }
    write(Codec::Cbor).map(Bytes::from)
}

thread_local! {
    /// The context that this thread decoded last.
    static DECODED: RefCell<Option<(BatchId, Rc<dyn Any>)>> = const { RefCell::new(None) };
}

/// The context of the running task. It is kept for the next one.
fn lend<C: Arg + 'static>() -> Rc<C> {
    let lent = with_context(|bytes, batch| {
        let kept = DECODED.with_borrow(|kept| match kept {
            Some((of, context)) if *of == batch => Some(Rc::clone(context)),
            _ => None,
        });
        if let Some(context) = kept.and_then(|context| context.downcast::<C>().ok()) {
            return context;
        }
        let context = Rc::new(read::<C>(bytes));
        DECODED.set(Some((batch, Rc::clone(&context) as Rc<dyn Any>)));
        context
    });
    match lent {
        Some(context) => context,
        None => panic!("a function of `map_with` was called outside of a task"),
    }
}

/// A context that does not decode fails the task as a panic does: with this text.
fn read<C: Arg>(bytes: &[u8]) -> C {
    let decoded = match bytes.split_first() {
        Some((codec, bytes)) => Codec::from_byte(*codec).map(|codec| decode::<C>(codec, bytes)),
        None => None,
    };
    match decoded {
        Some(Ok(context)) => context,
        Some(Err(error)) => panic!("the context of `map_with` does not decode: {error}"),
        None => panic!("the context of `map_with` was damaged on the way"),
    }
}
