//! The invariants of what tasks map, and of who was seen to have it.

use alloc::collections::BTreeMap;
use alloc::format;

use super::super::Dispatcher;
use super::super::check::{Violation, broken};
use super::{SESSION_RUNS_MAX, UNLENT_MAX};
use crate::State;

impl Dispatcher {
    /// Runs do not overlap, are counted, and belong to sessions that are known.
    pub(in super::super) fn check_needs(&self, state: &State) -> Result<(), Violation> {
        let wrong = |what| broken("what tasks map is of one piece", what);
        let mut counts = BTreeMap::new();
        for (batch, wanted) in &self.needs.batches {
            if wanted.runs.is_empty() {
                return wrong(format!("nothing is known of {batch}"));
            }
            let mut end = 0;
            for (start, run) in &wanted.runs {
                if *start < end || run.end <= *start || run.parts.is_empty() {
                    return wrong(format!("tasks {start}..{} of {batch}", run.end));
                }
                end = run.end;
            }
            *counts.entry(wanted.session).or_insert(0) += wanted.runs.len();
        }
        if counts != self.needs.runs_of {
            return wrong(format!("{counts:?}, books say {:?}", self.needs.runs_of));
        }
        if let Some(session) = counts.keys().find(|id| !self.clients.contains_key(id)) {
            return wrong(format!("session {session} is not known"));
        }
        let waits = |(batch, index): &(_, u32)| {
            let known = state.batches.get(batch).filter(|known| known.stopped().is_none());
            known.is_some_and(|known| *index < known.tasks && !known.has_ended(*index))
        };
        if let Some((batch, index)) = self.needs.unlent.keys().find(|task| !waits(task)) {
            return wrong(format!("{batch}:{index} is not tried again, wherever"));
        }
        if self.needs.unlent.len() > UNLENT_MAX {
            return wrong(format!("{} tasks could not be provided for", self.needs.unlent.len()));
        }
        match counts.iter().find(|(_, runs)| **runs > SESSION_RUNS_MAX) {
            Some((session, runs)) => wrong(format!("{runs} runs of session {session}")),
            None => Ok(()),
        }
    }
}
