//! Executions: calls that were submitted one by one, as handles on what comes of them.
//!
//! * `slot` is where an outcome comes in, `once` and `signal` how others wait for it, `home` who brings it.
//! * `handle` is how an execution travels, `named` notes which a call names, so that the cluster keeps them.
//! * `convert` and `layers` make arguments of executions, `fill` is how an executor turns outcomes into them.
//! * `outcome` reads what came, `future` and `done` tell whoever does not wait, `many` is about several.
//! * `submit` is how a call goes out, `within` what is different inside a task.
//!
//! Nothing here survives the process: the cluster keeps what is submitted for as long as its session lasts.

pub(crate) mod convert;
mod done;
pub(crate) mod fill;
mod future;
pub(crate) mod handle;
pub(crate) mod home;
pub(crate) mod layers;
mod many;
pub(crate) mod named;
mod once;
mod outcome;
mod signal;
pub(crate) mod slot;
mod submit;
mod within;

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use allhands_common::execution::Awaited;
use allhands_common::id::TaskId;
use allhands_common::segment::{ERROR, FAILED};
use serde::de::DeserializeOwned;

use self::home::Ties;
use self::once::Waiter;
use self::slot::{Beginning, Slot};
use crate::error::TaskError;
#[expect(unused_imports, reason = "the documentation names it")]
use crate::error::TaskErrorKind;

pub use future::Outcome;
pub use many::{AsCompleted, Buffered, Until, Waited, as_completed, select, wait, wait_timeout};
pub(crate) use submit::Encoded;

/// A call that was submitted: a handle on what comes of it. [`Delayed::submit`](crate::Delayed::submit),
/// [`Cluster::submit`](crate::Cluster::submit) and the `submit` of a `#[task]` function make one.
///
/// `R` is what the function returns. Take the value with [`result`](Self::result) or `.await`; or pass the execution
/// on, as the argument of another call: where that one wants the value, the cluster starts it when the value is
/// there, and it never comes here.
///
/// ```no_run
/// use allhands::prelude::*;
///
/// #[allhands::task]
/// fn load(id: u64) -> Vec<f64> {
///     vec![id as f64; 1000]
/// }
///
/// #[allhands::task]
/// fn mean(values: &[f64]) -> f64 {
///     values.iter().sum::<f64>() / values.len() as f64
/// }
///
/// #[allhands::main]
/// fn main() -> allhands::Result<()> {
///     let loaded = load::submit(7)?;
///     let mean = mean::submit(&loaded)?; // starts when `load` has ended
///     println!("{}", mean.result()?);
///     Ok(())
/// }
/// ```
///
/// Clones are handles on the same task. It runs whether or not somebody waits for it; its outcome stays in the
/// cluster for as long as somebody has a handle, or a task that was given one has not ended. It is a serde type: in
/// an argument or a result it is a handle, wherever it is nested.
///
/// It is not itself a future, but becomes one ([`IntoFuture`](std::future::IntoFuture)).
pub struct Execution<R> {
    slot: Arc<Slot>,
    /// Keeps the cluster from ending.
    ties: Ties,
    result: PhantomData<fn() -> R>,
}

impl<R> Execution<R> {
    pub(crate) fn new(slot: Arc<Slot>, ties: Ties) -> Self {
        named::begin();
        Self { slot, ties, result: PhantomData }
    }

    /// One that keeps nothing but its slot.
    pub(crate) fn of_slot(slot: &Arc<Slot>) -> Self {
        Self::new(Arc::clone(slot), Ties::none())
    }

    /// One on what the execution in `slot` leads to, if it returns an execution.
    pub(crate) fn leading_to(slot: &Arc<Slot>) -> Self {
        Self::leading(slot, false)
    }

    fn leading(slot: &Arc<Slot>, flattens: bool) -> Self {
        if slot.of().follow {
            return Self::of_slot(slot);
        }
        let of = Awaited { follow: true, ..slot.of() };
        Self::of_slot(&Slot::new(Beginning {
            of,
            cluster: slot.cluster(),
            home: slot.home().clone(),
            function: None,
            returns: None,
            origin: Some(Arc::clone(slot)),
            flattens,
            counted: false,
            comes: false,
        }))
    }

    /// Its task, as `allhands job` prints it.
    pub fn id(&self) -> TaskId {
        self.slot.of().task
    }

    /// Whether it has ended, in whatever way. A task that asks lets go of its slot for a moment.
    pub fn done(&self) -> bool {
        home::glance(&self.slot);
        self.slot.ask();
        self.slot.settled().is_some()
    }

    /// Waits for its end; why it has no value, if it has none, or the function's own `Err`
    /// ([`TaskErrorKind::Failed`], which [`downcast`](TaskError::downcast) reads).
    pub fn error(&self) -> Option<TaskError> {
        match self.wait_read(None)? {
            Ok((FAILED, codec, value)) => {
                Some(self.error_of(outcome::own_error(codec, value.bytes())))
            }
            Ok((tag @ ERROR, _, value)) => Some(self.failure(tag, value.bytes())),
            Ok(_) => None,
            Err(kind) => Some(self.error_of(kind)),
        }
    }

    /// Calls `f` with it once it has ended, on a thread that runs such callbacks one after the other; at once, if it
    /// has. What it does with the thread it keeps others from: let it be short.
    pub fn on_done(&self, f: impl FnOnce(Self) + Send + 'static)
    where
        R: 'static,
    {
        // It keeps the slot, but not the cluster, which ends when everybody else has let go of it.
        let own = Self::of_slot(&self.slot);
        let run = move || done::run(Box::new(move || f(own)));
        self.slot.tell(Waiter::Run(Box::new(run)));
    }

    /// Ends it, if it has not ended: then it ends as [`Cancelled`](crate::Cause::Cancelled), without running if it
    /// has not begun. Whether there was anything to cancel, as far as is known here; does not wait.
    pub fn cancel(&self) -> bool {
        let open = self.slot.settled().is_none();
        if open {
            self.slot.home().cancel(self.id());
        }
        open
    }
}

impl<R: DeserializeOwned> Execution<R> {
    /// Waits for its end; what the function returned. If that is a `Result`, there are two to look at:
    /// `execution.result()??`, or [`ok`](Self::ok).
    ///
    /// # Errors
    /// It has no value: it panicked, took too long, was cancelled, depends on one that has none, ...; or the cluster
    /// cannot be had.
    pub fn result(&self) -> Result<R, TaskError> {
        match self.wait_read(None) {
            Some(read) => self.read(read),
            // Only deadlines pass.
            None => Err(self.overdue(Duration::MAX)),
        }
    }

    /// [`result`](Self::result), if it has ended before `timeout` has passed, counted from this call.
    ///
    /// # Errors
    /// As [`result`](Self::result); [`TaskErrorKind::Overdue`] if it has not ended: it goes on, and may be asked
    /// again. In a task it comes later where another task has taken its slot meanwhile, and has not let go of it.
    pub fn result_timeout(&self, timeout: Duration) -> Result<R, TaskError> {
        match self.wait_read(Instant::now().checked_add(timeout)) {
            Some(read) => self.read(read),
            None => Err(self.overdue(timeout)),
        }
    }

    /// [`result`](Self::result), if it is here; does not wait. A long one is fetched when this is first asked. A task
    /// that asks lets go of its slot for a moment, and goes on when another has let it in again.
    pub fn poll(&self) -> Option<Result<R, TaskError>> {
        home::glance(&self.slot);
        self.poll_result(std::task::Waker::noop())
    }
}

impl<T: DeserializeOwned, E: DeserializeOwned + fmt::Debug> Execution<Result<T, E>> {
    /// Waits for its end; what is in the `Ok` that the function returned.
    ///
    /// # Errors
    /// As [`result`](Self::result); an `Err` is [`TaskErrorKind::Failed`], whose text says it and which
    /// [`downcast`](TaskError::downcast) reads.
    pub fn ok(&self) -> Result<T, TaskError> {
        let (tag, codec, value) = match self.wait_read(None) {
            Some(read) => read.map_err(|kind| self.error_of(kind))?,
            None => return Err(self.overdue(Duration::MAX)),
        };
        if tag == FAILED {
            return Err(self.own_error(codec, value.bytes()));
        }
        let bytes = bytes::Bytes::copy_from_slice(value.bytes());
        match self.read(Ok((tag, codec, value)))? {
            Ok(ok) => Ok(ok),
            // An `Err` that the executor did not take for one: the type's own serde.
            Err(_) => Err(self.own_error(codec, &bytes)),
        }
    }

    fn own_error(&self, codec: u8, bytes: &[u8]) -> TaskError {
        let mut error = self.error_of(outcome::own_error(codec, bytes));
        if let Some(own) = error.downcast::<E>() {
            error.describe(format!("{own:?}"));
        }
        error
    }
}

impl<T> Execution<Execution<T>> {
    /// A handle on what it leads to: the result of the execution that it returns. Does not wait.
    pub fn flatten(self) -> Execution<T> {
        let leads = Execution::<T>::leading_to(&self.slot);
        Execution::new(leads.slot, self.ties)
    }
}

impl<T, E> Execution<Result<Execution<T>, E>> {
    /// A handle on what it leads to: the result of the execution that it returns in an `Ok`. Does not wait. If it
    /// returns an `Err`, that is the [`error`](Self::error) of the handle, and its `result` an error.
    pub fn flatten(self) -> Execution<T> {
        let leads = Execution::<T>::leading(&self.slot, true);
        Execution::new(leads.slot, self.ties)
    }
}

impl<R> Clone for Execution<R> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot), ties: self.ties.clone(), result: PhantomData }
    }
}

impl<R> fmt::Debug for Execution<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Execution({}", self.id())?;
        if let Some(function) = self.slot.function() {
            write!(f, ", {}", function.label())?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
pub(crate) mod tests;
