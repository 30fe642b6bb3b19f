//! `allhands job ID --logs`: what its tasks have said.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use allhands_common::id::JobId;
use allhands_common::wire::admin::SaidView;
use allhands_common::wire::note::Said;
use serde::Serialize;

use crate::output::printable;

/// The last lines of a job's tasks. Times are microseconds of the cluster's time.
#[derive(Debug, Serialize)]
pub(crate) struct LogsView {
    job: u64,
    now_us: u64,
    lines: Vec<LineView>,
    /// Lines that are not known any more, or that were left out.
    forgotten: u64,
}

#[derive(Debug, Serialize)]
struct LineView {
    at_us: u64,
    task: String,
    attempt: String,
    level: &'static str,
    text: String,
    fields: BTreeMap<String, String>,
}

impl LogsView {
    pub(crate) fn new(job: JobId, said: SaidView) -> Self {
        let lines = said.lines.into_iter().filter_map(|(at, note)| match note.said {
            Said::Line(line) => Some(LineView {
                at_us: at.0,
                task: note.task.to_string(),
                attempt: note.attempt.to_string(),
                level: line.level.name(),
                text: line.text,
                fields: line.fields.into_iter().collect(),
            }),
            // They are counted.
            Said::Progress { .. } | Said::Dropped(_) => None,
        });
        let (lines, forgotten) = (lines.collect(), said.forgotten);
        Self { job: job.0, now_us: said.now.0, lines, forgotten }
    }
}

impl Display for LogsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.forgotten > 0 {
            writeln!(f, "{} lines are not here", self.forgotten)?;
        }
        for LineView { at_us, task, level, text, fields, .. } in &self.lines {
            let seconds = *at_us as f64 / 1e6;
            write!(f, "{seconds:>12.3}  {level:<5}  {task}  {}", printable(text))?;
            fields.iter().try_for_each(|(name, value)| {
                write!(f, " {}={}", printable(name), printable(value))
            })?;
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use allhands_common::id::{AttemptId, BatchId, TaskId, Term};
    use allhands_common::wire::note::{Level, Line, Note};
    use allhands_common::wire::record::Moment;

    use super::*;

    #[test]
    fn a_line_is_a_line() {
        let task = TaskId { batch: BatchId([0xab; 16]), index: 3 };
        let attempt = AttemptId { term: Term(1), number: 2 };
        let said = Said::Line(Line::new(Level::Warn, "read\n\u{1b}[1m", &[("rows", &7)]));
        let lines = vec![(Moment(12_345_678), Note { task, attempt, said })];
        let said = SaidView { lines, forgotten: 4, ..SaidView::default() };
        let view = LogsView::new(JobId(1), said);
        let expected = format!(
            "4 lines are not here\n      12.346  warn   {task}  read\\n\\u{{1b}}[1m rows=7\n"
        );
        assert_eq!(view.to_string(), expected);
        assert_eq!(serde_json::to_value(&view).unwrap()["lines"][0]["fields"]["rows"], "7");
    }
}
