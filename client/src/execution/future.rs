//! `.await` on an execution.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::de::DeserializeOwned;

use super::outcome::kind_of_task;
use super::{Execution, home};
use crate::error::TaskError;

/// Waits for the result of an [`Execution`], without holding up a thread. Dropping it changes nothing.
#[derive(Debug)]
#[must_use = "a future does nothing until it is awaited"]
pub struct Outcome<R>(Execution<R>);

// Nothing in it is pinned.
impl<R> Unpin for Outcome<R> {}

impl<R: DeserializeOwned> Future for Outcome<R> {
    type Output = Result<R, TaskError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.0.slot.settled().is_none() {
            match home::is_polled() {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(self.0.result()),
                Err(error) => return Poll::Ready(Err(self.0.error_of(kind_of_task(error)))),
            }
        }
        match self.0.poll_result(context.waker()) {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }
}

impl<R: DeserializeOwned> IntoFuture for Execution<R> {
    type Output = Result<R, TaskError>;
    type IntoFuture = Outcome<R>;

    fn into_future(self) -> Outcome<R> {
        Outcome(self)
    }
}

impl<R: DeserializeOwned> IntoFuture for &Execution<R> {
    type Output = Result<R, TaskError>;
    type IntoFuture = Outcome<R>;

    fn into_future(self) -> Outcome<R> {
        Outcome(self.clone())
    }
}
