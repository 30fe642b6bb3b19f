//! Programs from the store, through the helper: what a worker daemon does. This test is the helper,
//! the program and the test in one, so it has no harness.
#![expect(clippy::unwrap_used, reason = "a test ends where things are not as they should be")]

use allhands::__private::parts;
use allhands::delayed;
use allhands_common::bulk::Bulk;
use allhands_common::id::{AttemptId, BatchId, ClusterId, ExecutorId, JobId, WorkerId};
use allhands_common::policy::{BatchSpec, Function, Policy};
use allhands_common::program::{Platform, Program, ProgramId};
use allhands_common::range::TaskRange;
use allhands_common::segment::{DONE, Segment, SegmentBuilder};
use allhands_common::wire::worker::Shared;
use allhands_scheduler::{ExecutorEvent, Load, Spawn};
use allhands_store::scratch::Directory;
use allhands_worker::blobs::{Blobs, StorePlace};
use allhands_worker::helper;
use allhands_worker::pool::{Launch, Pool, PoolConfig, Stored};

/// An unprivileged user, where the test is root.
const NOBODY: (u32, u32) = (65534, 65534);

/// User, name, what is left of the environment, and whether the scratch directory can be written.
fn look(_: ()) -> String {
    let user = rustix::process::getuid().as_raw();
    let name = std::env::args().next().unwrap();
    let home = std::env::var("HOME").is_ok();
    let job = std::env::var("JOB").unwrap();
    let scratch = std::fs::write(std::env::temp_dir().join("x"), "x").is_ok();
    let core = rustix::process::getrlimit(rustix::process::Resource::Core).current;
    format!("{user} {name} {home} {job} {scratch} {core:?}")
}

fn main() {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == helper::SUBCOMMAND) {
        helper::executor_helper(args);
    }
    allhands::executor::enter_if_executor();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, stored_programs_run_as_they_should());
}

async fn stored_programs_run_as_they_should() {
    let directory = Directory::temporary().unwrap();
    directory.let_others_pass().unwrap();
    let helper = directory.path().join("helper");
    std::fs::copy("/proc/self/exe", &helper).unwrap();
    let id = ProgramId([7; 32]);
    std::fs::copy("/proc/self/exe", directory.path().join(id.to_string())).unwrap();
    let root = rustix::process::getuid().is_root();
    let user = root.then_some(NOBODY);
    let launch = Launch::Stored(Stored {
        programs: directory.path().to_owned(),
        helper,
        user,
        variables: Vec::new(),
    });
    let (output, _printed) = tokio::sync::mpsc::channel(4);
    let blobs = Blobs::embedded(StorePlace {
        dir: directory.path().join("blobs"),
        cluster: ClusterId::default(),
        quota_bytes: 1 << 20,
    });
    let worker = WorkerId(1);
    let pool = PoolConfig { worker, launch, directory: directory.path().to_owned(), output, blobs };
    let (mut pool, mut events) = Pool::new(pool).unwrap();
    let platform = Platform { arch: "any".into(), os: "linux".into(), glibc: None };
    let program = Program { id, bytes: 1, platform, name: "my-program".into() };
    let executor = ExecutorId(1);
    let env = vec![("JOB".to_owned(), "mine".to_owned())];
    let (owner, threads, cpus) = (String::new(), 1, 1);
    pool.spawn(Spawn {
        executor,
        program: program.clone(),
        owner: owner.clone(),
        threads,
        cpus,
        env,
    });
    let (_, event) = events.recv().await.unwrap();
    assert_eq!(event, ExecutorEvent::Ready);

    let call = delayed(look)(());
    let call = parts(&call);
    let mut builder = SegmentBuilder::new(call.codec.byte());
    builder.push(0, call.args.iter().copied());
    let function =
        Function { name: call.entry.name().unwrap(), label: "look".into(), returns: "u64".into() };
    let spec = BatchSpec {
        name: "look".into(),
        functions: vec![function],
        policy: Policy::default(),
        env: Vec::new(),
    };
    let (batch, job, context) = (BatchId([1; 16]), JobId(1), Bulk::default());
    let load = Load {
        attempt: AttemptId::default(),
        range: TaskRange::new(0, 1),
        shared: Shared { batch, job, owner, program, spec: spec.into(), context }.into(),
        segments: vec![builder.finish()],
        given: Vec::new(),
        rounds: Vec::new(),
    };
    pool.load(executor, load);
    pool.flush();
    let (_, event) = events.recv().await.unwrap();
    let ExecutorEvent::Outcomes { segment, .. } = event else { panic!("{event:?}") };
    let segment = Segment::parse(segment).unwrap();
    let (tag, bytes) = segment.value(0).unwrap();
    let user = user.map_or_else(|| rustix::process::getuid().as_raw(), |(user, _)| user);
    let expected = format!("{user} my-program false mine true Some(0)");
    assert_eq!((tag, String::from_utf8_lossy(&bytes[8..])), (DONE, expected.into()));

    let unfinished = directory.path().join("x1");
    assert!(unfinished.exists());
    pool.stop(executor);
    pool.flush();
    while !matches!(events.recv().await, Some((_, ExecutorEvent::Died { .. }))) {}
    pool.bury(executor);
    assert!(pool.is_empty());
    while unfinished.exists() {
        tokio::task::yield_now().await;
    }
}
