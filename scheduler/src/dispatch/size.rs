//! How long the next range of a batch is.
//!
//! Long enough that its cost vanishes (about 50 ms of run time), short enough that all executors end
//! together: never more than a fair share of what waits, down to about a millisecond of run time.
//! What turns out too long is split later (`balance`, and the agent between its executors).

/// Run time that a range aims at.
const TARGET_NS: u64 = 50_000_000;
/// Run time below which a range is not worth cutting.
const LEAST_NS: u64 = 1_000_000;
/// Tasks of a first range, of which nothing is known: a millisecond of tasks of 15 µs.
const FIRST_TASKS: u32 = 64;
/// Run time of a short range: what a message and its answer take.
const SHORT_NS: u64 = 200_000;
/// Weight of the newest measurement, as a power of two: a quarter.
const WEIGHT_SHIFT: u32 = 2;

/// What a task of a batch takes, measured.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Nanoseconds a task; `None` until something was measured.
    pub(super) task_ns: Option<u64>,
}

impl Cost {
    /// `tasks` tasks ran for `run_us` microseconds.
    pub(super) fn measure(&mut self, tasks: u32, run_us: u64) {
        if tasks == 0 {
            return;
        }
        let new = (run_us.saturating_mul(1000) / u64::from(tasks)).max(1);
        self.task_ns = Some(match self.task_ns {
            None => new,
            Some(old) => old - (old >> WEIGHT_SHIFT) + (new >> WEIGHT_SHIFT).max(1),
        });
    }

    /// This, or `other` where nothing was measured.
    pub(super) fn or(self, other: Self) -> Self {
        if self.task_ns.is_some() { self } else { other }
    }

    /// Whether `tasks` tasks are done while a message travels.
    pub(super) fn is_short(self, tasks: u32) -> bool {
        self.task_ns.is_some_and(|ns| ns.saturating_mul(tasks.into()) <= SHORT_NS)
    }

    /// Tasks of the next range, when `pending` wait for `slots` slots.
    pub(super) fn range_tasks(self, pending: u32, slots: u32) -> u32 {
        let share = u64::from(pending.div_ceil(2 * slots.max(1)));
        let tasks = match self.task_ns {
            None => share.min(u64::from(FIRST_TASKS)),
            Some(ns) => {
                let (target, least) = (TARGET_NS / ns, LEAST_NS / ns);
                share.clamp(least.min(target), target)
            }
        };
        u32::try_from(tasks).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_task_goes_alone_and_short_ones_in_thousands() {
        let mut long = Cost::default();
        long.measure(1, 10_000_000);
        assert_eq!(long.range_tasks(1000, 2), 1);
        let mut short = Cost::default();
        short.measure(1000, 50);
        assert_eq!(short.range_tasks(10_000_000, 2), 1_000_000);
    }

    #[test]
    fn the_end_of_a_batch_is_shared_out() {
        let mut cost = Cost::default();
        cost.measure(1, 1000);
        assert_eq!([2000, 40, 8, 1].map(|pending| cost.range_tasks(pending, 2)), [50, 10, 2, 1]);
    }

    #[test]
    fn nothing_known_starts_small() {
        assert_eq!(Cost::default().range_tasks(1_000_000, 2), FIRST_TASKS);
        assert_eq!(Cost::default().range_tasks(4, 2), 1);
    }
}
