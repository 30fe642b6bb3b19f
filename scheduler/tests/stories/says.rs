//! What tasks say to people: who is told, what is kept, and what is too much.

use std::time::Duration;

use allhands_common::id::{AttemptId, ExecutorId, JobId, TaskId, Term};
use allhands_common::policy::Policy;
use allhands_common::time::Instant;
use allhands_common::wire::client::{FromClient, ToClient};
use allhands_common::wire::note::{Level, Line, Note, Said};
use allhands_common::wire::worker::{FromWorker, ToWorker};
use allhands_scheduler::{Action, AgentEvent, ExecutorEvent};

use crate::support::*;

fn line(text: &str) -> Said {
    Said::Line(Line::new(Level::Info, text, &[]))
}

const fn note(task: TaskId, attempt: AttemptId, said: Said) -> Note {
    Note { task, attempt, said }
}

/// What `actions` tell the client that its tasks say.
fn heard(actions: &[Action]) -> Vec<Said> {
    let said = told(actions).into_iter().filter_map(|message| match message {
        ToClient::Said(notes) => Some(notes.into_iter().map(|note| note.said)),
        _ => None,
    });
    said.flatten().collect()
}

/// A leader with a task on worker 1.
fn running() -> Leader {
    let mut leader = Leader::with_workers(2, 1);
    leader.submit(0, 1, Policy::default());
    leader
}

fn says(leader: &mut Leader, worker: u64, said: Vec<Said>) -> Vec<Said> {
    let notes = said.into_iter().map(|said| note(task(0, 0), attempt(0), said)).collect();
    heard(&leader.worker(worker, FromWorker::Said(notes)))
}

fn known(leader: &Leader) -> (Vec<String>, u64, Vec<(TaskId, u64, u64)>) {
    let said = leader.dispatcher.said(leader.now, &leader.state, JobId(0)).unwrap();
    let lines = said.lines.into_iter().map(|(_, note)| match note.said {
        Said::Line(line) => line.text,
        other => panic!("{other:?}"),
    });
    (lines.collect(), said.forgotten, said.progress)
}

#[test]
fn the_client_hears_it_and_it_is_kept_for_who_asks() {
    let mut leader = running();
    let progress = |done| Said::Progress { done, total: 9 };
    let said = vec![line("a"), progress(3), line("b")];
    assert_eq!(says(&mut leader, 1, said.clone()), said);
    assert_eq!(says(&mut leader, 1, vec![progress(4)]), [progress(4)]);
    let lines = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(known(&leader), (lines.clone(), 0, vec![(task(0, 0), 4, 9)]));
    leader.finish(1, attempt(0), 0, range(0, 1));
    assert_eq!(known(&leader), (lines.clone(), 0, vec![]), "it is not on its way any more");
    leader.client(FromClient::Detach);
    assert_eq!(known(&leader).0, lines, "who looks has often waited for the end");
    assert!(leader.dispatcher.said(leader.now, &leader.state, JobId(1)).is_none());
}

#[test]
fn only_who_runs_a_task_speaks_for_it() {
    let mut leader = running();
    assert_eq!(says(&mut leader, 2, vec![line("of another's")]), []);
    leader.finish(1, attempt(0), 0, range(0, 1));
    assert_eq!(says(&mut leader, 1, vec![line("too late")]), []);
    assert_eq!(known(&leader), (vec![], 0, vec![]));
}

#[test]
fn what_is_too_much_is_counted() {
    let mut leader = running();
    let long = || line(&"x".repeat(4000));
    let heard = says(&mut leader, 1, (0..100).map(|_| long()).collect());
    let count = heard.len();
    assert!((50..80).contains(&count), "{count}");
    let (lines, forgotten, _) = known(&leader);
    assert!(lines.len() < 70 && lines.len() as u64 + forgotten == 100, "{}", lines.len());
    let missing = 100 - count as u32;
    let heard = says(&mut leader, 1, vec![long(), Said::Dropped(5)]);
    assert_eq!(heard, [Said::Dropped(missing + 1), Said::Dropped(5)]);
    says(&mut leader, 1, vec![long()]);
    leader.now = leader.now + Duration::from_secs(1);
    let heard = says(&mut leader, 1, vec![line("again")]);
    assert_eq!(heard, [Said::Dropped(1), line("again")]);
    says(&mut leader, 1, (0..2000).map(|_| line("")).collect());
    assert_eq!(known(&leader).0.len(), 1024);
}

#[test]
fn a_client_that_is_away_is_not_told() {
    let mut leader = running();
    leader.step(allhands_scheduler::Event::ClientGone { session: SESSION });
    assert_eq!(says(&mut leader, 1, vec![line("a")]), []);
    assert_eq!(known(&leader).0, ["a"]);
}

#[test]
fn a_worker_hands_it_on_and_keeps_nothing() {
    let mut worker = TestWorker::new(1);
    let (now, term) = (Instant(0), Term(1));
    worker.step(now, AgentEvent::Connected { term });
    worker.step(now, AgentEvent::Leader(ToWorker::Registered { term }));
    let said = || ExecutorEvent::Said(vec![note(task(0, 0), attempt(0), line("a"))]);
    let event = || AgentEvent::Executor(ExecutorId(0), said());
    let sent = |worker: &TestWorker| {
        let all = worker.sent.iter().filter(|message| matches!(message, FromWorker::Said(_)));
        all.count()
    };
    worker.step(now, event());
    assert_eq!(sent(&worker), 1);
    worker.step(now, AgentEvent::Disconnected);
    worker.step(now, event());
    worker.step(now, AgentEvent::Connected { term });
    worker.step(now, AgentEvent::Leader(ToWorker::Registered { term }));
    assert_eq!(sent(&worker), 1, "there was nobody to tell");
}
