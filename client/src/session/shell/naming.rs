//! Keeping what outcomes hold handles on, before anything else is said of them: once their batch is over, their
//! workers would let go of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use allhands_common::blob::{BlobRef, Content};
use allhands_common::execution::Given;
use allhands_common::id::{BatchId, TaskId};
use allhands_common::names::Names;
use allhands_common::range::TaskRange;
use allhands_common::segment::{Segment, SegmentError};
use allhands_common::wire::client::Keep;

use super::{Opened, Shell};
use crate::session::core::Event;
use crate::session::outcomes::without;
use crate::shared::left::{Left, Maker};
use crate::shared::whole::{self, Whole};

impl Shell {
    /// The outcomes of tasks `range` of a batch, with what they hold handles on. A task of which that cannot be kept
    /// has an error in place of its outcome.
    ///
    /// # Errors
    /// What is made of the segment is none.
    pub(super) fn keep_named(
        &mut self,
        batch: BatchId,
        range: TaskRange,
        segment: Segment,
    ) -> Result<(Segment, Vec<Arc<Whole>>), SegmentError> {
        let (mut named, mut keeps) = (Vec::new(), Vec::new());
        let mut lost = BTreeMap::new();
        let rows = segment.naming().flat_map(|rows| rows.start..rows.end);
        for row in rows {
            let names = segment.names(row).map(Names::read);
            // A handle that was not noted is not found when it is read: that is an error of its task.
            let Some(Ok(names)) = names else { continue };
            let maker = Maker { worker: names.worker, batch, task: range.start + row };
            for (content, made) in names.contents {
                match self.keep_one(content, made, maker, &mut keeps) {
                    Ok(whole) => named.extend(whole),
                    Err(why) => _ = lost.insert(row, why),
                }
            }
        }
        if !keeps.is_empty() {
            self.events.push(Event::Keep { blobs: keeps });
        }
        if lost.is_empty() {
            return Ok((segment, named));
        }
        Ok((without(&segment, |row, _, _| lost.get(&row).cloned())?, named))
    }

    /// Outcomes of tasks of other batches, whose results this process may read.
    pub(super) fn given(&mut self, given: Vec<Given>) {
        let keep = |mut given: Given| {
            let task = given.of.task;
            let range = TaskRange::new(task.index, task.index.saturating_add(1));
            let kept = Segment::parse(given.outcome.bytes.clone())
                .and_then(|segment| self.keep_named(task.batch, range, segment));
            let named = match kept {
                Ok((segment, named)) => {
                    given.outcome = segment.bytes().clone().into();
                    named
                }
                // Whoever reads it finds the damage.
                Err(_) => Vec::new(),
            };
            (given, named)
        };
        let given = given.into_iter().map(keep).collect();
        self.session.submits_given(given);
    }

    fn keep_one(
        &self,
        content: Content,
        made: bool,
        maker: Maker,
        keeps: &mut Vec<Keep>,
    ) -> Result<Option<Arc<Whole>>, String> {
        // What this process has given the task, or has of another one.
        let held = whole::held_for(self.data.cluster(), content);
        let Content::Blob { id, bytes } = content else { return Ok(held) };
        if held.is_some() {
            return Ok(held);
        }
        let blob = BlobRef { id, bytes };
        let Some(giving) = self.data.giving() else {
            return Ok(self.data.adopt(TaskId { batch: maker.batch, index: maker.task }, &id));
        };
        if !self.session.may_keep() {
            return Err(whole::too_many_kept());
        }
        let replicas = self.replicas_of(maker.batch, maker.task);
        keeps.push(Keep { blob, replicas, at: made.then_some(maker.worker) });
        Ok(Some(Whole::left(Left::new(blob, maker, Arc::clone(giving)))))
    }

    /// How many workers are to keep what a task has left.
    fn replicas_of(&self, batch: BatchId, task: u32) -> u8 {
        match self.batches.get(&batch) {
            Some(Opened::Call(exchange, _)) => exchange.replicas(),
            Some(Opened::Convoy(convoy)) => convoy.replicas(task),
            None => 1,
        }
    }
}
