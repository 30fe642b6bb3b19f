//! What the network tests share: a cluster's identities in memory, two message types, an echo server.

pub(crate) mod raw;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use allhands_common::bulk::{Bulk, Carries};
pub(crate) use allhands_common::chain::chain;
use allhands_common::frame::{Kind, Message};
use allhands_common::id::ClusterId;
use allhands_common::net::access::{Purpose, Role};
use allhands_common::net::authority::{Authority, Validity};
use allhands_common::net::connection::Connection;
use allhands_common::net::endpoint::{ConnectError, Endpoint, Expected};
use allhands_common::net::handshake::{OpenError, accept_link, open_link};
use allhands_common::net::identity::{Identity, IdentityFiles};
use allhands_common::net::link::Link;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// Nothing here should take a second; nothing may hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Up(pub(crate) String);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Down(pub(crate) String);

impl Message for Up {
    const KIND: Kind = Kind::ClientToCoordinator;
}

impl Message for Down {
    const KIND: Kind = Kind::CoordinatorToClient;
}

impl Carries for Up {
    fn each_bulk(&mut self, _: &mut dyn FnMut(&mut Bulk)) {}
}

impl Carries for Down {
    fn each_bulk(&mut self, _: &mut dyn FnMut(&mut Bulk)) {}
}

pub(crate) fn authority(seed: u8) -> Authority {
    Authority::create(ClusterId([seed; 16])).unwrap()
}

/// The files of an identity that is valid now.
pub(crate) fn files(authority: &Authority, role: Role, name: &str) -> IdentityFiles {
    let validity = Validity::days(SystemTime::now(), 1);
    authority.issue(role, name, validity, PathBuf::from(name)).unwrap()
}

pub(crate) fn identity(authority: &Authority, role: Role, name: &str) -> Identity {
    Identity::verify(&files(authority, role, name), SystemTime::now()).unwrap()
}

/// An identity that ran out ten minutes ago, loaded while it was valid.
pub(crate) fn expired(authority: &Authority, role: Role, name: &str) -> Identity {
    let ago = |minutes: u64| SystemTime::now() - Duration::from_secs(60 * minutes);
    let validity = Validity { not_before: ago(50), not_after: ago(10) };
    let files = authority.issue(role, name, validity, PathBuf::from(name)).unwrap();
    Identity::verify(&files, ago(30)).unwrap()
}

pub(crate) fn bind(identity: Identity) -> Endpoint {
    Endpoint::bind(identity, LOOPBACK).unwrap()
}

/// An endpoint that echoes every frame of every client link, and tells what it refused.
pub(crate) struct EchoServer {
    pub(crate) address: SocketAddr,
    pub(crate) refusals: mpsc::UnboundedReceiver<String>,
}

pub(crate) fn serve_echo(identity: Identity) -> EchoServer {
    let endpoint = bind(identity);
    let address = endpoint.local_address().unwrap();
    let (tell, refusals) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(arriving) = endpoint.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                match arriving.establish().await {
                    Ok(connection) => serve_connection(connection, tell).await,
                    Err(error) => drop(tell.send(chain(&error))),
                }
            });
        }
    });
    EchoServer { address, refusals }
}

async fn serve_connection(connection: Connection, tell: mpsc::UnboundedSender<String>) {
    loop {
        match accept_link(&connection).await {
            Ok(Some(applicant)) => {
                let link = applicant.welcome("echo").await.unwrap();
                tokio::spawn(echo(link, tell.clone()));
            }
            Ok(None) => return,
            Err(error) => {
                let _ = tell.send(chain(&error));
                if error.connection_is_gone() {
                    return;
                }
            }
        }
    }
}

async fn echo(link: Link<Down, Up>, tell: mpsc::UnboundedSender<String>) {
    let (mut sender, mut receiver) = link.split();
    loop {
        match receiver.recv().await {
            Ok(Some((Up(text), bulk))) => {
                if sender.send(Down(text), bulk).await.is_err() {
                    return;
                }
            }
            Ok(None) => return drop(sender.finish().await),
            Err(error) => return drop(tell.send(chain(&error))),
        }
    }
}

/// Dials a coordinator.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    address: SocketAddr,
) -> Result<Connection, ConnectError> {
    let expected = Expected { role: Role::Coordinator, name: None };
    endpoint.connect(address, expected, DEADLINE).await
}

/// Opens a client link.
pub(crate) async fn open(connection: &Connection) -> Result<Link<Up, Down>, OpenError> {
    open_link(connection, Purpose::Client, "test").await.map(|(link, _)| link)
}

/// Sends one frame and expects it back.
pub(crate) async fn assert_echoes(link: &mut Link<Up, Down>, text: &str, bulk: Bytes) {
    link.send(Up(text.to_owned()), bulk.clone()).await.unwrap();
    assert_eq!(link.recv().await.unwrap(), Some((Down(text.to_owned()), bulk)));
}

/// Fails the test rather than hang.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}
