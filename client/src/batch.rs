//! A call that is on its way: `.await` it, take from it as a stream, or wait for it.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;

use crate::error::{Finished, Reason, RunError, TaskError};
use crate::parallel::stream::Outcomes;
use crate::parallel::{FailFast, OnError, conclude};
use crate::progress::Display;
use crate::session::inbox::Wanted;

/// A call that is on its way; [`Parallel::start`](crate::Parallel::start) makes one.
///
/// As a future it is what `run` returns. As a [`Stream`] it gives outcomes as they come, each with its
/// place in the order of the calls, and ends after as many errors as end the call. Dropping it cancels
/// what has not ended.
///
/// ```no_run
/// # use allhands::prelude::*;
/// # use futures_util::StreamExt;
/// # fn square(n: u64) -> u64 { n * n }
/// # async fn in_async_code() -> allhands::Result<()> {
/// let mut batch = Parallel::new().start((0..1000).map(delayed(square)))?;
/// while let Some((place, result)) = batch.next().await {
///     println!("{place}: {}", result?);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "dropping a batch cancels it: `.await` it, or `.wait()` for it"]
pub struct Batch<R, M = FailFast> {
    stage: Stage<R>,
    mode: PhantomData<M>,
    display: Option<Display>,
    /// Errors that the stream may still give.
    errors_left: Option<u32>,
}

enum Stage<R> {
    /// On a cluster.
    Sent(Box<Outcomes<R>>),
    /// It ran in the caller's thread; the next outcome's place, and the outcomes.
    Ran(usize, std::vec::IntoIter<Result<R, TaskError>>),
}

impl<R, M: OnError> Batch<R, M> {
    pub(crate) fn sent(outcomes: Outcomes<R>, mode: M, display: Option<Display>) -> Self {
        Self::new(Stage::Sent(Box::new(outcomes)), mode, display)
    }

    pub(crate) fn ran(outcomes: Vec<Result<R, TaskError>>, mode: M) -> Self {
        Self::new(Stage::Ran(0, outcomes.into_iter()), mode, None)
    }

    fn new(stage: Stage<R>, mode: M, display: Option<Display>) -> Self {
        Self { stage, mode: PhantomData, display, errors_left: mode.stop_after() }
    }

    /// Waits on this thread for all of it: what [`run`](crate::Parallel::run) returns.
    ///
    /// # Errors
    /// As [`run`](crate::Parallel::run); also if outcomes were taken from the stream before.
    pub fn wait(mut self) -> Result<M::Out<R>, RunError> {
        let mut outcomes = match self.stage {
            Stage::Sent(outcomes) => outcomes,
            Stage::Ran(at, outcomes) => return ended::<R, M>(at, outcomes),
        };
        outcomes.hold();
        while !outcomes.collect() {
            let patience = self.display.as_ref().map(Display::patience);
            drop(outcomes.inbox().wait(Wanted::Outcome, patience));
            outcomes.call.show(&mut self.display);
        }
        concluded::<R, M>(*outcomes, self.display)
    }

    /// Whether nothing more will come: `wait` would return at once.
    pub fn is_finished(&self) -> bool {
        match &self.stage {
            Stage::Sent(outcomes) => outcomes.call.is_over(),
            Stage::Ran(..) => true,
        }
    }
}

impl<R, M> std::fmt::Debug for Batch<R, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.stage {
            Stage::Sent(_) => "Batch(on a cluster)",
            Stage::Ran(..) => "Batch(ran in the caller's thread)",
        })
    }
}

/// The result of a batch that ran in the caller's thread.
fn ended<R, M: OnError>(
    at: usize,
    outcomes: std::vec::IntoIter<Result<R, TaskError>>,
) -> Result<M::Out<R>, RunError> {
    if at > 0 {
        return Err(taken_before());
    }
    let tasks = outcomes.len();
    M::collect(outcomes, tasks).map_err(RunError::from)
}

fn concluded<R, M: OnError>(
    outcomes: Outcomes<R>,
    display: Option<Display>,
) -> Result<M::Out<R>, RunError> {
    outcomes.call.show_end(display);
    if outcomes.has_begun() {
        return Err(taken_before());
    }
    let (call, arrived) = outcomes.into_rest();
    conclude::<M, R>(&call, arrived).map_err(|(error, _)| error)
}

fn taken_before() -> RunError {
    let text = "outcomes were taken from the batch as a stream before it was awaited as a whole: take \
                the others in the same way, or await it from the beginning";
    RunError::new(Reason::Option(text), Finished::default())
}

fn awaited_before() -> RunError {
    let text = "the batch was awaited to its end before, and its results were taken then";
    RunError::new(Reason::Option(text), Finished::default())
}

impl<R, M: OnError> IntoFuture for Batch<R, M> {
    type Output = Result<M::Out<R>, RunError>;
    type IntoFuture = Collected<R, M>;

    fn into_future(mut self) -> Collected<R, M> {
        if let Stage::Sent(outcomes) = &mut self.stage {
            outcomes.hold();
        }
        Collected(Some(self))
    }
}

/// Waits for all of a [`Batch`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct Collected<R, M = FailFast>(Option<Batch<R, M>>);

// Nothing in them is pinned.
impl<R, M> Unpin for Batch<R, M> {}
impl<R, M> Unpin for Collected<R, M> {}

impl<R, M: OnError> Future for Collected<R, M> {
    type Output = Result<M::Out<R>, RunError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(Batch { stage: Stage::Sent(outcomes), display, .. }) = &mut self.0 {
            while !outcomes.collect() {
                outcomes.call.show(display);
                if outcomes.inbox().wake_at(Wanted::Outcome, context.waker()) {
                    return Poll::Pending;
                }
            }
        }
        let Some(batch) = self.0.take() else {
            return Poll::Ready(Err(awaited_before()));
        };
        Poll::Ready(match batch.stage {
            Stage::Sent(outcomes) => concluded::<R, M>(*outcomes, batch.display),
            Stage::Ran(at, outcomes) => ended::<R, M>(at, outcomes),
        })
    }
}

impl<R, M: OnError> Stream for Batch<R, M> {
    type Item = (usize, Result<R, TaskError>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.errors_left == Some(0) {
            return Poll::Ready(None);
        }
        let Self { stage, display, .. } = &mut *self;
        let next = match stage {
            Stage::Sent(outcomes) => loop {
                outcomes.call.show(display);
                if let Some(outcome) = outcomes.next() {
                    break Some(outcome);
                }
                if outcomes.is_done() {
                    outcomes.call.show_end(display.take());
                    break None;
                }
                if outcomes.inbox().wake_at(Wanted::Outcome, context.waker()) {
                    return Poll::Pending;
                }
            },
            Stage::Ran(at, outcomes) => outcomes.next().map(|outcome| {
                *at += 1;
                (*at - 1, outcome)
            }),
        };
        if let (Some((_, Err(_))), Some(left)) = (&next, &mut self.errors_left) {
            *left -= 1;
        }
        Poll::Ready(next)
    }
}
