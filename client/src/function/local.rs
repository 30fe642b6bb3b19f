//! Runs the future of an `async` task to its end on the thread of the task, where it cannot go from thread to thread, or
//! where that is not known.
//!
//! A future of `delayed` need not be `Send`: requiring that would make an `async fn` that delays itself
//! impossible to infer. So each thread has a current-thread runtime with a local set of its own.
//! A thread that is inside a runtime already (an inline run, `n_jobs(1)`, in somebody's `async main`)
//! may not enter a second one: there the future is polled by parking, and its timers and sockets are
//! driven by one background thread.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::LocalSet;

use crate::executor::tasks;

thread_local! {
    static RUNTIME: Runtime = runtime();
}

/// Waits for `future` on this thread.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let future = tasks::yielding(Box::pin(future));
    if Handle::try_current().is_ok() {
        return park_on(future);
    }
    RUNTIME.with(|runtime| LocalSet::new().block_on(runtime, future))
}

fn runtime() -> Runtime {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime for an async task: {error}; raise `ulimit -n`"),
    }
}

/// Polls `future` here, with the background thread as the driver of what it waits for.
fn park_on<F: Future>(future: F) -> F::Output {
    let _driver = driver().enter();
    let local = LocalSet::new();
    let mut future = pin!(local.run_until(future));
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The runtime of the background thread, which lives as long as the process.
pub(crate) fn driver() -> &'static Handle {
    static DRIVER: OnceLock<Handle> = OnceLock::new();
    DRIVER.get_or_init(|| {
        let runtime = runtime();
        let handle = runtime.handle().clone();
        let driver = thread::Builder::new()
            .name("allhands-async".into())
            .spawn(move || runtime.block_on(std::future::pending::<()>()));
        match driver {
            Ok(_) => handle,
            Err(error) => panic!("no thread for async tasks: {error}; raise `ulimit -u`"),
        }
    })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use super::{Builder, block_on};

    async fn not_send() -> usize {
        let shared = Rc::new(5);
        let other = Rc::clone(&shared);
        let spawned = tokio::task::spawn_local(async move { *other });
        tokio::time::sleep(Duration::from_millis(2)).await;
        *shared + spawned.await.unwrap()
    }

    #[test]
    fn outside_and_inside_of_a_runtime() {
        assert_eq!(block_on(not_send()), 10);
        for flavor in [Builder::new_current_thread, Builder::new_multi_thread] {
            let outer = flavor().enable_all().build().unwrap();
            outer.block_on(async { assert_eq!(block_on(not_send()), 10) });
        }
        assert_eq!(block_on(async { block_on(not_send()) }), 10);
    }
}
