//! Tasks that name others, call others and wait for them: what each does is a function of the seed, and what
//! it returns one of that and of the outcomes that it has seen, so that the oracle can compute it as well.

use std::rc::Rc;

use allhands_common::execution::{Awaited, Mention, Need};
use allhands_common::id::{BatchId, TaskId};
use allhands_common::range::TaskRange;

use super::rng::{Rng, mix};

/// Calls of tasks that clients have submitted are so deep at most, unless they are a chain.
const DEPTH_MAX: u32 = 3;

/// Links of a chain of calls.
const CHAIN_MAX: u32 = 24;

/// A task that another names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) on: TaskId,
    pub(super) need: Need,
    /// Whether it is there for as long as it is named.
    pub(super) sure: bool,
}

/// Whom a task waits for or forwards to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// One that it names.
    Named(usize),
    /// One that it has called.
    Child(u32),
}

/// One thing that a task does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It calls a task.
    Call(u32),
    /// It does so in its first try only.
    CallOnce(u32),
    /// It waits for all of them, or for any.
    Wait { whom: Vec<Whom>, follow: bool, all: bool },
}

/// What an outcome is, as far as others can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    Value(u64),
    Err(u64),
    Failed,
    Forwarded(TaskId),
}

/// What a task does.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) names: Vec<Named>,
    pub(super) steps: Vec<Step>,
    pub(super) forward: Option<Whom>,
    seed: u64,
    depth: u32,
    /// Calls that are to be one below the other from here on.
    chain: u32,
}

impl Node {
    /// A task that names these.
    pub(super) fn of(rng: &mut Rng, names: Vec<Named>) -> Self {
        let chain = if rng.chance(30) { rng.within(5..u64::from(CHAIN_MAX)) as u32 } else { 0 };
        Self::at(rng, names, 0, chain)
    }

    fn at(rng: &mut Rng, names: Vec<Named>, depth: u32, chain: u32) -> Self {
        let calls = match (chain, depth) {
            (1.., _) => 1,
            (0, 0) => rng.pick(&[0, 0, 0, 0, 1, 1, 2, 3]),
            (0, DEPTH_MAX..) => 0,
            (0, _) => rng.pick(&[0, 0, 0, 1, 2]),
        };
        let (mut steps, mut others) = (Vec::new(), Vec::new());
        others.extend((0..names.len()).map(Whom::Named));
        for number in 0..calls {
            if chain == 0 && rng.chance(150) {
                steps.push(Step::CallOnce(number));
                continue;
            }
            steps.push(Step::Call(number));
            others.push(Whom::Child(number));
            if chain > 0 || rng.chance(400) {
                let whom = vec![Whom::Child(number)];
                steps.push(Step::Wait { whom, follow: !rng.chance(100), all: true });
            }
        }
        if rng.chance(300) {
            let whom: Vec<Whom> = others.iter().copied().filter(|_| rng.chance(500)).collect();
            let (follow, all) = (!rng.chance(100), !rng.chance(200));
            steps.extend((!whom.is_empty()).then_some(Step::Wait { whom, follow, all }));
        }
        let forwards = !others.is_empty() && rng.chance(150);
        let forward = forwards.then(|| rng.pick(&others));
        Self { names, steps, forward, seed: rng.next(), depth, chain }
    }

    /// The `number`-th task that it calls.
    pub(super) fn child(&self, number: u32, task: TaskId) -> Self {
        let mut rng = Rng::new(mix(self.seed ^ u64::from(number)));
        let mut names: Vec<Named> =
            self.names.iter().copied().filter(|_| rng.chance(400)).collect();
        for other in 0..number {
            if self.steps.contains(&Step::Call(other)) && rng.chance(400) {
                let on = child_of(task, other);
                names.push(Named { on, need: Need::Value, sure: true });
            }
        }
        for named in &mut names {
            named.need = need(&mut rng);
        }
        Self::at(&mut rng, names, self.depth + 1, self.chain.saturating_sub(1))
    }

    /// Who is meant.
    pub(super) fn task_of(&self, task: TaskId, whom: Whom) -> TaskId {
        match whom {
            Whom::Named(number) => self.names[number].on,
            Whom::Child(number) => child_of(task, number),
        }
    }

    /// Whether whoever is meant is there for as long as the task runs.
    pub(super) fn is_sure(&self, on: TaskId) -> bool {
        self.names.iter().all(|named| named.on != on || named.sure)
    }

    /// What it waits for in a step.
    pub(super) fn awaited(&self, task: TaskId, whom: &[Whom], follow: bool) -> Vec<Awaited> {
        let of = |whom: &Whom| Awaited { task: self.task_of(task, *whom), follow };
        let mut all: Vec<Awaited> = whom.iter().map(of).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What it returns, if all that it has seen is known.
    pub(super) fn value(
        &self,
        task: TaskId,
        seen: &mut dyn FnMut(Awaited) -> Option<Seen>,
    ) -> Option<u64> {
        let mut value = self.seed;
        let mut take = |of: Awaited| {
            value = match seen(of)? {
                Seen::Value(other) => mix(value ^ other),
                Seen::Err(other) => mix(value ^ other ^ 1),
                Seen::Failed => mix(value ^ 2),
                Seen::Forwarded(to) => mix(value ^ u64::from(to.index) ^ 3),
            };
            Some(())
        };
        for named in self.names.iter().filter(|named| named.need.takes()) {
            take(Awaited { task: named.on, follow: true })?;
        }
        for step in &self.steps {
            if let Step::Wait { whom, follow, all: true } = step {
                for of in self.awaited(task, whom, *follow) {
                    take(of)?;
                }
            }
        }
        Some(value)
    }

    pub(super) const fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn mentions(&self, index: u32) -> impl Iterator<Item = Mention> + '_ {
        self.names.iter().map(move |named| Mention { index, on: named.on, need: named.need })
    }
}

/// The batch of a task's `number`-th call is its only task.
pub(super) fn child_of(task: TaskId, number: u32) -> TaskId {
    TaskId { batch: BatchId::of_task(task, &[0; 32], number), index: 0 }
}

fn need(rng: &mut Rng) -> Need {
    rng.pick(&[Need::Value, Need::Value, Need::Value, Need::Returned, Need::End, Need::Handle])
}

/// Tasks that those of a batch may name.
#[derive(Debug)]
pub(super) struct Nameable {
    /// Those of earlier batches of the same client.
    pub(super) earlier: Vec<TaskId>,
    /// Those of later ones, and of other clients: who names them may wait in vain, or for itself.
    pub(super) others: Vec<TaskId>,
    /// Per mille of mentions that are of these, or of tasks of the batch itself whatever their place.
    pub(super) wild: u32,
}

/// What the tasks of a batch do.
pub(super) fn nodes(rng: &mut Rng, batch: BatchId, tasks: u32, from: &Nameable) -> Vec<Rc<Node>> {
    let node = |index: u32| {
        let mut names = Vec::new();
        for _ in 0..rng.skewed(0..5) {
            let sure = !rng.chance(from.wild);
            let mine = rng.chance(600) || from.earlier.is_empty();
            let on = match sure {
                true if mine && index == 0 => continue,
                true if mine => TaskId { batch, index: rng.within(0..index.into()) as u32 },
                true => rng.pick(&from.earlier),
                false if mine || from.others.is_empty() => {
                    TaskId { batch, index: rng.within(0..u64::from(tasks) + 1) as u32 }
                }
                false => rng.pick(&from.others),
            };
            names.push(Named { on, need: need(rng), sure });
        }
        Rc::new(Node::of(rng, names))
    };
    (0..tasks).map(node).collect()
}

/// What the tasks of a range name.
pub(super) fn mentions(nodes: &[Rc<Node>], range: TaskRange) -> Vec<Mention> {
    let theirs = (range.start..range.end).zip(nodes.iter().skip(range.start as usize));
    theirs.flat_map(|(index, node)| node.mentions(index).collect::<Vec<_>>()).collect()
}
