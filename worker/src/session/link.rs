//! One link: kept, or served, by a task of its own, so that the worker's loop waits for no coordinator.

use allhands_common::net::access::Purpose;
use allhands_common::net::dial::{self, Dialler, Event};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::place::Place;
use allhands_common::wire::worker::{FromWorker, ToWorker};
use tokio::sync::mpsc;

use super::{Peer, WorkerLink};

/// Release of this worker, for the coordinator's log.
const BUILD: &str = concat!("allhands ", env!("CARGO_PKG_VERSION"));

/// What happens on which link.
pub(crate) type LinkEvent = (Peer, Event<FromWorker, ToWorker>);

/// Keeps a link to the coordinator at `place`.
pub(super) async fn keep(
    peer: Peer,
    endpoint: Endpoint,
    place: Place,
    events: mpsc::Sender<LinkEvent>,
) {
    let dialler = Dialler { endpoint, place, purpose: Purpose::Worker, build: BUILD };
    dialler.keep(|event| tell(&events, peer, event)).await;
}

/// Serves a link inside this process until it has ended, which it does but once.
pub(super) async fn serve(peer: Peer, link: WorkerLink, events: mpsc::Sender<LinkEvent>) {
    let ended = dial::serve(link, None, |event| tell(&events, peer, event)).await;
    if let Some(down) = ended {
        tell(&events, peer, Event::Down(down)).await;
    }
}

/// Tells the worker's loop; `false` when it has ended.
async fn tell(
    events: &mpsc::Sender<LinkEvent>,
    peer: Peer,
    event: Event<FromWorker, ToWorker>,
) -> bool {
    events.send((peer, event)).await.is_ok()
}
