//! Columnar segments: the bytes of a task range, arguments or outcomes.
//!
//! A segment is a row of *runs*. All tasks of a run have the same tag (which function; or how the
//! task ended) and the same number of byte strings (one per argument; or the one value). Where all
//! tasks of a run have strings of the same lengths, the lengths stand once; else each string's end
//! is a column of four bytes. So a million `fn(u64) -> u64` calls cost eight bytes each and a header.
//! Where all tasks of a run have the very same strings (the error of a million tasks that waited too
//! long), these stand once.
//!
//! ```text
//! segment   version u8 = 1 | codec u8 | zero u16 | tasks u32 | runs u32 | run...
//! run       tag u16 | arity u8 | layout u8 | tasks u32 | payload bytes u32
//!           layout = 0: tasks x arity x u32 ends;  layout = 1, 2: arity x u32 lengths
//!           payload: the strings, task by task;  layout = 2: those of one task, which are all tasks'
//! ```
//! Integers are little-endian. The codec byte says how user values in the strings are encoded; the
//! cluster does not look at it.

mod tag;

use alloc::vec::Vec;

use bytes::Bytes;

pub use self::tag::{
    AGAIN, DONE, ERROR, ERROR_FOR_GOOD, FAILED, FAILED_FOR_GOOD, FORWARDED, SAME, STORED,
    argument_tag, is_value, split_argument_tag,
};
use crate::range::TaskRange;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 12;
const RUN_HEADER_BYTES: usize = 12;
/// Most strings of one task.
pub const ARITY_MAX: usize = 8;

/// How the strings of a run lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Layout {
    /// Each string's end is in a column.
    Ends = 0,
    /// The strings of all tasks have the same lengths.
    Fixed = 1,
    /// The strings of all tasks are the same.
    Repeated = 2,
}

impl Layout {
    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Ends),
            1 => Some(Self::Fixed),
            2 => Some(Self::Repeated),
            _ => None,
        }
    }
}

/// Bytes that are not a segment. They were damaged, or come from another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The bytes end before the segment does.
    #[error("a segment of {bytes} bytes ends inside its {part}")]
    Truncated {
        /// Bytes there are.
        bytes: usize,
        /// What should have come.
        part: &'static str,
    },
    /// Bytes follow the segment's end.
    #[error("{0} bytes follow the end of a segment")]
    Trailing(usize),
    /// Another version's segment.
    #[error("a segment of version {0}; this is version 1")]
    Version(u8),
    /// Fields that contradict each other.
    #[error("a segment's {0} is wrong")]
    Field(&'static str),
}

/// Collects tasks into a segment, in order.
#[derive(Debug, Clone)]
pub struct SegmentBuilder {
    codec: u8,
    tasks: u32,
    runs: u32,
    /// Finished runs.
    done: Vec<u8>,
    open: Run,
}

/// The run that is being written.
#[derive(Debug, Clone, Default)]
struct Run {
    tag: u16,
    arity: u8,
    tasks: u32,
    /// Lengths that all tasks so far share, or nothing once two differed.
    lengths: Option<[u32; ARITY_MAX]>,
    /// Ends of the strings, once lengths differ.
    ends: Vec<u32>,
    payload: Vec<u8>,
}

impl SegmentBuilder {
    /// An empty segment whose user values are in `codec`.
    pub fn new(codec: u8) -> Self {
        Self { codec, tasks: 0, runs: 0, done: Vec::new(), open: Run::default() }
    }

    /// Tasks so far.
    pub const fn tasks(&self) -> u32 {
        self.tasks
    }

    /// The codec that was given.
    pub const fn codec(&self) -> u8 {
        self.codec
    }

    /// Bytes so far, about.
    pub fn bytes(&self) -> usize {
        self.done.len() + self.open.payload.len() + 4 * self.open.ends.len()
    }

    /// Appends a task whose strings are `strings`; at most [`ARITY_MAX`].
    pub fn push<'a>(&mut self, tag: u16, strings: impl ExactSizeIterator<Item = &'a [u8]>) {
        let arity = strings.len();
        let start = self.begin(tag, arity);
        let mut lengths = [0; ARITY_MAX];
        for (length, string) in lengths.iter_mut().zip(strings) {
            self.open.payload.extend_from_slice(string);
            *length = short(string.len());
        }
        self.finish_task(arity, &lengths, start);
    }

    /// Appends a task of one string, which `write` appends to the bytes it is given.
    pub fn push_with<T>(&mut self, tag: u16, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let start = self.begin(tag, 1);
        let answer = write(&mut self.open.payload);
        let mut lengths = [0; ARITY_MAX];
        lengths[0] = short(self.open.payload.len() - start);
        self.finish_task(1, &lengths, start);
        answer
    }

    /// The segment; the builder is empty afterwards.
    pub fn finish(&mut self) -> Bytes {
        self.close_run();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.done.len());
        bytes.extend_from_slice(&[VERSION, self.codec, 0, 0]);
        bytes.extend_from_slice(&self.tasks.to_le_bytes());
        bytes.extend_from_slice(&self.runs.to_le_bytes());
        bytes.append(&mut self.done);
        (self.tasks, self.runs) = (0, 0);
        bytes.into()
    }

    /// A segment of `tasks` tasks that all have this one string, which stands in it once.
    pub fn repeated(codec: u8, tag: u16, string: &[u8], tasks: u32) -> Bytes {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + RUN_HEADER_BYTES + 4 + string.len());
        bytes.extend_from_slice(&[VERSION, codec, 0, 0]);
        bytes.extend_from_slice(&tasks.to_le_bytes());
        bytes.extend_from_slice(&u32::from(tasks > 0).to_le_bytes());
        if tasks > 0 {
            write_run_header(&mut bytes, tag, 1, Layout::Repeated, tasks, string.len());
            bytes.extend_from_slice(&short(string.len()).to_le_bytes());
            bytes.extend_from_slice(string);
        }
        bytes.into()
    }

    #[inline]
    fn begin(&mut self, tag: u16, arity: usize) -> usize {
        debug_assert!(arity <= ARITY_MAX);
        let run = &self.open;
        if run.tasks > 0 && (run.tag != tag || usize::from(run.arity) != arity) {
            self.close_run();
        }
        if self.open.tasks == 0 {
            self.open.tag = tag;
            self.open.arity = arity as u8;
        }
        self.open.payload.len()
    }

    #[inline]
    fn finish_task(&mut self, arity: usize, lengths: &[u32; ARITY_MAX], start: usize) {
        self.tasks += 1;
        let run = &mut self.open;
        run.tasks += 1;
        if run.tasks == 1 {
            run.lengths = Some(*lengths);
            return;
        }
        if run.lengths.as_ref() == Some(lengths) {
            return;
        }
        if let Some(shared) = run.lengths.take() {
            let mut end = 0;
            for _ in 1..run.tasks {
                for length in &shared[..arity] {
                    end += length;
                    run.ends.push(end);
                }
            }
        }
        let mut end = short(start);
        for length in &lengths[..arity] {
            end += length;
            run.ends.push(end);
        }
    }

    fn close_run(&mut self) {
        let run = &mut self.open;
        if run.tasks == 0 {
            return;
        }
        let layout = if run.lengths.is_some() { Layout::Fixed } else { Layout::Ends };
        let (tag, arity) = (run.tag, run.arity);
        write_run_header(&mut self.done, tag, arity, layout, run.tasks, run.payload.len());
        let column: &[u32] = match &run.lengths {
            Some(lengths) => &lengths[..usize::from(run.arity)],
            None => &run.ends,
        };
        column.iter().for_each(|number| self.done.extend_from_slice(&number.to_le_bytes()));
        self.done.append(&mut run.payload);
        self.runs += 1;
        run.ends.clear();
        run.tasks = 0;
        run.lengths = None;
    }
}

fn short(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn write_run_header(
    out: &mut Vec<u8>,
    tag: u16,
    arity: u8,
    layout: Layout,
    tasks: u32,
    payload: usize,
) {
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&[arity, layout as u8]);
    out.extend_from_slice(&tasks.to_le_bytes());
    out.extend_from_slice(&short(payload).to_le_bytes());
}

/// A parsed segment. Parsing costs a step a run, not a task; a string's bounds are checked when it is
/// asked for.
#[derive(Debug, Clone)]
pub struct Segment {
    bytes: Bytes,
    codec: u8,
    tasks: u32,
    runs: Vec<RunAt>,
}

/// Where a run lies.
#[derive(Debug, Clone, Copy)]
struct RunAt {
    tag: u16,
    arity: usize,
    layout: Layout,
    tasks: TaskRange,
    column: usize,
    payload: usize,
    end: usize,
}

impl Segment {
    /// Reads the headers of `bytes`.
    ///
    /// # Errors
    /// When they are not a segment, whole.
    pub fn parse(bytes: Bytes) -> Result<Self, SegmentError> {
        let truncated = |part| SegmentError::Truncated { bytes: bytes.len(), part };
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| truncated("header"))?;
        if header[0] != VERSION {
            return Err(SegmentError::Version(header[0]));
        }
        let (codec, tasks, count) = (header[1], u32_at(header, 4), u32_at(header, 8));
        if count > tasks {
            return Err(SegmentError::Field("number of runs"));
        }
        let mut runs = Vec::with_capacity((count as usize).min(bytes.len() / RUN_HEADER_BYTES));
        let (mut at, mut first) = (HEADER_BYTES, 0u32);
        for _ in 0..count {
            let header =
                bytes.get(at..at + RUN_HEADER_BYTES).ok_or_else(|| truncated("run header"))?;
            let (arity, length) = (usize::from(header[2]), u32_at(header, 4));
            let wrong = SegmentError::Field("run header");
            let layout = Layout::from_byte(header[3]).ok_or(wrong)?;
            if arity > ARITY_MAX || length == 0 {
                return Err(wrong);
            }
            let rows = if layout == Layout::Ends { length as usize } else { 1 };
            let column = at + RUN_HEADER_BYTES;
            let payload = column + 4 * arity * rows;
            let end = payload + u32_at(header, 8) as usize;
            let last = first.checked_add(length).ok_or(SegmentError::Field("task count"))?;
            if end > bytes.len() {
                return Err(truncated("payload"));
            }
            let run = RunAt {
                tag: u16::from_le_bytes([header[0], header[1]]),
                arity,
                layout,
                tasks: TaskRange::new(first, last),
                column,
                payload,
                end,
            };
            let there = (end - payload) as u64;
            let fits = match layout {
                Layout::Ends => true,
                Layout::Fixed => run.row_bytes(&bytes) * u64::from(length) == there,
                Layout::Repeated => run.row_bytes(&bytes) == there,
            };
            if !fits {
                return Err(SegmentError::Field("payload length"));
            }
            runs.push(run);
            (at, first) = (end, last);
        }
        if first != tasks {
            return Err(SegmentError::Field("task count"));
        }
        if at != bytes.len() {
            return Err(SegmentError::Trailing(bytes.len() - at));
        }
        Ok(Self { bytes, codec, tasks, runs })
    }

    /// How user values are encoded.
    pub const fn codec(&self) -> u8 {
        self.codec
    }

    /// How many tasks.
    pub const fn tasks(&self) -> u32 {
        self.tasks
    }

    /// The bytes that were parsed.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Tag and tasks (counted from the segment's first) of each run.
    pub fn runs(&self) -> impl Iterator<Item = (u16, TaskRange)> + '_ {
        self.runs.iter().map(|run| (run.tag, run.tasks))
    }

    /// The tag of the `index`-th task and its strings, written to `strings`: how many. `None` when
    /// there is no such task or its column lies.
    #[inline]
    pub fn row<'a>(
        &'a self,
        index: u32,
        strings: &mut [&'a [u8]; ARITY_MAX],
    ) -> Option<(u16, usize)> {
        let at = match self.runs.as_slice() {
            [only] if only.tasks.contains(index) => 0,
            runs => runs.partition_point(|run| run.tasks.end <= index),
        };
        let run = self.runs.get(at)?;
        let row = (index - run.tasks.start) as usize;
        let payload = &self.bytes[run.payload..run.end];
        if run.layout != Layout::Ends {
            let first = if run.layout == Layout::Repeated { 0 } else { row };
            let mut start = first * run.row_bytes(&self.bytes) as usize;
            for (position, string) in strings.iter_mut().take(run.arity).enumerate() {
                let end = start + u32_at(&self.bytes, run.column + 4 * position) as usize;
                *string = payload.get(start..end)?;
                start = end;
            }
        } else {
            let ends = run.column + 4 * row * run.arity;
            let mut start = if row == 0 { 0 } else { u32_at(&self.bytes, ends - 4) as usize };
            for (position, string) in strings.iter_mut().take(run.arity).enumerate() {
                let end = u32_at(&self.bytes, ends + 4 * position) as usize;
                *string = payload.get(start..end)?;
                start = end;
            }
        }
        Some((run.tag, run.arity))
    }

    /// The tag and the string of the `index`-th task of a segment of outcomes.
    pub fn value(&self, index: u32) -> Option<(u16, &[u8])> {
        let mut strings = [&[][..]; ARITY_MAX];
        match self.row(index, &mut strings)? {
            (tag, 1 | 2) => Some((tag, strings[0])),
            _ => None,
        }
    }

    /// Which tasks of a segment of outcomes have a second string: [`Names`](crate::names::Names) of what the first
    /// one holds handles on.
    pub fn naming(&self) -> impl Iterator<Item = TaskRange> + '_ {
        self.runs.iter().filter(|run| run.arity == 2).map(|run| run.tasks)
    }

    /// The second string of the `index`-th task of a segment of outcomes, if it has one.
    pub fn names(&self, index: u32) -> Option<&[u8]> {
        let mut strings = [&[][..]; ARITY_MAX];
        match self.row(index, &mut strings)? {
            (_, 2) => Some(strings[1]),
            _ => None,
        }
    }

    /// A segment of the tasks `range`, counted from this one's first. Copies headers, and the strings
    /// of those tasks; the whole segment is handed out as it is.
    ///
    /// # Errors
    /// When the range is not within the segment, or a column lies.
    pub fn slice(&self, range: TaskRange) -> Result<Bytes, SegmentError> {
        let whole = TaskRange::new(0, self.tasks);
        if range == whole {
            return Ok(self.bytes.clone());
        }
        if range.is_empty() || !whole.covers(range) {
            return Err(SegmentError::Field("slice"));
        }
        let mut out = Vec::new();
        out.extend_from_slice(&[VERSION, self.codec, 0, 0]);
        out.extend_from_slice(&range.len().to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        let mut count = 0u32;
        let from = self.runs.partition_point(|run| run.tasks.end <= range.start);
        for run in self.runs[from..].iter().take_while(|run| run.tasks.start < range.end) {
            self.slice_run(run, run.tasks.intersection(range), &mut out)?;
            count += 1;
        }
        out[8..12].copy_from_slice(&count.to_le_bytes());
        Ok(out.into())
    }

    fn slice_run(
        &self,
        run: &RunAt,
        part: TaskRange,
        out: &mut Vec<u8>,
    ) -> Result<(), SegmentError> {
        let wrong = SegmentError::Field("column of ends");
        let (from, to) =
            ((part.start - run.tasks.start) as usize, (part.end - run.tasks.start) as usize);
        let payload = &self.bytes[run.payload..run.end];
        if run.layout != Layout::Ends {
            let row = run.row_bytes(&self.bytes) as usize;
            let strings = match run.layout {
                Layout::Repeated => payload,
                Layout::Fixed | Layout::Ends => payload.get(from * row..to * row).ok_or(wrong)?,
            };
            write_run_header(out, run.tag, run.arity as u8, run.layout, part.len(), strings.len());
            out.extend_from_slice(&self.bytes[run.column..run.column + 4 * run.arity]);
            out.extend_from_slice(strings);
            return Ok(());
        }
        let end_of = |row: usize| match row * run.arity {
            0 => 0,
            strings => u32_at(&self.bytes, run.column + 4 * (strings - 1)),
        };
        let (start, end) = (end_of(from), end_of(to));
        let strings = payload.get(start as usize..end as usize).ok_or(wrong)?;
        write_run_header(out, run.tag, run.arity as u8, run.layout, part.len(), strings.len());
        for string in from * run.arity..to * run.arity {
            let end = u32_at(&self.bytes, run.column + 4 * string);
            out.extend_from_slice(&end.checked_sub(start).ok_or(wrong)?.to_le_bytes());
        }
        out.extend_from_slice(strings);
        Ok(())
    }
}

impl RunAt {
    /// Bytes of each task of a fixed run.
    fn row_bytes(&self, bytes: &[u8]) -> u64 {
        (0..self.arity).map(|position| u64::from(u32_at(bytes, self.column + 4 * position))).sum()
    }
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4) {
        Some(four) => u32::from_le_bytes([four[0], four[1], four[2], four[3]]),
        None => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build(tasks: &[(u16, Vec<Vec<u8>>)]) -> Bytes {
        let mut builder = SegmentBuilder::new(3);
        for (tag, strings) in tasks {
            builder.push(*tag, strings.iter().map(Vec::as_slice));
        }
        builder.finish()
    }

    fn read(segment: &Segment) -> Vec<(u16, Vec<Vec<u8>>)> {
        (0..segment.tasks())
            .map(|index| {
                let mut strings = [&[][..]; ARITY_MAX];
                let (tag, arity) = segment.row(index, &mut strings).unwrap();
                (tag, strings[..arity].iter().map(|string| string.to_vec()).collect())
            })
            .collect()
    }

    #[test]
    fn equal_lengths_stand_once() {
        let mut builder = SegmentBuilder::new(0);
        for n in 0u64..1000 {
            builder.push_with(DONE, |out| out.extend_from_slice(&n.to_le_bytes()));
        }
        let bytes = builder.finish();
        assert_eq!(bytes.len(), HEADER_BYTES + RUN_HEADER_BYTES + 4 + 8000);
        let segment = Segment::parse(bytes).unwrap();
        assert_eq!(segment.value(999), Some((DONE, &999u64.to_le_bytes()[..])));
        assert_eq!(segment.value(1000), None);
    }

    #[test]
    fn the_bytes_are_these() {
        let bytes = build(&[(1, vec![vec![5]]), (1, vec![vec![6, 7]])]);
        let expected = [
            1, 3, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, // header
            1, 0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, // run
            1, 0, 0, 0, 3, 0, 0, 0, // ends
            5, 6, 7,
        ];
        assert_eq!(bytes.as_ref(), expected);
    }

    #[test]
    fn a_builder_can_be_used_again() {
        let mut builder = SegmentBuilder::new(0);
        builder.push(0, [&b"one"[..]].into_iter());
        builder.finish();
        builder.push(0, [&b"two"[..], b"three"].into_iter());
        let segment = Segment::parse(builder.finish()).unwrap();
        assert_eq!(read(&segment), [(0, vec![b"two".to_vec(), b"three".to_vec()])]);
    }

    proptest! {
        #[test]
        fn every_slice_holds_its_tasks(
            tasks in prop::collection::vec(
                (0u16..3, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..3)),
                1..30,
            ),
            cut in (0u32..30, 1u32..30),
        ) {
            let segment = Segment::parse(build(&tasks)).unwrap();
            prop_assert_eq!(&read(&segment), &tasks);
            let range = TaskRange::new(cut.0, (cut.0 + cut.1).min(tasks.len() as u32));
            if !range.is_empty() {
                let part = Segment::parse(segment.slice(range).unwrap()).unwrap();
                prop_assert_eq!(read(&part), &tasks[range.start as usize..range.end as usize]);
                prop_assert_eq!(part.codec(), 3);
            }
        }

        #[test]
        fn damaged_bytes_never_panic(
            tasks in prop::collection::vec(
                (0u16..2, prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 1..3)),
                1..8,
            ),
            at in any::<prop::sample::Index>(),
            value in any::<u8>(),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = build(&tasks).to_vec();
            let place = at.index(bytes.len());
            bytes[place] = value;
            bytes.truncate(length.index(bytes.len()) + 1);
            if let Ok(segment) = Segment::parse(bytes.into()) {
                let mut strings = [&[][..]; ARITY_MAX];
                for index in 0..segment.tasks().min(100) {
                    let _ = segment.row(index, &mut strings);
                    let _ = segment.slice(TaskRange::new(index, segment.tasks()));
                }
            }
        }
    }
}
