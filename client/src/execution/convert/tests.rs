//! Each conversion, by hand: what is written, and what its entry makes of outcomes.

use allhands_common::execution::{Awaited, StandIn};
use allhands_common::id::{BatchId, TaskId};

use super::*;
use crate::Delayed;
use crate::entry::{CallStatus, Entry};
use crate::execution::tests::unknown;
use crate::payload::{decode, encode};

const CODECS: [Codec; 2] = [Codec::Bincode, Codec::Cbor];

fn task(index: u32) -> TaskId {
    TaskId { batch: BatchId([7; 16]), index }
}

fn string<T: Serialize>(codec: Codec, value: &T) -> Vec<u8> {
    let mut string = vec![codec.byte()];
    encode(codec, value, &mut string).unwrap();
    string
}

/// What the only argument of `call` is made of, and how.
fn filling_of<R>(call: &Delayed<R>) -> (Filling, Vec<(TaskId, Need, u8)>) {
    assert_eq!(call.encoded().stand_ins(), 1);
    let string = call.arguments().next().unwrap();
    let Some(StandIn::Outcomes(filling)) = StandIn::from_bytes(string) else { panic!() };
    let needs = call.needs().iter().map(|named| (named.slot.of().task, named.need, named.place));
    (filling, needs.collect())
}

/// Makes the argument of these outcomes, in each codec out of each.
fn made<T: DeserializeOwned, O: Serialize>(filling: &Filling, outcomes: &[O]) -> Vec<T> {
    let call = Entry::resolve(filling.made_by).unwrap().call();
    let mut all = Vec::new();
    for (from, to) in CODECS.into_iter().flat_map(|from| CODECS.map(|to| (from, to))) {
        let strings: Vec<Vec<u8>> = outcomes.iter().map(|one| string(from, one)).collect();
        let strings: Vec<&[u8]> = strings.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        assert_eq!(call(to, &strings, &mut out), CallStatus::Done);
        all.push(decode(to, &out).unwrap());
    }
    all
}

/// A call with this one argument.
fn given<T: Arg>(argument: impl IntoArg<T>) -> Delayed<T> {
    crate::call(|value: T| value, (argument,))
}

#[test]
fn a_value_is_passed_as_it_is() {
    let (filling, needs) = filling_of(&given::<String>(&unknown::<String>(task(3))));
    assert_eq!((filling.plain, &filling.of[..]), (true, &[task(3)][..]));
    assert_eq!(needs, [(task(3), Need::Returned, 0)]);
    assert_eq!(made::<String, _>(&filling, &["abc"]), vec!["abc".to_owned(); 4]);
    let (owned, _) = filling_of(&given::<String>(unknown::<String>(task(3))));
    assert_eq!(owned, filling);
}

#[test]
fn of_a_result_there_is_its_ok_or_all_of_it() {
    type Loaded = Result<u64, String>;
    let execution = unknown::<Loaded>(task(1));
    let (value, needs) = filling_of(&given::<u64>(&execution));
    assert_eq!((value.plain, needs), (false, vec![(task(1), Need::Value, 0)]));
    assert_eq!(made::<u64, Loaded>(&value, &[Ok(7)]), [7; 4]);
    let (whole, needs) = filling_of(&given::<Loaded>(&execution));
    assert_eq!((whole.plain, needs), (true, vec![(task(1), Need::Returned, 0)]));
    for loaded in [Ok(7), Err("no".to_owned())] {
        assert_eq!(made::<Loaded, Loaded>(&whole, std::slice::from_ref(&loaded)), vec![loaded; 4]);
    }
}

#[test]
fn what_executions_lead_to_is_passed() {
    let (filling, needs) = filling_of(&given::<u8>(&unknown::<Execution<u8>>(task(1))));
    assert_eq!((filling.plain, needs), (true, vec![(task(1), Need::Returned, 0)]));
    let fallible = &unknown::<Result<Execution<u8>, String>>(task(1));
    let (filling, needs) = filling_of(&given::<u8>(fallible));
    assert_eq!((filling.plain, needs), (true, vec![(task(1), Need::Value, 0)]));
    let inner = &unknown::<Execution<Result<u8, String>>>(task(1));
    let (filling, needs) = filling_of(&given::<u8>(inner));
    assert_eq!((filling.plain, needs), (false, vec![(task(1), Need::Value, 0)]));
    assert_eq!(made::<u8, Result<u8, String>>(&filling, &[Ok(7)]), [7; 4]);
    let both = &unknown::<Result<Execution<Result<u8, String>>, u8>>(task(1));
    assert_eq!(filling_of(&given::<u8>(both)).0.made_by, filling.made_by);
}

#[test]
fn several_become_one_argument() {
    let all: Vec<_> = (0..3).map(|index| unknown::<u16>(task(index))).collect();
    let (many, needs) = filling_of(&given::<Vec<u16>>(&all));
    assert_eq!((many.plain, &many.of[..]), (false, &[task(0), task(1), task(2)][..]));
    assert_eq!(needs, [0, 1, 2].map(|index| (task(index), Need::Returned, 0)));
    assert_eq!(made::<Vec<u16>, _>(&many, &[5u16, 6, 7]), vec![vec![5u16, 6, 7]; 4]);
    assert_eq!(filling_of(&given::<Vec<u16>>(&all[..])).0.made_by, many.made_by);
    let lent = made::<Slice<u16>, _>(&filling_of(&given::<Slice<u16>>(&all)).0, &[5u16, 6]);
    assert_eq!(lent, vec![Slice::from(vec![5u16, 6]); 4]);
    let none = filling_of(&given::<Vec<u16>>(&Vec::<Execution<u16>>::new())).0;
    let mut out = Vec::new();
    Entry::resolve(none.made_by).unwrap().call()(Codec::Bincode, &[], &mut out);
    assert!(decode::<Vec<u16>>(Codec::Bincode, &out).unwrap().is_empty());
}

#[test]
fn a_vec_is_lent_as_a_slice() {
    let (lent, _) = filling_of(&given::<Slice<u16>>(&unknown::<Vec<u16>>(task(1))));
    assert!(lent.plain);
    assert_eq!(made::<Slice<u16>, _>(&lent, &[vec![5u16]]), vec![Slice::from(vec![5u16]); 4]);
    let fallible = unknown::<Result<Vec<u16>, u8>>(task(1));
    let (lent, _) = filling_of(&given::<Slice<u16>>(&fallible));
    let made = made::<Slice<u16>, Result<Vec<u16>, u8>>(&lent, &[Ok(vec![5])]);
    assert_eq!((lent.plain, made), (false, vec![Slice::from(vec![5u16]); 4]));
}

#[test]
fn a_handle_is_an_argument_and_what_is_nested_is_named() {
    let execution = unknown::<u8>(task(1));
    let handle = given::<Execution<u8>>(&execution);
    let needs = |call: &[named::Named]| -> Vec<(TaskId, Need)> {
        call.iter().map(|named| (named.slot.of().task, named.need)).collect()
    };
    assert_eq!(handle.encoded().stand_ins(), 0);
    assert_eq!(needs(handle.needs()), [(task(1), Need::Handle)]);
    let bytes = handle.arguments().next().unwrap();
    assert_eq!(decode::<Execution<u8>>(handle.codec(), bytes).unwrap().id(), task(1));
    let nested = given::<Vec<Option<Execution<u8>>>>(vec![None, Some(execution)]);
    assert_eq!(needs(nested.needs()), [(task(1), Need::Handle)]);
    assert!(given::<u8>(7).needs().is_empty(), "what others have named is theirs");
}

#[test]
fn of_an_execution_of_executions_the_handle_follows() {
    let outer = unknown::<Execution<u8>>(task(1));
    let call = given::<Execution<u8>>(&outer);
    // It is a handle on the same task, but on what that leads to.
    assert_eq!((call.encoded().stand_ins(), call.needs()[0].need), (0, Need::Handle));
    let bytes = call.arguments().next().unwrap();
    let read: Execution<u8> = decode(call.codec(), bytes).unwrap();
    assert_eq!(read.slot.of(), Awaited { task: task(1), follow: true });
    let fallible = unknown::<Result<Execution<u8>, u8>>(task(1));
    let error = given::<Result<Execution<u8>, u8>>(&fallible).take_error().unwrap().to_string();
    assert!(error.contains("give its value"), "{error}");
}

#[test]
fn a_value_that_needs_names_has_the_call_written_with_names() {
    let call = given::<serde_json::Value>(&unknown::<serde_json::Value>(task(1)));
    assert_eq!(call.codec(), Codec::Cbor);
    assert_eq!(filling_of(&call).1.len(), 1, "what was written in vain is not named twice");
}

#[test]
fn damaged_outcomes_are_refused() {
    let filling = filling_of(&given::<u64>(&unknown::<Result<u64, u8>>(task(1)))).0;
    let call = Entry::resolve(filling.made_by).unwrap().call();
    let err = string(Codec::Bincode, &Err::<u64, u8>(1));
    for strings in [&[][..], &[&[][..]], &[&[9, 1]], &[&[1, 5, 5]], &[&err[..]]] {
        let status = call(Codec::Bincode, strings, &mut Vec::new());
        assert!(matches!(status, CallStatus::BadArgument { .. }), "{status:?} of {strings:?}");
    }
}
