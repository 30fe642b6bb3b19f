//! The thread that runs `on_done` callbacks. They are the user's, and may wait for anything: on the thread that
//! brings outcomes, one that waits for another outcome would wait for ever.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::sync::mpsc::{Sender, channel};

/// A callback that is due.
pub(super) type Callback = Box<dyn FnOnce() + Send>;

/// Bounded by the executions that there are, each with as many callbacks as its user gave.
static DUE: LazyLock<Option<Sender<Callback>>> = LazyLock::new(|| {
    let (due, callbacks) = channel::<Callback>();
    let run = move || {
        for callback in callbacks {
            // The panic hook has shown it; the others are not to blame.
            _ = catch_unwind(AssertUnwindSafe(callback));
        }
    };
    std::thread::Builder::new().name("allhands-done".into()).spawn(run).ok().map(|_| due)
});

/// Runs it there.
pub(super) fn run(callback: Callback) {
    match DUE.as_ref() {
        // The thread lives as long as the process.
        Some(due) => _ = due.send(callback),
        None => callback(),
    }
}
