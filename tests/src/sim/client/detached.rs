//! Clients whose job goes on without them: when and how they go, and who comes to read it.

use std::rc::Rc;

use allhands_common::resources::Resources;
use allhands_common::wire::client::FromClient;

use super::Client;
use super::visit::Visit;
use crate::sim::climate::{Climate, MS, SECOND};
use crate::sim::rng::Rng;
use crate::sim::world::{Happening, World};

/// By how much longer things break where there is such a job: for those who read it.
const FAULTS_LAST: u64 = 8 * SECOND;

/// What a client's one job is, which goes on without it.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Opens {
    pub(in crate::sim) retention_ms: u64,
    /// When it goes, whatever it has submitted by then.
    until: u64,
    how: Going,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    /// It stays until it has everything.
    Last,
    /// It says so.
    Leaves,
    Dies,
}

impl Opens {
    fn of(rng: &mut Rng, climate: &Climate) -> Self {
        Self {
            retention_ms: rng.pick(&[0, 2_000, 8_000, 15_000, 20_000]),
            until: rng.within(SECOND..climate.faults_end),
            how: rng.pick(&[Going::Last, Going::Leaves, Going::Leaves, Going::Dies, Going::Dies]),
        }
    }
}

impl World {
    /// Adds a client whose job goes on without it, and those who come to it.
    pub(in crate::sim) fn add_detached(&mut self, rng: &mut Rng, biggest: &Resources) {
        self.climate.faults_end += FAULTS_LAST;
        let of = self.clients.len();
        let opens = Opens::of(rng, &self.climate);
        let mut opener = Client::new(of, rng, &self.climate, biggest, &[], Some(opens));
        // Others are to find something that goes on.
        for batch in opener.batches.iter_mut().filter(|_| rng.chance(500)) {
            Rc::make_mut(&mut batch.plan).lasts();
        }
        // Some go while they submit.
        let begun = opener.batches.iter().map(|batch| batch.plan.at).collect::<Vec<_>>();
        if let Some(opens) = opener.opens.as_mut().filter(|_| rng.chance(600)) {
            opens.until = rng.pick(&begun).max(SECOND / 2) + rng.skewed(0..300 * MS);
        }
        self.oracle.opens(opener.session, &opener.owner, opens.retention_ms);
        self.clients.push(opener);
        self.plan(rng.skewed(0..SECOND), Happening::ClientActs(of));
        for _ in 0..rng.within(1..5) {
            let number = self.clients.len();
            // Most are of its identity.
            let owner = if rng.chance(150) { of + 1 } else { of };
            let visit = Visit::of(rng, &self.climate, of);
            self.clients.push(Client::visitor(owner, rng, visit));
            let at = rng.skewed(0..self.climate.faults_end + 10 * SECOND);
            self.plan(at, Happening::ClientActs(number));
        }
    }

    /// Whether a client leaves its job to the cluster now, or dies.
    pub(super) fn leaves_job(&mut self, number: usize) -> bool {
        let client = &self.clients[number];
        let Some(Opens { until, how, .. }) = client.opens else { return false };
        if how == Going::Last || until > self.now {
            return false;
        }
        let (connection, attached) = (client.connection, client.attached);
        match connection.filter(|_| how == Going::Leaves && attached) {
            Some(_) => {
                self.stats.count("detached jobs left by their client");
                self.say(number, FromClient::Detach);
            }
            None => {
                self.stats.count("detached jobs whose client dies");
                if let Some(id) = connection
                    && self.rng.chance(500)
                {
                    self.cut(id);
                }
            }
        }
        self.clients[number].left = true;
        true
    }
}
