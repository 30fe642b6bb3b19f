//! The commands that ask: each is one question to the leader, and a view of its answer.

use std::path::Path;
use std::time::Duration;

use allhands_common::id::JobId;
use allhands_common::wire::admin::{Answer, Question, SaidView};
use allhands_common::wire::record::Page;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::args::{Cancel, Query, QueryJob, QueryTask, Target};
use crate::operator::{AskError, Operator};
use crate::output;

mod blobs;
mod graph;
mod logs;
mod record;
mod timeline;
mod view;

use blobs::BlobsView;
use graph::Graph;
use logs::LogsView;
use record::Record;
use timeline::Timeline;
use view::{CancelView, ExplanationView, JobView, JobsView, StatusView};

/// How long a coordinator may take to show that it is there, once the leader has answered.
const SIGN_OF_LIFE: Duration = Duration::from_millis(500);

pub(crate) fn status(query: &Query) -> anyhow::Result<()> {
    asking(query, async |operator| {
        let Answer::Status(status) = operator.ask(&Question::Status).await? else {
            return Err(AskError::Unexpected.into());
        };
        let mut looking = JoinSet::new();
        for (id, address) in status.coordinators.clone() {
            let operator = operator.clone();
            looking.spawn(async move {
                let first = address.split(',').next().unwrap_or_default().trim().parse();
                let up = match first {
                    Ok(address) => operator.reaches(address, SIGN_OF_LIFE).await,
                    Err(_) => false,
                };
                (id, up)
            });
        }
        let up = looking.join_all().await.into_iter().filter_map(|(id, up)| up.then_some(id));
        let view = StatusView::new(operator.cluster(), status, &up.collect::<Vec<_>>());
        output::print(&view, query.json)
    })
}

pub(crate) fn jobs(query: &Query) -> anyhow::Result<()> {
    asking(query, async |operator| match operator.ask(&Question::Jobs).await? {
        Answer::Jobs(jobs) => output::print(&JobsView::new(jobs), query.json),
        _ => Err(AskError::Unexpected.into()),
    })
}

pub(crate) fn job(asked: &QueryJob) -> anyhow::Result<()> {
    let QueryJob { job, query, timeline, graph, logs, rows } = asked;
    if *logs {
        return asking(query, async |operator| {
            output::print(&LogsView::new(*job, said(operator, *job).await?), query.json)
        });
    }
    if *timeline || *graph {
        return asking(query, async |operator| {
            let record = Record::new(recorded(operator, *job).await?);
            match graph {
                true => output::print(&Graph(&record), query.json),
                false => output::print(&Timeline::new(&record, output::width(), *rows), query.json),
            }
        });
    }
    asking(query, async |operator| match operator.ask(&Question::Job(*job)).await? {
        Answer::Job(view) => {
            let said = said(operator, *job).await?;
            output::print(&JobView::new(view, said.progress), query.json)
        }
        _ => Err(AskError::Unexpected.into()),
    })
}

/// What the tasks of a job say.
async fn said(operator: &Operator, job: JobId) -> anyhow::Result<SaidView> {
    match operator.ask(&Question::Said(job)).await? {
        Answer::Said(said) => Ok(said),
        _ => Err(AskError::Unexpected.into()),
    }
}

/// All that is recorded of a job, page by page.
async fn recorded(operator: &Operator, job: JobId) -> anyhow::Result<Page> {
    let mut all: Option<Page> = None;
    loop {
        let from = all.as_ref().and_then(|all| all.next).unwrap_or(0);
        let Answer::Record(page) = operator.ask(&Question::Record { job, from }).await? else {
            return Err(AskError::Unexpected.into());
        };
        let page = match all {
            None => *page,
            Some(all) => all.followed_by(*page),
        };
        match page.next {
            Some(_) => all = Some(page),
            None => return Ok(page),
        }
    }
}

pub(crate) fn explain(QueryTask { task, query }: &QueryTask) -> anyhow::Result<()> {
    asking(query, async |operator| match operator.ask(&Question::Explain(*task)).await? {
        Answer::Explanation(lines) => {
            output::print(&ExplanationView::new(*task, lines), query.json)
        }
        _ => Err(AskError::Unexpected.into()),
    })
}

pub(crate) fn blobs(query: &Query) -> anyhow::Result<()> {
    asking(query, async |operator| match operator.ask(&Question::Blobs).await? {
        Answer::Blobs(blobs) => output::print(&BlobsView::new(blobs), query.json),
        _ => Err(AskError::Unexpected.into()),
    })
}

pub(crate) fn cancel(Cancel { target, group, query }: &Cancel) -> anyhow::Result<()> {
    let question = match (target, group) {
        (Target::Job(job), None) => Question::CancelJob(*job),
        (Target::Job(job), Some(group)) => Question::CancelGroup(*job, group.clone()),
        (Target::Task(task), None) => Question::CancelTask(*task),
        (Target::Batch(batch), None) => Question::CancelBatch(*batch),
        (Target::Batch(_) | Target::Task(_), Some(_)) => {
            anyhow::bail!(
                "--group is of a job: give the number of one, which `allhands jobs` lists"
            )
        }
    };
    asking(query, async |operator| match operator.ask(&question).await? {
        Answer::Done(done) => output::print(&CancelView { done }, query.json),
        _ => Err(AskError::Unexpected.into()),
    })
}

/// One question to the cluster of a directory.
pub(crate) fn ask(directory: &Path, question: &Question) -> anyhow::Result<Answer> {
    let query = Query::of_directory(directory);
    asking(&query, async |operator| Ok(operator.ask(question).await?))
}

/// Runs `work` with the cluster's operator.
fn asking<T>(
    query: &Query,
    work: impl AsyncFnOnce(&Operator) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let operator = query.operator()?;
        let done = work(&operator).await;
        operator.close().await;
        done
    })
}
