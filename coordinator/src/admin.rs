//! Answers to an operator's questions.

use allhands_common::id::{BatchId, CoordinatorId, JobId, TaskId, Term};
use allhands_common::range::TaskRange;
use allhands_common::wire::admin::{Answer, Question};
use allhands_scheduler::{Batch, Explanation};

use crate::shell::{Log, Shell};

impl Shell {
    pub(crate) fn answer(&mut self, name: String, question: Question) -> Answer {
        let Some(dispatcher) = &self.dispatcher else {
            let leader = self.leadership.leader.map(|leader| CoordinatorId(leader.node_id));
            return Answer::NotLeader { leader };
        };
        let state = &self.state;
        match &question {
            Question::Status => {
                let mut status = dispatcher.status(state);
                if let Log::Raft(node) = &self.log {
                    // As the log has it, for people.
                    status.term = self.leadership.leader.map_or(status.term, |l| Term(l.term));
                    let membership = node.progress().membership;
                    status.coordinators = membership
                        .nodes()
                        .map(|(id, member)| {
                            let addresses = member.addresses.iter().map(ToString::to_string);
                            (CoordinatorId(*id), addresses.collect::<Vec<_>>().join(", "))
                        })
                        .collect();
                }
                Answer::Status(status)
            }
            Question::Jobs => Answer::Jobs(dispatcher.jobs(state)),
            Question::Job(id) => match dispatcher.job(state, *id) {
                Some(job) => Answer::Job(job),
                None => self.unknown_job(*id),
            },
            Question::Explain(task) => {
                let group = state.batches.get(&task.batch);
                let group = group.and_then(|batch| batch.spec.policy.group.as_deref());
                explained(*task, group, &dispatcher.explain(self.now(), state, *task))
            }
            Question::Said(job) => match dispatcher.said(self.now(), state, *job) {
                Some(said) => Answer::Said(said),
                None => self.unknown_job(*job),
            },
            Question::Record { job, from } => {
                match dispatcher.record(self.now(), state, *job, *from) {
                    Some(page) => Answer::Record(Box::new(page)),
                    None => self.unknown_job(*job),
                }
            }
            Question::Blobs => Answer::Blobs(dispatcher.blobs()),
            Question::CancelJob(id) => {
                if !state.jobs.contains_key(id) {
                    return self.unknown_job(*id);
                }
                if state.batches_of(*id).all(|(_, batch)| batch.over()) {
                    return Answer::Done(format!(
                        "nothing of job {id} is left to cancel: all its batches are over"
                    ));
                }
                let text = format!("job {id} is being cancelled");
                self.hear_operator(name, question);
                Answer::Done(text)
            }
            Question::CancelGroup(id, group) => {
                if !state.jobs.contains_key(id) {
                    return self.unknown_job(*id);
                }
                let theirs = |batch: &Batch| batch.spec.policy.group.as_ref() == Some(group);
                if !state.batches_of(*id).any(|(_, batch)| theirs(batch) && !batch.over()) {
                    return Answer::Done(format!(
                        "nothing of group {group} is left to cancel in job {id}: `allhands job {id}` lists its \
                         groups"
                    ));
                }
                let text = format!("group {group} of job {id} is being cancelled");
                self.hear_operator(name, question);
                Answer::Done(text)
            }
            Question::CancelTask(task) => {
                let Some(batch) = state.batches.get(&task.batch) else {
                    return unknown_batch(task.batch);
                };
                let one = TaskRange::new(task.index, task.index.saturating_add(1));
                if task.index >= batch.tasks {
                    let text = format!("batch {} has {} tasks so far", task.batch, batch.tasks);
                    return Answer::Unknown(text);
                }
                if batch.over() || batch.unfinished(one).is_empty() {
                    return Answer::Done(format!(
                        "execution {task} has ended: nothing is left to cancel"
                    ));
                }
                let text = format!("execution {task} is being cancelled");
                self.hear_operator(name, question);
                Answer::Done(text)
            }
            Question::CancelBatch(id) => {
                let Some(batch) = state.batches.get(id) else { return unknown_batch(*id) };
                if batch.over() {
                    let how = match batch.stopped() {
                        Some(stop) => format!("it was stopped: {}", stop.rest.cause),
                        None => "all its tasks have ended".into(),
                    };
                    return Answer::Done(format!("batch {id} is over: {how}"));
                }
                let text = format!("batch {id} is being cancelled");
                self.hear_operator(name, question);
                Answer::Done(text)
            }
        }
    }

    fn unknown_job(&self, id: JobId) -> Answer {
        Answer::Unknown(if self.state.job_was_opened(id) {
            format!("job {id} is over and forgotten: its client has gone")
        } else {
            format!("job {id} does not exist: `allhands jobs` lists those that do")
        })
    }
}

/// Executions that one may look at in this list.
const LISTED_MAX: usize = 8;

/// Some executions for people.
fn list(tasks: &[TaskId]) -> String {
    let shown: Vec<String> =
        tasks.iter().take(LISTED_MAX).map(|task| format!("execution {task}")).collect();
    let more = tasks.len().saturating_sub(LISTED_MAX);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", shown.join(", "))
}

fn unknown_batch(id: BatchId) -> Answer {
    Answer::Unknown(format!("batch {id} is not here: it is over and consumed, or was never opened"))
}

/// An explanation in sentences.
fn explained(task: TaskId, group: Option<&str>, found: &Explanation) -> Answer {
    let mut lines = match found {
        Explanation::UnknownBatch => return unknown_batch(task.batch),
        Explanation::NotSubmitted { tasks } => {
            let text = format!("task {task} is not submitted: its batch has {tasks} tasks so far");
            return Answer::Unknown(text);
        }
        Explanation::Ended => vec!["it has ended; its outcome is committed".into()],
        Explanation::Stopped { reason } => vec![format!("its batch was stopped: {reason}")],
        Explanation::WithWorker { name, attempt, running, since_ms, .. } => {
            let how = if *running { "it runs" } else { "it waits as next" };
            vec![format!("{how} on worker {name}, attempt {attempt}, for {since_ms} ms")]
        }
        Explanation::Blocked { name, on } => vec![format!(
            "it has begun on worker {name} and waits, without a slot, for {}",
            list(on)
        )],
        Explanation::Waits { on } => vec![format!("it starts after {}", list(on))],
        Explanation::Same { as_ } => {
            vec![format!("it is the same call as {as_}: `allhands explain {as_}`")]
        }
        Explanation::Delayed { until, tries: 0 } => {
            vec![format!("it starts at cluster time {} ms: its delay is not over", until.0)]
        }
        Explanation::Delayed { until, tries } => vec![format!(
            "it was tried {tries} times and is to be tried again at cluster time {} ms",
            until.0
        )],
        Explanation::Deciding => vec!["something about it is on its way through the log".into()],
        Explanation::Resuming { workers } => {
            vec![format!("the leader is new and waits for {workers} workers to say what they hold")]
        }
        Explanation::Unread { bytes } => vec![format!(
            "its client has {bytes} bytes of results to read first: read them, or read faster"
        )],
        Explanation::AtCap { cap } => {
            vec![format!("its call runs as many tasks at once as it may: n_jobs is {cap}")]
        }
        Explanation::Unplaceable { workers } if workers.is_empty() => {
            vec!["there is no worker: start one with `allhands worker`".into()]
        }
        Explanation::Unplaceable { workers } => {
            let lines = workers.iter().map(|(worker, lacks)| format!("worker {worker}: {lacks}"));
            std::iter::once("no worker can hold it".into()).chain(lines).collect()
        }
        Explanation::Queued { before } => {
            vec![format!("it waits for a slot; {before} tasks of its batch are before it")]
        }
    };
    lines.extend(group.map(|group| format!("it is of group {group}")));
    Answer::Explanation(lines)
}
