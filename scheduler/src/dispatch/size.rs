//! How long the next range of a batch is.
//!
//! Long enough that its cost vanishes (about 50 ms of run time), short enough that all executors end
//! together: never more than a fair share of what waits, down to about a millisecond of run time.
//! What turns out too long is split later (`balance`, and the agent between its executors).

/// Run time that a range aims at.
const TARGET_NS: u64 = 50_000_000;
/// Run time below which a range is not worth cutting.
const LEAST_NS: u64 = 1_000_000;
/// Tasks of a range of which nothing is known: few, because each may take seconds, and because the news of
/// them comes as soon as a message has travelled where they take no time.
const FIRST_TASKS: u32 = 2;
/// Run time of a short range: what a message and its answer take.
const SHORT_NS: u64 = 200_000;
/// What was measured before counts as at most so many times the tasks of the newest measurement: that has
/// a weight of a quarter or more.
const MEMORY: u32 = 3;

/// What a task of a batch takes, measured.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Nanoseconds a task; `None` until something was measured.
    pub(super) task_ns: Option<u64>,
    /// Tasks that this is the mean of: a single one may have waited for a page or a lock.
    weight: u32,
}

impl Cost {
    /// `tasks` tasks ran for `run_us` microseconds.
    pub(super) fn measure(&mut self, tasks: u32, run_us: u64) {
        if tasks == 0 {
            return;
        }
        let weight = self.weight.min(tasks.saturating_mul(MEMORY));
        let known_ns = self.task_ns.unwrap_or(0).saturating_mul(weight.into());
        let sum_ns = known_ns.saturating_add(run_us.saturating_mul(1000));
        self.weight = weight.saturating_add(tasks);
        self.task_ns = Some((sum_ns / u64::from(self.weight)).max(1));
    }

    /// This, or `other` where nothing was measured.
    pub(super) fn or(self, other: Self) -> Self {
        if self.task_ns.is_some() { self } else { other }
    }

    /// Whether `tasks` tasks are done while a message travels.
    pub(super) fn is_short(self, tasks: u32) -> bool {
        self.task_ns.is_some_and(|ns| ns.saturating_mul(tasks.into()) <= SHORT_NS)
    }

    /// Tasks of the next range, when `pending` wait for `slots` slots. Where nothing of the batch is
    /// measured, what its function took in other calls says how many make a short range.
    pub(super) fn range_tasks(self, pending: u32, slots: u32, learned: Self) -> u32 {
        let share = u64::from(pending.div_ceil(2 * slots.max(1)));
        let tasks = match self.task_ns {
            None => {
                let short = learned.task_ns.map_or(0, |ns| LEAST_NS / ns);
                share.min(short.max(FIRST_TASKS.into()))
            }
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
        assert_eq!(long.range_tasks(1000, 2, Cost::default()), 1);
        let mut short = Cost::default();
        short.measure(1000, 50);
        assert_eq!(short.range_tasks(10_000_000, 2, Cost::default()), 1_000_000);
    }

    #[test]
    fn the_end_of_a_batch_is_shared_out() {
        let mut cost = Cost::default();
        cost.measure(1, 1000);
        assert_eq!(
            [2000, 40, 8, 1].map(|pending| cost.range_tasks(pending, 2, Cost::default())),
            [50, 10, 2, 1]
        );
    }

    #[test]
    fn nothing_known_starts_small() {
        let first = |pending| Cost::default().range_tasks(pending, 2, Cost::default());
        assert_eq!([1_000_000, 4, 1].map(first), [FIRST_TASKS, 1, 1]);
    }

    #[test]
    fn what_a_function_took_in_other_calls_makes_a_first_range_short() {
        let first = |task_us| {
            let mut learned = Cost::default();
            learned.measure(1, task_us);
            Cost::default().range_tasks(1_000_000, 2, learned)
        };
        assert_eq!([1, 100, 1_000_000].map(first), [1000, 10, FIRST_TASKS]);
    }

    #[test]
    fn a_first_task_that_took_long_by_accident_is_soon_forgotten() {
        let mut cost = Cost::default();
        cost.measure(1, 100);
        cost.measure(1000, 50);
        assert_eq!(cost.task_ns, Some(149));
        // Later, a measurement of any size counts for a quarter.
        cost.measure(1_000_000, 1_000_000);
        cost.measure(1, 41);
        assert_eq!(cost.task_ns, Some(10_999));
    }
}
