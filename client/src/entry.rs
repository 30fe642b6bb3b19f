//! The record of a function in the program, and its name between processes.
//!
//! Every function that is delayed somewhere has one read-only [`Entry`] in the executable: its
//! trampoline and what is known of its types. It is named by the record's offset from the ELF header
//! of its module, so the name is the same in every process that runs the same executable. Code has no
//! name: a release build merges functions with equal code, and then several share an address.
//!
//! An offset that came from outside is believed only if it lies in a readable segment of the file, is
//! aligned, and the record there carries the magic and points into executable code.
//!
//! This file holds the crate's `unsafe`: reading the process's own ELF headers and records, and
//! re-creating a function of size zero.
#![expect(unsafe_code, reason = "reads the program's own records; see each block")]

use std::any::{TypeId, type_name};
use std::future::Future;
use std::marker::PhantomData;
use std::mem::{align_of, offset_of, size_of};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::LazyLock;

use allhands_common::function::FunctionName;
use allhands_common::id::TaskId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::execution::convert::Conversion;
use crate::execution::{fill, named};
use crate::function::{Args, BadArgument, Function, NoCapture, Ret};
use crate::judge::{self, Judge, Recurs, RetryWhen};
use crate::payload::{Codec, check_round_trip, encode, kind_status, needs_names};
use crate::registry::{Task, known};
use crate::shared::mention;

/// Names of generic types can be of any length, and stand in the log.
const RETURNS_BYTES_MAX: usize = 256;

/// Runs a function: reads one byte string per argument, calls it on this thread, appends its encoded
/// result to `out`. It does not catch panics.
pub type CallFn = fn(codec: Codec, args: &[&[u8]], out: &mut Vec<u8>) -> CallStatus;

/// Begins a function whose future may be polled by any thread: reads one byte string per argument, and polls nothing
/// yet. It does not catch panics.
pub type BeginFn = fn(&'static Entry, Codec, &[&[u8]]) -> CallFuture;

/// A call that has begun: a future of how it ends, and of its encoded result.
pub type CallFuture = Pin<Box<dyn Future<Output = (CallStatus, Vec<u8>)> + Send>>;

/// Reads encoded arguments, those aside for which something stands in.
type CheckFn = fn(Codec, &[&[u8]], u8) -> Result<(), BadArgument>;

/// Formats encoded arguments for people.
pub type DebugFn = fn(codec: Codec, args: &[&[u8]]) -> String;

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallStatus {
    /// `out` holds the result.
    Done,
    /// The function returned `Err`; `out` holds the whole `Result`.
    Failed,
    /// The function returned an execution, or an `Ok` of one; `out` holds the whole result. What comes of this
    /// task is what comes of the call.
    Forwarded(TaskId),
    /// There is no result yet: it is to be run again.
    Again,
    /// An argument could not be decoded; the function did not run.
    BadArgument {
        /// Which one, from 0.
        position: u8,
        /// Why not; names the type.
        message: String,
    },
    /// The function ran, and its result could not be encoded.
    BadResult {
        /// Why not; names the type.
        message: String,
    },
}

/// What marks a record. Stored by every entry, and looked for before one is believed.
const MAGIC: [u8; 16] = *b"\x7fallhands-entry\x01";

/// The record of one function of the program.
#[repr(C)]
pub struct Entry {
    magic: [u8; 16],
    call: CallFn,
    check: CheckFn,
    result_needs_names: fn() -> bool,
    debug: Option<DebugFn>,
    task: Option<&'static Task>,
    type_name: fn() -> &'static str,
    result_type_name: fn() -> &'static str,
    type_id: TypeId,
    arity: u8,
}

impl Entry {
    /// The trampoline.
    pub const fn call(&self) -> CallFn {
        self.call
    }

    /// Arguments that the function takes.
    pub const fn arity(&self) -> u8 {
        self.arity
    }

    /// The function's type, for people: its path.
    pub fn type_name(&self) -> &'static str {
        (self.type_name)()
    }

    /// The type of its result, for people.
    pub fn result_type_name(&self) -> &'static str {
        (self.result_type_name)()
    }

    /// The same, no longer than what a batch says of each of its functions.
    pub(crate) fn returns(&self) -> &'static str {
        let name = self.result_type_name();
        &name[..name.floor_char_boundary(RETURNS_BYTES_MAX)]
    }

    /// What `#[task]` formats its arguments with, for functions that have it.
    pub const fn debug(&self) -> Option<DebugFn> {
        self.debug
    }

    /// The function's type.
    pub(crate) const fn type_id(&self) -> TypeId {
        self.type_id
    }

    /// The `#[task]` that made this entry; [`registry`](crate::registry) knows those of `delayed`.
    pub(crate) const fn own_task(&self) -> Option<&'static Task> {
        self.task
    }

    /// Whether encoded arguments can be read back, those aside for which something stands in, a bit each.
    pub(crate) fn check(
        &self,
        codec: Codec,
        args: &[&[u8]],
        stand_ins: u8,
    ) -> Result<(), BadArgument> {
        (self.check)(codec, args, stand_ins)
    }

    /// Whether its result cannot travel as bincode.
    pub(crate) fn result_needs_names(&self) -> bool {
        (self.result_needs_names)()
    }

    /// The function's name between processes that run this program.
    ///
    /// # Errors
    ///
    /// The function does not lie in the executable (a plugin, an extension module, a notebook cell).
    pub fn name(&'static self) -> Result<FunctionName, NotInExecutable> {
        let refused = || NotInExecutable { function: self.type_name() };
        let program = Program::this().ok_or_else(refused)?;
        let offset = (&raw const *self).addr().wrapping_sub(program.header) as u64;
        if !program.holds(offset, size_of::<Self>(), Access::Read) {
            return Err(refused());
        }
        Ok(FunctionName { module: 0, offset })
    }

    /// The function of that name in this program.
    ///
    /// # Errors
    ///
    /// The name is not that of a record of this program.
    pub fn resolve(name: FunctionName) -> Result<&'static Self, UnknownFunction> {
        Self::find(name).ok_or(UnknownFunction { name })
    }

    fn find(name: FunctionName) -> Option<&'static Self> {
        let program = Program::this().filter(|_| name.module == 0)?;
        if !program.holds(name.offset, size_of::<Self>(), Access::Read) {
            return None;
        }
        let address = program.header + usize::try_from(name.offset).ok()?;
        if !address.is_multiple_of(align_of::<Self>()) {
            return None;
        }
        let record = std::ptr::with_exposed_provenance::<Self>(address);
        // SAFETY: `address` is aligned, and the size of an entry from it on lies in a readable
        // segment of the program, which is mapped for as long as the process lives.
        let magic = unsafe { record.cast::<[u8; 16]>().read_volatile() };
        let call = std::ptr::with_exposed_provenance::<usize>(address + offset_of!(Self, call));
        // SAFETY: as above, further on in the record; read as a number, not as a function yet.
        let call = unsafe { call.read_volatile() };
        let code = call.wrapping_sub(program.header) as u64;
        if magic != MAGIC || !program.holds(code, 1, Access::Execute) {
            return None;
        }
        // SAFETY: an aligned record of this program with the magic and a pointer into code behind
        // it: only a `static` entry made by `Typed` looks like this, and those are never written.
        Some(unsafe { &*record })
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({}, {} arguments)", self.type_name(), self.arity)
    }
}

/// A function cannot be named: it lies outside the executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "`{function}` does not lie in the executable (it is part of a plugin, an extension module or a \
     notebook cell), so other processes cannot find it: move it into the program"
)]
pub struct NotInExecutable {
    /// Its path.
    pub function: &'static str,
}

/// A name is not that of a function of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "no function at module {}, offset {:#x} of this program: the executor runs another program \
     than the client, or the message was damaged",
    name.module,
    name.offset
)]
pub struct UnknownFunction {
    /// The name.
    pub name: FunctionName,
}

/// What `#[task]` knows at compile time of the function that it is on.
pub trait Marker: 'static {
    /// The task.
    const TASK: Option<&'static Task>;
    /// Formats its arguments.
    const DEBUG: Option<DebugFn>;
}

/// Marks a function that came through `delayed`.
#[derive(Debug)]
pub(crate) enum NotATask {}

impl Marker for NotATask {
    const TASK: Option<&'static Task> = None;
    const DEBUG: Option<DebugFn> = None;
}

struct Typed<F, A, K, M>(PhantomData<(F, A, K, M)>);

impl<F, A, K, M> Typed<F, A, K, M>
where
    F: Function<A> + NoCapture,
    A: Args,
    F::Ret: Ret<K>,
    M: Marker,
{
    const ENTRY: &'static Entry = {
        assert!(
            size_of::<F>() == 0,
            "this closure captures a variable, or is a function pointer: a task runs in another \
             process, so pass what it needs as an argument, or share it with \
             `map_with(context, items, f)`"
        );
        &Entry {
            magic: MAGIC,
            call: Self::call,
            check: A::check,
            result_needs_names: needs_names::<<F::Ret as Ret<K>>::Value>,
            debug: M::DEBUG,
            task: M::TASK,
            type_name: type_name::<F>,
            result_type_name: type_name::<<F::Ret as Ret<K>>::Value>,
            type_id: TypeId::of::<F>(),
            arity: A::ARITY,
        }
    };

    fn call(codec: Codec, args: &[&[u8]], out: &mut Vec<u8>) -> CallStatus {
        let args = match A::take(codec, args) {
            Ok(args) => args,
            Err(BadArgument { position, message }) => {
                return CallStatus::BadArgument { position, message };
            }
        };
        // SAFETY: `F` has size 0 (asserted by `ENTRY`), so any aligned non-null address holds one.
        // It is inhabited: the only ways to this code, `of` and `Function::into_call`, were given a
        // value. It is `Copy + Send + Sync + 'static`, so one more of it on this thread is no more
        // than a copy; a captured proof about another process is the documented exception.
        let function: &F = unsafe { NonNull::dangling().as_ref() };
        let value = function.invoke(args).into_value();
        write(Self::ENTRY, codec, &value, out)
    }
}

/// Appends an encoded result to `out`.
fn write<R>(entry: &'static Entry, codec: Codec, value: &R, out: &mut Vec<u8>) -> CallStatus
where
    R: Serialize + DeserializeOwned,
{
    let start = out.len();
    // What it holds handles on is noted: executions by their tasks, arrays for whoever passes it on.
    let encoded = named::during(0, || mention::during(|| encode(codec, value, out)));
    if let Err(error) = encoded {
        out.truncate(start);
        return CallStatus::BadResult { message: error.to_string() };
    }
    if known(entry).is_first_result()
        && let Err(error) = check_round_trip::<R>(codec, &out[start..])
    {
        out.truncate(start);
        return CallStatus::BadResult { message: error.to_string() };
    }
    kind_status(value)
}

/// What `#[task]` asks whether calls of an `async fn` may go from thread to thread: where the future is `Send`, `begin`
/// is the one here, else that of [`Stays`]. A bound would ask too early: an `async fn` whose body submits itself has no
/// future yet of which that could be known.
#[derive(Debug)]
pub struct Begins<F, A, K>(PhantomData<(F, A, K)>);

impl<F, A, K> Begins<F, A, K>
where
    F: Function<A, Ret: Future<Output: Ret<K>>>,
{
    /// Of this function.
    pub fn of(_function: &F) -> Self {
        Self(PhantomData)
    }
}

/// The answer for a future that stays with its thread.
pub trait Stays {
    /// None.
    fn begin(&self) -> Option<BeginFn>;
}

impl<F, A, K> Stays for Begins<F, A, K> {
    fn begin(&self) -> Option<BeginFn> {
        None
    }
}

impl<F, A, K> Begins<F, A, K>
where
    F: Function<A, Ret: Future<Output: Ret<K>> + Send + 'static> + NoCapture,
    A: Args,
{
    /// What begins its calls.
    pub fn begin(&self) -> Option<BeginFn> {
        const { assert!(size_of::<F>() == 0, "a function item holds nothing") };
        Some(Self::call)
    }

    fn call(entry: &'static Entry, codec: Codec, args: &[&[u8]]) -> CallFuture {
        let args = match A::take(codec, args) {
            Ok(args) => args,
            Err(BadArgument { position, message }) => {
                let refused = CallStatus::BadArgument { position, message };
                return Box::pin(std::future::ready((refused, Vec::new())));
            }
        };
        // SAFETY: `F` has size 0 (asserted by `begin`, the only way to this code), so any aligned non-null
        // address holds one. It is inhabited: `of` was given a value. It is `Copy + Send + Sync + 'static`,
        // so one more of it on this thread is no more than a copy.
        let function: &F = unsafe { NonNull::dangling().as_ref() };
        let future = function.invoke(args);
        Box::pin(async move {
            let value = future.await.into_value();
            let mut out = Vec::new();
            (write(entry, codec, &value, &mut out), out)
        })
    }
}

/// The record of what makes an argument of outcomes.
struct Converts<C>(PhantomData<C>);

impl<C: Conversion> Converts<C> {
    const ENTRY: &'static Entry = &Entry {
        magic: MAGIC,
        call: fill::convert::<C>,
        check: |_, _, _| Ok(()),
        result_needs_names: || needs_names::<C::Reads>() || needs_names::<C::Writes>(),
        debug: None,
        task: None,
        type_name: type_name::<C>,
        result_type_name: type_name::<C::Writes>,
        type_id: TypeId::of::<C>(),
        arity: 1,
    };
}

/// The record of a predicate on failures of a task that returns `R`.
struct Judges<F, R, K>(PhantomData<(F, R, K)>);

impl<R, K, F: RetryWhen<R, K>> Judges<F, R, K> {
    const ENTRY: &'static Entry = {
        assert!(
            size_of::<F>() == 0,
            "this predicate captures a variable, or is a function pointer: it runs in another process"
        );
        &Entry {
            magic: MAGIC,
            call: Self::call,
            check: |_, _, _| Ok(()),
            result_needs_names: || false,
            debug: None,
            task: None,
            type_name: type_name::<F>,
            result_type_name: type_name::<bool>,
            type_id: TypeId::of::<F>(),
            arity: 2,
        }
    };

    /// `Done` means yes, anything else no.
    fn call(codec: Codec, strings: &[&[u8]], _: &mut Vec<u8>) -> CallStatus {
        // SAFETY: `F` has size 0 (asserted by `ENTRY`), so any aligned non-null address holds one.
        // It is inhabited: the only way to this code, `judge_of`, was given a value. It is
        // `Copy + Send + Sync + 'static`, so one more of it on this thread is no more than a copy.
        let predicate: &F = unsafe { NonNull::dangling().as_ref() };
        let answer = judge::judged(strings).and_then(|judged| predicate.judge(codec, judged));
        match answer {
            // Who cannot tell says nothing against it.
            Some(true) | None => CallStatus::Done,
            Some(false) => CallStatus::Failed,
        }
    }
}

/// The entry of a predicate.
pub(crate) const fn judge_of<R, F: RetryWhen<R, K>, K>(_predicate: &F) -> Judge {
    Judge(Judges::<F, R, K>::ENTRY)
}

/// The same, for what `#[task]` knows: the type `O` that its function returns.
pub const fn judge_of_output<O: Ret<L>, L, F: RetryWhen<O::Value, K>, K>(predicate: &F) -> Judge {
    judge_of::<O::Value, F, K>(predicate)
}

/// The record of what makes a result of what a recurrent task returns.
struct Recurrence<R>(PhantomData<R>);

impl<R: Recurs> Recurrence<R> {
    const ENTRY: &'static Entry = &Entry {
        magic: MAGIC,
        call: judge::call_recurs::<R>,
        check: |_, _, _| Ok(()),
        result_needs_names: || false,
        debug: None,
        task: None,
        type_name: type_name::<R>,
        result_type_name: type_name::<R::Value>,
        type_id: TypeId::of::<R>(),
        arity: 1,
    };
}

/// The entry of what makes a result of an `R`.
pub(crate) const fn of_recurrence<R: Recurs>() -> Judge {
    Judge(Recurrence::<R>::ENTRY)
}

/// The entry of a conversion.
#[inline]
pub(crate) fn of_conversion<C: Conversion>() -> &'static Entry {
    Converts::<C>::ENTRY
}

/// The entry of `function`.
#[inline]
pub(crate) fn of<F, A, K, M>(_function: &F) -> &'static Entry
where
    F: Function<A> + NoCapture,
    A: Args,
    F::Ret: Ret<K>,
    M: Marker,
{
    Typed::<F, A, K, M>::ENTRY
}

/// The entry of functions of type `F`. For the plain `fn` that `Function::into_call` returns: it has
/// no place for the value that `into_call` was given.
#[inline]
pub(crate) fn of_type<F, A, K, M>() -> &'static Entry
where
    F: Function<A> + NoCapture,
    A: Args,
    F::Ret: Ret<K>,
    M: Marker,
{
    Typed::<F, A, K, M>::ENTRY
}

/// Where the executable's file segments lie in memory.
struct Program {
    /// Address of its ELF header.
    header: usize,
    segments: Vec<Segment>,
}

struct Segment {
    /// Offset of its first byte from the ELF header, in memory.
    start: u64,
    /// Bytes of it that come from the file.
    length: u64,
    flags: u32,
}

#[derive(Clone, Copy)]
enum Access {
    Execute = 1,
    Read = 4,
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("allhands runs on 64-bit Linux: functions are named by their place in an ELF file");

unsafe extern "C" {
    /// The ELF header of the module that this code was linked into; every linker defines it.
    static __ehdr_start: u8;
    fn getauxval(kind: u64) -> u64;
}

/// `getauxval`: the address of the executable's program headers.
const AT_PHDR: u64 = 3;
/// Program header: a segment that is mapped.
const PT_LOAD: u32 = 1;
/// Bytes of an ELF header, and of a program header of the same class.
const ELF_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;

impl Program {
    /// The executable, if this library is part of it.
    fn this() -> Option<&'static Self> {
        static PROGRAM: LazyLock<Option<Program>> = LazyLock::new(Program::read);
        PROGRAM.as_ref()
    }

    fn read() -> Option<Self> {
        let header = (&raw const __ehdr_start).expose_provenance();
        let bytes = std::ptr::with_exposed_provenance::<u8>(header);
        // SAFETY: the linker puts the symbol at the module's ELF header, which is part of its first
        // mapped segment.
        let elf = unsafe { std::slice::from_raw_parts(bytes, ELF_HEADER_BYTES) };
        // SAFETY: the function has no precondition; unknown kinds give 0.
        let executable = unsafe { getauxval(AT_PHDR) };
        let table = header as u64 + u64_at(elf, 32)?;
        if table != executable || usize::from(u16_at(elf, 54)?) != PROGRAM_HEADER_BYTES {
            return None;
        }
        let count = usize::from(u16_at(elf, 56)?);
        let table = std::ptr::with_exposed_provenance::<u8>(usize::try_from(table).ok()?);
        // SAFETY: the kernel says that the executable's program headers are mapped at this address,
        // and the ELF header how many they are.
        let table = unsafe { std::slice::from_raw_parts(table, count * PROGRAM_HEADER_BYTES) };
        let loads: Vec<&[u8]> = table
            .chunks_exact(PROGRAM_HEADER_BYTES)
            .filter(|entry| u32_at(entry, 0) == Some(PT_LOAD))
            .collect();
        // The header is the start of the file: the segment with file offset 0 says where it is.
        let first = loads.iter().find(|load| u64_at(load, 8) == Some(0))?;
        let origin = u64_at(first, 16)?;
        let segments = loads.iter().map(|load| {
            Some(Segment {
                start: u64_at(load, 16)?.checked_sub(origin)?,
                length: u64_at(load, 32)?,
                flags: u32_at(load, 4)?,
            })
        });
        Some(Self { header, segments: segments.collect::<Option<_>>()? })
    }

    /// Whether the bytes from `offset` on lie in one segment with that access.
    fn holds(&self, offset: u64, bytes: usize, access: Access) -> bool {
        self.segments.iter().any(|segment| {
            let inside = offset.checked_sub(segment.start);
            segment.flags & access as u32 != 0
                && inside
                    .and_then(|inside| inside.checked_add(bytes as u64))
                    .is_some_and(|end| end <= segment.length)
        })
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
