//! `allhands job ID --timeline`: a row for each attempt, with a bar of what it did when.

use std::fmt::{self, Display};

use serde::{Serialize, Serializer};

use super::record::{Record, Row, State};

/// Columns of a bar at the least, be the terminal as narrow as it is.
const BAR_COLUMNS_MIN: usize = 20;

/// What is shown of a function's name.
const FUNCTION_COLUMNS_MAX: usize = 28;

/// Digits of a batch's id that are shown.
const BATCH_DIGITS: usize = 8;

const WAITS: char = '·';
const QUEUED: char = '░';
const RUNS: char = '█';
const BLOCKED: char = '▒';

/// A record, to be drawn.
#[derive(Debug)]
pub(crate) struct Timeline<'a> {
    record: &'a Record,
    columns: usize,
    rows: usize,
}

impl<'a> Timeline<'a> {
    /// The last `rows` rows, in lines of at most so many `columns` where there is room for a bar.
    pub(crate) const fn new(record: &'a Record, columns: usize, rows: usize) -> Self {
        Self { record, columns, rows }
    }
}

impl Serialize for Timeline<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.record.serialize(serializer)
    }
}

impl Display for Timeline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Record { job, now_us, forgotten, attempts, more_waiting, .. } = self.record;
        writeln!(
            f,
            "job {job}  {WAITS} waits for others  {QUEUED} queued  {RUNS} runs  {BLOCKED} blocked"
        )?;
        if self.record.rows().next().is_none() {
            return writeln!(f, "nothing is recorded of it");
        }
        let all: Vec<&Row> = self.record.rows().collect();
        let hidden = all.len().saturating_sub(self.rows);
        let shown = &all[hidden..];
        let start = shown.iter().map(|row| row.submitted_us).min().unwrap_or(*now_us);
        let end = shown.iter().map(|row| row.last_us(*now_us)).max().unwrap_or(*now_us);
        let cells: Vec<[String; 4]> = shown.iter().map(|row| row.cells()).collect();
        let widths: [usize; 4] = std::array::from_fn(|column| {
            cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)
        });
        let label = widths.iter().sum::<usize>() + 2 * widths.len();
        let bar = self.columns.saturating_sub(label).max(BAR_COLUMNS_MIN);
        let scale = Scale { start, end: end.max(start + 1), columns: bar };
        let span = format!("{} ms", (end - start) as f64 / 1000.0);
        writeln!(f, "{:label$}0{span:>1$}", "", bar.saturating_sub(1))?;
        for (row, cells) in shown.iter().zip(&cells) {
            for (cell, width) in cells.iter().zip(widths) {
                write!(f, "{cell:<width$}  ")?;
            }
            writeln!(f, "{}", scale.bar(row, *now_us).trim_end())?;
        }
        let earlier = *forgotten + hidden as u64;
        if earlier > 0 {
            writeln!(f, "and {earlier} earlier; {} are recorded", attempts.len())?;
        }
        if *more_waiting > 0 {
            writeln!(f, "and {more_waiting} more that wait")?;
        }
        Ok(())
    }
}

impl Row {
    /// When the last thing of it happened.
    fn last_us(&self, now_us: u64) -> u64 {
        self.finished_us.unwrap_or(now_us)
    }

    /// Task, function, worker, state.
    fn cells(&self) -> [String; 4] {
        let batch: String = self.batch.chars().take(BATCH_DIGITS).collect();
        let (task, many) = match self.tasks() {
            1 => (format!("{batch}:{}", self.start), String::new()),
            tasks => (format!("{batch}:{}..{}", self.start, self.end), format!(" ×{tasks}")),
        };
        let mut function: String = self.function.chars().take(FUNCTION_COLUMNS_MAX).collect();
        function.push_str(&many);
        let state = match (self.state, self.tasks()) {
            (State::Failed, tasks) if tasks > 1 => format!("{} failed", self.failed),
            (state, _) => state.text().to_owned(),
        };
        [task, function, self.worker.clone().unwrap_or_else(|| "-".into()), state]
    }
}

/// Where a moment is in a bar.
struct Scale {
    start: u64,
    end: u64,
    columns: usize,
}

impl Scale {
    /// The column of a moment: the one that it is in, or the one behind it where `up`.
    fn column(&self, at: u64, up: bool) -> usize {
        let (past, whole) =
            (u128::from(at.saturating_sub(self.start)), u128::from(self.end - self.start));
        let scaled = past * self.columns as u128;
        let column = if up { scaled.div_ceil(whole) } else { scaled / whole };
        usize::try_from(column).unwrap_or(self.columns).min(self.columns)
    }

    /// What a row did, one sign a column. What ran at all is seen.
    fn bar(&self, row: &Row, now_us: u64) -> String {
        let mut bar = vec![' '; self.columns];
        let mut fill = |from: usize, to: usize, sign| {
            let to = to.min(self.columns);
            bar[from.min(to)..to].fill(sign);
        };
        let last = row.last_us(now_us);
        let ready = match row.state {
            State::Waiting | State::DependencyFailed => last,
            _ => row.ready_us.unwrap_or(row.submitted_us),
        };
        let ran = matches!(row.state, State::Done | State::Failed | State::Killed);
        let began = row.started_us.or_else(|| row.assigned_us.filter(|_| ran));
        fill(self.column(row.submitted_us, false), self.column(ready, true), WAITS);
        fill(self.column(ready, false), self.column(began.unwrap_or(last), true), QUEUED);
        let began = began.or_else(|| row.blocked.first().map(|first| first.since_us));
        if let Some(began) = began {
            let from = self.column(began, false).min(self.columns - 1);
            fill(from, self.column(last, true).max(from + 1), RUNS);
            for pause in &row.blocked {
                let until = pause.until_us.unwrap_or(last);
                fill(self.column(pause.since_us, true), self.column(until, false), BLOCKED);
            }
        }
        bar.into_iter().collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use allhands_common::execution::{Mention, Need};
    use allhands_common::id::{AttemptId, BatchId, JobId, TaskId, Term, WorkerId};
    use allhands_common::range::TaskRange;
    use allhands_common::wire::record::{End, Moment, Page, Pause, Recorded, Stretch};

    use super::*;

    pub(in crate::query) const PARENT: TaskId = TaskId { batch: BatchId([0xaa; 16]), index: 0 };

    fn stretch(batch: u8, range: TaskRange, submitted: u64) -> Stretch {
        Stretch {
            batch: BatchId([batch; 16]),
            range,
            attempt: None,
            submitted: Moment(submitted),
            ready: None,
            assigned: None,
            started: None,
            pauses: Vec::new(),
            finished: None,
            end: None,
            committed: None,
            failed: 0,
            run_us: 0,
            edges: Vec::new(),
            more_edges: 0,
        }
    }

    /// A parent that waited for a task which it has called, a range of which some failed, and one that waits for it.
    pub(in crate::query) fn record() -> Record {
        let one = TaskRange::new(0, 1);
        let by = |number| Some((AttemptId { term: Term(1), number }, WorkerId(7)));
        let on = TaskId { batch: BatchId([0xbb; 16]), index: 4 };
        let parent = Stretch {
            attempt: by(0),
            assigned: Some(Moment(1000)),
            started: Some(Moment(2000)),
            pauses: vec![Pause {
                on: vec![TaskId { batch: BatchId([0xcc; 16]), index: 0 }],
                more: 0,
                since: Moment(4000),
                until: Some(Moment(8000)),
            }],
            finished: Some(Moment(10_000)),
            end: Some(End::Ran),
            ..stretch(0xaa, one, 1000)
        };
        let range = Stretch {
            attempt: by(1),
            assigned: Some(Moment(3000)),
            started: Some(Moment(5000)),
            finished: Some(Moment(6000)),
            end: Some(End::Ran),
            failed: 2,
            ..stretch(0xbb, TaskRange::new(0, 8), 1000)
        };
        let named = Mention { index: 0, on, need: Need::Value };
        let waits = Stretch { edges: vec![named], ..stretch(0xcc, one, 4000) };
        let recorded = |batch, function: &str, parent| Recorded {
            batch: BatchId([batch; 16]),
            function: function.into(),
            parent,
        };
        Record::new(Page {
            job: JobId(3),
            now: Moment(11_000),
            stretches: vec![parent, range],
            waiting: vec![waits],
            more_waiting: 0,
            batches: vec![
                recorded(0xaa, "survey", None),
                recorded(0xbb, "load \"all\"", None),
                recorded(0xcc, "mean", Some(PARENT)),
            ],
            workers: vec![(WorkerId(7), "host".into())],
            forgotten: 5,
            next: None,
        })
    }

    #[test]
    fn bars_show_what_was_when() {
        let text = Timeline::new(&record(), 0, 10).to_string();
        let bars: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            bars,
            [
                "aaaaaaaa:0     survey         host  done      ░░████▒▒▒▒▒▒▒▒████",
                "bbbbbbbb:0..8  load \"all\" ×8  host  2 failed  ░░░░░░░░██",
                "cccccccc:0     mean           -     waiting         ··············",
                "and 5 earlier; 2 are recorded",
            ]
        );
        assert!(text.contains(" 10 ms\n"), "{text}");
    }

    #[test]
    fn lines_fit_and_rows_are_the_last_ones() {
        let text = Timeline::new(&record(), 90, 2).to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 90), "{text}");
        assert!(!text.contains("survey") && text.contains("and 6 earlier"), "{text}");
        let long = text.lines().find(|line| line.contains("mean")).unwrap();
        assert_eq!(long.chars().count(), 90, "the bar takes what there is");
    }

    #[test]
    fn json_has_all_of_it() {
        let json = serde_json::to_value(Timeline::new(&record(), 80, 1)).unwrap();
        let first = &json["attempts"][0];
        assert_eq!((&first["state"], &first["worker"]), (&"done".into(), &"host".into()));
        assert_eq!(first["blocked"][0]["since_us"], 4000);
        let waits = &json["waiting"][0];
        assert_eq!(
            (&waits["parent"], &waits["state"]),
            (&PARENT.to_string().into(), &"waiting".into())
        );
        assert_eq!(waits["dependencies"][0]["on"], format!("{}:4", "bb".repeat(16)));
    }
}
