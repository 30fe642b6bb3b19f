//! What a worker says fits a frame, however much it owes, and all of it is said.

use alloc::vec;

use allhands_common::bulk::Carries as _;
use allhands_common::codec;
use allhands_common::frame::{Header, Message as _};
use allhands_common::id::JobId;
use allhands_common::limit::STDERR_TAIL_BYTES_MAX;
use allhands_common::policy::{BatchSpec, Policy};
use allhands_common::segment::{DONE, SegmentBuilder};
use allhands_common::wire::worker::{Ended, How, Order, Run};
use proptest::prelude::*;

use super::*;

const MIB: usize = 1 << 20;
const BATCH: BatchId = BatchId([3; 16]);
const TERM: Term = Term(1);

fn platform() -> Platform {
    Platform { arch: "any".into(), os: "linux".into(), glibc: None }
}

fn agent(slots: u32) -> Agent {
    let config = AgentConfig {
        worker: WorkerId(1),
        boot: BootId([1; 16]),
        name: "host".into(),
        resources: Resources::cpus(slots),
        platform: platform(),
    };
    Agent::new(config, Instant(0))
}

const fn attempt(number: u64) -> AttemptId {
    AttemptId { term: TERM, number }
}

/// A segment of one task with so many bytes.
fn one(bytes: usize) -> Bytes {
    let mut segment = SegmentBuilder::new(0);
    segment.push(DONE, [vec![7; bytes].as_slice()].into_iter());
    segment.finish()
}

fn step(agent: &mut Agent, event: AgentEvent) -> Vec<AgentAction> {
    let mut out = Vec::new();
    agent.handle(Instant(0), [event], &mut out);
    agent.check().unwrap();
    out
}

/// The reports among `actions`. Each fits a frame; one that is made of several is not beyond a bundle.
fn reports(actions: Vec<AgentAction>) -> Vec<Vec<Ended>> {
    let sent = actions.into_iter().filter_map(|action| match action {
        AgentAction::Send(message @ FromWorker::Report { .. }) => Some(message),
        _ => None,
    });
    sent.map(|mut message| {
        let mut bulk = 0;
        message.each_bulk(&mut |one| bulk += one.bytes.len());
        let mut head = Vec::new();
        codec::encode(&message, &mut head).unwrap();
        Header::new(FromWorker::KIND, head.len(), bulk).unwrap();
        let FromWorker::Report { ended, .. } = message else { unreachable!() };
        assert!(ended.len() == 1 || bulk <= BUNDLE_BYTES_MAX, "{} ends, {bulk} bytes", ended.len());
        ended
    })
    .collect()
}

/// A worker that has a leader's orders for `outcomes.len()` attempts of one task and has run them all, each
/// with an outcome of so many bytes. What it said meanwhile.
fn owing(outcomes: &[usize]) -> (Agent, Vec<AgentAction>) {
    let mut agent = agent(1);
    step(&mut agent, AgentEvent::Connected { term: TERM });
    step(&mut agent, AgentEvent::Leader(ToWorker::Registered { term: TERM }));
    let program =
        Program { id: ProgramId([5; 32]), bytes: 1, platform: platform(), name: "app".into() };
    let spec = BatchSpec {
        name: "b".into(),
        functions: Vec::new(),
        policy: Policy::default(),
        env: Vec::new(),
    };
    let shared = Shared {
        batch: BATCH,
        job: JobId(0),
        owner: "me".into(),
        program: program.clone(),
        spec: spec.into(),
        context: Bytes::new().into(),
    };
    let mut orders = vec![Order::Batch(shared.into())];
    orders.extend((0..outcomes.len() as u32).map(|index| {
        Order::Run(Run {
            attempt: attempt(index.into()),
            batch: BATCH,
            range: TaskRange::new(index, index + 1),
            segments: vec![one(1).into()],
            threads: 1,
            alone: false,
            task_ns: Some(1),
            given: Vec::new(),
            rounds: Vec::new(),
        })
    }));
    let mut events = vec![
        AgentEvent::Leader(ToWorker::Orders { term: TERM, number: 1, orders }),
        AgentEvent::ProgramReady(program.id),
    ];
    let (mut said, mut out) = (Vec::new(), Vec::new());
    while !events.is_empty() {
        // All that has come is one step: its outcomes are reported together.
        agent.handle(Instant(0), events.drain(..), &mut out);
        agent.check().unwrap();
        for action in out.drain(..) {
            match action {
                AgentAction::Spawn(spawn) => {
                    events.push(AgentEvent::Executor(spawn.executor, ExecutorEvent::Ready));
                }
                AgentAction::Load { executor, load: Load { attempt, range, .. } } => {
                    let bytes = outcomes[range.start as usize];
                    let segment = one(bytes);
                    let outcome = ExecutorEvent::Outcomes {
                        attempt,
                        range,
                        segment,
                        run_us: 1,
                        mentions: Vec::new(),
                    };
                    let finished = ExecutorEvent::Finished { attempt };
                    events.extend([outcome, finished].map(|e| AgentEvent::Executor(executor, e)));
                }
                other => said.push(other),
            }
        }
    }
    (agent, said)
}

/// The attempts that `reports` end, in order.
fn attempts(reports: &[Vec<Ended>]) -> Vec<u64> {
    let mut all: Vec<u64> = reports.iter().flatten().map(|ended| ended.attempt.number).collect();
    all.sort_unstable();
    all
}

#[test]
fn what_is_owed_beyond_a_message_is_said_in_several_and_again_to_the_next_leader() {
    // 40 MiB, of which one outcome is longer than a bundle.
    let outcomes: Vec<usize> = (0..60).map(|n| if n == 7 { 5 * MIB } else { 600 << 10 }).collect();
    let all: Vec<u64> = (0..60).collect();
    let (mut agent, said) = owing(&outcomes);
    let first = reports(said);
    assert_eq!(attempts(&first), all);

    step(&mut agent, AgentEvent::Disconnected);
    step(&mut agent, AgentEvent::Connected { term: Term(2) });
    let again =
        reports(step(&mut agent, AgentEvent::Leader(ToWorker::Registered { term: Term(2) })));
    assert!(again.len() >= 40 * MIB / BUNDLE_BYTES_MAX, "{} reports", again.len());
    assert_eq!(attempts(&again), all, "each once");
    let long = again.iter().find(|ended| ended.iter().any(|one| one.attempt == attempt(7)));
    assert_eq!(long.map(Vec::len), Some(1), "it goes alone");

    // What is committed is owed no more, the rest to whoever leads next.
    let orders = (0..30)
        .map(|number| {
            let index = u32::try_from(number).unwrap();
            Order::Committed { attempt: attempt(number), range: TaskRange::new(index, index + 1) }
        })
        .collect();
    step(&mut agent, AgentEvent::Leader(ToWorker::Orders { term: Term(2), number: 1, orders }));
    step(&mut agent, AgentEvent::Connected { term: Term(3) });
    let rest =
        reports(step(&mut agent, AgentEvent::Leader(ToWorker::Registered { term: Term(3) })));
    assert_eq!(attempts(&rest), (30..60).collect::<Vec<_>>());
}

#[test]
fn the_last_words_of_many_executors_fit_as_well() {
    let mut agent = agent(1);
    step(&mut agent, AgentEvent::Connected { term: TERM });
    step(&mut agent, AgentEvent::Leader(ToWorker::Registered { term: TERM }));
    let stderr_tail = "w".repeat(STDERR_TAIL_BYTES_MAX);
    let cause = Cause::ExecutorDied { signal: Some(9), exit: None, stderr_tail, deaths: 1 };
    agent.reports.extend((0..1000u32).map(|index| Ended {
        attempt: attempt(index.into()),
        batch: BATCH,
        range: TaskRange::new(index, index + 1),
        how: How::Killed { cause: cause.clone() },
    }));
    let said = reports(step(&mut agent, AgentEvent::Tick));
    assert_eq!(attempts(&said), (0..1000).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Outcomes of any lengths: none is left out, none is said twice, and they keep their order.
    #[test]
    fn reports_are_cut_and_whole(lengths in prop::collection::vec(0..6 * MIB, 1..12)) {
        let mut agent = agent(1);
        step(&mut agent, AgentEvent::Connected { term: TERM });
        step(&mut agent, AgentEvent::Leader(ToWorker::Registered { term: TERM }));
        for (index, bytes) in (0u32..).zip(&lengths) {
            let how = How::Ran { segment: Bytes::from(vec![0; *bytes]).into(), run_us: 1, mentions: Vec::new() };
            let range = TaskRange::new(index, index + 1);
            agent.reports.push(Ended { attempt: attempt(index.into()), batch: BATCH, range, how });
        }
        let said = reports(step(&mut agent, AgentEvent::Tick));
        let order: Vec<u64> = said.iter().flatten().map(|ended| ended.attempt.number).collect();
        prop_assert_eq!(order, (0..lengths.len() as u64).collect::<Vec<_>>());
        // Two that follow one another would not have fitted together.
        let bytes = |ended: &Vec<Ended>| ended.iter().map(Ended::bulk_bytes).sum::<usize>();
        for pair in said.windows(2) {
            prop_assert!(bytes(&pair[0]) + pair[1][0].bulk_bytes() > BUNDLE_BYTES_MAX);
        }
    }
}
