//! What no entry can hold is refused, and nothing of it stays.

use allhands_common::id::{JobId, LogIndex, RequestId};
use allhands_common::policy::{BatchSpec, Policy};
use allhands_common::time::ClusterTime;
use allhands_scheduler::Entry;

use super::*;
use crate::programs::tests::{CLIENT, program, rig};

const BATCH: BatchId = BatchId([5; 16]);

/// A batch with a task, of the client.
fn opened() -> Vec<Command> {
    let spec = BatchSpec {
        name: "b".into(),
        functions: Vec::new(),
        policy: Policy::default(),
        env: Vec::new(),
    };
    vec![
        Command::OpenSession { session: CLIENT, owner: "me".into() },
        Command::OpenJob {
            session: CLIENT,
            request: RequestId(0),
            low: RequestId(0),
            program: program(b"p"),
            name: "j".into(),
            detached: None,
        },
        Command::OpenBatch {
            session: CLIENT,
            batch: BATCH,
            sequence: 0,
            call: 0,
            job: JobId(0),
            spec: spec.into(),
            context: Bytes::new().into(),
            tasks: 1,
            segment: Bytes::from_static(b"a").into(),
            sealed: false,
            kept: false,
            mentions: Vec::new(),
        },
    ]
}

/// More tasks than an entry holds.
fn too_long() -> Action {
    let segment = Bytes::from(vec![0; ENTRY_BYTES_MAX]).into();
    Action::Propose(Command::Append {
        batch: BATCH,
        first: 1,
        tasks: 1,
        segment,
        mentions: Vec::new(),
    })
}

#[test]
fn who_appends_too_much_is_refused_and_knows_that_its_batch_is_there() {
    let mut rig = rig();
    let entry = Entry { at: ClusterTime(1), commands: opened() };
    rig.shell.state.apply(LogIndex(1), entry, &mut Vec::new());
    rig.shell.act(too_long());
    let appended = Appended { batch: BATCH, tasks: 1, sealed: false };
    assert_eq!(rig.client.try_recv(), Ok(ToClient::Appended(vec![appended])));
    match rig.client.try_recv() {
        Ok(ToClient::Refused { batch: Some(BATCH), request: None, reason }) => {
            assert!(reason.contains("of a log entry"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_that_is_being_opened_is_stopped_when_too_much_is_appended() {
    let mut rig = rig();
    opened().into_iter().for_each(|command| rig.shell.act(Action::Propose(command)));
    rig.shell.act(too_long());
    let entry = rig.shell.proposals.take(ClusterTime(1)).unwrap();
    rig.shell.state.apply(LogIndex(1), entry, &mut Vec::new());
    let stop = rig.shell.state.batches[&BATCH].stopped().unwrap();
    let Cause::Cancelled { reason } = &stop.rest.cause else { panic!("{stop:?}") };
    assert!(reason.contains("of a log entry"), "{reason}");
}
