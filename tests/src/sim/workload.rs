//! What clients ask for, and what each task does when it runs: functions of the seed, so that the
//! oracle knows what to expect.

use std::rc::Rc;

use allhands_common::function::FunctionName;
use allhands_common::id::{BatchId, BlobId};
use allhands_common::policy::{Backoff, BatchSpec, Function, Policy, Prefer};
use allhands_common::program::{Platform, Program, ProgramId};
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::segment::SegmentBuilder;
use allhands_common::wire::client::FromClient;
use allhands_common::wire::data::ChunkRange;
use allhands_common::wire::needs::{Needs, Part, RUNS_MAX, Run};
use bytes::Bytes;

use super::climate::{Climate, Fault, MS};
use super::graph::{self, Nameable, Node};
use super::rng::{Rng, mix};

/// What a batch is, and how its tasks behave.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) spec: BatchSpec,
    pub(super) context: Bytes,
    /// Tasks of each append.
    pub(super) appends: Vec<u32>,
    /// After which of its tasks were received the client cancels it.
    pub(super) cancel_after: Option<u32>,
    /// Tasks that its client cancels, and after how many of its tasks were received.
    pub(super) unwanted: Option<TaskRange>,
    pub(super) unwanted_after: u32,
    /// When it is submitted, at the earliest.
    pub(super) at: u64,
    /// What its tasks do beyond that, where they are tasks of a graph.
    pub(super) nodes: Vec<Rc<Node>>,
    behaviour: Behaviour,
}

#[derive(Debug, Clone)]
struct Behaviour {
    seed: u64,
    /// Longest run time of most tasks.
    run_max: u64,
    /// Per mille of tasks of each kind.
    panics: u32,
    errs: u32,
    deadly: u32,
    hangs: u32,
    slow: u32,
    /// Per mille of tasks that have rounds before their result.
    rounds: u32,
}

/// Rounds of a task, at most.
const ROUNDS_MAX: u32 = 4;

/// How one execution of a task will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Value,
    Panic,
    Err,
    /// It kills its executor.
    Death,
    /// It would run far longer than any timeout.
    Hang,
    /// It has no result yet.
    Again,
}

impl Plan {
    pub(super) fn tasks(&self) -> u32 {
        self.appends.iter().sum()
    }

    pub(super) fn of(rng: &mut Rng, climate: &Climate, biggest: &Resources) -> Self {
        let mut policy = policy(rng, biggest);
        let recurs = policy.idempotent && rng.chance(100);
        policy.recurs = recurs.then_some(FunctionName { module: 0, offset: 96 });
        let rounds = if recurs { 500 } else { 0 };
        let appends = match rng.within(0..10) {
            0 => Vec::new(),
            1..4 => vec![1],
            _ => (0..rng.within(1..5)).map(|_| rng.skewed(1..60) as u32).collect(),
        };
        let bad = rng.chance(climate.bad_tasks);
        let mut rate =
            |max: u64| if bad && rng.chance(400) { rng.within(0..max) as u32 } else { 0 };
        let (panics, errs, deadly) = (rate(300), rate(300), rate(100));
        let hangs = if policy.timeout_ms.is_some() { rate(200) } else { 0 };
        let tasks: u32 = appends.iter().sum();
        let slow = if rng.chance(200) { 20 } else { 0 };
        let cancel = rng.chance(80);
        let unwanted = (tasks > 0 && rng.chance(150)).then(|| {
            let start = rng.within(0..tasks.into()) as u32;
            TaskRange::new(start, start + rng.skewed(1..9) as u32)
        });
        Self {
            behaviour: Behaviour {
                seed: rng.next(),
                run_max: rng.pick(&[50, MS, 10 * MS, 100 * MS]),
                panics,
                errs,
                deadly,
                hangs,
                slow,
                rounds,
            },
            context: match rng.chance(200) {
                true => Bytes::from(rng.next().to_le_bytes().to_vec()),
                false => Bytes::new(),
            },
            spec: BatchSpec {
                name: "call".into(),
                functions: vec![Function {
                    name: FunctionName { module: 0, offset: 64 },
                    label: "f".into(),
                    returns: "u64".into(),
                }],
                policy,
                env: if rng.chance(100) { vec![("A".into(), "b".into())] } else { Vec::new() },
            },
            unwanted,
            unwanted_after: rng.skewed(0..u64::from(tasks) + 1) as u32,
            cancel_after: cancel.then(|| rng.within(0..u64::from(tasks) + 1) as u32),
            at: rng.skewed(0..climate.faults_end),
            appends,
            nodes: Vec::new(),
        }
    }

    /// A batch whose tasks name those that it may, call others, and wait for them.
    pub(super) fn graph(
        rng: &mut Rng,
        climate: &Climate,
        biggest: &Resources,
        (batch, from): (BatchId, &Nameable),
    ) -> Self {
        let mut plan = Self::of(rng, climate, biggest);
        plan.appends = (0..rng.within(1..4)).map(|_| rng.skewed(1..12) as u32).collect();
        plan.nodes = graph::nodes(rng, batch, plan.tasks(), from);
        let policy = &mut plan.spec.policy;
        // How long a task has waited for a slot is not what its limits count here; blocked time is in none.
        (policy.timeout_ms, policy.queue_timeout_ms, policy.fail_after) = (None, None, None);
        policy.n_jobs = -1;
        policy.priority = 0;
        policy.resources.custom.remove("tpu");
        // On a worker that drains they wait until somebody ends it.
        policy.idempotent |= climate.has(Fault::WorkerDrain);
        // What a task calls in a round is not what it calls in the next, and the nodes know of no rounds.
        (policy.recurs, plan.behaviour.rounds) = (None, 0);
        plan.behaviour.hangs = 0;
        plan.behaviour.run_max = plan.behaviour.run_max.min(30 * MS);
        let tasks = plan.tasks();
        plan.unwanted = plan.unwanted.map(|_| {
            let start = rng.within(0..tasks.into()) as u32;
            TaskRange::new(start, start + 1)
        });
        plan.unwanted_after = rng.within(0..u64::from(tasks) + 1) as u32;
        plan
    }

    /// The call of one task by one of this batch.
    pub(super) fn child(&self, node: Node) -> Self {
        let mut plan = self.clone();
        plan.behaviour.seed = mix(self.behaviour.seed ^ node.seed());
        (plan.cancel_after, plan.unwanted) = (None, None);
        plan.spec.policy.deadline_ms = None;
        plan.context = Bytes::new();
        plan.appends = vec![1];
        plan.nodes = vec![Rc::new(node)];
        plan
    }

    pub(super) const fn n_jobs(&self) -> i32 {
        self.spec.policy.n_jobs
    }

    pub(super) const fn set_n_jobs(&mut self, n_jobs: i32) {
        self.spec.policy.n_jobs = n_jobs;
    }

    /// Has its tasks run for longer, where nothing limits that.
    pub(super) fn lasts(&mut self) {
        if self.spec.policy.timeout_ms.is_none() {
            self.behaviour.run_max = 300 * MS;
        }
    }

    /// Whether all its tasks return a value at once.
    pub(super) const fn behaves(&self) -> bool {
        let Behaviour { panics, errs, deadly, hangs, slow, rounds, .. } = self.behaviour;
        let policy = &self.spec.policy;
        // What is delayed is not all there when its range is cut.
        let waits = policy.delay_ms.is_some() || policy.task_deadline_ms.is_some();
        panics + errs + deadly + hangs + rounds == 0
            && !waits
            && (slow == 0 || self.spec.policy.timeout_ms.is_none())
    }

    /// What the `tries`-th execution (from 0) of a task does, and how long it takes.
    pub(super) fn fate(&self, index: u32, tries: u32) -> (Fate, u64) {
        let behaviour = &self.behaviour;
        let of_task = mix(behaviour.seed ^ u64::from(index));
        let mut rng = Rng::new(mix(of_task ^ u64::from(tries) << 32));
        let mut run = rng.skewed(1..behaviour.run_max + 2);
        let mut kinds = Rng::new(of_task);
        // Whether it misbehaves is a property of the task, and for how many tries.
        let until = kinds.pick(&[1, 1, 2, 3, u32::MAX]);
        let mut is = |rate: u32| kinds.chance(rate) && tries < until;
        let fate = if is(behaviour.deadly) {
            Fate::Death
        } else if is(behaviour.panics) {
            Fate::Panic
        } else if is(behaviour.errs) {
            Fate::Err
        } else if is(behaviour.hangs) {
            Fate::Hang
        } else if is(behaviour.rounds) && tries < ROUNDS_MAX {
            Fate::Again
        } else {
            Fate::Value
        };
        if is(behaviour.slow) {
            run += 300 * MS;
        }
        (fate, run)
    }
}

fn policy(rng: &mut Rng, biggest: &Resources) -> Policy {
    let idempotent = !rng.chance(200);
    let mut resources = Resources::cpus(1);
    if rng.chance(150) {
        resources.cpus = rng.within(1..u64::from(biggest.cpus) + 1) as u32;
    }
    if rng.chance(150) && biggest.custom.contains_key("gpu") {
        resources = resources.with("gpu", 1);
    }
    if rng.chance(150) {
        resources = resources.memory(rng.within(1..biggest.memory_bytes + 1));
    }
    if rng.chance(20) {
        // Nobody has one.
        resources = resources.with("tpu", 1);
    }
    let prefer = if rng.chance(150) { Prefer::Threads } else { Prefer::Processes };
    if prefer == Prefer::Threads {
        resources.cpus = 1;
    }
    Policy {
        retries: rng.pick(&[0, 0, 1, 3]),
        backoff: Backoff { first_ms: rng.within(0..200), max_ms: 400 },
        retry_when: None,
        recurs: None,
        group: None,
        equal_calls: None,
        delay_ms: rng.chance(100).then(|| rng.within(1..600)),
        timeout_ms: rng.chance(200).then(|| rng.within(150..400)),
        queue_timeout_ms: rng.chance(80).then(|| rng.within(20..3000)),
        deadline_ms: rng.chance(80).then(|| rng.within(20..8000)),
        task_deadline_ms: rng.chance(60).then(|| rng.within(20..8000)),
        priority: rng.pick(&[0, 0, 0, -1, 5]),
        resources,
        idempotent,
        prefer,
        n_jobs: rng.pick(&[-1, -1, -1, -2, 1, 2, 3]),
        batch_size: rng.chance(250).then(|| rng.within(1..12) as u32),
        fail_after: rng.chance(200).then(|| rng.within(1..4) as u32),
        errors_count: rng.chance(300),
        record: true,
    }
}

pub(super) fn platform() -> Platform {
    Platform { arch: "x86_64".into(), os: "linux".into(), glibc: Some((2, 31)) }
}

/// One of a few programs.
pub(super) fn program(number: u8) -> Program {
    let name = format!("program{number}");
    Program { id: ProgramId([number; 32]), bytes: 1, platform: platform(), name }
}

/// The argument of a task: its batch and index, so that no other task's can be taken for it.
pub(super) fn argument(batch: BatchId, index: u32) -> u64 {
    let mut start = [0; 8];
    start.copy_from_slice(&batch.0[..8]);
    mix(u64::from_le_bytes(start) ^ u64::from(index))
}

/// What tasks `first..first + tasks` map, of every other batch: nobody sends it anywhere, but it decides who runs
/// them.
pub(super) fn needs(batch: BatchId, first: u32, tasks: u32) -> Option<FromClient> {
    let mut rng = Rng::new(argument(batch, u32::MAX));
    if tasks == 0 || rng.chance(500) {
        return None;
    }
    // Slices of one blob, or of a few, longer ones and shorter ones; some tasks map nothing.
    let (each, blobs) = (rng.skewed(1..64) as u32, rng.within(1..4));
    let mut runs = Vec::new();
    let mut left = tasks;
    while left > 0 && runs.len() < RUNS_MAX {
        let mut rng = Rng::new(argument(batch, first + tasks - left));
        let some = (rng.skewed(1..8) as u32).min(left);
        left -= some;
        let parts = (0..rng.within(0..3)).map(|_| {
            let start = rng.within(0..8) as u32 * each;
            let chunks = ChunkRange::new(start, start + each);
            Part { blob: rng.within(0..blobs) as u16, chunks }
        });
        runs.push(Run { tasks: some, parts: parts.collect() });
    }
    let blobs = (0..blobs).map(|blob| BlobId([blob as u8; 32])).collect();
    Some(FromClient::Needs { batch, first, needs: Needs { blobs, runs } })
}

/// The argument segment of tasks `first..first + tasks`.
pub(super) fn arguments(batch: BatchId, first: u32, tasks: u32) -> Bytes {
    let mut builder = SegmentBuilder::new(1);
    for index in first..first + tasks {
        let bytes = argument(batch, index).to_le_bytes();
        // Odd tasks are longer: columns of lengths and of ends both occur.
        let length = if index % 7 == 3 { 9 } else { 8 };
        let mut string = [0; 9];
        string[..8].copy_from_slice(&bytes);
        builder.push(0, [&string[..length]].into_iter());
    }
    builder.finish()
}
