//! One link: dialled again and again, read and written by a task of its own, so that the worker's
//! loop waits for no coordinator.

use std::net::SocketAddr;
use std::time::Duration;

use allhands_common::id::CoordinatorId;
use allhands_common::net::access::{Purpose, Role};
use allhands_common::net::endpoint::{Endpoint, Expected};
use allhands_common::net::handshake::open_link;
use allhands_common::net::link::{LinkError, LinkSender};
use allhands_common::wire::worker::{FromWorker, ToWorker};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Peer, WorkerLink, coordinator_of};
use crate::chain;

/// How long one attempt to connect may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Waits between attempts: short at first, for a coordinator that is just starting.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a link may take to send its last words.
const FINISH_DEADLINE: Duration = Duration::from_millis(500);

/// Release of this worker, for the coordinator's log.
const BUILD: &str = concat!("allhands ", env!("CARGO_PKG_VERSION"));

/// What happens on the links.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A link stands; what is put into `out` is sent.
    Up { peer: Peer, coordinator: Option<CoordinatorId>, out: UnboundedSender<FromWorker> },
    /// A message has come.
    Said { peer: Peer, message: ToWorker },
    /// A link has ended.
    Down { peer: Peer },
}

/// Keeps a link to the coordinator at `address`.
pub(super) async fn keep(
    peer: Peer,
    endpoint: Endpoint,
    address: SocketAddr,
    events: mpsc::Sender<LinkEvent>,
) {
    let mut pause = RETRY.0;
    loop {
        match dial(&endpoint, address).await {
            Ok((link, coordinator)) => {
                pause = RETRY.0;
                serve(peer, coordinator, link, &events).await;
            }
            Err(cause) => tracing::debug!(%address, cause, "no link to a coordinator"),
        }
        if events.is_closed() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(RETRY.1);
    }
}

async fn dial(
    endpoint: &Endpoint,
    address: SocketAddr,
) -> Result<(WorkerLink, Option<CoordinatorId>), String> {
    let expected = Expected { role: Role::Coordinator, name: None };
    let connection = endpoint
        .connect(address, expected, CONNECT_DEADLINE)
        .await
        .map_err(|error| chain(&error))?;
    let coordinator = coordinator_of(&connection.peer().name);
    let (link, _) =
        open_link(&connection, Purpose::Worker, BUILD).await.map_err(|error| chain(&error))?;
    Ok((link, coordinator))
}

/// Reads and writes until the link has ended.
pub(super) async fn serve(
    peer: Peer,
    coordinator: Option<CoordinatorId>,
    link: WorkerLink,
    events: &mpsc::Sender<LinkEvent>,
) {
    let (sender, mut receiver) = link.split();
    let (out, outgoing) = unbounded_channel();
    if events.send(LinkEvent::Up { peer, coordinator, out }).await.is_err() {
        return;
    }
    let reading = async {
        while let Some(message) = receiver.hear().await? {
            if events.send(LinkEvent::Said { peer, message }).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let ended =
        tokio::select! { ended = reading => ended, ended = write(sender, outgoing) => ended };
    let cause = ended.err().map(|error| chain(&error));
    tracing::debug!(peer = peer.0, cause, "a link to a coordinator has ended");
    // The worker's loop has ended when this fails.
    _ = events.send(LinkEvent::Down { peer }).await;
}

/// Sends what is put in, many messages to a flush, until nothing can be put in any more.
async fn write(
    mut sender: LinkSender<FromWorker>,
    mut outgoing: UnboundedReceiver<FromWorker>,
) -> Result<(), LinkError> {
    while let Some(message) = outgoing.recv().await {
        sender.say(message).await?;
        while let Ok(message) = outgoing.try_recv() {
            sender.say(message).await?;
        }
        sender.flush().await?;
    }
    match tokio::time::timeout(FINISH_DEADLINE, sender.finish()).await {
        Ok(finished) => finished,
        Err(_) => Ok(()),
    }
}
