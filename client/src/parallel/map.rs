//! `map_with`: the function of a task that is lent what all tasks share.
//!
//! The context travels once with the batch. Each thread of an executor decodes it once a batch and
//! lends it to every call.

use std::any::Any;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use allhands_common::id::BatchId;
use bytes::Bytes;

use crate::delayed::Delayed;
use crate::entry::{self, NotATask};
use crate::executor::context::with_context;
use crate::function::{Arg, Args, Function, NoCapture, Ret};
use crate::payload::{Codec, EncodeError, check_round_trip, decode, encode, needs_names};
use crate::shared::whole::Whole;
use crate::shared::{mention, task};

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
    static DECODED: RefCell<Option<Decoded>> = const { RefCell::new(None) };
}

/// A decoded context.
struct Decoded {
    batch: BatchId,
    context: Rc<dyn Any>,
    /// What every task that is lent it uses.
    in_place: Vec<Arc<Whole>>,
}

/// The context of the running task. It is kept for the next one.
fn lend<C: Arg + 'static>() -> Rc<C> {
    let lent = with_context(|bytes, batch| {
        let kept = DECODED.with_borrow(|kept| {
            let kept = kept.as_ref().filter(|kept| kept.batch == batch)?;
            Some((Rc::clone(&kept.context).downcast::<C>().ok()?, kept.in_place.clone()))
        });
        if let Some((context, in_place)) = kept {
            if let Err(cause) = task::uses_again(&in_place) {
                let text = cause.to_string();
                task::refuse(Some(cause));
                panic!("the context of `map_with` is not what it was: {text}");
            }
            return context;
        }
        let (context, in_place) = task::reading(|| read::<C>(bytes));
        let context = Rc::new(context);
        let kept = Rc::clone(&context) as Rc<dyn Any>;
        DECODED.set(Some(Decoded { batch, context: kept, in_place }));
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
        Some(Err(error)) => {
            // It may be for a handle that was not found: then that is what the task ends of.
            task::refuse(None);
            panic!("the context of `map_with` does not decode: {error}")
        }
        None => panic!("the context of `map_with` was damaged on the way"),
    }
}
