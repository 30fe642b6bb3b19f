//! The directory's invariants.

use alloc::format;
use alloc::string::String;

use allhands_common::limit::{
    SESSION_KEEPS_MAX, SESSION_OFFERS_MAX, SESSION_WANTS_MAX, WORKER_BLOBS_MAX, WORKER_RESULTS_MAX,
    WORKER_WANTS_MAX,
};

use super::super::Dispatcher;
use super::super::check::{Violation, broken};

impl Dispatcher {
    /// What is known by blob is what is known by worker and by session, and all of it is bounded.
    pub(in super::super) fn check_blobs(&self) -> Result<(), Violation> {
        let wrong = |what: String| broken("the directory of blobs is of one piece", what);
        let blobs = &self.blobs;
        if !blobs.places.keys().eq(self.workers.keys()) {
            return wrong("its workers are others".into());
        }
        let (mut held, mut wanted, mut offered, mut awaited) = (0, 0, 0, 0);
        for (blob, known) in &blobs.known {
            if known.is_empty() {
                return wrong(format!("nobody has to do with {blob}"));
            }
            let place = |id| blobs.places.get(id);
            let mut holders = known.whole.iter().chain(&known.part);
            if holders.any(|id| place(id).is_none_or(|p| !p.blobs.contains(blob))) {
                return wrong(format!("a holder of {blob} does not hold it"));
            }
            if known.wanting.keys().any(|id| place(id).is_none_or(|p| !p.wants.contains(blob))) {
                return wrong(format!("a worker that wants {blob} does not"));
            }
            let offers = |id| blobs.offers.get(id);
            if known.offered.iter().any(|id| offers(id).is_none_or(|o| !o.blobs.contains(blob))) {
                return wrong(format!("a session that offers {blob} does not"));
            }
            let wants = |id| blobs.session_wants.get(id);
            if known.awaited.keys().any(|id| wants(id).is_none_or(|w| !w.contains(blob))) {
                return wrong(format!("a session that wants {blob} does not"));
            }
            if !known.whole.is_disjoint(&known.part) {
                return wrong(format!("a worker holds {blob}, and a part of it"));
            }
            held += known.whole.len() + known.part.len();
            wanted += known.wanting.len();
            offered += known.offered.len();
            awaited += known.awaited.len();
        }
        let counts = (
            blobs.places.values().map(|place| place.blobs.len()).sum::<usize>(),
            blobs.places.values().map(|place| place.wants.len()).sum::<usize>(),
            blobs.offers.values().map(|offers| offers.blobs.len()).sum::<usize>(),
            blobs.session_wants.values().map(|wants| wants.len()).sum::<usize>(),
        );
        if counts != (held, wanted, offered, awaited) {
            let by_blob = (held, wanted, offered, awaited);
            return wrong(format!("{counts:?} by holder, {by_blob:?} by blob"));
        }
        let keeps = |batch, id| blobs.places.get(id).is_some_and(|p| p.results.contains(batch));
        let kept = blobs.results.values().map(|keepers| keepers.len()).sum::<usize>();
        let by_worker = blobs.places.values().map(|place| place.results.len()).sum::<usize>();
        if kept != by_worker
            || blobs.results.iter().any(|(batch, ids)| !ids.iter().all(|id| keeps(batch, id)))
        {
            return wrong("who keeps results does not say so".into());
        }
        self.check_keeps()?;
        let full = blobs.places.values().any(|place| {
            place.blobs.len() > WORKER_BLOBS_MAX
                || place.wants.len() > WORKER_WANTS_MAX
                || place.results.len() > WORKER_RESULTS_MAX
        });
        let full = full || blobs.session_wants.values().any(|w| w.len() > SESSION_WANTS_MAX);
        if full || blobs.offers.values().any(|offers| offers.blobs.len() > SESSION_OFFERS_MAX) {
            return wrong("somebody has more than its share".into());
        }
        if let Some(session) = blobs.offers.keys().find(|id| !self.clients.contains_key(id)) {
            return wrong(format!("session {session} is not known"));
        }
        if let Some(what) = blobs.spread.fault(|worker| blobs.places.contains_key(&worker)) {
            return wrong(what);
        }
        let attached = |id| self.clients.get(id).is_some_and(|client| client.attached);
        if let Some(session) = blobs.session_wants.keys().find(|id| !attached(id)) {
            return wrong(format!("session {session} wants something and is away"));
        }
        Ok(())
    }

    /// What is kept by blob is what is kept by session and by worker, and all of it is bounded.
    fn check_keeps(&self) -> Result<(), Violation> {
        let wrong = |what: String| broken("what is kept for sessions is of one piece", what);
        let blobs = &self.blobs;
        let (mut by, mut at) = (0, 0);
        for (blob, kept) in &blobs.kept {
            if kept.by.is_empty() {
                return wrong(format!("{blob} is kept for nobody"));
            }
            let keeps = |id| blobs.keeps.get(id).is_some_and(|keeps| keeps.contains_key(blob));
            if !kept.by.keys().all(keeps) {
                return wrong(format!("a session for which {blob} is kept keeps it not"));
            }
            let told = |id| blobs.keepers.get(id).is_some_and(|told| told.contains(blob));
            if !kept.at.keys().all(told) {
                return wrong(format!("a worker that keeps {blob} was not told"));
            }
            if kept.at.keys().any(|id| kept.cannot.contains(id)) {
                return wrong(format!("a worker that keeps {blob} cannot"));
            }
            by += kept.by.len();
            at += kept.at.len();
        }
        let counts = (
            blobs.keeps.values().map(|keeps| keeps.len()).sum::<usize>(),
            blobs.keepers.values().map(|told| told.len()).sum::<usize>(),
        );
        if counts != (by, at) {
            return wrong(format!("{counts:?} by session and worker, {:?} by blob", (by, at)));
        }
        if blobs.keeps.values().any(|keeps| keeps.len() > SESSION_KEEPS_MAX) {
            return wrong("a session has more than its share".into());
        }
        match blobs.keeps.keys().find(|id| !self.clients.contains_key(id)) {
            Some(session) => wrong(format!("session {session} is not known")),
            None => Ok(()),
        }
    }
}
