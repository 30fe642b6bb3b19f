//! Properties of the replicated state: whatever the log says.

use allhands_common::execution::Need;
use allhands_common::id::{AttemptId, JobId, LogIndex, RequestId, Term, WorkerId};
use allhands_common::policy::Policy;
use allhands_common::range::TaskRange;
use allhands_common::time::ClusterTime;
use allhands_common::wire::worker::How;
use allhands_scheduler::{Charge, Command, Effect, Entry, State};
use proptest::prelude::*;

use crate::support::*;

/// Any command, of few sessions, batches and tasks, so that they meet.
fn command() -> impl Strategy<Value = Command> {
    let place = (0u32..3, 0u32..6, 1u32..4, any::<u8>());
    (0u8..14, place).prop_map(|(kind, (sequence, first, tasks, detail))| {
        let (id, worker) = (batch(sequence), WorkerId(u64::from(detail % 2)));
        let tried = AttemptId { term: Term(1), number: u64::from(detail % 4) };
        let range = TaskRange::new(first, first + tasks);
        let policy = Policy {
            idempotent: detail % 2 == 0,
            fail_after: (detail % 3 == 0).then_some(2),
            ..Policy::default()
        };
        // Some batches are kept: their tasks name others of the few, and return them.
        let kept = sequence > 0;
        let on = match detail % 4 {
            0 => task(sequence, first),
            1 => child(task(1, first), 0),
            _ => task(u32::from(detail % 3), u32::from(detail) % 6),
        };
        let need = [Need::Value, Need::End, Need::Handle][usize::from(detail % 3)];
        let named = |from: u32| {
            let some = if detail > 100 { vec![names(from, on, need)] } else { Vec::new() };
            some.into_iter().filter(|_| kept).collect::<Vec<_>>()
        };
        match kind {
            0 => Command::OpenSession { session: SESSION, owner: "ann".into() },
            1 if detail < 20 => Command::CloseSession { session: SESSION },
            1 | 2 => Command::OpenJob {
                session: SESSION,
                request: RequestId(u64::from(detail % 2)),
                low: RequestId(0),
                program: program(),
                name: "job".into(),
                detached: None,
            },
            3 => Command::OpenBatch {
                session: SESSION,
                batch: id,
                sequence,
                call: sequence,
                job: JobId(u64::from(detail % 2)),
                spec: spec(policy).into(),
                context: if detail < 99 { arguments(range).into() } else { Default::default() },
                tasks: if detail < 30 { tasks } else { 0 },
                segment: arguments(TaskRange::new(0, tasks)).into(),
                sealed: detail < 15,
                kept,
                mentions: named(0),
            },
            4 | 5 => Command::Append {
                batch: id,
                first,
                tasks,
                segment: arguments(range).into(),
                mentions: named(first),
            },
            6 => Command::Seal { batch: id, tasks: first },
            7 => Command::Acknowledge(vec![(id, if detail < 60 { u32::MAX } else { tasks })]),
            8 if detail < 40 => Command::Stop { batch: id, rest: failed(panic()) },
            8 | 9 => Command::Finish {
                batch: id,
                attempt: tried,
                worker,
                range,
                segment: outcomes(range, &[first]).into(),
                mentions: named(first + 1),
            },
            12 => {
                let parent = task(sequence, first);
                let mut call = call(parent, tried, u32::from(detail % 2));
                call.mentions = named(0);
                Command::Call { worker, child: call }
            }
            13 => {
                let of = if detail < 128 { id } else { child(task(1, first), 0).batch };
                let How::Ran { segment, mentions, .. } = forwarded(first, on) else { panic!() };
                let range = TaskRange::new(first, first + 1);
                Command::Finish { batch: of, attempt: tried, worker, range, segment, mentions }
            }
            10 => Command::Charge {
                batch: id,
                index: first,
                attempt: tried,
                charge: Charge::Failure,
                not_before: ClusterTime(u64::from(detail)),
            },
            _ => Command::Start { batch: id, attempt: tried, worker, range },
        }
    })
}

/// The log applied to a fresh state, and every rule of states at each index.
fn apply(log: &[Command]) -> State {
    let mut state = State::default();
    let mut kept = std::collections::BTreeSet::new();
    for (at, command) in log.iter().enumerate() {
        let index = LogIndex(at as u64 + 1);
        let mut effects = Vec::new();
        let entry = Entry { at: ClusterTime(at as u64), commands: vec![command.clone()] };
        state.apply(index, entry, &mut effects);
        state.check().unwrap();
        for effect in effects {
            match effect {
                Effect::Keep { segment, .. } => assert!(kept.insert(segment), "kept once"),
                Effect::Drop { segment } => assert!(kept.remove(&segment), "dropped once"),
                _ => {}
            }
        }
        assert_eq!(state.segments().collect::<std::collections::BTreeSet<_>>(), kept);
        for known in state.batches.values() {
            let Some(progress) = known.progress() else { continue };
            assert!(progress.ended.iter().all(|range| range.end <= known.tasks));
            let waiting: u32 = progress.outcomes.iter().map(|outcome| outcome.tasks.len()).sum();
            assert!(waiting <= progress.ended.len(), "a task has one outcome");
            assert!(progress.failed <= progress.ended.len());
            let bytes: u64 = progress.outcomes.iter().map(|outcome| u64::from(outcome.bytes)).sum();
            // Of kept outcomes those that were read stay, and those of calls nobody reads.
            assert!(
                progress.unread_bytes <= bytes && (known.kept || progress.unread_bytes == bytes)
            );
        }
    }
    state
}

proptest! {
    #[test]
    fn the_same_log_gives_the_same_state_and_a_snapshot_is_the_state(
        log in prop::collection::vec(command(), 0..120),
    ) {
        let state = apply(&log);
        prop_assert_eq!(state.digest(), apply(&log).digest());
        let again = State::from_snapshot(&state.to_snapshot()).unwrap();
        prop_assert_eq!(&again, &state);
        prop_assert_eq!(again.digest(), state.digest());
    }

    #[test]
    fn a_damaged_snapshot_is_refused(log in prop::collection::vec(command(), 0..30), at in any::<u16>()) {
        let mut bytes = apply(&log).to_snapshot();
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= 1;
        prop_assert!(State::from_snapshot(&bytes).is_err());
    }

    #[test]
    fn a_log_said_twice_over_gives_the_same_batches(log in prop::collection::vec(command(), 0..60)) {
        // Every command twice in a row, as a client that did not hear repeats itself.
        let quiet = |command: &&Command| !matches!(
            command,
            Command::Acknowledge { .. } | Command::Start { .. } | Command::CloseSession { .. }
        );
        let once: Vec<Command> = log.iter().filter(quiet).cloned().collect();
        let twice: Vec<Command> = once.iter().flat_map(|c| [c.clone(), c.clone()]).collect();
        let (once, twice) = (apply(&once), apply(&twice));
        prop_assert_eq!(once.jobs.len(), twice.jobs.len());
        for (id, known) in &once.batches {
            let Some(other) = twice.batches.get(id) else {
                prop_assert!(false, "{id} is gone");
                continue;
            };
            prop_assert_eq!(known.tasks, other.tasks);
            prop_assert_eq!(known.ended(), other.ended());
            prop_assert_eq!(known.stopped(), other.stopped());
        }
    }
}
