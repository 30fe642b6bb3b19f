//! Outcomes one by one, in the order of the call or as they come: what `run_iter`, `run_unordered`
//! and a `Batch` are made of. What is taken here is acknowledged, so that a call whose results are
//! larger than memory runs in a bounded part of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use allhands_common::limit::DELIVER_BYTES_MAX;
use allhands_common::range::{RangeSet, TaskRange};

use super::call::Call;
use super::indices::IndexRun;
use crate::error::{Reason, RunError, TaskError, TaskErrorKind};
use crate::session::inbox::{Arrived, Inbox};

/// The outcomes of a call that have come and were not taken.
pub(crate) struct Outcomes<R> {
    pub(crate) call: Call<R>,
    ordered: bool,
    /// Pieces by the place of their first task; or, where order does not matter, by their arrival.
    pieces: BTreeMap<usize, Piece>,
    current: Option<Piece>,
    /// Tasks whose outcome has come, by part.
    come: Vec<RangeSet>,
    /// What the cluster is told of its outcome segments, by part.
    owed: Vec<Owed>,
    arrivals: usize,
    /// Tasks taken.
    pub(super) taken: usize,
    /// Bytes of outcomes that are here.
    pub(super) bytes: usize,
    /// Tasks that have no outcome, once the call is over; the last first.
    missing: Option<Vec<(u32, u32)>>,
    /// Nothing more will come than what was taken over.
    over: bool,
    /// Everything is kept to the end: it counts as taken when it comes.
    hold: bool,
}

/// Outcome segments of a part.
#[derive(Debug, Clone, Copy, Default)]
struct Owed {
    come: u32,
    taken: u32,
    /// Those that were said to be consumed.
    counted: u32,
}

/// Outcomes of tasks that are contiguous in the call.
struct Piece {
    arrived: Arc<Arrived>,
    run: IndexRun,
    /// How many were taken.
    taken: u32,
}

impl<R> Outcomes<R> {
    pub(super) fn new(call: Call<R>, ordered: bool) -> Self {
        Self {
            call,
            ordered,
            pieces: BTreeMap::new(),
            current: None,
            come: Vec::new(),
            owed: Vec::new(),
            arrivals: 0,
            taken: 0,
            bytes: 0,
            missing: None,
            over: false,
            hold: false,
        }
    }

    /// Where its outcomes come in.
    pub(crate) fn inbox(&self) -> &Inbox {
        &self.call.inbox
    }

    /// Whether an outcome was taken.
    pub(crate) const fn has_begun(&self) -> bool {
        self.taken > 0
    }

    /// From now on everything is kept to the end.
    pub(crate) const fn hold(&mut self) {
        self.hold = true;
    }

    /// Takes over what has come; whether nothing more will come.
    pub(crate) fn collect(&mut self) -> bool {
        self.absorb();
        self.call.is_over()
    }

    /// The next outcome, with its place in the call, if one is here. Does not wait.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<(usize, Result<R, TaskError>)> {
        if let Some(piece) = &mut self.current
            && piece.taken < piece.run.tasks
        {
            let (row, index) =
                (piece.run.first + piece.taken, piece.run.index + piece.taken as usize);
            piece.taken += 1;
            self.taken += 1;
            let outcome = self.call.outcome(&piece.arrived, row, index);
            self.call.keeping.release(index);
            return Some((index, outcome));
        }
        self.next_piece()
    }

    #[cold]
    fn next_piece(&mut self) -> Option<(usize, Result<R, TaskError>)> {
        self.finish_piece();
        self.absorb();
        let due =
            !self.ordered || self.pieces.first_key_value().is_some_and(|(at, _)| *at == self.taken);
        if due && let Some((_, piece)) = self.pieces.pop_first() {
            self.current = Some(piece);
            return self.next();
        }
        self.next_missing()
    }

    /// What was taken whole is acknowledged.
    fn finish_piece(&mut self) {
        if let Some(piece) = self.current.take()
            && let Some(arrived) = Arc::into_inner(piece.arrived)
        {
            self.bytes -= arrived.outcomes.weight();
            let part = arrived.part as usize;
            self.owed[part].taken += 1;
            self.count(part, self.owed[part].taken, arrived.outcomes.bytes().len());
        }
    }

    /// Says that the first `segments` of a part are consumed.
    fn count(&mut self, part: usize, segments: u32, bytes: usize) {
        let owed = &mut self.owed[part];
        if segments > owed.counted {
            self.call.consumed(part, segments - owed.counted, bytes);
            owed.counted = segments;
        }
    }

    /// The next outcome in order is not here, and may not be sent for as long as what is here counts
    /// as unread: it is kept here, and counts as consumed. How much that can be is bounded by how far
    /// the calls are consumed ahead.
    pub(super) fn make_room(&mut self) {
        for part in 0..self.owed.len() {
            self.count(part, self.owed[part].come, DELIVER_BYTES_MAX);
        }
    }

    /// Takes over what has come.
    fn absorb(&mut self) {
        let come = {
            let mut mail = self.call.inbox.mail();
            // Under the same lock: what came with the end is not missed.
            self.over = mail.is_over() && mail.sealed;
            mail.arrived_bytes = 0;
            std::mem::take(&mut mail.arrived)
        };
        for arrived in come {
            let part = arrived.part as usize;
            if self.come.len() <= part {
                self.come.resize_with(part + 1, RangeSet::new);
                self.owed.resize(part + 1, Owed::default());
            }
            self.come[part].insert(arrived.range);
            self.bytes += arrived.outcomes.weight();
            self.owed[part].come += 1;
            if self.hold {
                self.count(part, self.owed[part].come, arrived.outcomes.bytes().len());
            }
            let arrived = Arc::new(arrived);
            let range = arrived.range.start..arrived.range.end;
            for run in self.call.parts[part].indices.rows(range) {
                let key = if self.ordered { run.index } else { self.arrivals };
                self.arrivals += 1;
                let piece = Piece { arrived: Arc::clone(&arrived), run, taken: 0 };
                self.pieces.insert(key, piece);
            }
        }
    }

    /// Once the call is over: the tasks that have no outcome, in order.
    fn next_missing(&mut self) -> Option<(usize, Result<R, TaskError>)> {
        if !self.over {
            return None;
        }
        let missing = match &mut self.missing {
            Some(missing) => missing,
            None => {
                let found = self.find_missing();
                self.missing.insert(found)
            }
        };
        let (part, task) = *missing.last()?;
        let index = self.call.parts[part as usize].indices.index(task);
        if self.ordered && index != self.taken {
            return None;
        }
        missing.pop();
        self.taken += 1;
        self.call.keeping.release(index);
        let error = match self.call.disorder() {
            Some(error) => {
                let run = RunError::new(Reason::Cluster(error), self.call.finished([]));
                call_failed(index, run)
            }
            None => self.call.missing(part, task),
        };
        Some((index, Err(error)))
    }

    fn find_missing(&self) -> Vec<(u32, u32)> {
        let mut missing = Vec::new();
        for (number, part) in (0u32..).zip(&self.call.parts) {
            let all = TaskRange::new(0, part.indices.tasks());
            let none = RangeSet::new();
            let come = self.come.get(number as usize).unwrap_or(&none);
            let tasks = come.gaps(all).flat_map(|gap| gap.start..gap.end);
            missing.extend(tasks.map(|task| (number, task)));
        }
        missing.sort_by_key(|(part, task)| {
            std::cmp::Reverse(self.call.parts[*part as usize].indices.index(*task))
        });
        missing
    }

    /// Everything was taken, and nothing more will come.
    pub(crate) fn is_done(&self) -> bool {
        self.taken >= self.call.given && self.over
    }

    /// All outcomes that are here and will not be handed out one by one.
    pub(crate) fn into_rest(mut self) -> (Call<R>, Vec<Arrived>) {
        self.current = None;
        self.absorb();
        let pieces = std::mem::take(&mut self.pieces);
        // Pieces of one segment lie next to one another only in a call of one part; the last one
        // frees it in any case.
        let arrived = pieces.into_values().filter_map(|piece| Arc::into_inner(piece.arrived));
        (self.call, arrived.collect())
    }
}

/// The error of a task that the call's own failure took with it.
pub(super) fn call_failed(index: usize, error: RunError) -> TaskError {
    let kind = TaskErrorKind::Call(Arc::new(error));
    TaskError::new(index, "the call".into(), String::new(), kind)
}
