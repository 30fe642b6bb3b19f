//! Names of entries, found again and forged.

use proptest::prelude::*;

use super::*;
use crate::function::Value;

fn twin_a(n: u64) -> u64 {
    n + 1
}

fn twin_b(n: u64) -> u64 {
    n + 1
}

fn entry<F>(f: F) -> &'static Entry
where
    F: Function<(u64,), Ret = u64> + NoCapture,
{
    of::<F, (u64,), Value, NotATask>(&f)
}

#[test]
fn a_name_leads_back_to_its_entry() {
    let closure = entry(|n: u64| n * 3);
    for there in [entry(twin_a), entry(twin_b), closure] {
        let name = there.name().unwrap();
        assert_eq!(name.module, 0);
        assert!(std::ptr::eq(Entry::resolve(name).unwrap(), there));
    }
}

#[test]
fn functions_of_equal_code_have_names_of_their_own() {
    let (a, b) = (entry(twin_a), entry(twin_b));
    assert_ne!(a.name().unwrap(), b.name().unwrap());
    assert!(a.type_name().ends_with("twin_a") && b.type_name().ends_with("twin_b"));
    assert_ne!(a.type_id(), b.type_id());
    assert_eq!((a.arity(), a.result_type_name()), (1, "u64"));
}

#[test]
fn an_entry_outside_the_executable_has_no_name() {
    let &Entry { call, check, result_needs_names, type_name, result_type_name, .. } = entry(twin_a);
    let heap: &'static Entry = Box::leak(Box::new(Entry {
        magic: MAGIC,
        call,
        check,
        result_needs_names,
        debug: None,
        task: None,
        type_name,
        result_type_name,
        type_id: TypeId::of::<u8>(),
        arity: 1,
    }));
    let error = heap.name().unwrap_err().to_string();
    assert!(error.contains("twin_a` does not lie in the executable"), "{error}");
}

#[test]
fn forged_names_are_refused() {
    let honest = entry(twin_a).name().unwrap();
    let forge = |offset| FunctionName { module: 0, offset };
    let code = (entry(twin_a).call as usize - Program::this().unwrap().header) as u64;
    for name in [
        FunctionName { module: 1, ..honest },
        forge(0),
        forge(honest.offset + 1),
        forge(honest.offset + align_of::<Entry>() as u64),
        forge(honest.offset - align_of::<Entry>() as u64),
        forge(code & !0xf),
        forge(1 << 40),
        forge(u64::MAX),
        forge(u64::MAX - size_of::<Entry>() as u64 + 1),
    ] {
        let error = Entry::resolve(name).unwrap_err();
        assert_eq!(error, UnknownFunction { name });
        assert!(error.to_string().starts_with("no function at module"), "{error}");
    }
}

#[test]
fn the_magic_alone_is_not_believed() {
    // A whole record's worth of bytes in the data of the program that begins with the magic.
    #[repr(align(16))]
    struct Forged([u8; size_of::<Entry>()]);
    static FORGED: Forged = {
        let mut bytes = [0x41; size_of::<Entry>()];
        let mut at = 0;
        while at < MAGIC.len() {
            bytes[at] = MAGIC[at];
            at += 1;
        }
        Forged(bytes)
    };
    let offset = (FORGED.0.as_ptr().addr() - Program::this().unwrap().header) as u64;
    Entry::resolve(FunctionName { module: 0, offset }).unwrap_err();
}

proptest! {
    #[test]
    fn no_offset_crashes(offset in 0u64..(64 << 20)) {
        let found = Entry::resolve(FunctionName { module: 0, offset });
        if let Ok(entry) = found {
            prop_assert_eq!(entry.name().unwrap().offset, offset);
        }
    }
}

#[test]
fn a_call_reads_runs_and_writes() {
    let entry = entry(twin_a);
    let mut out = vec![0xee];
    let status = entry.call()(Codec::Bincode, &[&41u64.to_le_bytes()], &mut out);
    assert_eq!(status, CallStatus::Done);
    assert_eq!(out[1..], 42u64.to_le_bytes(), "appended");
}

#[test]
fn a_bad_argument_is_named() {
    let entry = entry(twin_a);
    let run = |args: &[&[u8]]| entry.call()(Codec::Bincode, args, &mut Vec::new());
    let CallStatus::BadArgument { position: 0, message } = run(&[&[1, 2]]) else { panic!() };
    assert!(message.contains("cannot decode `u64`"), "{message}");
    let CallStatus::BadArgument { position: 0, message } = run(&[]) else { panic!() };
    assert_eq!(message, "the function takes 1 arguments, not 0");
}
