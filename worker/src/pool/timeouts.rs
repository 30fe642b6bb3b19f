//! Tasks that run longer than they may. The cell says since when each runs; nobody sends anything.

use std::time::Duration;

use allhands_common::wire::executor::Begun;

use super::seat::{Doom, Seat};

/// What a look at the cell shows.
#[derive(Debug, PartialEq)]
pub(super) enum Look {
    /// Nothing has a timeout.
    Untimed,
    /// All is well; nothing can be overdue before this time has passed.
    In(Duration),
    /// Tasks are overdue.
    Overdue(Doom),
}

/// Looks at what `seat`'s executor runs at the moment `now_us` of the cell's clock.
pub(super) fn look(seat: &Seat, now_us: u64) -> Look {
    let mut next = None;
    let loads = seat.loads.borrow();
    let loads = loads.iter().filter_map(|load| Some((load.sequence, load.timeout_ms?)));
    // What has waited is in no load, and its load may be over. While it waits it is in no lane, and that it goes on is
    // said.
    let begun = seat.begun.borrow();
    let begun = seat.cell.running(seat.lanes).filter_map(|task| {
        let known = begun.get(&Begun { sequence: task.sequence, place: task.index })?;
        Some((task.sequence, known.timeout_ms?))
    });
    for (sequence, limit_ms) in loads.chain(begun) {
        let limit = Duration::from_millis(limit_ms);
        // A task that starts after this look is overdue one whole limit later at the earliest.
        let mut soonest = limit;
        let mut culprits = Vec::new();
        let lanes = seat.cell.running(seat.lanes);
        for task in lanes.filter(|task| task.sequence == sequence) {
            let runs = Duration::from_micros(now_us.saturating_sub(task.started_us));
            match limit.checked_sub(runs) {
                Some(left) if !left.is_zero() => soonest = soonest.min(left),
                _ => culprits.push((task.sequence, task.index)),
            }
        }
        if !culprits.is_empty() {
            return Look::Overdue(Doom::TimedOut { culprits, limit_ms });
        }
        next = next.map_or(Some(soonest), |before: Duration| Some(before.min(soonest)));
    }
    next.map_or(Look::Untimed, Look::In)
}
