//! `run_iter` and `run_unordered`: results while the call goes on, as many tasks ahead as the window
//! allows. Dropping the iterator cancels the rest.

use std::time::{Duration, Instant};

use super::call::{Call, Common, Given};
use super::gather::{WINDOW_BYTES, total_of};
use super::inline::Inline;
use super::stream::{Outcomes, call_failed};
use super::{OnError, Options, Parallel};
use crate::delayed::Delayed;
use crate::error::{Reason, RunError, TaskError};
use crate::progress::Display;
use crate::session::inbox::Wanted;

/// Tasks ahead at first, for each slot and at least: enough that no executor waits for the next.
const TASKS_PER_SLOT: usize = 4;
const TASKS_MIN: usize = 64;

/// Tasks ahead at most: what is kept of each may be nothing but its place.
const TASKS_MAX: usize = 1 << 20;

/// A window that is worked off faster than this is too small: it doubles.
const LAP: Duration = Duration::from_millis(250);

/// An iterator over the outcomes of a call.
pub(super) struct Results<R, I> {
    engine: Engine<R>,
    calls: Option<I>,
    display: Option<Display>,
    /// Tasks that ended without a value, as far as they were taken.
    failed: u64,
    /// Failures that may still be handed out; the iterator ends with the last.
    failures_left: Option<u32>,
    over: bool,
}

enum Engine<R> {
    Inline(Box<Inline>),
    Cluster { outcomes: Box<Outcomes<R>>, window: Ahead },
    Failed(Option<Box<RunError>>),
}

impl<R, I: Iterator<Item = Delayed<R>>> Results<R, I> {
    pub(super) fn new<M: OnError>(parallel: &Parallel<M>, calls: I, ordered: bool) -> Self {
        let engine = match Engine::new(parallel, ordered) {
            Ok(engine) => engine,
            Err(error) => Engine::Failed(Some(Box::new(error))),
        };
        Self {
            engine,
            display: Display::of(&parallel.options, total_of(&calls)),
            calls: Some(calls),
            failed: 0,
            failures_left: parallel.mode.stop_after(),
            over: false,
        }
    }

    /// Shows how far the call is, at most at its end.
    fn show(&mut self) {
        match &self.engine {
            Engine::Failed(_) => {}
            Engine::Inline(inline) => {
                let done = inline.given as u64;
                if self.over
                    && let Some(display) = self.display.take()
                {
                    display.finish(done, self.failed);
                } else if let Some(display) = &mut self.display {
                    display.show(done, self.failed);
                }
            }
            Engine::Cluster { outcomes, .. } if self.over => {
                outcomes.call.show_end(self.display.take());
            }
            Engine::Cluster { outcomes, .. } => outcomes.call.show(&mut self.display),
        }
    }

    fn step(&mut self) -> Option<(usize, Result<R, TaskError>)> {
        match &mut self.engine {
            Engine::Failed(error) => error.take().map(|error| (0, Err(call_failed(0, *error)))),
            Engine::Inline(inline) => {
                let call = self.calls.as_mut()?.next()?;
                let index = inline.given;
                Some((
                    index,
                    match inline.run(call) {
                        Ok(ran) => ran.map_err(|(error, _)| error),
                        Err(reason) => {
                            self.over = true;
                            Err(call_failed(index, RunError::new(reason, Default::default())))
                        }
                    },
                ))
            }
            Engine::Cluster { outcomes, window } => loop {
                if let Some(outcome) = outcomes.next() {
                    return Some(outcome);
                }
                if let Err(reason) = window.fill(outcomes, &mut self.calls) {
                    self.over = true;
                    let run = RunError::new(reason, outcomes.call.finished([]));
                    return Some((outcomes.call.given, Err(call_failed(outcomes.call.given, run))));
                }
                if let Some(outcome) = outcomes.next() {
                    return Some(outcome);
                }
                if self.calls.is_none() && outcomes.is_done() {
                    return None;
                }
                window.starved = true;
                outcomes.make_room();
                let patience = self.display.as_ref().map(Display::patience);
                drop(outcomes.call.inbox.wait(Wanted::Outcome, patience));
                outcomes.call.show(&mut self.display);
            },
        }
    }
}

impl<R, I: Iterator<Item = Delayed<R>>> Iterator for Results<R, I> {
    type Item = (usize, Result<R, TaskError>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.step();
        match &next {
            Some((_, Ok(_))) => {}
            Some((_, Err(_))) => {
                self.failed += 1;
                if let Some(left) = &mut self.failures_left {
                    *left = left.saturating_sub(1);
                    self.over |= *left == 0;
                }
            }
            None => self.over = true,
        }
        if self.display.is_some() {
            self.show();
        }
        next
    }
}

impl<R> Engine<R> {
    fn new<M: OnError>(parallel: &Parallel<M>, ordered: bool) -> Result<Self, RunError> {
        let options = &parallel.options;
        parallel.check().map_err(|reason| RunError::new(reason, Default::default()))?;
        if options.inline() {
            let inline = Inline::new(parallel, false, Common::default());
            return Ok(Self::Inline(Box::new(inline)));
        }
        // The consumer sees every outcome and decides; the cluster goes on until the iterator ends.
        let call = Call::new(&parallel.collecting(), false, false, Common::default())?;
        let window = Ahead::new(options, call.slots());
        Ok(Self::Cluster { outcomes: Box::new(Outcomes::new(call, ordered)), window })
    }
}

/// How far the calls are consumed ahead of the outcomes that were taken.
struct Ahead {
    tasks: usize,
    fixed: bool,
    /// Since the last lap, the caller had to wait for an outcome.
    starved: bool,
    lap_begun: Option<Instant>,
    /// Tasks taken when the lap is over.
    lap_end: usize,
}

impl Ahead {
    fn new(options: &Options, slots: u32) -> Self {
        let first = (slots as usize * TASKS_PER_SLOT).max(TASKS_MIN);
        let tasks = options.pre_dispatch.unwrap_or(first);
        let fixed = options.pre_dispatch.is_some();
        Self { tasks, fixed, starved: false, lap_begun: None, lap_end: 0 }
    }

    /// Gives calls out as far as the window goes.
    fn fill<R, I: Iterator<Item = Delayed<R>>>(
        &mut self,
        outcomes: &mut Outcomes<R>,
        calls: &mut Option<I>,
    ) -> Result<(), Reason> {
        let Some(source) = calls else { return Ok(()) };
        if outcomes.call.inbox.mail().is_over() {
            *calls = None;
            outcomes.call.seal();
            return Ok(());
        }
        self.grow(outcomes.taken);
        let bytes = outcomes.bytes + {
            let mail = outcomes.call.inbox.mail();
            mail.arrived_bytes + mail.kept_bytes()
        };
        let mut full = bytes >= WINDOW_BYTES;
        let call = &mut outcomes.call;
        loop {
            let ahead = call.given - outcomes.taken;
            if ahead >= call.least_ahead() && (full || ahead >= self.tasks) {
                break;
            }
            let next = source.next();
            let over = match next {
                Some(next) => {
                    let last = call.given == 0 && source.size_hint().1 == Some(0);
                    call.give(next, last)? == Given::Stopped
                }
                None => true,
            };
            if over {
                *calls = None;
                call.seal();
                return Ok(());
            }
            full = call.has_told() && call.inbox.mail().kept_bytes() >= WINDOW_BYTES;
        }
        call.flush();
        Ok(())
    }

    /// A window that was worked off at once is doubled; a clock is read once in a lap.
    fn grow(&mut self, taken: usize) {
        if self.fixed || taken < self.lap_end {
            return;
        }
        let now = Instant::now();
        let fast = self.lap_begun.is_some_and(|begun| now - begun < LAP);
        if fast && self.starved {
            self.tasks = (2 * self.tasks).min(TASKS_MAX);
        }
        (self.lap_begun, self.starved, self.lap_end) = (Some(now), false, taken + self.tasks);
    }
}
