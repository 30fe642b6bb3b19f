//! One call of `Parallel` on a cluster: its calls go out, into one part for each policy that occurs,
//! and its outcomes come in.
//!
//! The caller's thread pulls the iterator and writes arguments straight into the open segment of the
//! part; nothing else is done per task, and no clock is read.

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allhands_common::id::WorkerId;
use allhands_common::limit::SEGMENT_BYTES_MAX;
use allhands_common::policy::{BatchSpec, Function, Policy};
use allhands_common::segment::argument_tag;
use bytes::Bytes;

use super::indices::Indices;
use super::keeping::{Keeping, Kept};
use super::lift::Lifting;
use super::outcome::Decoder;
use super::{OnError, Parallel};
use crate::cluster::Cluster;
use crate::delayed::{Delayed, Patch};
use crate::entry::Entry;
use crate::error::{Finished, Reason, RunError};
use crate::progress::Display;
use crate::session::exchange::{Exchange, Note, ROOM_BYTES, SPEC_BYTES_MAX, spec_bytes};
use crate::session::inbox::{Arrived, Inbox, Rules};
use crate::session::needs::Parts;
use crate::session::submits::MENTION_BYTES;
use crate::shared::mention;

/// What one task may have of arguments, and a call of context.
pub(super) const TASK_BYTES_MAX: usize = SEGMENT_BYTES_MAX - ROOM_BYTES;

/// Bytes in the chunk store that count as one byte of arguments that are on their way: a gibibyte of them in a window
/// of 16 MiB.
const STORED_SHARE: usize = 64;

/// Tasks of one part: half of what the counters of a batch hold. Few in tests, which go beyond it.
pub(super) const PART_TASKS_MAX: u32 = if cfg!(test) { 20_000 } else { 1 << 31 };

/// A call whose tasks are on their way.
pub(crate) struct Call<R> {
    cluster: Cluster,
    pub(super) inbox: Arc<Inbox>,
    pub(super) parts: Vec<Part>,
    /// Where the last call went that said nothing of its own.
    memo: Option<Memo>,
    base: Base,
    begun: Instant,
    /// Tasks that were taken from the iterator.
    pub(super) given: usize,
    /// Tasks that had ended when the window was last looked at.
    pub(super) seen: u64,
    /// Reads results; known with the first call.
    pub(super) decoder: Option<Decoder<R>>,
    /// What its tasks map.
    pub(super) keeping: Keeping,
    lifting: Lifting,
    /// Arrivals in the inbox whose tasks were let go of.
    released: usize,
    /// Segments went out since [`has_told`](Self::has_told) was asked last.
    told: bool,
    result: PhantomData<fn() -> R>,
}

/// What all parts have in common.
struct Base {
    policy: Policy,
    env: Vec<(String, String)>,
    name: Option<String>,
    shared: Common,
}

/// What `map_with` adds to a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Common {
    /// The encoded context.
    pub(super) context: Bytes,
    /// What the handles in it look at.
    pub(super) named: Vec<mention::Named>,
    /// What people call its function, where the entry's own name would tell them nothing.
    pub(super) label: Option<&'static str>,
}

impl Common {
    /// What people call the function.
    pub(super) fn label(&self, entry: &'static Entry) -> String {
        self.label.map_or_else(|| entry.label(), ToOwned::to_owned)
    }
}

/// Tasks of one policy: a batch.
pub(super) struct Part {
    pub(super) exchange: Arc<Exchange>,
    policy: Policy,
    /// Its functions, by number.
    pub(super) entries: Vec<&'static Entry>,
    pub(super) indices: Indices,
}

#[derive(Clone, Copy)]
struct Memo {
    entry: &'static Entry,
    part: usize,
    /// The function's number in the part.
    function: u8,
}

/// What came of giving a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// It goes out.
    Yes,
    /// The call is over: it need not be run.
    Stopped,
}

impl<R> Call<R> {
    /// A call without tasks. `hold`: nobody takes outcomes before the end.
    pub(super) fn new<M: OnError>(
        parallel: &Parallel<M>,
        hold: bool,
        errors_count: bool,
        shared: Common,
    ) -> Result<Self, RunError> {
        let options = &parallel.options;
        let cluster = match &options.cluster {
            Some(cluster) => cluster.clone(),
            None => Cluster::from_env()?,
        };
        let data = cluster.data();
        shared.named.iter().try_for_each(|named| data.provide(&named.whole))?;
        let stop_after = parallel.mode.stop_after();
        let mut policy = options.policy.clone();
        policy.fail_after = stop_after;
        policy.errors_count = errors_count;
        let (stop_after, replicas) = (stop_after.map(u64::from), options.replicas);
        let rules = Rules { hold, stop_after, errors_count, replicas };
        let (env, name) = (options.env.clone(), options.name.clone());
        let base = Base { policy, env, name, shared };
        Ok(Self {
            cluster,
            inbox: Arc::new(Inbox::new(rules)),
            parts: Vec::new(),
            memo: None,
            base,
            begun: Instant::now(),
            given: 0,
            seen: 0,
            decoder: None,
            keeping: Keeping::default(),
            lifting: Lifting::new(options.max_nbytes),
            released: 0,
            told: false,
            result: PhantomData,
        })
    }

    /// The deadline that the user gave, in milliseconds.
    pub(super) const fn deadline_ms(&self) -> Option<u64> {
        self.base.policy.deadline_ms
    }

    /// What people call a function of the call.
    pub(super) fn label(&self, entry: &'static Entry) -> String {
        self.base.shared.label(entry)
    }

    /// Slots of the cluster.
    pub(super) fn slots(&self) -> u32 {
        self.cluster.slots()
    }

    /// What people call a worker of the cluster.
    pub(super) fn worker_name(&self, worker: Option<WorkerId>) -> Option<String> {
        self.cluster.session().workers().name(worker?)
    }

    /// Gives a task out. `last` is said when no other follows.
    #[inline]
    pub(super) fn give(&mut self, mut call: Delayed<R>, last: bool) -> Result<Given, Reason> {
        let memo = match self.memo {
            Some(memo) if ptr::eq(memo.entry, call.entry()) && call.patch().is_none() => memo,
            _ => self.place(&call)?,
        };
        if let Some(source) = call.take_error() {
            return Err(Reason::Argument { index: self.given, source });
        }
        let bytes = call.encoded().bytes();
        if bytes > self.lifting.above() || !call.named().is_empty() || !call.needs().is_empty() {
            return self.give_with_data(&call, memo, last);
        }
        if bytes > TASK_BYTES_MAX {
            return Err(self.too_large(&call, bytes));
        }
        let tag = argument_tag(memo.function, 0);
        self.push(&call, memo, tag, (bytes, 0), call.arguments(), last)
    }

    /// Gives a task out that maps data, or whose arguments are long.
    #[cold]
    fn give_with_data(
        &mut self,
        call: &Delayed<R>,
        memo: Memo,
        last: bool,
    ) -> Result<Given, Reason> {
        let data = self.cluster.data();
        // Calls with parts of one array name the same, one after the other.
        let mut new = call.named().iter().filter(|named| !self.keeping.names(&named.whole));
        new.try_for_each(|named| data.provide(&named.whole)).map_err(Reason::Cluster)?;
        let lifted = self.lifting.lift(data, call.encoded(), call.entry());
        let lifted = lifted.map_err(Reason::Cluster)?;
        let strings: usize = lifted.strings.iter().map(|string| string.len()).sum();
        let bytes = strings + call.needs().len() * MENTION_BYTES;
        if bytes > TASK_BYTES_MAX {
            return Err(self.too_large(call, bytes));
        }
        // Where there is but one machine, everything is there.
        if data.elsewhere().is_some() {
            let lifted = lifted.references();
            self.parts[memo.part].exchange.maps(Parts::of(call.named(), lifted));
        }
        let named = call.named().iter().map(|named| Arc::clone(&named.whole) as Kept);
        let needs = call.needs().iter().map(|named| Arc::clone(&named.slot) as Kept);
        let named: Vec<Kept> = named.chain(lifted.kept).chain(needs).collect();
        if !named.is_empty() {
            self.keeping.keep(self.given, named);
        }
        let tag = argument_tag(memo.function, lifted.which);
        let strings = lifted.strings.iter().map(|string| &**string);
        let stored = lifted.stored_bytes / STORED_SHARE;
        self.push(call, memo, tag, (bytes, stored), strings, last)
    }

    #[inline]
    fn push<'a>(
        &mut self,
        call: &Delayed<R>,
        memo: Memo,
        tag: u16,
        bytes: (usize, usize),
        strings: impl ExactSizeIterator<Item = &'a [u8]>,
        last: bool,
    ) -> Result<Given, Reason> {
        let part = &mut self.parts[memo.part];
        let strings = (strings, call.needs());
        match part.exchange.push(call.codec().byte(), tag, bytes, strings, last) {
            Note::Stopped => return Ok(Given::Stopped),
            Note::Quiet => {}
            Note::Tell => {
                self.cluster.session().note(&part.exchange);
                self.told = true;
            }
        }
        part.indices.push(self.given);
        if part.indices.tasks() == PART_TASKS_MAX {
            self.memo = None;
        }
        self.given += 1;
        Ok(Given::Yes)
    }

    /// Finds the part and the function's number of a call whose function or policy is not that of the last one.
    #[cold]
    fn place(&mut self, call: &Delayed<R>) -> Result<Memo, Reason> {
        self.decoder.get_or_insert_with(|| call.result_decoder());
        let index = self.given;
        let entry = call.entry();
        let name = call.function_name().map_err(|source| Reason::Function { index, source })?;
        let policy = policy_of(&self.base.policy, call)?;
        let shared = &self.base.shared;
        let function =
            || Function { name, label: shared.label(entry), returns: entry.returns().to_owned() };
        for (place, part) in self.parts.iter_mut().enumerate() {
            if part.policy != policy || part.indices.tasks() == PART_TASKS_MAX {
                continue;
            }
            let number = match part.entries.iter().position(|known| ptr::eq(*known, entry)) {
                Some(number) => u8::try_from(number).ok(),
                None => {
                    part.exchange.add_function(function()).inspect(|_| part.entries.push(entry))
                }
            };
            if let Some(number) = number {
                return Ok(self.remember(call, place, number));
            }
        }
        // The deadline is the call's: a later part has less time.
        let passed = self.parts.first().map_or(Duration::ZERO, |_| self.begun.elapsed());
        let passed = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let deadline_ms = policy.deadline_ms.map(|limit| limit.saturating_sub(passed));
        let spec = BatchSpec {
            name: self.base.name.clone().unwrap_or_else(|| self.base.shared.label(entry)),
            functions: vec![function()],
            policy: Policy { deadline_ms, ..policy.clone() },
            env: self.base.env.clone(),
        };
        let bytes = spec_bytes(&spec);
        if bytes > SPEC_BYTES_MAX {
            return Err(Reason::SpecTooLarge { bytes, limit: SPEC_BYTES_MAX });
        }
        let place = self.parts.len();
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        let inbox = Arc::clone(&self.inbox);
        self.inbox.mail().parts = number + 1;
        let exchange = Exchange::new(spec, self.base.shared.context.clone(), inbox, number);
        if self.cluster.data().elsewhere().is_some() {
            exchange.all_map(Parts::of(&self.base.shared.named, []));
        }
        let exchange = Arc::new(exchange);
        let (entries, indices) = (vec![entry], Indices::default());
        self.parts.push(Part { exchange, policy, entries, indices });
        Ok(self.remember(call, place, 0))
    }

    fn remember(&mut self, call: &Delayed<R>, part: usize, function: u8) -> Memo {
        let memo = Memo { entry: call.entry(), part, function };
        // What is said at one call is not said of the next.
        if call.patch().is_none() {
            self.memo = Some(memo);
        }
        memo
    }

    #[cold]
    fn too_large(&self, call: &Delayed<R>, bytes: usize) -> Reason {
        let what = format!("task {}, {}: its arguments", self.given, call.label());
        Reason::TooLarge { what, bytes, limit: TASK_BYTES_MAX }
    }

    /// Sends what is written: the caller is going to wait.
    pub(super) fn flush(&self) {
        for part in &self.parts {
            self.cluster.session().tell(part.exchange.flush(), &part.exchange);
        }
    }

    /// There are no more tasks.
    pub(super) fn seal(&mut self) {
        self.inbox.mail().sealed = true;
        for part in &self.parts {
            self.cluster.session().tell(part.exchange.seal(), &part.exchange);
        }
    }

    /// Outcome segments of a part were consumed.
    pub(super) fn consumed(&self, part: usize, segments: u32, bytes: usize) {
        let exchange = &self.parts[part].exchange;
        self.cluster.session().tell(exchange.consume(segments, bytes), exchange);
    }

    /// Nothing more will come of it.
    pub(crate) fn is_over(&self) -> bool {
        let mail = self.inbox.mail();
        mail.is_over() || mail.is_stopped(self.inbox.rules())
    }

    /// Tasks that have to be on their way, or those of a fixed `batch_size` would wait for their range
    /// to be complete, and the caller for them: a whole range of each part. None where it is adaptive.
    pub(super) fn least_ahead(&self) -> usize {
        let size = self.base.policy.batch_size.map_or(0, |size| size as usize);
        size.saturating_mul(self.parts.len().max(1))
    }

    /// Looks at how far it is; whether nothing more will come of it.
    pub(super) fn look(&mut self) -> bool {
        self.seen = self.inbox.mail().finished;
        self.release_ended();
        self.is_over()
    }

    /// Lets go of what tasks have named whose outcomes are kept here to the end.
    fn release_ended(&mut self) {
        if self.keeping.is_empty() {
            return;
        }
        let mail = self.inbox.mail();
        let come = mail.arrived.iter().skip(self.released);
        let come: Vec<_> = come.map(|arrived| (arrived.part, arrived.range)).collect();
        drop(mail);
        self.released += come.len();
        for (part, range) in come {
            let indices = &self.parts[part as usize].indices;
            for (_, index) in indices.rows(range.start..range.end).iter().flat_map(|run| run.rows())
            {
                self.keeping.release(index);
            }
        }
    }

    /// Shows how far it is, if anybody wants to know.
    pub(crate) fn show(&self, display: &mut Option<Display>) {
        if let Some(display) = display {
            let (finished, failures) = self.counts();
            display.show(finished, failures);
        }
    }

    /// Shows its end.
    pub(crate) fn show_end(&self, display: Option<Display>) {
        if let Some(display) = display {
            let (finished, failures) = self.counts();
            display.finish(finished, failures);
        }
    }

    fn counts(&self) -> (u64, u64) {
        let mail = self.inbox.mail();
        (mail.finished, mail.failures)
    }

    /// Whether segments went out since this was asked last: time to look at the window.
    #[inline]
    pub(super) const fn has_told(&mut self) -> bool {
        std::mem::replace(&mut self.told, false)
    }

    /// What had finished, for the error of the call.
    pub(super) fn finished(&self, arrived: impl IntoIterator<Item = Arrived>) -> Finished {
        let segment = |arrived: Arrived| {
            let indices = &self.parts[arrived.part as usize].indices;
            (indices.rows(arrived.range.start..arrived.range.end), arrived.outcomes)
        };
        Finished { tasks: self.given, segments: arrived.into_iter().map(segment).collect() }
    }
}

impl<R> Drop for Call<R> {
    /// Whatever is not over is cancelled, and what was not taken counts as taken.
    fn drop(&mut self) {
        let mail = self.inbox.mail();
        let hold = self.inbox.rules().hold;
        let over = |exchange: &Exchange| {
            let ended = || mail.ends.iter().any(|(ended, _)| *ended == exchange.part);
            (hold || exchange.is_shared()) && ended()
        };
        let left: Vec<&Part> = self.parts.iter().filter(|part| !over(&part.exchange)).collect();
        drop(mail);
        for part in left {
            let note = part.exchange.cancel("its caller wants no more of it");
            self.cluster.session().tell(note, &part.exchange);
        }
    }
}

/// The policy of a call among others of a `Parallel`.
///
/// # Errors
/// It says what makes no sense there.
pub(super) fn policy_of<R>(base: &Policy, call: &Delayed<R>) -> Result<Policy, Reason> {
    let patch = call.patch();
    patch.map_or(Ok(()), Patch::check).map_err(Reason::Option)?;
    if patch.is_some_and(|patch| patch.equal_calls.is_some()) {
        return Err(Reason::Option(
            "`memo` and `defer` are of calls that are submitted one by one: say \
             `f::delayed(x).memo().submit()`, or leave it out for the calls of a `Parallel`, which all run",
        ));
    }
    let mut policy = base.clone();
    call.apply_policy(&mut policy);
    // What `#[task]` says of it is of calls that are submitted.
    policy.equal_calls = None;
    Ok(policy)
}
