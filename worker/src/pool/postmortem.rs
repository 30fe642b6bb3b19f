//! After an executor's death: what it was running, and why it died.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, TaskId};
use allhands_common::wire::executor::Begun;
use rustix::process::Signal;

use super::seat::{Doom, Seat, Suspended};

/// A task of an attempt, by its place in the batch.
type Task = (AttemptId, u32);

/// What `seat`'s executor was running when it died, and the one of them that ran too long. A task
/// whose outcome came in time was not running.
pub(super) fn running(seat: &Seat) -> (Vec<Task>, Option<Task>) {
    let doom = seat.doom.borrow();
    let mut running = Vec::new();
    let mut culprit = None;
    for task in seat.cell.running(seat.lanes) {
        let begun = Begun { sequence: task.sequence, place: task.index };
        let Some(Suspended { attempt, task: TaskId { index, .. }, .. }) = seat.find(begun) else {
            continue;
        };
        running.push((attempt, index));
        if let Some(Doom::TimedOut { culprits, .. }) = &*doom
            && culprits.contains(&(task.sequence, task.index))
        {
            culprit.get_or_insert((attempt, index));
        }
    }
    (running, culprit)
}

/// Why it died. `status` is missing where it could not even be started; `changed` looks for a file in place that it
/// had mapped and that is not what it was.
pub(super) fn cause(
    doom: Option<Doom>,
    status: Option<ExitStatus>,
    was_ready: bool,
    last_words: String,
    changed: impl FnOnce() -> Option<PathBuf>,
) -> Cause {
    let words = match doom {
        Some(Doom::Told) => {
            return Cause::Cancelled { reason: "its executor was ended".to_owned() };
        }
        Some(Doom::TimedOut { limit_ms, .. }) => return Cause::TimedOut { limit_ms },
        Some(Doom::Broken(words)) => words,
        None if was_ready => String::new(),
        None => "(it had not entered the executor)".to_owned(),
    };
    let signal = status.and_then(|status| status.signal());
    // What it read was behind the new end of a file that was cut: the kernel knows no other answer.
    if signal == Some(Signal::BUS.as_raw())
        && let Some(path) = changed()
    {
        return Cause::SourceChanged { path: path.display().to_string() };
    }
    // Also of a program that does not start: that it cannot run is for the agent to say, after some tries.
    Cause::ExecutorDied {
        signal,
        exit: status.and_then(|status| status.code()),
        stderr_tail: format!("{words}\n{last_words}").trim().to_owned(),
        deaths: 1,
    }
}
