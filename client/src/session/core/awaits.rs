//! Outcomes of tasks that are of no batch of this session, or are followed to where they were forwarded: asked for
//! once, and of each new leader. A task of an own batch is asked about once the cluster knows it.

use allhands_common::execution::{Awaited, Given};
use allhands_common::id::BatchId;
use allhands_common::limit::AWAITED_MAX;
use allhands_common::wire::client::FromClient;

use super::{Action, Core, Peer};

impl Core {
    pub(super) fn await_outcomes(&mut self, more: Vec<Awaited>, out: &mut Vec<Action>) {
        self.to_ask.extend(more.into_iter().filter(|one| !self.asked.contains(one)));
        self.ask_more(out);
    }

    pub(super) fn unawait(&mut self, mut gone: Vec<Awaited>, out: &mut Vec<Action>) {
        gone.retain(|one| !self.to_ask.remove(one) && self.asked.remove(one));
        if let Some(peer) = self.leader.filter(|_| !gone.is_empty()) {
            self.say(peer, FromClient::Unawait(gone), out);
        }
    }

    pub(super) fn given(&mut self, mut given: Vec<Given>, out: &mut Vec<Action>) {
        given.retain(|one| self.asked.remove(&one.of));
        if !given.is_empty() {
            out.push(Action::Given(given));
        }
        self.ask_more(out);
    }

    /// The cluster has learned of tasks of a batch.
    pub(super) fn ask_of(&mut self, batch: BatchId, out: &mut Vec<Action>) {
        if self.to_ask.iter().any(|one| one.task.batch == batch) {
            self.ask_more(out);
        }
    }

    /// A leader that has taken the session has been asked nothing.
    pub(super) fn ask_all(&mut self, peer: Peer, out: &mut Vec<Action>) {
        if !self.asked.is_empty() {
            let all = self.asked.iter().copied().collect();
            self.say(peer, FromClient::Await(all), out);
        }
        self.ask_more(out);
    }

    /// Asks what there is room for.
    fn ask_more(&mut self, out: &mut Vec<Action>) {
        let Some(peer) = self.leader.filter(|_| !self.to_ask.is_empty()) else { return };
        let is_known = |one: &&Awaited| {
            let own = self.batches.get(&one.task.batch);
            own.is_none_or(|batch| batch.outbox.committed > one.task.index)
        };
        let room = AWAITED_MAX - self.asked.len();
        let ask: Vec<Awaited> = self.to_ask.iter().filter(is_known).take(room).copied().collect();
        if ask.is_empty() {
            return;
        }
        for one in &ask {
            self.to_ask.remove(one);
            self.asked.insert(*one);
        }
        self.say(peer, FromClient::Await(ask), out);
    }
}
