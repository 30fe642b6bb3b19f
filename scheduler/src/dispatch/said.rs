//! What tasks say to people: the last lines of each job, how far its tasks are, and who is told at once.
//!
//! Nothing of it is replicated, and nothing waits for it: a client that hears more than it should gets a count
//! instead, and a new leader begins with nothing.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use allhands_common::id::{BatchId, JobId, SessionId, TaskId, WorkerId};
use allhands_common::range::TaskRange;
use allhands_common::time::Instant;
use allhands_common::wire::admin::{PROGRESS_SHOWN_MAX, SaidView};
use allhands_common::wire::client::ToClient;
use allhands_common::wire::note::{Note, Said as Word};
use allhands_common::wire::record::Moment;

use super::Dispatcher;
use crate::{Action, State};

/// Lines of a job, ...
const LINES_MAX: usize = 1024;

/// ... and their bytes: a quarter of what a reply may have.
const LINES_BYTES_MAX: usize = 256 << 10;

/// Tasks of a job whose progress is known.
const PROGRESS_MAX: usize = 4096;

/// Jobs of which anything is known: the oldest is forgotten beyond it.
const JOBS_MAX: usize = 64;

/// Bytes that a client is told in a second; what is beyond waits for nobody. One that does not read is let go
/// after its lease, and this much a second is what it may cost until then.
const HEARD_BYTES_PER_SECOND_MAX: usize = 256 << 10;

/// What a note has besides its line.
const NOTE_BYTES: usize = 48;

/// What tasks have said, by job.
#[derive(Debug, Default)]
pub(super) struct Said {
    jobs: BTreeMap<JobId, OfJob>,
}

#[derive(Debug, Default)]
struct OfJob {
    lines: VecDeque<(Moment, Note)>,
    bytes: usize,
    forgotten: u64,
    progress: BTreeMap<TaskId, (u64, u64)>,
}

/// What a client is told of what its tasks say.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// In the second that began then, ...
    since: Instant,
    /// ... so many bytes.
    bytes: usize,
    /// How many lines it was not told, and whose the last was.
    dropped: Option<Note>,
}

impl Hearing {
    /// Whether a note may be told now.
    fn may_hear(&mut self, now: Instant, bytes: usize) -> bool {
        if now.since(self.since).as_secs() >= 1 {
            (self.since, self.bytes) = (now, 0);
        }
        self.bytes += bytes;
        self.bytes <= HEARD_BYTES_PER_SECOND_MAX
    }
}

impl Said {
    fn note(&mut self, now: Moment, job: JobId, note: &Note) {
        if !self.jobs.contains_key(&job) && self.jobs.len() >= JOBS_MAX {
            self.jobs.pop_first();
        }
        let known = self.jobs.entry(job).or_default();
        match &note.said {
            Word::Progress { done, total } => {
                if known.progress.len() < PROGRESS_MAX || known.progress.contains_key(&note.task) {
                    known.progress.insert(note.task, (*done, *total));
                }
            }
            Word::Dropped(lines) => known.forgotten += u64::from(*lines),
            Word::Line(_) => {
                known.bytes += bytes_of(note);
                known.lines.push_back((now, note.clone()));
            }
        }
        while known.lines.len() > LINES_MAX || known.bytes > LINES_BYTES_MAX {
            let Some((_, gone)) = known.lines.pop_front() else { return };
            known.bytes -= bytes_of(&gone);
            known.forgotten += 1;
        }
    }

    /// Tasks are not with their attempt any more: how far they were is nothing to know.
    pub(super) fn ended(&mut self, job: JobId, batch: BatchId, range: TaskRange) {
        let known = self.jobs.get_mut(&job).filter(|known| !known.progress.is_empty());
        let Some(known) = known else { return };
        let at = |index| TaskId { batch, index };
        let gone = known.progress.range(at(range.start)..at(range.end));
        let gone: Vec<TaskId> = gone.map(|(task, _)| *task).collect();
        gone.iter().for_each(|task| _ = known.progress.remove(task));
    }
}

impl Dispatcher {
    /// Tasks of a worker say something. Only of its own are they believed.
    pub(super) fn hear_notes(
        &mut self,
        now: Instant,
        state: &State,
        worker: WorkerId,
        notes: Vec<Note>,
        out: &mut Vec<Action>,
    ) {
        let mut told: BTreeMap<SessionId, Vec<Note>> = BTreeMap::new();
        for note in notes {
            let attempt = self.attempts.get(&note.attempt).filter(|attempt| {
                let theirs = attempt.worker == worker && attempt.batch == note.task.batch;
                theirs && attempt.open.contains(note.task.index)
            });
            let Some(job) = attempt.map(|attempt| attempt.job) else { continue };
            self.said.note(self.records.now, job, &note);
            let Some(session) = state.jobs.get(&job).map(|job| job.session) else { continue };
            let Some(client) = self.clients.get_mut(&session) else { continue };
            let hearing = &mut client.hearing;
            // That something is missing is short, and should not be missing as well.
            let counts = matches!(note.said, Word::Dropped(_));
            if !hearing.may_hear(now, bytes_of(&note)) && !counts {
                let before = hearing.dropped.as_ref().map_or(0, lines_of);
                let lines = before.saturating_add(lines_of(&note));
                hearing.dropped =
                    (lines > 0).then_some(Note { said: Word::Dropped(lines), ..note });
                continue;
            }
            let notes = told.entry(session).or_default();
            notes.extend(hearing.dropped.take());
            notes.push(note);
        }
        for (session, notes) in told {
            self.tell(session, ToClient::Said(notes), out);
        }
    }

    /// What the tasks of a job say. `None`: there is no such job, and nothing is known of it (any more).
    pub fn said(&self, now: Instant, state: &State, job: JobId) -> Option<SaidView> {
        let now = self.moment(now);
        let Some(known) = self.said.jobs.get(&job) else {
            let there = state.jobs.contains_key(&job);
            return there.then(|| SaidView { now, ..SaidView::default() });
        };
        let progress = known.progress.iter().take(PROGRESS_SHOWN_MAX);
        Some(SaidView {
            now,
            lines: known.lines.iter().cloned().collect(),
            forgotten: known.forgotten,
            progress: progress.map(|(task, (done, total))| (*task, *done, *total)).collect(),
        })
    }
}

/// How many lines are lost with a note.
const fn lines_of(note: &Note) -> u32 {
    match note.said {
        Word::Progress { .. } => 0,
        Word::Line(_) => 1,
        Word::Dropped(lines) => lines,
    }
}

/// What a note has, about.
fn bytes_of(note: &Note) -> usize {
    let line = match &note.said {
        Word::Line(line) => line.bytes(),
        Word::Progress { .. } | Word::Dropped(_) => 0,
    };
    NOTE_BYTES + line
}
