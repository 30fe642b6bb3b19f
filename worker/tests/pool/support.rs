//! A pool for one test, and calls as a client would send them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use allhands::__private::parts;
use allhands::Delayed;
use allhands_common::codec;
use allhands_common::failure::{Cause, Failed};
use allhands_common::id::{AttemptId, BatchId, ClusterId, ExecutorId, JobId, Term, WorkerId};
use allhands_common::policy::{BatchSpec, Function, Policy};
use allhands_common::program::{Platform, Program, ProgramId};
use allhands_common::range::TaskRange;
use allhands_common::segment::{ERROR, Segment, SegmentBuilder};
use allhands_common::wire::worker::Shared;
use allhands_scheduler::{ExecutorEvent, Load, Spawn};
use allhands_store::scratch::Directory;
use allhands_worker::blobs::{Blobs, StorePlace};
use allhands_worker::pool::output::Written;
use allhands_worker::pool::{ExecutorCommand, Launch, Pool, PoolConfig};
use bytes::Bytes;
use tokio::sync::mpsc;

/// Longest wait for anything: only a hang comes near.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) pool: Pool,
    pub(crate) output: mpsc::Receiver<Written>,
    events: mpsc::Receiver<(ExecutorId, ExecutorEvent)>,
    _directory: Directory,
}

/// A batch: what its tasks share, and one segment of their arguments.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment: Bytes,
    pub(crate) tasks: u32,
}

/// An executor's end.
#[derive(Debug)]
pub(crate) struct Death {
    pub(crate) outcomes: Outcomes,
    pub(crate) running: Vec<(AttemptId, u32)>,
    pub(crate) culprit: Option<(AttemptId, u32)>,
    pub(crate) cause: Cause,
}

/// Tag and string by task.
pub(crate) type Outcomes = BTreeMap<u32, (u16, Bytes)>;

/// Runs `test` with a pool whose executors enter the test called `name`.
pub(crate) fn with_pool(name: &str, test: impl AsyncFnOnce(&mut Rig)) {
    allhands::executor::enter_if_executor();
    let flags = ["--include-ignored", "--nocapture", "--quiet", "--test-threads=1"];
    let args = ["--exact", name].into_iter().chain(flags);
    with_launch(Launch::Own(ExecutorCommand::own(args)), test);
}

/// Runs `test` with a pool that starts executors as `launch` says.
pub(crate) fn with_launch(launch: Launch, test: impl AsyncFnOnce(&mut Rig)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let directory = Directory::temporary().unwrap();
        let (sink, output) = mpsc::channel(4);
        let config = PoolConfig {
            worker: WorkerId(7),
            launch,
            directory: directory.path().to_owned(),
            output: sink,
            blobs: blobs(directory.path()),
        };
        let (pool, events) = Pool::new(config).unwrap();
        test(&mut Rig { pool, output, events, _directory: directory }).await;
    });
}

/// What the executors of a pool in `directory` may borrow.
pub(crate) fn blobs(directory: &Path) -> Blobs {
    let (dir, cluster) = (directory.join("blobs"), ClusterId::default());
    Blobs::embedded(StorePlace { dir, cluster, quota_bytes: 64 << 20 })
}

impl Rig {
    /// Starts an executor of one lane, and waits until it is ready.
    pub(crate) async fn executor(&mut self, number: u32) -> ExecutorId {
        self.executor_of(number, 1).await
    }

    pub(crate) async fn executor_of(&mut self, number: u32, threads: u16) -> ExecutorId {
        let executor = ExecutorId(number);
        self.spawn(executor, threads);
        assert_eq!(self.event().await, (executor, ExecutorEvent::Ready));
        executor
    }

    pub(crate) fn spawn(&mut self, executor: ExecutorId, threads: u16) {
        let env = vec![("ALLHANDS_TEST_VARIABLE".to_owned(), "here".to_owned())];
        let (program, owner) = (program(), String::new());
        self.pool.spawn(Spawn { executor, program, owner, threads, cpus: 1, env });
    }

    /// Ends the step, as the worker's loop does, and waits for what happens next.
    pub(crate) async fn event(&mut self) -> (ExecutorId, ExecutorEvent) {
        self.pool.flush();
        let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
        event.expect("nothing happens").expect("the pool has ended")
    }

    /// Gives `executor` all of `calls` as attempt `number`.
    pub(crate) fn load(&mut self, executor: ExecutorId, number: u32, calls: &Calls) {
        self.load_part(executor, number, calls, TaskRange::new(0, calls.tasks));
    }

    pub(crate) fn load_part(
        &mut self,
        executor: ExecutorId,
        number: u32,
        calls: &Calls,
        range: TaskRange,
    ) {
        let segment = Segment::parse(calls.segment.clone()).unwrap().slice(range).unwrap();
        let load = Load {
            attempt: attempt(number),
            shared: Arc::clone(&calls.shared),
            range,
            segments: vec![segment],
            given: Vec::new(),
            rounds: Vec::new(),
        };
        self.pool.load(executor, load);
        self.pool.flush();
    }

    /// Outcomes of attempt `number` until it has finished.
    pub(crate) async fn finish(&mut self, number: u32) -> Outcomes {
        let mut outcomes = Outcomes::new();
        loop {
            match self.event().await.1 {
                ExecutorEvent::Outcomes { attempt: of, range, segment, .. }
                    if of == attempt(number) =>
                {
                    note(&mut outcomes, range, segment);
                }
                ExecutorEvent::Finished { attempt: of } if of == attempt(number) => {
                    return outcomes;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Outcomes until the executor died, and how.
    pub(crate) async fn death(&mut self) -> Death {
        let mut outcomes = Outcomes::new();
        loop {
            match self.event().await.1 {
                ExecutorEvent::Outcomes { range, segment, .. } => {
                    note(&mut outcomes, range, segment)
                }
                ExecutorEvent::Died { running, culprit, cause } => {
                    return Death { outcomes, running, culprit, cause };
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

pub(crate) fn attempt(number: u32) -> AttemptId {
    AttemptId { term: Term(1), number: number.into() }
}

/// Adds the outcomes of `range`; each task may have one.
pub(crate) fn note(outcomes: &mut Outcomes, range: TaskRange, segment: Bytes) {
    let segment = Segment::parse(segment).unwrap();
    assert_eq!(segment.tasks(), range.len());
    for row in 0..segment.tasks() {
        let (tag, string) = segment.value(row).unwrap();
        let before = outcomes.insert(range.start + row, (tag, Bytes::copy_from_slice(string)));
        assert!(before.is_none(), "task {} ended twice", range.start + row);
    }
}

/// Why a task has no value.
pub(crate) fn cause((tag, string): &(u16, Bytes)) -> Cause {
    assert_eq!(*tag, ERROR);
    let failed: Failed = codec::decode(string).unwrap();
    assert_eq!(failed.worker, Some(WorkerId(7)));
    failed.cause
}

pub(crate) fn calls<R>(calls: impl IntoIterator<Item = Delayed<R>>) -> Calls {
    calls_with(calls, Policy::default())
}

pub(crate) fn calls_with<R>(calls: impl IntoIterator<Item = Delayed<R>>, policy: Policy) -> Calls {
    let mut functions: Vec<Function> = Vec::new();
    let mut builder: Option<SegmentBuilder> = None;
    for call in calls {
        let call = parts(&call);
        let name = call.entry.name().unwrap();
        let tag =
            functions.iter().position(|function| function.name == name).unwrap_or_else(|| {
                functions.push(Function {
                    name,
                    label: call.label.clone(),
                    returns: String::new(),
                });
                functions.len() - 1
            });
        builder
            .get_or_insert_with(|| SegmentBuilder::new(call.codec.byte()))
            .push(tag as u16, call.args.iter().copied());
    }
    let mut builder = builder.unwrap();
    let tasks = builder.tasks();
    let spec = BatchSpec { name: "test".into(), functions, policy, env: Vec::new() };
    Calls { shared: Arc::new(shared(spec)), segment: builder.finish(), tasks }
}

fn program() -> Program {
    let platform = Platform { arch: "any".into(), os: "linux".into(), glibc: None };
    Program { id: ProgramId([1; 32]), bytes: 1, platform, name: "test".into() }
}

fn shared(spec: BatchSpec) -> Shared {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&format!("{spec:?}"), &mut hasher);
    let mut batch = [0; 16];
    batch[..8].copy_from_slice(&std::hash::Hasher::finish(&hasher).to_le_bytes());
    Shared {
        batch: BatchId(batch),
        job: JobId(1),
        owner: String::new(),
        program: program(),
        spec: spec.into(),
        context: Bytes::new().into(),
    }
}

/// Waits until `done`, looking every few milliseconds.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain until {what}");
}
