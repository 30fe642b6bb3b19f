//! Both halves together.

use allhands_common::time::Instant;

use super::fetch::Fetcher;
use super::serve::Server;
use super::{Action, Config, Event};

/// What a node decides about chunks. See the [module](super).
#[derive(Debug)]
pub struct Exchange {
    config: Config,
    fetcher: Fetcher,
    server: Server,
}

/// An invariant that does not hold; it says which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub(super) String);

impl Exchange {
    /// Without a want, a holder or an asker.
    pub fn new(config: Config) -> Self {
        Self { config, fetcher: Fetcher::new(), server: Server::new() }
    }

    /// Takes in what has happened. `now` never goes backwards; actions are appended to `out` and must be
    /// carried out in that order.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        let (config, fetcher, server) = (&self.config, &mut self.fetcher, &mut self.server);
        match event {
            Event::Tick => {}
            Event::Want { want, wanted } => fetcher.want(config, want, wanted, out),
            Event::Unwant { want } => fetcher.unwant(want, out),
            Event::Holders { blob, holders } => fetcher.holders(config, blob, &holders),
            Event::ManifestCame { request, blob, bytes, present } => {
                fetcher.manifest_came(config, now, request, blob, (bytes, present), out);
            }
            Event::Stored { request, blob, chunk } => {
                fetcher.stored(now, request, blob, chunk, out);
                server.arrived(config, now, blob, chunk, out);
            }
            Event::Damaged { blob, chunk } => fetcher.damaged(blob, chunk),
            Event::Wrong { request } => fetcher.wrong(now, request, out),
            Event::Redirected { request, to } => fetcher.redirected(config, now, request, to),
            Event::Refused { request, why } => fetcher.refused(config, now, request, why),
            Event::StoreFailed { blob } => fetcher.store_failed(blob, out),
            Event::Have { peer, blob, chunks, others } => {
                fetcher.have(config, now, peer, blob, &chunks, &others);
            }
            Event::HolderGone { peer } => fetcher.holder_gone(config, now, peer),
            Event::AskerCame { peer, reachable } => server.came(peer, reachable),
            Event::AskerGone { peer } => server.gone(peer),
            Event::Asked { ticket, blob, chunk, failed } => {
                server.asked(config, now, ticket, (blob, chunk), failed, out);
            }
            Event::Withdrawn { ticket } => server.withdrawn(ticket),
            Event::Served { ticket, found } => {
                let coming = |blob, chunk| fetcher.is_promised(blob, chunk);
                server.served(config, now, ticket, found, &coming, out);
            }
            Event::Followed { peer, blob } => server.followed(config, now, peer, blob, out),
            Event::Unfollowed { peer, blob } => server.unfollowed(peer, blob),
            Event::Present { peer, blob, chunks } => {
                server.present(config, now, peer, blob, &chunks);
            }
        }
        self.fetcher.pump(&self.config, now, out);
        self.server.pump(&self.config, now, out);
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.fetcher.next_deadline().into_iter().chain(self.server.next_deadline()).min()
    }

    /// Every invariant; for tests and simulation.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), Violation> {
        self.fetcher.check(&self.config)?;
        self.server.check(&self.config)
    }
}
