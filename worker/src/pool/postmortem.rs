//! After an executor's death: what it was running, and why it died.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use allhands_common::failure::Cause;
use allhands_common::id::{AttemptId, TaskId};
use allhands_common::wire::executor::Begun;

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

/// Why it died. `status` is missing where it could not even be started.
pub(super) fn cause(
    doom: Option<Doom>,
    status: Option<ExitStatus>,
    was_ready: bool,
    last_words: String,
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
    // Also of a program that does not start: that it cannot run is for the agent to say, after some tries.
    Cause::ExecutorDied {
        signal: status.and_then(|status| status.signal()),
        exit: status.and_then(|status| status.code()),
        stderr_tail: format!("{words}\n{last_words}").trim().to_owned(),
        deaths: 1,
    }
}
