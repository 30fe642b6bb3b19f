//! `n_jobs(1)`: tasks run in the caller's thread, for debugging. Arguments and results are encoded and
//! decoded as they are on a cluster, so that a fault of a serde type shows here as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use allhands_common::failure::Cause;
use allhands_common::id::BatchId;
use allhands_common::limit::SEGMENT_BYTES_TARGET;
use allhands_common::policy::Policy;
use allhands_common::segment::{DONE, ERROR, Segment, SegmentBuilder};
use bytes::Bytes;

use super::call::{Common, policy_of};
use super::{IndexRun, OnError, Parallel};
use crate::cluster::Cluster;
use crate::delayed::Delayed;
use crate::entry::{CallStatus, Entry};
use crate::error::{Finished, Reason, TaskError, TaskErrorKind};
use crate::execution::{fill, named};
use crate::executor::{context, panics};
use crate::judge;
use crate::payload::Codec;
use crate::session::outcomes::Outcomes;
use crate::shared::put::inline_on;
use crate::shared::whole::{self, Whole};
use crate::shared::{mention, task};

/// Runs tasks one after the other.
pub(super) struct Inline {
    policy: Policy,
    begun: Instant,
    shared: Common,
    /// Whether a function's own `Err` counts as a failure.
    errors_count: bool,
    /// Names the context, so that it is decoded once.
    batch: BatchId,
    /// Tasks so far.
    pub(super) given: usize,
    /// Encoded result of the last task.
    out: Vec<u8>,
    /// What it holds handles on.
    named: Vec<Arc<Whole>>,
    /// Where its tasks put arrays, if the call says so.
    cluster: Option<Cluster>,
}

/// What came of a task: its value, or why it has none; with the value that counts as none
/// (`try_run`), where it is one.
pub(super) type Ran<R> = Result<R, (TaskError, Option<R>)>;

impl Inline {
    pub(super) fn new<M: OnError>(
        parallel: &Parallel<M>,
        errors_count: bool,
        shared: Common,
    ) -> Self {
        panics::install();
        let policy = parallel.options.policy.clone();
        let batch = context::name_batch();
        Self {
            policy,
            begun: Instant::now(),
            shared,
            errors_count,
            batch,
            given: 0,
            out: Vec::new(),
            named: Vec::new(),
            cluster: parallel.options.cluster.clone(),
        }
    }

    /// Runs a task, with the retries that its policy allows.
    pub(super) fn run<R>(&mut self, mut call: Delayed<R>) -> Result<Ran<R>, Reason> {
        let index = self.given;
        self.given += 1;
        if let Some(source) = call.take_error() {
            return Err(Reason::Argument { index, source });
        }
        let policy = policy_of(&self.policy, &call)?;
        let (mut tries, mut failures) = (0, 0);
        let given = Instant::now();
        if let Some(delay_ms) = policy.delay_ms {
            back_off(Duration::from_millis(delay_ms));
        }
        loop {
            tries += 1;
            if let Some(limit_ms) = policy.task_deadline_ms
                && given.elapsed() >= Duration::from_millis(limit_ms)
            {
                return Ok(self.ended(&call, index, Cause::DeadlinePassed { limit_ms }, tries - 1));
            }
            if let Some(limit_ms) = policy.deadline_ms
                && self.begun.elapsed() >= Duration::from_millis(limit_ms)
            {
                return Ok(self.ended(&call, index, Cause::DeadlinePassed { limit_ms }, tries - 1));
            }
            let status = self.call(&call, &policy);
            let again = policy.idempotent && failures < policy.retries;
            match status {
                Ok(CallStatus::Failed) | Err(Cause::Panicked { .. })
                    if again && self.may_be_tried_again(&call, &policy, &status) =>
                {
                    failures += 1;
                    back_off(Duration::from_millis(policy.backoff.after(failures)));
                }
                Ok(CallStatus::Again) => {
                    failures = 0;
                    back_off(Duration::from_millis(policy.round_wait_ms()));
                }
                // A call in this thread leads nowhere: the execution is its value.
                Ok(status @ (CallStatus::Done | CallStatus::Failed | CallStatus::Forwarded(_))) => {
                    let failed = self.errors_count && status == CallStatus::Failed;
                    return Ok(self.read(&call, failed).map_err(|(kind, value)| {
                        (self.error(&call, index, kind).at(None, None, tries), value)
                    }));
                }
                Ok(CallStatus::BadArgument { position, message }) => {
                    return Ok(self.ended(
                        &call,
                        index,
                        Cause::BadArgument { position, message },
                        tries,
                    ));
                }
                Ok(CallStatus::BadResult { message }) => {
                    return Ok(self.ended(&call, index, Cause::BadResult { message }, tries));
                }
                Err(cause) => return Ok(self.ended(&call, index, cause, tries)),
            }
        }
    }

    /// Whether the call's own predicate has nothing against another try.
    fn may_be_tried_again<R>(
        &self,
        call: &Delayed<R>,
        policy: &Policy,
        status: &Result<CallStatus, Cause>,
    ) -> bool {
        let when = policy.retry_when.and_then(|name| Entry::resolve(name).ok());
        when.is_none_or(|when| !judge::is_for_good(when.call(), call.codec(), status, &self.out))
    }

    fn call<R>(&mut self, call: &Delayed<R>, policy: &Policy) -> Result<CallStatus, Cause> {
        self.out.clear();
        let filled = match call.needs() {
            [] => None,
            _ => Some(fill::here(call)?),
        };
        // A task may itself run a call inline: it leaves its own context behind.
        let outer = context::swap(Some((self.shared.context.clone(), self.batch)));
        let run = call.entry().call();
        drop(mention::take());
        // What executions its result names is named by nobody else: it does not leave this process.
        let (status, _) = named::gather(|| {
            task::run(
                Vec::new(),
                || {
                    let out = &mut self.out;
                    let mut run = |args: &[&[u8]]| panics::catch(|| run(call.codec(), args, out));
                    inline_on(self.cluster.as_ref(), || match &filled {
                        None => call.encoded().with_slices(run),
                        Some(filled) => {
                            let args: Vec<&[u8]> = filled.iter().map(|string| &**string).collect();
                            run(&args)
                        }
                    })
                },
                |status| matches!(status, Ok(CallStatus::BadArgument { .. })),
            )
        });
        // Until the result is read: nobody else may have it.
        self.named = mention::take().into_iter().map(|named| named.whole).collect();
        context::swap(outer);
        match policy.recurs.and_then(|name| Entry::resolve(name).ok()) {
            Some(recurs) => judge::value_of(recurs.call(), call.codec(), status??, &mut self.out),
            None => status?,
        }
    }

    /// The encoded result of the last task, and what it holds handles on.
    pub(super) fn encoded(&self) -> (&[u8], &[Arc<Whole>]) {
        (&self.out, &self.named)
    }

    /// Reads the result of the last task.
    fn read<R>(&self, call: &Delayed<R>, failed: bool) -> Result<R, (TaskErrorKind, Option<R>)> {
        match whole::near(&self.named, || call.decode_result(call.codec(), &self.out)) {
            Ok(value) if failed => {
                let bytes = Bytes::copy_from_slice(&self.out);
                Err((TaskErrorKind::failed(bytes, call.codec()), Some(value)))
            }
            Ok(value) => Ok(value),
            Err(error) => Err((TaskErrorKind::Undecodable { message: error.to_string() }, None)),
        }
    }

    fn ended<R>(&self, call: &Delayed<R>, index: usize, cause: Cause, tries: u32) -> Ran<R> {
        Err((self.error(call, index, TaskErrorKind::Ended(cause)).at(None, None, tries), None))
    }

    fn error<R>(&self, call: &Delayed<R>, index: usize, kind: TaskErrorKind) -> TaskError {
        TaskError::new(index, self.shared.label(call.entry()), call.debug_text(), kind)
    }
}

#[expect(clippy::disallowed_methods, reason = "a back-off waits for time itself")]
fn back_off(pause: Duration) {
    std::thread::sleep(pause);
}

/// Encoded outcomes of what has run, for the error of a call that fails later.
pub(super) struct Done {
    open: SegmentBuilder,
    /// Place in the call of the open segment's first task.
    first: usize,
    tasks: usize,
    /// What the open segment holds handles on.
    named: Vec<Arc<Whole>>,
    segments: Vec<(Vec<IndexRun>, Outcomes)>,
}

impl Done {
    pub(super) fn new() -> Self {
        let open = SegmentBuilder::new(Codec::Bincode.byte());
        Self { open, first: 0, tasks: 0, named: Vec::new(), segments: Vec::new() }
    }

    /// The next task has this value.
    pub(super) fn push(&mut self, codec: Codec, (value, named): (&[u8], &[Arc<Whole>])) {
        if self.open.codec() != codec.byte() || self.open.bytes() >= SEGMENT_BYTES_TARGET {
            self.cut();
            self.open = SegmentBuilder::new(codec.byte());
        }
        self.open.push(DONE, std::iter::once(value));
        self.named.extend_from_slice(named);
        self.tasks += 1;
    }

    /// The next task has none.
    pub(super) fn skip(&mut self) {
        self.open.push(ERROR, std::iter::once(&[][..]));
        self.tasks += 1;
    }

    fn cut(&mut self) {
        let tasks = self.open.tasks();
        if let Ok(segment) = Segment::parse(self.open.finish()) {
            let rows = vec![IndexRun { first: 0, tasks, index: self.first }];
            let named = std::mem::take(&mut self.named);
            self.segments.push((rows, Outcomes::plain(segment).naming(named)));
        }
        self.first = self.tasks;
    }

    /// For an error; one more task was begun.
    pub(super) fn finish(mut self) -> Finished {
        self.cut();
        Finished { tasks: self.tasks, segments: self.segments }
    }
}
