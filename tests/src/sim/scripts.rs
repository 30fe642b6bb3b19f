//! Tasks of a graph in an executor: they call others, wait for them on no lane, go on when they have what
//! they waited for and a lane is free.

use std::collections::BTreeMap;
use std::rc::Rc;

use allhands_common::execution::{Awaited, Given};
use allhands_common::id::{ExecutorId, TaskId};
use allhands_common::range::TaskRange;
use allhands_common::wire::worker::ChildCall;
use allhands_scheduler::ExecutorEvent;

use super::Violation;
use super::executor::{Made, Moment, Running};
use super::graph::{Node, Seen, Step, child_of};
use super::oracle::ExecutionId;
use super::workload::{Fate, arguments};
use super::world::{Happening, World};

/// How far a task has come.
#[derive(Debug)]
pub(super) struct Act {
    node: Rc<Node>,
    task: TaskId,
    /// Whether nobody has tried the task before.
    first: bool,
    step: usize,
    /// Time from step to step.
    pace: u64,
    seen: BTreeMap<Awaited, Seen>,
    /// What it waits for.
    waiting: Vec<Awaited>,
}

impl World {
    /// A task of a graph starts: it has what its arguments are made of.
    pub(super) fn begin(
        &mut self,
        number: usize,
        id: ExecutorId,
        running: Running,
        node: Rc<Node>,
        given: &[Given],
    ) -> Result<(), Violation> {
        let task = TaskId { batch: running.batch, index: running.index };
        let mut seen = BTreeMap::new();
        for named in node.names.iter().filter(|named| named.need.takes()) {
            let of = Awaited { task: named.on, follow: true };
            let Some(given) = given.iter().find(|given| given.of == of) else {
                let what = format!("{task} has nothing of {}", named.on);
                return Err(Violation { rule: "a task gets what its arguments are made of", what });
            };
            seen.insert(of, self.see(task, &node, given)?);
        }
        let pace = running.run_us / (node.steps.len() as u64 + 1);
        let (first, waiting) = (self.oracle.is_first(task), Vec::new());
        let act = Act { node, task, first, step: 0, pace, seen, waiting };
        if let Some(executor) = self.workers[number].executors.get_mut(&id) {
            executor.acts.insert(running.execution, act);
        }
        self.plan_step(number, id, running.execution, pace);
        Ok(())
    }

    /// What a task sees of an outcome, which has to be the one there is while it matters.
    fn see(&self, task: TaskId, node: &Node, given: &Given) -> Result<Seen, Violation> {
        let by = format!("task {task}");
        let sure = node.is_sure(given.of.task);
        let seen = self.oracle.check_given(given.of, &given.outcome.bytes, sure, &by);
        match seen {
            Err(_) if self.oracle.is_moot(task) => Ok(Seen::Failed),
            seen => seen,
        }
    }

    fn plan_step(&mut self, number: usize, id: ExecutorId, execution: ExecutionId, after: u64) {
        let (at, start) = (self.now + after.max(1), self.workers[number].start);
        let moment = Moment::Step { execution };
        self.plan(at, Happening::Executor(number, start, id, moment));
    }

    /// A task does the next thing.
    pub(super) fn step(
        &mut self,
        number: usize,
        id: ExecutorId,
        execution: ExecutionId,
    ) -> Result<(), Violation> {
        let Some(executor) = self.workers[number].executors.get_mut(&id) else { return Ok(()) };
        let on_lane = |one: &Option<Running>| one.is_some_and(|one| one.execution == execution);
        let Some(lane) = executor.lanes.iter().position(on_lane) else { return Ok(()) };
        let Some(act) = executor.acts.get_mut(&execution) else { return Ok(()) };
        let (node, pace) = (act.node.clone(), act.pace);
        while let Some(step) = node.steps.get(act.step) {
            let called = match step {
                Step::Call(child) => Some(*child),
                Step::CallOnce(child) => Some(*child).filter(|_| act.first),
                Step::Wait { whom, follow, all } => {
                    let awaited = node.awaited(act.task, whom, *follow);
                    let missing: Vec<Awaited> =
                        awaited.iter().copied().filter(|of| !act.seen.contains_key(of)).collect();
                    if !missing.is_empty() && (*all || missing.len() == awaited.len()) {
                        act.waiting = missing;
                        return self.suspend(number, id, lane);
                    }
                    None
                }
            };
            act.step += 1;
            if let Some(child) = called {
                self.call(number, id, lane, child);
                self.plan_step(number, id, execution, pace);
                return Ok(());
            }
        }
        self.end_script(number, id, lane, execution)
    }

    /// The task of a lane calls another.
    fn call(&mut self, number: usize, id: ExecutorId, lane: usize, child: u32) {
        let Some(executor) = self.workers[number].executors.get(&id) else { return };
        let Some(running) = executor.lanes[lane] else { return };
        let Some(act) = executor.acts.get(&running.execution) else { return };
        let (parent, attempt) = (act.task, running.attempt);
        let batch = child_of(parent, child).batch;
        let node = act.node.child(child, parent);
        let mentions = node.mentions(0).collect();
        let Some(plan) = self.oracle.plan_of(parent.batch) else { return };
        let plan = Rc::new(plan.child(node));
        self.oracle.called(self.now, (parent, attempt), batch, &plan);
        self.stats.count("calls of tasks");
        let spec = plan.spec.clone().into();
        let segment = arguments(batch, 0, 1).into();
        let child = ChildCall { parent, attempt, batch, spec, segment, mentions };
        self.news(number, id, ExecutorEvent::Called(child));
    }

    /// The task of a lane waits: what has ended is flushed, what was not begun of its load comes back.
    fn suspend(&mut self, number: usize, id: ExecutorId, lane: usize) -> Result<(), Violation> {
        self.stats.count("tasks that waited");
        self.flush(number, id);
        let Some(executor) = self.workers[number].executors.get_mut(&id) else { return Ok(()) };
        let Some(running) = executor.lanes[lane].take() else { return Ok(()) };
        self.oracle.gone(std::iter::once(running));
        let Running { attempt, index, execution, .. } = running;
        let mut returned = TaskRange::default();
        if !running.late {
            returned = executor.give_up_rest(attempt);
        }
        let on = executor.acts.get(&execution).map(|act| act.waiting.clone()).unwrap_or_default();
        executor.suspended.push(Running { late: true, ..running });
        self.news(
            number,
            id,
            ExecutorEvent::Blocked { attempt, index, on, returned, run_us: None },
        );
        self.take_tasks(number, id)
    }

    /// An outcome has come that tasks of an executor wait for.
    pub(super) fn give(
        &mut self,
        number: usize,
        id: ExecutorId,
        given: &Given,
    ) -> Result<(), Violation> {
        let Some(executor) = self.workers[number].executors.get(&id) else { return Ok(()) };
        let waits = |one: &&Running| {
            executor.acts.get(&one.execution).is_some_and(|act| act.waiting.contains(&given.of))
        };
        let theirs: Vec<Running> = executor.suspended.iter().filter(waits).copied().collect();
        for one in theirs {
            let executor = self.workers[number].executors.get(&id);
            let act = executor.and_then(|executor| executor.acts.get(&one.execution));
            let Some((node, task)) = act.map(|act| (act.node.clone(), act.task)) else { continue };
            let seen = self.see(task, &node, given)?;
            let Some(executor) = self.workers[number].executors.get_mut(&id) else { continue };
            let Some(act) = executor.acts.get_mut(&one.execution) else { continue };
            act.seen.insert(given.of, seen);
            act.waiting.retain(|of| *of != given.of);
            let all = matches!(node.steps.get(act.step), Some(Step::Wait { all: true, .. }));
            if !all || act.waiting.is_empty() {
                act.waiting.clear();
                executor.suspended.retain(|other| other.execution != one.execution);
                executor.resuming.push_back(one);
            }
        }
        self.take_tasks(number, id)
    }

    /// A task that has what it waited for goes on, on a lane that is free.
    pub(super) fn resume(&mut self, number: usize, id: ExecutorId, lane: usize, one: Running) {
        let Some(executor) = self.workers[number].executors.get_mut(&id) else { return };
        executor.lanes[lane] = Some(one);
        self.oracle.goes_on(one.batch);
        let Running { attempt, index, execution, .. } = one;
        self.news(number, id, ExecutorEvent::Resumed { attempt, index });
        self.plan_step(number, id, execution, 1);
    }

    /// A task has done all that it does: what it has made of that.
    fn end_script(
        &mut self,
        number: usize,
        id: ExecutorId,
        lane: usize,
        execution: ExecutionId,
    ) -> Result<(), Violation> {
        let Some(executor) = self.workers[number].executors.get_mut(&id) else { return Ok(()) };
        let Some(act) = executor.acts.remove(&execution) else { return Ok(()) };
        let value = act.node.value(act.task, &mut |of| act.seen.get(&of).copied());
        let forward = act.node.forward.map(|whom| act.node.task_of(act.task, whom));
        let holds = act.node.steps.contains(&Step::Call(0)) && act.step.is_multiple_of(2);
        if let Some(running) = &mut executor.lanes[lane] {
            let forward = forward.filter(|_| running.fate == Fate::Value);
            running.made = match (forward, value) {
                (Some(to), _) => Made::Forward(to),
                (None, Some(value)) => Made::Value(value, holds.then(|| child_of(act.task, 0))),
                (None, None) => {
                    let what = format!("{} has seen {:?}", act.task, act.seen);
                    return Err(Violation { rule: "a task sees all that it waits for", what });
                }
            };
        }
        self.task_ends(number, id, lane, execution)
    }

    /// A task that has waited has ended: its outcome comes alone.
    pub(super) fn late_outcome(&mut self, number: usize, id: ExecutorId, running: Running) {
        let worker = self.workers[number].id;
        let (segment, mentions) = running.outcome(worker);
        let Running { attempt, index, run_us, .. } = running;
        let range = TaskRange::new(index, index + 1);
        let event = ExecutorEvent::Outcomes { attempt, range, segment, run_us, mentions };
        self.news(number, id, event);
    }
}
