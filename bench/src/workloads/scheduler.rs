//! The core alone: the real state and dispatcher, a log that applies at once, and workers that answer
//! each range at once without running anything.

use std::collections::HashMap;
use std::time::{Duration, Instant as Clock};

use allhands_common::function::FunctionName;
use allhands_common::id::{
    BatchId, BootId, CoordinatorId, JobId, LogIndex, RequestId, SessionId, Term, WorkerId,
};
use allhands_common::limit::SEGMENT_TASKS_MAX;
use allhands_common::policy::{BatchSpec, Function, Policy};
use allhands_common::program::{Platform, Program, ProgramId};
use allhands_common::resources::Resources;
use allhands_common::segment::{DONE, SegmentBuilder};
use allhands_common::time::Instant;
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient, ToClient};
use allhands_common::wire::worker::{Ended, FromWorker, How, Order, Registration, Run};
use allhands_scheduler::{Action, Command, Config, Dispatcher, Effect, Entry, Event, State};
use bytes::Bytes;

use crate::Arguments;
use crate::measure::Line;

/// Commands that share an entry, as in a busy coordinator.
const COMMANDS_PER_ENTRY: usize = 256;

/// What a no-op task of a range is said to take, in nanoseconds.
const TASK_NS: u64 = 50;

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let fast = arguments.tasks.unwrap_or(100_000_000);
    let single = fast / 100;
    for rep in 0..arguments.repeats {
        for workers in [10, 100, 1_000, 10_000] {
            measure("scheduler-ranges", single, workers, Some(1), rep)?;
        }
        measure("scheduler", fast, 1_000, None, rep)?;
    }
    Ok(())
}

fn measure(
    name: &str,
    tasks: u64,
    workers: u32,
    batch_size: Option<u32>,
    rep: u32,
) -> anyhow::Result<()> {
    let mut core = Core::new(workers);
    let (ranges, took) = core.run_batch(u32::try_from(tasks)?, batch_size)?;
    let mut line = Line::new("allhands", name, tasks, rep, took);
    line.workers = Some(workers);
    line.per_range_us = Some(took.as_secs_f64() * 1e6 / ranges.max(1) as f64);
    line.print()
}

/// State, dispatcher, and everybody around them.
struct Core {
    state: State,
    dispatcher: Dispatcher,
    started: Clock,
    commands: Vec<Command>,
    runs: Vec<(WorkerId, Run)>,
    actions: Vec<Action>,
    segments: HashMap<u32, Bytes>,
    ranges: u64,
    consumed: u32,
    over: bool,
}

impl Core {
    fn new(workers: u32) -> Self {
        let state = State::default();
        let config = Config::new(CoordinatorId(1), Term(1));
        let dispatcher = Dispatcher::resume(config, Instant(0), &state);
        let mut core = Self {
            state,
            dispatcher,
            started: Clock::now(),
            commands: Vec::new(),
            runs: Vec::new(),
            actions: Vec::new(),
            segments: HashMap::new(),
            ranges: 0,
            consumed: 0,
            over: false,
        };
        for worker in 0..workers {
            let registration = Registration {
                worker: WorkerId(worker.into()),
                boot: BootId([1; 16]),
                name: format!("worker-{worker}"),
                resources: Resources::cpus(1),
                platform: platform(),
                draining: false,
                held: Vec::new(),
                depot: Box::default(),
            };
            let message = FromWorker::Register(registration);
            core.step(Event::Worker { worker: WorkerId(worker.into()), message });
        }
        core.commit();
        core
    }

    fn run_batch(
        &mut self,
        tasks: u32,
        batch_size: Option<u32>,
    ) -> anyhow::Result<(u64, Duration)> {
        let (session, batch) = (SessionId([1; 16]), BatchId([2; 16]));
        let say = |message| Event::Client { session, owner: "bench".into(), message };
        self.step(say(FromClient::Attach { session, low: RequestId(0), batches: Vec::new() }));
        self.commit();
        let program = Program {
            id: ProgramId([3; 32]),
            bytes: 1,
            platform: platform(),
            name: "bench".into(),
        };
        self.step(say(FromClient::OpenJob {
            request: RequestId(0),
            program,
            name: "bench".into(),
            detached: None,
        }));
        self.commit();
        let functions = vec![Function {
            name: FunctionName { module: 0, offset: 0 },
            label: "noop".into(),
            returns: String::new(),
        }];
        let policy = Policy { batch_size, ..Policy::default() };
        let spec = BatchSpec { name: "noop".into(), functions, policy, env: Vec::new() };

        let begun = Clock::now();
        let open = FromClient::OpenBatch {
            batch,
            sequence: 0,
            call: 0,
            job: JobId(0),
            spec: spec.into(),
            context: Bytes::new().into(),
            tasks: 0,
            segment: Bytes::new().into(),
            sealed: false,
            kept: false,
            mentions: Vec::new(),
        };
        self.step(say(open));
        let mut first = 0;
        while first < tasks {
            let count = (tasks - first).min(SEGMENT_TASKS_MAX);
            let segment = empty_segment(&mut self.segments, count).into();
            self.step(say(FromClient::Append {
                batch,
                first,
                tasks: count,
                segment,
                mentions: Vec::new(),
            }));
            first += count;
        }
        self.step(say(FromClient::Seal { batch, tasks }));
        self.commit();
        while !self.over {
            anyhow::ensure!(
                !self.runs.is_empty(),
                "the core gave nothing out and the batch is not over"
            );
            for (worker, run) in std::mem::take(&mut self.runs) {
                self.ranges += 1;
                let tasks = u64::from(run.range.len());
                let segment = empty_segment(&mut self.segments, run.range.len()).into();
                let how = How::Ran {
                    segment,
                    run_us: (tasks * TASK_NS).div_ceil(1000),
                    mentions: Vec::new(),
                };
                let Run { attempt, batch, range, .. } = run;
                let ended = vec![Ended { attempt, batch, range, how }];
                let message = FromWorker::Report { processed: 0, ended };
                self.step(Event::Worker { worker, message });
                if self.commands.len() >= COMMANDS_PER_ENTRY {
                    self.commit();
                }
            }
            self.commit();
            self.step(say(FromClient::Acknowledge(vec![(batch, DONE_WITH_BATCH)])));
            self.commit();
        }
        Ok((self.ranges, begun.elapsed()))
    }

    fn step(&mut self, event: Event) {
        let now = Instant(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX));
        self.dispatcher.handle(now, &self.state, [event], &mut self.actions);
        for action in self.actions.drain(..) {
            match action {
                Action::Propose(command) => self.commands.push(command),
                Action::Order { worker, orders, .. } => {
                    for order in orders {
                        if let Order::Run(run) = order {
                            self.runs.push((worker, run));
                        }
                    }
                }
                Action::Tell { message: ToClient::Ended { .. }, .. } => self.over = true,
                Action::Deliver { sequence, last, .. } => {
                    self.consumed = sequence + 1;
                    self.over |= last;
                }
                Action::Tell { .. }
                | Action::Give { .. }
                | Action::Welcome { .. }
                | Action::Holders { .. } => {}
            }
        }
    }

    /// Applies what was proposed, and what follows from it, until nothing does.
    fn commit(&mut self) {
        while !self.commands.is_empty() {
            let commands = std::mem::take(&mut self.commands);
            let mut effects: Vec<Effect> = Vec::new();
            let index = LogIndex(self.state.applied.0 + 1);
            let at = self.state.at;
            self.state.apply(index, Entry { at, commands }, &mut effects);
            self.step(Event::Applied(effects));
        }
    }
}

/// A segment of tasks without a byte each. Making one is the client's and the executor's affair: equal
/// ones are made once, so that the core alone is measured.
fn empty_segment(made: &mut HashMap<u32, Bytes>, tasks: u32) -> Bytes {
    let make = || {
        let mut builder = SegmentBuilder::new(0);
        (0..tasks).for_each(|_| builder.push(DONE, std::iter::once(&[][..])));
        builder.finish()
    };
    made.entry(tasks).or_insert_with(make).clone()
}

fn platform() -> Platform {
    Platform { arch: "x86_64".into(), os: "linux".into(), glibc: None }
}
