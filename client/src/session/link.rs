//! Links to coordinators: dialled again and again for as long as the session lives.
//!
//! Each link has a task that reads and one that writes, so that the session's loop never waits for a
//! peer: two ends that both wait to be read would wait for ever. What may pile up before the writer is
//! bounded by the session's credit.

use std::net::SocketAddr;
use std::time::Duration;

use allhands_common::id::CoordinatorId;
use allhands_common::net::access::{Purpose, Role};
use allhands_common::net::endpoint::{Endpoint, Expected};
use allhands_common::net::handshake::open_link;
use allhands_common::net::link::{Link, LinkError, LinkSender};
use allhands_common::wire::client::{FromClient, ToClient};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::core::Peer;
use crate::error::chain;

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
    Down { peer: Peer, cause: String },
    /// The cluster was in this process and has ended.
    #[cfg_attr(
        not(any(feature = "embedded", test)),
        expect(dead_code, reason = "it is never in this process")
    )]
    Lost { cause: String },
}

/// How long one attempt to connect may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Waits between attempts: short at first, for a coordinator that is just starting.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a link may take to send its last words.
const FINISH_DEADLINE: Duration = Duration::from_millis(500);

/// Release of this library, for the other side's log.
const BUILD: &str = concat!("allhands ", env!("CARGO_PKG_VERSION"));

/// Keeps a link to the coordinator at `address`.
pub(super) async fn keep(
    peer: Peer,
    endpoint: Endpoint,
    address: SocketAddr,
    events: UnboundedSender<LinkEvent>,
) {
    let mut pause = RETRY.0;
    loop {
        let cause = match dial(&endpoint, address).await {
            Ok((link, coordinator)) => {
                pause = RETRY.0;
                match serve(peer, coordinator, link, &events).await {
                    Some(cause) => cause,
                    None => return,
                }
            }
            Err(cause) => cause,
        };
        tracing::debug!(%address, cause, "no link to a coordinator");
        if events.send(LinkEvent::Down { peer, cause }).is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(RETRY.1);
    }
}

async fn dial(
    endpoint: &Endpoint,
    address: SocketAddr,
) -> Result<(ClientLink, Option<CoordinatorId>), String> {
    let expected = Expected { role: Role::Coordinator, name: None };
    let connection = endpoint
        .connect(address, expected, CONNECT_DEADLINE)
        .await
        .map_err(|error| chain(&error))?;
    let coordinator = coordinator_of(&connection.peer().name);
    let (link, _) =
        open_link(&connection, Purpose::Client, BUILD).await.map_err(|error| chain(&error))?;
    Ok((link, coordinator))
}

/// The coordinator's id, which its certificate's name ends in: `coordinator-2`, or `2`.
fn coordinator_of(name: &str) -> Option<CoordinatorId> {
    let digits = name.rsplit(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// Reads and writes until the link is gone, and says why; `None` once the session has ended.
pub(super) async fn serve(
    peer: Peer,
    coordinator: Option<CoordinatorId>,
    link: ClientLink,
    events: &UnboundedSender<LinkEvent>,
) -> Option<String> {
    let (sender, mut receiver) = link.split();
    let (out, outgoing) = unbounded_channel();
    events.send(LinkEvent::Up { peer, coordinator, out }).ok()?;
    let mut writing = std::pin::pin!(write(sender, outgoing));
    loop {
        tokio::select! {
            said = receiver.hear() => match said {
                Ok(Some(message)) => events.send(LinkEvent::Said { peer, message }).ok()?,
                Ok(None) => return Some("the coordinator ended the link: it is shutting down".into()),
                Err(error) => return Some(chain(&error)),
            },
            written = &mut writing => return written.err().map(|error| chain(&error)),
        }
    }
}

/// Sends what is put in, many messages to a flush, until the session ends.
async fn write(
    mut sender: LinkSender<FromClient>,
    mut outgoing: UnboundedReceiver<FromClient>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coordinators_name_ends_in_its_id() {
        assert_eq!(coordinator_of("coordinator-12"), Some(CoordinatorId(12)));
        assert_eq!(coordinator_of("3"), Some(CoordinatorId(3)));
        assert_eq!(coordinator_of("main"), None);
    }
}
