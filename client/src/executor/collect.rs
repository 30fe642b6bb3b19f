//! Outcomes on their way to the worker.
//!
//! They go out when no other load is at hand, when [`FLUSH_BYTES`] have come together, after each one
//! where a task must not run twice, when the oldest has waited for [`HOLD`] at the end of a load, and
//! else every [`FLUSH_EVERY`], by a thread that also works while a task runs for hours. That thread
//! sleeps unless a load of several tasks is under way or outcomes wait for the next load: a single task
//! never waits for it, nor pays for waking it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use allhands_common::execution::{Awaited, Mention, Need};
use allhands_common::id::TaskId;
use allhands_common::range::TaskRange;
use allhands_common::segment::{ARITY_MAX, Segment, SegmentBuilder};
use allhands_common::wire::executor::{Begun, FromExecutor, Outcomes, Part};
use bytes::Bytes;

use super::link::Writer;
use super::watch;

/// Outcome bytes that are sent at once: large enough that a frame's cost vanishes, a quarter of what
/// fits a control connection's window.
const FLUSH_BYTES: usize = 256 << 10;

/// How long the outcomes of a load that has ended wait for those of the next: what sending costs twice.
const HOLD: Duration = Duration::from_micros(100);

/// How long an outcome may wait for others.
const FLUSH_EVERY: Duration = Duration::from_millis(10);

/// How a task has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome<'a> {
    pub(super) tag: u16,
    pub(super) string: &'a [u8],
    /// What its value holds handles on, if it does.
    pub(super) names: &'a [u8],
}

impl Outcome<'_> {
    /// Adds it to a segment.
    #[inline]
    fn write(self, builder: &mut SegmentBuilder) {
        let strings = [self.string, self.names];
        let arity = 1 + usize::from(!self.names.is_empty());
        builder.push(self.tag, strings[..arity].iter().copied());
    }
}

/// Where all lanes put their outcomes.
pub(super) struct Collector {
    shared: Arc<Shared>,
    flusher: Thread,
}

struct Shared(Mutex<State>);

struct State {
    writer: Writer,
    /// Loads under way, in order; more than one only where there are several lanes.
    loads: Vec<Collected>,
    /// What of loads is to be sent.
    ended: Vec<Outcomes>,
    ended_bytes: usize,
    /// Since when the first of it waits.
    since: Option<Instant>,
    /// Whether the flushing thread is awake.
    flushing: bool,
}

/// Outcomes of one load.
struct Collected {
    sequence: u32,
    first: u32,
    builder: SegmentBuilder,
    /// Of the part that `builder` holds: first task and the one after the last, from the load's first.
    open: TaskRange,
    /// Which of its results name which tasks.
    mentions: Vec<Mention>,
    parts: Vec<Part>,
    bytes: usize,
    clock: Clock,
}

/// How the run time of a part is known.
enum Clock {
    /// One lane: it is the time since the part before it ended.
    Since(Instant),
    /// Several lanes: each says how long its task took, in microseconds.
    Sum(u64),
}

impl Collector {
    /// Starts the flushing thread.
    pub(super) fn start(writer: Writer) -> io::Result<Self> {
        let state = State {
            writer,
            loads: Vec::new(),
            ended: Vec::new(),
            ended_bytes: 0,
            since: None,
            flushing: false,
        };
        let shared = Arc::new(Shared(Mutex::new(state)));
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("allhands-flush".into())
            .stack_size(256 << 10)
            .spawn(move || flush_for_ever(&theirs))?;
        Ok(Self { shared, flusher: thread.thread().clone() })
    }

    /// Load `sequence`, whose first task is `first`, begins.
    pub(super) fn begin(&self, sequence: u32, range: TaskRange, several_lanes: bool) {
        let clock = if several_lanes { Clock::Sum(0) } else { Clock::Since(Instant::now()) };
        let mut state = self.shared.lock();
        state.loads.push(Collected {
            sequence,
            first: range.start,
            builder: SegmentBuilder::new(0),
            open: TaskRange::default(),
            mentions: Vec::new(),
            parts: Vec::new(),
            bytes: 0,
            clock,
        });
        if (range.len() > 1 || !state.ended.is_empty()) && !state.flushing {
            state.flushing = true;
            drop(state);
            self.flusher.unpark();
        }
    }

    /// Task `index` of load `sequence` ended with `outcome`, after `run_us` where several lanes run.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "who, where, what and how long of one outcome")]
    pub(super) fn push(
        &self,
        sequence: u32,
        index: u32,
        codec: u8,
        outcome: Outcome<'_>,
        named: Vec<TaskId>,
        run_us: u64,
        at_once: bool,
    ) {
        let mut state = self.shared.lock();
        let state = &mut *state;
        let Some(load) = state.loads.iter_mut().find(|load| load.sequence == sequence) else {
            return;
        };
        load.push(index, codec, outcome, run_us);
        if !named.is_empty() {
            load.name(index, &named);
        }
        if at_once || load.bytes + load.builder.bytes() >= FLUSH_BYTES {
            let part = load.take(false);
            state.put(part);
            state.send();
        }
    }

    /// Says something besides, now.
    pub(super) fn say(&self, message: FromExecutor) {
        self.shared.lock().say(message);
    }

    /// A task waits for the first time: says so, after what of its load has ended.
    pub(super) fn say_blocked(&self, task: Begun, on: Vec<Awaited>) {
        let mut state = self.shared.lock();
        let load = state.loads.iter_mut().find(|load| load.sequence == task.sequence);
        let mut run_us = None;
        if let Some(load) = load {
            run_us = load.first_us();
            let part = load.take(false);
            state.put(part);
        }
        state.say(FromExecutor::Blocked { task, on, run_us });
    }

    /// A task that has waited ended, as task `index` of its batch.
    pub(super) fn late(
        &self,
        task: Begun,
        index: u32,
        codec: u8,
        outcome: Outcome<'_>,
        named: Vec<TaskId>,
    ) {
        let mut builder = SegmentBuilder::new(codec);
        outcome.write(&mut builder);
        let mentions = mentions(index, &named).collect();
        let range = TaskRange::new(index, index + 1);
        // How long it ran is not known from how long it took.
        let part = Part { range, segment: builder.finish().into(), run_us: 0, mentions };
        self.say(FromExecutor::Late { task, part });
    }

    /// Nothing of load `sequence` is left to run: its last outcomes go out with that word. They may
    /// wait for those of the next load where the caller will `send` before it waits.
    pub(super) fn finish(&self, sequence: u32, may_wait: bool) {
        let mut state = self.shared.lock();
        let Some(at) = state.loads.iter().position(|load| load.sequence == sequence) else {
            return;
        };
        let last = state.loads.remove(at).take(true);
        state.put(last);
        let long = state.since.is_some_and(|since| since.elapsed() >= HOLD);
        if !may_wait || long || state.ended_bytes >= FLUSH_BYTES {
            state.send();
        }
    }

    /// Sends what has ended.
    pub(super) fn send(&self) {
        self.shared.lock().send();
    }
}

impl State {
    fn put(&mut self, outcomes: Outcomes) {
        if outcomes.parts.is_empty() && !outcomes.finished {
            return;
        }
        self.ended_bytes +=
            outcomes.parts.iter().map(|part| part.segment.bytes.len()).sum::<usize>();
        self.ended.push(outcomes);
        self.since.get_or_insert_with(Instant::now);
    }

    fn send(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        (self.ended_bytes, self.since) = (0, None);
        let ended = std::mem::take(&mut self.ended);
        self.write(FromExecutor::Outcomes(ended));
    }

    /// Says something after all that has ended.
    fn say(&mut self, message: FromExecutor) {
        self.send();
        self.write(message);
    }

    /// A worker that cannot be written to is gone, and with it this process.
    fn write(&mut self, mut message: FromExecutor) {
        if self.writer.write(&mut message).is_err() {
            watch::end_group();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collected {
    #[inline]
    fn push(&mut self, index: u32, codec: u8, outcome: Outcome<'_>, run_us: u64) {
        if self.open.end != index || self.builder.codec() != codec {
            self.close();
            self.builder = SegmentBuilder::new(codec);
            self.open = TaskRange::new(index, index);
        }
        self.open.end += 1;
        outcome.write(&mut self.builder);
        if let Clock::Sum(sum) = &mut self.clock {
            *sum += run_us;
        }
    }

    /// The result of task `index`, which was pushed last, names these tasks.
    #[cold]
    fn name(&mut self, index: u32, named: &[TaskId]) {
        self.mentions.extend(mentions(self.first + index, named));
    }

    /// How long the task that runs has run, where that is known: nothing has ended since it began.
    fn first_us(&self) -> Option<u64> {
        match self.clock {
            Clock::Since(before) if self.open.is_empty() => {
                Some(before.elapsed().as_micros() as u64)
            }
            Clock::Since(_) | Clock::Sum(_) => None,
        }
    }

    /// Ends the open part, if there is one.
    fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let segment = self.builder.finish();
        self.bytes += segment.len();
        let run_us = match &mut self.clock {
            Clock::Since(before) => {
                let now = Instant::now();
                (now - std::mem::replace(before, now)).as_micros() as u64
            }
            Clock::Sum(sum) => std::mem::take(sum),
        };
        let range = TaskRange::new(self.first + self.open.start, self.first + self.open.end);
        let mentions = std::mem::take(&mut self.mentions);
        self.parts.push(Part { range, segment: segment.into(), run_us, mentions });
        self.open.start = self.open.end;
    }

    /// What there is to be sent.
    fn take(&mut self, finished: bool) -> Outcomes {
        self.close();
        self.bytes = 0;
        let parts = contiguous(std::mem::take(&mut self.parts));
        Outcomes { sequence: self.sequence, parts, finished }
    }
}

/// What the result of task `index` of a batch names.
fn mentions(index: u32, named: &[TaskId]) -> impl Iterator<Item = Mention> + '_ {
    named.iter().map(move |on| Mention { index, on: *on, need: Need::Handle })
}

/// In order, with neighbours as one segment.
fn contiguous(mut parts: Vec<Part>) -> Vec<Part> {
    if parts.len() < 2 {
        return parts;
    }
    parts.sort_by_key(|part| part.range);
    parts.chunk_by(|a, b| a.range.end == b.range.start).flat_map(join).collect()
}

fn join(neighbours: &[Part]) -> Vec<Part> {
    let [first, .., last] = neighbours else {
        return neighbours.to_vec();
    };
    joined(neighbours).map_or_else(
        || neighbours.to_vec(),
        |segment| {
            let range = TaskRange::new(first.range.start, last.range.end);
            let run_us = neighbours.iter().map(|part| part.run_us).sum();
            let mentions = neighbours.iter().flat_map(|part| &part.mentions).copied().collect();
            vec![Part { range, segment: segment.into(), run_us, mentions }]
        },
    )
}

/// The segment of several, if they are of one codec.
fn joined(neighbours: &[Part]) -> Option<Bytes> {
    let segments: Vec<Segment> = neighbours
        .iter()
        .map(|part| Segment::parse(part.segment.bytes.clone()).ok())
        .collect::<Option<_>>()?;
    let codec = segments.first()?.codec();
    let mut builder = SegmentBuilder::new(codec);
    for segment in &segments {
        if segment.codec() != codec {
            return None;
        }
        for index in 0..segment.tasks() {
            let mut strings = [&[][..]; ARITY_MAX];
            let (tag, arity) = segment.row(index, &mut strings)?;
            builder.push(tag, strings[..arity].iter().copied());
        }
    }
    Some(builder.finish())
}

#[expect(clippy::disallowed_methods, reason = "a beat is what is wanted; nothing is waited for")]
fn flush_for_ever(shared: &Shared) {
    loop {
        while !shared.lock().flushing {
            std::thread::park();
        }
        loop {
            std::thread::sleep(FLUSH_EVERY);
            let mut state = shared.lock();
            let state = &mut *state;
            if state.loads.is_empty() && state.ended.is_empty() {
                state.flushing = false;
                break;
            }
            let parts: Vec<Outcomes> =
                state.loads.iter_mut().map(|load| load.take(false)).collect();
            parts.into_iter().for_each(|part| state.put(part));
            state.send();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_one_with_what_they_name() {
        let part = |start: u32, strings: &[&'static [u8]]| {
            let mut builder = SegmentBuilder::new(1);
            builder.push(0, strings.iter().copied());
            let range = TaskRange::new(start, start + 1);
            let mentions = Vec::new();
            Part { range, segment: builder.finish().into(), run_us: 1, mentions }
        };
        let parts =
            contiguous(vec![part(4, &[b"d", b"names"]), part(2, &[b"b"]), part(3, &[b"c"])]);
        let [Part { range, segment, run_us, .. }] = &parts[..] else { panic!("{parts:?}") };
        assert_eq!((*range, *run_us), (TaskRange::new(2, 5), 3));
        let segment = Segment::parse(segment.bytes.clone()).unwrap();
        let all: Vec<_> = (0..3).map(|row| (segment.value(row), segment.names(row))).collect();
        let value = |string: &'static [u8]| Some((0, string));
        assert_eq!(
            all,
            [(value(b"b"), None), (value(b"c"), None), (value(b"d"), Some(&b"names"[..]))]
        );
    }
}
