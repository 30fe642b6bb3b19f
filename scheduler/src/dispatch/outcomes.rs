//! Outcomes on their way to the log: what failed and may be tried again does not go there.

use alloc::vec::Vec;

use allhands_common::codec;
use allhands_common::execution::Mention;
use allhands_common::failure::{Cause, Failed};
use allhands_common::limit::SYSTEM_RETRIES;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::segment::{
    AGAIN, ARITY_MAX, ERROR, ERROR_FOR_GOOD, FAILED, FAILED_FOR_GOOD, Segment, SegmentBuilder,
    is_value,
};
use allhands_common::time::Instant;
use allhands_common::wire::worker::Order;
use bytes::Bytes;

use super::Dispatcher;
use super::report::{Origin, propose_finish};
use crate::state::Batch;
use crate::{Action, Charge, State};

/// A task whose failure does not end it.
#[derive(Debug, Clone, Copy)]
struct Again {
    index: u32,
    /// Whether this very failure was counted before.
    counted: bool,
    why: Why,
}

/// Why a task is to be run again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It failed of itself.
    Failed,
    /// Its worker could not provide what it maps: not at once, or that would be asked again.
    Unlent,
    /// It has had a round, and is to have another.
    Round,
}

/// How long a task waits whose worker could not provide its data; twice as long the second time, and so on.
const UNLENT_WAIT_MS: u64 = 500;

impl Dispatcher {
    /// Outcomes: what is to be tried again is charged, the rest goes to the log.
    #[expect(clippy::too_many_arguments, reason = "who, what, where of one report")]
    pub(super) fn outcomes(
        &mut self,
        now: Instant,
        state: &State,
        known: &Batch,
        origin: Origin,
        range: TaskRange,
        (bytes, mentions): (Bytes, &[Mention]),
        out: &mut Vec<Action>,
    ) {
        let batch = origin.batch;
        let whole = Segment::parse(bytes).ok().filter(|seg| seg.tasks() == range.len());
        let Some(segment) = whole else {
            let message = "the worker sent outcomes that are none: upgrade it".into();
            self.unsettle(origin, range);
            return self.fail(state, origin, range, Cause::Program { message }, out);
        };
        // What is kept is fetched when somebody asks, and not before.
        if let Some(active) = self.active.get_mut(&batch).filter(|_| !known.kept) {
            active.unfetched.note(range, &segment);
        }
        let (segment, for_good) = without_words(range, segment);
        let segment = with_tries(known, range, &segment).unwrap_or(segment);
        let failed: u32 =
            segment.runs().filter(|(tag, _)| !is_value(*tag)).map(|(_, rows)| rows.len()).sum();
        if failed > 0 {
            self.records.failed(origin.attempt, range, failed);
        }
        if known.unfinished(range).is_empty() {
            self.unsettle(origin, range);
            return self.put_back(state, batch, range);
        }
        let again = to_try_again(known, origin, range, (&segment, &for_good));
        if again.is_empty() {
            return propose_finish(origin, range, segment.bytes().clone(), mentions, out);
        }
        let mut start = range.start;
        for index in again.iter().map(|again| again.index).chain([range.end]) {
            let part = TaskRange::new(start, index);
            let rows = TaskRange::new(part.start - range.start, part.end - range.start);
            if !part.is_empty()
                && let Ok(slice) = segment.slice(rows)
            {
                propose_finish(origin, part, slice, mentions, out);
            }
            start = index + 1;
        }
        for Again { index, counted, why } in again {
            let one = TaskRange::new(index, index + 1);
            self.unsettle(origin, one);
            if counted {
                self.put_back(state, batch, one);
                continue;
            }
            let failures = known.exception(index).failures + 1;
            let backoff = known.spec.policy.backoff.spread(failures, index.into());
            let (charge, wait) = match why {
                Why::Failed => (Charge::Failure, backoff),
                Why::Unlent => {
                    self.needs_not_there(origin.worker, origin.batch, index);
                    (Charge::Failure, backoff.max(UNLENT_WAIT_MS * u64::from(failures)))
                }
                Why::Round => (Charge::Round, known.spec.policy.round_wait_ms()),
            };
            self.charge(now, state, origin, index, charge, wait, out);
        }
    }

    /// An outcome that has come does not go to the log: its worker need not keep it.
    fn unsettle(&mut self, origin: Origin, range: TaskRange) {
        let Origin { attempt, worker, .. } = origin;
        if let Some(known) = self.attempts.get_mut(&attempt) {
            known.settling.remove(range);
        }
        self.forget_if_over(attempt);
        self.order(worker, Order::Committed { attempt, range });
    }
}

/// The runs of `segment`, of the tasks `range`, that are values.
pub(super) fn values(segment: &Segment, range: TaskRange) -> impl Iterator<Item = TaskRange> + '_ {
    let runs = segment.runs().filter(|(tag, _)| is_value(*tag));
    runs.map(move |(_, rows)| TaskRange::new(range.start + rows.start, range.start + rows.end))
}

/// The outcomes of `range`, where some of them are errors of tasks that were tried before: an executor
/// knows of its own try only. `None` where there is nothing to correct, as nearly always.
fn with_tries(known: &Batch, range: TaskRange, segment: &Segment) -> Option<Segment> {
    let mut tried = known.progress()?.exceptions.range(range.start..range.end);
    tried.next()?;
    segment.runs().find(|(tag, _)| *tag == ERROR)?;
    let mut builder = SegmentBuilder::new(segment.codec());
    for row in 0..range.len() {
        let mut strings = [&[][..]; ARITY_MAX];
        let (tag, arity) = segment.row(row, &mut strings)?;
        let failed = (tag == ERROR).then(|| codec::decode::<Failed>(strings[0]).ok()).flatten();
        let mut text = Vec::new();
        if let Some(failed) = failed {
            let failed = Failed { tries: known.next_try(range.start + row), ..failed };
            codec::encode(&failed, &mut text).ok()?;
            strings[0] = &text;
        }
        builder.push(tag, strings[..arity].iter().copied());
    }
    Segment::parse(builder.finish()).ok()
}

/// The outcomes of `range` as the log has them, and which of the failures the function itself does not want to be tried
/// again.
fn without_words(range: TaskRange, segment: Segment) -> (Segment, RangeSet) {
    let mut for_good = RangeSet::new();
    for (tag, rows) in segment.runs() {
        if tag == FAILED_FOR_GOOD || tag == ERROR_FOR_GOOD {
            for_good.insert(TaskRange::new(range.start + rows.start, range.start + rows.end));
        }
    }
    if for_good.is_empty() {
        return (segment, for_good);
    }
    let mut builder = SegmentBuilder::new(segment.codec());
    for row in 0..range.len() {
        let mut strings = [&[][..]; ARITY_MAX];
        let Some((tag, arity)) = segment.row(row, &mut strings) else { continue };
        let tag = match tag {
            FAILED_FOR_GOOD => FAILED,
            ERROR_FOR_GOOD => ERROR,
            other => other,
        };
        builder.push(tag, strings[..arity].iter().copied());
    }
    (Segment::parse(builder.finish()).unwrap_or(segment), for_good)
}

/// Tasks of a segment that are to be run again: those that have had a round, those that failed of themselves as often as
/// their policy says, and those whose worker could not provide their data a few times in any case.
fn to_try_again(
    known: &Batch,
    origin: Origin,
    range: TaskRange,
    (segment, for_good): (&Segment, &RangeSet),
) -> Vec<Again> {
    let policy = &known.spec.policy;
    let mut again = Vec::new();
    let retries_of = |cause: &Cause| match cause {
        Cause::Unlent { .. } => (policy.retries.max(SYSTEM_RETRIES.into()), Why::Unlent),
        cause if cause.is_users() => (policy.retries, Why::Failed),
        _ => (0, Why::Failed),
    };
    for (tag, rows) in segment.runs().filter(|(tag, _)| !is_value(*tag)) {
        let is_tried = policy.idempotent && (tag != FAILED || policy.retries > 0);
        if (tag != AGAIN || cfg!(plant = "round_taken_for_result")) && !is_tried {
            continue;
        }
        // Many tasks may have ended of the very same: it is read once.
        let mut last = (&[][..], (0, Why::Failed));
        for row in rows.start..rows.end {
            let index = range.start + row;
            let (retries, why) = match (tag, segment.value(row)) {
                (AGAIN, _) => (u32::MAX, Why::Round),
                _ if for_good.contains(index) => (0, Why::Failed),
                (FAILED, _) => (policy.retries, Why::Failed),
                (ERROR, Some((_, text))) => {
                    if last.0 != text {
                        let failed = codec::decode::<Failed>(text).ok();
                        let read = failed.map(|failed| retries_of(&failed.cause));
                        last = (text, read.unwrap_or((0, Why::Failed)));
                    }
                    last.1
                }
                _ => (0, Why::Failed),
            };
            let exception = known.exception(index);
            let counted = retries > 0 && exception.charged >= origin.attempt;
            if !known.has_ended(index) && (counted || exception.failures < retries) {
                again.push(Again { index, counted, why });
            }
        }
    }
    again.sort_unstable_by_key(|again| again.index);
    again
}
