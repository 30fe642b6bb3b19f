//! What tasks say to people on its way to the worker: lines of a log, and how far each task is.
//!
//! A task never waits for it. Lines are put down and sent by a thread of their own every [`EVERY`], or before the
//! task's outcome where that comes first; what is more than may wait, or than may be said in a second, is counted.
//! Of what a task says of its progress the last is sent, at the same beat; once it has ended nobody wants it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use allhands_common::wire::executor::{Begun, FromExecutor};
use allhands_common::wire::note::{Line, NOTES_MAX, Said};

use super::lanes::Crew;

/// How often something is said of a task.
const EVERY: Duration = Duration::from_millis(100);

/// Lines that wait to be sent, at most 4 KiB each: one message.
const LINES_WAITING_MAX: usize = NOTES_MAX / 2;

/// Lines of this process in a second.
const LINES_PER_SECOND_MAX: u32 = 200;

/// Tasks of this process whose progress waits.
const PROGRESS_WAITING_MAX: usize = NOTES_MAX / 2 - 1;

/// What tasks of this process have said and was not sent.
#[derive(Default)]
pub(super) struct Notes {
    state: Mutex<State>,
    /// Held while it is sent: who ends waits for its lines, and for nothing else.
    sending: Mutex<()>,
    /// Whether anything waits, or is being sent.
    any: AtomicBool,
}

#[derive(Default)]
struct State {
    lines: Vec<(Begun, Line)>,
    progress: BTreeMap<Begun, (u64, u64)>,
    /// Lines that were left out, and the last task that this happened to.
    dropped: Option<(Begun, u32)>,
    /// The second that is counted, and the lines in it.
    second: Option<(Instant, u32)>,
    sender: Option<Thread>,
}

impl Notes {
    /// A task says a line.
    pub(super) fn line(&self, crew: &Arc<Crew>, task: Begun, line: Line) {
        let mut state = self.state();
        if state.lines.len() >= LINES_WAITING_MAX || !state.may_say() {
            let before = state.dropped.map_or(0, |(_, lines)| lines);
            state.dropped = Some((task, before.saturating_add(1)));
        } else {
            state.lines.push((task, line));
        }
        self.wake(crew, state);
    }

    /// A task says how far it is.
    pub(super) fn progress(&self, crew: &Arc<Crew>, task: Begun, done: u64, total: u64) {
        let mut state = self.state();
        if state.progress.len() < PROGRESS_WAITING_MAX || state.progress.contains_key(&task) {
            state.progress.insert(task, (done, total));
            self.wake(crew, state);
        }
    }

    /// A task ends: its lines go before its outcome.
    #[inline]
    pub(super) fn end(&self, crew: &Crew, task: Begun) {
        if self.any.load(Ordering::Relaxed) {
            self.flush_of(crew, task);
        }
    }

    #[cold]
    fn flush_of(&self, crew: &Crew, task: Begun) {
        let mut state = self.state();
        state.progress.remove(&task);
        let says_nothing = state.lines.is_empty() && state.dropped.is_none();
        drop(state);
        if says_nothing {
            // What it has said may be on its way.
            drop(self.sending());
        } else {
            self.flush(crew);
        }
    }

    fn flush(&self, crew: &Crew) {
        let sending = self.sending();
        let said = self.state().take();
        if !said.is_empty() {
            crew.outcomes.say(FromExecutor::Said(said));
        }
        let state = self.state();
        self.any.store(!state.is_empty(), Ordering::Relaxed);
        drop((state, sending));
    }

    /// Has what waits sent, at the next beat.
    fn wake(&self, crew: &Arc<Crew>, mut state: MutexGuard<'_, State>) {
        if self.any.swap(true, Ordering::Relaxed) && state.sender.is_some() {
            return;
        }
        match &state.sender {
            Some(sender) => sender.unpark(),
            None => match start(crew) {
                Ok(sender) => state.sender = Some(sender),
                // Lines go when their task ends.
                Err(error) => tracing::warn!(%error, "no thread can be made for what tasks say"),
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sending(&self) -> MutexGuard<'_, ()> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there may be another line in this second.
    fn may_say(&mut self) -> bool {
        let now = Instant::now();
        let (since, lines) = match self.second {
            Some((since, lines)) if since.elapsed() < Duration::from_secs(1) => (since, lines),
            Some(_) | None => (now, 0),
        };
        self.second = Some((since, lines + 1));
        lines < LINES_PER_SECOND_MAX
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.progress.is_empty() && self.dropped.is_none()
    }

    /// All that waits, in order.
    fn take(&mut self) -> Vec<(Begun, Said)> {
        let lines = std::mem::take(&mut self.lines).into_iter();
        let lines = lines.map(|(task, line)| (task, Said::Line(line)));
        let dropped = self.dropped.take().map(|(task, lines)| (task, Said::Dropped(lines)));
        let progress = std::mem::take(&mut self.progress).into_iter();
        let progress = progress.map(|(task, (done, total))| (task, Said::Progress { done, total }));
        lines.chain(dropped).chain(progress).collect()
    }
}

/// Starts the thread that sends.
#[expect(clippy::disallowed_methods, reason = "a beat is what is wanted; nothing is waited for")]
fn start(crew: &Arc<Crew>) -> io::Result<Thread> {
    let crew = Arc::clone(crew);
    let send = move || loop {
        while !crew.notes.any.load(Ordering::Relaxed) {
            std::thread::park();
        }
        std::thread::sleep(EVERY);
        crew.notes.flush(&crew);
    };
    let thread = std::thread::Builder::new().name("allhands-notes".into());
    Ok(thread.stack_size(256 << 10).spawn(send)?.thread().clone())
}

#[cfg(test)]
mod tests {
    use allhands_common::wire::note::Level;

    use super::*;

    const fn begun(place: u32) -> Begun {
        Begun { sequence: 0, place }
    }

    #[test]
    fn what_is_too_much_is_counted_and_of_progress_the_last_is_said() {
        let mut state = State::default();
        let allowed = (0..=LINES_PER_SECOND_MAX).filter(|_| state.may_say()).count();
        assert!(allowed >= LINES_PER_SECOND_MAX as usize, "{allowed}");
        assert!(!state.may_say() || state.second.unwrap().1 < LINES_PER_SECOND_MAX);
        state.lines.push((begun(1), Line::new(Level::Info, "a", &[])));
        state.progress.insert(begun(1), (1, 3));
        state.progress.insert(begun(1), (2, 3));
        state.dropped = Some((begun(2), 7));
        let said = state.take();
        let (line, dropped) = (Said::Line(Line::new(Level::Info, "a", &[])), Said::Dropped(7));
        let progress = Said::Progress { done: 2, total: 3 };
        assert_eq!(said, [(begun(1), line), (begun(2), dropped), (begun(1), progress)]);
        assert!(state.is_empty() && said.len() <= NOTES_MAX);
    }
}
