//! Links to coordinators, for as long as the session lives: [`dial`] keeps them, here is said what happens
//! on them. What may pile up before a writer is bounded by the session's credit.

use std::cell::Cell;
use std::future::{pending, ready};

use allhands_common::chain::chain;
use allhands_common::id::CoordinatorId;
use allhands_common::net::access::Purpose;
use allhands_common::net::dial::{self, Dialler, Event};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::link::Link;
use allhands_common::net::place::Place;
use allhands_common::wire::client::{FromClient, ToClient};
use tokio::sync::mpsc::UnboundedSender;

use super::NoLink;
use super::core::Peer;

/// The client's end of a link.
pub(crate) type ClientLink = Link<FromClient, ToClient>;

/// What happens on the links.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A link is there; what is put into `out` is sent.
    Up { peer: Peer, coordinator: Option<CoordinatorId>, out: UnboundedSender<FromClient> },
    /// A message has come.
    Said { peer: Peer, message: ToClient },
    /// There is no link, or no longer.
    Down { peer: Peer, why: NoLink },
    /// The cluster was in this process and has ended.
    #[cfg_attr(
        not(any(feature = "embedded", test)),
        expect(dead_code, reason = "it is never in this process")
    )]
    Lost { cause: String },
}

/// Release of this library, for the other side's log.
const BUILD: &str = concat!("allhands ", env!("CARGO_PKG_VERSION"));

/// Keeps a link to the coordinator at `place` until the session has ended. Then a link that stands still
/// sends what was put in; one that does not is given up.
pub(super) async fn keep(
    peer: Peer,
    endpoint: Endpoint,
    place: Place,
    events: UnboundedSender<LinkEvent>,
) {
    let dialler = Dialler { endpoint, place, purpose: Purpose::Client, build: BUILD };
    let stands = Cell::new(false);
    let keeping = dialler.keep(|event| {
        match event {
            Event::Up { .. } => stands.set(true),
            Event::Down(_) => stands.set(false),
            Event::Said(_) => {}
        }
        ready(tell(&events, peer, event))
    });
    let given_up = async {
        events.closed().await;
        if stands.get() {
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = given_up => {}
    }
}

/// Serves a link inside this process until it is gone, and says why; `None` once the session has ended.
#[cfg_attr(
    not(any(feature = "embedded", test)),
    expect(dead_code, reason = "the cluster is never in this process")
)]
pub(super) async fn serve(
    peer: Peer,
    link: ClientLink,
    events: &UnboundedSender<LinkEvent>,
) -> Option<String> {
    let ended = dial::serve(link, None, |event| ready(tell(events, peer, event))).await;
    ended.map(|down| chain(&down))
}

/// Tells the session's loop; `false` when it has ended.
fn tell(
    events: &UnboundedSender<LinkEvent>,
    peer: Peer,
    event: Event<FromClient, ToClient>,
) -> bool {
    let event = match event {
        Event::Up { coordinator, out } => LinkEvent::Up { peer, coordinator, out },
        Event::Said(message) => LinkEvent::Said { peer, message },
        Event::Down(down) => {
            let (cause, retry_can_help) = (chain(&down), down.retry_can_help());
            LinkEvent::Down { peer, why: NoLink { cause, retry_can_help } }
        }
    };
    events.send(event).is_ok()
}
