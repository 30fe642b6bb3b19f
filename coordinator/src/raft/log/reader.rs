//! Reads entries for replication and apply, by bytes: never more than [`READ_BYTES_MAX`] under one lock or in one
//! message, however many entries are asked for. Holds nothing; a reader may be dropped and made at any time.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use futures_util::{Stream, stream};
use openraft::{OptionalSend, RaftLogReader};

use super::record::Body;
use super::{Held, Shared};
use crate::raft::types::{ENTRY_BYTES_MAX, Entry, TypeConfig, Vote};

/// One append message, and one step of every longer read: an entry of the longest kind with its head still fits.
const READ_BYTES_MAX: u64 = ENTRY_BYTES_MAX as u64 + 4096;

/// A reader of the log; clones share the log.
#[derive(Debug, Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The entries `start..end`, as many as fit one read; at least one where there is one.
    fn some(&self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let held = self.shared.read()?;
        let Held { log, sizes } = &*held;
        log.read(start, sizes.run(start, end, READ_BYTES_MAX))
            .map(|entry| {
                let (id, Body(payload)) = entry?;
                Ok(Entry { log_id: id.0, payload })
            })
            .collect()
    }

    /// The part of `range` that the log holds.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> io::Result<(u64, u64)> {
        let held = self.shared.read()?;
        let state = held.log.log_state();
        let first = state.purged().map_or(0, |id| id.0.index + 1);
        let next = state.last().map_or(0, |id| id.0.index + 1);
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        Ok((start.max(first), end.min(next)))
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (mut start, end) = self.clamp(&range)?;
        let mut entries = Vec::new();
        while start < end {
            let some = self.some(start, end)?;
            let Some(last) = some.last() else { break };
            start = last.log_id.index + 1;
            entries.extend(some);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let (start, end) = self.clamp(&(start..end))?;
        if start < end { self.some(start, end) } else { Ok(Vec::new()) }
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let bounds = self.clamp(&range);
        let reader = self.clone();
        // Applied in order, so a part is read only when the part before it has been taken.
        stream::unfold((bounds, Vec::new().into_iter()), move |(bounds, mut read)| {
            let next = reader.next(bounds, &mut read);
            async move { next.map(|(entry, bounds)| (entry, (bounds, read))) }
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.read()?.log.log_state().vote().map(|vote| vote.0))
    }
}

type Bounds = io::Result<(u64, u64)>;

impl LogReader {
    /// The next entry of a stream: from what is read already, else from the log; an error ends it.
    fn next(
        &self,
        bounds: Bounds,
        read: &mut std::vec::IntoIter<Entry>,
    ) -> Option<(io::Result<Entry>, Bounds)> {
        let (start, end) = match bounds {
            Ok(bounds) => bounds,
            Err(error) => return Some((Err(error), Ok((0, 0)))),
        };
        if read.len() == 0 && start < end {
            match self.some(start, end) {
                Ok(some) => *read = some.into_iter(),
                Err(error) => return Some((Err(error), Ok((0, 0)))),
            }
        }
        let entry = read.next()?;
        let after = entry.log_id.index + 1;
        Some((Ok(entry), Ok((after, end))))
    }
}
