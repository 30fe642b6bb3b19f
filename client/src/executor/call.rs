//! One task: its strings, its function, its outcome.

use allhands_common::codec;
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId, TaskId, WorkerId};
use allhands_common::limit::SEGMENT_BYTES_MAX;
use allhands_common::names::{NAMES_MAX, Names};
use allhands_common::segment::{
    AGAIN, ARITY_MAX, DONE, ERROR, ERROR_FOR_GOOD, FAILED, FAILED_FOR_GOOD, FORWARDED, STORED,
    Segment, split_argument_tag,
};
use allhands_common::wire::executor::Common;

use super::fill::{Filled, Outcomes};
use super::{loans, panics, tasks};
use crate::entry::{BeginFn, CallFn, CallFuture, CallStatus, Entry};
use crate::execution::named::{self, Named};
use crate::judge;
use crate::payload::Codec;
use crate::shared::{mention, task};

/// Longest encoded result, in bytes, that goes through the log: an outcome segment of one task must fit an entry.
const RESULT_BYTES_MAX: usize = SEGMENT_BYTES_MAX - 1024;

/// A longer one stays with the worker, as a blob, where the worker takes it.
const RESULT_BYTES_SENT: usize = 1 << 20;

/// Kept memory of the buffer that results are written to, in bytes.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// The functions of a batch, found in this program.
pub(super) struct Functions {
    all: Vec<Result<CallFn, Cause>>,
    /// What begins those of them whose futures go from thread to thread; empty where none do.
    begin: Vec<Option<Begin>>,
    /// Says what is tried again, if anything does.
    retry_when: Option<Result<CallFn, Cause>>,
    /// Says what is a result, if anything does.
    recurs: Option<Result<CallFn, Cause>>,
}

impl Functions {
    pub(super) fn find(common: &Common) -> Self {
        let find = |name, label: &str| {
            Entry::resolve(name)
                .map_err(|error| Cause::Program { message: format!("{label}: {error}") })
        };
        let find_call = |name, label| find(name, label).map(Entry::call);
        let entries = common.functions.iter().map(|function| find(function.name, &function.label));
        let entries: Vec<_> = entries.collect();
        let begin = entries.iter().map(|entry| {
            let entry: &'static Entry = entry.as_ref().ok()?;
            Some(Begin { entry, begin: entry.task()?.begin?()? })
        });
        let begin: Vec<_> = begin.collect();
        let any_begins = begin.iter().any(Option::is_some);
        Self {
            all: entries.into_iter().map(|entry| entry.map(Entry::call)).collect(),
            begin: if any_begins { begin } else { Vec::new() },
            retry_when: common
                .retry_when
                .map(|name| find_call(name, "what says when it is tried again")),
            recurs: common.recurs.map(|name| find_call(name, "what says whether it has a result")),
        }
    }

    fn get(&self, function: u8) -> Result<CallFn, Cause> {
        self.all.get(usize::from(function)).cloned().unwrap_or_else(|| {
            let message = format!("its batch has no function {function}: the message was damaged");
            Err(Cause::Program { message })
        })
    }

    /// Makes of a task's result what counts as one.
    #[inline]
    pub(super) fn value_of(
        &self,
        codec: Codec,
        status: CallStatus,
        out: &mut Vec<u8>,
    ) -> Result<CallStatus, Cause> {
        match &self.recurs {
            None => Ok(status),
            Some(recurs) => judge::value_of(recurs.clone()?, codec, status, out),
        }
    }

    /// Whether a task that ended so is not to be tried again, because its own predicate says so.
    #[inline]
    fn is_for_good(&self, codec: u8, answer: &Result<CallStatus, Cause>, out: &[u8]) -> bool {
        match (&self.retry_when, Codec::from_byte(codec)) {
            (Some(Ok(when)), Some(codec)) => judge::is_for_good(*when, codec, answer, out),
            _ => false,
        }
    }
}

/// What begins calls of a function.
#[derive(Clone, Copy)]
pub(super) struct Begin {
    entry: &'static Entry,
    begin: BeginFn,
}

impl Begin {
    /// Begins one.
    pub(super) fn call(self, codec: Codec, strings: &[&[u8]]) -> CallFuture {
        (self.begin)(self.entry, codec, strings)
    }
}

/// Whose tasks they are, for their failures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub(super) worker: WorkerId,
    pub(super) attempt: AttemptId,
    pub(super) batch: BatchId,
}

/// How a task ended: the tag of its outcome, and the tasks that it names.
pub(super) struct Ended {
    pub(super) tag: u16,
    pub(super) named: Vec<TaskId>,
}

/// Runs the `row`-th task of `segment`; its outcome's string is in `out`, and, if that holds handles on arrays, what it
/// names in `names`.
#[inline]
pub(super) fn run(
    functions: &Functions,
    segment: &Segment,
    row: u32,
    identity: Identity,
    given: &Outcomes,
    (out, names): (&mut Vec<u8>, &mut Vec<u8>),
) -> Ended {
    out.clear();
    names.clear();
    // What an earlier task has written elsewhere is none of its result.
    drop(mention::take());
    let mut strings = [&[][..]; ARITY_MAX];
    let (answer, named) = named::gather(|| {
        let damaged = |message: &str| Cause::Program { message: message.to_owned() };
        let (tag, arity) = segment
            .row(row, &mut strings)
            .ok_or_else(|| damaged("its arguments were damaged on the way"))?;
        let codec = Codec::from_byte(segment.codec())
            .ok_or_else(|| damaged("its arguments are in a codec that this program lacks"))?;
        let (function, stand_ins) = split_argument_tag(tag);
        let call = functions.get(function)?;
        let status = match stand_ins {
            0 => task::run(
                Vec::new(),
                || panics::catch(|| call(codec, &strings[..arity], out)),
                is_refused,
            )??,
            _ => run_filled(call, (codec, stand_ins), &strings[..arity], given, out)?,
        };
        functions.value_of(codec, status, out)
    });
    conclude(functions, segment.codec(), identity, (answer, named), (out, names))
}

/// Calls a function of whose arguments some are made of outcomes. Apart, so that the others stay short.
#[inline(never)]
fn run_filled(
    call: CallFn,
    (codec, stand_ins): (Codec, u8),
    strings: &[&[u8]],
    given: &Outcomes,
    out: &mut Vec<u8>,
) -> Result<CallStatus, Cause> {
    let filled = Filled::of(strings, stand_ins, codec, given)?;
    let whole = filled.strings(strings);
    let run = || panics::catch(|| call(codec, &whole[..strings.len()], out));
    task::run(filled.blobs(), run, is_refused)?
}

/// The `row`-th task of `segment`, if it is a future that goes from thread to thread.
#[inline]
pub(super) fn begins<'a>(
    functions: &Functions,
    segment: &'a Segment,
    row: u32,
) -> Option<Call<'a>> {
    if functions.begin.is_empty() {
        return None;
    }
    let mut strings = [&[][..]; ARITY_MAX];
    let (tag, arity) = segment.row(row, &mut strings)?;
    let codec = Codec::from_byte(segment.codec())?;
    let (function, stand_ins) = split_argument_tag(tag);
    let begin = functions.begin.get(usize::from(function)).copied().flatten()?;
    Some(Call { begin, codec, strings, arity, stand_ins })
}

/// A call that is a future, and has not begun.
pub(super) struct Call<'a> {
    pub(super) begin: Begin,
    pub(super) codec: Codec,
    pub(super) strings: [&'a [u8]; ARITY_MAX],
    pub(super) arity: usize,
    /// For which of its arguments something stands in, a bit each.
    pub(super) stand_ins: u8,
}

/// Whether a task was not run, because an argument could not be read.
pub(super) const fn is_refused(answer: &Result<CallStatus, Cause>) -> bool {
    matches!(answer, Ok(CallStatus::BadArgument { .. }))
}

/// Makes an outcome of how a task has ended, and of the executions that its result names; its result is in `out`.
#[inline(always)]
pub(super) fn conclude(
    functions: &Functions,
    codec: u8,
    identity: Identity,
    (answer, named): (Result<CallStatus, Cause>, Vec<Named>),
    (out, names): (&mut Vec<u8>, &mut Vec<u8>),
) -> Ended {
    let answer = match mention::take() {
        arrays if arrays.is_empty() => answer,
        arrays => answer.and_then(|status| name(&arrays, status, identity, names)),
    };
    let for_good = functions.is_for_good(codec, &answer, out);
    let tag = match answer {
        Ok(CallStatus::Again) => {
            out.clear();
            AGAIN
        }
        Ok(CallStatus::Done) if out.len() > RESULT_BYTES_SENT => leave(identity, out),
        Ok(CallStatus::Done) => DONE,
        Ok(CallStatus::Failed) if out.len() <= RESULT_BYTES_MAX => FAILED,
        Ok(CallStatus::Forwarded(task)) if out.len() <= RESULT_BYTES_MAX => {
            out.splice(..0, task.to_bytes());
            FORWARDED
        }
        other => refuse(other, identity, out),
    };
    let tag = match tag {
        FAILED if for_good => FAILED_FOR_GOOD,
        ERROR if for_good => ERROR_FOR_GOOD,
        tag => tag,
    };
    Ended { tag, named: named.iter().map(|named| named.slot.of().task).collect() }
}

/// Writes what a result holds handles on.
#[cold]
fn name(
    named: &[mention::Named],
    status: CallStatus,
    identity: Identity,
    names: &mut Vec<u8>,
) -> Result<CallStatus, Cause> {
    if !matches!(status, CallStatus::Done | CallStatus::Failed | CallStatus::Forwarded(_)) {
        return Ok(status);
    }
    let bad = |message| Cause::BadResult { message };
    if named.len() > NAMES_MAX {
        return Err(bad(format!(
            "it holds handles on {} arrays, more than the {NAMES_MAX} that one result may: put them together",
            named.len()
        )));
    }
    let wholes = named.iter().map(|named| &named.whole);
    let contents = wholes.map(|whole| (whole.content(), whole.is_made_here())).collect();
    let worker = identity.worker;
    codec::encode(&Names { worker, contents }, names).map_err(|error| bad(error.to_string()))?;
    Ok(status)
}

/// Leaves a long result with the worker; a reference takes its place.
#[cold]
fn leave(identity: Identity, out: &mut Vec<u8>) -> u16 {
    let maker =
        tasks::this().map_or((identity.batch, 0), |this| (this.task.batch, this.task.index));
    match loans::deposit(maker, out) {
        Ok(reference) => {
            *out = reference.to_bytes().to_vec();
            STORED
        }
        Err(_) if out.len() <= RESULT_BYTES_MAX => DONE,
        Err(cause) => refuse(Err(cause), identity, out),
    }
}

/// Writes the failure of a task that has no value.
#[cold]
fn refuse(answer: Result<CallStatus, Cause>, identity: Identity, out: &mut Vec<u8>) -> u16 {
    let cause = match answer {
        Ok(CallStatus::BadArgument { position, message }) => {
            Cause::BadArgument { position, message }
        }
        Ok(CallStatus::BadResult { message }) => Cause::BadResult { message },
        Ok(
            CallStatus::Done | CallStatus::Failed | CallStatus::Forwarded(_) | CallStatus::Again,
        ) => Cause::BadResult {
            message: format!(
                "it is an error of {} bytes, more than the {RESULT_BYTES_MAX} that one may be: shorten it",
                out.len()
            ),
        },
        Err(cause) => cause,
    };
    let Identity { worker, attempt, .. } = identity;
    let failed = Failed { cause, worker: Some(worker), attempt: Some(attempt), tries: 1 };
    tidy(out);
    out.clear();
    if codec::encode(&failed, out).is_err() {
        // It has no field that could refuse; an empty string decodes as damage, not as a value.
        out.clear();
    }
    ERROR
}

/// Gives back the memory of a buffer that an unusual result has grown.
#[inline]
pub(super) fn tidy(out: &mut Vec<u8>) {
    if out.capacity() > BUFFER_BYTES_MAX {
        *out = Vec::new();
    }
}
