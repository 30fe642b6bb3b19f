//! The executor's cell: memory that a worker shares with one executor process, so that taking a task,
//! giving tasks back and naming the culprit of a crash need no message.
//!
//! The worker makes it (a sealed memfd), the executor maps the descriptor that it is handed. Nothing
//! in it survives the executor; the worker reads it once more after the executor's death.
//!
//! ```text
//!     0  magic u64 | zero
//!    64  slot 0: window u64 = limit u32 << 32 | next u32 | zero
//!   128  slot 1 ...                                                     (32 slots, 64 bytes each)
//!  2112  lane 0: current u64 = sequence u32 << 32 | (index + 1) u32 | started_us u64 | zero
//!  2176  lane 1 ...                                                   (256 lanes, 64 bytes each)
//! ```
//! An executor holds at most 32 loads, the current one and the next. The worker numbers them; load
//! `sequence` uses slot `sequence % 32`, which the worker arms again once that slot's load has
//! finished. `index` counts from the load's first task. A lane is a thread of the executor.
//!
//! Both numbers of a slot are one atomic word: a task is taken (`next` raised, below `limit`) or
//! given back (`limit` lowered, not below `next`) by one compare-and-swap, so each task is either
//! run or given back, never both. What an executor writes here is believed only as far as its own
//! tasks go: user code can overwrite it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::MmapRaw;
use rustix::fs::{MemfdFlags, SealFlags};

/// Threads of one executor, at most: what a process of waiting tasks may be asked to hold; its lanes
/// are 16 KiB.
pub const LANES_MAX: u32 = 256;

/// Loads of one executor, at most: short ones queue, so that it need not wait for a message each.
pub const SLOTS: usize = 32;

const MAGIC: u64 = u64::from_le_bytes(*b"AH cell2");
const CELL_BYTES: usize = size_of::<Layout>();

/// A cell that cannot be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The system refused.
    #[error("cannot {0} the cell of an executor")]
    System(&'static str, #[source] io::Error),
    /// The descriptor is of something else.
    #[error(
        "the descriptor that came from the worker is not a cell: {0}; run the same release of allhands on both sides"
    )]
    NotACell(&'static str),
}

#[repr(C)]
struct Layout {
    head: Head,
    slots: [Slot; SLOTS],
    lanes: [Lane; LANES_MAX as usize],
}

#[repr(C, align(64))]
struct Head {
    magic: AtomicU64,
}

#[repr(C, align(64))]
struct Slot {
    window: AtomicU64,
}

#[repr(C, align(64))]
struct Lane {
    current: AtomicU64,
    started_us: AtomicU64,
}

/// What a lane runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// Which load.
    pub sequence: u32,
    /// Which of its tasks, from 0.
    pub index: u32,
    /// Since when, on [`monotonic_us`]; 0 where the load has no timeout.
    pub started_us: u64,
}

/// One side's map of a cell.
pub struct Cell {
    map: MmapRaw,
    memory: OwnedFd,
}

impl Cell {
    /// A fresh cell, of which nothing can be taken.
    ///
    /// # Errors
    /// When there is no memory or no descriptor left.
    pub fn create() -> Result<Self, CellError> {
        let system = |what| move |error: rustix::io::Errno| CellError::System(what, error.into());
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memory = rustix::fs::memfd_create(c"allhands-cell", flags).map_err(system("make"))?;
        rustix::fs::ftruncate(&memory, CELL_BYTES as u64).map_err(system("size"))?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&memory, seals).map_err(system("seal"))?;
        let cell = Self::map(memory)?;
        cell.layout().head.magic.store(MAGIC, Ordering::Release);
        Ok(cell)
    }

    /// The cell behind a descriptor that the worker sent.
    ///
    /// # Errors
    /// When it is not one of this version, or may be cut short under the map.
    pub fn open(memory: OwnedFd) -> Result<Self, CellError> {
        let seals = rustix::fs::fcntl_get_seals(&memory)
            .map_err(|_| CellError::NotACell("it has no seals"))?;
        if !seals.contains(SealFlags::SHRINK) {
            return Err(CellError::NotACell("it can shrink"));
        }
        let cell = Self::map(memory)?;
        match cell.layout().head.magic.load(Ordering::Acquire) {
            MAGIC => Ok(cell),
            _ => Err(CellError::NotACell("its first bytes are others")),
        }
    }

    fn map(memory: OwnedFd) -> Result<Self, CellError> {
        let map = MmapRaw::map_raw(&memory).map_err(|error| CellError::System("map", error))?;
        if map.len() != CELL_BYTES {
            return Err(CellError::NotACell("its length is another"));
        }
        Ok(Self { map, memory })
    }

    /// Arms the slot of load `sequence` with `tasks` tasks. Worker only, before it announces the load.
    pub fn arm(&self, sequence: u32, tasks: u32) {
        self.window(sequence).store(u64::from(tasks) << 32, Ordering::Release);
    }

    /// Takes the next task of load `sequence` for `lane`, or `None` when none is left. With `timed`
    /// the moment is noted, for the worker's timeout. Executor only.
    ///
    /// # Panics
    /// When `lane` is not below [`LANES_MAX`].
    #[inline]
    pub fn take(&self, sequence: u32, lane: u32, timed: bool) -> Option<u32> {
        let window = self.window(sequence);
        let mut seen = window.load(Ordering::Acquire);
        let index = loop {
            let next = seen as u32;
            if next >= (seen >> 32) as u32 {
                return None;
            }
            match window.compare_exchange_weak(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => break next,
                Err(now) => seen = now,
            }
        };
        let lane = self.lane(lane);
        if timed {
            lane.started_us.store(monotonic_us(), Ordering::Relaxed);
        }
        let current = u64::from(sequence) << 32 | u64::from(index + 1);
        lane.current.store(current, Ordering::Release);
        Some(index)
    }

    /// Notes that `lane` runs nothing. Executor only, when its load has no task left for it.
    pub fn rest(&self, lane: u32) {
        let lane = self.lane(lane);
        lane.current.store(0, Ordering::Release);
        lane.started_us.store(0, Ordering::Relaxed);
    }

    /// Since when the task in `lane` counts as running; 0 where its load has no timeout.
    ///
    /// # Panics
    /// When `lane` is not below [`LANES_MAX`].
    pub fn started_us(&self, lane: u32) -> u64 {
        self.lane(lane).started_us.load(Ordering::Relaxed)
    }

    /// Notes that `lane` goes on with a task that had been taken before, and counts as begun at `started_us`.
    /// Executor only.
    ///
    /// # Panics
    /// When `lane` is not below [`LANES_MAX`].
    pub fn go_on(&self, lane: u32, Running { sequence, index, started_us }: Running) {
        let lane = self.lane(lane);
        lane.started_us.store(started_us, Ordering::Relaxed);
        lane.current.store(u64::from(sequence) << 32 | u64::from(index + 1), Ordering::Release);
    }

    /// Takes back the end of load `sequence`, as far as nobody has taken it: `keep` is asked for the
    /// new limit, given how many tasks are taken and what the limit is. The first task that was taken
    /// back and the one after the last. The worker, and an executor one of whose tasks waits for others.
    pub fn lower(&self, sequence: u32, keep: impl Fn(u32, u32) -> u32) -> (u32, u32) {
        let window = self.window(sequence);
        let mut seen = window.load(Ordering::Acquire);
        loop {
            let (limit, next) = ((seen >> 32) as u32, seen as u32);
            let lower = keep(next, limit).max(next).min(limit);
            let lowered = u64::from(lower) << 32 | u64::from(next);
            match window.compare_exchange_weak(seen, lowered, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return (lower, limit),
                Err(now) => seen = now,
            }
        }
    }

    /// How many tasks of load `sequence` were taken, and the index below which they may be.
    pub fn taken(&self, sequence: u32) -> (u32, u32) {
        let seen = self.window(sequence).load(Ordering::Acquire);
        (seen as u32, (seen >> 32) as u32)
    }

    /// What each of the first `lanes` lanes runs, where it runs something.
    pub fn running(&self, lanes: u32) -> impl Iterator<Item = Running> + '_ {
        self.layout().lanes.iter().take(lanes as usize).filter_map(|lane| {
            let current = lane.current.load(Ordering::Acquire);
            let started_us = lane.started_us.load(Ordering::Relaxed);
            let index = (current as u32).checked_sub(1)?;
            Some(Running { sequence: (current >> 32) as u32, index, started_us })
        })
    }

    #[inline]
    fn window(&self, sequence: u32) -> &AtomicU64 {
        &self.layout().slots[sequence as usize % SLOTS].window
    }

    #[inline]
    fn lane(&self, lane: u32) -> &Lane {
        &self.layout().lanes[lane as usize]
    }

    #[inline]
    #[expect(unsafe_code, reason = "memory that another process writes is seen through a pointer")]
    fn layout(&self) -> &Layout {
        let layout = self.map.as_ptr().cast::<Layout>();
        // SAFETY: the map is CELL_BYTES long (checked in `map`), aligned to a page, and lives as long as
        // `self`; the memfd is sealed against shrinking, so every byte stays there. `Layout` is made of
        // atomics only: any bit pattern is valid and the other process may write at any time.
        unsafe { &*layout }
    }
}

impl AsFd for Cell {
    /// The descriptor to hand to the executor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = (0..SLOTS as u32).map(|sequence| self.taken(sequence));
        let armed: Vec<(u32, u32)> = slots.filter(|(_, limit)| *limit > 0).collect();
        f.debug_struct("Cell").field("slots", &armed).finish_non_exhaustive()
    }
}

/// Now, in microseconds on the clock that both sides of a cell share.
pub fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

#[cfg(test)]
mod tests;
