//! What an operator is shown fits a reply, however much there is.

use allhands_common::bulk::Bulk;
use allhands_common::frame::Message;
use allhands_common::id::{BatchId, JobId, RequestId, SessionId};
use allhands_common::policy::{BatchSpec, Policy};
use allhands_common::wire::admin::{Answer, BATCHES_SHOWN_MAX, JOBS_SHOWN_MAX};
use allhands_scheduler::Command;

use crate::support::*;

const OPENED: u32 = 30_000;

/// A name as long as a user may make it, as far as an entry goes.
fn long() -> String {
    "é".repeat(2000)
}

fn empty() -> Bulk {
    bytes::Bytes::new().into()
}

/// The `sequence`-th batch of a session, of `tasks` tasks, open.
fn open(session: SessionId, job: u64, sequence: u32, tasks: u32) -> Command {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&job.to_le_bytes());
    id[8..12].copy_from_slice(&sequence.to_le_bytes());
    Command::OpenBatch {
        session,
        batch: BatchId(id),
        sequence,
        call: sequence,
        job: JobId(job),
        spec: BatchSpec { name: long(), ..spec(Policy::default()) }.into(),
        context: empty(),
        tasks,
        segment: empty(),
        sealed: tasks == 0,
        kept: false,
        mentions: Vec::new(),
    }
}

/// A session with a job.
fn job(number: u64) -> (SessionId, [Command; 2]) {
    let session = SessionId((number + 100).to_le_bytes().repeat(2).try_into().unwrap());
    let (request, name) = (RequestId(0), long());
    let open = Command::OpenJob {
        session,
        request,
        low: request,
        program: program(),
        name,
        detached: None,
    };
    (session, [Command::OpenSession { session, owner: long() }, open])
}

fn fits(answer: &Answer) {
    let mut head = Vec::new();
    allhands_common::codec::encode(answer, &mut head).unwrap();
    assert!(head.len() <= Answer::KIND.head_bytes_max() as usize / 2, "{}", head.len());
}

#[test]
fn a_job_of_many_batches_shows_some_and_counts_all() {
    let mut leader = Leader::new();
    let (session, begin) = job(0);
    leader.apply(begin.into());
    // The first are over: they have no tasks and are sealed.
    let over = 700;
    let tasks = |sequence: u32| u32::from(sequence >= over) * 2;
    leader.apply((0..OPENED).map(|sequence| open(session, 0, sequence, tasks(sequence))).collect());

    let view = leader.dispatcher.job(&leader.state, JobId(0)).unwrap();
    assert_eq!(view.summary.batches, u64::from(OPENED));
    assert_eq!(view.summary.tasks, u64::from(OPENED - over) * 2);
    assert_eq!((view.batches.len(), view.more), (BATCHES_SHOWN_MAX, u64::from(OPENED) - 1000));
    // What is not over comes first, in the order of coming.
    let sequence = |at: usize| leader.state.batches[&view.batches[at].batch].sequence;
    assert_eq!((sequence(0), sequence(BATCHES_SHOWN_MAX - 1)), (over, over + 999));
    fits(&Answer::Job(view));

    let jobs = leader.dispatcher.jobs(&leader.state);
    assert_eq!((jobs.jobs.len(), jobs.more), (1, 0));
    assert_eq!(jobs.jobs[0].batches, u64::from(OPENED));
    fits(&Answer::Jobs(jobs));
}

#[test]
fn of_many_jobs_the_latest_are_shown() {
    let mut leader = Leader::new();
    let all = JOBS_SHOWN_MAX as u64 + 500;
    for number in 0..all {
        let (session, begin) = job(number);
        leader.apply(begin.into());
        leader.apply(vec![open(session, number, 0, 3)]);
    }
    let jobs = leader.dispatcher.jobs(&leader.state);
    assert_eq!((jobs.jobs.len(), jobs.more), (JOBS_SHOWN_MAX, 500));
    let ids: Vec<u64> = jobs.jobs.iter().map(|job| job.job.0).collect();
    assert_eq!(ids, (500..all).collect::<Vec<_>>());
    assert!(jobs.jobs.iter().all(|job| (job.batches, job.tasks) == (1, 3)));
    fits(&Answer::Jobs(jobs));
}
