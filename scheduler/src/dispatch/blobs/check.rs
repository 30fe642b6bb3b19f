//! The directory's invariants.

use alloc::format;
use alloc::string::String;

use allhands_common::limit::{SESSION_OFFERS_MAX, WORKER_BLOBS_MAX, WORKER_WANTS_MAX};

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
        let (mut held, mut wanted, mut offered) = (0, 0, 0);
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
            if !known.whole.is_disjoint(&known.part) {
                return wrong(format!("a worker holds {blob}, and a part of it"));
            }
            held += known.whole.len() + known.part.len();
            wanted += known.wanting.len();
            offered += known.offered.len();
        }
        let counts = (
            blobs.places.values().map(|place| place.blobs.len()).sum::<usize>(),
            blobs.places.values().map(|place| place.wants.len()).sum::<usize>(),
            blobs.offers.values().map(|offers| offers.blobs.len()).sum::<usize>(),
        );
        if counts != (held, wanted, offered) {
            return wrong(format!("{counts:?} by holder, {:?} by blob", (held, wanted, offered)));
        }
        let full = blobs.places.values().any(|place| {
            place.blobs.len() > WORKER_BLOBS_MAX || place.wants.len() > WORKER_WANTS_MAX
        });
        if full || blobs.offers.values().any(|offers| offers.blobs.len() > SESSION_OFFERS_MAX) {
            return wrong("somebody has more than its share".into());
        }
        if let Some(session) = blobs.offers.keys().find(|id| !self.clients.contains_key(id)) {
            return wrong(format!("session {session} is not known"));
        }
        Ok(())
    }
}
