//! `run`: everything goes out, everything is kept, and is decoded in order at the end.
//!
//! The caller is woken when the window has room again, when a failure ends the call, and at the end;
//! not for every segment. `run_async` is the same with another way to wait.

use super::OnError;
use super::call::{Call, Given};
use crate::delayed::Delayed;
use crate::error::{Reason, RunError};
use crate::progress::Display;
use crate::session::inbox::{Arrived, Mail, Wanted};

/// Arguments on their way of one call: as much as a session may have uncommitted, so that one call
/// can use all of the link, and enough for half a second of the smallest tasks.
pub(super) const WINDOW_BYTES: usize = 16 << 20;

/// A caller that has met the window goes on when a quarter of it is free: one wake for many segments.
const ROOM_BYTES: usize = WINDOW_BYTES / 4;

/// Sends all of `calls`, as the window allows; returns when they are all given, or the call is over.
pub(super) fn give_all<R>(
    call: &mut Call<R>,
    calls: impl Iterator<Item = Delayed<R>>,
    window: Window,
    display: &mut Option<Display>,
) -> Result<(), Reason> {
    let mut calls = calls.fuse();
    while let Some(pause) = give_some(call, &mut calls, window)? {
        call.show(display);
        if let Pause::Full(wanted) = pause {
            wait(call, wanted, display);
        }
    }
    Ok(())
}

/// The same without holding up a thread.
pub(super) async fn give_all_async<R>(
    call: &mut Call<R>,
    calls: impl Iterator<Item = Delayed<R>>,
    window: Window,
    display: &mut Option<Display>,
) -> Result<(), Reason> {
    let mut calls = calls.fuse();
    while let Some(pause) = give_some(call, &mut calls, window)? {
        call.show(display);
        match pause {
            Pause::Breath => tokio::task::yield_now().await,
            Pause::Full(wanted) => call.inbox.until(wanted).await,
        }
    }
    Ok(())
}

/// Why tasks are not given for a while.
enum Pause {
    /// Enough for one time.
    Breath,
    /// The window is full until this has come.
    Full(Wanted),
}

/// Sends some of `calls`; `None` when they are all given, or the call is over.
fn give_some<R>(
    call: &mut Call<R>,
    calls: &mut impl Iterator<Item = Delayed<R>>,
    window: Window,
) -> Result<Option<Pause>, Reason> {
    if call.look() {
        call.seal();
        return Ok(None);
    }
    while let Some(next) = calls.next() {
        let last = call.given == 0 && calls.size_hint().1 == Some(0);
        if call.give(next, last)? == Given::Stopped {
            break;
        }
        let told = call.has_told();
        let full = match window.tasks {
            Some(tasks) => call.given as u64 >= call.seen + tasks as u64,
            None => told,
        };
        if full
            && let Some(wanted) = window.overrun(call)
            && !is_short_of_a_range(call)
        {
            call.flush();
            return Ok(Some(Pause::Full(wanted)));
        }
        if told {
            return Ok(Some(Pause::Breath));
        }
    }
    call.seal();
    Ok(None)
}

/// Whether what is on its way may be less than a range of the fixed length that the user asked for.
#[cold]
fn is_short_of_a_range<R>(call: &Call<R>) -> bool {
    let least = call.least_ahead() as u64;
    least > 0 && call.given as u64 - call.inbox.mail().finished < least
}

/// How many tasks an iterator has, if it says so.
pub(super) fn total_of<T>(calls: &impl Iterator<Item = T>) -> Option<u64> {
    match calls.size_hint() {
        (low, Some(high)) if low == high => Some(low as u64),
        _ => None,
    }
}

/// How far the iterator is consumed ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// At most so many tasks on their way.
    pub(super) tasks: Option<usize>,
    /// What is not committed counts, not what has not ended: nobody takes outcomes meanwhile.
    pub(super) until_committed: bool,
}

impl Window {
    /// What has to come before the call goes on, if it has gone as far as the window.
    #[cold]
    fn overrun<R>(self, call: &Call<R>) -> Option<Wanted> {
        let (enough, wanted) = match self.tasks {
            // A quarter of a large window at a time, as with bytes.
            Some(tasks) => {
                let room = (tasks as u64 / 4).max(1);
                let wanted = Wanted::Finished(call.given as u64 + room - tasks as u64);
                (wanted, wanted)
            }
            None if self.until_committed => (
                Wanted::UncommittedBelow(WINDOW_BYTES),
                Wanted::UncommittedBelow(WINDOW_BYTES - ROOM_BYTES),
            ),
            None => (Wanted::KeptBelow(WINDOW_BYTES), Wanted::KeptBelow(WINDOW_BYTES - ROOM_BYTES)),
        };
        (!call.inbox.mail().is_met(enough)).then_some(wanted)
    }
}

/// Waits until what is wanted has come, or never will.
pub(super) fn wait<R>(call: &Call<R>, wanted: Wanted, display: &mut Option<Display>) {
    loop {
        let mail = call.inbox.wait(wanted, display.as_ref().map(Display::patience));
        let come = mail.has(wanted, call.inbox.rules());
        drop(mail);
        call.show(display);
        if come {
            return;
        }
    }
}

/// Waits for the end of a call, without holding up a thread.
pub(super) async fn end<R>(call: &Call<R>, display: &mut Option<Display>) {
    while !call.is_over() {
        let wanted = match display {
            // Each outcome is an occasion to show it.
            Some(_) => Wanted::Finished(call.inbox.mail().finished + 1),
            None => Wanted::End,
        };
        call.inbox.until(wanted).await;
        call.show(display);
    }
}

/// A call that failed, with the value that counts as its failure where there is one (`try_run`).
pub(crate) type Failure<R> = (RunError, Option<R>);

/// The result of a call that holds its outcomes: its calls were given and it is over, or one of them
/// could not be given.
pub(super) fn gathered<M: OnError, R>(
    call: &Call<R>,
    given: Result<(), Reason>,
    display: Option<Display>,
) -> Result<M::Out<R>, Failure<R>> {
    let arrived = std::mem::take(&mut call.inbox.mail().arrived);
    if let Err(reason) = given {
        return Err((RunError::new(reason, call.finished(arrived)), None));
    }
    call.show_end(display);
    conclude::<M, R>(call, arrived.into())
}

/// The result of a call that is over. `M` says what failures mean.
pub(crate) fn conclude<M: OnError, R>(
    call: &Call<R>,
    mut arrived: Vec<Arrived>,
) -> Result<M::Out<R>, Failure<R>> {
    if let Some(error) = call.disorder() {
        return Err((RunError::new(Reason::Cluster(error), call.finished(arrived)), None));
    }
    let (stopped, failures) = {
        let mail: &Mail = &call.inbox.mail();
        (mail.is_stopped(call.inbox.rules()), mail.failures)
    };
    if stopped && let Some((error, at, row)) = call.first_failure(&arrived) {
        let value = call.outcome(at, row, error.index()).ok();
        let reason = match call.inbox.rules().stop_after {
            Some(1) => Reason::Task(error),
            _ => Reason::TooMany { failures, first: error },
        };
        return Err((RunError::new(reason, call.finished(arrived)), value));
    }
    arrived.sort_unstable_by_key(|arrived| (arrived.part, arrived.range.start));
    let collected = if let [part] = call.parts.as_slice() {
        M::collect(in_order(call, part.indices.tasks(), &arrived), call.given)
    } else {
        M::collect(from_parts(call, &arrived), call.given)
    };
    collected.map_err(|error| (RunError::new(Reason::Task(error), call.finished(arrived)), None))
}

/// The outcomes of a call of one part, from segments in order.
fn in_order<'a, R>(
    call: &'a Call<R>,
    tasks: u32,
    arrived: &'a [Arrived],
) -> impl Iterator<Item = Result<R, crate::error::TaskError>> + 'a {
    let starts = arrived.iter().map(|arrived| arrived.range.start).skip(1);
    let gap = move |from: u32, to: u32| (from..to).map(move |task| Err(call.missing(0, task)));
    let first = arrived.first().map_or(tasks, |arrived| arrived.range.start);
    gap(0, first).chain(arrived.iter().zip(starts.chain([tasks])).flat_map(
        move |(segment, next)| {
            let range = segment.range;
            let rows = (0..range.len())
                .map(move |row| call.outcome(segment, row, (range.start + row) as usize));
            rows.chain(gap(range.end, next))
        },
    ))
}

/// The outcomes of a call of several parts, put in the order of the call.
fn from_parts<'a, R>(
    call: &'a Call<R>,
    arrived: &[Arrived],
) -> impl Iterator<Item = Result<R, crate::error::TaskError>> + 'a {
    let mut all = Vec::new();
    all.resize_with(call.given, || None);
    for segment in arrived {
        let indices = &call.parts[segment.part as usize].indices;
        for (row, index) in indices
            .rows(segment.range.start..segment.range.end)
            .into_iter()
            .flat_map(|run| run.rows())
        {
            all[index] = Some(call.outcome(segment, row, index));
        }
    }
    for (number, part) in (0u32..).zip(&call.parts) {
        for task in 0..part.indices.tasks() {
            all[part.indices.index(task)].get_or_insert_with(|| Err(call.missing(number, task)));
        }
    }
    all.into_iter().flatten()
}
