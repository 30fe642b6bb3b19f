//! A link on which this node asks a holder: dialled, written and read by a task of its own.

use std::time::Duration;

use allhands_common::bulk;
use allhands_common::net::access::Purpose;
use allhands_common::net::connection::Connection;
use allhands_common::net::endpoint::{ConnectError, Endpoint, Expected};
use allhands_common::net::handshake::{OpenError, open_link};
use allhands_common::net::link::{Link, LinkError, LinkReceiver, LinkSender};
use allhands_common::wire::data::{Answer, Ask, Node};
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::sync::mpsc;

use super::BUILD;
use super::shell::Input;
use super::traffic::Counter;
use crate::exchange::Peer;

/// How long one address may take to answer; a live one takes a few milliseconds.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// Asks that wait for one link, at most. The exchange bounds the chunks that are asked for; follows and
/// cancels come on top. Who lets so many wait is not asked any more.
pub(super) const ASKS_MAX: usize = 1024;

/// Whom to ask, and how to get there.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) endpoint: Endpoint,
    pub(super) node: Node,
    pub(super) addresses: Vec<SocketAddr>,
    /// A connection that stands.
    pub(super) connection: Option<Connection>,
    pub(super) counter: Counter,
}

/// What a holder has answered.
#[derive(Debug)]
pub(super) enum Heard {
    /// A chunk, in the pieces in which it came.
    Chunk {
        request: u64,
        pieces: Vec<Bytes>,
    },
    Other(Answer),
}

/// Why nothing can be asked there, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unasked {
    #[error("the other side ended the link")]
    Ended,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Lost(#[from] LinkError),
}

/// Asks whatever comes out of `asks` until the link ends, and says why it has.
pub(super) async fn run(
    (peer, link): (Peer, u64),
    way: Way,
    here: Vec<SocketAddr>,
    asks: mpsc::Receiver<Ask>,
    inputs: mpsc::Sender<Input>,
) {
    let why = match serve(peer, link, way, here, asks, &inputs).await {
        Ok(()) => Unasked::Ended,
        Err(why) => why,
    };
    // A loop that has ended has no use for it.
    let _ = inputs.send(Input::AskingEnded { peer, link, why }).await;
}

async fn serve(
    peer: Peer,
    number: u64,
    way: Way,
    here: Vec<SocketAddr>,
    asks: mpsc::Receiver<Ask>,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), Unasked> {
    let connection = match way.connection {
        Some(connection) => connection,
        None => {
            let connection = dial(&way.endpoint, &way.node, &way.addresses).await?;
            // A loop that has ended has no use for it.
            let _ = inputs.send(Input::Connected(connection.clone())).await;
            connection
        }
    };
    let (link, _): (Link<Ask, Answer>, _) = open_link(&connection, Purpose::Chunks, BUILD).await?;
    let (mut sender, receiver) = link.split();
    sender.say(Ask::Here { addresses: here }).await?;
    tokio::select! {
        written = write(sender, asks) => written,
        read = read((peer, number), receiver, &way.counter, inputs) => read,
    }
}

async fn dial(
    endpoint: &Endpoint,
    node: &Node,
    addresses: &[SocketAddr],
) -> Result<Connection, ConnectError> {
    let expected = Expected { role: node.role, name: Some(&node.name) };
    let mut last = ConnectError::Nowhere;
    for address in addresses {
        match endpoint.connect(*address, expected, CONNECT_DEADLINE).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn write(mut sender: LinkSender<Ask>, mut asks: mpsc::Receiver<Ask>) -> Result<(), Unasked> {
    while let Some(ask) = asks.recv().await {
        sender.say(ask).await?;
        if asks.is_empty() {
            sender.flush().await?;
        }
    }
    Ok(())
}

async fn read(
    (peer, link): (Peer, u64),
    mut receiver: LinkReceiver<Answer>,
    counter: &Counter,
    inputs: &mpsc::Sender<Input>,
) -> Result<(), Unasked> {
    while let Some((answer, pieces)) = receiver.hear_scattered().await? {
        counter.received(pieces.iter().map(Bytes::len).sum());
        let answer = match answer {
            // Inside a process a chunk is where the message says, in one piece.
            Answer::Chunk { request, bytes } if pieces.is_empty() => {
                Heard::Chunk { request, pieces: vec![bytes.bytes] }
            }
            Answer::Chunk { request, .. } => Heard::Chunk { request, pieces },
            mut other => {
                if !pieces.is_empty() {
                    // Its length was compared when it came.
                    let attached = bulk::attach(&mut other, pieces.concat().into());
                    debug_assert!(attached.is_ok(), "its length fits");
                }
                Heard::Other(other)
            }
        };
        if inputs.send(Input::Answered { peer, link, answer }).await.is_err() {
            break;
        }
    }
    Ok(())
}
