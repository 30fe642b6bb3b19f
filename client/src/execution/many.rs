//! Several executions at once: waiting for some of them, taking them as they end, and calls that go out as results
//! are taken.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::Stream;
use serde::de::DeserializeOwned;

use super::once::Waiter;
use super::outcome::{block, kind_of_task};
use super::slot::{Settled, Slot};
use super::{Execution, home};
use crate::cluster::Cluster;
use crate::delayed::Delayed;
use crate::error::{Result as ClusterResult, RunError, TaskError, TaskErrorKind};
use crate::executor::tasks::NotHere;

/// What [`wait`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The end of all.
    All,
    /// The end of any one.
    First,
    /// The end of one as an error, a function's own `Err` included; else of all.
    FirstError,
}

/// Which executions have ended: their places in the list that was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waited {
    /// Those that have ended, in order of the list.
    pub done: Vec<usize>,
    /// The others.
    pub open: Vec<usize>,
}

/// Waits for some of `executions` to end; which have. Those that have no value have ended, too.
///
/// ```no_run
/// use allhands::{Until, delayed, wait};
///
/// # fn fetch(id: u32) -> String { id.to_string() }
/// let both = [delayed(fetch)(1).submit()?, delayed(fetch)(2).submit()?];
/// let first = wait(&both, Until::First).done[0];
/// println!("{}", both[first].result()?);
/// # Ok::<(), allhands::Error>(())
/// ```
pub fn wait<R>(executions: &[Execution<R>], until: Until) -> Waited {
    wait_for(executions, until, None)
}

/// [`wait`], but not beyond `timeout`, counted from this call.
pub fn wait_timeout<R>(executions: &[Execution<R>], until: Until, timeout: Duration) -> Waited {
    wait_for(executions, until, Instant::now().checked_add(timeout))
}

fn wait_for<R>(executions: &[Execution<R>], until: Until, deadline: Option<Instant>) -> Waited {
    let slots = executions.iter().map(|execution| &execution.slot);
    // Asked for before any is waited for: they come together.
    slots.clone().for_each(Slot::ask);
    match until {
        Until::All => {
            // The next one that has not ended, then the one after it: each is looked at once.
            let mut at = 0;
            _ = block(slots.clone(), deadline, |waker| {
                while let Some(execution) = executions.get(at) {
                    execution.slot.poll(waker)?;
                    at += 1;
                }
                Some(())
            });
        }
        Until::First | Until::FirstError => {
            let ended = Ended::of(slots.clone());
            let mut left = executions.len();
            _ = block(slots, deadline, |waker| {
                while left > 0 {
                    let at = ended.next(waker)?;
                    left -= 1;
                    let settled = executions[at].slot.settled();
                    if until == Until::First || settled.is_some_and(Settled::is_error) {
                        break;
                    }
                }
                Some(())
            });
        }
    }
    let has_ended = |at: &usize| executions[*at].slot.settled().is_some();
    let (done, open) = (0..executions.len()).partition(has_ended);
    Waited { done, open }
}

/// The places of executions that have ended, as they do.
#[derive(Debug, Clone)]
struct Ended(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    places: VecDeque<usize>,
    waker: Option<Waker>,
}

impl Ended {
    fn of<'a>(slots: impl Iterator<Item = &'a Arc<Slot>>) -> Self {
        let ended = Self(Arc::default());
        for (place, slot) in slots.enumerate() {
            // Who does not look any more is gone before the slot is.
            let queue = Arc::downgrade(&ended.0);
            let put = move || {
                let Some(queue) = queue.upgrade() else { return };
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.places.push_back(place);
                let waker = queue.waker.take();
                drop(queue);
                if let Some(waker) = waker {
                    waker.wake();
                }
            };
            slot.tell(Waiter::Run(Box::new(put)));
        }
        ended
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one; `waker` is left if there is none.
    fn next(&self, waker: &Waker) -> Option<usize> {
        let mut queue = self.queue();
        let next = queue.places.pop_front();
        if next.is_none() {
            queue.waker = Some(waker.clone());
        }
        next
    }
}

/// The results of `executions` as they end, each with its place in the list. An iterator, and a [`Stream`].
///
/// ```no_run
/// use allhands::{as_completed, delayed};
///
/// # fn fetch(id: u32) -> String { id.to_string() }
/// let all: Vec<_> = (0..10).map(|id| delayed(fetch)(id).submit()).collect::<Result<_, _>>()?;
/// for (place, result) in as_completed(&all) {
///     println!("{place}: {}", result?);
/// }
/// # Ok::<(), allhands::Error>(())
/// ```
pub fn as_completed<R>(executions: &[Execution<R>]) -> AsCompleted<R> {
    let ended = Ended::of(executions.iter().map(|execution| &execution.slot));
    AsCompleted { executions: executions.to_vec(), ended, left: executions.len(), next: None }
}

/// The results of executions as they end: see [`as_completed`].
#[derive(Debug)]
pub struct AsCompleted<R> {
    executions: Vec<Execution<R>>,
    ended: Ended,
    left: usize,
    /// One that has ended, of which a long result may still have to come.
    next: Option<usize>,
}

// Nothing in it is pinned.
impl<R> Unpin for AsCompleted<R> {}

impl<R: DeserializeOwned> AsCompleted<R> {
    fn poll(&mut self, waker: &Waker) -> Option<Option<(usize, Result<R, TaskError>)>> {
        let place = match self.next {
            Some(place) => place,
            None if self.left == 0 => return Some(None),
            None => {
                let place = self.ended.next(waker)?;
                self.left -= 1;
                *self.next.insert(place)
            }
        };
        let result = self.executions[place].poll_result(waker)?;
        self.next = None;
        Some(Some((place, result)))
    }
}

impl<R> AsCompleted<R> {
    /// The task of this thread cannot wait: an item like the others, and the last.
    fn stop(&mut self, error: NotHere) -> (usize, Result<R, TaskError>) {
        self.left = 0;
        let place = self.next.take().unwrap_or(0);
        (place, Err(self.executions[place].error_of(kind_of_task(error))))
    }
}

impl<R: DeserializeOwned> Iterator for AsCompleted<R> {
    type Item = (usize, Result<R, TaskError>);

    fn next(&mut self) -> Option<Self::Item> {
        let slots: Vec<Arc<Slot>> = match self.left + usize::from(self.next.is_some()) {
            0 => return None,
            _ => self.executions.iter().map(|execution| Arc::clone(&execution.slot)).collect(),
        };
        match block(slots.iter(), None, |waker| self.poll(waker)) {
            Ok(next) => next.flatten(),
            Err(error) => Some(self.stop(error)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.left + usize::from(self.next.is_some());
        (left, Some(left))
    }
}

impl<R: DeserializeOwned> Stream for AsCompleted<R> {
    type Item = (usize, Result<R, TaskError>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(next) = self.poll(context.waker()) {
            return Poll::Ready(next);
        }
        match home::is_polled() {
            Ok(true) => Poll::Pending,
            Ok(false) => Poll::Ready(Iterator::next(&mut *self)),
            Err(error) => Poll::Ready(Some(self.stop(error))),
        }
    }
}

/// Waits for the first of `executions` that ends; its place and its result. The others are cancelled, if
/// `cancel_rest` says so. `None` of none.
pub fn select<R: DeserializeOwned>(
    executions: &[Execution<R>],
    cancel_rest: bool,
) -> Option<(usize, Result<R, TaskError>)> {
    let first = *wait(executions, Until::First).done.first()?;
    if cancel_rest {
        let others = executions.iter().enumerate().filter(|(place, _)| *place != first);
        others.for_each(|(_, execution)| _ = execution.cancel());
    }
    Some((first, executions[first].result()))
}

impl Cluster {
    /// Submits `calls` as their results are taken, of which it gives an iterator, in order: at most `buffer` (one, if
    /// that is 0) are submitted and not taken, so that both may be endless. Dropping it cancels those.
    ///
    /// For very many short calls [`Parallel::run_iter`](crate::Parallel::run_iter) costs less each.
    ///
    /// ```no_run
    /// # use allhands::{Cluster, delayed};
    /// # fn fetch(id: u32) -> String { id.to_string() }
    /// for page in Cluster::from_env()?.map((0..).map(delayed(fetch)), 100) {
    ///     if page?.is_empty() {
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), allhands::Error>(())
    /// ```
    pub fn map<R, I>(&self, calls: I, buffer: usize) -> Buffered<R, I::IntoIter>
    where
        I: IntoIterator<Item = Delayed<R>>,
    {
        let calls = Some(calls.into_iter());
        Buffered {
            cluster: self.clone(),
            calls,
            buffer: buffer.max(1),
            sent: VecDeque::new(),
            taken: 0,
        }
    }
}

/// Results in order, of calls that are submitted as these are taken: see [`Cluster::map`].
#[derive(Debug)]
pub struct Buffered<R, I> {
    cluster: Cluster,
    /// Until it has ended.
    calls: Option<I>,
    buffer: usize,
    sent: VecDeque<ClusterResult<Execution<R>>>,
    taken: usize,
}

impl<R: DeserializeOwned, I: Iterator<Item = Delayed<R>>> Iterator for Buffered<R, I> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.sent.len() < self.buffer
            && let Some(calls) = &mut self.calls
        {
            match calls.next() {
                Some(call) => self.sent.push_back(self.cluster.submit(call)),
                None => self.calls = None,
            }
        }
        let next = self.sent.pop_front()?;
        self.taken += 1;
        Some(match next {
            Ok(execution) => execution.result(),
            Err(error) => {
                let kind = TaskErrorKind::Call(Arc::new(RunError::from(error)));
                Err(TaskError::new(self.taken - 1, "the call".into(), String::new(), kind))
            }
        })
    }
}

impl<R, I> Drop for Buffered<R, I> {
    fn drop(&mut self) {
        self.sent.iter().flatten().for_each(|execution| _ = execution.cancel());
    }
}
