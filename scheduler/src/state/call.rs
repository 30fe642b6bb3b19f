//! Calls that tasks make: each is a batch of one task, whose id follows from its parent and from itself, so
//! that a parent which is run again and calls the same gets what there is.

use alloc::vec::Vec;

use allhands_common::id::WorkerId;
use allhands_common::range::TaskRange;
use allhands_common::wire::worker::ChildCall;
use smallvec::SmallVec;

use super::{Batch, Parent, State};
use crate::Effect;

impl State {
    /// A task of `worker` has called another. Whose parent has ended, or is not known, is not called.
    pub(super) fn call(&mut self, worker: WorkerId, child: ChildCall, out: &mut Vec<Effect>) {
        let ChildCall { parent, attempt, batch, spec, segment, mentions } = child;
        let mut called = Effect::Called { batch, attempt, worker, new: false };
        let caller = self.batches.get(&parent.batch).filter(|caller| {
            let waits = caller.stopped().is_none() && !caller.has_ended(parent.index);
            parent.index < caller.tasks && waits
        });
        let Some(caller) = caller else { return out.push(called) };
        let (job, sequence, call) = (caller.job, caller.sequence, caller.call);
        let above = caller.links().and_then(|links| links.parent).map_or(0, |above| above.depth);
        let depth = above.saturating_add(1);
        if let Some(known) = self.batches.get_mut(&batch) {
            let newest = known.links_mut().parent.as_mut().filter(|known| known.task == parent);
            if let Some(newest) = newest {
                newest.attempt = newest.attempt.max(attempt);
            }
            return out.push(called);
        }
        let Some(job_known) = self.jobs.get_mut(&job) else { return out.push(called) };
        let spec = job_known.share_spec(spec);
        job_known.count_batch(true);
        let mut opened = Batch {
            job,
            sequence,
            call,
            tasks: 0,
            spec,
            opened: self.at,
            arguments: SmallVec::new(),
            sealed: true,
            kept: true,
            progress: None,
        };
        let range = TaskRange::new(0, 1);
        let name = self.name_segment();
        opened.grow(name, range, segment.bytes.len(), 0);
        opened.links_mut().parent = Some(Parent { task: parent, attempt, depth, let_go: false });
        opened.progress_mut().done = true;
        self.batches.insert(batch, opened);
        self.take_early_pins(batch);
        self.pin(batch);
        if let Some(caller) = self.batches.get_mut(&parent.batch) {
            caller.links_mut().children.entry(parent.index).or_default().push(batch);
        }
        self.link(batch, range, &mentions);
        out.push(Effect::Keep { segment: name, bytes: segment.bytes.clone() });
        if let Effect::Called { new, .. } = &mut called {
            *new = true;
        }
        out.push(called);
        self.meet_equals(batch, range, segment.bytes, out);
    }
}
