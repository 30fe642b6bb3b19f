//! Kept batches of a client: their tasks name one another, it asks for what their outcomes lead to, and lets
//! go of them when nobody will name them any more.

use std::rc::Rc;

use allhands_common::execution::{Awaited, Given};
use allhands_common::id::{BatchId, TaskId};
use allhands_common::range::TaskRange;
use allhands_common::resources::Resources;
use allhands_common::segment::Segment;
use allhands_common::wire::client::{DONE_WITH_BATCH, FromClient};

use super::{Batch, Client};
use crate::sim::Violation;
use crate::sim::climate::{Climate, SECOND};
use crate::sim::graph::{Nameable, Node, Seen};
use crate::sim::rng::Rng;
use crate::sim::truth;
use crate::sim::workload::Plan;
use crate::sim::world::World;

/// How long a client stays to see that nothing is left: longer than a task is waited for that never comes.
const STAYS: u64 = 20 * SECOND;

/// Makes some of a client's batches such that their tasks name others.
pub(super) fn make_graphs(
    rng: &mut Rng,
    (climate, biggest): (&Climate, &Resources),
    batches: &mut [Batch],
    others: &[Client],
    wild: bool,
) {
    let foreign = others.iter().flat_map(|client| &client.batches).flat_map(Batch::tasks);
    let mut foreign: Vec<TaskId> = foreign.collect();
    foreign.push(TaskId { batch: BatchId([1; 16]), index: 0 });
    let mut earlier = Vec::new();
    for at in 0..batches.len() {
        if !rng.chance(700) {
            continue;
        }
        let later = batches[at..].iter().map(|batch| TaskId { batch: batch.id, index: 0 });
        let others = if wild { foreign.iter().copied().chain(later).collect() } else { Vec::new() };
        let wild = if wild { rng.pick(&[50, 200, 500]) } else { 0 };
        let from = Nameable { earlier: earlier.clone(), others, wild };
        let plan = Plan::graph(rng, climate, biggest, (batches[at].id, &from));
        batches[at].plan = Rc::new(plan);
        earlier.extend(batches[at].tasks());
    }
}

/// To whom tasks of a range were forwarded, and whether those are there for sure.
pub(super) fn forwards(
    nodes: &[Rc<Node>],
    range: TaskRange,
    segment: &Segment,
) -> impl Iterator<Item = (Awaited, bool)> + use<> {
    let nodes = nodes.iter().skip(range.start as usize);
    let mut forwards = Vec::new();
    for (index, node) in (range.start..range.end).zip(nodes) {
        let row = segment.value(index - range.start);
        let truth = row.and_then(|(tag, bytes)| truth::read(tag, bytes));
        if let Some(Seen::Forwarded(task)) = truth.map(|truth| truth.seen) {
            forwards.push((Awaited { task, follow: true }, node.is_sure(task)));
        }
    }
    forwards.into_iter()
}

impl World {
    /// A client that has all that it wanted looks whether anything is left of that, and leaves.
    pub(super) fn leave_if_done(&mut self, number: usize) -> Result<(), Violation> {
        let client = &self.clients[number];
        if client.unfinished().next().is_none() && client.awaiting.is_empty() {
            let until = self.now.max(self.climate.faults_end) + STAYS;
            // Outcomes that name one another stay until their job ends, and so may those of circles.
            let goes = client.opens.is_none() && !self.oracle.truths.wild;
            let looks = goes && client.batches.iter().any(Batch::is_kept);
            let until = if looks { until } else { self.now };
            if *self.clients[number].leaves_at.get_or_insert(until) > self.now {
                return Ok(());
            }
            if looks {
                self.check_nothing_left(number)?;
            }
            self.say(number, FromClient::Detach);
            self.clients[number].left = true;
        }
        Ok(())
    }

    /// A client waits for outcomes that those of its batches lead to.
    pub(super) fn await_others(&mut self, number: usize) {
        let waiting = self.clients[number].awaiting.iter_mut();
        let unsaid = waiting.filter(|(_, (_, said))| !*said);
        let unsaid: Vec<Awaited> = unsaid
            .map(|(of, (_, said))| {
                *said = true;
                *of
            })
            .collect();
        if !unsaid.is_empty() {
            self.say(number, FromClient::Await(unsaid));
        }
    }

    /// A client lets go of kept batches: all of them when it has all, or each that nobody will name any more.
    pub(super) fn drop_kept(&mut self, number: usize) {
        let client = &self.clients[number];
        if !client.awaiting.is_empty() {
            return;
        }
        let all_over = client.unfinished().next().is_none();
        let named_no_more = |at: usize| {
            let mut later = client.batches[at + 1..].iter().filter(|batch| batch.is_kept());
            later.all(|batch| batch.over || self.oracle.is_whole(batch.id))
        };
        let drop = |(at, batch): &(usize, &Batch)| {
            let early = batch.drops_early && named_no_more(*at);
            batch.over && batch.is_kept() && !batch.dropped && (all_over || early)
        };
        let gone: Vec<usize> =
            client.batches.iter().enumerate().filter(drop).map(|(at, _)| at).collect();
        for at in gone {
            let batch = &mut self.clients[number].batches[at];
            batch.dropped = true;
            let done = (batch.id, DONE_WITH_BATCH);
            self.say(number, FromClient::Acknowledge(vec![done]));
        }
    }

    /// Nothing of what a client has consumed is left, while its job is open.
    fn check_nothing_left(&self, number: usize) -> Result<(), Violation> {
        let (state, session) = (&self.newest().state, self.clients[number].session);
        let mine = state
            .batches
            .iter()
            .filter(|(_, batch)| state.job_of(batch).is_some_and(|job| job.session == session));
        let left: Vec<_> = mine.take(3).collect();
        if left.is_empty() {
            return Ok(());
        }
        Err(Violation {
            rule: "what nobody reads and nothing names goes",
            what: format!("{left:?}"),
        })
    }

    /// A client is given outcomes that it waits for.
    pub(super) fn client_is_given(
        &mut self,
        number: usize,
        given: Vec<Given>,
    ) -> Result<(), Violation> {
        for Given { of, outcome } in given {
            let Some((sure, _)) = self.clients[number].awaiting.remove(&of) else { continue };
            let by = format!("client {number}");
            self.oracle.check_given(of, &outcome.bytes, sure, &by)?;
            self.stats.count("outcomes awaited by clients");
        }
        Ok(())
    }
}
