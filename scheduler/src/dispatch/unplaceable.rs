//! Work that no worker can ever hold ends with an error that says what is missing, and soon: its user
//! would wait for ever otherwise. Where there is no worker at all, it waits for one.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use allhands_common::failure::Cause;
use allhands_common::id::BatchId;
use allhands_common::program::Program;
use allhands_common::range::{RangeSet, TaskRange};
use allhands_common::resources::Resources;
use allhands_common::time::Instant;

use super::queue::ClassId;
use super::workers::Worker;
use super::{Dispatcher, Timer};
use crate::{Action, State};

/// Workers that an error names: of a hundred equal ones a few say it all.
const NAMED_MAX: usize = 8;

impl Dispatcher {
    /// There was no room for a class that waits. If that is because no worker can hold it, one that is
    /// just joining gets its time, and then it ends.
    pub(super) fn doubt(&mut self, now: Instant, id: ClassId) {
        let Some(class) = self.queues.classes.get_mut(&id) else { return };
        if !class.able.is_empty() || self.slots == 0 || cfg!(plant = "unplaceable_waits") {
            class.unable_since = None;
        } else if class.unable_since.is_none() {
            class.unable_since = Some(now);
            self.timers.set(now + self.config.unplaceable_grace, Timer::Class(id));
        }
    }

    /// Looks whether still no worker can hold what waits of a class.
    pub(super) fn check_class(
        &mut self,
        now: Instant,
        state: &State,
        id: ClassId,
        out: &mut Vec<Action>,
    ) {
        let (grace, somebody) = (self.config.unplaceable_grace, self.slots > 0);
        let Some(class) = self.queues.classes.get_mut(&id) else { return };
        let Some(_) = class.unable_since.take_if(|since| *since + grace <= now) else { return };
        if !somebody || !class.able.is_empty() {
            return;
        }
        let Some(class) = self.queues.classes.get(&id) else { return };
        let cause = Cause::Unplaceable { message: self.lacking(&class.program, &class.need) };
        let waiting: Vec<BatchId> = self.queues.batches_of(id).collect();
        let all = RangeSet::of(TaskRange::new(0, u32::MAX));
        for batch in waiting {
            self.end_waiting(state, batch, &all, &cause, out);
        }
    }

    /// What each worker lacks to hold a task of this kind: its name, and what is in the way.
    pub(super) fn obstacles<'a>(
        &'a self,
        program: &'a Program,
        need: &'a Resources,
    ) -> impl ExactSizeIterator<Item = (String, String)> + 'a {
        self.workers.values().map(|worker| (worker.name.clone(), obstacle(worker, program, need)))
    }

    fn lacking(&self, program: &Program, need: &Resources) -> String {
        let obstacles = self.obstacles(program, need);
        let more = obstacles.len().saturating_sub(NAMED_MAX);
        let mut named: Vec<String> = obstacles
            .take(NAMED_MAX)
            .map(|(worker, lacks)| format!("worker {worker}: {lacks}"))
            .collect();
        if more > 0 {
            named.push(format!("and {more} more workers"));
        }
        named.join("; ")
    }
}

/// Why a worker is not given such a task.
fn obstacle(worker: &Worker, program: &Program, need: &Resources) -> String {
    if let Some(obstacle) = program.platform.obstacle(&worker.platform) {
        return obstacle;
    }
    match need.missing(&worker.total) {
        Some((what, need, has)) => format!("needs {need} {what}, has {has}"),
        None if worker.draining => "it is draining".into(),
        None if !worker.present => "it is not connected".into(),
        None => "it refused the program".into(),
    }
}
