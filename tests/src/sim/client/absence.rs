//! Clients that are cut off, silent or gone, and what that does to their sessions.

use allhands_common::id::Term;
use allhands_common::limit::CLIENT_LEASE_MS;

use crate::sim::Violation;
use crate::sim::climate::{MS, SECOND};
use crate::sim::connection::{ConnectionId, End};
use crate::sim::world::World;

impl World {
    pub(super) fn expired(&mut self, number: usize) -> Result<(), Violation> {
        self.client_is_heard(number, false);
        let client = &mut self.clients[number];
        client.left = client.visit.is_none();
        if client.longest_silence < CLIENT_LEASE_MS * MS {
            let what = format!("after {} ms", client.longest_silence / MS);
            return Err(Violation { rule: "a session expires after its lease, not before", what });
        }
        self.stats.count("sessions expired");
        self.visitor_expired(number);
        Ok(())
    }

    /// Measures how long no leader has heard a client; whether one does now.
    pub(in crate::sim) fn client_is_heard(&mut self, number: usize, heard: bool) {
        let now = self.now;
        let client = &mut self.clients[number];
        let last = client.last_heard.unwrap_or(now);
        client.longest_silence = client.longest_silence.max(now - last);
        if heard {
            client.last_heard = Some(now);
        }
    }

    pub(in crate::sim) fn tell_client(&mut self, number: usize, term: Term) {
        let client = &mut self.clients[number];
        if client.told < term {
            client.told = term;
            if let Some(id) = client.connection.take() {
                self.close(id, End::Peer);
            }
        }
    }

    pub(in crate::sim) fn client_loses(&mut self, number: usize, id: ConnectionId) {
        self.clients[number].connection.take_if(|connection| *connection == id);
    }

    fn any_client(&mut self) -> Option<usize> {
        let there: Vec<usize> =
            (0..self.clients.len()).filter(|number| !self.clients[*number].left).collect();
        if there.is_empty() { None } else { Some(self.rng.pick(&there)) }
    }

    pub(in crate::sim) fn cut_client(&mut self) {
        let Some(number) = self.any_client() else { return };
        if let Some(id) = self.clients[number].connection {
            self.stats.count("fault: client connections cut");
            self.cut(id);
        }
    }

    /// A client is silent for a while; or for ever.
    pub(in crate::sim) fn leave_client(&mut self) {
        let Some(number) = self.any_client() else { return };
        self.stats.count("fault: clients silent");
        let client = &mut self.clients[number];
        client.silent_until = self.now + self.rng.within(5 * SECOND..25 * SECOND);
        client.left = self.rng.chance(300);
        if let Some(id) = client.connection
            && (client.left || self.rng.chance(500))
        {
            self.cut(id);
        }
    }
}
