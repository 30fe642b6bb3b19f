//! A thread with a runtime of its own, whose tasks need not be `Send`.

use std::future::Future;
use std::io;
use std::panic::resume_unwind;

use tokio::runtime::{Builder, LocalOptions};

/// Runs `future` to its end on this thread, as one task among those that it spawns with `spawn_local`.
///
/// Neither as what the runtime blocks on, nor in a `LocalSet`: who is woken there by a task of the same
/// thread, or by its sockets, is woken through the runtime's event descriptor, a write and another round
/// of its loop each time. A call on an embedded cluster has a handful of such wakes.
///
/// # Errors
/// The system gives no runtime: it has no descriptors left, most likely.
pub fn run<F: Future + 'static>(future: F) -> io::Result<F::Output> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let task = runtime.spawn_local(future);
    match runtime.block_on(task) {
        Ok(output) => Ok(output),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            Err(cancelled) => Err(io::Error::other(cancelled)),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn tasks_of_the_thread_share_what_is_not_send() {
        let shared = Rc::new(5);
        let output = run(async move {
            let theirs = Rc::clone(&shared);
            let theirs = tokio::task::spawn_local(async move { *theirs });
            theirs.await.unwrap() + *shared
        });
        assert_eq!(output.unwrap(), 10);
    }

    #[test]
    #[should_panic(expected = "as it is")]
    fn a_panic_is_passed_on() {
        _ = run(async { panic!("as it is") });
    }
}
